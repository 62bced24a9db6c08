"""Prints lines for the table: `python -m tests.contract_dspy dspy.Refine.forward`; `(dspy.Refine.__init__` for a signature."""

import sys

from tests.contract_dspy.pins import line_for

for symbol in sys.argv[1:]:
    print(line_for(symbol.removeprefix("("), signature=symbol.startswith("(")))
