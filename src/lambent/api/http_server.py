"""The HTTP/1.1 server: httptools' parser on uvloop, and nothing between it and the request path.

A warm invocation is so short that an ASGI server's own work (a task, an event, two messages each way, a regular expression per header)
was a third of it, so the parser's callbacks build an ``HttpRequest`` here and the answer leaves in one write; decision 0002 has the
figures. Requests go to ``handle``, a coroutine function. An invocation is run *eagerly*: its coroutine is stepped right here as far as it
gets, which is until the event is with the function, and stepped on when the answer comes. All others are tasks.

What a server that faces strangers must bound:

* the request line and headers together (AWS: 1 MB): 431, and the connection is closed;
* what stands around a body, sizes of chunks and trailers: as much as a head, and ``AROUND`` times the body: 431; trailers are not read;
* the body: a declared length over the limit is refused before a byte of it is read; a chunked one as soon as it is over: 413;
* time: a head has ``HEAD_SECONDS`` to arrive, each pause in a body ``BODY_SECONDS``, an idle connection ``IDLE_SECONDS``;
* requests that are sent ahead of their answers (pipelining): ``AHEAD``, then the connection is not read any more;
* answers that are not fetched: a streamed body waits until the client has read, and so does the next request.

A body that is too large to hold (``streams`` says of which requests) is not collected: its request runs as soon as the head is there and
reads the body as it comes (``incoming.py``), within the limits that its operation has. The client is told to continue when the first byte
is asked for, so that what is refused by its head alone is never sent. A body that was not read to its end closes the connection.

A client that closes its sending half after a whole request still gets its answer. A client that goes away cancels nothing: what was
accepted runs to its end (contract 02 §2.3).
"""

from __future__ import annotations

import asyncio
import email.utils
import http
import logging
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any, cast

import httptools

from lambent.api.incoming import Incoming
from lambent.clock import Clock, Timer
from lambent.errors import ClientFault
from lambent.invoke.job import Reply
from lambent.wire.body import BodyStream
from lambent.wire.http import HttpRequest, HttpResponse
from lambent.wire.router import Router

log = logging.getLogger("lambent.api")

HEAD_SECONDS = 20.0
BODY_SECONDS = 60.0
IDLE_SECONDS = 75.0
LINGER_SECONDS, LINGER_BYTES = 5.0, 4 * 2**20
AHEAD = 16
AROUND = 16  # a client may send its body in chunks of a byte, six bytes each
INSIDE = "sandbox"  # the source address of what comes through a sandbox's door

Handle = Callable[[HttpRequest, str], Coroutine[Any, Any, HttpResponse]]
"""``(request, source ip)`` -> the answer. Raises nothing."""

_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in http.HTTPStatus}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_NAMES: dict[bytes, str] = {}  # of headers, as clients write them, which they do in few ways
_NAMES_MOST, _NAME_LENGTH = 1_000, 64


def _name(raw: bytes) -> str:
    name = raw.decode("latin-1").lower()
    if len(_NAMES) < _NAMES_MOST and len(raw) <= _NAME_LENGTH:
        _NAMES[raw] = name
    return name


def _about(request: HttpRequest) -> str:
    """What a refused body was for, as far as a head alone tells."""
    try:
        operation, _ = Router().route(request, None)
    except ClientFault:
        return ""
    return f" for the {operation.name} operation" if operation.service == "lambda" else ""


class _Eager:
    """Steps a coroutine without a task: now, and whenever the future that it waits for is done."""

    __slots__ = ("_coroutine", "_done")

    def __init__(self, coroutine: Coroutine[Any, Any, HttpResponse], done: Callable[[HttpResponse], None]) -> None:
        self._coroutine = coroutine
        self._done = done
        self._step()

    def _step(self, _: Any = None) -> None:
        try:
            future = self._coroutine.send(None)
        except StopIteration as stop:
            self._done(stop.value)
            return
        future._asyncio_future_blocking = False  # the handshake that a task makes, too
        if type(future) is Reply:
            future.at_once = self._step
        else:
            future.add_done_callback(self._step)


