"""Streamed responses for Python functions, seen in the sandbox as ``/var/runtime/awslambda.py``. AWS has the like for Node.js only.

Two ways to stream. A handler that is a generator, or an async one: what it yields, text or bytes, goes out at once.

    def handler(event, context):
        for word in ("one ", "two "):
            yield word

Or a handler that is given a stream to write to, as in Node.js:

    import awslambda

    @awslambda.streamify_response
    def handler(event, response_stream, context):
        response_stream = awslambda.HttpResponseStream.from_(response_stream, {"statusCode": 200})
        response_stream.write("hello")

A write returns when the platform has taken the bytes; it waits while the caller is slower than the function. What is raised before the
first byte is an ordinary error of the function; after it, the stream ends with the error.

This file stands alone: the standard library is all that it imports, and it runs on CPython 3.8 to 3.14.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import threading
import types
from typing import Any, Callable, Iterable, Mapping, TypeVar  # noqa: UP035  (3.8)

__all__ = ["HttpResponseStream", "ResponseStream", "streamify_response"]

HTTP_INTEGRATION = "application/vnd.awslambda.http-integration-response"
DEFAULT_CONTENT_TYPE = "application/octet-stream"
GENERATORS = (types.GeneratorType, types.AsyncGeneratorType)

Function = TypeVar("Function", bound=Callable[..., Any])


def unseen(function: Function) -> Function:
    """Keep ``function`` out of stack traces: AWS's runtime leaves out what stands at their beginning and in a file of this name."""
    function.__code__ = function.__code__.replace(co_filename="/var/runtime/bootstrap.py")
    return function


class Transport:
    """Where a stream's bytes go; the runtime client fills it in."""

    def start(self, content_type: str, data: bytes) -> None:
        """The first bytes."""
        raise NotImplementedError

    def chunk(self, data: bytes) -> None:
        raise NotImplementedError


class Streamed:
    """What a handler that has streamed leaves for the runtime client instead of a result."""

    def __init__(self, content_type: str) -> None:
        self.content_type = content_type


class ResponseStream:
    """A writable, file-like response. ``content_type`` may be set until the first write."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._content_type = DEFAULT_CONTENT_TYPE
        self._lock = threading.Lock()
        self.started = False
        self.closed = False

    @property
    def content_type(self) -> str:
        return self._content_type

    @content_type.setter
    def content_type(self, value: str) -> None:
        if self.started:
            raise ValueError("the content type cannot be set after the first write")
        self._content_type = " ".join(str(value).split())

    def set_content_type(self, value: str) -> None:
        self.content_type = value

    def write(self, data: Any) -> int:
        """Send ``data``, text or bytes; gives its length. Raises ``TypeError`` for anything else, ``ValueError`` after the end."""
        if isinstance(data, str):
            encoded = data.encode()
        elif isinstance(data, (bytes, bytearray, memoryview)):
            encoded = bytes(data)
        else:
            raise TypeError("a streamed response is made of str or bytes, not %s" % type(data).__name__)  # noqa: UP031
        if isinstance(data, _Prelude):
            self.content_type = HTTP_INTEGRATION
        with self._lock:
            if self.closed:
                raise ValueError("write after the end of the response")
            if not self.started:
                self.started = True
                self._transport.start(self._content_type, encoded)
            elif encoded:
                self._transport.chunk(encoded)
        return len(data)

    def writelines(self, lines: Iterable[Any]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing is held back, so there is nothing to do."""

    def writable(self) -> bool:
        return not self.closed

    def end(self, data: Any = None) -> None:
        """Write ``data``, if any, and take no more."""
        if data is not None:
            self.write(data)
        with self._lock:
            self.closed = True

    close = end

    def __enter__(self) -> ResponseStream:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()


class _Prelude(bytes):
    """The head of an HTTP response, for function URLs and API Gateway."""


class HttpResponseStream:
    """Status, headers and cookies in front of a streamed body."""

    @staticmethod
    def from_(stream: ResponseStream, prelude: Mapping[str, Any]) -> ResponseStream:
        """Send ``prelude`` (``statusCode``, ``headers``, ``cookies``) as the first thing on ``stream``; gives the stream back."""
        if stream.started:
            raise ValueError("the prelude must come before the first write")
        stream.write(HttpResponseStream.prelude(prelude))
        return stream

    @staticmethod
    def prelude(prelude: Mapping[str, Any]) -> bytes:
        """The same as something that a generator yields first."""
        return _Prelude(json.dumps(dict(prelude)).encode() + b"\0" * 8)


open_stream: Callable[[], ResponseStream] | None = None
"""Set by the runtime client: the stream of the running invocation."""


def streamify_response(handler: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """Make ``handler(event, response_stream, context)``, a function or a coroutine function, a handler. What it returns is ignored."""

    @functools.wraps(handler)
    @unseen
    def streaming(event: Any, context: Any) -> Streamed:
        if open_stream is None:
            raise RuntimeError("a streaming handler was called outside of an invocation")
        stream = open_stream()
        result = handler(event, stream, context)
        if inspect.iscoroutine(result):
            asyncio.run(result)
        return finish(stream)

    return streaming


@unseen
def drain(generator: Any) -> Streamed:
    """Stream what ``generator`` yields, and end the stream."""
    assert open_stream is not None
    stream = open_stream()
    if isinstance(generator, types.AsyncGeneratorType):
        asyncio.run(_drain(stream, generator))
    else:
        for data in generator:
            stream.write(data)
    return finish(stream)


@unseen
async def _drain(stream: ResponseStream, generator: Any) -> None:
    async for data in generator:
        stream.write(data)


def finish(stream: ResponseStream) -> Streamed:
    if not stream.started:
        stream.write(b"")
    stream.end()
    return Streamed(stream.content_type)
