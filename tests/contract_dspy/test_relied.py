"""Each line of the table, against the DSPy that is installed."""

from __future__ import annotations

import pytest

from tests.contract_dspy.pins import Pin, current, pins


@pytest.mark.parametrize("pin", [pytest.param(pin, id=pin.entry.symbol) for pin in pins()])
def test_what_we_rely_on_is_as_it_was(pin: Pin) -> None:
    try:
        found = current(pin.entry.symbol, pin.entry.pin)
    except LookupError as error:
        found = str(error)
    assert found == pin.entry.pin, (
        f"{pin.entry.symbol} is not what it was: {pin.entry.why}.\n"
        f"It is relied on at {', '.join(pin.places)}. Read the difference, correct these, "
        f"then write in {pin.file}: {found!r}"
    )
