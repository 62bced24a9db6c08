"""`python -m dspy_operator.runner RUN_JSON [--verify]`: what a Job's pod runs. Logs are JSON lines on stdout."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspy_operator.contract.documents import Result
    from dspy_operator.contract.runspec import Control, RunSpec

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # DSPy would fetch a price list from the network
log = logging.getLogger("dspy_operator.runner")


def main() -> int:
    """Do what `kind` in run.json says; the exit code is the contract's."""
    parser = argparse.ArgumentParser(prog="python -m dspy_operator.runner", description="Run one resolved run.json.")
    parser.add_argument("run_json", type=Path, help="path of run.json")
    parser.add_argument(
        "--verify", action="store_true", help="replay the finished run with the network denied and compare its digest"
    )
    arguments = parser.parse_args()
    from dspy_operator.runner.fixed_hash import fix_hash_seed

    fix_hash_seed()
    from dspy_operator.contract.exits import Exit, RunFailed
    from dspy_operator.contract.runspec import Control, RunSpec
    from dspy_operator.runner.logs import log_to
    from dspy_operator.runner.pod import Pod

    log_to(sys.stdout)
    try:
        pod = Pod.of(os.environ)
        spec = RunSpec.model_validate_json(arguments.run_json.read_bytes())
        if arguments.verify:
            return _verify(spec)
        if pod is not None:
            from dspy_operator.runner.cluster import run_in_cluster

            return run_in_cluster(spec, pod, _log_result)
        if spec.kind == "validate":
            return _validate(spec)
        return _run(spec, Control.model_validate_json(Path(spec.paths.control).read_bytes()))
    except (OSError, ValueError) as error:
        log.error("%s", error)
        return int(Exit.USAGE)
    except RunFailed as failure:
        log.error(failure.message, extra={"reason": failure.reason})
        return int(failure.exit)


def _run(spec: RunSpec, control: Control) -> int:
    from dspy_operator.runner.logs import progress_logger
    from dspy_operator.runner.process import run_process

    return run_process(spec, control, listener=progress_logger(log), finish=_log_result)


def _validate(spec: RunSpec) -> int:
    from dspy_operator.runner.process import leave_process, validate_process

    result = validate_process(spec, finish=_log_result)
    leave_process(result.exit)
    return result.exit


def _verify(spec: RunSpec) -> int:
    from dspy_operator.contract.exits import Exit
    from dspy_operator.runner.process import leave_process, verify_process

    replayed, recorded = verify_process(Path(spec.paths.out))
    same = replayed.candidate == recorded.candidate and replayed.exit != Exit.VERIFY_FAILED
    log.info("verified" if same else replayed.message, extra={"result": replayed.document()})
    leave_process(0 if same else replayed.exit)
    return replayed.exit


def _log_result(result: Result) -> None:
    log.info(result.message or result.reason, extra={"reason": result.reason, "result": result.document()})


if __name__ == "__main__":
    sys.exit(main())
