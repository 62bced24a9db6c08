"""dspy-operator: prompt optimization as a Kubernetes API."""

__version__ = "0.1.0.dev0"
