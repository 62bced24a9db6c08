"""Whatever is applied: the API server answers with a path, our models agree with it, and what is accepted crashes nothing."""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dspy_operator.api import unsupported
from dspy_operator.api.objects import InvalidObject, Kind, ModelEndpoint, OptimizationRun, PromptProgram, parse_object
from dspy_operator.api.resources import RESOURCES
from dspy_operator.contract.exits import RunFailed
from dspy_operator.contract.resolve import Surroundings, control_of, resolve, resolve_validation
from dspy_operator.contract.runspec import Paths
from tests.controlplane.processes import ControlPlane
from tests.fuzz.lives import PRICES, lived
from tests.fuzz.objects import an_object, schemas
from tests.fuzz.refusals import pathless_causes
from tests.integration.acceptance import LONG, RESULTS, source_digest
from tests.integration.crd.rule_cases import cases
from tests.unit.written import endpoint, program, run

SEEDS = json.loads((Path(__file__).parent / "seeds.json").read_text("utf-8"))
"""kind -> seeds that once found something."""
BLOCKS = 40 if LONG else 1
PER_BLOCK = 250
IN_FLIGHT = 24
Body = dict[str, Any]
AROUND = Surroundings(data_path="/data/rows", paths=Paths(journal="/j", out="/o", control="/c"), dataset_digest="v1:d")
KINDS = {
    resource.kind: f"{'namespaces/default/' if resource.namespaced else ''}{resource.plural}" for resource in RESOURCES
}
"""kind -> where its objects are."""
NOT_THERE_YET = {kind for kind in KINDS if any(entry.field is None for entry in unsupported.of((f"{kind}Spec",)))}
"""Kinds that are refused as a whole."""
SCHEMAS = schemas()


@dataclass(frozen=True)
class Answer:
    """What the API server says of an object."""

    seed: int
    how: str
    """The object was made."""
    document: Body
    code: int
    said: Body
    """The object as it would be kept, or why it is refused."""


@dataclass
class Seen:
    """What a block of objects came to."""

    answers: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)
    """How far those came that were taken."""
    wrong: list[tuple[int, str, str]] = field(default_factory=list)
    """(seed, what, why)"""


@pytest.mark.parametrize("block", range(BLOCKS))
@pytest.mark.parametrize("kind", KINDS)
def test_no_object_gets_past_a_promise(cluster: ControlPlane, kind: str, block: int) -> None:
    if LONG and _on_record(kind, block):
        return
    seeds = [*range(block * PER_BLOCK, (block + 1) * PER_BLOCK), *(SEEDS.get(kind, ()) if block == 0 else ())]
    seen = _judged(asyncio.run(_answered(cluster, kind, seeds)))
    assert seen.wrong == [], f"{len(seen.wrong)} of {len(seeds)}"
    if kind in NOT_THERE_YET:
        assert seen.answers["taken"] == 0
    else:
        assert 0 < seen.answers["taken"] < len(seeds), "neither all harmless nor all fatal"
    if LONG:
        _record(kind, block, seen)


async def _answered(cluster: ControlPlane, kind: str, seeds: list[int]) -> list[Answer]:
    """What the API server says of the object of each seed."""
    good = [case.keeps["spec"] for case in cases() if case.kind == kind]
    context = ssl.create_default_context(cafile=str(cluster.authority))
    answers: list[Answer] = []
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, limit=IN_FLIGHT),
        headers={"Authorization": f"Bearer {cluster.token}", "Content-Type": "application/json"},
        trust_env=False,
    ) as session:
        url = f"{cluster.server}/apis/dspy-operator.io/v1alpha1/{KINDS[kind]}"

        async def one(seed: int) -> None:
            how, document = an_object(kind, SCHEMAS[kind], seed, good)
            async with session.post(f"{url}?dryRun=All&fieldValidation=Strict", data=json.dumps(document)) as answer:
                answers.append(Answer(seed, how, document, answer.status, await answer.json()))

        waiting = iter(seeds)

        async def worker() -> None:
            for seed in waiting:
                await one(seed)

        await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return sorted(answers, key=lambda answer: answer.seed)


