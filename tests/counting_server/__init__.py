"""A deterministic, OpenAI-compatible server for tests: it counts every call, and fails as its script says."""

from tests.counting_server.counts import CountsView, SeenRequest
from tests.counting_server.script import ScriptError
from tests.counting_server.server import CountingServer

__all__ = ["CountingServer", "CountsView", "ScriptError", "SeenRequest"]
