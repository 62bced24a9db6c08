"""What `make demo` shows, with the smallest model and few rows: pull, run, revision, application, back to zero."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from e2e.cluster import kubectl
from e2e.cluster.steps.fixtures import NAMESPACE as FIXTURES_NAMESPACE
from e2e.cluster.wheelhouse import ROOT
from e2e.demo import overlay
from e2e.demo.apiserver import ApiServer, Body
from e2e.demo.application import Application
from e2e.demo.supply import SMOLLM, Supply
from e2e.tests.space import Space

_RUN, _PROGRAM, _ENDPOINT = "sentiment-bootstrap", "sentiment", "qwen"
_EXAMPLE = ROOT / "examples" / "sentiment"
_LEARN, _JUDGE = 6, 8
_REGISTRY = "model-registry:5001"
_SLOW_BYTES_PER_SECOND = 1_200_000
"""Of each connection; Ollama opens one for 100 MB: the model's 98 MB take 80 s, and the status tells percents every 15 s."""


@pytest.fixture
def slow_registry(api: ApiServer, supply: Supply) -> Iterator[None]:
    """So slow that the percents of a pull can be seen; a public registry needs no help with that."""
    if not supply.pull:
        yield
        return
    rate = {"rate_bytes_per_second": _SLOW_BYTES_PER_SECOND}
    assert api.of_service(FIXTURES_NAMESPACE, _REGISTRY, "/control", method="PUT", body=rate)[0] == 200
    yield
    assert api.of_service(FIXTURES_NAMESPACE, _REGISTRY, "/control", method="DELETE")[0] == 200


def test_the_demos_path(space: Space, supply: Supply, tmp_path: Path, slow_registry: None) -> None:
    _apply(space, supply, tmp_path)
    percents = _percents_until_ready(space)
    application = Application(space.api, space.name, _PROGRAM)

    application.wait_until_up()
    before = application.ask("A film to fall asleep in.")
    status = space.ended(_RUN, seconds=600)

    assert status["phase"] == "Succeeded", status
    assert len(percents) >= 3, percents
    assert status["outcome"] in ("Improved", "NoImprovement"), status
    assert status["usage"]["calls"] == space.account()[_RUN]["used"]["calls"] > 2 * _JUDGE
    served = space.status("PromptProgram", _PROGRAM)["servedRevision"]["name"]
    assert before.revision == space.status("PromptProgram", _PROGRAM)["baselineRevision"]
    application.wait_for(served)
    assert space.find("ConfigMap", f"{_PROGRAM}-current") is not None
    # The program makes it of what the run left: the run hears its name a moment after its own end.
    space.until("the run's revision is there", lambda: _revision(space) is not None, seconds=30)
    space.condition("ModelEndpoint", _ENDPOINT, "Ready", "True", "ScaledToZero", seconds=120)
    space.until("no pod of the model is left", lambda: not space.pods_of_models(), seconds=60)


def test_a_killed_ollama_delays_a_run_and_no_more(space: Space, supply: Supply, tmp_path: Path) -> None:
    _apply(space, supply, tmp_path)
    space.until("the run calls the model", lambda: _calls(space) >= 4, seconds=240)
    (pod,) = space.pods_of_models()

    space.delete("pod", pod["metadata"]["name"], "--grace-period=0", "--force", "--wait=false")
    status = space.ended(_RUN, seconds=600)

    assert status["phase"] == "Succeeded", status
    assert [one["metadata"]["uid"] for one in space.pods_of_models()] != [pod["metadata"]["uid"]]


def _apply(space: Space, supply: Supply, folder: Path) -> None:
    """The example and the application, as the demo applies them, with fewer rows."""
    made = overlay.kustomization(folder, supply, namespace=space.name, model=SMOLLM)
    made["resources"] = [resource for resource in made["resources"] if not resource.endswith("-constrained")]
    rows = [{"op": "replace", "path": "/data/data.jsonl", "value": _few_rows()}]
    made["patches"].append({"target": {"kind": "ConfigMap", "name": "sentiment-data"}, "patch": json.dumps(rows)})
    overlay.write(folder, made)
    kubectl.kubectl("apply", "-k", str(folder))


def _few_rows() -> str:
    dataset: Body = yaml.safe_load((_EXAMPLE / "dataset.yaml").read_text("utf-8"))
    rows = dataset["data"]["data.jsonl"].splitlines()
    chosen = [row for row in rows if json.loads(row)["part"] == "dev"][:_LEARN]
    chosen += [row for row in rows if json.loads(row)["part"] == "test"][:_JUDGE]
    return "\n".join(chosen) + "\n"


def _percents_until_ready(space: Space) -> set[int]:
    """What the endpoint's status told of its pull, between 0 and 100."""
    seen: set[int] = set()

    def serves() -> bool:
        status = space.status("ModelEndpoint", _ENDPOINT)
        seen.add(int((status.get("pull") or {}).get("percent") or 0))
        return bool(status.get("readyReplicas"))

    space.until("the model serves", serves, seconds=300)
    return seen - {0, 100}


def _revision(space: Space) -> Body | None:
    name = (space.status("OptimizationRun", _RUN).get("revision") or {}).get("name")
    return space.find("ConfigMap", name) if name else None


def _calls(space: Space) -> int:
    return int((space.status("OptimizationRun", _RUN).get("usage") or {}).get("calls") or 0)
