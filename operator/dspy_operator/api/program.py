"""The program of a PromptProgram: one module, a graph of them, or code."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal, NamedTuple, Self

from pydantic import Field, model_validator
from pydantic.functional_validators import AfterValidator
from pydantic_core import PydanticCustomError

from dspy_operator.api.code import CodeRef
from dspy_operator.api.dataset import HTTP_URL, SecretName
from dspy_operator.api.fields import (
    FIELD_KEYS,
    ApiModel,
    DecimalString,
    Duration,
    FieldClass,
    FieldName,
    UnionModel,
    refuse_namesakes,
    spec_field,
)
from dspy_operator.api.metric import JudgeReward, Metric, Reward
from dspy_operator.api.rules import Rule, Ruled, above_zero_rule, decimal_rule, quoted, unique_names_rule

INPUT, EXECUTION = FieldClass.INPUT, FieldClass.EXECUTION

REFERENCE = r"^(item|[a-z_][a-z0-9_]{0,62}\.[a-z_][a-z0-9_]{0,62})$"
Bound = Annotated[int, Field(ge=-(2**53), le=2**53)]

_TAKEN = ("Literal", "Optional", "Image", "Audio", "History", "None", "True", "False")
_TAKEN_CEL = f"[{', '.join(map(quoted, _TAKEN))}]"


def _free(name: str) -> str:
    if name in _TAKEN:
        raise PydanticCustomError("reserved_name", '"{name}" is a type already', {"name": name})
    return name


class SignatureField(ApiModel):
    """One input or output of a signature."""

    name: FieldName = spec_field(INPUT, "Name of the field; a snake_case Python identifier.")
    type: str = spec_field(
        INPUT,
        'Type of the field in our closed grammar: str, int, float, bool, date, datetime, Literal["a", "b"], list[T], dict[str, T], '
        "Optional[T], A | B, a name of spec.types; for an input also Image (a URL), Audio (a data URI) or History (earlier messages), which stand alone.",
        min_length=1,
        max_length=2048,
    )
    description: str | None = spec_field(
        INPUT,
        "What the field holds; the model reads it. Unset means that it reads the name alone.",
        default=None,
        min_length=1,
        max_length=4096,
    )


_NAMES = "(self.inputs.map(field, field.name) + self.outputs.map(field, field.name))"


_NAMES_ARE_UNIQUE = Rule(
    id="field-names-are-unique",
    cel=f"{_NAMES}.all(a, {_NAMES}.exists_one(b, a == b))",
    message=f"""'field "' + {_NAMES}.filter(a, !{_NAMES}.exists_one(b, a == b))[0] + """
    """'" is there twice; inputs and outputs share one set of names'""",
    computed=True,
)


def _check_names(inputs: list[SignatureField], outputs: list[SignatureField]) -> None:
    seen: set[str] = set()
    for field in (*inputs, *outputs):
        if field.name in seen:
            raise PydanticCustomError(
                "duplicate_field",
                'field "{name}" is there twice; inputs and outputs share one set of names',
                {"name": field.name},
            )
        seen.add(field.name)


class Signature(ApiModel):
    """What goes in, what comes out, and the instructions in between (dspy.Signature)."""

    RULES: ClassVar[tuple[Rule, ...]] = (_NAMES_ARE_UNIQUE,)

    instructions: str = spec_field(
        INPUT, "What the program has to do; the text that optimizers improve.", min_length=1, max_length=32768
    )
    inputs: Annotated[list[SignatureField], Field(min_length=1, max_length=32)] = spec_field(
        INPUT, "The input fields, in the order of the prompt."
    )
    outputs: Annotated[list[SignatureField], Field(min_length=1, max_length=32)] = spec_field(
        INPUT, "The output fields, in the order of the prompt."
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        _check_names(self.inputs, self.outputs)
        return self


class ModuleType(StrEnum):
    """DSPy modules a Single program can be made of."""

    PREDICT = "Predict"
    CHAIN_OF_THOUGHT = "ChainOfThought"
    BEST_OF_N = "BestOfN"
    REFINE = "Refine"
    MULTI_CHAIN_COMPARISON = "MultiChainComparison"
    REACT = "ReAct"


ToolText = Annotated[str, Field(min_length=1, max_length=4096)]


class HTTPTool(ApiModel):
    """A tool behind a URL: arguments go out and the answer comes back as JSON."""

    RULES: ClassVar[tuple[Rule, ...]] = (above_zero_rule("timeout"),)

    url: Annotated[str, Field(min_length=8, max_length=2048, pattern=HTTP_URL)] = spec_field(
        INPUT, "Where it answers; no password in it."
    )
    headers_secret: SecretName | None = spec_field(
        EXECUTION, "Secret whose keys are sent as headers, for example Authorization.", default=None
    )
    timeout: Duration | None = spec_field(EXECUTION, 'How long one call may take; unset means "30s".', default=None)


class MCPServer(HTTPTool):
    """A server of the Model Context Protocol: it says which tools it has, and how each is called."""

    tools: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(min_length=1, max_length=64)] | None
    ) = spec_field(INPUT, "Names of those that the model may call; unset means all.", default=None)


_FINISH = "finish"
"""DSPy's own tool, with which a model ends its calls."""


