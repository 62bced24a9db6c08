"""One HTML file about a run: what was decided and why, on which rows, for how much. It needs no network and no other file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import zstandard
from markupsafe import Markup

from dspy_operator.cli import intervals
from dspy_operator.cli.compare import compare, without_media
from dspy_operator.cli.plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, plot
from dspy_operator.cli.revisions import Revision, read_revision
from dspy_operator.cli.screen import ARMS, duration, money
from dspy_operator.contract.documents import CalibrationReport
from dspy_operator.contract.exits import Reason, RunFailed

MOST_ROWS = 2000
"""A browser takes more, but nobody reads them: those that changed or failed come first."""
_ANSWERED = ("right", "wrong")
_DEV = {
    "devBaseline": "baseline",
    "devIncumbent": "incumbent",
    "devStart": "started from",
    "devBest": "best",
    "devAgain": "chosen, asked anew",
}
_HTML = Path(__file__).with_name("html")


def report(source: str) -> bytes:
    """The file.

    Args:
        source: a run's folder, which has the most to tell; or what else `read_revision` takes.
    Raises:
        RunFailed: InvalidManifest, saying what is missing there or was changed.
    """
    revision = read_revision(source)
    if not revision.report:
        raise RunFailed(Reason.INVALID_MANIFEST, f"{source}: report.json is missing")
    folder = Path(source)
    baseline = folder / "baseline"
    before = read_revision(str(baseline)) if (baseline / "prompts.json").is_file() else None
    examples = _examples(folder / "examples.jsonl.zst")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HTML),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = ((_HTML / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    text = environment.get_template("report.html.j2").render(
        report=_content(revision, before, examples, _currency(folder / "run.json"), _waited(folder)),
        style=Markup(style),  # ours, as the next one
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )
    return text.encode("utf-8", "replace")  # half of a surrogate pair, which a row may have, is no text


def _hash(text: str) -> str:
    """As a Content-Security-Policy names the one script and the one style that may be: a row's own would not run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _examples(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with zstandard.ZstdDecompressor().stream_reader(path.read_bytes()) as packed:
        return [json.loads(line) for line in packed.read().decode("utf-8", "surrogatepass").splitlines()]


def _currency(path: Path) -> str:
    if not path.is_file():
        return ""
    endpoints = json.loads(path.read_bytes()).get("endpoints", {})
    return str(next((each["pricing"]["currency"] for each in endpoints.values() if each.get("pricing")), ""))


def _waited(folder: Path) -> dict[str, float]:
    """Role -> seconds from request to answer, of all answers of the journal."""
    path = folder / "journal.jsonl"
    seconds: dict[str, float] = {}
    if path.is_file():
        with path.open("rb") as file:
            for line in file:
                if line.startswith(b'{"kind":"done"') and line.endswith(b"}\n"):
                    answer = json.loads(line)
                    seconds[answer["role"]] = seconds.get(answer["role"], 0.0) + answer["seconds"]
    return seconds


def _content(
    revision: Revision,
    before: Revision | None,
    examples: Sequence[Mapping[str, Any]],
    currency: str,
    waited: Mapping[str, float],
) -> dict[str, Any]:
    found, provenance = revision.report, revision.provenance
    arms = [arm for arm in ARMS if arm in found.get("scores", {})]
    reference = "incumbent" if "incumbent" in arms else "baseline"
    run, optimizer = provenance.get("run") or {}, (provenance.get("optimizer") or {}).get("type", "no optimizer")
    dev = found.get("scores", {}).get("devBaseline", {})
    programs = (found.get("programs") or {}).get("shown", [])
    return {
        "title": f"{run.get('name') or revision.name}: {optimizer}",
        "subtitle": f"{run.get('namespace', '')}/{run.get('name', '')}, revision {revision.digest}",
        **_verdict(found, reference),
        "scores": list(_scores(found, arms)),
        "macro": sorted({output for score in found.get("scores", {}).values() for output in score.get("macroF1", {})}),
        "held_out": bool(arms),
        "reference": reference,
        "gain": _gain(found, reference),
        "judges": [
            (path, CalibrationReport.model_validate(told).told())
            for path, told in (found.get("calibration") or {}).items()
        ],
        "classes": _classes(found, arms),
        "answer_columns": [name for name, *_ in _ANSWER],
        "answers": [
            {
                "name": arm,
                "values": [(told[of][which] if which else told[of], digits) for _, of, which, digits in _ANSWER],
            }
            for arm, told in found.get("answers", {}).items()
        ],
        "plot": _plot(programs),
        "programs": [{"arms": [], **each} for each in programs],
        "scored": (found.get("programs") or {}).get("scored", 0),
        "dev_rows": dev.get("rows", "dev"),
        "diff": list(_diff(before, revision)) if before is not None else None,
        **_rows(found, examples, arms, reference),
        **_spend(found, currency, waited),
        "provenance": list(_provenance(revision)),
    }


# --- the verdict and the scores -----------------------------------------------------------------------------------------

