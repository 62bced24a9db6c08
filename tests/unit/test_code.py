"""Code of one's own is found, compared with what was validated and imported; what is wrong with it has file and line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspy_operator.contract.canonical import sha256_hex
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import CodePart
from dspy_operator.runner.code import Function, digest_of, load

METRIC, PROGRAM = "spec.metric.code", "spec.program.code"
SCORE = "def score(example, prediction, trace=None):\n    return 1\n"


def a_part(folder: Path, text: str, entrypoint: str = "metric:score", sha256: str | None = None) -> CodePart:
    (folder / "metric.py").write_text(text, encoding="utf-8")
    file = str(folder / "metric.py")
    return CodePart(entrypoint=entrypoint, file=file, source="ConfigMap code, key metric.py", sha256=sha256)


def loaded(part: CodePart, path: str = METRIC) -> Function:
    return load({path: part})[path]


@pytest.mark.parametrize(
    ("text", "entrypoint", "path", "says"),
    [
        pytest.param(
            "def score(a, b):\n    return (\n",
            "metric:score",
            "",
            "metric.py, line 2: SyntaxError: '(' was never closed",
            id="a syntax error",
        ),
        pytest.param(
            "x = 1\nimport nope\n",
            "metric:score",
            "",
            "metric.py, line 2: ModuleNotFoundError: No module named 'nope'",
            id="an import",
        ),
        pytest.param(
            "x = 1\n\nraise SystemExit(2)\n", "metric:score", "", "metric.py, line 3: SystemExit: 2", id="an exit"
        ),
        pytest.param("x = '\x00'\n", "metric:score", "", "metric.py: ", id="a NUL"),
        pytest.param(
            SCORE,
            "metric:scor",
            ".entrypoint",
            'ConfigMap code, key metric.py: metric.py has no function "scor" (functions: score)',
            id="another name",
        ),
        pytest.param(
            "score = 1\n",
            "metric:score",
            ".entrypoint",
            'ConfigMap code, key metric.py: metric.py "score" is no function (functions: none)',
            id="no function",
        ),
    ],
)
def test_a_mistake_has_its_file_and_line(tmp_path: Path, text: str, entrypoint: str, path: str, says: str) -> None:
    for at, reason in ((METRIC, Reason.INVALID_METRIC), (PROGRAM, Reason.INVALID_PROGRAM)):
        with pytest.raises(RunFailed) as failed:
            loaded(a_part(tmp_path, text, entrypoint), at)
        assert (failed.value.reason, failed.value.path) == (reason, f"{at}{path}")
        assert failed.value.message.startswith(says)


def test_other_code_than_was_validated_is_refused(tmp_path: Path) -> None:
    validated = f"sha256:{sha256_hex(SCORE.encode())}"
    assert (
        loaded(a_part(tmp_path, SCORE, sha256=validated)).sha256
        == validated
        == digest_of(METRIC, a_part(tmp_path, SCORE))
    )
    with pytest.raises(RunFailed) as failed:
        loaded(a_part(tmp_path, SCORE + "# another\n", sha256=validated))
    assert (failed.value.reason, failed.value.path) == (Reason.INVALID_METRIC, METRIC)
    assert failed.value.message.startswith("ConfigMap code, key metric.py changed since it was validated (sha256:")


def test_a_file_is_read_anew_and_hides_no_module(tmp_path: Path) -> None:
    """Two files of one size and one second: a .pyc would take the second for the first."""
    for value in (1, 2):
        assert loaded(a_part(tmp_path, SCORE.replace("1", str(value)))).call(None, None) == value
    assert "metric" not in sys.modules
    assert not list(tmp_path.rglob("*.pyc"))


def test_a_file_that_is_not_there_is_told_by_its_configmap(tmp_path: Path) -> None:
    part = CodePart(entrypoint="metric:score", file=str(tmp_path / "no.py"), source="ConfigMap code, key metric.py")
    with pytest.raises(RunFailed) as failed:
        loaded(part)
    assert failed.value.reason is Reason.CODE_NOT_FOUND
    assert failed.value.message.startswith("ConfigMap code, key metric.py: ")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that modules are imported from, as those of an image."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "a_package_of_the_image"]:
        del sys.modules[name]


def test_an_images_module_is_imported_by_its_name(installed: Path) -> None:
    package = installed / "a_package_of_the_image"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "metrics.py").write_text(SCORE, encoding="utf-8")
    part = CodePart(entrypoint="a_package_of_the_image.metrics:score", source="image me/code:1")
    assert loaded(part).call(None, None) == 1
    assert loaded(part).sha256 == f"sha256:{sha256_hex(SCORE.encode())}" == digest_of(METRIC, part)


@pytest.mark.parametrize("module", ["a_package_of_the_image", "a_package_of_the_image.metrics"])
def test_a_module_that_the_image_has_not(module: str) -> None:
    with pytest.raises(RunFailed) as failed:
        loaded(CodePart(entrypoint=f"{module}:score", source="image me/code:1"))
    assert failed.value.path == f"{METRIC}.entrypoint"
    assert (failed.value.reason, failed.value.message) == (
        Reason.CODE_NOT_FOUND,
        f'image me/code:1: there is no module "{module}" where the runner runs',
    )


def test_a_pod_has_one_image() -> None:
    parts = {
        path: CodePart(entrypoint="json:dumps", source=f"image me/code:{number}")
        for number, path in enumerate((PROGRAM, METRIC), 1)
    }
    with pytest.raises(RunFailed) as failed:
        load(parts)
    assert failed.value.path == METRIC
    assert (
        failed.value.message
        == "image me/code:1 and image me/code:2: a pod runs in one image, put the code into the same"
    )
