"""Plays the loader of an Ollama pod: percent by percent into the endpoint's channel, until the model is loaded."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping

from dspy_operator.contract import names
from dspy_operator.contract.documents import LoadedModel, LoaderProgress
from tests.simulator.pod import ChannelGone, Container
from tests.simulator.script import Server


def model_digest(model: str) -> str:
    """What the simulated registry has under a name."""
    return f"sha256:{hashlib.sha256(model.encode()).hexdigest()}"


async def load(
    container: Container,
    model: str,
    server: Server,
    failures: Mapping[str, tuple[str, str]],
    released: Callable[[], bool],
    pace: float,
) -> None:
    """Until the model answers.

    Args:
        failures: model -> (reason, the registry's words); asked again and again, as the loader does.
    Raises:
        ChannelGone: the endpoint was deleted.
    """

    async def tell(progress: LoaderProgress) -> None:
        document = json.dumps(progress.document(), sort_keys=True)
        await container.write_channel(
            names.endpoint_channel(container.owner), {names.loader_key(container.name): document}
        )

    told = None
    while (failure := failures.get(model)) is not None:
        if failure != told:
            await tell(LoaderProgress(phase="failed", reason=failure[0], message=failure[1]))
            told = failure
        await asyncio.sleep(0.1)
    for percent in server.percents:
        completed = server.total_bytes * percent // 100
        await tell(LoaderProgress(phase="pulling", completed=completed, total=server.total_bytes, percent=percent))
        while server.waits_at == percent and not released():
            await asyncio.sleep(0.05)
        await asyncio.sleep(pace)
    await tell(LoaderProgress(phase="loading", completed=server.total_bytes, total=server.total_bytes, percent=100))
    while server.waits_loading and not released():
        await asyncio.sleep(0.05)
    loaded = LoadedModel(
        name=model,
        digest=model_digest(model),
        size_bytes=server.total_bytes,
        context_length=4096,
        quantization="Q4_K_M",
    )
    await tell(
        LoaderProgress(phase="ready", completed=server.total_bytes, total=server.total_bytes, percent=100, model=loaded)
    )


__all__ = ["ChannelGone", "load", "model_digest"]
