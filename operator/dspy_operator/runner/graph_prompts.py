"""The part of `prompts.json` that a graph adds: how its steps are wired, and one walk through them without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dspy

from dspy_operator.api.graph import QUERY, Graph
from dspy_operator.api.program import DEFAULT_TOP_K
from dspy_operator.api.signature_types import (
    Choice,
    DictOf,
    ListOf,
    Member,
    Moment,
    Object,
    OneOf,
    Scalar,
    TypeExpr,
)
from dspy_operator.runner.react_prompts import HEADERS
from dspy_operator.runner.retrieval import looking_up
from dspy_operator.runner.values import for_dspy, input_fields, plain_fields

Answer = Callable[
    [str, dspy.Predict, Mapping[str, object], Mapping[str, object]], tuple[dict[str, Any], dict[str, Any]] | None
]
"""(name, predictor, inputs, outputs) -> the step's vector and the outputs as the adapter reads them; None where it cannot."""
Row = tuple[Mapping[str, object], Mapping[str, object]]

_STEPS = (
    "The steps in their order. A value comes from `inputs.<input>`, from `<node>.<output>`, or is `item`. Afterwards `output` "
    "says where each output of the program comes from."
)
_FOR_EACH = "The step is done for each item of that list, of the first maxItems; each of its outputs is the list of what they gave."

_RETRIEVE = (
    'POST {"query": ..., "topK": ...} as JSON to the url; it answers with a list of texts in JSON. Its output `passages` are the '
    "first topK of them."
)

_TEMPLATE = (
    "Its output `text` is the template with {input} replaced by that input, all in one pass: a string as it is, a number or truth "
    "value as scalar, a list of strings with an empty line between them. {{ and }} are braces."
)


def wiring(graph: Graph, predictors: Sequence[str], headers: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """`wiring` and `output`.

    Args:
        graph: what the program means.
        headers: node -> names of the headers that its server wants.
        predictors: their names as DSPy has them; that of a ChainOfThought is below its node's.
    """
    steps = []
    for name in graph.order:
        node = graph.written.nodes[name]
        asks: dict[str, Any] = {}
        inputs = [QUERY]
        if node.predict is not None:
            inputs = [field.name for field in node.predict.signature.inputs]
            asks = {"predictor": next(each for each in predictors if each.partition(".")[0] == name)}
        if node.retrieve is not None:
            asks = {"retrieve": {"url": node.retrieve.http.url, "topK": node.retrieve.top_k or DEFAULT_TOP_K}}
            asks |= {"headers": list(headers[name])} if name in headers else {}
        if node.template is not None:
            inputs, asks = sorted(node.inputs), {"template": node.template.text}
        steps.append(
            {
                "node": name,
                **asks,
                "inputs": {field: node.inputs[field] for field in inputs},
                **({"forEach": node.for_each, "maxItems": node.max_items} if node.for_each is not None else {}),
            }
        )
    return {"wiring": steps, "output": dict(sorted(graph.written.output.items()))}


def rules(graph: Graph, headers: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """What the wiring means."""
    nodes = graph.written.nodes.values()
    told = {"steps": _STEPS}
    told |= {"forEach": _FOR_EACH} if any(node.for_each is not None for node in nodes) else {}
    told |= {"retrieve": _RETRIEVE} if any(node.retrieve is not None for node in nodes) else {}
    told |= {"headers": HEADERS} if headers else {}
    told |= {"template": _TEMPLATE} if any(node.template is not None for node in nodes) else {}
    return {"wiring": told}


def walked(module: dspy.Module, graph: Graph, rows: Sequence[Row], answer: Answer) -> dict[str, Any]:
    """`vectors` of the steps of one row, in the order in which they were done, and the whole that they make, `example`.

    Outputs that are the program's own are the row's labels; what only other steps read is made up from its type.
    """
    for inputs, labels in rows:
        try:
            steps, outputs = walk(module, graph, inputs, labels, answer)
        except CannotBeWalked:
            continue
        vectors = [step for step in steps if "predictor" in step]
        looked_up = [step for step in steps if "predictor" not in step]
        example = {"inputs": dict(inputs), **({"retrieved": looked_up} if looked_up else {}), "outputs": outputs}
        return {"vectors": vectors, "example": example}
    return {"vectors": None, "note": "no row can be walked through the steps: no vectors"}


class CannotBeWalked(Exception):
    """A row whose messages or answers no vector can hold."""


def walk(
    module: Any, graph: Graph, inputs: Mapping[str, object], labels: Mapping[str, object], answer: Answer
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What the steps of a row did, and the outputs: of each that asks the model its vector, of each that looks up what it found.

    Raises:
        CannotBeWalked: where a step's message or answer makes no vector.
    """
    module = module.deepcopy()
    vectors: list[dict[str, Any]] = []

    def answering(name: str, predictor: dspy.Predict) -> Callable[..., dspy.Prediction]:
        node = name.partition(".")[0]
        made_up = {
            field.name: sample(graph.fields[node][field.name], field.name)
            for field in graph.written.nodes[node].predict.signature.outputs  # type: ignore[union-attr]  # it is a predictor
        }
        known = {
            reference.partition(".")[2]: labels[output]
            for output, reference in graph.written.output.items()
            if reference.partition(".")[0] == node and graph.written.nodes[node].for_each is None and output in labels
        }

        def forward(**given: Any) -> dspy.Prediction:
            found = answer(name, predictor, plain_fields(given), made_up | known)
            if found is None:
                raise CannotBeWalked
            vectors.append(found[0])
            return dspy.Prediction(**found[1])

        return forward

    for name, predictor in module.named_predictors():
        predictor.forward = answering(name, predictor)

    def look_up(url: str, query: str, top_k: int, node: str = "") -> list[str]:
        found = [f"Passage {number} for: {query}" for number in range(1, min(top_k, 2) + 1)]
        vectors.append({"url": url, "query": query, "topK": top_k, "passages": found})
        return found

    with looking_up(module, look_up):
        prediction = module(**for_dspy(input_fields(module), inputs))
    return vectors, plain_fields(prediction)


def sample(type_: TypeExpr, name: str) -> Any:
    """A value of a type, as JSON; the same each time. Of a list two items.

    Args:
        type_: without Image, Audio and History, which no model answers with.
        name: of the field, for texts.
    """
    match type_:
        case Scalar(scalar):
            return {"str": f"the {name}", "int": 1, "float": 0.5, "bool": True}[scalar]
        case Choice(values):
            return values[0]
        case ListOf(item):
            return [sample(item, f"{name} {number}") for number in (1, 2)]
        case DictOf(value):
            return {name: sample(value, name)}
        case OneOf(members=members):
            return sample(members[0], name)
        case Moment(moment):
            return {"date": "2026-01-01", "datetime": "2026-01-01T12:00:00Z"}[moment]
        case Object(members=members):
            return {member.name: _bounded(member) for member in members}
    raise ValueError(f"no value of type {type_}")


def _bounded(member: Member) -> Any:
    if member.minimum is None and member.maximum is None:
        return sample(member.type, member.name)
    return member.minimum if member.minimum is not None else member.maximum
