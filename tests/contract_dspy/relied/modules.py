"""BestOfN, Refine, MultiChainComparison."""

from tests.contract_dspy.relied import Relied

RELIED = (
    Relied(
        "dspy.BestOfN.__init__",
        "(self, module, N, reward_fn, threshold, fail_count=None)",
        "program.py makes it",
        "module_source.py::_attempts",
    ),
    Relied(
        "dspy.Refine.__init__",
        "source 99b4856d893cb4a1",
        "program.py makes it; module_code and reward_fn_code are what it shows the model",
        "module_source.py::_attempts",
    ),
    Relied(
        "dspy.BestOfN.forward",
        "source 1bef2025cfcaefa1",
        "copies of the module, a rollout each at temperature 1, what it swallows, its rule for fail_count",
        "attempts.py::make_whole",
    ),
    Relied(
        "dspy.Refine.forward",
        "source 9623ace5c18f2c7f",
        "the same; when it asks for advice and with what; hint_, appended to the signature and left in the trace",
        "wiring.py::hidden",
    ),
    Relied(
        "dspy.predict.refine.recursive_mask",
        "source 57425e89f9fcbd97",
        "how the values stand in a request for advice: prompts.json says the same",
        "prompts.py::_predictor",
    ),
    Relied(
        "dspy.predict.refine.OfferFeedback",
        "source 077e3a07695c8878",
        "what asks for advice: its messages are in prompts.json",
    ),
    Relied(
        "dspy.predict.refine.inspect_modules",
        "source feeceb1870dd114b",
        "what the model is told of the predictor: part of those messages",
    ),
    Relied(
        "dspy.MultiChainComparison.__init__",
        "source 8f5c3db87ff57abb",
        "the fields that it adds: rationale and reasoning_attempt_N",
        "module_check.py::_added",
    ),
    Relied(
        "dspy.MultiChainComparison.forward",
        "source 46e2b4d7f5fd371a",
        "what it makes of a chain: prompts.json says the same",
        "wiring.py::attempt_text",
    ),
    Relied(
        "dspy.Predict._forward_preprocess",
        "source a716d4a755b28765",
        "several answers to one request are sampled at 0.7 where the target's temperature is up to 0.15",
        "wiring.py::_comparison",
    ),
)
