"""The baseline of warm invocations: a bare ASGI application that answers the same bytes as the benchmark's function."""

from __future__ import annotations

from typing import Any

from bench.handler import ANSWER

_BODY = ANSWER.encode()
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())],
}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    await send(_START)
    await send({"type": "http.response.body", "body": _BODY})
