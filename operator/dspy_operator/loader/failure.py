"""Why a model is not served: Ollama's words, sorted into reasons that people and the operator know."""

from __future__ import annotations

import re

from dspy_operator.api.reasons import EndpointReason

_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
# makeRequestWithRetry of server/images.go turns a registry's 404 into os.ErrNotExist, whose words are the first.
_NO_SUCH_MODEL = re.compile(r"pull model manifest: (file does not exist|404)|invalid model name", re.IGNORECASE)

# "read tcp 10.1.0.7:41234->10.0.0.9:5000": the local port is another one at each attempt, and each would be news.
_LOCAL_ADDRESS = re.compile(r"\S+:\d+->")


class Failure(Exception):
    """The model cannot be served now; the loader tries again."""

    def __init__(self, reason: EndpointReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def of_pull(model: str, words: str) -> Failure:
    """Of a pull that Ollama gave up.

    Args:
        model: as the registry knows it, registry included.
    """
    if _NO_SPACE.search(words):
        reason = EndpointReason.STORAGE_FULL
    elif _NO_SUCH_MODEL.search(words):
        reason = EndpointReason.MODEL_NOT_FOUND
    else:
        reason = EndpointReason.PULL_FAILED
    return Failure(reason, f"pull of {model}: {_LOCAL_ADDRESS.sub('', words)}")


def of_load(model: str, words: str) -> Failure:
    """Of a model that is on disk and does not get into memory, or does not answer."""
    reason = EndpointReason.STORAGE_FULL if _NO_SPACE.search(words) else EndpointReason.LOAD_FAILED
    return Failure(reason, f"load of {model}: {words}")