class Tool(ApiModel):
    """Something that the model may call while it thinks: a function behind a URL, or all that an MCP server has."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="tool-is-in-one-place",
            cel="has(self.http) != has(self.mcp)",
            message="exactly one of http, mcp is required",
        ),
        Rule(
            id="tool-is-described-once",
            cel="has(self.mcp) ? !has(self.description) && !has(self.arguments) : has(self.description)",
            message="description is required with http; with mcp the server says description and arguments",
        ),
        Rule(
            id="tool-is-not-finish",
            cel=f"self.name != {quoted(_FINISH)}",
            message=f'"{_FINISH}" cannot be a tool\'s name: DSPy adds a tool of that name',
            field=".name",
        ),
        unique_names_rule("tool-arguments-are-unique", "arguments"),
    )

    name: FieldName = spec_field(
        INPUT, "Name of the tool; the model calls it by that. With mcp: what the server is called in messages."
    )
    description: ToolText | None = spec_field(
        INPUT,
        "What the tool does; the model reads it. Required with http; with mcp it is unset, and the server says it.",
        default=None,
    )
    arguments: Annotated[list[SignatureField], Field(max_length=16)] | None = spec_field(
        INPUT, "What the tool is called with; unset means nothing.", default=None
    )
    http: HTTPTool | None = spec_field(INPUT, "Where it answers.", default=None)
    mcp: MCPServer | None = spec_field(
        INPUT,
        "A server of the Model Context Protocol over streamable HTTP, for example http://tools.svc:8000/mcp. It is asked once which tools it has.",
        default=None,
    )
    effects: Literal["Safe", "Unsafe"] | None = spec_field(
        INPUT,
        "Safe: calling it again changes nothing. Unsafe: it does; such a tool is refused in a run. Unset means Safe.",
        default=None,
    )

    @property
    def server(self) -> HTTPTool:
        """Where it answers."""
        found = self.http or self.mcp
        assert found is not None
        return found

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.http is None) == (self.mcp is None):
            raise PydanticCustomError("exactly_one", "exactly one of http, mcp is required")
        described = self.description is not None
        if described != (self.http is not None) or (self.mcp is not None and self.arguments is not None):
            raise PydanticCustomError(
                "exactly_one",
                "description is required with http; with mcp the server says description and arguments",
            )
        return self

    @model_validator(mode="after")
    def _names(self) -> Self:
        if self.name == _FINISH:
            raise PydanticCustomError(
                "reserved_name", '"finish" cannot be a tool\'s name: DSPy adds a tool of that name'
            )
        refuse_namesakes("arguments", [argument.name for argument in self.arguments or ()])
        return self


class ReActOptions(ApiModel):
    """dspy.ReAct: the model reasons, calls tools, and answers."""

    RULES: ClassVar[tuple[Rule, ...]] = (unique_names_rule("tool-names-are-unique", "tools"),)

    tools: Annotated[list[Tool], Field(min_length=1, max_length=16)] = spec_field(INPUT, "What it may call.")
    max_iters: Annotated[int, Field(ge=1, le=100)] | None = spec_field(
        INPUT, "Most rounds of thought and call; unset means 20.", default=None
    )

    @model_validator(mode="after")
    def _unique(self) -> Self:
        refuse_namesakes("tools", [tool.name for tool in self.tools])
        return self


_MORE_FAILURES: Final = "failCount must not be above attempts: no more attempts can fail"


class RepeatOptions(ApiModel):
    """Options of dspy.BestOfN and dspy.Refine: the same question several times, the best answer is taken."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        decimal_rule("threshold", above="0", at_most="1"),
        Rule(
            id="fail-count-fits-attempts",
            cel="!has(self.failCount) || self.failCount <= self.attempts",
            message=_MORE_FAILURES,
            field=".failCount",
        ),
    )

    module: Literal["Predict", "ChainOfThought"] | None = spec_field(
        INPUT, "The module that is asked; unset means Predict.", default=None
    )
    # DSPy calls it N; a key `n` without quotes is false to a reader of YAML 1.1, kubectl among them.
    attempts: Annotated[int, Field(ge=1, le=64)] = spec_field(INPUT, "Most attempts (N).")
    reward: Reward = spec_field(INPUT, "How good an answer is.")
    threshold: DecimalString = spec_field(INPUT, 'The score, above "0" to "1", at which no further attempt is made.')
    fail_count: Annotated[int, Field(ge=1, le=64)] | None = spec_field(
        INPUT,
        "DSPy's fail_count, for each call anew: an attempt that cannot be read ends the call where its number, from 0, is above "
        "this less the failures before it. Unset means as many as there are attempts.",
        default=None,
    )

    @model_validator(mode="after")
    def _failures_fit(self) -> Self:
        if self.fail_count is not None and self.fail_count > self.attempts:
            raise PydanticCustomError("range", _MORE_FAILURES)
        return self


