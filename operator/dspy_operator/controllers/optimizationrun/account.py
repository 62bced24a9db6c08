"""A run's entry in `<program>-account`: what survives its children, its status and the object itself. Pure.

A try is opened here before its Job exists and settled here before its end is told, so that a lost status, a restart between
any two writes, or a deleted and recreated object can neither pay twice nor forget what was paid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from dspy_operator.api.fields import parse_duration
from dspy_operator.api.optimizationrun import Budget, OptimizationRunSpec
from dspy_operator.contract import names
from dspy_operator.contract.documents import Account, AccountEntry, KeptResult
from dspy_operator.contract.runspec import Document, Usage
from dspy_operator.engine.plan import Body

MESSAGE_CHARACTERS = 512


class AccountDamaged(Exception):
    """The account cannot be read: nothing may start, for nobody knows what was spent."""


class Backoff(Document):
    """Failures of one attempt, and when its next try may begin."""

    count: int = 0
    """Tries that count against `retries`."""
    waits: int = 0
    """Tries in a row that ended for an outage or a missing Secret; an advance begins the count anew."""
    since: str = ""
    """When these began."""
    reason: str = ""
    """Of the last end."""
    message: str = ""
    not_before: str = ""


class Ended(Document):
    """How an attempt ended. Where this is, the run is over."""

    reason: str
    message: str = ""
    path: str | None = None
    at: str
    complete: bool
    """Complete=True, else Failed=True."""
    outcome: str | None = None
    candidate: str | None = None
    exit: int | None = None
    """Of the pod; None of an end that needed none."""
    budget: Budget
    """In force at the end: a raised one goes on."""


UNKNOWN = "unknown"
"""No run's digest of its own fields: another attempt begins."""


class Entry(AccountEntry):
    """The contract's entry, and what only this room needs to know after everything else was lost."""

    uid: str = ""
    """Of the object that the entry was last written for."""
    own: str = ""
    """Digest of the run's own Input fields in this attempt; empty before the first."""
    input_digest: str = ""
    settled: int = 0
    """The last try that was settled; tries above it are open: they have, or may get, a Job."""
    seconds: float = 0.0
    """Run time of all tries, for `budget.wallClock`."""
    backoff: Backoff | None = None
    ended: Ended | None = None

    @property
    def open_try(self) -> int | None:
        """The try that has, or is about to get, a Job."""
        return self.tries if self.tries > self.settled else None


def entry_of(account: Body | None, run: str) -> Entry | None:
    """A run's entry, where there is one.

    Raises:
        AccountDamaged: naming the account.
    """
    text = ((account or {}).get("data") or {}).get(run)
    if text is None:
        return None
    try:
        return Entry.model_validate_json(text)
    except ValidationError as error:
        raise _damaged(account, run, error) from None


def whole(account: Body | None) -> Account:
    """Every run's entry, as far as the contract knows it.

    Raises:
        AccountDamaged: naming the account and the run.
    """
    entries = {}
    for run, text in ((account or {}).get("data") or {}).items():
        try:
            entries[run] = AccountEntry.model_validate_json(text)
        except ValidationError as error:
            raise _damaged(account, run, error) from None
    return Account(entries)


def _damaged(account: Body | None, run: str, error: ValidationError) -> AccountDamaged:
    name = account["metadata"]["name"] if account is not None else ""
    first = error.errors(include_url=False)[0]
    return AccountDamaged(f"ConfigMap {name}, key {run}: {first['msg']}; it counts what was spent: repair it")


def account_body(account: Body | None, namespace: str, program: str, run: str, entry: Entry) -> Body:
    """The whole ConfigMap with this run's entry in it, for a guarded write."""
    # What is default is left out: one ConfigMap holds the entries of all runs of a program, 1 MiB in all.
    text = json.dumps(
        entry.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True),
        ensure_ascii=False,
        sort_keys=True,
        separators=(",", ":"),
    )
    if account is not None:
        kept = ("name", "namespace", "labels", "annotations", "resourceVersion", "uid", "ownerReferences")
        metadata = {name: account["metadata"][name] for name in kept if name in account["metadata"]}
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {**(account.get("data") or {}), run: text},
        }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names.program_account(program),
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "dspy-operator",
                names.LABEL_KIND: "PromptProgram",
                names.LABEL_NAME: program,
                names.LABEL_COMPONENT: names.Component.ACCOUNT.value,
            },
        },
        "data": {run: text},
    }


# --- the life of an entry ------------------------------------------------------------------------------------------


def adopted(entry: Entry, uid: str) -> Entry:
    """For the object that exists now.

    An earlier object of the name left its spend; a reservation that nobody settled counts as spent, for its pod may have
    spent it and nobody is left to say.
    """
    if entry.uid in ("", uid):
        return entry
    return entry.model_copy(
        update={
            "uid": uid,
            "own": "",
            "attempt": entry.attempt + 1,
            "settled": entry.tries,
            "used": plus(entry.used, entry.reserved),
            "reserved": Usage(),
            "rerun": None,
            "backoff": None,
            "ended": None,
        }
    )


