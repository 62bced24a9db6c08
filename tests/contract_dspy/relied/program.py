from tests.contract_dspy.relied import Relied

RELIED = (
    Relied(
        "dspy.Predict.__init__",
        "(self, signature, callbacks=None, **config)",
        "program.py builds it from a signature's class",
        "module_source.py::_asks",
    ),
    Relied(
        "dspy.ChainOfThought.__init__",
        "(self, signature, rationale_field=None, rationale_field_type=<class 'str'>, **config)",
        "program.py builds it from a signature's class",
        "module_source.py::_asks",
    ),
    Relied(
        "dspy.ChainOfThought.forward",
        "source a9f998fe38c7faef",
        "one request; its reasoning is the first output",
        "module_source.py::_asks",
    ),
    Relied(
        "dspy.Predict.forward",
        "source 19959bf08b117f54",
        "one call of the adapter, and of that one call of the model",
        "module_source.py::_asks",
    ),
    Relied(
        "dspy.Predict.dump_state",
        "source 2ec35992d99acf86",
        "program.json is it: traces, train, demos, signature, lm",
        "program.py::state_document",
    ),
    Relied(
        "dspy.Predict.load_state",
        "source 0eecd64970b23863",
        "resets the predictor's own lm; takes demos as they are",
        "program.py::apply_state",
    ),
    Relied(
        "dspy.Module.load_state",
        "source e093425140f4454b",
        "by the names of named_predictors; metadata is no predictor",
        "program.py::apply_state",
    ),
    Relied(
        "dspy.Module.load",
        "(self, path, allow_pickle=False, allow_unsafe_lm_state=False)",
        "program.py's load(path) reads program.json",
        "program_source.py::_FUNCTIONS",
    ),
    Relied(
        "dspy.Module.named_predictors",
        "source b260224e465d66d4",
        "the order of predictors is part of a program's hash",
        "program.py::program_hash",
    ),
)
