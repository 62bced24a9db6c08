"""The same run, the same order of sets: Python's string hashes are fixed before anything else."""

from __future__ import annotations

import os
import sys

SEED = "0"


def fix_hash_seed() -> None:
    """Start this process again with PYTHONHASHSEED=0 unless it has it; the interpreter reads it only at its start."""
    if os.environ.get("PYTHONHASHSEED") == SEED:
        return
    os.environ["PYTHONHASHSEED"] = SEED
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