class MultiChainComparisonOptions(ApiModel):
    """dspy.MultiChainComparison: several chains of thought, and one answer made of them."""

    RULES: ClassVar[tuple[Rule, ...]] = (decimal_rule("temperature", at_least="0", at_most="2"),)

    m: Annotated[int, Field(ge=2, le=16)] | None = spec_field(INPUT, "Chains of thought; unset means 3.", default=None)
    temperature: DecimalString | None = spec_field(
        INPUT, 'Temperature of the comparison, "0" to "2"; unset means "0.7".', default=None
    )


class Module(UnionModel):
    """How the model is asked: a module of DSPy; `type` names the member that may be set."""

    MEMBERS: ClassVar[dict[str, str]] = {
        "ReAct": "react",
        "BestOfN": "bestOfN",
        "Refine": "refine",
        "MultiChainComparison": "multiChainComparison",
    }
    REQUIRED: ClassVar[frozenset[str]] = frozenset({"ReAct", "BestOfN", "Refine"})

    type: Literal["Predict", "ChainOfThought", "ReAct", "BestOfN", "Refine", "MultiChainComparison"] = spec_field(
        INPUT,
        "Predict asks for the outputs; ChainOfThought for reasoning first; ReAct calls tools; BestOfN and Refine ask again until the "
        "answer is good, Refine with advice; MultiChainComparison asks several times and compares.",
    )
    react: ReActOptions | None = spec_field(INPUT, "Options of ReAct.", default=None)
    best_of_n: RepeatOptions | None = spec_field(INPUT, "Options of BestOfN.", default=None, alias="bestOfN")
    refine: RepeatOptions | None = spec_field(INPUT, "Options of Refine.", default=None)
    multi_chain_comparison: MultiChainComparisonOptions | None = spec_field(
        INPUT, "Options of MultiChainComparison.", default=None
    )


class StepModule(ApiModel):
    """How the model is asked in one step of a graph."""

    type: Literal["Predict", "ChainOfThought"] = spec_field(
        INPUT, "Predict asks for the outputs; ChainOfThought for reasoning first."
    )


_REASONING_IS_FREE = Rule(
    id="reasoning-is-free",
    cel="!has(self.module) || self.module.type != 'ChainOfThought' || "
    "!self.signature.inputs.exists(field, field.name == 'reasoning') && "
    "!self.signature.outputs.exists(field, field.name == 'reasoning')",
    message='"reasoning" cannot be a field of a ChainOfThought: the module adds it',
)


