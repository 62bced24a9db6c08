"""Whose node image: the public one where a container registry can be reached, else one made here. Decided by trying."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from .. import node_image, paths, versions
from ..command import Failed, ask

Choice = Literal["public", "built"]
# A whole pull of some 400 MB. Where nothing answers, docker itself gives up within 15 s.
_PULL_SECONDS = 600


@dataclass(frozen=True)
class Decision:
    choice: Choice
    why: str

    @property
    def node_image(self) -> str:
        return versions.PUBLIC_NODE_IMAGE if self.choice == "public" else node_image.image()


def decided() -> Decision | None:
    try:
        return Decision(**json.loads(_file().read_text()))
    except (OSError, ValueError, TypeError):
        return None


def decision() -> Decision:
    made = decided()
    if made is None:
        raise Failed("it is not decided yet whether the public node image can be had: run `up`")
    return made


class Origin:
    """Tries once and remembers; `--images` overrules, `distclean` forgets."""

    name = "public or built"
    expected_seconds = 15

    def __init__(self, wanted: Choice | None) -> None:
        self._wanted = wanted

    def check(self) -> bool:
        made = decided()
        return made is not None and self._wanted in (None, made.choice)

    def run(self, log: Path) -> None:
        made = Decision("built", "asked for by --images") if self._wanted == "built" else self._try(log)
        if self._wanted == "public" and made.choice != "public":
            raise Failed(f"the public node image was asked for, and cannot be had: {made.why}")
        _file().write_text(json.dumps(asdict(made)))
        print(f"  {made.choice} node image: {made.why}", flush=True)

    def _try(self, log: Path) -> Decision:
        image = versions.PUBLIC_NODE_IMAGE
        code, said = ask(["docker", "pull", "-q", image], timeout_seconds=_PULL_SECONDS)
        log.write_text(said)
        if code == 0:
            return Decision("public", f"{image} could be pulled")
        last = said.strip().splitlines()[-1:] or [f"nothing answered within {_PULL_SECONDS} s"]
        return Decision("built", f"{image} cannot be pulled ({last[0][:160]})")


def _file() -> Path:
    return paths.cache() / "origin.json"
