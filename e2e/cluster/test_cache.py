"""The cache: whole or absent, by content, one build at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from . import cache
from .command import Failed


@pytest.fixture(autouse=True)
def an_empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DSPY_OPERATOR_CACHE", str(tmp_path / "cache"))


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "things" / "abc"

    def fail_half_way() -> None:
        with cache.publish(target) as work:
            (work / "half").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert list(target.parent.iterdir()) == []


def test_a_build_sweeps_what_a_killed_one_left(tmp_path: Path) -> None:
    target = tmp_path / "things" / "abc"
    (target.parent / ".tmp-abc-1").mkdir(parents=True)
    with cache.publish(target) as work:
        (work / "whole").touch()
    assert [path.name for path in target.parent.iterdir()] == ["abc"]
    assert (target / "whole").exists()


def test_the_key_is_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = cache.key(tmp_path)
    assert cache.key(tmp_path) == first
    (tmp_path / "a").write_text("2")
    assert cache.key(tmp_path) != first
    (tmp_path / "a").write_text("1")
    (tmp_path / "a").rename(tmp_path / "b")
    assert cache.key(tmp_path) != first


def test_a_second_build_is_refused_and_a_dead_ones_lock_is_free() -> None:
    hold = "from e2e.cluster import cache; import sys\nwith cache.lock():\n    print(flush=True); sys.stdin.read()"
    repository = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", hold], cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(Failed, match=f"process {other.pid}"), cache.lock():
            pass
        other.kill()
    with cache.lock():
        pass