_WORDS = {
    "Improved": ("good", "Improved: the candidate is better than the {}."),
    "NoImprovement": ("warn", "No improvement: the candidate is not shown to be better than the {}."),
    "NotJudged": ("warn", "Not judged: nothing is known of the candidate on the test rows."),
}


def _verdict(found: Mapping[str, Any], reference: str) -> dict[str, str]:
    gate = found.get("gate") or {}
    tone, words = _WORDS.get(found.get("outcome", ""), ("warn", "No result."))
    verdict = words.format(reference)
    if gate.get("passed"):
        verdict += " It is good enough to be promoted." if gate.get("promote") else " A person has to decide."
    ended = "" if found.get("reason") == "Completed" else f" Ended as {found.get('reason')}: {found.get('message', '')}"
    return {"tone": tone, "verdict": verdict, "why": f"{gate.get('why', '')}{ended}".strip()}


def _scores(found: Mapping[str, Any], arms: Sequence[str]) -> Iterator[dict[str, Any]]:
    scores = found.get("scores", {})
    for name, where, key in [
        *((arm, "test", arm) for arm in arms),
        *((name, "dev", key) for key, name in _DEV.items() if key in scores),
    ]:
        score = scores[key]
        by_row = _by_row(found, name) if where == "test" else []
        yield {
            "name": name,
            "where": where,
            "score": score["score"],
            "interval": intervals.of_mean(by_row) if by_row else None,
            "macro": score.get("macroF1", {}),
            "rows": score["rows"],
            "repeats": score.get("repeats", 1),
            "unreadable": score.get("unreadable", 0),
            "failed": score.get("failed", 0),
        }


def _by_row(found: Mapping[str, Any], arm: str) -> list[float]:
    return [row[arm]["score"] for row in found.get("rows", []) if arm in row]


def _gain(found: Mapping[str, Any], reference: str) -> dict[str, Any] | None:
    pairs = [
        (row["candidate"]["score"], row[reference]["score"])
        for row in found.get("rows", [])
        if "candidate" in row and reference in row
    ]
    if not pairs:
        return None
    differences = [new - old for new, old in pairs]
    won, lost = sum(each > 0 for each in differences), sum(each < 0 for each in differences)
    return {
        "mean": 100 * sum(differences) / len(differences),
        "interval": intervals.of_gain(differences),
        "won": won,
        "lost": lost,
        "same": len(pairs) - won - lost,
    }


def _classes(found: Mapping[str, Any], arms: Sequence[str]) -> dict[str, Any]:
    by_arm = found.get("classes", {})
    known = [arm for arm in arms if arm in by_arm]
    tables: dict[str, Any] = {}
    for output in next((by_arm[arm] for arm in known), {}):
        of = {arm: by_arm[arm][output].get("classes", {}) for arm in known}
        support = {name: each["support"] for classes in of.values() for name, each in classes.items()}
        last = of[known[-1]]
        worst = sorted(support, key=lambda name, last=last: last.get(name, {}).get("f1", 0))  # type: ignore[misc]
        tables[output] = {
            "arms": known,
            "lines": [
                {
                    "name": name,
                    "support": support[name],
                    "values": [
                        of[arm].get(name, {}).get(which, 0) for arm in known for which in ("precision", "recall", "f1")
                    ],
                }
                for name in worst
            ],
        }
    return {output: table for output, table in tables.items() if table["lines"]}


_ANSWER = (
    ("rows", "answers", "", 0),
    ("calls", "calls", "mean", 2),
    ("input tokens", "inputTokens", "mean", 1),
    ("p90", "inputTokens", "p90", 0),
    ("output tokens", "outputTokens", "mean", 1),
    ("p90", "outputTokens", "p90", 0),
    ("seconds", "seconds", "mean", 2),
    ("p90", "seconds", "p90", 2),
    ("p99", "seconds", "p99", 2),
)
"""Column, where in `answers` of report.json it is, digits."""


def _plot(programs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if len(programs) < 2:
        return None
    made = plot(programs)
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
        "dots": made.dots,
        "front": made.front,
        "across": made.across,
        "up": made.up,
    }


def _diff(old: Revision, new: Revision) -> Iterator[tuple[str, str]]:
    kinds = {"+": "add", "-": "del", "@": "place"}
    for line in compare(old, new).prompt.splitlines()[2:]:
        yield kinds.get(line[:1], "same"), line


# --- the rows -----------------------------------------------------------------------------------------------------------


