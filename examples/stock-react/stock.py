"""The tool of this example: POST /stock {"item": "hinge"} answers how many there are. Only for trying it out.

python examples/stock-react/stock.py [PORT]
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STOCK = {"hinge": 120, "bolt": 850, "washer": 2300, "bracket": 64, "hook": 15, "screw": 4100, "nail": 990, "dowel": 310}


class Stock(BaseHTTPRequestHandler):
    """One tool."""

    def do_POST(self) -> None:
        """Answer a number; what is unknown is said in words, which the model reads."""
        arguments = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        item = str(arguments.get("item", "")).strip().lower()
        found: object = STOCK.get(item, f"no item {item!r}; there are: {', '.join(STOCK)}")
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8095), Stock).serve_forever()
