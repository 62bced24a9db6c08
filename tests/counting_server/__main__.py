"""`python -m tests.counting_server --port 0 --script script.json --state-file counts.json`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from tests.counting_server import CountingServer


def main() -> None:
    """Serve until SIGTERM or SIGINT. The first line of stdout says on which port."""
    parser = argparse.ArgumentParser(prog="counting_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--script", type=Path, help="a JSON file, see script.py")
    parser.add_argument("--state-file", type=Path, help="keep the counts here, and go on from them")
    options = parser.parse_args()
    script = json.loads(options.script.read_text()) if options.script else {}
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before the server's thread exists, so that it inherits this
    with CountingServer(script, host=options.host, port=options.port, state_file=options.state_file) as server:
        sys.stdout.write(json.dumps({"port": server.port}) + "\n")
        sys.stdout.flush()
        signal.sigwait(signals)


if __name__ == "__main__":
    main()
