"""The table: what of DSPy 3.4 the runner stands on, one module for each subject.

A line is `Relied(symbol, fingerprint, why)`. To add one: `python -m tests.contract_dspy SYMBOL` prints it; write why, and
put it into the module of your subject (a new one is found by itself: a tuple RELIED). Fingerprints are of four forms:
`source` (a hash of it: for what we replace, override or repeat), a signature (for what we call), `is` (the classes that an
exception is caught by), `=` (a value). Where we rely on something without naming it, `where` says which of our functions
does, as `file.py::Name` below the runner.

After an upgrade a test fails for each line that does not hold, with the place of ours: read the difference there, correct
what depends on it, then write the new fingerprint.
"""

from typing import NamedTuple


class Relied(NamedTuple):
    """One line."""

    symbol: str
    pin: str
    """Fingerprint as of the installed version."""
    why: str
    """What of ours would be wrong if it changed."""
    where: str = ""
