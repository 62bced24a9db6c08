"""The operator: reads how it was installed from its environment, and wires engine and controllers once.

python -m dspy_operator.main --help
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from dspy_operator.api import resources
from dspy_operator.api.fields import API_VERSION
from dspy_operator.controllers.admission.controller import AdmissionController
from dspy_operator.controllers.admission.grants import Grants
from dspy_operator.controllers.modelendpoint.controller import ModelEndpointController
from dspy_operator.controllers.optimizationrun.controller import OptimizationRunController
from dspy_operator.controllers.promptprogram.controller import PromptProgramController
from dspy_operator.engine.credentials import Credentials, NoCredentials
from dspy_operator.engine.logs import LEVELS, log_to_stderr
from dspy_operator.engine.operator import Operation, Operator, run_process
from dspy_operator.engine.plan import Controller, Settings
from dspy_operator.engine.resources import Resource, Resources

# A quota is refused at admission until there is a room for it.
RESOURCES = Resources(
    own=[Resource(API_VERSION, one.kind, one.plural) for one in resources.RESOURCES if one.namespaced]
)
PULL_POLICIES = ("Always", "IfNotPresent", "Never")


@dataclass(frozen=True)
class Variable:
    """One environment variable; an unset one has its default, and so has an empty one."""

    name: str
    default: str | None
    """None: it must be set."""
    text: str
    allowed: Sequence[str] = ()


VARIABLES = (
    Variable("DSPY_OPERATOR_RUNNER_IMAGE", None, "image of the pods that validate, optimize and judge"),
    Variable("DSPY_OPERATOR_IMAGE", None, "image of this operator; an Ollama pod's loader runs from it"),
    Variable("DSPY_OPERATOR_OLLAMA_IMAGE", "ollama/ollama:0.34.2", "image of the model server"),
    Variable("DSPY_OPERATOR_IMAGE_PULL_POLICY", "IfNotPresent", "of all these images", PULL_POLICIES),
    Variable("DSPY_OPERATOR_WORKERS", "8", "objects that are looked at at the same time"),
    Variable("DSPY_OPERATOR_RESYNC_SECONDS", "420", "how often everything is listed and compared, give or take 20 %"),
    Variable("DSPY_OPERATOR_LOG_LEVEL", "info", "of our own lines", LEVELS),
    Variable("DSPY_OPERATOR_HEALTH_PORT", "8080", "/healthz and /readyz"),
    Variable("DSPY_OPERATOR_METRICS_PORT", "8081", "/metrics; may be the same port"),
)


class BadEnvironment(Exception):
    """A variable is missing or wrong; names it."""


@dataclass(frozen=True)
class Installed:
    """How this operator was installed."""

    settings: Settings
    operation: Operation
    log_level: str


def installed(environment: Mapping[str, str]) -> Installed:
    """From environment variables.

    Raises:
        BadEnvironment: one is missing or wrong.
    """
    value = {variable.name: _read(variable, environment) for variable in VARIABLES}
    workers = _number("DSPY_OPERATOR_WORKERS", value, least=1, most=256)
    resync = timedelta(seconds=_number("DSPY_OPERATOR_RESYNC_SECONDS", value, least=10, most=86_400))
    return Installed(
        settings=Settings(
            runner_image=value["DSPY_OPERATOR_RUNNER_IMAGE"],
            operator_image=value["DSPY_OPERATOR_IMAGE"],
            ollama_image=value["DSPY_OPERATOR_OLLAMA_IMAGE"],
            image_pull_policy=value["DSPY_OPERATOR_IMAGE_PULL_POLICY"],
            resync=resync,
            workers=workers,
        ),
        operation=Operation(
            workers=workers,
            resync=resync,
            health_port=_number("DSPY_OPERATOR_HEALTH_PORT", value, least=0, most=65_535),
            metrics_port=_number("DSPY_OPERATOR_METRICS_PORT", value, least=0, most=65_535),
            instance=environment.get("HOSTNAME") or socket.gethostname(),
        ),
        log_level=value["DSPY_OPERATOR_LOG_LEVEL"],
    )


def _read(variable: Variable, environment: Mapping[str, str]) -> str:
    value = environment.get(variable.name) or variable.default
    if value is None:
        raise BadEnvironment(f"{variable.name} is not set: {variable.text}")
    if variable.allowed and value not in variable.allowed:
        raise BadEnvironment(f"{variable.name} must be one of {', '.join(variable.allowed)}, found {value!r}")
    return value


def _number(name: str, value: Mapping[str, str], *, least: int, most: int) -> int:
    text = value[name]
    if not text.isdecimal() or not least <= int(text) <= most:
        raise BadEnvironment(f"{name} must be a whole number from {least} to {most}, found {text!r}")
    return int(text)


def controllers(settings: Settings) -> list[Controller]:
    """Every room, once."""
    grants = Grants()
    return [
        PromptProgramController(settings),
        OptimizationRunController(settings, grants),
        ModelEndpointController(settings),
        AdmissionController(grants),
    ]


async def operate(how: Installed, credentials: Credentials) -> None:
    """Until SIGTERM."""
    await Operator(credentials, RESOURCES, controllers(how.settings), how.operation).run()


def main(arguments: Sequence[str] | None = None) -> int:
    """The process; its exit code is 0 after SIGTERM, 1 where it should be started again, 2 where that would not help."""
    _parser().parse_args(arguments)
    try:
        how = installed(os.environ)
        credentials = Credentials.load()
    except (BadEnvironment, NoCredentials) as error:
        print(f"dspy-operator: {error}", file=sys.stderr)  # noqa: T201 - before there is a log level
        return 2
    log_to_stderr(how.log_level)
    return run_process(lambda: operate(how, credentials))


def _parser() -> argparse.ArgumentParser:
    rows = [
        f"  {variable.name:34}{variable.text}"
        + (f" ({'|'.join(variable.allowed)})" if variable.allowed else "")
        + (f" [{variable.default}]" if variable.default is not None else " (required)")
        for variable in VARIABLES
    ]
    return argparse.ArgumentParser(
        prog="python -m dspy_operator.main",
        description="Keeps PromptPrograms, OptimizationRuns and ModelEndpoints true.",
        epilog="\n".join(
            ["environment variables:", *rows, "  KUBECONFIG                        the cluster, where this is no pod"]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


if __name__ == "__main__":
    os._exit(main())  # no task of kopf's may hold it up
