"""Proves on the running cluster what the end-to-end tests need of it: `python -m e2e.cluster test`."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable

from .. import kubectl
from ..command import Failed
from . import kubernetes, models, own, volumes
from .pods import NAMESPACE, RESTRICTED

CHECKS: list[Callable[[], str | None]] = [*kubernetes.CHECKS, *volumes.CHECKS, *own.CHECKS, *models.CHECKS]


def prove() -> None:
    """Runs all checks in namespaces of their own, which are made anew. Raises Failed if one fails.

    Content is checked, not that something answered: an address that the cluster lost is answered by whatever is outside.
    """
    _remove()
    for name, level in ((NAMESPACE, "privileged"), (RESTRICTED, "restricted")):
        labels = {"pod-security.kubernetes.io/enforce": level}
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    failed = 0
    for check in CHECKS:
        began = time.monotonic()
        try:
            found, word = check(), "ok"
        except (Failed, AssertionError, OSError, KeyError) as error:
            found, word = _told(error), "FAILED"
            failed += 1
        title = (check.__doc__ or check.__name__).partition("\n")[0].removesuffix(".")
        print(f"{word:<6} {time.monotonic() - began:6.1f} s  {title}", flush=True)
        if found:
            print("".join(f"{'':18}{line}\n" for line in found.splitlines()), end="", flush=True)
    if not failed:
        _remove()
    print(f"{len(CHECKS) - failed} passed, {failed} failed", flush=True)
    if failed:
        raise Failed(f"{failed} checks failed; what they made is still in the namespaces {NAMESPACE} and {RESTRICTED}")


def _remove() -> None:
    kubectl.kubectl("delete", "namespace", NAMESPACE, RESTRICTED, "--ignore-not-found", "--timeout=120s")
    kubectl.kubectl("delete", "crd", kubernetes.CRD_NAME, "--ignore-not-found", "--timeout=60s")


def _told(error: Exception) -> str:
    if isinstance(error, Failed):
        return str(error)[-1500:]
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{where.filename}:{where.lineno}: {where.line}\n{type(error).__name__}: {error}"[-1500:]
