"""`python -m dspy_operator.loader`: pulls a model into the Ollama beside it, loads it, and says how far it is."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx

from dspy_operator.contract import names
from dspy_operator.loader import health
from dspy_operator.loader.channel import Channel
from dspy_operator.loader.cluster import Cluster, NotInCluster
from dspy_operator.loader.logs import log_to_stderr
from dspy_operator.loader.ollama import Ollama
from dspy_operator.loader.serving import Loader, Wanted

log = logging.getLogger("dspy_operator.loader")

USAGE = 64
"""Exit code where the arguments, or the surroundings, cannot work; as the runner's."""


def parser() -> argparse.ArgumentParser:
    """The arguments that the operator gives."""
    made = argparse.ArgumentParser(
        prog="python -m dspy_operator.loader",
        description="The sidecar of an Ollama pod: pulls MODEL, loads it for good, answers /readyz once it answers, and "
        "reports phase, percent and time left under the key progress.POD.json of a ConfigMap.",
        epilog="It ends only on SIGTERM or SIGINT, with 0; with 64 where arguments or surroundings cannot work. What "
        "fails (no such model, registry away, disk full) is reported, logged, and tried again within a minute.",
    )
    made.add_argument(
        "--model", required=True, help="name under which the model is served, as Ollama's registry has it"
    )
    made.add_argument(
        "--registry", metavar="HOST[:PORT]", help="where it is pulled from; default: Ollama's own registry"
    )
    made.add_argument(
        "--insecure", action="store_true", help="the registry speaks http, or has a certificate of its own"
    )
    made.add_argument("--ollama", metavar="URL", default="http://127.0.0.1:11434", help="default: %(default)s")
    made.add_argument("--port", type=int, default=8090, help="of /readyz; default: %(default)s")
    made.add_argument("--namespace", required=True, help="of this pod and of the ConfigMap")
    made.add_argument("--channel", required=True, metavar="NAME", help="the ConfigMap, the one object this may patch")
    made.add_argument("--pod", required=True, metavar="NAME", help="name of this pod")
    made.add_argument(
        "--service-account",
        metavar="FOLDER",
        type=Path,
        default=Path(names.ACCOUNT_FOLDER),
        help="folder with token and ca.crt; default: %(default)s",
    )
    return made


async def serve(arguments: argparse.Namespace) -> None:
    """Until a signal.

    Raises:
        NotInCluster: there is no API server to report to.
        OSError: the port of /readyz is taken.
    """
    cluster = Cluster.of(os.environ, arguments.service_account)
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    async with (
        cluster.client() as api,
        httpx.AsyncClient(base_url=arguments.ollama, trust_env=False) as http,
    ):
        channel = Channel.of_pod(api, namespace=arguments.namespace, name=arguments.channel, pod=arguments.pod)
        wanted = Wanted(arguments.model, arguments.registry, arguments.insecure)
        loader = Loader(wanted, Ollama(http), channel.offer)
        async with await health.listen(arguments.port, lambda: loader.ready):
            await _until(over, loader, channel)
    log.info("stopped by a signal")


async def _until(over: asyncio.Event, loader: Loader, channel: Channel) -> None:
    """Work until the signal; a bug in either task ends the process, and the kubelet starts it anew."""
    tasks = [asyncio.create_task(work) for work in (loader.run(), channel.run())]
    signalled = asyncio.create_task(over.wait())
    done, left = await asyncio.wait([*tasks, signalled], return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    for task in left:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    for task in done:
        task.result()


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parsed = parser().parse_args(arguments)
    log_to_stderr()
    try:
        asyncio.run(serve(parsed))
    except (NotInCluster, OSError) as error:
        log.error("%s", error)
        return USAGE
    return 0


if __name__ == "__main__":
    sys.exit(main())
