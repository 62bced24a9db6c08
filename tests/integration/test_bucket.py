"""Rows from a bucket, against a real S3 server: what is given, what is refused and where, what is never told, and that it is asked once."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import RowsFile, S3Rows
from dspy_operator.runner import snapshot
from dspy_operator.runner.bucket import fetch_object
from dspy_operator.runner.prepare import read_parts
from tests.integration.file_server import Answer, file_server
from tests.integration.harness import OPTIMIZERS, Case, workplace
from tests.integration.s3_server import BUCKET, REGION, S3Server, s3_server
from tests.integration.test_bad_input import assert_clean
from tests.integration.test_fetch import a_pods_spec, validated_by_the_runner
from tests.integration.test_formats import as_json_lines
from tests.integration.test_validate import findings, validated

pytestmark = pytest.mark.measured

BOOTSTRAP, EVALUATE = OPTIMIZERS["BootstrapFewShot"], OPTIMIZERS["Evaluate"]
CONTENT = b'{"text": "a"}\n'
FIELD = "spec.dataset.source"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        server.put("2026/rows.jsonl", CONTENT)
        yield server


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses, and what a machine may say of AWS is not heard."""
    monkeypatch.setattr("dspy_operator.runner.snapshot.time.sleep", lambda seconds: None)
    for name, value in (
        ("AWS_PROFILE", "nobody"),
        ("AWS_ACCESS_KEY_ID", "OTHER"),
        ("AWS_SECRET_ACCESS_KEY", "other"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_DEFAULT_REGION", "us-west-2"),
    ):
        monkeypatch.setenv(name, value)


def fetched(folder: Path, s3: S3Rows, *, sha256: str | None = None) -> Path:
    path = folder / "rows" / "rows.jsonl"
    fetch_object(RowsFile(path=str(path), sha256=sha256, s3=s3), field=FIELD)
    return path


def an_object(server: S3Server, folder: Path, **changes: Any) -> S3Rows:
    """As its owner asks for it."""
    wanted = {
        "endpoint": server.url,
        "bucket": BUCKET,
        "key": "2026/rows.jsonl",
        "region": REGION,
        "credentials_secret": "bucket",
    }
    if "credentials_folder" not in changes:
        changes["credentials_folder"] = str(server.owner.folder(folder / "owner"))
    return S3Rows.model_validate(wanted | changes)


def failure(folder: Path, s3: S3Rows, **options: Any) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        fetched(folder, s3, **options)
    assert not (folder / "rows").is_dir() or not list((folder / "rows").iterdir()), "nothing is left"
    return failed.value


def test_what_is_there_is_not_asked_for_again(server: S3Server, tmp_path: Path) -> None:
    wanted = an_object(server, tmp_path)
    path = fetched(tmp_path, wanted)
    assert path.read_bytes() == CONTENT
    fetched(tmp_path, wanted.model_copy(update={"key": "nothing-of-the-kind"}))
    assert path.read_bytes() == CONTENT


def test_a_public_bucket_needs_no_secret(tmp_path: Path) -> None:
    with s3_server(tmp_path / "s3") as server:
        server.put("2026/rows.jsonl", CONTENT)
        wanted = an_object(server, tmp_path, credentials_folder=None, credentials_secret=None)
        failed = failure(tmp_path, wanted)
        assert (failed.reason, failed.path) == (Reason.DATASET_NOT_FOUND, f"{FIELD}.s3.bucket")
        assert "is not given to everybody, and there is no credentialsSecret (HTTP 403 AccessDenied)" in failed.message
        server.make_public()
        assert fetched(tmp_path, wanted).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("changes", "path", "want"),
    [
        pytest.param({"bucket": "no-such-bucket"}, "bucket", "there is no bucket no-such-bucket at URL (HTTP 404 NoSuchBucket)", id="no such bucket"),
        pytest.param({"key": "2025/rows.jsonl"}, "key", "bucket tickets at URL has no object 2025/rows.jsonl (HTTP 404 NoSuchKey)", id="no such object"),
        pytest.param({"region": "a" * 64}, "region", f'"{"a" * 64}" cannot be a region', id="no region at all"),
        pytest.param({"endpoint": "http://"}, "endpoint", "http:// is no URL of a server", id="no URL"),
    ],
)  # fmt: skip
def test_what_the_server_does_not_have_is_named(
    server: S3Server, tmp_path: Path, changes: dict[str, Any], path: str, want: str
) -> None:
    failed = failure(tmp_path, an_object(server, tmp_path, **changes))
    assert (failed.reason, failed.path) == (Reason.DATASET_NOT_FOUND, f"{FIELD}.s3.{path}")
    assert failed.message.startswith(want.replace("URL", server.url)) or want == failed.message


