"""A program's code of its own, as a runner's pod has it: what it mounts, where in the pod each lies, and which image runs. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from dspy_operator.api.code import CodeRef
from dspy_operator.api.objects import PromptProgram
from dspy_operator.api.program import codes_of
from dspy_operator.contract import names
from dspy_operator.contract.runspec import CodePart
from dspy_operator.controllers.runnerpod import KeyRef


def codes(program: PromptProgram) -> dict[str, CodeRef]:
    """Path -> code, in an order of its own."""
    return codes_of(program.spec.program, program.spec.metric)


def mounts_of(program: PromptProgram) -> tuple[KeyRef | None, ...]:
    """Of each piece of code the key of a ConfigMap; None where the image has it."""
    return tuple(
        KeyRef(name=ref.config_map.name, key=ref.config_map.key) if ref.config_map is not None else None
        for ref in codes(program).values()
    )


def image_of(program: PromptProgram, runner: str) -> str:
    """The image that the pod runs in: that of the program's code, else the runner's own."""
    return next((ref.image for ref in codes(program).values() if ref.image is not None), runner)


def parts_of(program: PromptProgram, validated: Mapping[str, str]) -> dict[str, CodePart]:
    """Path -> where the pod finds the function.

    Args:
        validated: path -> sha256 of its file.
    """
    found = {}
    for number, (path, ref) in enumerate(codes(program).items()):
        if ref.config_map is not None:
            file = f"{names.code_folder(number)}/{ref.config_map.key}"
            source = f"ConfigMap {ref.config_map.name}, key {ref.config_map.key}"
        else:
            file, source = None, f"image {ref.image}"
        found[path] = CodePart(entrypoint=ref.entrypoint, file=file, source=source, sha256=validated.get(path))
    return found


def unpinned(program: PromptProgram) -> str:
    """What to say of images without a digest; nothing where there are none."""
    found = [path for path, ref in codes(program).items() if ref.unpinned]
    if not found:
        return ""
    return (
        f"; {', '.join(f'{path}.image' for path in found)} has no digest: what its tag means tomorrow may be other code"
    )
