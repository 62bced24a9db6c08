"""llama.cpp's HTTP server on 127.0.0.1: run by the server's own venv, never imported by the project.

Writes its address to stdout when the model is loaded; everything else goes to stderr. Ends when its parent does.
"""

import argparse
import ctypes
import os
import signal
import sys
import time

import xllamacpp  # type: ignore[import-not-found]

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with(parent: int) -> None:
    """SIGKILL for this process when its parent ends in any way: a server left behind keeps 2 cores and 1 GB."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        sys.exit("the process that started this server has gone")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-as", required=True)
    parser.add_argument("--port", type=int, required=True, help="0: a free one")
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--context", type=int, required=True, help="tokens, of all slots together")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cache-mib", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args()
    die_with(arguments.parent)

    params = xllamacpp.CommonParams()
    params.model.path = arguments.model
    params.model_alias = {arguments.served_as}
    params.hostnames = ["127.0.0.1"]
    params.port = arguments.port
    params.n_parallel = arguments.slots
    params.n_ctx = arguments.context
    params.cpuparams.n_threads = arguments.threads
    params.cache_ram_mib = arguments.cache_mib
    params.offline = True
    params.ui = False

    try:
        server = xllamacpp.Server(params)  # serves from threads of its own
    except RuntimeError:
        time.sleep(1)  # why is in its log, which it writes from a thread: an end now would cut it off
        raise
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main()
