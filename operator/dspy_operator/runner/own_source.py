"""Code of somebody's own as a part of `program.py`, a reward or the program itself: its file's text stands there as it is, so
that the program runs alone.

DSPy's Refine shows the model the reward's source, so it has to be in a file; a second file would be no part of a revision.
"""

from __future__ import annotations

import ast
from collections.abc import Set
from dataclasses import dataclass

from dspy_operator.contract.exits import Reason, RunFailed

OWN = frozenset({"ADAPTER", "Attempt", "REQUEST", "STATE", "load", "main", "typed"})
"""What program.py of a Single program or one of code defines, beside signatures."""
PROGRAM = "spec.program.code"
"""Path of a program that is code."""
_SHARED = frozenset(
    f"import {name}"
    for name in (*("argparse", "datetime", "inspect", "json", "logging", "os", "dspy", "re2"),)
) | {"from pathlib import Path"}  # fmt: skip
_SHARED_FROM = frozenset({"typing", "pydantic", "pydantic_core"})
"""Modules whose names mean the same in any file."""
_DEFINITIONS = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


@dataclass(frozen=True)
class OwnText:
    """A file, ready to stand in `program.py`."""

    text: str
    function: str
    path: str
    """Of the field that names it."""
    file: str = ""
    """What it is called; empty of what is only imported."""
    outputs: tuple[str, ...] = ()
    """That a program declares."""

    @property
    def is_program(self) -> bool:
        """Whether it is no reward."""
        return self.path == PROGRAM


def imported(entrypoint: str, path: str, taken: Set[str]) -> OwnText:
    """A program in an image: its module has others beside it, so that it is imported and not copied.

    Raises:
        RunFailed: InvalidProgram, where program.py has the name itself.
    """
    module, _, function = entrypoint.partition(":")
    if function in taken:
        message = f'"{function}" is a name that program.py uses itself'
        raise RunFailed(Reason.INVALID_PROGRAM, message, path=f"{path}.entrypoint")
    return OwnText(f"from {module} import {function}", function, path)


def own_text(content: bytes, function: str, path: str, taken: Set[str], file: str = "") -> OwnText:
    """The file, where it can stand there.

    Args:
        content: of the file.
        function: that gives the reward, or builds the program.
        path: of the field that names it.
        taken: names that program.py uses itself.
        file: what it is called.
    Raises:
        RunFailed: InvalidProgram, with the line.
    """
    text = content.decode("utf-8-sig").replace("\r\n", "\n").strip()
    tree, what = ast.parse(text), "program" if path == PROGRAM else "reward"  # it was imported
    for place, node in enumerate(tree.body):
        if (why := _refused(node, taken, first=place == 0)) is not None:
            raise RunFailed(Reason.INVALID_PROGRAM, f"line {node.lineno} of the {what}: {why}", path=path)
    kinds = (ast.FunctionDef, ast.ClassDef) if path == PROGRAM else (ast.FunctionDef,)
    if not any(isinstance(node, kinds) and node.name == function for node in tree.body):
        allowed = "a function (def) or class" if path == PROGRAM else "a function (def)"
        message = f'the {what} "{function}" has to be {allowed} of its own file'
        raise RunFailed(Reason.INVALID_PROGRAM, message, path=f"{path}.entrypoint")
    return OwnText(text, function, path, file)


def _refused(node: ast.stmt, taken: Set[str], *, first: bool) -> str | None:
    """Why a statement cannot stand at the top of program.py, or None."""
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
        return "`from __future__` cannot stand there: the file becomes a part of program.py"
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        if ast.unparse(node) in _SHARED or (isinstance(node, ast.ImportFrom) and node.module in _SHARED_FROM):
            return None
    elif not isinstance(node, _DEFINITIONS) and not (first and _is_text(node)):
        return "only imports, definitions and assignments can stand there: the file becomes a part of program.py"
    found = sorted(_bound(node) & taken)
    return f'"{found[0]}" is a name that program.py uses itself' if found else None


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _bound(node: ast.stmt) -> set[str]:
    """Names that a statement gives a meaning to."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
