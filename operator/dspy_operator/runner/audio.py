"""Audio on the wire of Chat Completions.

DSPy's native client refuses such a part there (lm15, openai_chat.py, MAP-10: "text and image_url only"), though the API has one,
`input_audio`. So it goes through the client as an image does, as a data URI, and is given its own form when the body is sent.
To be removed with a DSPy whose client sends it; tests/contract_dspy notices.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from dspy import lm15
from dspy._vendor.lm15.transports import StdlibTransport
from dspy._vendor.lm15.types import AudioPart, ImagePart

_FORMATS = {"wav": "wav", "mpeg": "mp3"}
"""Subtype of audio/... -> `format` of Chat Completions, which has these two."""
_HEAD = "data:audio/"


class Transport:
    """The client's own transport, whose requests hold audio in its place.

    Args:
        config: how the client's transport is made.
    """

    def __init__(self, config: lm15.RouterConfig) -> None:
        self._sent = StdlibTransport(**config.transport_kwargs())

    def stream(self, request: Any) -> Any:
        """As lm15's SyncTransport."""
        return self._sent.stream(
            replace(request, body=_with_audio(request.body)) if _HEAD.encode() in request.body else request
        )

    def close(self) -> None:
        """Close its connections."""
        self._sent.close()


def as_images(request: lm15.Request) -> lm15.Request:
    """The request as the native client lets it through: audio as images whose data is audio."""
    if not any(isinstance(part, AudioPart) for message in request.messages for part in message.parts):
        return request
    return replace(
        request,
        messages=tuple(
            replace(message, parts=tuple(_as_image(part) for part in message.parts)) for message in request.messages
        ),
    )


def _as_image(part: Any) -> Any:
    return ImagePart(data=part.data, media_type=part.media_type) if isinstance(part, AudioPart) else part


def _with_audio(body: bytes) -> bytes:
    document = json.loads(body)
    for message in document["messages"]:
        if isinstance(message["content"], list):
            message["content"] = [_audio(part) for part in message["content"]]
    return json.dumps(document).encode()


def _audio(part: dict[str, Any]) -> dict[str, Any]:
    url = part["image_url"]["url"] if part["type"] == "image_url" else ""
    if not url.startswith(_HEAD):
        return part
    head, _, data = url.partition(",")
    subtype = head.removeprefix(_HEAD).removesuffix(";base64")
    return {"type": "input_audio", "input_audio": {"data": data, "format": _FORMATS[subtype]}}
