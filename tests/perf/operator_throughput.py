"""How many runs a second the operator carries, beside a bare client that makes the same writes. By hand:

    python -m tests.perf.operator_throughput [RUNS]

The API server and etcd are real; pods and the Job controller are played, since the real one carries 30 Jobs a second on two
cores and would be what is measured. All share this machine's cores, so that the ratio says more than the seconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from tests.controlplane.audit import Request
from tests.controlplane.processes import ControlPlane, running
from tests.integration.operator.installation import an_operator, install
from tests.integration.operator.manifests import a_dataset, a_program, a_run, an_endpoint
from tests.integration.operator.namespace import Namespace
from tests.integration.operator.writes import counted, table
from tests.simulator import Play, Simulator
from tests.simulator.api import Api

WORKERS = 8
"""Of the operator, and of the bare client."""
RUNS_OF_A_PROGRAM = 20
"""Runs of one program share its account, and so write after each other."""
_RUNS = "/apis/dspy-operator.io/v1alpha1/namespaces/{}/optimizationruns"


@dataclass(frozen=True)
class Measured:
    """One side of the comparison."""

    seconds: float
    cpu_seconds: float
    writes: int


def main(runs: int) -> None:
    with running() as plane, tempfile.TemporaryDirectory() as folder:
        install(plane)
        operator = an_operator(plane, Path(folder), DSPY_OPERATOR_WORKERS=str(WORKERS))
        with Simulator(plane, jobs=True) as simulator:
            space = Namespace("load", plane, simulator, operator)
            os.kill(plane.pids[2], signal.SIGSTOP)  # the controller manager, our own child: see above
            space.create()
            # What every pod mounts is made by it, too.
            root = {"ca.crt": plane.authority.read_text()}
            space.apply(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"}, "data": root}
            )
            operator.start()
            measured, writes, peak = of_operator(space, runs)
            assert not simulator.problems, simulator.problems[:3]
            operator.stop()
        bare = asyncio.run(of_bare_client(plane, writes, runs))
        os.kill(plane.pids[2], signal.SIGCONT)
    print(f"{runs} runs, {WORKERS} workers, {os.cpu_count()} cores shared with API server, etcd and simulator")
    for name, side in (("operator", measured), ("bare client", bare)):
        print(
            f"{name:12} {runs / side.seconds:7.1f} runs/s  {side.writes / runs:5.1f} writes/run"
            f"  {1000 * side.cpu_seconds / runs:6.1f} CPU ms/run  {side.seconds:6.1f} s"
        )
    print(f"ratio        {measured.seconds / bare.seconds:.1f} x the time of the bare client")
    print(f"memory       {peak / 2**20:.0f} MiB at most")
    print(table(counted(writes)))


def of_operator(space: Namespace, runs: int) -> tuple[Measured, list[Request], int]:
    """From the first run that is applied to the last one that is complete."""
    names = [f"run-{number}" for number in range(runs)]
    for name in names:
        space.simulator.run_plays(space.name, name, Play(reports=1))
    # Manual ones, so that no revision is promoted and every run costs the same.
    programs = [program_of(number) for number in range(0, runs, RUNS_OF_A_PROGRAM)]
    space.apply(an_endpoint(), a_dataset())
    space.apply(*[a_program(of, concurrencyPolicy="Allow", promotion={"mode": "Manual"}) for of in programs])
    for program in programs:
        space.condition("PromptProgram", program, "Ready", "True", seconds=120)
    process, audit = psutil.Process(space.operator.pid), space.plane.audit
    peak = Peak(process)
    since, cpu, begun = audit.mark(), cpu_of(process), time.monotonic()
    apply_all(space, names)
    while len(space.simulator.started) < runs + len(programs) or complete(space) < runs:
        assert time.monotonic() - begun < 60 + runs, space.operator.end_of_log()
        time.sleep(0.5)
    seconds = time.monotonic() - begun
    used = cpu_of(process) - cpu
    peak.stop()
    writes = audit.writes(since=since, user=space.operator.user)
    return Measured(seconds, used, len(counted(writes))), writes, peak.bytes


def program_of(number: int) -> str:
    """The program of a run."""
    return f"program-{number // RUNS_OF_A_PROGRAM}"


def apply_all(space: Namespace, names: list[str]) -> None:
    async def apply() -> None:
        async with Api(space.plane) as api:
            todo = iter(list(enumerate(names)))

            async def worker() -> None:
                for number, name in todo:
                    run = a_run(name, seed=number, programRef={"name": program_of(number)})
                    await api.do("POST", _RUNS.format(space.name), run)

            await asyncio.gather(*[worker() for _ in range(WORKERS)])

    asyncio.run(apply())


def complete(space: Namespace) -> int:
    return sum(body.get("status", {}).get("phase") == "Succeeded" for body in space.all("OptimizationRun"))


class Peak:
    """The most memory that a process had, looked at every 0.2 s."""

    def __init__(self, process: psutil.Process) -> None:
        self.bytes = 0
        self._process = process
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopped.wait(0.2):
            self.bytes = max(self.bytes, self._process.memory_info().rss)


def cpu_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def of_bare_client(plane: ControlPlane, writes: list[Request], runs: int) -> Measured:
    """The operator's writes again, with the same bodies, into another namespace: run by run, as many at a time as it has workers."""
    async with Api(plane) as api:
        await api.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "bare"}})
        scripts: dict[str, list[tuple[str, str, Any, str]]] = defaultdict(list)
        for write in counted(writes):
            if write.code < 300:
                scripts[_run_of(write)].append(await _again(api, write))
        for name in {name for name in scripts if name.startswith("run-")}:
            await api.do("POST", _RUNS.format("bare"), a_run(name))
        todo = iter(list(scripts.values()))
        process = psutil.Process()
        cpu, begun = cpu_of(process), time.monotonic()

        async def worker() -> int:
            done = 0
            for script in todo:
                for method, path, body, kind in script:
                    code, said = await api.ask(method, path, body, kind=kind)
                    assert code < 300, (method, path, code, said)
                    done += 1
            return done

        made = sum(await asyncio.gather(*[worker() for _ in range(WORKERS)]))
        return Measured(time.monotonic() - begun, cpu_of(process) - cpu, made)


