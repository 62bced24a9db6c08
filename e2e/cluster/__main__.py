"""`python -m e2e.cluster up|images|load|programs|status|test|down|distclean`: see README.md."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys

from . import binaries, cache, healing, images, own_images, paths, plan, preflight, proof
from .command import Failed, exit_code
from .step import go_through
from .steps import docker, kind
from .steps.binaries import Binaries
from .steps.fixtures import OllamaProgram, S3Program


def up(arguments: argparse.Namespace) -> None:
    """Makes the cluster, or what is missing of it."""
    preflight.refuse(api_port=arguments.api_port)
    with cache.lock():
        go_through(plan.steps(images=arguments.images, workers=arguments.workers, api_port=arguments.api_port))
    print(f"export KUBECONFIG={paths.kubeconfig()} PATH={binaries.folder()}:$PATH")


def build_images(_: argparse.Namespace) -> None:
    """Builds the product's images, operator and runner, and weighs them. Needs Docker, and no cluster."""
    preflight.refuse_for_images()
    with cache.lock():
        go_through(plan.own_images_built())
    weights = own_images.weights()
    print(own_images.told(weights))
    own_images.refuse_overweight(weights)


def load(_: argparse.Namespace) -> None:
    """Builds the product's images where they are not of these sources, and loads them into the cluster."""
    preflight.refuse_for_images()
    with cache.lock():
        go_through(plan.own_images_loaded())


def programs(_: argparse.Namespace) -> None:
    """Builds the programs only, for the tests: the control plane's, Ollama and an S3 server. Needs neither Docker nor root."""
    preflight.refuse_for_programs()
    with cache.lock():
        go_through([Binaries(), OllamaProgram(), S3Program()])


def status(_: argparse.Namespace) -> None:
    """Says of every step whether it is done; fails if one is not."""
    missing = []
    for step in plan.steps():
        try:
            done = step.check()
        except Failed:
            done = False
        print(f"{step.name:<25} {'done' if done else 'missing'}")
        missing += [] if done else [step.name]
    if missing:
        raise Failed(f"missing: {', '.join(missing)}; `up` makes it")


def test(arguments: argparse.Namespace) -> None:
    """Proves on the cluster what the end-to-end tests need of it."""
    if not images.nodes():
        raise Failed("there is no cluster: run `up` first")
    if arguments.healing:
        healing.heal()
    else:
        proof.prove()


def down(_: argparse.Namespace) -> None:
    """Removes the cluster. The cache stays, and so does Docker."""
    log = paths.logs() / "down.log"
    with cache.lock():
        if docker.was_killed():
            docker.Docker().run(log)
        if docker.answers() and images.nodes():
            kind.delete(log)
        paths.kubeconfig().unlink(missing_ok=True)


def distclean(arguments: argparse.Namespace) -> None:
    """Removes the cluster, our images, the Docker daemon that we started and the cache. Go's own caches stay."""
    down(arguments)
    with cache.lock():
        if not docker.stop() and docker.answers():
            images.remove_ours()
        docker.unmount()
        shutil.rmtree(paths.cache())


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function in (up, build_images, load, programs, status, test, down, distclean):
        name = function.__name__.removeprefix("build_")  # `images` is a module here
        command = commands.add_parser(name, help=(function.__doc__ or "").split(".")[0])
        command.set_defaults(function=function)
        if function is up:
            command.add_argument(
                "--images", choices=["public", "built"], help="node image; default: try the public one"
            )
            command.add_argument("--workers", type=int, help="worker nodes beside the control plane; default: as it is")
            command.add_argument(
                "--api-port", type=int, help="the API server's port; default: as it is, else a free one"
            )
        if function is test:
            command.add_argument("--healing", action="store_true", help="break things and show that up heals them")
    arguments = parser.parse_args()
    return exit_code(lambda: arguments.function(arguments), interrupted="interrupted; run it again to go on")


if __name__ == "__main__":
    sys.exit(main())
