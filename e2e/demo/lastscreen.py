"""What the demo says at its end: the scores, what they cost, what they show and what not, and what to try next. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspy_operator.contract import names

Result = Mapping[str, Any]
"""result.json of a run."""


_PROVEN = (
    "What this shows: the whole path is real (model, optimizer, budget, journal, judgement, revision), and the gain over the",
    "program as written is not chance on these rows. What it does not show: that a larger model would gain as much. Much of what",
    "optimization gives a model this small is that its answers can be read at all: the schema alone repairs that, without any",
    "optimization. Compare the second line with the third before you pay for optimization.",
)
_NOT_PROVEN = (
    "What this shows: the whole path is real (model, optimizer, budget, journal, judgement, revision), and what an optimizer found is",
    "served only where it is proven on rows that it never saw: here it is not, so the application goes on with the prompt that it had.",
)


@dataclass(frozen=True)
class Answer:
    """What the application said to the demo's question."""

    revision: str
    """Name of the revision's ConfigMap."""
    outputs: Mapping[str, str | None]
    said: str
    """The model's words; they matter where no output could be read from them."""
    document: Mapping[str, Any]
    """The application's JSON."""

    @staticmethod
    def of(program: str, document: Mapping[str, Any]) -> Answer:
        """From the application's JSON."""
        revision = names.program_revision(program, document["revision"])
        return Answer(revision, document["outputs"], document["said"], document)

    def told(self) -> str:
        """One line."""
        read = ", ".join(f"{name}: {value}" for name, value in self.outputs.items() if value is not None)
        words = " ".join(self.said.split())
        return read or f'nothing that can be read ("{words[:80]}{"..." if len(words) > 80 else ""}")'


def scores(optimized: Result, constrained: Result) -> list[str]:
    """The table, the verdict, and what a small model proves and what not."""
    arms, gate, usage = optimized.get("scores") or {}, optimized.get("gate"), optimized["usage"]
    written, found = arms.get("baseline"), arms.get("candidate")
    schema = (constrained.get("scores") or {}).get("baseline")
    rows = (written or schema or {"rows": 0})["rows"]
    title = f"Held-out test, {rows} rows of real film reviews, labelled by people"
    told = [
        f"{title:<68} score   unreadable answers",
        _row("as written (Chat format)", written),
        _row("as written, held to a JSON schema (constrained decoding)", schema),
        _row("optimized (BootstrapFewShot, Chat format)", found),
        "",
        f"Optimized against as written: {gate['why']}" if gate else f"Not judged: {optimized.get('message', '')}",
        f"The optimized run cost {_spent(usage)}; the comparison {_spent(constrained['usage'])}.",
        "",
    ]
    return told + list(_PROVEN if gate and gate.get("passed") else _NOT_PROVEN)


def closing(
    *,
    namespace: str,
    program: str,
    run: str,
    question: str,
    baseline: str,
    before: Answer | None,
    after: Answer | None,
    minutes: Sequence[tuple[str, float]],
) -> list[str]:
    """The application, where things are, how long it took, what to try next."""
    told = ["", f'The application was asked: "{question}"']
    for when, answer in (("before", before), ("after", after)):
        told.append(f"  {when:<7} {f'{answer.revision:<24} {answer.told()}' if answer else 'it was not asked'}")
    served = after.revision if after else f"{program}-current"
    steps = ", ".join(f"{title} {spent:.1f}" for title, spent in minutes)
    here = f"-n {namespace}"
    pin = f'{{"spec": {{"revision": {{"name": "{baseline}"}}}}}}'
    return [
        *told,
        "",
        f"Minutes: {steps}; {sum(spent for _, spent in minutes):.1f} in all",
        f"The revisions are immutable ConfigMaps: {', '.join(dict.fromkeys([baseline, served]))}; "
        f"applications mount {names.program_current(program)}.",
        "",
        "Try next (after the export that is printed above):",
        f"  kubectl get prompts {here}",
        f"  kubectl describe orun {run} {here}",
        f"  kubectl get cm {names.program_current(program)} {here} -o jsonpath='{{.data.program\\.py}}'   # plain DSPy, runs by itself",
        f"  kubectl patch pp {program} {here} --type=merge -p '{pin}'   # roll back; the application follows",
        f"  .venv/bin/python -m e2e.demo down{'' if namespace == 'demo' else f' --namespace {namespace}'}   # the demo and the operator; `make clean`: the cluster too",
    ]


def _row(what: str, score: Mapping[str, Any] | None) -> str:
    if score is None:
        return f"  {what:<66}     -"
    return f"  {what:<66} {score['score']:6.1f}   {score.get('unreadable', 0):.0f} of {score['rows']:.0f}"


def _spent(usage: Mapping[str, Any]) -> str:
    return f"{usage['calls']} calls and {usage['inputTokens'] + usage['outputTokens']:,} tokens"