def _run_of(write: Request) -> str:
    """The run that a write is for, by the name that it writes; the account's writes go round."""
    if write.resource == "optimizationruns":
        return write.name
    parts = write.name.split("-")
    return f"run-{parts[2]}" if write.name.startswith("orun-run-") else write.name


async def _again(api: Api, write: Request) -> tuple[str, str, Any, str]:
    """A write as (method, path, body, content type), for the namespace "bare"."""
    path = write.uri.partition("?")[0]
    collection = path if write.verb == "create" else path.removesuffix("/status").rpartition("/")[0]
    body = await api.find(f"{collection}/{write.name}") or {}
    for field in ("uid", "resourceVersion", "managedFields", "creationTimestamp", "generation", "ownerReferences"):
        body.get("metadata", {}).pop(field, None)
    if "metadata" in body:
        body["metadata"]["namespace"] = "bare"
    here = path.replace("/namespaces/load/", "/namespaces/bare/")
    if write.resource == "optimizationruns":
        return "PATCH", here, {"status": body["status"]}, "merge-patch+json"
    body.pop("status", None)
    if write.verb == "create" and write.resource == "jobs":
        body["spec"].pop("selector", None)
        body["spec"]["template"]["metadata"]["labels"] = {}
        return "POST", here.partition("?")[0], body, "json"
    target = f"{collection.replace('/namespaces/load/', '/namespaces/bare/')}/{write.name}"
    return "PATCH", f"{target}?fieldManager=bare&force=true", body, "apply-patch+yaml"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
