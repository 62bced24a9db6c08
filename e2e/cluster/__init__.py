"""A real Kubernetes cluster for the end-to-end tests, from nothing, by one command: `python -m e2e.cluster up`."""
