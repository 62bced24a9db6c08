"""What the runner holds of DSPy is in the table of the contract test, so that an upgrade fails where it matters."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.contract_dspy.holds import Hold, Kind, holds, holds_of, resolve
from tests.contract_dspy.pins import line_for, pins, place_of, unlisted


def test_whatever_is_replaced_overridden_or_taken_from_inside_is_listed() -> None:
    found = list(unlisted(holds()))
    told = "\n".join(f"{hold.at} {hold.kind} {hold.symbol}\n    {_line(hold)}" for hold in found)
    assert not found, (
        f"not in the table of what the runner relies on:\n{told}\n"
        "Write why in place of WHY and put the line into the RELIED of your subject's module in tests/contract_dspy/relied/ "
        "(a new module there is found by itself)."
    )


def test_every_name_of_dspy_that_the_runner_uses_exists() -> None:
    problems = []
    for hold in holds():
        try:
            resolve(hold.symbol)
        except LookupError as error:
            problems.append(f"{hold.at}: {error}")
    assert not problems, "\n".join(problems)


def test_every_line_of_the_table_says_who_relies_on_it() -> None:
    problems = []
    for pin in pins():
        if not pin.entry.where:
            if not pin.places:
                problems.append(f"{pin.file}: {pin.entry.symbol} is held no more: remove its line, or say `where`")
            continue
        try:
            place_of(pin.entry.where)
        except LookupError as error:
            problems.append(f"{pin.file}: {pin.entry.symbol}: {error}")
    assert not problems, "\n".join(problems)


def test_no_symbol_is_listed_twice() -> None:
    symbols = [(pin.entry.symbol, pin.entry.where) for pin in pins()]
    assert len(symbols) == len(set(symbols))


@pytest.mark.parametrize(
    ("source", "want"),
    [
        pytest.param(
            """
            from dspy.teleprompt import simba
            simba.wrap_program = None
            """,
            (Kind.REPLACES, "dspy.teleprompt.simba.wrap_program"),
            id="a function that is replaced in its module",
        ),
        pytest.param(
            """
            import dspy.evaluate.evaluate as evaluate
            setattr(evaluate, "Evaluate", None)
            """,
            (Kind.REPLACES, "dspy.evaluate.evaluate.Evaluate"),
            id="the same by setattr",
        ),
        pytest.param(
            """
            import dspy
            class Ours(dspy.Refine):
                def forward(self): ...
            """,
            (Kind.OVERRIDES, "dspy.Refine.forward"),
            id="a method that a subclass has of its own",
        ),
        pytest.param(
            """
            import dspy
            class First(dspy.Module): ...
            class Second(First):
                def named_predictors(self): ...
            """,
            (Kind.OVERRIDES, "dspy.Module.named_predictors"),
            id="the same two classes further down",
        ),
        pytest.param(
            """
            def lazily():
                from dspy.adapters.utils import parse_value
            """,
            (Kind.INTERNAL, "dspy.adapters.utils.parse_value"),
            id="an import from inside",
        ),
        pytest.param(
            """
            import dspy
            def build():
                return Ours(3)
            class Ours(dspy.BestOfN): ...
            """,
            (Kind.BUILDS, "dspy.BestOfN.__init__"),
            id="a module that is built through a subclass of ours",
        ),
        pytest.param(
            """
            import dspy
            optimizer = dspy.MIPROv2(metric=None)
            optimizer.num_instruct_candidates = 3
            """,
            (Kind.SETS, "dspy.MIPROv2#num_instruct_candidates"),
            id="an attribute that is set on an optimizer",
        ),
        pytest.param(
            '''
            TEMPLATE = """
            class Plain(dspy.XMLAdapter):
                def parse(self): ...
            """
            ''',
            (Kind.OVERRIDES, "dspy.XMLAdapter.parse"),
            id="source in a text, as program.py is made of",
        ),
    ],
)
def test_a_hold_is_found(source: str, want: tuple[Kind, str]) -> None:
    found = list(holds_of(textwrap.dedent(source), Path("ours.py")))
    assert want in [(hold.kind, hold.symbol) for hold in found]
    assert all(hold.at.startswith("ours.py:") for hold in found)


def test_a_new_hold_has_no_line() -> None:
    new = Hold(Kind.REPLACES, "dspy.utils.parallelizer.new_in_this_test", "ours.py:3")
    assert list(unlisted((new,))) == [new]


def _line(hold: Hold) -> str:
    return line_for(hold.symbol, signature=hold.kind is Kind.BUILDS)