class Connection(asyncio.Protocol):
    """One client. Timers are one per connection: ``_due`` moves with every event, the timer looks at it when it fires."""

    def __init__(self, server: HttpServer, inside: bool = False) -> None:
        self._server = server
        self._inside = inside
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._source_ip = ""
        self._due = 0.0
        self._watch: Timer | None = None
        self._waiting: deque[tuple[HttpRequest, bool]] = deque()
        self._busy = False
        self._closing = False  # no further request will be answered
        self._discarded = 0
        self._keep = True  # the connection stays open after the answer
        self._is_head = False
        self._writable: asyncio.Event | None = None
        self._pump: asyncio.Task[None] | None = None
        self._incoming: Incoming | None = None  # the body that comes in while its request runs
        self._expects = False
        self._clogged = False  # the client does not read what was answered
        self._unsent = 0
        self._new_request()

    # ------------------------------------------------------------------------------------------------------ the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's transports are none of asyncio's classes
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._source_ip = INSIDE if self._inside else peer[0] if isinstance(peer, tuple) and peer else ""
        self._server.connections.add(self)
        self._due = self._server.clock.monotonic() + HEAD_SECONDS
        self._watch = self._server.clock.call_later(LINGER_SECONDS, self._look)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            self._discard(len(data))
            return
        in_head = self._in_head
        if in_head:
            self._head_bytes += len(data)
        else:
            self._around += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(400, "BadRequest", "The connection cannot be upgraded.")
        except httptools.HttpParserError:
            self._fail(400, "BadRequest", "The request is not HTTP/1.1.")
        if self._closing:
            return
        beyond = self._head_bytes if self._in_head else self._around - AROUND * self._body_bytes
        if beyond > self._server.head_limit:
            self._fail(431, "RequestHeaderFieldsTooLarge", "The request line and headers together exceed the limit.")
        elif (not self._busy or self._incoming is not None) and (not in_head or not self._in_head):
            self._due = self._server.clock.monotonic() + BODY_SECONDS

    def _discard(self, size: int) -> None:
        """What comes after a refusal, for a client that sends first and listens later; one that never stops is hung up on."""
        self._discarded += size
        if self._discarded > LINGER_BYTES and self._transport is not None:
            self._transport.abort()

    def eof_received(self) -> bool:
        self._closing = True
        if self._incoming is not None:
            self._incoming.fail()
        return self._busy or bool(self._waiting)  # then answers are still wanted; the transport closes after the last

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._waiting.clear()
        if self._incoming is not None:
            self._incoming.fail()
        self._server.connections.discard(self)
        if self._watch is not None:
            self._watch.cancel()
        if self._pump is not None:
            self._pump.cancel()
        self._transport = None

    def pause_writing(self) -> None:
        self._clogged = True
        if self._writable is not None:
            self._writable.clear()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
        self._clogged = False
        if not self._busy and self._transport is not None:
            self._next()

    # --------------------------------------------------------------------------------------------------------- the parser

    def _new_request(self) -> None:
        self._in_head = True
        self._head_bytes = 0  # as they arrive, which bounds what the parser holds
        self._head_size = 0  # of what it has parsed, which is exact
        self._url = b""
        self._headers: dict[str, str] = {}
        self._repeated: dict[str, list[str]] = {}
        self._body: bytes | bytearray = b""
        self._body_bytes = 0
        self._around = 0  # bytes after the head that are none of the body

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: whoever checked the head has not seen it
        key = _NAMES.get(name) or _name(name)
        text = value.decode("latin-1")
        self._head_size += len(key) + len(text) + 4
        headers = self._headers
        if key in headers:
            self._repeated.setdefault(key, [headers[key]]).append(text)
        else:
            headers[key] = text

    def on_headers_complete(self) -> None:
        self._in_head = False
        for name, texts in self._repeated.items():
            self._headers[name] = ",".join(texts)
        if self._head_size + len(self._url) > self._server.head_limit:
            self._fail(431, "RequestHeaderFieldsTooLarge", "The request line and headers together exceed the limit.")
            return
        declared = self._headers.get("content-length", "")
        if (
            self._parser.get_method() == b"PUT"
            and not (self._busy or self._clogged or self._waiting)
            and self._server.streams(self._request(b""))
        ):
            self._run_ahead(declared)
        elif declared.isdigit() and int(declared) > self._server.body_limit:
            self._refuse_body()
        elif self._headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(_CONTINUE)

    def _run_ahead(self, declared: str) -> None:
        """Run a request whose body is read as it comes."""
        stated = self._headers.get("x-amz-decoded-content-length", declared)
        self._expects = self._headers.get("expect", "").lower() == "100-continue"
        self._incoming = Incoming(self)
        request = self._request(b"")
        request.stream = BodyStream(self._incoming, int(stated) if stated.isascii() and stated.isdigit() and len(stated) < 19 else None)
        self._run(request, self._parser.should_keep_alive())

    def want_body(self) -> None:
        if self._expects and self._transport is not None:
            self._expects = False
            self._transport.write(_CONTINUE)

    def hold(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def let_flow(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def on_body(self, body: bytes) -> None:
        self._around -= len(body)
        self._body_bytes += len(body)
        if self._incoming is not None:
            self._incoming.feed(body)
        elif self._body_bytes > self._server.body_limit:
            self._refuse_body()
        elif not self._closing:
            if self._body:
                self._hold_more(body)
            else:
                self._body = body

    def _hold_more(self, body: bytes) -> None:
        """Most come in one piece; of many small ones the objects would be larger than what is in them."""
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body) + body
        else:
            self._body += body

    def on_message_complete(self) -> None:
        if self._incoming is not None and not self._incoming.complete:
            self._incoming.finish()
            self._new_request()
            return
        if self._closing:
            return
        request = self._request(bytes(self._body))
        keep = self._parser.should_keep_alive()
        self._new_request()
        if self._busy or self._clogged or self._waiting:
            self._waiting.append((request, keep))
            if len(self._waiting) >= AHEAD and self._transport is not None:
                self._transport.pause_reading()
        else:
            self._run(request, keep)

    def _request(self, body: bytes) -> HttpRequest:
        path, _, query = self._url.decode("latin-1").partition("?")
        if path[:4].lower() == "http":  # the absolute form, as a proxy is asked
            path = "/" + path.partition("://")[2].partition("/")[2]
        return HttpRequest(self._parser.get_method().decode("latin-1"), path, query, self._headers, body)

    # -------------------------------------------------------------------------------------------------- requests, answers

    def _run(self, request: HttpRequest, keep: bool) -> None:
        self._busy = True
        self._server.busy += 1
        self._keep = keep
        self._is_head = request.method == "HEAD"
        coroutine = self._server.handle(request, self._source_ip)
        if request.path.endswith("/invocations"):
            _Eager(coroutine, self._answer)
        else:
            self._server.run(coroutine, self._answer)

    def _answer(self, response: HttpResponse) -> None:
        body = response.body
        if self._incoming is not None and not self._incoming.complete:
            self._keep = False
        if isinstance(body, bytes):
            if self._transport is not None:
                head = self._head(response, None if response.status == 204 or (self._is_head and _has_length(response)) else len(body))
                self._transport.write(head if self._is_head else head + body)
            self._answered()
        else:
            self._pump = asyncio.get_running_loop().create_task(self._stream(response, body))
            self._pump.add_done_callback(partial(self._streamed, body))
            if self._transport is None:
                self._pump.cancel()

    async def _stream(self, response: HttpResponse, body: AsyncIterator[bytes]) -> None:
        """A body in chunks, as fast as the client reads and the source gives."""
        transport = self._transport
        assert transport is not None  # a client that goes away cancels this task
        self._writable = asyncio.Event()
        self._writable.set()
        chunked = not _has_length(response)
        transport.write(self._head(response, None, chunked=chunked))
        async for chunk in body:
            if chunk:
                transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
            await self._writable.wait()
        if chunked:
            transport.write(b"0\r\n\r\n")

    def _streamed(self, body: AsyncIterator[bytes], pump: asyncio.Task[None]) -> None:
        """A streamed body is through, or its client gone, or its source broken: then the client must see that it is cut."""
        self._writable = None
        self._pump = None
        close = getattr(body, "close", None)
        if close is not None:
            close()
        if not pump.cancelled() and (error := pump.exception()) is not None:
            log.error("a streamed answer broke off", exc_info=error)
            self._keep = False
            if self._transport is not None:
                self._transport.abort()
                self._transport = None
        self._answered()

    def _answered(self) -> None:
        self._busy = False
        self._server.release()
        incoming, self._incoming = self._incoming, None
        if self._transport is None:
            return
        if incoming is not None and not incoming.complete and not self._closing:
            self._linger()
            return
        if not self._keep or self._server.is_closing or (self._closing and not self._waiting):
            self._closing = True
            self._transport.close()
            return
        self._due = self._server.clock.monotonic() + IDLE_SECONDS
        self._unsent = self._transport.get_write_buffer_size()
        if self._waiting:  # not from within the answer before
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """The next request that waits, unless the client has yet to read what it was answered."""
        if self._waiting and not self._clogged and not self._busy:
            request, keep = self._waiting.popleft()
            if not self._closing and self._transport is not None:
                self._transport.resume_reading()
            self._run(request, keep)

    def _head(self, response: HttpResponse, length: int | None, chunked: bool = False) -> bytes:
        lines = [_STATUS.get(response.status) or f"HTTP/1.1 {response.status} \r\n", self._server.date]
        for name, value in response.headers:
            lines.append(f"{name}: {value}\r\n")
        if length is not None:
            lines.append(f"content-length: {length}\r\n")
        if chunked:
            lines.append("transfer-encoding: chunked\r\n")
        if not self._keep or self._server.is_closing:
            lines.append("connection: close\r\n")
        lines.append("\r\n")
        head = "".join(lines)
        if head.count("\n") != len(lines) or head.count("\r") != len(lines):  # a value with a line break would be a header of its own
            head = "".join(line[:-2].replace("\r", " ").replace("\n", " ") + "\r\n" for line in lines)
        return head.encode("latin-1", "replace")

    def _refuse_body(self) -> None:
        limit, about = self._server.body_limit, _about(self._request(b""))
        self._fail(413, "RequestEntityTooLargeException", f"Request must be smaller than {limit} bytes{about}")

    def _fail(self, status: int, code: str, message: str) -> None:
        """Answer what cannot be answered by the request path, and close. Answers under way are left to finish first."""
        if self._closing:
            return
        self._closing = True
        if self._transport is None:
            return
        if self._busy or self._waiting:
            self._keep = False
            if self._incoming is not None:
                self._incoming.fail()
            return
        self._keep = False
        body = f'{{"Type":"User","message":"{message}"}}'.encode()
        response = HttpResponse(status, [("content-type", "application/json"), ("x-amzn-errortype", code)])
        self._transport.write(self._head(response, len(body)) + body)
        self._linger()

    def _linger(self) -> None:
        """What is still on its way is read and thrown away for a while: closing on it would reset the connection, answer and all."""
        self._closing = True
        if self._transport is not None:
            self._transport.resume_reading()
            self._transport.write_eof()
            self._due = self._server.clock.monotonic() + LINGER_SECONDS

    # -------------------------------------------------------------------------------------------------------------- time

    def _look(self) -> None:
        """The timer: hang up on whoever is late, else look again when somebody could be."""
        self._watch = None
        if self._transport is None:
            return
        now = self._server.clock.monotonic()
        if self._incoming is not None and self._incoming.starved and now >= self._due:
            self._incoming.fail()
        if self._busy and (self._incoming is None or not self._incoming.starved):
            self._due = now + IDLE_SECONDS
        elif not self._busy and now >= self._due:
            unsent, before = self._transport.get_write_buffer_size(), self._unsent
            if unsent >= before:
                self._transport.abort()
                return
            self._unsent, self._due = unsent, now + IDLE_SECONDS  # slow, but it reads
        self._watch = self._server.clock.call_later(min(max(self._due - now, 0.1), LINGER_SECONDS), self._look)

    def shutdown(self) -> None:
        """No further request; an idle connection closes now, a busy one after its answer."""
        self._waiting.clear()
        if not self._busy and self._transport is not None:
            self._closing = True
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class HttpServer:
    """Listens, accepts and, at the end, lets running requests finish. ``handle`` is set before the first connection comes."""

    def __init__(self, clock: Clock, head_limit: int, body_limit: int) -> None:
        self.clock = clock
        self.head_limit = head_limit
        self.body_limit = body_limit
        self.handle: Handle = _not_ready
        self.streams: Callable[[HttpRequest], bool] = _never
        self.connections: set[Connection] = set()
        self.busy = 0
        self.is_closing = False
        self.date = ""
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[HttpResponse]] = set()
        self._ticker: Timer | None = None
        self._quiet: asyncio.Event | None = None

    async def listen(self, sock: socket.socket) -> None:
        """Serve what connects to ``sock``, a bound socket."""
        if self._ticker is None:
            self._tick()
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(lambda: Connection(self), sock=sock, backlog=2048))

    async def adopt(self, connection: socket.socket) -> None:
        """Serve one connection that somebody else accepted (from a sandbox's door)."""
        await asyncio.get_running_loop().connect_accepted_socket(lambda: Connection(self, inside=True), connection)

    def run(self, coroutine: Coroutine[Any, Any, HttpResponse], done: Callable[[HttpResponse], None]) -> None:
        """Run a request as a task."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)

        def finish(finished: asyncio.Task[HttpResponse]) -> None:
            self._tasks.discard(finished)
            if not finished.cancelled():
                done(finished.result())

        task.add_done_callback(finish)

    def release(self) -> None:
        """A request has been answered."""
        self.busy -= 1
        if self._quiet is not None and not self.busy:
            self._quiet.set()

    async def drain(self, patience: float) -> None:
        """Stop listening at once, and give running requests ``patience`` seconds."""
        self.is_closing = True
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.shutdown()
        if self.busy:
            self._quiet = asyncio.Event()
            late = self.clock.call_later(patience, self._quiet.set)
            await self._quiet.wait()
            late.cancel()

    async def close(self, patience: float) -> None:
        """``drain``, then hang up."""
        await self.drain(patience)
        for connection in list(self.connections):
            connection.abort()
        for task in self._tasks:
            task.cancel()
        if self._ticker is not None:
            self._ticker.cancel()

    def _tick(self) -> None:
        """The Date header is made once a second, not once a request."""
        self.date = f"date: {email.utils.formatdate(self.clock.now(), usegmt=True)}\r\n"
        self._ticker = self.clock.call_later(1.0, self._tick)


def _never(request: HttpRequest) -> bool:
    del request
    return False


def _has_length(response: HttpResponse) -> bool:
    """Whether whoever made the answer says how long it is."""
    return any(name == "Content-Length" for name, _ in response.headers)


async def _not_ready(request: HttpRequest, source_ip: str) -> HttpResponse:
    return HttpResponse(503, [("content-type", "application/json"), ("retry-after", "1")], b'{"message":"Starting."}')
