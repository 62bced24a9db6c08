"""`constrained: Auto` in a run: the endpoints are asked, once, and every later try goes on with what they showed (decision 010)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError, LMError

from dspy_operator.api.promptprogram import Adapter
from dspy_operator.contract.adapters import asked_endpoints, is_open
from dspy_operator.contract.runspec import RunSpec
from dspy_operator.runner.attempts import Ungraded
from dspy_operator.runner.ledger import Epoch, Ledger
from dspy_operator.runner.prepare import Prepared, held_to_schemas
from dspy_operator.runner.probe import MESSAGES, RESPONSE_FORMAT, why_not
from dspy_operator.runner.stop import RunStop

KEPT = "the endpoints keep JSON schemas and the order of their fields"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settled:
    """How a program is asked from here on."""

    prepared: Prepared
    why: str
    stop: RunStop | None = None
    """What ended the asking. Then schemas count as not kept, also after the budget is raised."""


def told(spec: RunSpec, prepared: Prepared) -> dict[str, Any]:
    """What `resolved` says of a choice that `adapter` leaves; nothing where it leaves none."""
    written = spec.program.adapter
    if written is None or not (written.type == "Auto" or is_open(written)):
        return {}
    return {"adapter": (prepared.adapter or Adapter(type="Chat")).document()}


def settle(spec: RunSpec, prepared: Prepared, ledger: Ledger, epoch: Epoch, ask: Callable[[Prepared], None]) -> Settled:
    """The program as its endpoints can be asked it.

    On a resume the same is asked again, and answered by the journal, so that all that counts answers counts the same.

    Args:
        ask: asks a program its first row.
    Raises:
        RunStop: the endpoint is not there, or does not let us in.
    """
    why, stop = "", None
    if ledger.adapter is None or ledger.adapter["asked"]:
        try:
            why = _why_not(spec, prepared, ledger, epoch, ask)
        except RunStop as stopped:
            if not stopped.keeps_result:
                raise
            why, stop = f"no endpoint was asked: {stopped.message}", stopped
    found = ledger.settle_adapter({"kept": not why, "why": why or KEPT, "asked": stop is None})
    if found["kept"] and stop is None:
        prepared = held_to_schemas(spec, prepared, "program")
    log.info("constrained: Auto is %s: %s", "Required" if found["kept"] else "Disabled", found["why"])
    return Settled(prepared, found["why"], stop)


def _why_not(spec: RunSpec, prepared: Prepared, ledger: Ledger, epoch: Epoch, ask: Callable[[Prepared], None]) -> str:
    """Why some endpoint does not hold its answers to schemas; empty where each does."""
    for (name, _), role in asked_endpoints(spec).items():
        try:
            (answer, *_rest) = ledger.lm(role, epoch)(messages=MESSAGES, response_format=RESPONSE_FORMAT)
        except LMError as error:
            return f"{name} refuses a JSON schema: {error}"
        text = answer if isinstance(answer, str) else str(answer.get("text") or "")
        if (why := why_not(text)) is not None:
            return f"{name} {why}"
    task = spec.endpoints["task"].name
    # The program's own schemas may hold what an endpoint does not take.
    try:
        ask(held_to_schemas(spec, prepared, "probe"))
    except ContextWindowExceededError:
        return ""  # too long a row, in words too
    except Ungraded:
        return ""  # the answer came; what the judge makes of it says nothing of schemas
    except LMError as error:
        return f"{task} refuses the program's schema: {error}"
    except AdapterParseError as error:
        return f"{task} does not keep to the program's schema: {' '.join(str(error.lm_response).split())[:120]!r}"
    return ""
