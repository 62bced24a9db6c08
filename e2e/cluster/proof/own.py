"""The product's images as the cluster runs them: not root, on a read-only root file system, at the restricted level."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import kubectl
from ..own_images import OPERATOR, RUNNER
from ..wheelhouse import ROOT
from .pods import RESTRICTED, eventually, make

if TYPE_CHECKING:
    from dspy_operator.cli.manifests import Manifests

_EXAMPLE = ROOT / "examples" / "sentiment"
_SENTIMENT_ROWS = (40, 160)  # dev and test, as examples/sentiment/program.yaml says
_IMPORTS = """
import aiohttp, httpx, kopf, kubernetes.aio.client, os, prometheus_client, structlog, sys
import dspy_operator.api.objects, dspy_operator.contract.resolve
try:
    import dspy
except ImportError:
    print(sys.version.split()[0], os.getuid(), kopf.__name__, "and no dspy")
"""


def the_runner_validates() -> str:
    """The runner's image says --help, then validates examples/sentiment to the same revision as on this machine."""
    from dspy_operator.contract import names

    here = _validated_here()
    run_json = _run_json(data=f"{names.DATA_FOLDER}/data.jsonl", work=names.WORK_FOLDER)
    _config_map("validate-spec", {names.KEY_RUN_SPEC: run_json})
    kubectl.kubectl("-n", RESTRICTED, "apply", "-f", str(_EXAMPLE / "dataset.yaml"))
    mounts: list[dict[str, Any]] = [
        {"name": "spec", "mountPath": names.SPEC_FOLDER, "readOnly": True},
        {"name": "data", "mountPath": names.DATA_FOLDER, "readOnly": True},
        {"name": "work", "mountPath": names.WORK_FOLDER},
    ]
    spec = _pod(_container("help", RUNNER.name, args=["--help"]), _container("runner", RUNNER.name, mounts=mounts))
    spec["volumes"] = [
        {"name": "spec", "configMap": {"name": "validate-spec"}},
        {"name": "data", "configMap": {"name": "sentiment-data"}},
        {"name": "work", "emptyDir": {}},
    ]
    _run_job("validate", spec)
    said_help = kubectl.kubectl("-n", RESTRICTED, "logs", "job/validate", "-c", "help")
    assert said_help.startswith("usage: python -m dspy_operator.runner"), said_help
    last = json.loads(kubectl.kubectl("-n", RESTRICTED, "logs", "job/validate", "-c", "runner").splitlines()[-1])
    result = last["result"]
    rows = result["dataset"]
    assert (result["exit"], result["reason"]) == (0, "Completed"), last
    assert (rows["train"] + rows["validation"], rows["test"]) == _SENTIMENT_ROWS, rows
    assert result["candidate"] == here["candidate"], f"{result['candidate']} there, {here['candidate']} here"
    return f"{rows['rows']} rows, revision {result['candidate'][:11]}, Python {result['versions']['python']}"


def the_operator_imports() -> str:
    """The operator's image imports what the operator stands on, and has no DSPy."""
    container = _container("operator", OPERATOR.name)
    container["command"] = ["python", "-c", _IMPORTS]  # in place of its entry point, which wants a cluster's rights
    _run_job("operator", _pod(container))
    said = kubectl.kubectl("-n", RESTRICTED, "logs", "job/operator").strip()
    assert said.endswith(" 65532 kopf and no dspy"), said
    return said


CHECKS = [the_runner_validates, the_operator_imports]


def _validated_here() -> dict[str, Any]:
    """result.json of the same validation by this machine's own Python."""
    with tempfile.TemporaryDirectory() as folder:
        run_json, data = Path(folder, "run.json"), Path(folder, "data.jsonl")
        (rows,) = _example().config_maps.values()
        data.write_text(str(rows["data.jsonl"]))
        run_json.write_text(_run_json(data=str(data), work=folder))
        ended = subprocess.run(
            [sys.executable, "-m", "dspy_operator.runner", run_json],
            env={**os.environ, "PYTHONPATH": str(ROOT / "operator")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        result: dict[str, Any] = json.loads(Path(folder, "out", "result.json").read_text())
    return result


def _run_json(*, data: str, work: str) -> str:
    from dspy_operator.contract.resolve import Surroundings, resolve_validation
    from dspy_operator.contract.runspec import Paths

    (program,) = _example().programs.values()
    paths = Paths(journal=f"{work}/journal.jsonl", out=f"{work}/out", control=f"{work}/control.json")
    return json.dumps(resolve_validation(program, Surroundings(data_path=data, paths=paths)).document())


def _example() -> Manifests:
    # Imported here and not above, as elsewhere: `down` and `distclean` run on any Python, also when there is no .venv.
    from dspy_operator.cli.manifests import read_manifests

    return read_manifests([_EXAMPLE])


def _config_map(name: str, data: dict[str, str]) -> None:
    metadata = {"name": name, "namespace": RESTRICTED}
    kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data, "immutable": True})


def _pod(*containers: dict[str, Any]) -> dict[str, Any]:
    """The last container is the pod's; those before it run first, one after the other."""
    *first, main = containers
    return {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": first,
        "containers": [main],
    }


def _container(
    name: str, image: str, *, args: list[str] | None = None, mounts: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """The image's own user and command: runAsNonRoot lets it start only if that user is a number other than 0."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "Never",
        **({"args": args} if args else {}),
        "volumeMounts": mounts or [],
        "resources": {"limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _run_job(name: str, spec: dict[str, Any]) -> None:
    """To its end. A failure says what the containers said, or why they did not start."""
    make("Job", name, {"backoffLimit": 0, "template": {"spec": spec}}, version="batch/v1", namespace=RESTRICTED)
    here = ["-n", RESTRICTED]

    def ended() -> str:
        return kubectl.kubectl(*here, "get", f"job/{name}", "-o=jsonpath={.status.succeeded}/{.status.failed}")

    with contextlib.suppress(AssertionError):
        eventually("the Job ends", lambda: ended() != "/")
    if ended() != "1/":
        _, log = kubectl.tried(*here, "logs", f"job/{name}", "--all-containers", "--tail=20")
        _, pods = kubectl.tried(*here, "get", "pods", f"--selector=job-name={name}", "-o=jsonpath={.items[*].status}")
        raise AssertionError(f"{ended()} succeeded/failed: {log}\n{pods}")
