"""python -m e2e.demo [down]: the main job on a real cluster."""

from __future__ import annotations

import argparse
import signal
import sys

from e2e.cluster.command import exit_code
from e2e.demo import demo
from e2e.demo.supply import MODELS, QWEN


def main() -> int:
    """Exit code: 0 also where nothing was improved and the judgement says so; 1 with a sentence for what went wrong."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(
        prog="python -m e2e.demo",
        description="A cluster, the operator, a small model, and a prompt that gets better with proof. Can be interrupted "
        "at any moment: the same command goes on.",
    )
    parser.add_argument(
        "command", nargs="?", choices=["up", "down"], default="up", help="down: remove demo and operator"
    )
    parser.add_argument("--namespace", default="demo", help="of the demo's objects; default: %(default)s")
    parser.add_argument("--model", choices=MODELS, default=QWEN, help="default: %(default)s")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the run: which rows become examples; default: %(default)s"
    )
    arguments = parser.parse_args()

    def act() -> None:
        if arguments.command == "down":
            demo.remove(namespace=arguments.namespace)
        else:
            demo.run(namespace=arguments.namespace, model=arguments.model, seed=arguments.seed)

    return exit_code(act, interrupted="interrupted; the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
