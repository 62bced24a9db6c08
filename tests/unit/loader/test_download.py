"""A pull's lines, folded: bytes, percent and time left."""

from __future__ import annotations

import pytest

from dspy_operator.loader.download import Download
from dspy_operator.loader.ollama import PullLine

WEIGHTS, CONFIG = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def line(completed: int, total: int = 1000, digest: str = WEIGHTS) -> PullLine:
    return PullLine(status=f"pulling {digest[7:19]}", digest=digest, completed=completed, total=total)


def folded(*lines: tuple[float, PullLine]) -> Download:
    download = Download(0.0)
    for at, one in lines:
        download.add(one, at)
    return download


@pytest.mark.parametrize(
    ("lines", "want_completed", "want_percent", "want_eta"),
    [
        pytest.param([], 0, 0, None, id="nothing was said"),
        pytest.param([(0, PullLine(status="pulling manifest"))], 0, 0, None, id="a line without a layer says nothing"),
        pytest.param([(0, line(0)), (1, line(100))], 100, 10, 9.0, id="a tenth in a second: nine are left"),
        pytest.param([(0, line(500)), (1, line(550))], 550, 55, 9.0, id="what an earlier attempt fetched is no speed"),
        pytest.param([(0, line(0)), (1, line(0))], 0, 0, None, id="without a byte there is no time to tell"),
        pytest.param([(0, line(0)), (0.1, line(300))], 300, 30, None, id="nor after a moment: one sample is no rate"),
        pytest.param(
            [(0, line(1000)), (1, line(10, 10, CONFIG))], 1010, 99, None, id="cached layers come whole; 100 is said at the end"
        ),
        pytest.param(
            [(0, line(0)), (1, line(400)), (2, line(300)), (3, line(400))], 400, 40, 3.6,
            id="a part that is fetched again takes bytes back, but no percent",
        ),
        pytest.param(
            [(at, line(at * 10)) for at in range(31)] + [(30 + at, line(300 + at)) for at in range(1, 31)],
            330, 33, 670.0, id="the rate is that of the last half minute",
        ),
    ],
)  # fmt: skip
def test_lines_become_a_progress(
    lines: list[tuple[float, PullLine]], want_completed: int, want_percent: int, want_eta: float | None
) -> None:
    progress = folded(*lines).progress()
    assert (progress.phase, progress.completed, progress.percent) == ("pulling", want_completed, want_percent)
    assert progress.eta == want_eta


def test_percent_never_goes_back() -> None:
    download = Download(0.0)
    seen = []
    for at, one in enumerate(
        [line(0), line(900), line(700), line(50, 5000, CONFIG), line(1000), line(5000, 5000, CONFIG)]
    ):
        download.add(one, at)
        seen.append(download.progress().percent)
    assert seen == sorted(seen)
    assert seen[-1] == 99


def test_the_last_byte_has_a_time() -> None:
    download = folded((1, line(5)), (4, line(6)), (9, line(6)))
    assert download.moved_at == 4