def _judged(answers: list[Answer]) -> Seen:
    seen = Seen()
    for answer in answers:
        seen.answers[answer.how] += 1
        seen.answers["taken" if answer.code == 201 else "refused"] += 1
        seen.wrong.extend((answer.seed, what, why) for what, why in _broken_promises(answer, seen.reached))
    return seen


def _broken_promises(answer: Answer, reached: Counter[str]) -> list[tuple[str, str]]:
    broken = []
    code, said, document = answer.code, answer.said, answer.document
    if code not in (201, 400, 422):
        broken.append(("the API server failed", f"{code}: {said}"[:500]))
    elif code != 201 and (pathless := pathless_causes(document, said)):
        broken.append(("a refusal without a path", "; ".join(pathless)[:500]))
    try:
        typed = parse_object(document)
    except InvalidObject as invalid:
        if pathless := [str(problem) for problem in invalid.problems if not problem.path]:
            broken.append(("a refusal of the models without a path", pathless[0][:300]))
        if code == 201:
            broken.append(("taken by the API server, refused by the models", str(invalid)[:300]))
        return broken
    except Exception as error:  # the promise is that there is none
        return [*broken, ("the models failed", f"{type(error).__name__}: {error}"[:300])]
    if code != 201:
        return [*broken, ("refused by the API server, taken by the models", str(said["message"])[:300])]
    for what, use in (("resolve", _resolved), ("its life", _lived)):
        try:
            reached[use(typed, said)] += 1
        except RunFailed as failure:
            reached[f"{what}: {failure.reason}"] += 1
            if not failure.path:
                broken.append(("resolve refuses without a path", failure.message[:300]))
        except Exception as error:  # the promise is that there is none
            broken.append((f"an object that was taken breaks {what}", f"{_whereabouts(error)}"[:400]))
    return broken


def _whereabouts(error: Exception) -> str:
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place is not None else ""
    return f"{type(error).__name__}: {error} {where}"


def _resolved(typed: Kind, _: Body) -> str:
    """Whatever is resolved of it, in surroundings that have what it names."""
    match typed:
        case ModelEndpoint():
            resolve(run(), program(), {"default/qwen": typed}, _around("default/qwen"))
        case PromptProgram():
            resolve_validation(typed, AROUND)
            target = typed.spec.target.endpoint
            key = f"{target.namespace or 'default'}/{target.name}"
            resolve(run(), typed, {key: endpoint()}, _around(key))
        case OptimizationRun():
            roles = typed.spec.endpoints
            keys = {"default/qwen"}
            for role in type(roles).model_fields if roles is not None else ():
                if (named := getattr(roles, role)) is not None:
                    keys.add(f"{named.namespace or 'default'}/{named.name}")
            endpoints = {key: endpoint(PRICES) for key in keys}
            resolve(typed, program(), endpoints, AROUND)
            control_of(typed, endpoints)
    return "resolved"


def _lived(typed: Kind, body: Body) -> str:
    return f"life: {lived(typed, body)}"


def _around(key: str) -> Surroundings:
    return Surroundings(
        data_path="/data/rows", paths=AROUND.paths, dataset_digest="v1:d", urls={key: "http://127.0.0.1:11434/v1"}
    )


@functools.cache
def _lines() -> tuple[dict[str, Any], ...]:
    path = RESULTS / "fuzz.jsonl"
    return tuple(json.loads(line) for line in path.read_text("utf-8").splitlines()) if path.is_file() else ()


def _on_record(kind: str, block: int) -> bool:
    return any((line["kind"], line["block"], line["sources"]) == (kind, block, source_digest()) for line in _lines())


def _record(kind: str, block: int, seen: Seen) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    first = block * PER_BLOCK
    line = {"kind": kind, "block": block, "seeds": [first, first + PER_BLOCK - 1], **seen.answers}
    line |= {"reached": dict(sorted(seen.reached.items())), "passed": True}
    with (RESULTS / "fuzz.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, "sources": source_digest()}) + "\n")


def test_the_same_seed_is_the_same_object() -> None:
    for kind, schema in SCHEMAS.items():
        good = [case.keeps["spec"] for case in cases() if case.kind == kind]
        assert an_object(kind, schema, 7, good) == an_object(kind, schema, 7, good)
