from tests.contract_dspy.relied import Relied

RELIED = (
    Relied(
        "dspy.Evaluate.__init__",
        "(self, *, devset, metric=None, num_threads=None, display_progress=False, display_table=False, max_errors=None, provide_traceback=None, failure_score=0.0, save_as_csv=None, save_as_json=None, **kwargs)",
        "built for each arm of a judgement; the race's passes all of it on",
    ),
    Relied(
        "dspy.Evaluate.__call__",
        "source 58dc6cc4ec9bd30d",
        "one evaluate event each; results in the order of the set; the score in percent, rounded to two places as Race.is_lost rounds it",
    ),
    Relied(
        "dspy.evaluate.EvaluationResult",
        "(score, results)",
        "the race makes one of its parts",
        "optimizers/racing.py::RacingEvaluate",
    ),
    Relied(
        "dspy.utils.parallelizer.ParallelExecutor",
        "source 50278c7e6c6e51e9",
        "a BaseException gets out of its threads; a straggler's second thread after 120 s; the words that Flow knows a stopped evaluation by",
        "flow.py::Run._give_up",
    ),
    Relied("dspy.evaluate.metrics.f1_score", "source a9f53b80caabd382", "metric F1 is DSPy's", "metrics/f1.py::F1"),
    Relied(
        "dspy.evaluate.metrics.normalize_text",
        "source 08d219bbd335c405",
        "normalization Text is DSPy's",
        "metrics/f1.py::F1",
    ),
)
