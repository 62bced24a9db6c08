"""Brings rows from an S3 bucket into the run's own volume, once, as `fetch` does from a web server.

The server's own words are never told: they may quote what a request was signed with. Nothing of the machine's AWS
configuration is read, neither variables nor files: what decides is in the manifest and its Secret.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    InvalidRegionError,
    ResponseStreamingError,
)
from botocore.exceptions import ConnectionError as NotConnected

from dspy_operator.contract.exits import Reason, RunFailed
from dspy_operator.contract.runspec import RowsFile, S3Rows
from dspy_operator.runner.snapshot import (
    CHUNK_BYTES,
    CONNECT_SECONDS,
    STEP_SECONDS,
    Place,
    TryAgain,
    keep,
    retry_after,
    secret_files,
)

ACCESS_KEY, SECRET_KEY, TOKEN = "accessKeyID", "secretAccessKey", "sessionToken"
"""Keys of the Secret; the last one only where the credentials are temporary."""
DEFAULT_REGION = "us-east-1"
"""What a request is signed for where nothing says so; servers other than AWS take it, and AWS says where a bucket is."""

_NO_BUCKET = frozenset({"NoSuchBucket", "InvalidBucketName"})
_BAD_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "TokenRefreshRequired"}
)
_OTHER_REGION = frozenset(
    {"AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException"}
)


def fetch_object(file: RowsFile, *, field: str) -> None:
    """Make sure that `file.path` holds the object; one that is there is not asked for again.

    Args:
        file: with `s3`.
        field: path of the source's field.
    Raises:
        RunFailed: DatasetNotFound when the server does not give it, EndpointUnavailable when it does not answer; SecretMissing
            when the credentials are not there; InvalidDataset and JournalFull as of `snapshot.keep`.
    """
    path, s3 = Path(file.path), file.s3
    if s3 is None or path.is_file():
        return
    at = f"{field}.s3"
    server = f"{at}.endpoint" if s3.endpoint else f"{at}.bucket"
    place = Place(_shown(s3), server=server, file=f"{at}.key", sha256=f"{at}.sha256")
    client = _client(s3, field=field)

    def chunks() -> Iterator[bytes]:
        try:
            body = client.get_object(Bucket=s3.bucket, Key=s3.key)["Body"]
            try:
                yield from body.iter_chunks(CHUNK_BYTES)
            finally:
                body.close()
        except ClientError as error:
            _refused(error, s3, field=field)
        except (NotConnected, HTTPClientError, IncompleteReadError, ResponseStreamingError) as error:
            raise TryAgain(type(error).__name__) from error
        except BotoCoreError as error:
            why = f"{_shown(s3)} cannot be asked for: {type(error).__name__}"
            raise RunFailed(Reason.DATASET_NOT_FOUND, why, path=f"{field}.s3") from error

    try:
        keep(path, place, chunks, sha256=file.sha256)
    finally:
        client.close()


def _client(s3: S3Rows, *, field: str) -> Any:
    keys = _credentials(s3, field=field)
    settings = {
        name: (None, None, os.devnull if name in ("config_file", "credentials_file") else default, as_type)
        for name, (_, _, default, as_type) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }
    session = botocore.session.Session(session_vars=settings)
    # Given, so that it looks nowhere else, not at a machine's metadata server either.
    session.set_credentials(keys.get(ACCESS_KEY, "-"), keys.get(SECRET_KEY, "-"), keys.get(TOKEN))
    config = Config(
        signature_version="s3v4" if keys else UNSIGNED,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=STEP_SECONDS,
        retries={"total_max_attempts": 1, "mode": "standard"},  # snapshot.keep tries again
        s3={"addressing_style": "path" if s3.endpoint else "auto"},
        ignore_configured_endpoint_urls=True,
        response_checksum_validation="when_required",  # sha256 is ours
    )
    try:
        return session.create_client(
            "s3",
            region_name=s3.region or DEFAULT_REGION,
            endpoint_url=s3.endpoint,
            config=config,
        )
    except InvalidRegionError as error:
        why = f'"{s3.region}" cannot be a region'
        raise RunFailed(Reason.DATASET_NOT_FOUND, why, path=f"{field}.s3.region") from error
    except ValueError as error:
        why = f"{s3.endpoint} is no URL of a server"
        raise RunFailed(Reason.DATASET_NOT_FOUND, why, path=f"{field}.s3.endpoint") from error


def _credentials(s3: S3Rows, *, field: str) -> dict[str, str]:
    """Of the Secret; none where there is no Secret: the request is not signed then."""
    if s3.credentials_folder is None:
        return {}
    at = f"{field}.s3.credentialsSecret.name"
    found = secret_files(s3.credentials_folder, s3.credentials_secret, field=at)
    for name in (ACCESS_KEY, SECRET_KEY):
        if not found.get(name):
            has = ", ".join(sorted(found))
            why = f'Secret {s3.credentials_secret} has no key "{name}", or an empty one (keys: {has})'
            raise RunFailed(Reason.SECRET_MISSING, why, path=at)
    for name in (ACCESS_KEY, SECRET_KEY, TOKEN):
        if not found.get(name, "-").isprintable() or " " in found.get(name, "-"):
            why = f'key "{name}" of Secret {s3.credentials_secret} has white space or control characters inside'
            raise RunFailed(Reason.SECRET_MISSING, why, path=at)
    return found


def _refused(error: ClientError, s3: S3Rows, *, field: str) -> NoReturn:
    """What an answer other than the object means, by its status and code."""
    told = error.response.get("ResponseMetadata", {})
    status, headers = told.get("HTTPStatusCode", 0), told.get("HTTPHeaders", {})
    code = str(error.response.get("Error", {}).get("Code", ""))[:64]
    said = f"HTTP {status}" if not code or code == str(status) else f"HTTP {status} {code}"
    if status == 429 or status >= 500:
        raise TryAgain(said, retry_after(headers.get("retry-after"))) from None
    where = f"at {s3.endpoint}" if s3.endpoint else "at AWS"
    if code in _NO_BUCKET:
        why, at = f"there is no bucket {s3.bucket} {where} ({said})", "bucket"
    elif code == "NoSuchKey" or (status == 404 and code not in _NO_BUCKET):
        why, at = f"bucket {s3.bucket} {where} has no object {s3.key} ({said})", "key"
    elif code in _BAD_CREDENTIALS:
        why = f"the server does not take the credentials of Secret {s3.credentials_secret} ({said})"
        at = "credentialsSecret.name"
    elif code in _OTHER_REGION or status == 301:
        wanted = error.response.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")
        here = f"; the server says {wanted}" if wanted else ""
        why, at = f"the request was signed for region {s3.region or DEFAULT_REGION}, which is not the bucket's{here} ({said})", "region"  # fmt: skip
    elif status in (401, 403) and s3.credentials_secret is None:
        why = f"{_shown(s3)} is not given to everybody, and there is no credentialsSecret ({said})"
        at = "bucket"
    elif status in (401, 403):
        why = f"Secret {s3.credentials_secret} is not allowed to read {_shown(s3)}, or it does not exist ({said})"
        at = "key"
    else:
        why, at = f"{_shown(s3)}: the server answers {said}", "key"
    raise RunFailed(Reason.DATASET_NOT_FOUND, why, path=f"{field}.s3.{at}") from None


def _shown(s3: S3Rows) -> str:
    return f"s3://{s3.bucket}/{s3.key}" + (f" at {s3.endpoint}" if s3.endpoint else "")
