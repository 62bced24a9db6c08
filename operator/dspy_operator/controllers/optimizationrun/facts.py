"""What a pass looks at, and what it comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dspy_operator.api.objects import OptimizationRun, PromptProgram
from dspy_operator.controllers.admission.grants import Answer, Request
from dspy_operator.controllers.optimizationrun.account import Entry
from dspy_operator.controllers.optimizationrun.inputs import EndpointSeen, Frozen
from dspy_operator.engine.plan import Body, Plan, Ref


@dataclass(frozen=True)
class Facts:
    """Everything that a pass looks at."""

    now: datetime
    body: Body
    run: OptimizationRun
    program: Body | None
    program_typed: PromptProgram | None
    """None also where the program does not parse."""
    endpoints: Mapping[str, EndpointSeen]
    """By `namespace/name`: those that the run, its program or its frozen inputs name."""
    account: Body | None
    children: Sequence[Body]
    """Whatever carries this run's labels."""
    channel: Body | None
    """As fresh as the end of a pod needs it."""
    answer: Answer | None
    """Of admission, to the request as it stands."""
    revisions: Mapping[str, str]
    """Digest of a revision -> name of its ConfigMap."""
    revision_digests: Mapping[str, str]
    """Name of each of these ConfigMaps -> its digest; two may have the same."""
    image: str
    """Of the runner, as configured now."""
    pull_policy: str = "IfNotPresent"
    journals: Mapping[str, str] = field(default_factory=dict)
    """Run that `answersFrom` names -> PersistentVolumeClaim of its journal, where it has one."""
    known_programs: Sequence[str] = ()
    known_endpoints: Sequence[str] = ()
    foreign: Sequence[Ref] = ()
    """Names that we need and somebody else has."""


@dataclass(frozen=True)
class Decision:
    """What to do, and what to ask admission for (None: nothing)."""

    plan: Plan
    request: Request | None = None


@dataclass(frozen=True)
class Following:
    """An attempt that could start now, or go on."""

    entry: Entry
    """As it will be when its next try is opened, but for that."""
    frozen: Frozen | None
    """None until the inputs are known."""
    fresh: bool
    """Nothing of this attempt exists yet."""
    rerun: bool = False
    """Asked for by `rerun`: a kept result is no answer."""
