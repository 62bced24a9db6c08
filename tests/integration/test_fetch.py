"""Rows from a web server: what is tried again, what is refused, what is never told, and that it is asked once."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dspy_operator.cli.local import Options, prepare_program
from dspy_operator.cli.manifests import read_manifests
from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import HTTPRows, RowsFile, RunSpec
from dspy_operator.runner import snapshot
from dspy_operator.runner.fetch import fetch
from dspy_operator.runner.prepare import read_parts
from tests.integration.file_server import Answer, file_server
from tests.integration.harness import OPTIMIZERS, Case, workplace
from tests.integration.test_bad_input import assert_clean
from tests.integration.test_formats import as_json_lines
from tests.integration.test_validate import findings

BOOTSTRAP, EVALUATE = OPTIMIZERS["BootstrapFewShot"], OPTIMIZERS["Evaluate"]
CONTENT = b'{"text": "a"}\n'
SECRET = "Bearer s3cr3t-t0ken"
FIELD = "spec.dataset.source"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspy_operator.runner.snapshot.time.sleep", lambda seconds: None)


def fetched(folder: Path, url: str, *, sha256: str | None = None, headers: Path | None = None) -> Path:
    path = folder / "rows" / "data.jsonl"
    http = HTTPRows(url=url, headers_folder=str(headers) if headers else None, headers_secret="team-a/token")
    fetch(RowsFile(path=str(path), sha256=sha256, http=http), field=FIELD)
    return path


def failure(folder: Path, url: str, **options: Any) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        fetched(folder, url, **options)
    assert not (folder / "rows").is_dir() or not list((folder / "rows").iterdir()), "nothing is left"
    return failed.value


def a_secret(folder: Path, **headers: str) -> Path:
    """As a kubelet mounts it."""
    (folder / "secret" / "..data").mkdir(parents=True)
    for name, value in headers.items():
        (folder / "secret" / "..data" / name).write_text(f"{value}\n")
        (folder / "secret" / name).symlink_to(f"..data/{name}")
    return folder / "secret"


def test_what_is_there_is_not_asked_for_again(tmp_path: Path) -> None:
    with file_server(lambda path, count: Answer(body=CONTENT)) as server:
        path = fetched(tmp_path, f"{server.url}/a.jsonl")
        assert path.read_bytes() == CONTENT
        fetched(tmp_path, f"{server.url}/a.jsonl")
        assert len(server.asked) == 1


def test_what_may_be_over_in_a_moment_is_tried_again(tmp_path: Path) -> None:
    trouble = {
        1: Answer(503),
        2: Answer(429, headers={"Retry-After": "1"}),
        3: Answer(body=CONTENT[:5], cut=True),
        4: Answer(502),
        5: Answer(body=CONTENT),
    }
    with file_server(lambda path, count: trouble[count]) as server:
        assert fetched(tmp_path, server.url + "/a").read_bytes() == CONTENT
        assert len(server.asked) == 5


def test_retry_after_is_honoured_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("dspy_operator.runner.snapshot.time.sleep", pauses.append)
    answers = {1: Answer(429, headers={"Retry-After": "20"}), 2: Answer(503, headers={"Retry-After": "86400"})}
    with file_server(lambda path, count: answers.get(count, Answer(body=CONTENT))) as server:
        fetched(tmp_path, server.url + "/a")
    assert pauses == [20.0, 30.0]


@pytest.mark.parametrize(
    ("status", "asked", "reason", "want"),
    [
        (404, 1, Reason.DATASET_NOT_FOUND, "/a.jsonl answers HTTP 404"),
        (403, 1, Reason.DATASET_NOT_FOUND, "/a.jsonl answers HTTP 403"),
        (500, 5, Reason.ENDPOINT_UNAVAILABLE, "/a.jsonl does not answer: HTTP 500, 5 times"),
    ],
)
def test_a_server_that_does_not_give_it_is_named(
    tmp_path: Path, status: int, asked: int, reason: Reason, want: str
) -> None:
    with file_server(lambda path, count: Answer(status, b"<html>secret page</html>")) as server:
        failed = failure(tmp_path, f"{server.url}/a.jsonl?signature=xyz")
        assert len(server.asked) == asked
    assert (failed.reason, failed.path) == (reason, f"{FIELD}.http.url")
    assert want in failed.message
    assert "xyz" not in failed.message and "secret page" not in failed.message


def test_nobody_at_the_address_is_told(tmp_path: Path) -> None:
    with file_server(lambda path, count: Answer()) as server:
        url = server.url
    failed = failure(tmp_path, url)
    assert failed.reason is Reason.ENDPOINT_UNAVAILABLE
    assert "does not answer: ConnectError: " in failed.message and failed.message.endswith("5 times")


def test_the_checksum_is_of_what_is_sent(tmp_path: Path) -> None:
    right = hashlib.sha256(CONTENT).hexdigest()
    with file_server(lambda path, count: Answer(body=CONTENT)) as server:
        failed = failure(tmp_path, server.url + "/a", sha256="0" * 64)
        assert (failed.reason, failed.path) == (Reason.INVALID_DATASET, f"{FIELD}.http.sha256")
        assert failed.message == f"{server.url}/a sends a file with SHA-256 {right}, wanted {'0' * 64}"
        fetched(tmp_path, server.url + "/a", sha256=right)


def test_more_than_the_bound_is_refused_whatever_the_server_says_of_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "MAX_BYTES", 1024**2)
    with file_server(lambda path, count: Answer(body=bytes(3 * 1024**2))) as server:
        failed = failure(tmp_path, server.url + "/a")
    assert (failed.reason, failed.path) == (Reason.INVALID_DATASET, f"{FIELD}.http.url")
    assert failed.message.endswith("/a sends more than 1 MiB")


def test_what_is_sent_in_gzip_stays_in_gzip(tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT)
    with file_server(lambda path, count: Answer(body=packed, headers={"Content-Encoding": "gzip"})) as server:
        assert fetched(tmp_path, server.url + "/a").read_bytes() == packed
        assert server.asked[0][1]["accept-encoding"] == "identity"


def test_redirects_are_followed_but_not_for_ever(tmp_path: Path) -> None:
    def answers(path: str, count: int) -> Answer:
        if path == "/loop":
            return Answer(302, headers={"Location": "/loop"})
        return Answer(302, headers={"Location": "/b"}) if path == "/a" else Answer(body=CONTENT)

    with file_server(answers) as server:
        assert "redirects more than 5 times" in failure(tmp_path, server.url + "/loop").message
        assert fetched(tmp_path, server.url + "/a").read_bytes() == CONTENT


def test_headers_of_a_secret_are_sent_to_its_origin_and_to_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "dspy_operator")
    secret = a_secret(tmp_path, **{"Authorization": SECRET, "X-Team": "a"})
    with file_server(lambda path, count: Answer(body=CONTENT)) as stranger:

        def answers(path: str, count: int) -> Answer:
            if path == "/away":
                return Answer(302, headers={"Location": f"{stranger.url}/b"})
            return Answer(503) if count == 1 else Answer(body=CONTENT)

        with file_server(answers) as server:
            failed = failure(tmp_path, server.url + "/away", headers=secret)
            assert "where the headers of headersSecret must not go" in failed.message
            assert stranger.asked == []
            fetched(tmp_path, server.url + "/a", headers=secret)
            assert {(each["authorization"], each["x-team"]) for _, each in server.asked} == {(SECRET, "a")}
    assert caplog.records, "a second attempt is told"
    assert "s3cr3t" not in caplog.text and "s3cr3t" not in failed.message


@pytest.mark.parametrize(
    ("headers", "want"),
    [
        pytest.param({}, "Secret team-a/token does not exist or is empty", id="no key"),
        pytest.param({"Bad name": "s3cr3t"}, 'key "Bad name" of Secret team-a/token is no header', id="no token"),
        pytest.param({"X": "s3cr3t\nY: z"}, 'key "X" of Secret team-a/token is no header', id="two lines"),
        pytest.param({"X": "s3cr3t\u00e9"}, 'key "X" of Secret team-a/token cannot be read: it is not ASCII', id="not ASCII"),
    ],
)  # fmt: skip
def test_a_secret_that_holds_no_headers_is_named_without_its_values(
    tmp_path: Path, headers: dict[str, str], want: str
) -> None:
    with file_server(lambda path, count: Answer(body=CONTENT)) as server:
        failed = failure(tmp_path, server.url, headers=a_secret(tmp_path, **headers))
        assert server.asked == []
    assert (failed.reason, failed.path) == (Reason.SECRET_MISSING, f"{FIELD}.http.headersSecret.name")
    assert failed.message.startswith(want) and "s3cr3t" not in failed.message


# --- through the CLI ------------------------------------------------------------------------------------------------


def over_http(url: str, **more: Any) -> dict[str, Any]:
    return {"dataset": {"source": {"type": "HTTP", "http": {"url": url, **more}}}}


def test_rows_of_a_url_run_to_the_same_revision_and_are_fetched_once(tmp_path: Path) -> None:
    content = gzip.compress(as_json_lines(Case(BOOTSTRAP).rows()).encode())
    more = gzip.compress(as_json_lines(Case(BOOTSTRAP, dev=30).rows()).encode())
    secret = a_secret(tmp_path, Authorization=SECRET)
    with workplace(tmp_path / "config-map", Case(BOOTSTRAP)) as place:
        first = place.run()
    with file_server(lambda path, count: Answer(body=content if count == 1 else more)) as server:
        program = over_http(
            f"{server.url}/tickets.jsonl.gz", sha256=hashlib.sha256(content).hexdigest(), headersSecret={"name": "token"}
        )  # fmt: skip
        with workplace(tmp_path / "http", Case(BOOTSTRAP, program=program)) as place:
            done = place.run("--secret", f"token={secret}")
            assert done.code == 0, done.stderr
            again = place.run("--secret", f"token={secret}", "--resume")
            verified = place.verify()
            told = [path.read_bytes() for path in place.folder.rglob("*") if path.is_file()]
        assert [path for path, _ in server.asked] == ["/tickets.jsonl.gz"]
        assert server.asked[0][1]["authorization"] == SECRET
    assert (first.code, again.code, verified.code) == (0, 0, 0), again.stderr + verified.stderr
    assert done.result["candidate"] == first.result["candidate"] == again.result["candidate"]
    assert done.result["dataset"] == first.result["dataset"]
    assert not any(b"s3cr3t" in each for each in (*told, done.stdout.encode(), done.stderr.encode()))


def test_a_url_without_rows_is_told_by_its_line_and_nothing_is_paid(tmp_path: Path) -> None:
    with file_server(lambda path, count: Answer(404)) as server:
        program = over_http(f"{server.url}/tickets.jsonl")
        with workplace(tmp_path, Case(EVALUATE, program=program)) as place:
            done = place.run()
            assert done.code == 41
            assert "spec.dataset.source.http.url: " in done.stderr
            assert "/tickets.jsonl answers HTTP 404" in done.stderr
            assert_clean(place, done)


def test_a_secret_that_was_not_given_is_asked_for(tmp_path: Path) -> None:
    program = over_http("http://127.0.0.1:9/tickets.jsonl", headersSecret={"name": "token"})
    with workplace(tmp_path / "run", Case(EVALUATE, program=program)) as place:
        done = place.run()
        assert done.code == 47
        assert "here --secret token=FOLDER gives its keys, each a file" in done.stderr
        assert_clean(place, done)
        code, found = findings(place.manifests)
    assert code == 0
    assert [(each["severity"], each["reason"], each["path"]) for each in found] == [
        ("warning", "SecretMissing", "spec.dataset.source.http.headersSecret.name")
    ]


# --- in a pod -------------------------------------------------------------------------------------------------------


def a_pods_spec(folder: Path, url: str, **changes: Any) -> RunSpec:
    """run.json of a validation whose rows come from a URL into the pod's own volume."""
    manifests = read_manifests([Case(EVALUATE).write(folder / "manifests")])
    spec = prepare_program(Options([], folder / "out"), manifests, next(iter(manifests.programs.values()))).spec
    path = folder / "work" / "rows" / "data.jsonl"
    dataset = spec.dataset.model_copy(update={"path": str(path), "http": HTTPRows(url=url), **changes})
    return spec.model_copy(update={"dataset": dataset})


