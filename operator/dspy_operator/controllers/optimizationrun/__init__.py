"""OptimizationRun: one Job a try, typed ends, a budget that holds for the name's whole life.

What is true is derived on each pass from the spec, the children and the account (`<program>-account`), never from the phase
before. Read in this order: `transitions` (what a run may go through), `account` (what survives everything), `tries` (what
became of a try), `endings` (what an end means), `decide` (the order of a pass) with its steps `settle`, `live`, `attempts`,
`start`, `over`; `draft` is what they all look at, `told` and `figures` are the status.
"""