def recovered(status: Mapping[str, Any], *, uid: str, own: str, budget: Budget) -> Entry:
    """What a status still tells where the account has no word of its run: it went with its program, or by accident.

    What is over stays over, and what was spent stays spent; anything else begins anew, with its journal.
    """
    attempt, tries, at = status.get("attempt", 0), status.get("try", 0), status.get("completionTime")
    if not tries and at is None:
        return Entry()
    told = status.get("usage") or {}
    used = Usage.model_validate({name: told[name] for name in told.keys() & _USAGE_FIELDS})
    entry = Entry(uid=uid, attempt=attempt, tries=tries, settled=tries, used=used, rerun=status.get("rerun"))
    for condition in status.get("conditions") or ():
        if at is not None and condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            ended = Ended(
                reason=condition["reason"],
                message=condition.get("message", ""),
                at=at,
                complete=condition["type"] == "Complete",
                outcome=status.get("outcome"),
                candidate=(status.get("revision") or {}).get("digest"),
                budget=budget,
            )
            return entry.model_copy(update={"own": own, "ended": ended})
    # An attempt that had a Job is not gone on with. The number of one that had none is free: a run that waits would count on
    # from what it told, with each pass.
    return entry.model_copy(update={"own": UNKNOWN}) if status.get("startTime") else entry


_USAGE_FIELDS = frozenset({"calls", "replayed", "failed", "inputTokens", "cachedInputTokens", "outputTokens", "cost"})


def begun(entry: Entry, *, uid: str, own: str, input_digest: str, rerun: str | None) -> Entry:
    """A new attempt: other inputs, or a rerun of the same."""
    return entry.model_copy(
        update={
            "uid": uid,
            "own": own,
            "input_digest": input_digest,
            "attempt": entry.attempt + (1 if entry.own else 0),
            "rerun": rerun,
            "backoff": None,
            "ended": None,
        }
    )


def opened(entry: Entry, try_: int, budget: Budget) -> Entry:
    """A try may begin: what is left of the budget is reserved."""
    return entry.model_copy(update={"tries": try_, "settled": try_ - 1, "reserved": left(budget, entry.used)})


def settled(entry: Entry, used: Usage, seconds: float) -> Entry:
    """The open try is over. What was spent never shrinks, whatever the pod's last words are."""
    return entry.model_copy(
        update={
            "settled": entry.tries,
            "used": most(entry.used, used),
            "seconds": round(max(entry.seconds, seconds), 1),
            "reserved": Usage(),
        }
    )


def kept_result(account: Account, input_digest: str, spec: OptimizationRunSpec) -> tuple[str, KeptResult] | None:
    """(run, result) of the same inputs, by any run of the program; one whose sizes came from its budget only for the same."""
    for run, entry in sorted(account.root.items()):
        kept = entry.inputs.get(input_digest)
        if kept is not None and (not spec.optimizer.options.fits_budget or same_budget(kept.budget, spec.budget)):
            return run, kept
    return None


def closed(entry: Entry, ended: Ended) -> Entry:
    """The attempt is over."""
    backoff = entry.backoff.model_copy(update={"not_before": ""}) if entry.backoff is not None else None
    return entry.model_copy(update={"ended": ended, "backoff": backoff})


def unopened(entry: Entry) -> Entry:
    """The open try never got its Job: nobody spends what it reserved."""
    return entry.model_copy(update={"settled": entry.tries, "reserved": Usage()})


# --- amounts -------------------------------------------------------------------------------------------------------


def left(budget: Budget, used: Usage) -> Usage:
    """What may still be spent, limit by limit; 0 where there is no limit. Tokens are told as input tokens."""
    return Usage(
        calls=max(0, budget.calls - used.calls) if budget.calls is not None else 0,
        input_tokens=max(0, budget.tokens - used.tokens) if budget.tokens is not None else 0,
        cost=_money(
            max(Decimal(0), Decimal(budget.cost) - Decimal(used.cost)) if budget.cost is not None else Decimal(0)
        ),
    )


def plus(one: Usage, other: Usage) -> Usage:
    """The sum."""
    return Usage(
        calls=one.calls + other.calls,
        replayed=one.replayed + other.replayed,
        failed=one.failed + other.failed,
        input_tokens=one.input_tokens + other.input_tokens,
        cached_input_tokens=one.cached_input_tokens + other.cached_input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cost=_money(Decimal(one.cost) + Decimal(other.cost)),
    )


def most(one: Usage, other: Usage) -> Usage:
    """The larger of each."""
    return Usage(
        calls=max(one.calls, other.calls),
        replayed=max(one.replayed, other.replayed),
        failed=max(one.failed, other.failed),
        input_tokens=max(one.input_tokens, other.input_tokens),
        cached_input_tokens=max(one.cached_input_tokens, other.cached_input_tokens),
        output_tokens=max(one.output_tokens, other.output_tokens),
        cost=_money(max(Decimal(one.cost), Decimal(other.cost))),
    )


def total(by_role: Mapping[str, Usage]) -> Usage:
    """All roles together."""
    out = Usage()
    for usage in by_role.values():
        out = plus(out, usage)
    return out


def raised(before: Budget, now: Budget) -> bool:
    """Whether any limit is higher than it was, or gone."""
    return any(
        old is not None and (new is None or new > old) for old, new in zip(_limits(before), _limits(now), strict=True)
    )


def same_budget(one: Budget, other: Budget) -> bool:
    """Whether two budgets are the same, however their numbers are spelled."""
    return _limits(one) == _limits(other)


def _limits(budget: Budget) -> tuple[Decimal | None, ...]:
    wall_clock = parse_duration(budget.wall_clock).total_seconds() if budget.wall_clock is not None else None
    return tuple(
        Decimal(str(limit)) if limit is not None else None
        for limit in (budget.calls, budget.tokens, budget.cost, wall_clock)
    )


def _money(amount: Decimal) -> str:
    return f"{amount:f}"
