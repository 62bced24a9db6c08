"""How each kind appears in a cluster: what it is called, what `kubectl get` shows of it, what can scale it."""

from __future__ import annotations

from dataclasses import dataclass

CATEGORY = "prompts"
"""`kubectl get prompts` shows all our kinds."""


@dataclass(frozen=True)
class Column:
    """One column of `kubectl get`."""

    name: str
    path: str
    """JSONPath."""
    type: str = "string"
    description: str = ""
    wide: bool = False
    """Shown with `-o wide` only."""


@dataclass(frozen=True)
class Scale:
    """Where the `scale` subresource finds its numbers."""

    spec_replicas: str = ".spec.replicas"
    status_replicas: str = ".status.replicas"
    selector: str = ".status.selector"


@dataclass(frozen=True)
class Resource:
    """One kind."""

    kind: str
    plural: str
    short: str
    description: str
    columns: tuple[Column, ...]
    scale: Scale | None = None
    namespaced: bool = True


def condition(type_: str, part: str = "status") -> str:
    """JSONPath of a condition, found by its type: the order of conditions is nobody's promise."""
    return f'.status.conditions[?(@.type=="{type_}")].{part}'


_READY = Column("Ready", condition("Ready"), description="Whether it is as wanted.")
_REASON = Column("Reason", condition("Ready", "reason"), description="Why it is, or is not, ready.")
_AGE = Column("Age", ".metadata.creationTimestamp", "date", "Since when there is this object.")

RESOURCES: tuple[Resource, ...] = (
    Resource(
        kind="PromptProgram",
        plural="promptprograms",
        short="pp",
        description="What an LLM program is, what good means for it, and which revision of its prompt is served.",
        columns=(
            _READY,
            _REASON,
            Column("Serving", ".status.servedRevision.name", description="The revision that is served."),
            Column(
                "Score",
                ".status.promotedRevision.score",
                description="Score of the promoted revision on the test rows, 0 to 100.",
            ),
            Column(
                "Verdict",
                ".status.candidates[0].verdict",
                description="What became of the newest candidate: promoted, or why not.",
            ),
            Column(
                "Run",
                ".status.promotedRevision.run",
                description="The run that found the promoted revision.",
                wide=True,
            ),
            Column("Rows", ".status.dataset.rows", "integer", "Labelled rows that can be used.", wide=True),
            Column("Dropped", ".status.dataset.dropped", "integer", "Rows that could not be read.", wide=True),
            Column("Target", ".spec.target.endpoint.name", description="The endpoint it is tuned for.", wide=True),
            _AGE,
        ),
    ),
    Resource(
        kind="OptimizationRun",
        plural="optimizationruns",
        short="orun",
        description="How a PromptProgram is improved, and what that may cost.",
        columns=(
            Column("Program", ".spec.programRef.name", description="The program that is improved."),
            Column("Phase", ".status.phase", description="Where it is, for eyes only."),
            Column("Reason", condition("Ready", "reason"), description="Why it is there."),
            Column("Done%", ".status.progress.percent", "integer", "Percent of the run that is done."),
            Column("Calls", ".status.usage.calls", "integer", "Requests that were sent."),
            Column("Cost", ".status.usage.cost", description="Money that was spent."),
            Column("Outcome", ".status.outcome", description="What the run found."),
            Column(
                "Gain",
                ".status.gate.delta",
                description="Gain over the incumbent on the test rows, in points of 0 to 100.",
            ),
            Column(
                "Best",
                ".status.scores.best",
                description="The best score so far on the optimizer's rows, 0 to 100.",
                wide=True,
            ),
            Column(
                "Test",
                ".status.scores.test.candidate",
                description="Score of what was found on the test rows, 0 to 100.",
                wide=True,
            ),
            Column("Optimizer", ".spec.optimizer.type", description="How it improves.", wide=True),
            Column("Revision", ".status.revision.name", description="The revision that it found.", wide=True),
            _AGE,
        ),
    ),
    Resource(
        kind="ModelEndpoint",
        plural="modelendpoints",
        short="mep",
        description="Which model answers, how much of it there is, and what it costs.",
        columns=(
            Column("Provider", ".spec.provider.type", description="Who answers."),
            Column("Model", ".spec.provider.*.model", description="The model, as its provider calls it."),
            _READY,
            _REASON,
            Column(
                "Pulled%", ".status.pull.percent", "integer", "Percent of the model that is downloaded, while it is."
            ),
            Column(
                "Pods", ".status.readyReplicas", "integer", "Pods that answer; none where the provider is not ours."
            ),
            Column("Runs", ".status.activeRuns", "integer", "Admitted runs that use it."),
            Column("Wanted", ".status.desiredReplicas", "integer", "Pods that are wanted.", wide=True),
            Column("URL", ".status.url", description="Where it answers.", wide=True),
            _AGE,
        ),
        scale=Scale(),
    ),
    Resource(
        kind="OptimizationQuota",
        plural="optimizationquotas",
        short="oq",
        description="What a platform team grants to the runs of some namespaces.",
        columns=(
            _READY,
            _REASON,
            Column("Period", ".spec.period", description="When calls, tokens and cost begin anew."),
            Column("Calls", ".status.used.calls", "integer", "Requests of this period."),
            Column("Tokens", ".status.used.tokens", "integer", "Tokens of this period.", wide=True),
            Column("Cost", ".status.used.cost", description="Money of this period."),
            Column("Runs", ".status.admittedRuns", "integer", "Admitted runs."),
            _AGE,
        ),
        namespaced=False,
    ),
)
