"""Fingerprints of what the runner stands on in DSPy, and where of ours it does."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from tests.contract_dspy import relied
from tests.contract_dspy.holds import ROOT, RUNNER, Hold, Kind, holds, resolve
from tests.contract_dspy.relied import Relied

PINNED = frozenset(Kind) - {Kind.USES}
"""What must be in the table; a public name has only to exist."""


@dataclass(frozen=True)
class Pin:
    """A line of the table, and the module of `relied` that has it."""

    entry: Relied
    file: str

    @property
    def places(self) -> list[str]:
        """file:line of ours, each."""
        if self.entry.where:
            return [place_of(self.entry.where)]
        return [hold.at for hold in holds() if hold.symbol == self.entry.symbol and hold.kind in PINNED]


@cache
def pins() -> tuple[Pin, ...]:
    """The whole table."""
    found: list[Pin] = []
    for module in sorted(each.name for each in pkgutil.iter_modules(relied.__path__)):
        imported = importlib.import_module(f"{relied.__name__}.{module}")
        found += [Pin(entry, f"tests/contract_dspy/relied/{module}.py") for entry in imported.RELIED]
    return tuple(found)


def unlisted(found: tuple[Hold, ...]) -> Iterator[Hold]:
    """What is held and has no line."""
    listed = {pin.entry.symbol for pin in pins()}
    yield from (hold for hold in found if hold.kind in PINNED and hold.symbol not in listed)


def line_for(symbol: str, *, signature: bool = False) -> str:
    """A line for the table, but for its reason."""
    return f'Relied("{symbol}", {current(symbol, "(" if signature else "")!r}, "WHY"),'


def current(symbol: str, like: str = "") -> str:
    """The fingerprint of a symbol as it is installed.

    Args:
        symbol: as in the table.
        like: an earlier one, whose form is kept; "" takes the form that fits best.
    Raises:
        LookupError: it is not there any more.
    """
    if "#" in symbol:
        return _mentions(symbol)
    found = _plain(resolve(symbol))
    if isinstance(found, ModuleType):
        return "module"
    if isinstance(found, type) and issubclass(found, BaseException) and not like:
        like = "is "
    if like.startswith("is ") and isinstance(found, type):
        return "is " + " < ".join(each.__name__ for each in found.__mro__[:-1])
    if like.startswith("(") and callable(found):
        return _signature(found)
    if callable(found):
        return f"source {hashlib.sha256(_source(found).encode()).hexdigest()[:16]}"
    return f"= {found!r}"


def place_of(where: str) -> str:
    """file:line of `file.py::Name.inner` of the runner.

    Raises:
        LookupError: there is no such thing.
    """
    file, _, name = where.partition("::")
    path = RUNNER / file
    node: ast.AST = ast.parse(path.read_text("utf-8"))
    for part in name.split("."):
        inner = next((each for each in ast.iter_child_nodes(node) if _name(each) == part), None)
        if inner is None:
            raise LookupError(f"{where}: no {part} in {path.relative_to(ROOT)}")
        node = inner
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def _name(node: ast.AST) -> str:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(name)]) | ast.AnnAssign(target=ast.Name(name)):
            return name
    return ""


def _plain(found: object) -> object:
    if isinstance(found, property):
        found = found.fget
    return inspect.unwrap(found) if callable(found) else found


def _source(found: object) -> str:
    return textwrap.dedent(inspect.getsource(found))  # type: ignore[arg-type]


def _signature(found: object) -> str:
    """Names, kinds and defaults, without the types."""
    signature = inspect.signature(found)  # type: ignore[arg-type]
    parameters = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    text = str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _mentions(symbol: str) -> str:
    """The lines of the class's module that name an attribute which is set on its objects."""
    class_name, _, attributes = symbol.partition("#")
    module = importlib.import_module(resolve(class_name).__module__)
    attribute = re.compile(rf"\b{re.escape(attributes.split('.')[0])}\b")
    lines = [line.strip() for line in inspect.getsource(module).splitlines() if attribute.search(line)]
    if not lines:
        raise LookupError(f"{class_name} has no {attributes} any more")
    return f"mentions {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:16]}"
