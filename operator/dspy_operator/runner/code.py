"""Functions of somebody's own: found, compared with what was validated, imported, and called without a stack trace for users.

They run in the runner's process, with all that it may do: docs/decisions/020-code.md.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import math
import numbers
import sys
import traceback
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspy_operator.contract.canonical import sha256_hex
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import CodePart

_SHOWN_CHARACTERS = 400


class Broken(Exception):
    """What a function did that it must not do, with file and line where it did it."""


@dataclass(frozen=True)
class Function:
    """A function of somebody's own."""

    path: str
    """Of the field in the program that names it."""
    call: Callable[..., Any]
    name: str
    file: str
    """The module's; empty where it has none that can be read."""
    sha256: str
    """Of the file."""
    content: bytes = b""
    """Of the file."""

    def __call__(self, *arguments: Any) -> Any:
        """What the function gives.

        Raises:
            Broken: it raised. What ends a run is no Exception, and goes through.
        """
        try:
            return self.call(*arguments)
        except (Exception, SystemExit) as error:  # whatever somebody's code raises
            raise Broken(f"{self.where(error)} raised {said(error)}") from error

    def where(self, error: BaseException) -> str:
        """The last line of the function's own file that an error came through: `metric.py, line 7, in score`."""
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.file]
        name = Path(self.file).name or self.name
        return f"{name}, line {frames[-1].lineno}, in {frames[-1].name}" if frames else f"{name}, {self.name}"


def digest_of(path: str, part: CodePart) -> str:
    """sha256 of a module's file.

    Raises:
        RunFailed: CodeNotFound.
    """
    return f"sha256:{sha256_hex(_content(path, part)[0])}"


def load(code: Mapping[str, CodePart]) -> dict[str, Function]:
    """Path -> the function.

    Raises:
        RunFailed: CodeNotFound; InvalidMetric or InvalidProgram where a file is another one than was validated, cannot be
            imported, or has no such function, with its line.
    """
    images = {part.source: path for path, part in code.items() if part.file is None}
    if len(images) > 1:
        path, named = list(images.values())[-1], " and ".join(images)
        raise RunFailed(reason_of(path), f"{named}: a pod runs in one image, put the code into the same", path=path)
    return {path: _load(path, part) for path, part in code.items()}


def reason_of(path: str) -> Reason:
    """Of a mistake in code that stands at a path of the program."""
    return Reason.INVALID_METRIC if path.startswith("spec.metric") else Reason.INVALID_PROGRAM


def score_of(given: object) -> float | None:
    """What a function gave, a number from 0 to 1 or a bool, as a score; None: it is no such thing, as NaN is not."""
    score = float(given) if isinstance(given, numbers.Real) else math.nan
    return score if 0 <= score <= 1 else None


def said(error: BaseException) -> str:
    """An error on one line."""
    words = " ".join(str(error).split())[:_SHOWN_CHARACTERS]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _load(path: str, part: CodePart) -> Function:
    content, file = _content(path, part)
    found = f"sha256:{sha256_hex(content)}"
    if part.sha256 is not None and found != part.sha256:
        message = f"{part.source} changed since it was validated ({part.sha256} then, {found} now)"
        raise RunFailed(reason_of(path), message, path=path)
    module_name, _, name = part.entrypoint.partition(":")
    try:
        module = _imported(file, found) if part.file is not None else importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever importing somebody's module comes to
        raise RunFailed(reason_of(path), f"{_place(error, file)} {said(_plainly(error))}", path=path) from error
    call = getattr(module, name, None)
    if not callable(call):
        known = ", ".join(sorted(_functions(module))[:10]) or "none"
        what = f'has no function "{name}"' if call is None else f'"{name}" is no function'
        message = f"{part.source}: {Path(file).name} {what} (functions: {known})"
        raise RunFailed(reason_of(path), message, path=f"{path}.entrypoint")
    return Function(path, call, name, file, found, content)


def _content(path: str, part: CodePart) -> tuple[bytes, str]:
    """The module's file and where it is; nothing of one that is no file of Python."""
    if part.file is not None:
        try:
            return Path(part.file).read_bytes(), part.file
        except OSError as error:
            message = f"{part.source}: {part.file} cannot be read: {error.strerror}"
            raise RunFailed(Reason.CODE_NOT_FOUND, message, path=path) from error
    module = part.entrypoint.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise RunFailed(reason_of(path), f"{part.source}: {module} {said(error)}", path=path) from error
        spec = None
    except (Exception, SystemExit) as error:  # a parent package is imported for it
        raise RunFailed(reason_of(path), f"{part.source}: {module} {said(error)}", path=path) from error
    if spec is None:
        message = f'{part.source}: there is no module "{module}" where the runner runs'
        raise RunFailed(Reason.CODE_NOT_FOUND, message, path=f"{path}.entrypoint")
    file = Path(spec.origin) if spec.has_location and spec.origin is not None else None
    return (file.read_bytes(), str(file)) if file is not None else (b"", "")


def _imported(file: str, digest: str) -> types.ModuleType:
    """A file as a module; named after its content, so that it hides no module that is installed."""
    name = f"dspy_operator_code_{digest.rpartition(':')[2][:16]}"
    loader = _SourceLoader(name, file)
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None  # a loader of files always has one
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return module


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Never reads a .pyc: one is trusted by mtime and size, and a new source may have those of the old one."""

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _place(error: BaseException, file: str) -> str:
    """`metric.py, line 3:` of what happened while it was imported."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"{Path(file).name}, line {error.lineno}:"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{Path(file).name}, line {lines[-1]}:" if lines else f"{Path(file).name}:"


def _plainly(error: BaseException) -> BaseException:
    """A SyntaxError without the file and line that it repeats."""
    return SyntaxError(error.msg) if type(error) is SyntaxError else error


def _functions(module: types.ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and callable(value) and getattr(value, "__module__", "") == module.__name__
    ]
