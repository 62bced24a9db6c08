"""End-to-end tests: the real operator in a real cluster, its pods, DSPy, Ollama and a model. `make e2e`."""