def validated_by_the_runner(folder: Path, spec: RunSpec) -> tuple[int, dict[str, Any]]:
    (folder / "run.json").write_text(json.dumps(spec.document()))
    command = [sys.executable, "-m", "dspy_operator.runner", str(folder / "run.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    result: dict[str, Any] = json.loads((Path(spec.paths.out) / "result.json").read_bytes())
    return done.returncode, result


def test_the_runner_fetches_into_its_volume_and_reads_that_ever_after(tmp_path: Path) -> None:
    content = as_json_lines(Case(EVALUATE).rows()).encode()
    with file_server(lambda path, count: Answer(body=content)) as server:
        spec = a_pods_spec(tmp_path, server.url + "/data.jsonl")
        first, again = validated_by_the_runner(tmp_path, spec), validated_by_the_runner(tmp_path, spec)
        assert len(server.asked) == 1
    assert (first[0], again[0]) == (0, 0)
    assert first[1]["dataset"]["rows"] == 36
    assert first[1]["dataset"] == again[1]["dataset"]
    assert Path(spec.dataset.path).read_bytes() == content


def test_other_rows_than_were_validated_are_refused_and_asked_for_again_the_next_time(tmp_path: Path) -> None:
    right = as_json_lines(Case(EVALUATE).rows()).encode()
    wrong = as_json_lines(Case(EVALUATE, dev=20).rows()).encode()
    with file_server(lambda path, count: Answer(body=wrong if count == 1 else right)) as server:
        spec = a_pods_spec(tmp_path, server.url + "/data.jsonl")
        local = spec.dataset.model_copy(update={"http": None, "path": str(tmp_path / "right.jsonl")})
        Path(local.path).write_bytes(right)
        digest = read_parts(spec.model_copy(update={"dataset": local}))[1].digest
        spec = spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"digest": digest})})
        code, result = validated_by_the_runner(tmp_path, spec)
        assert (code, result["reason"], result["path"]) == (41, "InvalidDataset", "spec.dataset.source")
        assert result["message"].startswith("the rows changed since they were validated")
        assert validated_by_the_runner(tmp_path, spec)[0] == 0
        assert len(server.asked) == 2


def test_a_secret_that_is_absent_is_a_typed_exit(tmp_path: Path) -> None:
    http = HTTPRows(url="http://127.0.0.1:9/", headers_folder=str(tmp_path / "absent"), headers_secret="token")
    code, result = validated_by_the_runner(tmp_path, a_pods_spec(tmp_path, "http://127.0.0.1:9/", http=http))
    assert (code, result["reason"]) == (47, "SecretMissing")
    assert result["message"] == "Secret token does not exist or is empty"