def _check_reasoning(signature: Signature, module_type: str) -> None:
    names = {field.name for field in (*signature.inputs, *signature.outputs)}
    if module_type == "ChainOfThought" and "reasoning" in names:
        raise PydanticCustomError(
            "reserved_name", '"reasoning" cannot be a field of a ChainOfThought: the module adds it'
        )


class SingleProgram(ApiModel):
    """One signature and one module."""

    RULES: ClassVar[tuple[Rule, ...]] = (_REASONING_IS_FREE,)

    signature: Signature = spec_field(INPUT, "Inputs, outputs and instructions.")
    module: Module | None = spec_field(INPUT, "How the model is asked; unset means Predict.", default=None)

    @property
    def module_type(self) -> ModuleType:
        """The module, with the default applied."""
        return ModuleType(self.module.type) if self.module else ModuleType.PREDICT

    @property
    def repeat(self) -> RepeatOptions | None:
        """The options of BestOfN or Refine; None of any other module."""
        return (self.module.best_of_n or self.module.refine) if self.module else None

    @property
    def chains(self) -> int:
        """How many chains of thought a MultiChainComparison asks for, with the default applied."""
        options = self.module.multi_chain_comparison if self.module else None
        return options.m if options is not None and options.m is not None else 3

    @property
    def thinks(self) -> bool:
        """Whether the signature is asked for `reasoning` first."""
        asked = self.repeat.module if self.repeat is not None else self.module_type.value
        return asked in ("ChainOfThought", "MultiChainComparison")

    @property
    def functions(self) -> Sequence[Tool]:
        """Its tools that are described in the program: those behind URLs."""
        return [tool for tool in self.tools if tool.http is not None]

    @property
    def tools(self) -> Sequence[Tool]:
        """What the model may call; none but of a ReAct."""
        return self.module.react.tools if self.module is not None and self.module.react is not None else ()

    @model_validator(mode="after")
    def _reasoning_is_free(self) -> Self:
        _check_reasoning(self.signature, self.module_type)
        return self


DEFAULT_TOP_K = 5
"""Passages that a node gets."""


class Retrieve(ApiModel):
    """Passages that a server finds for a text."""

    http: HTTPTool = spec_field(INPUT, "The server: it gets query and topK and answers with a list of texts.")
    top_k: Annotated[int, Field(ge=1, le=100)] | None = spec_field(INPUT, "Most passages; unset means 5.", default=None)


class Template(ApiModel):
    """A text made of others, without a model."""

    text: Annotated[str, Field(min_length=1, max_length=32768)] = spec_field(
        INPUT,
        "The text, with {name} where the node's input of that name stands; braces are written twice. Of a list of texts an empty "
        "line stands between the items.",
    )


Wiring = Annotated[
    dict[FieldName, Annotated[str, Field(min_length=1, max_length=127, pattern=REFERENCE)]],
    Field(min_length=1, max_length=32),
    Ruled((FIELD_KEYS,)),
]
"""Field -> where its value comes from: "inputs.question", "ctx.passages", or "item" in a node that repeats."""


class Step(ApiModel):
    """A question to the model."""

    RULES: ClassVar[tuple[Rule, ...]] = (_REASONING_IS_FREE,)

    signature: Signature = spec_field(INPUT, "Inputs, outputs and instructions.")
    module: StepModule | None = spec_field(INPUT, "How the model is asked; unset means Predict.", default=None)

    @model_validator(mode="after")
    def _reasoning_is_free(self) -> Self:
        _check_reasoning(self.signature, self.module.type if self.module else "Predict")
        return self


