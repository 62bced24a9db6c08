"""How any kind is kept true: watch -> cache -> queue -> reconcile -> apply -> status. Knows no kind by name."""
