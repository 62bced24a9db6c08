"""`dspy-operator`: run, validate and verify on one machine, with the manifests that a cluster would get."""
