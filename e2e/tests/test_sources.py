"""Rows that only a pod can see."""

from __future__ import annotations

from e2e.cluster.proof.pods import pod_spec
from e2e.demo.apiserver import Body
from e2e.demo.follow import condition
from e2e.tests.conftest import Uninterrupted, a_case, digest_of
from e2e.tests.counting import Counting
from e2e.tests.space import Space

PROGRAM = "PromptProgram"
CLAIM = "reviews"


def test_rows_on_a_volume_are_found_where_they_lie_and_come_to_the_same_prompt(
    space: Space, counting: Counting, uninterrupted: Uninterrupted
) -> None:
    volume = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}
    rows = [body for body in a_case().objects() if body["kind"] == "ConfigMap"]
    space.apply(
        *rows, {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": volume}
    )
    space.apply(_filler())
    space.until("the volume is filled", lambda: _phase(space) == "Succeeded", seconds=90)
    space.delete("pod", "filler", "--now")

    space.apply(*_on_the_volume("2026/reviews.jsonl"))
    # A file may come: it is looked for again and again.
    want = "DatasetNotFound: spec.dataset.source: 2026/reviews.jsonl does not exist (on the volume there is: 2025)"
    space.until(
        want,
        lambda: want in str(condition(space.status(PROGRAM, "sentiment"), "Accepted").get("message")),
        seconds=60,
    )
    assert counting.requests == 0

    space.apply(*_on_the_volume("2025/reviews.jsonl"))
    assert digest_of(space.ended()) == uninterrupted.digest
    assert counting.requests == uninterrupted.requests


def _filler() -> Body:
    """A pod that writes the ConfigMap's rows onto the volume."""
    spec = pod_spec("mkdir -p /data/2025 && cp /from/data.jsonl /data/2025/reviews.jsonl", claim=CLAIM)
    spec["containers"][0]["volumeMounts"].append({"name": "from", "mountPath": "/from", "readOnly": True})
    spec["volumes"].append({"name": "from", "configMap": {"name": "rows"}})
    spec["securityContext"]["fsGroup"] = spec["securityContext"]["runAsUser"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "filler"}, "spec": spec}


def _phase(space: Space) -> str:
    return str((space.find("Pod", "filler") or {}).get("status", {}).get("phase"))


def _on_the_volume(path: str) -> list[Body]:
    source = {
        "type": "PersistentVolumeClaim",
        "configMap": None,
        "persistentVolumeClaim": {"claimName": CLAIM, "path": path},
    }
    return [body for body in a_case(program={"dataset": {"source": source}}).objects() if body["kind"] != "ConfigMap"]
