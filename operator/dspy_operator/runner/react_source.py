"""The parts of `program.py` that a ReAct has more than other modules: its tools, and how they are called.

A tool is a typed function, which DSPy reads for what it tells the model. All of them call through `call_tool`, which a run
replaces by its own: one that retries, and writes down what was answered (runner/tools.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence

from dspy_operator.api.program import ReActOptions, Tool
from dspy_operator.api.signature_types import python_string
from dspy_operator.contract.calls import REACT_MAX_ITERS
from dspy_operator.runner import mcp_wire
from dspy_operator.runner.layout import WIDTH, call, docstring, indented, literal, settled_instructions
from dspy_operator.runner.mcp import Listed
from dspy_operator.runner.mcp import Tools as Listings

TOOL_NAMES = frozenset(
    {
        "argparse",
        "bool",
        "call_tool",
        "datetime",
        "dict",
        "dspy",
        "float",
        "headers_of",
        "inspect",
        "int",
        "isinstance",
        "json",
        "list",
    }
    | {"load", "main", "os", "post", "print", "str", "super", "to_json", "to_jsonable_python", "typed", "urllib"}
)
"""What program.py calls something itself, and a tool cannot be called."""
ARGUMENT_NAMES = frozenset({"self", "instance", "call_tool"})
"""What DSPy, or the tool's function, calls something itself, and an argument cannot be called."""
TYPE_NAMES = frozenset({"NoRedirect", "TOOLS", "Tool"})
"""What the program of a ReAct calls something itself, and a named type cannot be called."""
HEADERS_NAMES = frozenset({"FOLDER", "HEADERS", "NoRedirect"})
"""The same where a server wants headers."""

MCP_NAMES = frozenset(
    {"McpError", "SESSIONS", "ask_mcp", "call_mcp", "convert_input_schema_to_tool_args", "mcp_text", "mcp_tool"}
    | {"message_of", "open_mcp", "result_of", "send_mcp", "time", "uuid"}
)
"""What program.py calls something itself where it asks MCP servers."""

TOOL_CLASS = """\
class Tool(dspy.Tool):
    \"""A tool whose errors the model reads in a line: DSPy shows it a traceback, with paths of this machine.\"""

    def __call__(self, **arguments: Any) -> Any:
        try:
            return super().__call__(**arguments)
        except Exception as error:
            return f"Execution error in {self.name}: {error}\""""

NO_REDIRECT = """\
class NoRedirect(urllib.request.HTTPRedirectHandler):
    \"""Goes nowhere else: the headers are for this URL.\"""

    def redirect_request(self, *_: Any) -> None:
        return None"""
_ANY_HEADERS = """\
def call_tool(name: str, url: str, arguments: dict[str, Any]) -> str:
    \"""What the tool at a URL answers to its arguments.

    The headers that it wants are files: $TOOL_HEADERS is a folder with one for each tool, with a file for each header.
    \"""
    folder = Path(os.environ.get("TOOL_HEADERS", "tool-headers"), name)
    headers = {file.name: file.read_text(encoding="ascii").strip() for file in folder.glob("[!.]*")}
    return post(url, arguments, headers, timeout=30)"""
_THESE_HEADERS = """\
def call_tool(name: str, url: str, arguments: dict[str, Any]) -> str:
    \"""What the tool at a URL answers to its arguments.\"""
    return post(url, arguments, headers_of(name), timeout=30)"""
TOOL_CALLS = (
    _ANY_HEADERS
    + """


def post(url: str, arguments: dict[str, Any], headers: dict[str, str], timeout: float) -> str:
    \"""Send the arguments as JSON; what comes back is JSON of at most 1 MB: a text, or anything else as text.\"""
    request = urllib.request.Request(url, to_json(arguments), {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.build_opener(NoRedirect).open(request, timeout=timeout) as response:
            answer = json.loads(response.read(1_000_000))
    except urllib.error.HTTPError as error:
        error.msg = f"{error.msg} {error.read(10_000).decode(errors='replace')}".strip()
        raise
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


"""
    + NO_REDIRECT
)


HEADERS_OF = '''\
HEADERS = {headers}
FOLDER = Path(os.environ.get("TOOL_HEADERS", "tool-headers"))
"""A file for each header, in a folder for each server that wants some: {example}."""


def headers_of(name: str) -> dict[str, str]:
    """Who asks: what a server wants to know in headers, whose values are not written here."""
    return {{header: (FOLDER / name / header).read_text(encoding="ascii").strip() for header in HEADERS.get(name, ())}}'''
HEADERS_CHECK = """\
    files = [FOLDER / name / header for name, headers in HEADERS.items() for header in headers]
    if missing := ", ".join(str(file) for file in files if not file.is_file()):
        parser.error(f"$TOOL_HEADERS is {FOLDER}, and there is no {missing}")
"""


