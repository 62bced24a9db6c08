"""Finds what the runner holds of DSPy and its parts: in its source, and in the source that it writes (program.py)."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNNER = ROOT / "operator" / "dspy_operator" / "runner"
LIBRARIES = ("dspy", "gepa", "optuna")
_PUBLIC = ("dspy.lm15", "dspy.evaluate")
"""Modules whose names count as public, beside `dspy` itself."""


class Kind(StrEnum):
    """How something of a library is held."""

    USES = "uses"
    """By a public name: it must exist."""
    BUILDS = "builds"
    """Calls the constructor of an optimizer, a module, an adapter or an evaluation."""
    INTERNAL = "takes from inside"
    """By a name that DSPy does not export at its top, or that begins with an underscore."""
    REPLACES = "replaces"
    """Puts something of ours in its place."""
    OVERRIDES = "overrides"
    """A subclass has its own."""
    SETS = "sets an attribute of"
    """Writes to an object of the library."""


@dataclass(frozen=True)
class Hold:
    """One of them."""

    kind: Kind
    symbol: str
    """Full dotted name; an attribute that is set on an object stands behind a #."""
    at: str
    """file:line of ours"""


@cache
def holds() -> tuple[Hold, ...]:
    """All of the runner's."""
    return tuple(hold for path in sorted(RUNNER.rglob("*.py")) for hold in holds_of(path.read_text("utf-8"), path))


def holds_of(source: str, path: Path) -> Iterator[Hold]:
    """Those of one file."""
    name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
    scan, tree = _Scan(name, source.splitlines()), ast.parse(source)
    scan.visit(tree)
    scan.found.clear()
    scan.visit(tree)  # by now it knows the classes that stand below their first use
    yield from scan.found


def resolve(symbol: str) -> object:
    """What a dotted name is.

    Raises:
        LookupError: nothing has that name.
    """
    parts = symbol.partition("#")[0].split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            try:
                found = getattr(found, part)
            except AttributeError:
                raise LookupError(f"{symbol} does not exist: there is no {part} in {found!r}") from None
        return found
    raise LookupError(f"{symbol} does not exist: no module {parts[0]}")