class GraphNode(ApiModel):
    """One step: it asks the model, looks something up, or makes a text of others."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="node-does-one-thing",
            cel="[has(self.predict), has(self.retrieve), has(self.template)].exists_one(there, there)",
            message="exactly one of predict, retrieve, template is required",
        ),
        Rule(
            id="repetition-is-bounded",
            cel="has(self.forEach) == has(self.maxItems)",
            message="forEach and maxItems go together: write both, or neither",
        ),
    )

    predict: Step | None = spec_field(INPUT, "Asks the model.", default=None)
    retrieve: Retrieve | None = spec_field(INPUT, "Looks something up; its output is `passages`.", default=None)
    template: Template | None = spec_field(INPUT, "Makes a text of others; its output is `text`.", default=None)
    inputs: Wiring = spec_field(
        INPUT,
        "Where each input of the node comes from; that of a retrieve is `query`, those of a template are its placeholders.",
    )
    for_each: Annotated[str, Field(min_length=1, max_length=127, pattern=REFERENCE)] | None = spec_field(
        INPUT, "A list: the node is done for each item, and its outputs are lists. Unset means once.", default=None
    )
    max_items: Annotated[int, Field(ge=1, le=256)] | None = spec_field(
        INPUT, "Most items that are done; unset means no repetition.", default=None
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if [self.predict, self.retrieve, self.template].count(None) != 2:
            raise PydanticCustomError("exactly_one", "exactly one of predict, retrieve, template is required")
        if (self.for_each is None) != (self.max_items is None):
            raise PydanticCustomError("exactly_one", "forEach and maxItems go together: write both, or neither")
        return self


class GraphProgram(ApiModel):
    """Several steps whose outputs are inputs of others; no step waits for itself."""

    inputs: Annotated[list[SignatureField], Field(min_length=1, max_length=32)] = spec_field(
        INPUT, "What goes in, in the order of the columns."
    )
    nodes: Annotated[dict[FieldName, GraphNode], Field(min_length=1, max_length=12), Ruled((FIELD_KEYS,))] = spec_field(
        INPUT, "The steps by name."
    )
    output: Wiring = spec_field(INPUT, "What comes out: output field -> where its value comes from.")


class CodeProgram(CodeRef):
    """A dspy.Module of one's own: where it is, what it takes and what it gives."""

    RULES: ClassVar[tuple[Rule, ...]] = (*CodeRef.RULES, _NAMES_ARE_UNIQUE)

    inputs: Annotated[list[SignatureField], Field(min_length=1, max_length=32)] = spec_field(
        INPUT, "What the module is called with, by name."
    )
    outputs: Annotated[list[SignatureField], Field(min_length=1, max_length=32)] = spec_field(
        INPUT, "What its dspy.Prediction has."
    )
    calls: Annotated[int, Field(ge=1, le=1000)] | None = spec_field(
        INPUT,
        "Most calls of the model for one row: reserves pay for them, estimates count them. Unset means 1.",
        default=None,
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        _check_names(self.inputs, self.outputs)
        return self


class Server(NamedTuple):
    """A server that a program asks beside its model."""

    path: tuple[str | int, ...]
    """Of its `http` or `mcp`."""
    name: str
    """Of the tool or node."""
    http: HTTPTool


class Program(UnionModel):
    """The program's shape; `type` names the member that is set."""

    MEMBERS: ClassVar[dict[str, str]] = {"Single": "single", "Graph": "graph", "Code": "code"}
    REQUIRED: ClassVar[frozenset[str]] = frozenset(MEMBERS)

    type: Literal["Single", "Graph", "Code"] = spec_field(
        INPUT, "Single: one signature and one module. Graph: several steps. Code: Python of one's own."
    )
    single: SingleProgram | None = spec_field(INPUT, "A program of one module.", default=None)
    graph: GraphProgram | None = spec_field(INPUT, "A program of several steps.", default=None)
    code: CodeProgram | None = spec_field(
        INPUT,
        "A program in Python: the entrypoint is a function without arguments, or a class, that gives a dspy.Module.",
        default=None,
    )

    @property
    def tools(self) -> Sequence[Tool]:
        """What the model may call; none but of a ReAct."""
        return self.single.tools if self.single is not None else ()

    @property
    def codes(self) -> dict[str, CodeRef]:
        """Path within the program -> code of one's own: itself, or a reward."""
        module = self.single.module if self.single is not None else None
        best, refine = (module.best_of_n, module.refine) if module is not None else (None, None)
        found = {
            "code": self.code,
            "single.module.bestOfN.reward.code": best.reward.code if best is not None else None,
            "single.module.refine.reward.code": refine.reward.code if refine is not None else None,
        }
        return {path: code for path, code in found.items() if code is not None}

    @property
    def judges(self) -> dict[str, JudgeReward]:
        """Path within the program -> what a judge grades: the reward of its module."""
        repeat = self.single.repeat if self.single is not None else None
        if repeat is None or repeat.reward.judge is None:
            return {}
        member = "bestOfN" if self.single is not None and self.single.module_type is ModuleType.BEST_OF_N else "refine"
        return {f"single.module.{member}.reward.judge": repeat.reward.judge}

    @property
    def servers(self) -> Sequence[Server]:
        """What it asks beside its model."""
        found = [
            Server(
                ("spec", "program", "single", "module", "react", "tools", at, "http" if tool.http else "mcp"),
                tool.name,
                tool.server,
            )
            for at, tool in enumerate(self.tools)
        ]
        for name, node in sorted(self.graph.nodes.items()) if self.graph is not None else ():
            if node.retrieve is not None:
                path = ("spec", "program", "graph", "nodes", name, "retrieve", "http")
                found.append(Server(path, name, node.retrieve.http))
        return found

    @property
    def inputs(self) -> list[SignatureField]:
        """What goes in, in the order of the prompt."""
        if self.single is not None:
            return self.single.signature.inputs
        of = self.graph or self.code
        return of.inputs if of is not None else []

    @property
    def output_names(self) -> list[str]:
        """What comes out; a graph's by name, since a cluster keeps no order of a map."""
        if self.single is not None:
            return [field.name for field in self.single.signature.outputs]
        if self.code is not None:
            return [field.name for field in self.code.outputs]
        return sorted(self.graph.output) if self.graph is not None else []


def codes_of(program: Program, metric: Metric) -> dict[str, CodeRef]:
    """Path -> code of one's own, wherever a PromptProgram has it."""
    found = {f"spec.program.{path}": code for path, code in program.codes.items()}
    return found | {f"spec.metric.{path}": code for path, code in metric.codes.items()}


def judges_of(program: Program, metric: Metric) -> dict[str, JudgeReward]:
    """Path -> what a judge grades, wherever a PromptProgram has one."""
    found: dict[str, JudgeReward] = {f"spec.program.{path}": judge for path, judge in program.judges.items()}
    return found | {f"spec.metric.{path}": judge for path, judge in metric.judges.items()}


class TypeField(ApiModel):
    """A field of a named type."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            id="minimum-below-maximum",
            cel="!has(self.minimum) || !has(self.maximum) || self.minimum <= self.maximum",
            message="minimum must not be above maximum",
            field=".minimum",
        ),
    )

    name: FieldName = spec_field(INPUT, "Name of the field; a snake_case Python identifier.")
    type: Annotated[str, Field(min_length=1, max_length=2048)] = spec_field(
        INPUT,
        "Type of the field in the grammar of signatures, without Image, Audio and History. It may name another type of spec.types, never its own.",
    )
    description: Annotated[str, Field(min_length=1, max_length=4096)] | None = spec_field(
        INPUT, "What the field holds; the model reads it. Unset means that it reads the name alone.", default=None
    )
    minimum: Bound | None = spec_field(INPUT, "Least value of an int or float; unset means any.", default=None)
    maximum: Bound | None = spec_field(INPUT, "Greatest value of an int or float; unset means any.", default=None)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise PydanticCustomError("range", "minimum must not be above maximum")
        return self


class ObjectType(ApiModel):
    """An object with named fields, for the types of signatures."""

    RULES: ClassVar[tuple[Rule, ...]] = (unique_names_rule("type-fields-are-unique", "fields"),)

    fields: Annotated[list[TypeField], Field(min_length=1, max_length=32)] = spec_field(
        INPUT, "The fields, in the order of the prompt."
    )

    @model_validator(mode="after")
    def _unique(self) -> Self:
        refuse_namesakes("fields", [field.name for field in self.fields])
        return self


_TYPE_NAME = r"^[A-Z][A-Za-z0-9]*$"
_TYPE_KEYS = Rule(
    id="types-have-names",
    cel=f"self.all(name, name.size() <= 63 && name.matches({quoted(_TYPE_NAME)}) && !(name in {_TAKEN_CEL}))",
    message=f"keys must be names of types: {_TYPE_NAME}, at most 63 characters, none of {', '.join(_TAKEN)}",
)
TypeMap = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=63, pattern=_TYPE_NAME), AfterValidator(_free)], ObjectType],
    Field(min_length=1, max_length=16),
    Ruled((_TYPE_KEYS,)),
]
"""Name -> object type."""
