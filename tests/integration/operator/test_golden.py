"""What a person reads: kubectl's screens, held against golden files. UPDATE_GOLDEN=1 writes them anew.

    UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/integration/operator/test_golden.py

Read what has changed as its user would: a column, a message or a description that confuses is a bug of ours.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dspy_operator.api.resources import RESOURCES
from tests.controlplane.processes import ControlPlane
from tests.integration.operator.installation import Operator
from tests.integration.operator.manifests import a_dataset, a_program, a_run, an_endpoint
from tests.integration.operator.namespace import Namespace
from tests.integration.operator.screens import GOLDEN, assert_golden, normalised, screen
from tests.integration.operator.states import reach
from tests.simulator import Simulator

EXPLAINED = {
    "pp": ("spec.dataset.split", "spec.promotion", "spec.promotion.minImprovement", "status.testUse"),
    "orun": ("spec.budget", "spec.budget.calls", "spec.readyWhen", "spec.stop", "status.scores", "status.phase"),
    "mep": ("spec.provider.ollama", "spec.replicas", "spec.scaling.scaleDownDelay", "spec.pricing", "status.pull"),
    "oq": ("spec.period", "spec.limits", "spec.runBudget"),
}
"""Fields whose description a person needs, and is shown."""
NAMESPACED = [resource.short for resource in RESOURCES if resource.namespaced]
DESCRIBED = {
    "orun": ("endpoint-unavailable", "improved", "running", "failed", "program-not-found", "estimated"),
    "pp": ("promoted", "manual", "invalid-metric"),
    "mep": ("loaded", "pulling", "model-not-found"),
}
SCREENS = {f"get-{short}": (f"get {short}", f"get {short} -o wide") for short in NAMESPACED} | {
    f"describe-{short}-{name}": (f"describe {short} {name}",) for short, names in DESCRIBED.items() for name in names
}
"""Golden file -> commands. In this order: what waits for the clock comes first."""


@pytest.fixture(scope="module")
def screens(installed: ControlPlane, _simulator: Simulator, _operator: Operator) -> Mapping[str, str]:
    """What kubectl shows of a namespace with an object in each typical state."""
    if not _operator.is_running:
        _operator.start()
    _simulator.problems.clear()
    space = Namespace("team-a", installed, _simulator, _operator)
    space.create()
    reach(space)
    shown = {name: screen(space.plane, space.name, *commands) for name, commands in SCREENS.items()}
    space.delete()
    assert not _simulator.problems, "\n".join(_simulator.problems)
    return shown


@pytest.mark.parametrize("name", SCREENS)
def test_states(screens: Mapping[str, str], name: str) -> None:
    assert_golden(name, screens[name])


def test_get_prompts(installed: ControlPlane, simulator: Simulator, operator: Operator) -> None:
    """The first command of the documents, when all went well."""
    space = Namespace("team-b", installed, simulator, operator)
    space.create()
    space.apply(an_endpoint(), a_dataset(), a_program(), a_run())
    space.condition("OptimizationRun", "fast", "Complete", "True")
    space.wait("PromptProgram", "triage", lambda body: "promotedRevision" in body["status"], "promoting")
    space.wait("ModelEndpoint", "qwen", lambda body: body["status"].get("activeRuns") == 0, "free again")
    assert_golden("get-prompts", screen(space.plane, space.name, "get prompts", "get pp,orun,mep -o wide"))
    space.delete()


@pytest.mark.parametrize("short", EXPLAINED)
def test_explain(installed: ControlPlane, short: str) -> None:
    fields = [f"explain {short}.{field}" for field in EXPLAINED[short]]
    commands = [f"explain {short}", f"explain {short} --recursive", *fields]
    assert_golden(f"explain-{short}", screen(installed, "default", *commands))


def test_a_quota_is_refused_in_words(installed: ControlPlane) -> None:
    """Of quotas nothing is stored before they are built, so that there is no state of one to show."""
    spec = "{limits: {calls: 5000}, namespaceSelector: {matchLabels: {team: a}}}"
    quota = f"{{apiVersion: dspy-operator.io/v1alpha1, kind: OptimizationQuota, metadata: {{name: a}}, spec: {spec}}}"
    applied = installed.kubectl("apply", "-f", "-", stdin=quota)
    assert applied.returncode == 1
    shown = screen(installed, "default", "get oq")
    assert_golden("get-oq", f"$ kubectl apply -f quota.yaml\n{normalised(applied.stderr)}\n{shown}")


def test_each_golden_file_has_its_test() -> None:
    wanted = {*SCREENS, "get-oq", "get-prompts", *(f"explain-{short}" for short in EXPLAINED)}
    assert {path.stem for path in GOLDEN.iterdir()} == wanted
    assert set(EXPLAINED) == {resource.short for resource in RESOURCES}
