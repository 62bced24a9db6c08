"""The whole operator as a process on a real API server; its pods are played by tests/simulator."""
