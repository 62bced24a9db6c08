"""The simulator: watches our pods, and plays each one to its end, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from dspy_operator.contract import names
from tests.controlplane.processes import ControlPlane
from tests.simulator import jobs, kubelet
from tests.simulator.api import Api, Body, Refused
from tests.simulator.loader import load
from tests.simulator.pod import ChannelGone, Container, Denied, Files, main_container, mount
from tests.simulator.runner import Died, Journal, Runner
from tests.simulator.script import Crash, Death, Play, Server

_RUNS = {"OptimizationRun": "orun", "PromptProgram": "pp"}


@dataclass(frozen=True)
class Started:
    """A runner's container that was started."""

    namespace: str
    kind: str
    name: str
    """Of the run or the program."""
    try_: int
    pod: str
    uid: str


class Simulator:
    """Plays pods until its block ends.

    Args:
        pace: seconds between two progress documents of a run; real runners take 5.
        jobs: plays the Job controller as well, where that does not run.
    """

    def __init__(self, plane: ControlPlane, *, pace: float = 0.02, jobs: bool = False) -> None:
        self._plane, self._pace, self._jobs = plane, pace, jobs
        self._plays: dict[tuple[str, str, str], tuple[Play, ...]] = {}
        self._servers: dict[tuple[str, str], Server] = {}
        self._released: set[tuple[str, str]] = set()
        self.model_failures: dict[str, tuple[str, str]] = {}
        """Model -> (reason, the registry's words): what cannot be pulled."""
        self.pull_secrets: dict[str, str] = {}
        """Namespace -> the only imagePullSecret with which its pods' images can be pulled."""
        self.started: list[Started] = []
        self.problems: list[str] = []
        """What the simulator itself could not do; a test that leaves any has proved nothing."""
        self.most_at_once: dict[tuple[str, str, str], int] = defaultdict(int)
        """(namespace, kind, name) -> most containers of it that ran at a time."""
        self._running: dict[tuple[str, str, str], int] = defaultdict(int)
        self._journals: dict[tuple[str, str], Journal] = {}
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._containers: dict[str, Container] = {}
        self._thread = threading.Thread(target=self._in_thread, name="simulator", daemon=True)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(30):
            raise TimeoutError(f"the simulator did not start: {self.problems}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None and self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    # --- what tests say ----------------------------------------------------------------------------------------------

    def run_plays(self, namespace: str, run: str, *plays: Play) -> None:
        """The tries of a run, from its next one on: one Play each, the last one for all that follow."""
        done = sum(s.namespace == namespace and s.kind == "OptimizationRun" and s.name == run for s in self.started)
        self._plays[namespace, "OptimizationRun", run] = (*[plays[0]] * done, *plays)

    def validation_plays(self, namespace: str, program: str, *plays: Play) -> None:
        """The validations of a program, from its next one on."""
        done = sum(s.namespace == namespace and s.kind == "PromptProgram" and s.name == program for s in self.started)
        self._plays[namespace, "PromptProgram", program] = (*[plays[0]] * done, *plays)

    def endpoint_plays(self, namespace: str, endpoint: str, server: Server) -> None:
        """The pods of an endpoint that start from now on."""
        self._servers[namespace, endpoint] = server

    def release(self, namespace: str, name: str) -> None:
        """Whatever of this name waits goes on, now and later."""
        self._released.add((namespace, name))

    def tries(self, namespace: str, run: str) -> list[int]:
        """Tries of a run whose container started, in order."""
        return [s.try_ for s in self.started if (s.namespace, s.kind, s.name) == (namespace, "OptimizationRun", run)]

    def validations(self, namespace: str, program: str) -> list[int]:
        """Tries of a program's validation, in order."""
        return [s.try_ for s in self.started if (s.namespace, s.kind, s.name) == (namespace, "PromptProgram", program)]

    # --- what the thread does ------------------------------------------------------------------------------------------

    def _in_thread(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception:  # of a thread, where nobody would see it: the test that is running fails with it
            self.problems.append(traceback.format_exc())

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with Api(self._plane) as api:
            await kubelet.join_cluster(api)
            works = [self._node(api), self._pods(api), *([jobs.make_pods(api)] if self._jobs else [])]
            tasks = [asyncio.create_task(self._guarded(work)) for work in works]
            self._ready.set()
            await self._stop.wait()
            lives = [*tasks, *self._lives.values()]
            for task in lives:
                task.cancel()
            await asyncio.gather(*lives, return_exceptions=True)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Refused as refused:
            # The test that owned the namespace has removed it under our feet: 404, or 403 while it terminates.
            if refused.code not in (403, 404, 409) and not self._stopping:
                self.problems.append(traceback.format_exc())
        except Exception:  # of a task: told to the test that is running, as above
            if not self._stopping:
                self.problems.append(traceback.format_exc())

    @property
    def _stopping(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    async def _node(self, api: Api) -> None:
        while True:
            await kubelet.renew_lease(api)
            await asyncio.sleep(10)

    async def _pods(self, api: Api) -> None:
        async for event, pod in api.follow("/api/v1/pods", names.LABEL_KIND):
            uid = pod["metadata"]["uid"]
            if event == "DELETED":
                if (life := self._lives.pop(uid, None)) is not None:
                    life.cancel()
                self._containers.pop(uid, None)
                continue
            if pod["metadata"].get("deletionTimestamp") is not None:
                await self._terminate(api, pod)
            elif uid not in self._lives and pod.get("status", {}).get("phase") == "Pending":
                self._lives[uid] = asyncio.create_task(self._guarded(self._life(api, pod)))

    async def _terminate(self, api: Api, pod: Body) -> None:
        """A deletion with grace: SIGTERM where a container runs; the pod goes when that has ended."""
        container = self._containers.get(pod["metadata"]["uid"])
        if container is not None:
            container.terminated.set()
        else:
            await kubelet.PodStatus(api, pod).confirm_deletion()

    async def _life(self, api: Api, pod: Body) -> None:
        status = kubelet.PodStatus(api, pod)
        await status.bind()
        await self._until_pulled(pod, status)
        files = await self._until_mounted(api, pod, status)
        container = Container(api, pod, files)
        labels = pod["metadata"]["labels"]
        if labels[names.LABEL_KIND] == "ModelEndpoint":
            await self._serve(container, status)
        else:
            await self._work(container, status)

    async def _until_pulled(self, pod: Body, status: kubelet.PodStatus) -> None:
        told = False
        while (secret := self.pull_secrets.get(pod["metadata"]["namespace"])) is not None:
            if {"name": secret} in pod["spec"].get("imagePullSecrets", ()):
                return
            if not told:
                image = main_container(pod)["image"]
                await status.waiting("ImagePullBackOff", f'Back-off pulling image "{image}": 401 Unauthorized')
                told = True
            await asyncio.sleep(0.1)

    async def _until_mounted(self, api: Api, pod: Body, status: kubelet.PodStatus) -> Files:
        told = None
        while isinstance(files := await mount(api, pod), str):
            if told != files:
                await status.waiting("ContainerCreating", "")
                told = files
            await asyncio.sleep(0.2)
        return files

    async def _serve(self, container: Container, status: kubelet.PodStatus) -> None:
        key = (container.namespace, container.owner)
        uid = container.body["metadata"]["uid"]
        self._containers[uid] = container
        await status.running(ready=False)
        path = f"/apis/dspy-operator.io/v1alpha1/namespaces/{key[0]}/modelendpoints/{key[1]}"
        endpoint = await container.api.find(path)
        model = endpoint["spec"]["provider"]["ollama"]["model"] if endpoint is not None else ""
        server = self._servers.get(key, Server())
        loading = asyncio.create_task(
            load(container, model, server, self.model_failures, lambda: key in self._released, self._pace)
        )
        ending = asyncio.create_task(container.terminated.wait())
        await asyncio.wait({loading, ending}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            with contextlib.suppress(ChannelGone, Denied):
                loading.result()
                await status.running(ready=True)
            await ending
        loading.cancel()
        ending.cancel()
        await status.confirm_deletion()

    async def _work(self, container: Container, status: kubelet.PodStatus) -> None:
        labels, metadata = container.body["metadata"]["labels"], container.body["metadata"]
        what = (container.namespace, labels[names.LABEL_KIND], container.owner)
        number = int(container.environment[names.ENV_TRY])
        done = sum((s.namespace, s.kind, s.name) == what for s in self.started)
        plays = self._plays.get(what, (Play(),))
        play = plays[min(done, len(plays) - 1)]
        self.started.append(Started(*what, number, metadata["name"], metadata["uid"]))
        self._containers[metadata["uid"]] = container
        self._running[what] += 1
        self.most_at_once[what] = max(self.most_at_once[what], self._running[what])

        def is_released() -> bool:
            return (container.namespace, container.owner) in self._released

        try:
            await status.running(ready=True)
            runner = Runner(container, play, self._journals, is_released, self._pace)
            try:
                code = await runner.run()
            except Died as died:
                await self._die(died.how, status, is_released)
            else:
                await status.ended(code)
                if self._jobs:
                    await jobs.end_job(container.api, container.body, succeeded=code == 0)
        finally:
            self._running[what] -= 1
            self._containers.pop(metadata["uid"], None)
            if container.terminated.is_set():
                await status.confirm_deletion()

    async def _die(self, how: Crash | Death, status: kubelet.PodStatus, released: Callable[[], bool]) -> None:
        if isinstance(how, Crash):
            await status.ended(how.code)
        elif how is Death.OUT_OF_MEMORY:
            await status.ended(137, reason="OOMKilled")
        elif how is Death.EVICTED:
            await status.evicted()
        elif how is Death.VANISHED:
            await status.confirm_deletion()
        elif how is Death.PREEMPTED:
            await status.disrupted("PreemptionByScheduler")
            await status.confirm_deletion()
        else:
            await status.disrupted("DeletionByTaintManager")
            while not released():
                await asyncio.sleep(0.05)
            await status.confirm_deletion()
