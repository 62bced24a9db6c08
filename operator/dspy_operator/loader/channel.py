"""The loader's key in its endpoint's ConfigMap: what was offered last is what is there, sooner or later."""

from __future__ import annotations

import asyncio
import json
import logging
import random

import httpx

from dspy_operator.contract import names
from dspy_operator.contract.documents import LoaderProgress

PAUSE_SECONDS = 2.0
"""Between two patches of one phase: ten replicas that pull are 5 writes a second. Another phase is told at once."""
CONFIRM_SECONDS = 300.0
"""Between two looks at a key that did not change: somebody may have deleted the ConfigMap, and the operator made a new one."""
LONGEST_BACKOFF_SECONDS = 60.0
FIELD_MANAGER = "dspy-operator-loader"

log = logging.getLogger(__name__)


class Channel:
    """Keeps one key of one ConfigMap as it was offered last.

    Nothing that goes wrong here stops the model from being served: what cannot be written is tried again.

    Args:
        client: of the API server.
        key: names.loader_key of this pod.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        namespace: str,
        name: str,
        key: str,
        pause_seconds: float = PAUSE_SECONDS,
        confirm_seconds: float = CONFIRM_SECONDS,
    ) -> None:
        self._client = client
        self._path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
        self._key = key
        self._pause = pause_seconds
        self._confirm = confirm_seconds
        self._offered: str | None = None
        self._phase: str | None = None
        self._changed = asyncio.Event()
        self._urgent = asyncio.Event()

    @staticmethod
    def of_pod(client: httpx.AsyncClient, *, namespace: str, name: str, pod: str) -> Channel:
        """The channel of one replica."""
        return Channel(client, namespace=namespace, name=name, key=names.loader_key(pod))

    def offer(self, progress: LoaderProgress) -> None:
        """What the key should say from now on; replaces what was offered before and not yet written."""
        text = json.dumps(progress.document(), ensure_ascii=False)
        if text != self._offered:
            self._offered = text
            self._changed.set()
        if progress.phase != self._phase:
            self._phase = progress.phase
            self._urgent.set()

    async def run(self) -> None:
        """Write, for ever: a new phase at once, new numbers at most once in `pause_seconds`; without a change only look."""
        failures = 0
        while True:
            changed = await _comes(self._changed, self._confirm)
            self._changed.clear()
            self._urgent.clear()
            text = self._offered
            try:
                if text is not None and (changed or await self._read() != text):
                    await self._write(text)
                failures = 0
            except (httpx.HTTPError, OSError) as error:
                # OSError: the token's file, in the moment of its renewal.
                self._changed.set()
                failures += 1
                if failures == 1:  # an API server that is away for an hour is one line
                    log.warning("the endpoint's ConfigMap cannot be written, trying again: %s", _words(error))
                await asyncio.sleep(random.uniform(1.0, min(LONGEST_BACKOFF_SECONDS, 2.0**failures)))
            await _comes(self._urgent, self._pause)

    async def _read(self) -> str | None:
        answer = await self._client.get(self._path)
        answer.raise_for_status()
        data: dict[str, str] = answer.json().get("data") or {}
        return data.get(self._key)

    async def _write(self, text: str) -> None:
        answer = await self._client.patch(
            self._path,
            params={"fieldManager": FIELD_MANAGER},
            headers={"Content-Type": "application/merge-patch+json"},
            content=json.dumps({"data": {self._key: text}}),
        )
        answer.raise_for_status()


async def _comes(event: asyncio.Event, seconds: float) -> bool:
    """Whether an event comes within a time; returns as soon as it does."""
    try:
        return await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False


def _words(error: Exception) -> str:
    """An error with the API server's own words."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP {error.response.status_code}: {error.response.text[:300]}"
    return f"{type(error).__name__}: {error}"
