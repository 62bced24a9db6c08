"""The texts that stand beside the members of an enum, or the fields of a model, in its source: pages are generated from them."""

from __future__ import annotations

import ast
import inspect


def said_beside(of: type) -> dict[str, str]:
    """Name of each member or field -> the text below it, "" where there is none."""
    (tree,) = ast.parse(inspect.getsource(of)).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for member, below in zip(tree.body, [*tree.body[1:], ast.Pass()], strict=True):
        target = member.targets[0] if isinstance(member, ast.Assign) else getattr(member, "target", None)
        if isinstance(target, ast.Name):
            text = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
            found[target.id] = str(text)
    return found
