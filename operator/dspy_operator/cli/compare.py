"""Two revisions side by side: which held-out rows were gained and lost, and what the model is told differently."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dspy_operator.cli.revisions import Revision
from dspy_operator.contract.canonical import sha256_hex

_MEDIA = re.compile(r'(;base64,|"data": ")([\w+/=]{200,})')
"""In a data URI, or in a part of a message."""
SHOWN = 20
"""Most lines of the dataset that the text names; JSON has all."""


@dataclass(frozen=True)
class Row:
    """A held-out row that both answered."""

    line: int
    """Of the dataset."""
    old: float
    """Score, 0 to 1."""
    new: float


@dataclass(frozen=True)
class Comparison:
    """What there is to say of two revisions."""

    old: Revision
    new: Revision
    rows: tuple[Row, ...]
    """In the order of the dataset; none where no report has them."""
    prompt: str
    """A unified diff; empty where the model is told the same."""

    @property
    def gained(self) -> tuple[Row, ...]:
        """Rows that the new one answers better."""
        return tuple(row for row in self.rows if row.new > row.old)

    @property
    def lost(self) -> tuple[Row, ...]:
        """Rows that the old one answers better."""
        return tuple(row for row in self.rows if row.new < row.old)

    @property
    def differs(self) -> bool:
        """Whether they are two revisions at all."""
        return self.old.digest != self.new.digest

    def document(self) -> dict[str, Any]:
        """For programs."""

        def told(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
            return [{"line": row.line, "from": row.old, "to": row.new} for row in rows]

        return {
            "from": {"name": self.old.name, "digest": self.old.digest, "score": _score([row.old for row in self.rows])},
            "to": {"name": self.new.name, "digest": self.new.digest, "score": _score([row.new for row in self.rows])},
            "rows": len(self.rows),
            "gained": told(self.gained),
            "lost": told(self.lost),
            "prompt": self.prompt,
        }

    def text(self) -> str:
        """For people."""
        if not self.differs:
            return f"{self.old.name} and {self.new.name} are the same revision, {self.old.digest}"
        return "\n".join([f"{self.old.name} -> {self.new.name}", *self._rows_told(), self.prompt or _SAME_PROMPT])

    def _rows_told(self) -> Iterator[str]:
        if not self.rows:
            yield "Held-out test: no report has rows that both answered (judged on other rows, never judged, or exportRows is false)"
            return
        before, after = (_score([getattr(row, which) for row in self.rows]) for which in ("old", "new"))
        yield f"Held-out test, {len(self.rows)} rows that both answered: {before:.1f} -> {after:.1f}"
        for word, rows in (("gained", self.gained), ("lost", self.lost)):
            lines = ", ".join(str(row.line) for row in rows[:SHOWN])
            rest = f" and {len(rows) - SHOWN} more (--format json has all)" if len(rows) > SHOWN else ""
            yield f"  {word} {len(rows)}{': lines of the dataset ' + lines if rows else ''}{rest}"


_SAME_PROMPT = "The model is told the same; the files differ in how the program is written."


def compare(old: Revision, new: Revision) -> Comparison:
    """Compare two revisions by their files; no model is called."""
    before, after = _told(old), _told(new)
    prompt = "\n".join(difflib.unified_diff(before, after, old.name, new.name, n=2, lineterm=""))
    return Comparison(old, new, _rows(old, new), prompt)


def _rows(old: Revision, new: Revision) -> tuple[Row, ...]:
    """From one judgement of both where there is one, else from each one's own, of rows that are the same."""
    for report in (new.report, old.report):
        arms = {digest: name for name, digest in (report.get("arms") or {}).items()}
        if old.digest in arms and new.digest in arms:
            before = _scores(report, arms[old.digest])
            after = _scores(report, arms[new.digest])
            break
    else:
        before, after = _scores(old.report, "candidate"), _scores(new.report, "candidate")
    both = (Row(line, score, after[digest][1]) for digest, (line, score) in before.items() if digest in after)
    return tuple(sorted(both, key=lambda row: row.line))


def _scores(report: Mapping[str, Any], arm: str) -> dict[str, tuple[int, float]]:
    """Digest of a row -> its line and the arm's score; without rows that a judge gave no verdict on."""
    rows = [row for row in report.get("rows") or [] if arm in row and row[arm]["class"] != "judge"]
    return {row["digest"]: (row["line"], row[arm]["score"]) for row in rows}


def _told(revision: Revision) -> list[str]:
    """All that reaches the model, as lines; of code, whose messages nobody knows, what optimizers change."""
    prompts = revision.prompts
    lines = [] if prompts["predictors"] else ["## program.json", *revision.program_json.splitlines()]
    for name, predictor in prompts["predictors"].items():
        for message in predictor["messages"]:
            lines += [f"## {name}: {message['role']}", *_lines(message["content"])]
        lines += [f"## {name}: response format", *_lines(predictor["responseFormat"])]
    return [*lines, "## request", *_lines(prompts["request"])]


def without_media(text: str) -> str:
    """The text without the letters of images and sounds, which nobody reads: their number and hash are in their place."""
    return _MEDIA.sub(lambda found: f"{found[1]}...{len(found[2]):,} characters, SHA-256 {_short_hash(found[2])}", text)


def _short_hash(text: str) -> str:
    return sha256_hex(text.encode())[:12]


def _lines(content: Any) -> list[str]:
    text = content if isinstance(content, str) else without_media(json.dumps(content, ensure_ascii=False, indent=1))
    return text.splitlines()


def _score(scores: list[float]) -> float | None:
    return round(100 * sum(scores) / len(scores), 4) if scores else None
