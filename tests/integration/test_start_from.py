"""A run that starts from a revision: what is optimized is that one, what it has to beat stays what it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dspy_operator.cli.local import Options, prepare_run
from dspy_operator.contract.documents import Progress
from dspy_operator.contract.exits import Reason
from dspy_operator.contract.runspec import Control
from dspy_operator.runner.flow import Run
from tests.integration.acceptance import resumed_to_the_same, unanswered, uninterrupted
from tests.integration.harness import OPTIMIZERS, Case, workplace
from tests.integration.test_kill import THREADS, kill_at_ordinal

pytestmark = pytest.mark.timeout(600)

BY_NAME = {"startFrom": {"type": "Revision", "revision": {"name": "sentiment-1f2e3d4c"}}}


@pytest.fixture(scope="module")
def revision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A revision with demonstrations."""
    folder = tmp_path_factory.mktemp("first")
    with workplace(folder, Case(OPTIMIZERS["BootstrapFewShot"])) as place:
        done = place.run()
        assert done.code == 0, done.stderr
        assert demos(place.run_folder / "revision")
        return place.run_folder / "revision"


def test_an_optimizer_begins_with_the_revision_and_the_baseline_stays_what_it_is(
    tmp_path: Path, revision: Path
) -> None:
    with workplace(tmp_path, Case({"type": "GEPA", "gepa": {"maxMetricCalls": 90}}, run=BY_NAME)) as place:
        done = place.run("--revision", f"sentiment-1f2e3d4c={revision}")
        assert done.code == 0, done.stderr
        assert demos(place.run_folder / "revision") == demos(revision)  # GEPA changes the instructions alone
        scores = done.result["scores"]
        assert scores["devStart"]["score"] > scores["devBaseline"]["score"]
        assert scores["baseline"]["score"] < scores["candidate"]["score"]
        assert "incumbent" not in scores
        digest = json.loads((revision / "provenance.json").read_bytes())["revision"]
        provenance = json.loads((place.run_folder / "revision" / "provenance.json").read_bytes())
        assert provenance["startFrom"] == digest
        assert place.verify().code == 0


def test_what_is_served_is_begun_with_and_has_to_be_beaten_also_after_a_kill(tmp_path: Path, revision: Path) -> None:
    case = Case(OPTIMIZERS["COPRO"], concurrency=THREADS, run={"startFrom": {"type": "Current"}})
    served = ("--incumbent", str(revision))
    whole = uninterrupted(tmp_path / "uninterrupted", case, arguments=served)
    assert whole.result["scores"]["devStart"] == whole.result["scores"]["devIncumbent"]
    assert {"baseline", "incumbent", "candidate"} <= set(whole.result["scores"])
    with workplace(tmp_path / "killed", case) as place:
        kill_at_ordinal(place, whole.judge_from - 5, settled=True, arguments=served)
        place.server.wait_until(lambda counts: counts["in_flight"] == 0)
        other = place.run("--resume")
        assert (other.code, "what it starts from changed since" in other.stderr) == (64, True), other.stderr
        resumed_to_the_same(place, whole, unanswered(place), arguments=served)
        assert place.verify().code == 0


def test_an_evaluation_of_a_revision_judges_it(tmp_path: Path, revision: Path) -> None:
    with workplace(tmp_path, Case({"type": "Evaluate"}, run=BY_NAME)) as place:
        done = place.run("--revision", f"sentiment-1f2e3d4c={revision}")
        assert done.code == 0, done.stderr
        assert done.result["candidate"] == json.loads((revision / "provenance.json").read_bytes())["revision"]
        assert place.server.counts()["requests"] == 12 + 12 + 1  # the preflight asks for a row that no arm answers


def test_a_revision_is_given_by_the_name_that_the_run_says(tmp_path: Path, revision: Path) -> None:
    with workplace(tmp_path, Case(OPTIMIZERS["COPRO"], run=BY_NAME)) as place:
        missing, other = place.run(), place.run("--revision", f"sentiment-0badcafe={revision}")
        assert (missing.code, other.code, place.server.counts()["requests"]) == (64, 64, 0)
        assert "here --revision sentiment-1f2e3d4c=FOLDER gives its files" in missing.stderr
        assert "all.yaml:" in missing.stderr
        assert "--revision sentiment-0badcafe=...: spec.startFrom names sentiment-1f2e3d4c" in other.stderr


def test_a_revision_of_another_program_is_refused_before_a_call(tmp_path: Path, revision: Path) -> None:
    program = {"program": {"single": {"module": {"type": "ChainOfThought"}}}}
    with workplace(tmp_path, Case(OPTIMIZERS["COPRO"], run=BY_NAME, program=program)) as place:
        done = place.run("--revision", f"sentiment-1f2e3d4c={revision}")
        assert (done.code, done.result["reason"], done.result["path"]) == (40, "InvalidProgram", "spec.startFrom")
        assert "revision sentiment-1f2e3d4c does not fit this program: it has the fields" in done.result["message"]
        assert place.server.counts()["requests"] == 0


def test_files_that_have_not_the_digest_that_was_frozen_are_refused(tmp_path: Path, revision: Path) -> None:
    """As of a ConfigMap that claims to be another revision."""
    copy = shutil.copytree(revision, tmp_path / "revision")
    with workplace(tmp_path, Case(OPTIMIZERS["COPRO"], run=BY_NAME)) as place:
        given = {"sentiment-1f2e3d4c": copy}
        options = Options([place.manifests], place.out, endpoints={"fake": place.server.url}, revisions=given)
        local = prepare_run(options)
        (copy / "prompts.json").write_text("{}", encoding="utf-8")
        result = Run(local.spec, local.control, Nobody()).execute()
        assert (result.reason, result.path) == (Reason.INVALID_PROGRAM, "spec.startFrom")
        assert "revision sentiment-1f2e3d4c have not the digest v1:" in result.message


class Nobody:
    """A channel to nobody."""

    interval_seconds = 1.0

    def send(self, progress: Progress) -> Control | None:
        return None


def demos(folder: Path) -> list[Any]:
    """Of the only predictor."""
    state = json.loads((folder / "program.json").read_bytes())
    (predictor,) = (part for name, part in state.items() if name != "metadata")
    return list(predictor["demos"])
