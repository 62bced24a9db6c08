"""What the API has, and no part of the operator does yet: the one list, which later work only shortens.

The schema is whole from the first release, so that `kubectl explain` shows what is coming and names do not change. What stands
here is refused at admission and in local mode with the same words: nothing is taken and then ignored. Whoever builds a thing
removes its line; the rule, the refusal of local mode and the note in the field's description go with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dspy_operator.api.rules import Rule, kebab, quoted

PREFIX = "not supported yet: "
"""How each refusal begins."""


@dataclass(frozen=True)
class NotYet:
    """One thing that is refused."""

    model: str
    """The model that has the field, wherever in a kind it stands."""
    field: str | None = None
    """Its camelCase name; None: the model as a whole."""
    what: str = ""
    """What it is called in the refusal; values are put behind it."""
    values: tuple[str, ...] = ()
    """Values that are refused; none: the field itself."""

    @property
    def id(self) -> str:
        """Of the rule."""
        return "-".join([self.model.lower(), *([kebab(self.field)] if self.field else []), "not-supported-yet"])

    @property
    def note(self) -> str:
        """What the field's description says about it."""
        listed = ", ".join(self.values)
        return f"Not supported yet: {listed}." if listed else "Not supported yet."

    def rule(self) -> Rule:
        """For the API server."""
        if self.field is None:
            return Rule(id=self.id, cel="false", message=PREFIX + self.what, reason="FieldValueForbidden")
        found = f"self.{self.field}"
        if self.values:
            cel = f"!has({found}) || !({found} in [{', '.join(map(quoted, self.values))}])"
            return Rule(
                id=self.id,
                cel=cel,
                message=f"{quoted(f'{PREFIX}{self.what} ')} + {found}",
                computed=True,
                field=f".{self.field}",
                reason="FieldValueForbidden",
            )
        return Rule(
            id=self.id,
            cel=f"!has({found})",
            message=PREFIX + self.what,
            field=f".{self.field}",
            reason="FieldValueForbidden",
        )

    def refusal(self, value: object) -> str | None:
        """For local mode: what is said of the field's value, None where it is taken."""
        if self.values:
            return f"{PREFIX}{self.what} {value}" if value in self.values else None
        return None if value is None else PREFIX + self.what


NOT_YET: tuple[NotYet, ...] = (
    # PromptProgram
    NotYet("EndpointRef", "apiKeySecret", "a local key for an endpoint of another namespace"),
    # OptimizationRun
    NotYet("OptimizationRunSpec", "ttlAfterFinished", "ttlAfterFinished"),
    # ModelEndpoint
    NotYet("Provider", "type", "provider", values=("Perplexity",)),
    NotYet("OpenAIProvider", "caBundle", "certificates of one's own"),
    NotYet("OpenAIProvider", "headers", "further headers"),
    NotYet("OpenAIProvider", "extraBody", "further fields of a request"),
    NotYet("Limits", "requestsPerMinute", "a limit of requests per minute"),
    NotYet("Limits", "tokensPerMinute", "a limit of tokens per minute"),
    NotYet("AccessNamespaces", "from", "access from", values=("Selector",)),
    # OptimizationQuota
    NotYet("OptimizationQuotaSpec", None, "OptimizationQuota"),
)


def _by_model() -> Mapping[str, tuple[NotYet, ...]]:
    found: defaultdict[str, list[NotYet]] = defaultdict(list)
    for entry in NOT_YET:
        found[entry.model].append(entry)
    return {model: tuple(entries) for model, entries in found.items()}


_BY_MODEL = _by_model()


def of(models: tuple[str, ...]) -> Iterator[NotYet]:
    """What is refused of a model.

    Args:
        models: its name, and those of the models that it inherits fields from.
    """
    for name in models:
        yield from _BY_MODEL.get(name, ())
