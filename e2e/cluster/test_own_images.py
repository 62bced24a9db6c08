"""The product's images: what makes a new one, which wheels suit a base, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from . import own_images, plan, wheelhouse
from .command import Failed
from .own_images import OPERATOR, RUNNER
from .wheelhouse import Interpreter

_BASE = "debian:bookworm-slim"


@pytest.fixture
def tree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of all that goes into the images, to be edited; an empty cache, and a public base."""
    copy = tmp_path / "tree"
    shutil.copytree(wheelhouse.ROOT / "operator", copy / "operator", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "uv.lock", "README.md", "LICENSE", "Dockerfile"):
        shutil.copy2(wheelhouse.ROOT / name, copy / name)
    monkeypatch.setenv("DSPY_OPERATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DSPY_OPERATOR_IMAGE_BASE", _BASE)
    monkeypatch.setattr(wheelhouse, "ROOT", copy)
    monkeypatch.setattr(own_images, "DOCKERFILE", copy / "Dockerfile")
    return copy


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "wheels", "image"),
    [
        pytest.param("uv.lock", "revision = ", "revision = 1", True, True, id="another lock: packages and images"),
        pytest.param("pyproject.toml", '"kopf>=1.45', '"kopf>=1.44', True, True, id="another requirement: the same"),
        pytest.param("pyproject.toml", '"diskcache;', '"diskcach;', True, True, id="another override: the same"),
        pytest.param(
            "pyproject.toml", "line-length = 1", "line-length = 2", False, True, id="a linter's rule: our code"
        ),
        pytest.param("operator/dspy_operator/__init__.py", '"""', '"""A', False, True, id="our source: our code"),
        pytest.param("Dockerfile", "FROM", "# x\nFROM", False, True, id="the Dockerfile: the images"),
    ],
)
def test_an_edit_makes_anew_what_depends_on_it(
    tree: Path, file: str, old: str, new: str, wheels: bool, image: bool
) -> None:
    before = (wheelhouse.folder(_BASE), OPERATOR.by_content)
    edited(tree / file, old, new)
    after = (wheelhouse.folder(_BASE), OPERATOR.by_content)
    assert (after[0] != before[0], after[1] != before[1]) == (wheels, image)


def test_another_base_has_wheels_and_images_of_its_own(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (wheelhouse.folder(own_images.base()), RUNNER.by_content)
    monkeypatch.setenv("DSPY_OPERATOR_IMAGE_BASE", "debian:trixie-slim")
    after = (wheelhouse.folder(own_images.base()), RUNNER.by_content)
    assert not set(before) & set(after)


def test_the_compiled_files_of_a_test_run_are_no_edit(tree: Path) -> None:
    before = RUNNER.by_content
    (tree / "operator" / "dspy_operator" / "__pycache__").mkdir()
    (tree / "operator" / "dspy_operator" / "__pycache__" / "x.pyc").write_text("x")
    assert RUNNER.by_content == before


def test_manifests_name_an_image_by_the_version_of_the_project(tree: Path) -> None:
    edited(tree / "pyproject.toml", f'version = "{wheelhouse.version()}"', 'version = "1.2.3"')
    assert (OPERATOR.name, RUNNER.name) == ("dspy-operator/operator:1.2.3", "dspy-operator/runner:1.2.3")


def test_every_older_manylinux_is_asked_for_the_newest_first() -> None:
    tags = Interpreter.parsed("3 11 x86_64 glibc 2.36", _BASE).tags
    assert tags[0] == "manylinux_2_36_x86_64"
    assert {"manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux_2_5_x86_64", "manylinux2014_x86_64"} < {*tags}


def test_arm_has_no_manylinux_from_before_it_was_supported() -> None:
    tags = Interpreter.parsed("3 13 aarch64 glibc 2.41", _BASE).tags
    assert (tags[0], tags[-2]) == ("manylinux_2_41_aarch64", "manylinux_2_17_aarch64")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        pytest.param("3 10 x86_64 glibc 2.35", "has Python 3.10, they need 3.11 or newer", id="an old Python"),
        pytest.param("3 12 x86_64", "they need glibc, as of Debian", id="musl, which has no name there"),
        pytest.param(
            "3 12 s390x glibc 2.36", "is for s390x; wheels are fetched for aarch64 and x86_64", id="a mainframe"
        ),
    ],
)
def test_a_base_that_our_wheels_do_not_suit_is_refused(said: str, message: str) -> None:
    with pytest.raises(Failed, match=rf"^some:base .*{message}"):
        Interpreter.parsed(said, "some:base")


def test_an_image_over_its_target_is_refused_with_both_weights() -> None:
    own_images.refuse_overweight({OPERATOR: OPERATOR.most_megabytes, RUNNER: RUNNER.most_megabytes})
    with pytest.raises(Failed) as refused:
        own_images.refuse_overweight({OPERATOR: 102.6, RUNNER: RUNNER.most_megabytes + 0.1})
    said = str(refused.value)
    assert said.startswith(f"{RUNNER.name}: too large")
    assert "102.6 MB over its base, at most 120" in said
    assert "200.1 MB over its base, at most 200" in said


def test_our_images_come_last_after_cluster_and_fixtures() -> None:
    names = [step.name for step in plan.steps()]
    order = ["cluster", "fixtures in the cluster", "wheels of our images", "our images", "our images in the cluster"]
    assert [name for name in names if name in order] == order
    assert names[-1] == "our images in the cluster"


def test_a_base_of_ones_own_choice_needs_no_root_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {step.name for step in plan.own_images_built()}
    monkeypatch.setenv("DSPY_OPERATOR_IMAGE_BASE", _BASE)
    assert names - {step.name for step in plan.own_images_built()} == {"base root file system"}