MCP_TOOL = """\
def mcp_tool(server: str, url: str, name: str, description: str, schema: dict[str, Any]) -> Tool:
    \"""A tool of a server of the Model Context Protocol, as the server describes it.\"""
    args, arg_types, arg_desc = convert_input_schema_to_tool_args(schema)

    def ask(**arguments: Any) -> str:
        return call_mcp(server, url, name, arguments)

    return Tool(ask, name=name, desc=description, args=args, arg_types=arg_types, arg_desc=arg_desc)"""
CALL_MCP = """\
def call_mcp(server: str, url: str, name: str, arguments: dict[str, Any]) -> str:
    \"""What a tool of the server at a URL answers to its arguments.\"""
    return mcp_text(ask_mcp(url, "tools/call", {"name": name, "arguments": arguments}, headers_of(server), timeout=30))"""
_LINE = "# --- the line --------------------------------------------------------------------------------------------------------\n"


def headers_block(headers: Mapping[str, Sequence[str]]) -> str:
    """Which headers servers want, and where their values are."""
    told = [call(f'"{name}": [', [f'"{header}"' for header in names], "]", 5) for name, names in headers.items()]
    first = next(f"$TOOL_HEADERS/{name}/{names[0]}" for name, names in headers.items())
    return HEADERS_OF.format(headers=call("{", told, "}", 10), example=first)


def tool_calls(headers: Mapping[str, Sequence[str]]) -> str:
    """How tools are called; where it is known which headers they want, those and no others are sent."""
    return TOOL_CALLS.replace(_ANY_HEADERS, _THESE_HEADERS) if headers else TOOL_CALLS


def tool_function(tool: Tool, parameter: Callable[[str], str]) -> str:
    """A tool as a function with types and a docstring.

    Args:
        tool: as written.
        parameter: `tool.argument` -> how a function declares it.
    """
    names = [argument.name for argument in tool.arguments or ()]
    parameters = [parameter(f"{tool.name}.{name}") for name in names]
    opening = call(f"def {tool.name}(", ["*", *parameters] if parameters else [], ") -> str:", 0)
    sent = call("{", [f'"{name}": {name}' for name in names], "}", 9)
    asked = call("return call_tool(", [f'"{tool.name}"', python_string(tool.server.url), sent], ")", 4)
    return f"{opening}\n{indented(docstring(settled_instructions(tool.description or '')))}\n{indented(asked)}"


def has_long_descriptions(tools: Sequence[Tool]) -> bool:
    """Whether a docstring has several lines: Python keeps their indentation, and the model would read it."""
    return any("\n" in settled_instructions(tool.description or "") for tool in tools)


def tool_list(tools: Sequence[Tool], listed: Listings) -> str:
    """The tools with what each argument is for, in the order in which the model reads them.

    Args:
        listed: MCP server -> its tools.
    """
    entries = []
    for tool in tools:
        entries += [_tool(tool)] if tool.mcp is None else [_mcp_tool(tool, each) for each in listed[tool.name]]
    return call("TOOLS = [", entries, "]", WIDTH)


def mcp_calls(*, with_headers: bool) -> str:
    """How tools of MCP servers are called."""
    _, _, wire = inspect.getsource(mcp_wire).partition(_LINE)
    call_mcp = CALL_MCP if with_headers else CALL_MCP.replace("headers_of(server)", "{}")
    return f"{call_mcp}\n\n\n{wire.strip()}"


def _mcp_tool(tool: Tool, listed: Listed) -> str:
    names = (tool.name, tool.server.url, listed.name, listed.description)
    return call("mcp_tool(", [*map(python_string, names), literal(listed.inputSchema, 8, 1)], ")", 5)


def _tool(tool: Tool) -> str:
    parts = [tool.name]
    if has_long_descriptions([tool]):
        parts.append(f"desc=inspect.getdoc({tool.name})")
    told = [
        f'"{argument.name}": {python_string(argument.description)}'
        for argument in tool.arguments or ()
        if argument.description is not None
    ]
    if told:
        parts.append(call("arg_desc={", told, "}", 9))
    return call("Tool(", parts, ")", 5)


def react_module(title: str, options: ReActOptions) -> list[str]:
    """The lines that make the module, in `Program.__init__`.

    `finish` is DSPy's own tool, which some models call with arguments.
    """
    arguments = [title, "tools=TOOLS", f"max_iters={options.max_iters or REACT_MAX_ITERS}"]
    return [
        call("self.predict = dspy.ReAct(", arguments, ")", 8),
        'self.predict.tools["finish"] = Tool(lambda: "Completed.", name="finish")',
    ]
