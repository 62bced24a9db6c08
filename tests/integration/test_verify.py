"""`verify` replays with the network denied, and a journal that is not as it was written is found out."""

from __future__ import annotations

import json
import random
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.runner.journal import Journal, decode_line, encode_line
from tests.integration.acceptance import LONG, Reference, reference, resumed_to_the_same, revision_files, unanswered
from tests.integration.harness import OPTIMIZERS, Case, Ended, ended, intruder, start_cli, workplace

FLIPS = range(2000 if LONG else 200)
"""Seeds of the flipped bits that the journal's reader has to find; two of them go through the CLI."""
Lines = list[dict[str, Any]]
SLICE = ("MIPROv2", "GEPA", "SIMBA")
"""Every optimizer's run is verified in test_run, too: with a network, that a verification could use."""


@pytest.mark.parametrize("optimizer", OPTIMIZERS if LONG else SLICE)
def test_verify_comes_to_the_same_digest_without_the_network(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, optimizer: str
) -> None:
    whole = reference(tmp_path_factory.getbasetemp(), optimizer)
    folder = copied(whole, tmp_path / "run")
    before = contents(folder)
    verified = verify(folder, environment=intruder(denied=tmp_path / "attempts"))
    assert verified.code == 0, verified.stderr
    said = re.fullmatch(
        r"verified: (v1:[0-9a-f]{64}), (\d+) calls replayed in \d+\.\d s \((\d+)/s\), none sent\n", verified.stdout
    )
    assert said is not None, verified.stdout
    assert said[1] == whole.result["candidate"]
    assert int(said[2]) >= whole.requests and int(said[3]) > 0
    assert not (tmp_path / "attempts").exists(), (tmp_path / "attempts").read_text()
    assert contents(folder) == before, "verify changed the run's folder"


def test_the_network_is_denied_where_the_tests_say_so(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(OPTIMIZERS["Evaluate"])) as place:
        process = place.start(environment=intruder(denied=tmp_path / "attempts"))
        ended(process, place.run_folder)
        assert place.server.counts()["requests"] == 0
        assert "socket." in (tmp_path / "attempts").read_text()


@pytest.mark.parametrize(
    ("optimizer", "where", "mark"),
    [
        pytest.param("MIPROv2", "baseline", "mark 0 (evaluate)", id="in the baseline"),
        pytest.param(
            "GEPA", "last evaluation", r"mark \d+ (evaluate)", id="in the last evaluation of the optimization"
        ),
        pytest.param("BootstrapFewShot", "judgement", "the mark of a judgement", id="in the judgement"),
    ],
)
def test_a_scored_answer_edited_by_hand_is_found_with_its_mark_and_row(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, optimizer: str, where: str, mark: str
) -> None:
    whole = reference(tmp_path_factory.getbasetemp(), optimizer)
    folder = copied(whole, tmp_path / "run")
    with edited(folder / "journal.jsonl") as lines:
        answer = scored_answer(lines, whole, where)
        row = int(re.findall(r"item(\d+) thing", json.dumps(request_of(lines, answer)))[-1]) + 1
        text = text_part(answer)
        right = text["text"]
        text["text"] = swapped(right)
        assert text["text"] != right
    verified = verify(folder)
    assert verified.code == 48, verified.stderr
    pattern = mark.replace("(", r"\(").replace(")", r"\)")
    assert re.search(
        rf"^ReplayDiverged: {pattern}.*: line {row} scores ([01]) now and scored (?!\1)[01] when it was recorded",
        verified.stderr,
    ), verified.stderr


@pytest.mark.parametrize("what", ["a bootstrapped demonstration", "a proposed instruction"])
def test_an_edited_answer_that_becomes_a_prompt_is_found_with_the_difference(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, what: str
) -> None:
    whole = reference(tmp_path_factory.getbasetemp(), "MIPROv2")
    folder = copied(whole, tmp_path / "run")
    with edited(folder / "journal.jsonl") as lines:
        if what == "a proposed instruction":
            answer = used_proposal(lines)
            text_part(answer)["text"] = text_part(answer)["text"].replace("read the text", "READ THE TEXT")
        else:
            answer = used_demonstration(lines)
            text_part(answer)["text"] = swapped(text_part(answer)["text"])
    verified = verify(folder)
    assert verified.code == 48, verified.stderr
    assert re.match(
        r"ReplayDiverged: before mark \d+ of \d+: a request that the journal does not hold", verified.stderr
    )
    assert "the nearest recorded request differs in:\n@@" in verified.stderr
    assert ("+system:" if what == "a proposed instruction" else "\n+") in verified.stderr
    if what == "a proposed instruction":
        assert "READ THE TEXT" in verified.stderr


