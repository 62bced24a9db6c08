from tests.contract_dspy.relied import Relied

RELIED = (
    Relied(
        "dspy.JSONAdapter._prepare_response_format",
        "source ca85e2c7c9c41040",
        "program.py's adapters decide what a request asks the server to constrain",
    ),
    Relied(
        "dspy.JSONAdapter.__call__",
        "source d11a6d82a64df192",
        "asks for the response format once before each request, with lm_kwargs to change",
        "adapter_source.py::adapter_source",
    ),
    Relied(
        "dspy.ChatAdapter.__init__",
        "(self, callbacks=None, use_native_function_calling=False, native_response_types=None, use_json_adapter_fallback=True, parallel_tool_calls=None)",
        "use_json_adapter_fallback=False: no second request for an answer that cannot be read",
        "adapter_source.py::adapter_source",
    ),
    Relied(
        "dspy.ChatAdapter.__call__",
        "source 3f7f5bafa42a445e",
        "the fallback is its only second request",
        "adapter_source.py::adapter_source",
    ),
    Relied(
        "dspy.ChatAdapter.format",
        "source a24359b2484141cd",
        "prompts.json is made of what it writes for placeholders",
        "prompts.py::_messages",
    ),
    Relied(
        "dspy.ChatAdapter.parse",
        "source 807528ea2abf05cb",
        "prompts.json's rules of parsing say what it does",
        "prompts.py::_parse_rule",
    ),
    Relied(
        "dspy.JSONAdapter.parse",
        "source e765a7985b9f8901",
        "prompts.json's rules of parsing say what it does",
        "prompts.py::_parse_rule",
    ),
    Relied(
        "dspy.XMLAdapter.parse",
        "source b726e18a8fad9610",
        "prompts.json's rules of parsing say what it does",
        "prompts.py::_parse_rule",
    ),
    Relied(
        "dspy.XMLAdapter._elements_to_value",
        "source 2424527528e19438",
        "prompts.json's rules of parsing say what it does; what a text does not decide is refused",
        "adapter_source.py::_unreadable_in_xml",
    ),
    Relied(
        "dspy.XMLAdapter._uses_nested_xml",
        "source 200caf326842a1c1",
        "which outputs of a History's turn are elements",
        "prompts.py::_history",
    ),
    Relied(
        "dspy.XMLAdapter._value_to_xml",
        "source 010770318a5b5e68",
        "prompts.json's rules of rendering say what it does",
        "prompts.py::_history",
    ),
    Relied(
        "dspy.adapters.baml_adapter.BAMLAdapter.format_user_message_content",
        "source 277fc4d3133478e7",
        "an Image or History is written in two ways, so it is refused",
        "adapter_source.py::not_for",
    ),
    Relied(
        "dspy.adapters.utils.parse_value",
        "source 95a949226a906f50",
        "prompts.json's rules of parsing say what it does",
        "prompts.py::_parse_rule",
    ),
    Relied(
        "dspy.adapters.utils.format_field_value",
        "source bfe528c2e1e74858",
        "prompts.json's rules of rendering say what it does",
        "prompts.py::_render_rule",
    ),
    Relied(
        "dspy.adapters.types.base_type.CUSTOM_TYPE_START_IDENTIFIER",
        "= '<<CUSTOM-TYPE-START-IDENTIFIER>>'",
        "text that holds it becomes parts of a message: no conformance vector can",
    ),
)