@dataclass
class _Scan(ast.NodeVisitor):
    """Follows names to the libraries they come from; no type inference beyond `x = dspy.Something(...)`."""

    file: str
    lines: list[str]
    found: dict[Hold, None] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    """Our name -> dotted name in a library."""
    objects: dict[str, str] = field(default_factory=dict)
    """Our variable -> the class that it was built from."""
    subclasses: dict[str, str] = field(default_factory=dict)
    """Our class -> its base in a library."""
    own: set[str] = field(default_factory=set)
    """Attributes that such classes add."""
    first_line: int = 0
    """Of source within a text."""

    def hold(self, kind: Kind, symbol: str, node: ast.AST) -> None:
        if kind is Kind.USES and _is_internal(symbol):
            kind = Kind.INTERNAL
        self.found[Hold(kind, symbol, f"{self.file}:{getattr(node, 'lineno', 1) + self.first_line}")] = None

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if _of_library(alias.name):
                self.names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
                self.hold(Kind.USES, alias.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level == 0 and node.module and _of_library(node.module):
            for alias in node.names:
                symbol = f"{node.module}.{alias.name}"
                self.names[alias.asname or alias.name] = symbol
                self.hold(Kind.USES, symbol, node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        symbol = self.symbol(node)
        if symbol is None:
            self.generic_visit(node)
        else:
            self.hold(Kind.USES, symbol, node)

    def visit_Call(self, node: ast.Call) -> None:
        built = self.built(node)
        if built is not None and _is_part(built):
            self.hold(Kind.BUILDS, f"{built}.__init__", node)
        match node:
            case ast.Call(func=ast.Name("setattr"), args=[target, ast.Constant(str(name)), _]):
                self.written(ast.Attribute(target, name, ast.Store()), node)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self.written(target, node)
            self.named(target, node.value)
        self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.written(node.target, node)
        self.named(node.target, node.value)
        self.visit(node.annotation)
        if node.value is not None:
            self.visit(node.value)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            symbol = self.symbol(base) or self.subclasses.get(getattr(base, "id", ""))
            if symbol is None:
                continue
            self.subclasses[node.name] = symbol
            for name, at in _members(node):
                # What `object` gives every class is nobody's choice; __init__ counts where the base has its own.
                if hasattr(resolve(symbol), name) and getattr(resolve(symbol), name) is not getattr(object, name, None):
                    self.hold(Kind.OVERRIDES, f"{symbol}.{name}", at)
                else:
                    self.own.add(name)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outside, self.objects = self.objects, dict(self.objects)
        self.generic_visit(node)
        self.objects = outside

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring says much that is not done
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Source within a text is source of ours, too: it is what program.py is made of."""
        if not isinstance(node.value, str) or "dspy." not in node.value or "\n" not in node.value:
            return
        try:
            tree = ast.parse(textwrap.dedent(node.value))
        except SyntaxError:
            return
        opening = self.lines[node.lineno - 1].rstrip() if node.lineno <= len(self.lines) else ""
        first_line = node.lineno - 1 + opening.endswith("\\")
        inner = _Scan(self.file, [], self.found, names={"dspy": "dspy"}, first_line=first_line)
        inner.visit(tree)

    def symbol(self, node: ast.AST) -> str | None:
        """The dotted name in a library that an expression is, as far as it leads through modules and classes."""
        attributes: list[str] = []
        while isinstance(node, ast.Attribute):
            attributes.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.names:
            return None
        symbol = self.names[node.id]
        for attribute in attributes:
            here = resolve(symbol)
            if not isinstance(here, type) and not hasattr(here, "__path__") and not hasattr(here, "__file__"):
                break
            symbol = f"{symbol}.{attribute}"
        return symbol

    def built(self, node: ast.AST | None) -> str | None:
        """The class of a library that a call builds, also through a subclass of ours."""
        if not isinstance(node, ast.Call):
            return None
        symbol = self.symbol(node.func) or self.subclasses.get(getattr(node.func, "id", ""))
        return symbol if symbol is not None and isinstance(resolve(symbol), type) else None

    def named(self, target: ast.AST, value: ast.AST | None) -> None:
        if not isinstance(target, ast.Name):
            return
        match value:
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(str(module))]) if _of_library(
                module
            ):
                self.names[target.id] = module
                self.hold(Kind.USES, module, value)
        self.objects.pop(target.id, None)
        if (built := self.built(value)) is not None:
            self.objects[target.id] = built

    def written(self, target: ast.AST, at: ast.AST) -> None:
        if not isinstance(target, ast.Attribute):
            return
        if (symbol := self.symbol(target)) is not None:
            self.hold(Kind.REPLACES, symbol, at)
            return
        attributes: list[str] = []
        node: ast.AST = target
        while isinstance(node, ast.Attribute):
            attributes.insert(0, node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id in self.objects and attributes[0] not in self.own:
            self.hold(Kind.SETS, f"{self.objects[node.id]}#{'.'.join(attributes)}", at)


def _members(node: ast.ClassDef) -> Iterator[tuple[str, ast.AST]]:
    for each in node.body:
        match each:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, each
            case ast.AnnAssign(target=ast.Name(name)):
                yield name, each
            case ast.Assign(targets=targets):
                for target in targets:
                    if isinstance(target, ast.Name):
                        yield target.id, each


def _of_library(module: str) -> bool:
    return module.partition(".")[0] in LIBRARIES


def _is_internal(symbol: str) -> bool:
    library, *parts = symbol.split(".")
    if any(part.startswith("_") and not part.startswith("__") for part in parts):
        return True
    if library != "dspy" or len(parts) < 2 or f"dspy.{parts[0]}" in _PUBLIC:
        return False
    return not isinstance(resolve(f"dspy.{parts[0]}"), type)


def _is_part(symbol: str) -> bool:
    import dspy
    from dspy.teleprompt.teleprompt import Teleprompter

    found = resolve(symbol)
    return isinstance(found, type) and issubclass(
        found, (dspy.Module, dspy.Adapter, dspy.Evaluate, dspy.BaseLM, Teleprompter)
    )
