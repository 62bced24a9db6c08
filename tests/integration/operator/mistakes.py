"""The mistakes of api.md's "First reasons": how each is made, what is then said of it, and what mends it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dspy_operator.contract.exits import Reason
from tests.integration.operator.manifests import (
    a_dataset,
    a_program,
    a_run,
    an_endpoint,
    an_ollama_endpoint,
    rows,
)
from tests.integration.operator.namespace import WAIT_SECONDS, Namespace
from tests.simulator import Ends, Failure, Play, Step

Body = dict[str, Any]
Act = Callable[[Namespace], None]

RUN, PROGRAM, ENDPOINT = ("OptimizationRun", "fast"), ("PromptProgram", "triage"), ("ModelEndpoint", "qwen")


@dataclass(frozen=True)
class Mistake:
    """One row of the table."""

    sentence: str
    on: tuple[str, str]
    """Kind and name of the object that must say it."""
    condition: str
    status: str
    reason: str
    names: tuple[str, ...]
    """What the message has to contain."""
    made: Act
    mended: Act
    """Changes what was wrong, and nothing else."""
    well: tuple[tuple[str, str], str] = (RUN, "Complete")
    """The condition that shows that all is well again."""
    seconds: float = WAIT_SECONDS

    @property
    def is_slow(self) -> bool:
        """Waits for a clock."""
        return self.seconds > WAIT_SECONDS


def applied(*bodies: Body) -> Act:
    return lambda space: space.apply(*bodies)


def world(*bodies: Body) -> Act:
    """A good endpoint, dataset, program and run, but for these objects in their place."""
    good = [an_endpoint(), a_dataset(), a_program(), a_run()]
    names = {(body["kind"], body["metadata"]["name"]) for body in bodies}
    return applied(*[body for body in good if (body["kind"], body["metadata"]["name"]) not in names], *bodies)


def plays(*tries: Play) -> Act:
    return lambda space: space.simulator.run_plays(space.name, "fast", *tries)


def both(*acts: Act) -> Act:
    def act(space: Namespace) -> None:
        for one in acts:
            one(space)

    return act


def fails_once(reason: Reason, message: str) -> Act:
    return both(plays(Play(ends=Ends(Failure(reason, message), at=Step.PREFLIGHT)), Play()), world())


def model_fails(model: str, reason: str, message: str) -> Act:
    def act(space: Namespace) -> None:
        space.simulator.model_failures[model] = (reason, message)
        space.apply(an_ollama_endpoint(model=model))

    return act


def only_pulls_with(secret: str) -> Act:
    def act(space: Namespace) -> None:
        space.simulator.pull_secrets[space.name] = secret
        space.apply(an_ollama_endpoint())

    return act


def a_secret(space: Namespace) -> None:
    data = {"token": base64.b64encode(b"s3cret").decode()}
    space.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "data": data})


def two_runs(space: Namespace) -> None:
    """One holds every slot of the endpoint."""
    space.simulator.run_plays(space.name, "first", Play(waits_at=Step.OPTIMIZE))
    narrow = an_endpoint(limits={"concurrency": 2})
    space.apply(narrow, a_dataset(), a_program(concurrencyPolicy="Allow"), a_run("first", seed=1, concurrency=2))
    space.phase("first", "Running")
    space.apply(a_run(concurrency=2))


PROGRAM_READY = (PROGRAM, "Ready")
ENDPOINT_READY = (ENDPOINT, "Ready")
KEYED = an_endpoint(
    provider={
        "type": "OpenAI",
        "openai": {
            "baseURL": "http://models.example/v1",
            "model": "qwen",
            "apiKeySecret": {"name": "keys", "key": "token"},
        },
    }
)
PRICED = an_endpoint(pricing={"currency": "USD", "input": "1", "output": "2"})

MISTAKES = [
    Mistake(
        "the ConfigMap of the rows is absent",
        *(PROGRAM, "Accepted", "False", "DatasetNotFound", ("ConfigMap", "tickets")),
        made=applied(an_endpoint(), a_program()),
        mended=applied(a_dataset()),
        well=PROGRAM_READY,
    ),
    Mistake(
        "the program names a ConfigMap that is absent",
        *(PROGRAM, "Accepted", "False", "DatasetNotFound", ("ConfigMap", "ticktes")),
        made=applied(
            an_endpoint(),
            a_dataset(),
            a_program(dataset__source={"type": "ConfigMap", "configMap": {"name": "ticktes", "key": "data.jsonl"}}),
        ),
        mended=applied(a_program()),
        well=PROGRAM_READY,
    ),
    Mistake(
        "the key of the rows is absent",
        *(PROGRAM, "Accepted", "False", "DatasetNotFound", ("tickets", "data.jsonl", "rows.jsonl")),
        made=applied(an_endpoint(), a_dataset(key="rows.jsonl"), a_program()),
        mended=applied(a_dataset()),
        well=PROGRAM_READY,
    ),
    Mistake(
        "a column is in no row",
        *(PROGRAM, "Accepted", "False", "InvalidDataset", ("spec.dataset.fields.label", "kind", "category")),
        made=applied(an_endpoint(), a_dataset(), a_program(dataset__fields={"ticket": "text", "label": "kind"})),
        mended=applied(a_program()),
        well=PROGRAM_READY,
    ),
    Mistake(
        "some rows are bad",
        *(PROGRAM, "Accepted", "True", "RowsDropped", ("2 rows dropped", "line 1", "line 2")),
        made=applied(an_endpoint(), a_dataset(text="nonsense\n{}\n" + rows()), a_program()),
        mended=applied(
            a_dataset("clean"), a_program(dataset__source__configMap={"name": "clean", "key": "data.jsonl"})
        ),
        well=PROGRAM_READY,
    ),
    Mistake(
        "a split leaves a part empty",
        *(PROGRAM, "Accepted", "False", "SplitEmpty", ("test 0",)),
        made=applied(
            an_endpoint(),
            a_dataset(),
            a_program(dataset__split={"type": "Column", "column": {"name": "category"}}),
        ),
        mended=applied(a_program()),
        well=PROGRAM_READY,
    ),
    Mistake(
        "a type is outside the grammar",
        *(PROGRAM, "Accepted", "False", "InvalidProgram", ("inputs[0].type", "position", "str")),
        made=applied(
            an_endpoint(),
            a_dataset(),
            a_program(program__single__signature__inputs=[{"name": "ticket", "type": "string"}]),
        ),
        mended=applied(a_program()),
        well=PROGRAM_READY,
    ),
    Mistake(
        "the metric names no output",
        *(PROGRAM, "Accepted", "False", "InvalidMetric", ("spec.metric.exactMatch.fields[0]", "mood", "label")),
        made=applied(an_endpoint(), a_dataset(), a_program(metric__exactMatch={"fields": ["mood"]})),
        mended=applied(a_program()),
        well=PROGRAM_READY,
    ),
    Mistake(
        "the program of a run is absent",
        *(RUN, "Accepted", "False", "ProgramNotFound", ("triage",)),
        made=applied(an_endpoint(), a_dataset(), a_run()),
        mended=applied(a_program()),
    ),
    Mistake(
        "an endpoint of a run is absent",
        *(RUN, "Accepted", "False", "EndpointNotFound", ("qwne",)),
        made=world(a_run(endpoints={"task": {"name": "qwne"}})),
        mended=applied(a_run()),
    ),
    Mistake(
        "an endpoint is another namespace's own",
        *(RUN, "Accepted", "False", "EndpointNotAllowed", ("default/closed", "spec.access.namespaces.from")),
        made=both(
            lambda space: space.elsewhere("default").apply(an_endpoint("closed")),
            world(a_run(endpoints={"task": {"name": "closed", "namespace": "default"}})),
        ),
        mended=applied(a_run()),
    ),
    Mistake(
        "the program of a run is not ready",
        *(RUN, "Admitted", "False", "ProgramNotReady", ("triage", "InvalidMetric")),
        made=world(a_program(metric__exactMatch={"fields": ["mood"]})),
        mended=applied(a_program()),
    ),
    Mistake(
        "an endpoint of a run is not ready",
        *(RUN, "Admitted", "False", "EndpointNotReady", ("qwen", "ModelNotFound")),
        made=both(
            model_fails("absent:1b", "ModelNotFound", "pull model manifest: file does not exist"),
            applied(a_dataset(), a_program(), a_run()),
        ),
        mended=applied(an_ollama_endpoint()),
    ),
    Mistake(
        "no slots are free",
        *(RUN, "Admitted", "False", "EndpointBusy", ("0 of 2", "qwen")),
        made=two_runs,
        mended=lambda space: space.simulator.release(space.name, "first"),
    ),
    Mistake(
        "the budget cannot pay the judgement",
        *(RUN, "Accepted", "False", "BudgetTooSmall", ("spec.budget.calls", "120", "100")),
        made=world(a_run(budget={"calls": 100})),
        mended=applied(a_run()),
    ),
    Mistake(
        "a cost budget has no prices",
        *(RUN, "Accepted", "False", "PricingMissing", ("spec.budget.cost", "qwen")),
        made=world(a_run(budget={"cost": "4.00"})),
        mended=applied(PRICED),
    ),
    Mistake(
        "an endpoint refuses the key",
        *(RUN, "Failed", "True", "AuthenticationFailed", ("qwen", "401")),
        made=fails_once(Reason.AUTHENTICATION_FAILED, "default/qwen answers 401"),
        mended=applied(a_run(rerun="2")),
    ),
    Mistake(
        "an endpoint's answers cannot be read",
        *(RUN, "Failed", "True", "ModelAnswersUnusable", ("qwen", "not one of 60")),
        made=fails_once(Reason.MODEL_ANSWERS_UNUSABLE, "default/qwen: not one of 60 answers can be read"),
        mended=applied(a_run(seed=1)),
    ),
    Mistake(
        "a model is not in the registry",
        *(ENDPOINT, "Ready", "False", "ModelNotFound", ("gone:1b", "file does not exist")),
        made=model_fails("gone:1b", "ModelNotFound", "gone:1b: pull model manifest: file does not exist"),
        mended=applied(an_ollama_endpoint()),
        well=ENDPOINT_READY,
    ),
    Mistake(
        "a registry is down",
        *(ENDPOINT, "Ready", "False", "PullFailed", ("connection refused",)),
        made=model_fails("down:1b", "PullFailed", "down:1b: dial tcp: connection refused"),
        mended=lambda space: space.simulator.model_failures.pop("down:1b") and None,
        well=ENDPOINT_READY,
    ),
    Mistake(
        "a model does not fit the disk",
        *(ENDPOINT, "Ready", "False", "StorageFull", ("no space left",)),
        made=model_fails("huge:70b", "StorageFull", "huge:70b: no space left on device"),
        mended=applied(an_ollama_endpoint()),
        well=ENDPOINT_READY,
    ),
    Mistake(
        "the image of a model server cannot be pulled",
        *(ENDPOINT, "Ready", "False", "ImagePullFailed", ("401 Unauthorized",)),
        made=only_pulls_with("registry-key"),
        mended=applied(
            an_ollama_endpoint(
                provider={
                    "type": "Ollama",
                    "ollama": {
                        "model": "qwen2.5:0.5b",
                        "podTemplate": {"imagePullSecrets": [{"name": "registry-key"}]},
                    },
                }
            )
        ),
        well=ENDPOINT_READY,
    ),
    Mistake(
        "the ConfigMap holds other columns",
        *(PROGRAM, "Accepted", "False", "InvalidDataset", ("spec.dataset.fields.label", "kind")),
        made=applied(an_endpoint(), a_dataset(text=rows(column="kind")), a_program()),
        mended=applied(a_dataset()),
        well=PROGRAM_READY,
        seconds=90,  # nobody watches a user's ConfigMap: it is read again after 5 to 60 s
    ),
    Mistake(
        "the Secret of an API key is absent",
        *(RUN, "Admitted", "False", "SecretMissing", ("keys", "token")),
        made=world(KEYED),
        mended=a_secret,
        seconds=100,  # Secrets are never read: the pod tries again after a minute
    ),
    Mistake(
        "an endpoint is away",
        *(RUN, "Admitted", "False", "EndpointUnavailable", ("qwen", "503")),
        made=fails_once(Reason.ENDPOINT_UNAVAILABLE, "default/qwen: 10 requests without an answer, the last 503"),
        mended=lambda space: None,
        seconds=100,
    ),
]


def make_and_mend(mistake: Mistake, space: Namespace) -> None:
    """The whole story of one mistake."""
    mistake.made(space)
    wanted = (mistake.condition, mistake.status, mistake.reason)
    space.condition(*mistake.on, *wanted, words=mistake.names, seconds=mistake.seconds)
    if mistake.condition == "Accepted" and mistake.status == "False":
        assert_nothing_was_paid(space)

    mistake.mended(space)

    space.condition(*mistake.well[0], mistake.well[1], "True", seconds=mistake.seconds)
    if mistake.on[0] == mistake.well[0][0] == "PromptProgram":
        space.condition(*mistake.on, "Accepted", "True", "Accepted")


def assert_nothing_was_paid(space: Namespace) -> None:
    """A mistake that is seen beforehand costs no call."""
    assert space.simulator.tries(space.name, "fast") == []
