"""Which pod this is and how it reaches the API server, as its environment says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspy_operator.contract import names
from dspy_operator.contract.runspec import RunSpec

ENV_ACCOUNT = "DSPY_OPERATOR_SERVICE_ACCOUNT"
"""Folder with `token` and `ca.crt`, where they are not in the usual folder: a projected volume of one's own, or a test."""


@dataclass(frozen=True)
class Pod:
    """One try's pod in a cluster."""

    channel: str
    """Name of its ConfigMap, in the namespace that run.json names."""
    try_: int
    image: str
    """Reference of the runner's image; empty where the operator does not say it."""
    server: str
    """URL of the API server."""
    account: Path
    """Folder with `token` and `ca.crt`."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Pod | None:
        """The pod that an environment describes; None outside a cluster, where documents are files.

        Raises:
            ValueError: a variable is absent or wrong, with its name and what is wanted.
        """
        channel = environment.get(names.ENV_CHANNEL)
        if not channel:
            return None
        host = _wanted(environment, "KUBERNETES_SERVICE_HOST", "the API server's address, as in every pod")
        port = _wanted(environment, "KUBERNETES_SERVICE_PORT", "the API server's port, as in every pod")
        return cls(
            channel=channel,
            try_=_try(environment),
            image=environment.get(names.ENV_IMAGE, ""),
            server=names.api_server(host, port),
            account=Path(environment.get(ENV_ACCOUNT) or names.ACCOUNT_FOLDER),
        )


def identity(spec: RunSpec, pod: Pod | None) -> dict[str, Any]:
    """Whose result it is, as fields of Result: attempt, and in a pod its try and image."""
    of_pod = {"try_": pod.try_, "runner_image": pod.image} if pod is not None else {}
    return {"attempt": spec.run.attempt, **of_pod}


def _try(environment: Mapping[str, str]) -> int:
    text = _wanted(environment, names.ENV_TRY, "the number of this try, a whole number from 1 on")
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise ValueError(f'{names.ENV_TRY} is "{text}": it is the number of this try, a whole number from 1 on')
    return int(text)


def _wanted(environment: Mapping[str, str], name: str, what: str) -> str:
    value = environment.get(name)
    if not value:
        raise ValueError(f"{name} is not set: it is {what} ({names.ENV_CHANNEL} is, so this is a pod)")
    return value
