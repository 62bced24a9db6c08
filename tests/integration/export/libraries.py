"""Libraries that the product does not need and its files are read with, in folders of their own."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CACHE = Path(os.environ.get("DSPY_OPERATOR_CACHE") or Path.home() / ".cache" / "dspy-operator")


@functools.cache
def libraries(requirements: Path) -> Path:
    """A folder with the libraries and nothing of ours; made once, and again when the requirements or Python change."""
    made_of = hashlib.sha256(f"{sys.version}\n{requirements.read_text('utf-8')}".encode()).hexdigest()[:16]
    folder = CACHE / "exports" / made_of
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        uv = shutil.which("uv") or str(CACHE / "uv" / "bin" / "uv")
        with tempfile.TemporaryDirectory(dir=folder.parent) as making:
            target = Path(making) / "made"
            install = [uv, "pip", "install", "--python", sys.executable, "--target", str(target), "--compile-bytecode"]
            # Elsewhere than here, where pyproject.toml leaves out what DSPy wants and we do not.
            subprocess.run([*install, "--requirements", str(requirements)], check=True, cwd=making)
            with contextlib.suppress(OSError):  # another worker was faster
                target.rename(folder)
    return folder
