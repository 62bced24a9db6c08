"""A pod's way from run.json to its exit code, and its end by a signal before DSPy is even imported."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from dspy_operator.contract import names
from dspy_operator.contract.documents import Result
from dspy_operator.contract.exits import Exit, Reason
from dspy_operator.contract.runspec import RunSpec, Usage
from dspy_operator.runner.channel import ConfigMapChannel
from dspy_operator.runner.hurry import Hurry
from dspy_operator.runner.logs import progress_logger
from dspy_operator.runner.pod import Pod, identity

log = logging.getLogger(__name__)


def run_in_cluster(spec: RunSpec, pod: Pod, finish: Callable[[Result], None]) -> int:
    """Validate or run, with progress, control and result through the pod's ConfigMap.

    Args:
        finish: what else is done with the result, before it is brought to the cluster.
    Raises:
        RunFailed: the run's control document is not there. No result is written then: without it nobody here knows what
            was spent before, and a result says what was.
    """
    channel = ConfigMapChannel(pod, spec.run.namespace, Path(spec.paths.control))
    _leave_on_signal(spec, channel)
    if spec.kind == "validate":
        from dspy_operator.runner.process import leave_process, validate_process  # brings DSPy, 3 s

        leave_process(validate_process(spec, cluster=channel, finish=finish).exit)
    control = channel.first_control()
    from dspy_operator.runner.process import run_process

    answers = sorted(Path(names.ANSWERS_FOLDER).glob("*/*/journal.jsonl"))
    return run_process(spec, control, cluster=channel, listener=progress_logger(log), finish=finish, answers=answers)


def _leave_on_signal(spec: RunSpec, channel: ConfigMapChannel) -> None:
    """Until the run has its own handlers. As process 1 of a container we would not even get a signal's default action."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        result = Result(
            **identity(spec, channel.pod),
            reason=Reason.STOPPED,
            exit=int(Exit.STOPPED),
            message="stopped by a signal before the first call",
            usage=channel.control.floor if channel.control is not None else Usage(),
        )
        log.info(result.message, extra={"reason": result.reason})
        if spec.kind == "validate" or channel.control is not None:
            # A channel of its own: this thread may have been interrupted while it held a lock of the other one.
            other = ConfigMapChannel(channel.pod, spec.run.namespace, Path(spec.paths.control))
            other.deliver(result, None, {}, _begun())
        os._exit(int(Exit.STOPPED))

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)


def _begun() -> Hurry:
    hurry = Hurry()
    hurry.begin()
    return hurry