def test_any_flipped_bit_is_found_with_its_line(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = reference(tmp_path_factory.getbasetemp(), "BootstrapFewShot")
    content = (whole.run_folder / "journal.jsonl").read_bytes()
    path = tmp_path / "journal.jsonl"
    ends = [len(content) - back for back in range(1, 21)]  # the last line's checksum and its newline, bit by bit
    places = [(offset, bit) for offset in ends for bit in range(8)]
    places += [(random.Random(seed).randrange(len(content)), random.Random(-seed).randrange(8)) for seed in FLIPS]
    for offset, bit in places:
        path.write_bytes(flipped(content, offset, bit))
        line = content[:offset].count(b"\n") + 1
        with pytest.raises(RunFailed) as found:
            Journal(path, read_only=True)
        assert found.value.reason is Reason.JOURNAL_CORRUPT, (offset, bit)
        assert f"journal.jsonl, line {line}: " in found.value.message, (offset, bit)


@pytest.mark.parametrize("command", ["verify", "--resume"])
def test_a_flipped_bit_ends_with_49_and_the_line(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, command: str
) -> None:
    whole = reference(tmp_path_factory.getbasetemp(), "BootstrapFewShot")
    with workplace(tmp_path, Case(OPTIMIZERS["BootstrapFewShot"])) as place:
        copied(whole, place.run_folder)
        journal = place.run_folder / "journal.jsonl"
        content = journal.read_bytes()
        offset = random.Random(command).randrange(len(content))
        journal.write_bytes(flipped(content, offset, 3))
        done = place.verify() if command == "verify" else place.run("--resume")
        assert done.code == 49, done.stderr
        line = content[:offset].count(b"\n") + 1
        assert f"JournalCorrupt: {journal}, line {line}: " in done.stderr and "Traceback" not in done.stderr
        assert place.server.counts()["requests"] == 0
        assert journal.read_bytes() == flipped(content, offset, 3), "a corrupt journal is evidence: it stays as it is"


@pytest.mark.parametrize("cut", [1, 17, 300], ids=lambda cut: f"{cut} bytes short")
def test_a_torn_last_line_is_dropped_with_a_notice(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    whole = reference(tmp_path_factory.getbasetemp(), "BootstrapFewShot")
    with workplace(tmp_path, Case(OPTIMIZERS["BootstrapFewShot"])) as place:
        copied(whole, place.run_folder)
        journal = place.run_folder / "journal.jsonl"
        lines = journal.read_bytes().splitlines(keepends=True)
        last = max(number for number, line in enumerate(lines) if decode_line(line[:-1])["kind"] == "done")
        journal.write_bytes(b"".join(lines[: last + 1])[:-cut])
        done = place.run("--resume")
        assert done.code == 0, done.stderr
        notices = [line["message"] for line in done.logs if line["level"] == "warning"]
        assert len(notices) == 1 and "last line was cut off" in notices[0]
        assert done.result["candidate"] == whole.result["candidate"]
        assert revision_files(place.run_folder) == whole.files()
        assert place.server.counts()["requests"] == 1, "the one answer that the torn line held"
        assert place.verify().code == 0


def test_a_run_of_an_exhausted_budget_verifies(tmp_path: Path) -> None:
    with workplace(tmp_path, Case(OPTIMIZERS["GEPA"], budget={"calls": 70})) as place:
        done = place.run()
        assert done.code == 44, done.stderr
        verified = place.verify()
        assert verified.code == 0, verified.stderr
        assert done.result["candidate"] in verified.stdout


@pytest.mark.parametrize("lacks", ["result.json", "journal.jsonl", "an end"])
def test_a_run_that_is_not_whole_is_refused_in_words(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, lacks: str
) -> None:
    folder = copied(reference(tmp_path_factory.getbasetemp(), "BootstrapFewShot"), tmp_path / "run")
    if lacks == "an end":
        result = json.loads((folder / "result.json").read_bytes())
        (folder / "result.json").write_text(json.dumps(result | {"reason": "Stopped", "exit": 51}))
    else:
        (folder / lacks).unlink()
    refused = verify(folder)
    want = {
        "result.json": "no finished run",
        "journal.jsonl": "there is no journal",
        "an end": "not finished (Stopped)",
    }
    assert refused.code == 52 and refused.stderr.startswith("VerifyFailed: ")
    assert want[lacks] in refused.stderr


def test_a_full_journal_ends_with_50_and_resumes_with_more_room(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = reference(tmp_path_factory.getbasetemp(), "BootstrapFewShot")
    size = (whole.run_folder / "journal.jsonl").stat().st_size

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    with workplace(tmp_path, Case(OPTIMIZERS["BootstrapFewShot"])) as place:
        full = ended(place.start(prepare=little_room), place.run_folder)
        is_full(full)
        full_again = ended(place.start("--resume", prepare=little_room), place.run_folder)
        is_full(full_again)
        lost = unanswered(place)
        assert lost <= 2 * place.case.concurrency
        resumed_to_the_same(place, whole, lost)


def test_a_full_volume_ends_with_50_and_resumes_with_more_room(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, volume: Callable[[Path, str], None]
) -> None:
    whole = reference(tmp_path_factory.getbasetemp(), "BootstrapFewShot")
    with workplace(tmp_path, Case(OPTIMIZERS["BootstrapFewShot"])) as place:
        volume(place.out, "size=96k")
        full = place.run()
        assert full.code == 50, (full.stdout[-2000:], full.stderr)
        assert re.search("JournalFull: .*volume is full", full.stderr) and "Traceback" not in full.stderr
        sent, lost = place.server.counts()["requests"], unanswered(place)
        assert lost <= place.case.concurrency

        # As full as before: there is not even room for run.json, so nothing is sent.
        still_full = place.run("--resume")
        assert still_full.code in {50, 64} and re.search("No space left|volume is full", still_full.stderr)
        assert "Traceback" not in still_full.stderr and place.server.counts()["requests"] == sent
        volume(place.out, "remount,size=4m")
        resumed_to_the_same(place, whole, lost)


@pytest.fixture
def volume() -> Iterator[Callable[[Path, str], None]]:
    """Mounts a small tmpfs, where this user may."""
    mounted: list[Path] = []

    def mount(folder: Path, options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no tmpfs for this user: {done.stderr.strip()}")
        if folder not in mounted:
            mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def is_full(done: Ended) -> None:
    """JournalFull as a person sees it, and as result.json has it."""
    assert done.code == 50, (done.stdout[-2000:], done.stderr)
    assert "JournalFull: the journal's volume is full" in done.stderr and "Traceback" not in done.stderr
    assert (done.result["reason"], done.result["exit"]) == ("JournalFull", 50)


def copied(whole: Reference, folder: Path) -> Path:
    """A copy of a reference run's folder, which `verify` has to take for what it is: its run.json names the original."""
    shutil.copytree(whole.run_folder, folder)
    return folder


def verify(folder: Path, **how: Any) -> Ended:
    """`dspy-operator verify FOLDER`."""
    return ended(start_cli("verify", str(folder), **how), folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def edited(path: Path) -> Iterator[Lines]:
    """The journal's lines, to be changed; written back with right checksums."""
    lines = [decode_line(line) for line in path.read_bytes().splitlines()]
    yield lines
    path.write_bytes(b"".join(encode_line(line) for line in lines))


def flipped(content: bytes, offset: int, bit: int) -> bytes:
    """The same with one bit the other way."""
    return content[:offset] + bytes([content[offset] ^ (1 << bit)]) + content[offset + 1 :]


def text_part(answer: dict[str, Any]) -> dict[str, Any]:
    """Where an answer's text is in its `done` line."""
    parts: list[dict[str, Any]] = answer["response"]["message"]["parts"]
    return next(part for part in parts if "text" in part)


def swapped(text: str) -> str:
    """The other label."""
    return re.sub("positive|negative", lambda label: {"positive": "negative", "negative": "positive"}[label[0]], text)


def request_of(lines: Lines, answer: dict[str, Any]) -> dict[str, Any]:
    """What was asked."""
    found: dict[str, Any] = next(
        line["request"] for line in lines if line["kind"] == "start" and line["key"] == answer["key"]
    )
    return found


def scored_answer(lines: Lines, whole: Reference, where: str) -> dict[str, Any]:
    """An answer that one evaluation scored: a label, in the last answers before its mark."""
    marks = [number for number, line in enumerate(lines) if line["kind"] == "mark"]
    kinds = {"baseline": "evaluate", "last evaluation": "evaluate", "judgement": "judge"}
    of_kind = [number for number in marks if lines[number]["mark"] == kinds[where]]
    mark = of_kind[0] if where == "baseline" else of_kind[-1]
    return next(
        line
        for line in reversed(lines[:mark])
        if line["kind"] == "done" and re.search(r"## label ## \]\]\n(positive|negative)", text_part(line)["text"])
    )


def used_proposal(lines: Lines) -> dict[str, Any]:
    """The answer that became an instruction of a later request."""
    asked = " ".join(json.dumps(line["request"]) for line in lines if line["kind"] == "start" and "request" in line)
    return next(
        line
        for line in lines
        if line["kind"] == "done"
        and (found := re.search(r"## proposed_instruction ## \]\]\n(.*?variant (\w+)\).*)", text_part(line)["text"]))
        and asked.count(f"objective is: \\n        {found[1]}") >= 1
    )


def used_demonstration(lines: Lines) -> dict[str, Any]:
    """The first answer of MIPROv2's bootstrap that was right, and so became a demonstration."""
    baseline = next(number for number, line in enumerate(lines) if line["kind"] == "mark")
    return next(
        line
        for line in lines[baseline:]
        if line["kind"] == "done"
        and (label := re.search(r"## label ## \]\]\n(positive|negative)", text_part(line)["text"]))
        and right_label(request_of(lines, line)) == label[1]
    )


def right_label(request: dict[str, Any]) -> str:
    """What the harness's rows expect."""
    number = int(re.findall(r"item(\d+) thing", json.dumps(request))[-1])
    return "positive" if number % 2 else "negative"
