"""The product's two images, operator and runner, from the Dockerfile at the root: built where they are missing, and weighed.

Their base is what the fixtures stand on; DSPY_OPERATOR_IMAGE_BASE names another, for example debian:bookworm-slim.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import cache, images, paths, wheelhouse
from .command import Failed, output_of, run
from .rootfs import BASE

DOCKERFILE = wheelhouse.ROOT / "Dockerfile"


@dataclass(frozen=True)
class OwnImage:
    target: str
    """In the Dockerfile, and the last part of the image's name."""
    most_megabytes: int
    """Unpacked, over the base with its Python."""

    @property
    def name(self) -> str:
        """For manifests."""
        return f"dspy-operator/{self.target}:{wheelhouse.version()}"

    @property
    def by_content(self) -> str:
        """What it is called if it is of these sources. Given only to an image that is whole and not too large."""
        return self.tag_of(wheelhouse.folder(base()), wheelhouse.our_wheel())

    def tag_of(self, packages: Path, ours: Path) -> str:
        return f"dspy-operator/{self.target}:{cache.key(DOCKERFILE, base(), packages.name, ours.name)}"

    @property
    def stage(self) -> str:
        return f"dspy-operator/build-stage:{self.target}"

    def built(self) -> bool:
        identity = images.identity(self.by_content)
        whole = identity is not None and identity == images.identity(self.name)
        return whole and images.exists(_python_image())  # which it is weighed against

    def megabytes(self) -> float:
        return images.megabytes(self.name) - images.megabytes(_python_image())


# Measured with kubernetes 37, and with numpy 2.4 and dspy 3.4: README.md says what they weigh.
OPERATOR = OwnImage("operator", most_megabytes=120)
RUNNER = OwnImage("runner", most_megabytes=200)
OWN_IMAGES = (OPERATOR, RUNNER)


def base() -> str:
    return os.environ.get("DSPY_OPERATOR_IMAGE_BASE") or BASE.image


def fetch_wheels(log: Path) -> None:
    """For the Python that the base has."""
    _build_python(log)
    image = _python_image()
    asked = ["docker", "run", "--rm", "--network=none", "--entrypoint=python3", image, "-c", wheelhouse.QUESTION]
    wheelhouse.fetch(base(), wheelhouse.Interpreter.parsed(output_of(asked).strip(), base()), log)


def build(log: Path) -> None:
    """Both, one after the other, of the sources as they are now. Raises Failed where one is larger than it may be."""
    _build_python(log)
    ours = wheelhouse.build_our_wheel(log)
    packages = wheelhouse.folder(base())
    # One name, so that what a killed build has left is removed; under the lock nobody else is at work in it.
    context = paths.cache() / "context"
    shutil.rmtree(context, ignore_errors=True)
    try:
        shutil.copytree(packages, context, copy_function=images.link_or_copy)
        shutil.copytree(ours, context / "ours", copy_function=images.link_or_copy)
        for image in OWN_IMAGES:
            # The stage before the image has a tag, which keeps its layers for the next build while older ones are removed.
            for target, tag in ((f"{image.target}-code", image.stage), (image.target, image.name)):
                images.build(
                    context=context,
                    dockerfile=DOCKERFILE,
                    target=target,
                    tags=[tag],
                    arguments={"BASE": base(), "VERSION": wheelhouse.version()},
                    log=log,
                )
    finally:
        shutil.rmtree(context)
    images.remove_untagged()
    refuse_overweight(weights())
    for image in OWN_IMAGES:
        made = image.tag_of(packages, ours)
        run(["docker", "tag", image.name, made], log=log)
        images.keep_only(image.name, made)


def weights() -> dict[OwnImage, float]:
    """Megabytes over the base."""
    return {image: image.megabytes() for image in OWN_IMAGES}


def told(weights: dict[OwnImage, float]) -> str:
    """A line for each image."""
    return "\n".join(
        f"  {image.name:<40} {megabytes:6.1f} MB over its base, at most {image.most_megabytes}"
        for image, megabytes in weights.items()
    )


def refuse_overweight(weights: dict[OwnImage, float]) -> None:
    over = [image for image, megabytes in weights.items() if megabytes > image.most_megabytes]
    if over:
        raise Failed(
            f"{' and '.join(image.name for image in over)}: too large. `docker history` tells the layers, "
            f"e2e/cluster/own_images.py the most that is allowed:\n{told(weights)}"
        )


def _python_image() -> str:
    return f"dspy-operator/python:{cache.key(DOCKERFILE, base())}"


def _build_python(log: Path) -> None:
    """The base with a Python, which is the base itself where it brings one."""
    if base() == BASE.image:
        images.base(log)
    if images.exists(_python_image()):
        return
    with tempfile.TemporaryDirectory(prefix="dspy-operator-python-") as nothing:
        images.build(
            context=Path(nothing),
            dockerfile=DOCKERFILE,
            target="python",
            tags=[_python_image()],
            arguments={"BASE": base()},
            log=log,
        )
    images.keep_only(_python_image())
