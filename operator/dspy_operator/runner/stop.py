"""The one exception that ends a run from inside DSPy's code."""

from __future__ import annotations

from dspy_operator.contract.exits import EXIT_OF, Exit, Reason


class RunStop(BaseException):
    """Ends the run, or its current phase, with a reason.

    A BaseException on purpose: MIPROv2, GEPA, SIMBA and Evaluate each swallow every `Exception` somewhere and go on with
    a score of 0 (measured on DSPy 3.4.1 with a budget of 80 calls: only a BaseException stopped all of them at 80).
    """

    def __init__(self, reason: Reason, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.path = path

    @property
    def exit(self) -> Exit:
        """The code of its reason."""
        return EXIT_OF[self.reason]

    @property
    def keeps_result(self) -> bool:
        """Whether the best-so-far is still judged and published: a limit or a wish ended the phase, not a fault."""
        return self.reason in {
            Reason.BUDGET_EXHAUSTED,
            Reason.STOPPED_EARLY,
            Reason.GOAL_REACHED,
            Reason.OPTIMIZER_GAVE_UP,
        }
