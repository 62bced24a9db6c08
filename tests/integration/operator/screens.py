"""What kubectl shows, as text that is the same each time; and the golden files that it is held against."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from tests.controlplane.processes import ControlPlane

GOLDEN = Path(__file__).with_name("golden")

_RANDOM = "[bcdfghjklmnpqrstvwxz2456789]"
"""Letters of the suffixes that Kubernetes makes."""
_VOLATILE = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<time>"),
    (r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", "<uid>"),
    (r"(Resource Version: +)\d+", r"\1<version>"),
    (r"(<uid>/)\d+", r"\1<version>"),
    (rf"\b(orun-[-a-z0-9]+-\d+|mep-[-a-z0-9]+-{_RANDOM}{{8,10}})-{_RANDOM}{{5}}\b", r"\1-<pod>"),
    (rf"\b(mep-[-a-z0-9]+)-{_RANDOM}{{8,10}}-<pod>", r"\1-<pod>"),
)
_AGE = re.compile(r"  (?:\d+[smhd])+$")


def screen(plane: ControlPlane, namespace: str, *commands: str) -> str:
    """A terminal on which these kubectl commands were typed."""
    shown = []
    for command in commands:
        done = plane.kubectl(*command.split(), f"--namespace={namespace}")
        assert done.returncode == 0, done.stderr
        shown.append(f"$ kubectl {command}\n{normalised(done.stdout or done.stderr)}")
    return "\n".join(shown)


def normalised(text: str) -> str:
    """Without what differs each time: ages, times, uids, versions, and the random part of a pod's name.

    Events of one second have no order; they are sorted by what they say.
    """
    for volatile, stable in _VOLATILE:
        text = re.sub(volatile, stable, text)
    before, events, after = text.partition("\nEvents:\n")
    lines = [line.rstrip() for line in before.splitlines()]
    if lines[0].endswith("  AGE"):
        lines = [_AGE.sub("  <age>", line) for line in lines]
    if events:
        lines += ["Events:", *_events(after)]
    return "".join(f"{line}\n" for line in lines)


def _events(table: str) -> list[str]:
    """Type, reason and message of each Event, under their heads."""
    heads, _, *rows = [re.split(r" {2,}", line.strip(), maxsplit=4) for line in table.splitlines() if line.strip()]
    return [f"  {type_:7}  {reason:20}  {message}" for type_, reason, _, _, message in (heads, *sorted(rows))]


def assert_golden(name: str, text: str) -> None:
    """It is as the golden file says. UPDATE_GOLDEN=1 writes the file anew."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), f"there is no {path.name}: UPDATE_GOLDEN=1 writes it"
    want = path.read_text("utf-8")
    differs = difflib.unified_diff(want.splitlines(), text.splitlines(), path.name, "now", lineterm="", n=1)
    assert text == want, "\n".join(["where this is meant, UPDATE_GOLDEN=1 writes the file anew:", *differs])
