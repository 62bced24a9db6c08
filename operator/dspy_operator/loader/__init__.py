"""The sidecar of an Ollama pod: pulls the model, loads it, answers /readyz, and reports through the endpoint's channel."""
