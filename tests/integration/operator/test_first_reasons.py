"""Each mistake of api.md's "First reasons", made on a real API server: its reason, its words, and that mending it is enough."""

from __future__ import annotations

import pytest

from tests.integration.operator.conftest import Spaces
from tests.integration.operator.manifests import a_dataset, a_program, a_run, an_endpoint
from tests.integration.operator.mistakes import MISTAKES, RUN, Mistake, make_and_mend
from tests.integration.operator.namespace import Namespace


@pytest.mark.parametrize(
    "mistake", [pytest.param(m, id=f"{m.reason}: {m.sentence}") for m in MISTAKES if not m.is_slow]
)
def test_a_mistake_is_named_and_mending_it_is_enough(mistake: Mistake, namespace: Namespace) -> None:
    make_and_mend(mistake, namespace)


def test_a_message_names_nothing_of_another_namespace(namespace: Namespace, spaces: Spaces) -> None:
    """Who may write here need not know what there is elsewhere."""
    spaces.new("private").apply(an_endpoint("hidden"))
    namespace.apply(an_endpoint(), a_dataset(), a_program(), a_run(endpoints={"task": {"name": "qwne"}}))
    said = namespace.condition(*RUN, "Accepted", "False", "EndpointNotFound", words=(f"{namespace.name}/qwen",))
    assert "private" not in said["message"] and "hidden" not in said["message"]


def test_the_table_of_first_reasons_is_whole() -> None:
    """Every reason of the table in the design has its row here; printed for the reader of the test's output."""
    first = {
        *("DatasetNotFound", "InvalidDataset", "RowsDropped", "SplitEmpty", "InvalidProgram", "InvalidMetric"),
        *("ProgramNotFound", "EndpointNotFound", "EndpointNotAllowed", "ProgramNotReady", "EndpointNotReady"),
        *("EndpointBusy", "BudgetTooSmall", "PricingMissing", "SecretMissing", "AuthenticationFailed"),
        *(
            "EndpointUnavailable",
            "ModelAnswersUnusable",
            "ModelNotFound",
            "PullFailed",
            "StorageFull",
            "ImagePullFailed",
        ),
    }
    for mistake in sorted(MISTAKES, key=lambda mistake: (mistake.on[0], mistake.reason)):
        print(f"{mistake.on[0]:16} {mistake.condition}={mistake.status:6} {mistake.reason:22} {mistake.sentence}")
    assert {mistake.reason for mistake in MISTAKES} == first