@pytest.mark.parametrize("region", ["us-west-2", None])
def test_a_region_that_is_not_the_buckets_is_corrected_where_the_server_says_it(
    server: S3Server, tmp_path: Path, region: str | None
) -> None:
    assert fetched(tmp_path, an_object(server, tmp_path, region=region)).read_bytes() == CONTENT


def test_another_region_is_named_where_it_cannot_be(server: S3Server, tmp_path: Path) -> None:
    body = b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>expecting elsewhere</Message></Error>"
    with file_server(lambda path, count: Answer(400, body)) as strict:
        failed = failure(tmp_path, an_object(server, tmp_path, endpoint=strict.url))
    assert (failed.reason, failed.path) == (Reason.DATASET_NOT_FOUND, f"{FIELD}.s3.region")
    assert failed.message.startswith(f"the request was signed for region {REGION}, which is not the bucket's")


def test_credentials_that_it_does_not_take_are_named_and_not_told(
    server: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "dspy_operator")
    owner, told = server.owner, []
    wrong_secret = owner.folder(tmp_path / "a", secretAccessKey="s3cr3t-wrong")
    nobody = owner.folder(tmp_path / "b", accessKeyID="NOBODY000000")
    for number, (folder, code) in enumerate(((wrong_secret, "SignatureDoesNotMatch"), (nobody, "InvalidAccessKeyId"))):
        at = tmp_path / str(number)
        failed = failure(at, an_object(server, at, credentials_folder=str(folder)))
        assert (failed.reason, failed.path) == (Reason.DATASET_NOT_FOUND, f"{FIELD}.s3.credentialsSecret.name")
        assert failed.message == f"the server does not take the credentials of Secret bucket (HTTP 403 {code})"
        told.append(failed.message)
    stranger = server.stranger.folder(tmp_path / "c")
    failed = failure(tmp_path, an_object(server, tmp_path, credentials_folder=str(stranger)))
    assert (failed.reason, failed.path) == (Reason.DATASET_NOT_FOUND, f"{FIELD}.s3.key")
    assert failed.message.startswith("Secret bucket is not allowed to read s3://tickets/2026/rows.jsonl")
    for text in (*told, failed.message, caplog.text):
        for hidden in ("s3cr3t", "NOBODY", owner.access_key, owner.secret_key, server.stranger.secret_key):
            assert hidden not in text


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        pytest.param({"accessKeyID": None, "secretAccessKey": None}, "Secret bucket does not exist or is empty", id="no key"),
        pytest.param({"secretAccessKey": None}, 'Secret bucket has no key "secretAccessKey", or an empty one (keys: accessKeyID)', id="one of two"),
        pytest.param({"accessKeyID": ""}, 'Secret bucket has no key "accessKeyID", or an empty one (keys: accessKeyID, secretAccessKey)', id="an empty one"),
        pytest.param({"secretAccessKey": "s3cr3t\nb"}, 'key "secretAccessKey" of Secret bucket has white space or control characters inside', id="two lines"),
        pytest.param({"secretAccessKey": "s3cr3t\u00e9"}, 'key "secretAccessKey" of Secret bucket cannot be read: it is not ASCII', id="not ASCII"),
    ],
)  # fmt: skip
def test_a_secret_without_credentials_is_named_without_its_values(
    tmp_path: Path, server: S3Server, changes: dict[str, str | None], want: str
) -> None:
    folder = server.owner.folder(tmp_path / "secret", **changes)
    failed = failure(tmp_path, an_object(server, tmp_path, credentials_folder=str(folder)))
    assert (failed.reason, failed.path) == (Reason.SECRET_MISSING, f"{FIELD}.s3.credentialsSecret.name")
    assert failed.message == want