def _rows(
    found: Mapping[str, Any], examples: Sequence[Mapping[str, Any]], arms: Sequence[str], reference: str
) -> dict[str, Any]:
    named = [*arms, *(arm for arm in ARMS if arm not in arms and any(arm in row["arms"] for row in examples))]
    told: Sequence[Mapping[str, Any]] = examples or [
        {"line": row["line"], "split": "test", "arms": {arm: row[arm] for arm in named if arm in row}}
        for row in found.get("rows", [])
    ]
    if not told:
        return {
            "rows": [],
            "rows_told": "There are none: nothing was judged, or dataset.exportRows is false.",
            "has_texts": False,
            "arms": [],
            "kinds": [],
        }
    rows = [_row(row, named, reference) for row in told]
    shown = sorted(sorted(rows, key=lambda row: len(row["kinds"]), reverse=True)[:MOST_ROWS], key=_place)
    of_all = f"{len(shown)} of {len(rows)} rows; examples.jsonl.zst has all. " if len(shown) < len(rows) else ""
    texts = "" if examples else "The rows' texts are in examples.jsonl.zst of the run's folder. "
    names = (("all", "all"), ("test", "test"), ("dev", "dev"), ("gained", "gained"), ("lost", "lost"))
    more = (("wrong", "candidate wrong"), ("failed", "candidate unreadable or failed"))
    counts = [
        (kind, name, len(shown) if kind == "all" else sum(kind in row["kinds"] for row in shown))
        for kind, name in (*names, *more)
    ]
    return {
        "rows": shown,
        "rows_told": f"{of_all}{texts}Gained and lost: the candidate scores higher or lower than the {reference}.",
        "has_texts": bool(examples),
        "arms": named,
        "kinds": [each for each in counts if each[2]],
    }


def _place(row: Mapping[str, Any]) -> tuple[bool, int]:
    return row["split"] != "test", row["line"]


def _row(row: Mapping[str, Any], arms: Sequence[str], reference: str) -> dict[str, Any]:
    answers, candidate = row["arms"], row["arms"].get("candidate")
    change = ""
    of_test = row["split"] == "test"
    if of_test and candidate is not None and reference in answers and candidate["score"] != answers[reference]["score"]:
        change = "gained" if candidate["score"] > answers[reference]["score"] else "lost"
    kinds = ["test" if of_test else "dev", *([change] if change else [])]
    if candidate is not None:
        kinds += ["wrong"] * (candidate["score"] < 1) + ["failed"] * (candidate["class"] not in _ANSWERED)
    return {
        "line": row["line"],
        "split": row["split"],
        "change": change,
        "kinds": kinds,
        "inputs": _texts(row.get("inputs", {})),
        "expected": _texts(row.get("expected", {})),
        "answers": [_answer(answers[arm]) if arm in answers else None for arm in arms],
    }


def _answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    took, several = "", [_answer(each) for each in answer.get("answers", ())]
    if "inputTokens" in answer:
        took = f"{answer['inputTokens']:,} + {answer['outputTokens']:,} tokens, {answer['seconds']:.2f} s"
    return {
        "outputs": _texts(answer.get("outputs", {})),
        "several": several,
        "score": answer["score"],
        "kind": answer["class"],
        "failed": answer["class"] not in _ANSWERED,
        "took": took,
    }


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: without_media(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in values.items()
    }


# --- spend and provenance -----------------------------------------------------------------------------------------------


def _spend(found: Mapping[str, Any], currency: str, waited: Mapping[str, float]) -> dict[str, Any]:
    roles: dict[str, Mapping[str, Any]] = {**found.get("usageByRole", {})}
    of_all = {**waited, "all": sum(waited.values())}
    lines = [*roles.items(), *([("all", found["usage"])] if "usage" in found and len(roles) != 1 else [])]
    columns = ("calls", "failed", "replayed", "inputTokens", "cachedInputTokens", "outputTokens")

    def priced(usage: Mapping[str, Any]) -> str:
        cost = usage.get("cost", "0")
        return f"{money(cost)} {currency}".strip() if float(cost) else ""

    return {
        "spend": [
            {
                "role": role,
                "values": [usage.get(name, 0) for name in columns],
                "money": priced(usage),
                "waited": of_all[role] if waited and role in of_all else None,
            }
            for role, usage in lines
        ],
        "spend_told": f"Of the run's whole life, all tries; {duration(found.get('seconds', 0))}. A replayed call costs nothing; answers waited for at the same time count each.",
    }


def _provenance(revision: Revision) -> Iterator[tuple[str, str]]:
    yield "revision", revision.digest
    found = dict(revision.provenance)
    for name, path in (("program", "programDigest"), ("dataset", "datasetDigest"), ("inputs", "inputDigest")):
        if found.get(path):
            yield name, str(found[path])
    dataset = revision.report.get("dataset")
    if dataset:
        counts = ", ".join(f"{dataset[part]} {part}" for part in ("train", "validation", "test"))
        dropped = f", {dataset['dropped']} dropped: {dataset['droppedMessage']}" if dataset["dropped"] else ""
        yield "rows", f"{counts}{dropped}"
    for name in ("seed", "repeats", "optimizer", "resolved"):
        if found.get(name) not in (None, {}):
            yield name, _told(found[name])
    for role, endpoint in (found.get("endpoints") or {}).items():
        yield f"endpoint, {role}", _told(endpoint)
    for arm, digest in (revision.report.get("arms") or {}).items():
        yield f"arm, {arm}", digest
    gate = revision.report.get("gate")
    if gate:
        yield "gate", _told({name: value for name, value in gate.items() if name != "why"})
    yield "versions", _told(found.get("versions") or {})
    if found.get("runnerImage"):
        yield "runner's image", str(found["runnerImage"])


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_told(each)}" for name, each in value.items() if each not in (None, {}))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
