"""The counting server: one event loop in a thread of its own, which reads, counts, decides, and answers."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

from tests.counting_server.completions import complete, prompt_tokens
from tests.counting_server.counts import Counts, CountsView, SeenRequest
from tests.counting_server.faults import FaultPlan, Reply, error, error_reply, invalid, wrong_key
from tests.counting_server.hashing import fraction, request_key
from tests.counting_server.http_wire import ClientReader, NotHttp, Request, read_request, written
from tests.counting_server.prompts import text_of
from tests.counting_server.script import Fault, FaultType, Script, ScriptError

_BACKLOG = 1024
_SAVE_EVERY_SECONDS = 0.2
_TOO_MANY = Fault(type=FaultType.RATE_LIMIT)


class ClientGone(Exception):
    """The client closed its connection before it had its answer."""


class CountingServer:
    """A deterministic OpenAI-compatible server that counts and fails as told.

    with CountingServer({"answers": {"I loved it": "positive"}}) as server:
        lm = dspy.LM("openai/fake", api_base=server.url, api_key="any")
    """

    def __init__(
        self,
        script: Mapping[str, Any] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        state_file: str | Path | None = None,
    ) -> None:
        """Raises ScriptError. With `state_file`, counts go on from that file and are kept there."""
        self._host = host
        self._port = port
        self._state_file = Path(state_file) if state_file else None
        self._counts = Counts()
        if self._state_file and self._state_file.exists():
            self._counts.load(self._state_file)
        self._use(Script.from_json(script or {}))
        self._repetitions: Counter[str] = Counter()
        self._working = 0
        self._taken_at: deque[float] = deque()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._failure: OSError | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._released = asyncio.Event()

    # The life of the server: any thread.

    def start(self) -> CountingServer:
        """Listen. Raises OSError if the port is taken."""
        self._ready.clear()
        self._failure = None
        self._stopping = asyncio.Event()  # an event belongs to the loop that waits for it
        self._released = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="counting-server", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure:
            self._thread.join()
            raise self._failure
        return self

    def stop(self) -> None:
        """Close every connection, those that hang or are held included, and the port."""
        if self._thread and self._loop:
            with suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
            self._thread = None

    def __enter__(self) -> CountingServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error_: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def url(self) -> str:
        """What a client takes as its base URL."""
        return f"http://{self._host}:{self._port}/v1"

    # What tests ask and tell: any thread.

    def counts(self, *, keys: bool = False) -> CountsView:
        """The counts now."""
        return self._counts.view(keys=keys)

    def requests(self, last: int | None = None) -> list[SeenRequest]:
        """The last requests (`keep_requests` of them) in the order of their arrival."""
        return self._counts.seen(last)

    def set_script(self, script: Mapping[str, Any]) -> None:
        """Follow another script from the next request on. Ordinals go on. Raises ScriptError."""
        new = Script.from_json(script)
        self._on_loop(lambda: self._use(new))

    def reset(self) -> None:
        """Count from nothing again, ordinals, faults met and repetitions included."""
        self._on_loop(self._reset)

    def release(self) -> None:
        """Answer the requests that are held now."""
        self._on_loop(self._release)

    def wait_until(self, holds: Callable[[CountsView], bool], *, deadline_seconds: float = 10) -> CountsView:
        """Wait for a condition on the counts; returns them. Raises TimeoutError with the counts."""
        end = time.monotonic() + deadline_seconds
        while not holds(view := self.counts()):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {deadline_seconds} s; counts: {view}")
            time.sleep(0.005)
        return view

    # From here on: the loop's thread alone.

    def _on_loop(self, act: Callable[[], None]) -> None:
        if self._loop is None or self._thread is None:
            act()
            return
        done = threading.Event()

        def run() -> None:
            act()
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait()

    def _use(self, script: Script) -> None:
        self._script = script
        self._faults = FaultPlan(script.faults)

    def _reset(self) -> None:
        self._counts.reset()
        self._repetitions.clear()
        self._faults = FaultPlan(self._script.faults)

    def _release(self) -> None:
        self._released.set()
        self._released = asyncio.Event()

    async def _serve(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        try:
            listener = await loop.create_server(
                lambda: asyncio.StreamReaderProtocol(ClientReader(), self._accept),
                self._host,
                self._port,
                backlog=_BACKLOG,
                reuse_address=True,
            )
        except OSError as taken:
            self._failure = taken
            self._ready.set()
            return
        self._port = listener.sockets[0].getsockname()[1]
        saving = asyncio.create_task(self._save_regularly())
        self._ready.set()
        await self._stopping.wait()
        listener.close()
        saving.cancel()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(saving, *self._connections, return_exceptions=True)
        self._save()

    async def _save_regularly(self) -> None:
        while self._state_file:
            self._save()
            await asyncio.sleep(_SAVE_EVERY_SECONDS)

    def _save(self) -> None:
        if self._state_file:
            self._counts.save(self._state_file)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, ClientReader)
        connection = asyncio.create_task(self._converse(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _converse(self, reader: ClientReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_request(reader)) is not None:
                reply = await self._route(request, reader, writer)
                if reply is None:
                    break
                writer.write(written(reply, keeps_open=request.keeps_open))
                await writer.drain()
                if not request.keeps_open:
                    break
        except NotHttp as wrong:
            writer.write(written(invalid(str(wrong)), keeps_open=False))
        except (ConnectionError, ClientGone):
            pass  # clients are killed on purpose here; the counts say so
        finally:
            writer.close()

    async def _route(self, request: Request, reader: ClientReader, writer: asyncio.StreamWriter) -> Reply | None:
        match request.method, request.path:
            case "POST", "/v1/chat/completions":
                return await self._chat(request, reader, writer)
            case "GET", "/v1/models":
                models = [{"id": name, "object": "model", "owned_by": "tests"} for name in self._script.models]
                return Reply.of_json(200, {"object": "list", "data": models}) if self._admits(request) else wrong_key()
            case "GET", "/_counts":
                return Reply.of_json(200, self._counts.view(keys=request.query.get("keys") == "1"))
            case "GET", "/_requests":
                last = request.query.get("last")
                return Reply.of_json(200, self._counts.seen(int(last) if last else None))
            case "POST", "/_script":
                try:
                    self._use(Script.from_json(json.loads(request.body)))
                except (ScriptError, json.JSONDecodeError) as wrong:
                    return invalid(str(wrong))
            case "POST", "/_reset":
                self._reset()
            case "POST", "/_release":
                self._release()
            case _:
                return error(404, f"Unknown: {request.method} {request.path}", type_="invalid_request_error")
        return Reply.of_json(200, {"ok": True})

    def _admits(self, request: Request) -> bool:
        wanted = self._script.api_key
        return wanted is None or request.headers.get("authorization") == f"Bearer {wanted}"

    async def _chat(self, request: Request, reader: ClientReader, writer: asyncio.StreamWriter) -> Reply | None:
        """Count one completion request and find its reply. None: the connection is to be closed without one."""
        raw = request.body.decode("utf-8", "replace")
        try:
            body = json.loads(raw)
            texts = [raw, *(text_of(message.get("content")) for message in body["messages"])]
        except (ValueError, KeyError, TypeError, AttributeError) as wrong:
            return invalid(f"not a chat completion request: {wrong!r}")
        key, model = request_key(body), str(body.get("model"))
        ordinal = self._counts.arrive(key=key, model=model, body=raw, keep=self._script.keep_requests)
        outcome = "crashed"
        try:
            await asyncio.sleep(0)  # so that requests which wait on other connections count as in flight too
            await self._notify_and_hold(ordinal, reader)
            if not self._admits(request):
                reply: Reply | None = wrong_key()
            elif body.get("stream"):
                reply = invalid("this server does not stream", param="stream")
            else:
                fault = self._faults.choose(ordinal=ordinal, model=model, texts=texts)
                if fault is None and self._is_full():
                    fault = _TOO_MANY
                self._working += 1
                try:
                    reply = await self._reply(body, key, fault, reader, writer)
                finally:
                    self._working -= 1
            outcome = str(reply.status) if reply else "dropped"
            return reply
        except (ClientGone, asyncio.CancelledError):
            outcome = "abandoned"
            raise
        finally:
            self._counts.finish(outcome)

    async def _notify_and_hold(self, ordinal: int, reader: ClientReader) -> None:
        notify = self._script.notify
        if notify and ordinal in notify.at:
            with open(notify.file, "a") as file:
                file.write(f"{ordinal}\n")
        if ordinal in self._script.hold_at:
            self._counts.hold(+1)
            try:
                await _unless_gone(self._released.wait(), reader)
            finally:
                self._counts.hold(-1)

    def _is_full(self) -> bool:
        """Whether one more request is more than the script says it takes; one that is not is taken."""
        now, script = monotonic(), self._script
        while self._taken_at and self._taken_at[0] <= now - 1:
            self._taken_at.popleft()
        if script.most_at_once is not None and self._working >= script.most_at_once:
            return True
        if script.most_per_second is not None and len(self._taken_at) >= script.most_per_second:
            return True
        self._taken_at.append(now)
        return False

    async def _reply(
        self, body: Mapping[str, Any], key: str, fault: Fault | None, reader: ClientReader, writer: asyncio.StreamWriter
    ) -> Reply | None:
        script = self._script
        if fault:
            self._counts.meet(fault.type)
            if failed := error_reply(fault, prompt_tokens=prompt_tokens(body)):
                return failed
            if fault.type is FaultType.GARBAGE:
                return Reply(status=200, body=b"<html><body>Bad gateway</body></html>")
            if fault.type is FaultType.HANG:
                await _unless_gone(_sleep(fault.seconds), reader)
        repetition = 0
        if script.stochastic:
            repetition = self._repetitions[key]
            self._repetitions[key] += 1
        latency = script.latency
        seconds = (latency.min_ms + fraction("latency", key) * (latency.max_ms - latency.min_ms)) / 1000
        if seconds > 0:
            await _unless_gone(asyncio.sleep(seconds), reader)
        completion = complete(body, key=key, script=script, repetition=repetition, fault=fault.type if fault else None)
        reply = Reply.of_json(200, completion.payload)
        if fault and fault.type is FaultType.DROP:
            if fault.partial_bytes:
                writer.write(written(reply, keeps_open=True)[: fault.partial_bytes])
            return None
        self._counts.answer(
            key=key, prompt_tokens=completion.prompt_tokens, completion_tokens=completion.completion_tokens
        )
        return reply


async def _sleep(seconds: float | None) -> None:
    """Sleep; without a number, until cancelled."""
    await (asyncio.sleep(seconds) if seconds is not None else asyncio.Event().wait())


async def _unless_gone(waiting: Any, reader: ClientReader) -> None:
    """Await `waiting`. Raises ClientGone as soon as the client closes its connection."""
    tasks = [asyncio.ensure_future(waiting), asyncio.ensure_future(reader.gone.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if reader.gone.is_set():
            raise ClientGone
    finally:
        for task in tasks:
            task.cancel()