def test_the_checksum_is_of_what_is_sent_and_gzip_stays_gzip(server: S3Server, tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT)
    server.client().put_object(Bucket=BUCKET, Key="packed", Body=packed, ContentEncoding="gzip")
    wanted = an_object(server, tmp_path, key="packed")
    failed = failure(tmp_path, wanted, sha256="0" * 64)
    assert (failed.reason, failed.path) == (Reason.INVALID_DATASET, f"{FIELD}.s3.sha256")
    right = hashlib.sha256(packed).hexdigest()
    assert failed.message == f"s3://tickets/packed at {server.url} sends a file with SHA-256 {right}, wanted {'0' * 64}"
    assert fetched(tmp_path, wanted, sha256=right).read_bytes() == packed


def test_more_than_the_bound_is_refused(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MAX_BYTES", 1024**2)
    server.put("large", os.urandom(3 * 1024**2))
    failed = failure(tmp_path, an_object(server, tmp_path, key="large"))
    assert (failed.reason, failed.path) == (Reason.INVALID_DATASET, f"{FIELD}.s3.key")
    assert failed.message.endswith("sends more than 1 MiB")


def test_what_may_be_over_in_a_moment_is_tried_again(server: S3Server, tmp_path: Path) -> None:
    """The real server does not fail on demand: this one speaks as much of S3 as a GET needs."""
    trouble = {1: Answer(503), 2: Answer(429), 3: Answer(body=CONTENT[:5], cut=True), 4: Answer(500)}
    with file_server(lambda path, count: trouble.get(count, Answer(body=CONTENT))) as failing:
        wanted = an_object(server, tmp_path, endpoint=failing.url)
        assert fetched(tmp_path, wanted).read_bytes() == CONTENT
        assert [path for path, _ in failing.asked] == ["/tickets/2026/rows.jsonl"] * 5
    with file_server(lambda path, count: Answer(503)) as down:
        failed = failure(tmp_path / "down", wanted.model_copy(update={"endpoint": down.url}))
    assert (failed.reason, failed.path) == (Reason.ENDPOINT_UNAVAILABLE, f"{FIELD}.s3.endpoint")
    assert failed.message.endswith("does not answer: HTTP 503, 5 times")
    nobody = failure(tmp_path / "nobody", wanted.model_copy(update={"endpoint": down.url}))
    assert nobody.message.endswith("does not answer: EndpointConnectionError, 5 times")


# --- through the CLI --------------------------------------------------------------------------------------------------


def in_a_bucket(server: S3Server, key: str, **more: Any) -> dict[str, Any]:
    s3 = {"endpoint": server.url, "bucket": BUCKET, "key": key, "region": REGION} | more
    return {"dataset": {"source": {"type": "S3", "s3": s3}}}


def test_rows_of_a_bucket_run_to_the_same_revision_and_are_fetched_once(server: S3Server, tmp_path: Path) -> None:
    content = gzip.compress(as_json_lines(Case(BOOTSTRAP).rows()).encode())
    server.put("tickets.jsonl.gz", content)
    secret = server.owner.folder(tmp_path / "secret")
    with workplace(tmp_path / "config-map", Case(BOOTSTRAP)) as place:
        first = place.run()
    program = in_a_bucket(
        server, "tickets.jsonl.gz", sha256=hashlib.sha256(content).hexdigest(), credentialsSecret={"name": "bucket"}
    )
    with workplace(tmp_path / "s3-run", Case(BOOTSTRAP, program=program)) as place:
        done = place.run("--secret", f"bucket={secret}")
        assert done.code == 0, done.stderr
        server.put("tickets.jsonl.gz", b"other rows")
        again = place.run("--secret", f"bucket={secret}", "--resume")
        verified = place.verify()
        told = [path.read_bytes() for path in place.folder.rglob("*") if path.is_file()]
    assert (first.code, again.code, verified.code) == (0, 0, 0), again.stderr + verified.stderr
    assert done.result["candidate"] == first.result["candidate"] == again.result["candidate"]
    assert done.result["dataset"] == first.result["dataset"]
    hidden = server.owner.secret_key.encode()
    assert not any(hidden in each for each in (*told, done.stdout.encode(), done.stderr.encode()))


def test_each_part_may_have_an_object_of_its_own(server: S3Server, tmp_path: Path) -> None:
    rows = Case(EVALUATE).rows()
    server.put("dev.jsonl", as_json_lines(rows[:24]).encode())
    server.put("held-out.jsonl.gz", gzip.compress(as_json_lines(rows[24:]).encode()))
    secret = server.owner.folder(tmp_path / "secret")
    program = in_a_bucket(server, "dev.jsonl", credentialsSecret={"name": "bucket"})
    of_test = in_a_bucket(server, "held-out.jsonl.gz", credentialsSecret={"name": "bucket"})["dataset"]["source"]
    program["dataset"]["split"] = {"type": "Sources", "sources": {"test": of_test}}
    folder = Case(EVALUATE, program=program).write(tmp_path / "manifests")
    done = validated(folder, "--secret", f"bucket={secret}")
    assert done.code == 0, done.stderr
    assert "36 rows (12 train, 12 validation, 12 test)" in done.stdout
    server.client().delete_object(Bucket=BUCKET, Key="held-out.jsonl.gz")
    done = validated(folder, "--secret", f"bucket={secret}")
    assert "spec.dataset.split.sources.test.s3.key: bucket tickets" in done.stderr


def test_an_object_that_is_not_there_is_told_by_its_field_and_nothing_is_paid(server: S3Server, tmp_path: Path) -> None:
    secret = server.owner.folder(tmp_path / "secret")
    program = in_a_bucket(server, "absent.csv", credentialsSecret={"name": "bucket"})
    with workplace(tmp_path / "run", Case(EVALUATE, program=program)) as place:
        done = place.run("--secret", f"bucket={secret}")
        assert done.code == 41
        assert "spec.dataset.source.s3.key: bucket tickets" in done.stderr
        assert_clean(place, done)


def test_a_secret_that_was_not_given_is_asked_for(server: S3Server, tmp_path: Path) -> None:
    program = in_a_bucket(server, "2026/rows.jsonl", credentialsSecret={"name": "bucket"})
    with workplace(tmp_path / "run", Case(EVALUATE, program=program)) as place:
        done = place.run()
        assert done.code == 47
        assert "here --secret bucket=FOLDER gives its keys, each a file" in done.stderr
        assert_clean(place, done)
        code, found = findings(place.manifests)
    assert code == 0
    assert [(each["severity"], each["reason"], each["path"]) for each in found] == [
        ("warning", "SecretMissing", "spec.dataset.source.s3.credentialsSecret.name")
    ]


# --- in a pod ---------------------------------------------------------------------------------------------------------


def test_the_runner_keeps_a_snapshot_in_its_volume_and_refuses_other_rows_than_were_validated(
    server: S3Server, tmp_path: Path
) -> None:
    content = as_json_lines(Case(EVALUATE).rows()).encode()
    server.put("pod.jsonl", content)
    s3 = an_object(server, tmp_path, key="pod.jsonl")
    spec = a_pods_spec(tmp_path, "http://127.0.0.1:9/", http=None, s3=s3)
    code, first = validated_by_the_runner(tmp_path, spec)
    assert (code, first["dataset"]["rows"]) == (0, 36)
    server.put("pod.jsonl", as_json_lines(Case(EVALUATE, dev=20).rows()).encode())
    assert validated_by_the_runner(tmp_path, spec)[1]["dataset"] == first["dataset"], "what is there stays"
    digest = read_parts(spec)[1].digest
    Path(spec.dataset.path).unlink()
    pinned = spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"digest": digest})})
    code, result = validated_by_the_runner(tmp_path, pinned)
    assert (code, result["reason"], result["path"]) == (41, "InvalidDataset", "spec.dataset.source")
    server.put("pod.jsonl", content)
    assert validated_by_the_runner(tmp_path, pinned)[0] == 0, "and the next try asks again"


def test_an_object_in_csv_is_the_same_dataset(server: S3Server, tmp_path: Path) -> None:
    rows = Case(EVALUATE).rows()
    server.put(
        "rows.csv",
        "".join(
            ["text,label,part\r\n", *(f'"{row["text"]}",{row["label"]},{row["part"]}\r\n' for row in rows)]
        ).encode(),
    )
    server.put("rows.jsonl", as_json_lines(rows).encode())
    found = []
    for name, format_ in (("rows.csv", "CSV"), ("rows.jsonl", "JSONL")):
        s3 = an_object(server, tmp_path / name, key=name)
        spec = a_pods_spec(tmp_path / name, "http://127.0.0.1:9/", http=None, s3=s3, format=format_)
        found.append(read_parts(spec)[1].digest)
    assert found[0] == found[1]
