"""The Secrets whose keys are headers for the servers of a program: which ones, and where they are in the pod. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dspy_operator.api.program import Program
from dspy_operator.contract import names


def secrets_of(program: Program) -> tuple[str, ...] | None:
    """Their names; None where there is none."""
    secrets = {server.http.headers_secret.name for server in program.servers if server.http.headers_secret is not None}
    return tuple(sorted(secrets)) or None


def folders_of(secrets: Sequence[str] | None) -> dict[str, str]:
    """Secret -> its folder in the pod."""
    return {secret: names.headers_folder(secret) for secret in secrets or ()}
