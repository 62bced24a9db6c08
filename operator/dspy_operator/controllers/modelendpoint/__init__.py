"""A ModelEndpoint is true when the model answers, or can as soon as a run needs it."""
