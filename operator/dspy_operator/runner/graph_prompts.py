"""The part of `prompts.json` that a graph adds: how its steps are wired, and one walk through them without a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dspy

from dspy_operator.api.graph import Graph
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


def wiring(graph: Graph, predictors: Sequence[str]) -> dict[str, Any]:
    """`wiring` and `output`.

    Args:
        graph: what the program means.
        predictors: their names as DSPy has them; that of a ChainOfThought is below its node's.
    """
    steps = []
    for name in graph.order:
        node = graph.written.nodes[name]
        assert node.predict is not None
        predictor = next(each for each in predictors if each.partition(".")[0] == name)
        inputs = [field.name for field in node.predict.signature.inputs]
        steps.append(
            {
                "node": name,
                "predictor": predictor,
                "inputs": {field: node.inputs[field] for field in inputs},
                **({"forEach": node.for_each, "maxItems": node.max_items} if node.for_each is not None else {}),
            }
        )
    return {"wiring": steps, "output": dict(sorted(graph.written.output.items()))}


def rules(graph: Graph) -> dict[str, dict[str, str]]:
    """What the wiring means."""
    repeated = any(node.for_each is not None for node in graph.written.nodes.values())
    return {"wiring": {"steps": _STEPS} | ({"forEach": _FOR_EACH} if repeated else {})}


def walked(module: dspy.Module, graph: Graph, rows: Sequence[Row], answer: Answer) -> dict[str, Any]:
    """`vectors` of the steps of one row, in the order in which they were done, and the whole that they make, `example`.

    Outputs that are the program's own are the row's labels; what only other steps read is made up from its type.
    """
    for inputs, labels in rows:
        try:
            vectors, outputs = walk(module, graph, inputs, labels, answer)
        except CannotBeWalked:
            continue
        return {"vectors": vectors, "example": {"inputs": dict(inputs), "outputs": outputs}}
    return {"vectors": None, "note": "no row can be walked through the steps: no vectors"}


class CannotBeWalked(Exception):
    """A row whose messages or answers no vector can hold."""


def walk(
    module: Any, graph: Graph, inputs: Mapping[str, object], labels: Mapping[str, object], answer: Answer
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The vectors of a row's steps, and the outputs.

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
    prediction = module(**for_dspy(input_fields(module), inputs))
    return vectors, plain_fields(prediction)


def sample(type_: TypeExpr, name: str) -> Any:
    """A value of a type, as JSON; the same each time. Of a list two items.

    Args:
        type_: without Image and History, which no model answers with.
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
