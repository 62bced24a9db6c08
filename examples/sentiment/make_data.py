"""Writes dataset.yaml: 200 movie-review snippets, labelled positive or negative by people.

The source is the ground truth that VADER was evaluated with (Hutto & Gilbert, ICWSM 2014), inside the MIT-licensed
sdist of vaderSentiment: 10,605 snippets, each with its mean rating by 19 people (on average), from -4 to +4.
No model took part in the choice of rows; the rule is `select` below. Usage:

    python examples/sentiment/make_data.py [--output FILE] [--downloads DIR]
"""

import argparse
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SDIST = "vaderSentiment-3.3.2.tar.gz"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER_ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
GROUND_TRUTH = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"

# Half of the scale, 4,239 of the snippets: there 1 % of the ratings have the other sign, between 1.0 and 1.5 it is 6 %.
CLEAR_RATING = 2.0
MIN_CHARS, MAX_CHARS = 20, 200  # shorter ones (1 %) are fragments, longer ones (5 %) cost the most tokens
PARTS = {"dev": 40, "test": 160}  # rows; half of each is positive
SEED = 0

MANIFEST_HEAD = """\
# Written by make_data.py; a test compares the two. Origin and licence: NOTICE.
apiVersion: v1
kind: ConfigMap
metadata:
  name: sentiment-data
data:
  data.jsonl: |
"""


@dataclass(frozen=True, kw_only=True)
class Snippet:
    text: str
    rating: float  # mean over the raters, -4 (extremely negative) to +4


def download(folder: Path) -> Path:
    """The sdist, checked against its hash. pip reads its metadata with setuptools, hence the check before that.

    uv alone cannot: it has no `download`, and `uv pip install` would build a wheel, which lacks the ground truth.
    """
    sdist = folder / SDIST
    if not sdist.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            requirements = Path(scratch, "requirements.txt")
            requirements.write_text(f"vaderSentiment==3.3.2 --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
            pip_download = ["uv", "tool", "run", "pip", "download", "--quiet", "--dest", scratch]
            options = ["--no-deps", "--no-binary", ":all:", "--require-hashes", "--requirement", str(requirements)]
            subprocess.run([*pip_download, *options], check=True)
            Path(scratch, SDIST).replace(sdist)
    found = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if found != SDIST_SHA256:
        raise ValueError(f"{sdist}: SHA-256 is {found}, expected {SDIST_SHA256}; delete the file to download it again")
    return sdist


def snippets(sdist: Path) -> Iterator[Snippet]:
    with tarfile.open(sdist) as outer:
        inner_archive = outer.extractfile(INNER_ARCHIVE)
        assert inner_archive is not None
        with tarfile.open(fileobj=io.BytesIO(inner_archive.read())) as inner:
            ground_truth = inner.extractfile(GROUND_TRUTH)
            assert ground_truth is not None
            table = ground_truth.read().decode("utf-8")
    for line in table.splitlines():
        _, rating, text = line.split("\t")
        yield Snippet(text=text.strip(), rating=float(rating))


def select(candidates: Iterator[Snippet]) -> list[dict[str, str]]:
    """Clear, one-line, distinct snippets, in an order drawn by hash: the same on every Python version."""
    drawn: dict[str, list[Snippet]] = {"positive": [], "negative": []}
    seen: set[str] = set()
    for snippet in sorted(candidates, key=lambda snippet: _draw(snippet.text)):
        words = " ".join(snippet.text.casefold().split())
        if abs(snippet.rating) < CLEAR_RATING or not MIN_CHARS <= len(snippet.text) <= MAX_CHARS or words in seen:
            continue
        if not snippet.text.isprintable():  # control characters would need escapes in YAML
            continue
        seen.add(words)
        drawn["positive" if snippet.rating > 0 else "negative"].append(snippet)

    rows = []
    for part, size in PARTS.items():
        chosen = []
        for sentiment, pool in drawn.items():
            half, drawn[sentiment] = pool[: size // 2], pool[size // 2 :]
            chosen += [{"text": snippet.text, "sentiment": sentiment, "part": part} for snippet in half]
        rows += sorted(chosen, key=lambda row: _draw(row["text"]))
    return rows


def manifest(rows: list[dict[str, str]]) -> str:
    return MANIFEST_HEAD + "".join(f"    {json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def _draw(text: str) -> str:
    return hashlib.sha256(f"{SEED}:{text}".encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("dataset.yaml"))
    parser.add_argument("--downloads", type=Path, help="keeps the sdist here (default: a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sdist = download(arguments.downloads or Path(scratch))
        arguments.output.write_text(manifest(select(snippets(sdist))), encoding="utf-8")


if __name__ == "__main__":
    main()
