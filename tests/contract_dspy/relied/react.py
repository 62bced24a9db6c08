from tests.contract_dspy.relied import Relied

RELIED = (
    Relied(
        "dspy.Tool.__call__",
        "source 416df8cb7cadc7e4",
        "program.py's Tool says in a line what goes wrong in it: arguments that do not fit, and the function",
    ),
    Relied(
        "dspy.adapters.types.tool.convert_input_schema_to_tool_args",
        "source 71815f4f820dc71a",
        "program.py makes tools of what an MCP server says of them",
        "react_source.py::MCP_TOOL",
    ),
    Relied(
        "dspy.ReAct.forward",
        "source 99edaf667f444a88",
        "calls tools by name with keyword arguments; an exception of a tool becomes an observation with a traceback",
        "react_source.py::TOOL_CLASS",
    ),
    Relied(
        "dspy.ReAct._format_trajectory",
        "source 1e7c0c4fe247a681",
        "prompts.json says how a trajectory is written",
        "react_prompts.py::_round",
    ),
    Relied(
        "dspy.ReAct._call_with_potential_trajectory_truncation",
        "source 128e789ecd952da1",
        "asks again without the oldest round where a request exceeds the context, twice",
        "react_prompts.py::react_wiring",
    ),
)
