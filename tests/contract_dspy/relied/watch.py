from tests.contract_dspy.relied import Relied

RELIED = (
    Relied("dspy.utils.callback.BaseCallback", "()", "the Watcher is one"),
    Relied(
        "dspy.utils.callback.BaseCallback.on_evaluate_start",
        "(self, call_id, instance, inputs)",
        "called with the program and the set, by name",
    ),
    Relied(
        "dspy.utils.callback.BaseCallback.on_evaluate_end",
        "(self, call_id, outputs, exception=None)",
        "outputs are an EvaluationResult, or None beside an exception",
    ),
    Relied(
        "dspy.utils.callback.BaseCallback.on_lm_end",
        "(self, call_id, outputs, exception=None)",
        "outputs are texts: an empty one is counted here, DSPy refuses it before parse",
    ),
    Relied(
        "dspy.utils.callback.BaseCallback.on_adapter_parse_end",
        "(self, call_id, outputs, exception=None)",
        "exception is the AdapterParseError of an answer that cannot be read",
    ),
    Relied(
        "dspy.utils.callback.BaseCallback.on_module_start",
        "(self, call_id, instance, inputs)",
        "called for every module, those inside a program too, in the thread that answers: what a program took is counted at depth 1",
    ),
    Relied(
        "dspy.utils.callback.BaseCallback.on_module_end",
        "(self, call_id, outputs, exception=None)",
        "called for each start, after an exception too",
    ),
    Relied(
        "dspy.utils.callback.with_callbacks",
        "source 0da0c3b49fa1f9b5",
        "swallows Exceptions of a callback and lets a RunStop through; end events come with the exception",
        "watch.py::Watcher",
    ),
    Relied(
        "dspy.utils.exceptions.AdapterParseError",
        "is AdapterParseError < DSPyError < Exception < BaseException",
        "an answer that cannot be read; lm_response has its text",
    ),
    Relied(
        "dspy.utils.exceptions.LMError",
        "is LMError < DSPyError < Exception < BaseException",
        "a request without an answer: its row counts as failed",
    ),
    Relied(
        "dspy.utils.exceptions.ContextWindowExceededError",
        "is ContextWindowExceededError < LMInvalidRequestError < LMProviderError < LMError < DSPyError < Exception < BaseException",
        "InferRules halves its rows; must be caught before LMError",
    ),
    Relied(
        "dspy.utils.exceptions.DSPyError",
        "is DSPyError < Exception < BaseException",
        "what an optimizer gives up with is of the model and no bug of ours",
    ),
)
