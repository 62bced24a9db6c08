"""`python -m dspy_operator.runner RUN_JSON [--verify]`: what a Job's pod runs. Logs are JSON lines on stdout."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # DSPy would fetch a price list from the network


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
    from dspy_operator.contract.documents import Result
    from dspy_operator.contract.exits import Exit, RunFailed
    from dspy_operator.contract.runspec import Control, RunSpec
    from dspy_operator.runner.logs import log_to, progress_logger
    from dspy_operator.runner.process import leave_process, run_process, validate_process, verify_process

    log_to(sys.stdout)
    log = logging.getLogger("dspy_operator.runner")
    try:
        spec = RunSpec.model_validate_json(arguments.run_json.read_bytes())
        if arguments.verify:
            replayed, recorded = verify_process(Path(spec.paths.out))
            same = replayed.candidate == recorded.candidate and replayed.exit != Exit.VERIFY_FAILED
            log.info("verified" if same else replayed.message, extra={"result": replayed.document()})
            leave_process(0 if same else replayed.exit)
        if spec.kind == "validate":
            result = validate_process(spec)
            log.info(result.message, extra={"reason": result.reason, "result": result.document()})
            leave_process(result.exit)
        control = Control.model_validate_json(Path(spec.paths.control).read_bytes())
    except (OSError, ValueError) as error:
        log.error("%s", error)
        return int(Exit.USAGE)
    except RunFailed as failure:
        log.error(failure.message, extra={"reason": failure.reason})
        return int(failure.exit)

    def finish(result: Result) -> None:
        log.info(result.message or result.reason, extra={"reason": result.reason, "result": result.document()})

    return run_process(spec, control, listener=progress_logger(log), finish=finish)


if __name__ == "__main__":
    sys.exit(main())
