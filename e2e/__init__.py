"""Things that run the whole product: a real model, a real cluster, the demo."""
