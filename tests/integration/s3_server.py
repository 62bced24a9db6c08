"""A real S3 server, Versity's gateway, on a port and a folder of its own: folders of it are buckets, files are objects."""

from __future__ import annotations

import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session

from e2e.cluster import s3
from tests.integration.listening import until_listening

REGION = "eu-central-1"
BUCKET = "tickets"


@dataclass(frozen=True)
class Credentials:
    """Of one user."""

    access_key: str
    secret_key: str

    def folder(self, at: Path, **changes: str | None) -> Path:
        """As a kubelet mounts their Secret; None leaves a key out."""
        keys = {"accessKeyID": self.access_key, "secretAccessKey": self.secret_key} | changes
        (at / "..data").mkdir(parents=True)
        for name, value in keys.items():
            if value is not None:
                (at / "..data" / name).write_text(f"{value}\n")
                (at / name).symlink_to(f"..data/{name}")
        return at


@dataclass
class S3Server:
    """One that runs."""

    url: str
    folder: Path
    owner: Credentials
    stranger: Credentials
    """A user who owns nothing."""
    process: subprocess.Popen[bytes]

    def put(self, key: str, content: bytes, bucket: str = BUCKET) -> None:
        """An object of the owner's."""
        self.client().put_object(Bucket=bucket, Key=key, Body=content)

    def make_public(self, bucket: str = BUCKET) -> None:
        """Whoever asks may read its objects."""
        self.client().put_bucket_policy(
            Bucket=bucket,
            Policy=f'{{"Statement":[{{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::{bucket}/*"}}]}}',
        )

    def log(self) -> str:
        """What it was asked."""
        return (self.folder / "access.log").read_text()

    def client(self) -> Any:
        """A client of the owner's."""
        return botocore.session.Session(session_vars={"profile": (None, None, None, None)}).create_client(
            "s3",
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id=self.owner.access_key,
            aws_secret_access_key=self.owner.secret_key,
        )


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """One with a bucket, for as long as the block runs."""
    if not s3.present():
        raise FileNotFoundError(f"{s3.folder()} is missing: run `python -m e2e.cluster programs` once")
    for name in ("buckets", "metadata", "users"):
        (folder / name).mkdir(parents=True)
    owner = Credentials("OWNER0000000", secrets.token_hex(16))
    stranger = Credentials("STRANGER0000", secrets.token_hex(16))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [
        *[str(s3.program()), f"--port=127.0.0.1:{port}", f"--region={REGION}", "--quiet"],
        *[f"--access={owner.access_key}", f"--secret={owner.secret_key}"],
        *[f"--iam-dir={folder}/users", f"--access-log={folder}/access.log"],
        *["posix", f"--sidecar={folder}/metadata", f"{folder}/buckets"],
    ]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdout=log, stderr=log)
    server = S3Server(url, folder, owner, stranger, process)
    try:
        until_listening(port, process, folder / "server.log")
        server.client().create_bucket(Bucket=BUCKET)
        _add_user(server, stranger)
        yield server
    finally:
        process.kill()
        process.wait()


def _add_user(server: S3Server, user: Credentials) -> None:
    admin = [str(s3.program()), "admin", f"--access={server.owner.access_key}", f"--secret={server.owner.secret_key}"]
    admin += [f"--endpoint-url={server.url}", f"--region={REGION}", "create-user"]
    admin += [f"--access={user.access_key}", f"--secret={user.secret_key}", "--role=user"]
    subprocess.run(admin, check=True, capture_output=True, timeout=60)
