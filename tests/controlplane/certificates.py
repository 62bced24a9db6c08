"""The few keys that a control plane needs, made by the `openssl` command (elliptic curves: all of them in 50 ms)."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    authority: Path
    server: Path
    server_key: Path
    # Signs and verifies ServiceAccount tokens.
    account_key: Path


def make(folder: Path) -> Certificates:
    """An authority, the API server's certificate for 127.0.0.1, and a key for tokens; all valid for a day."""
    authority, authority_key = folder / "ca.crt", folder / "ca.key"
    made = Certificates(authority, folder / "server.crt", folder / "server.key", folder / "account.key")
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc"
    _openssl(*new, "-subj", "/CN=control-plane-test", "-keyout", str(authority_key), "-out", str(authority))
    _openssl(
        *[*new, "-subj", "/CN=kube-apiserver", "-addext", names, "-addext", "basicConstraints=critical,CA:FALSE"],
        *["-CA", str(authority), "-CAkey", str(authority_key)],
        *["-keyout", str(made.server_key), "-out", str(made.server)],
    )
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(made.account_key))
    return made


def _openssl(*words: str) -> None:
    ended = subprocess.run(["openssl", *words], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"openssl {' '.join(words)} ended with {ended.returncode}:\n{ended.stderr}")
