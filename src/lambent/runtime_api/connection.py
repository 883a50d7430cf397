"""One connection of a client inside a sandbox: bytes to exchanges, answers to bytes.

Like ``invoke/channel.py`` no asyncio transport, for the same reason: only the socket itself can tell whether an invocation reached anybody,
and that decides if it may be given to another environment.

Requests are taken one at a time: while one waits for its answer, and while the client has yet to read an earlier answer, the next is not
looked at. Reading goes on meanwhile, to notice a client that goes away, but no further than ``AHEAD`` bytes. ``hold`` stops it altogether,
which makes a function that streams faster than its caller reads block in its own ``write``.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket
from typing import Protocol

from lambent.runtime_api.exchange import LINGER, Exchange, Headers
from lambent.runtime_api.http_parser import BadRequest, Head, RequestParser
from lambent.runtime_api.session_words import error_body

AHEAD = 65_536
STEPS = 256  # events of the parser before others get their turn

_BUFFER = memoryview(bytearray(262_144))
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in http.HTTPStatus}


class Host(Protocol):
    """Whom the connection belongs to."""

    def open_exchange(self, caller: int, head: Head) -> Exchange: ...

    def lost(self, connection: Connection) -> None:
        """The connection is closed. Told once."""
        ...

    def crowded(self) -> bool:
        """Whether all connections together hold too much."""
        ...


class Connection:
    """``number`` is what the sessions know it by."""

    __slots__ = (
        "_backlog",
        "_busy",
        "_closing",
        "_drained",
        "_eof",
        "_exchange",
        "_held",
        "_host",
        "_keep",
        "_linger",
        "_loop",
        "_parser",
        "_pumping",
        "_reading",
        "_socket",
        "closed",
        "number",
    )

    def __init__(self, number: int, connected: socket.socket, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        self.closed = False
        self._socket = connected
        self._host = host
        self._loop = loop
        self._parser = RequestParser()
        self._exchange: Exchange | None = None
        self._busy = False  # a request is complete and not answered
        self._keep = True  # open after the answer
        self._closing = False  # the last answer is written
        self._linger = False  # the client may still be sending: hang up when it has seen the answer
        self._drained = 0
        self._eof = False
        self._held = False
        self._pumping = False
        self._backlog = bytearray()
        self._reading = False
        self._read(True)

    @property
    def held_bytes(self) -> int:
        return self._parser.held

    # ----------------------------------------------------------------------------------------------------------- answers

    def answer(self, status: int, body: bytes, headers: Headers, content_type: str) -> None:
        """The answer to the request that waits for one."""
        head = _STATUS[status]
        if body:
            head += f"Content-Type: {content_type}\r\n"
        for name, value in headers:
            head += f"{name}: {value}\r\n"
        if not self._keep:
            head += "Connection: close\r\n"
        self._send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body)

    def deliver(self, head: bytes, body: bytes) -> bool:
        """An invocation, to one that waits in ``next``. ``False`` if nobody is there and not a byte was taken."""
        try:
            if not self._socket.recv(1, socket.MSG_PEEK):
                return False
        except BlockingIOError:
            pass
        except OSError:
            return False
        if not self._keep:
            head = head[:-2] + b"Connection: close\r\n\r\n"
        return self._send(head + body if len(body) < AHEAD else b"".join((head, body)))

    def _send(self, data: bytes) -> bool:
        self._busy = False
        self._closing = not self._keep
        return self._write(data)

    def _write(self, data: bytes) -> bool:
        if self.closed:
            return False
        if self._backlog:
            self._backlog += data
            return True
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.close()
            return False
        if sent < len(data):
            self._backlog += memoryview(data)[sent:]
            self._loop.add_writer(self._socket.fileno(), self._writable)
        else:
            self._written()
        return True

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._backlog)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        del self._backlog[:sent]
        if not self._backlog:
            self._loop.remove_writer(self._socket.fileno())
            self._written()

    def _written(self) -> None:
        """The client has it all, or the kernel for it: hang up, or look at what it has sent ahead and read on."""
        if self._closing:
            if not self._linger or self._eof:
                self.close()
                return
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
        if self._pumping:
            return
        if not self._held and not self._eof:
            self._read(True)
        if self._parser.held:
            self._loop.call_soon(self._pump)

    # ----------------------------------------------------------------------------------------------------------- reading

    def hold(self) -> None:
        """Read nothing until ``release``."""
        self._held = True
        self._read(False)

    def release(self) -> None:
        if self._held:
            self._held = False
            if not self.closed:
                self._read(True)
                self._loop.call_soon(self._pump)  # not from within the environment's call

    def _read(self, wanted: bool) -> None:
        if wanted is not self._reading and not self.closed:
            self._reading = wanted
            if wanted:
                self._loop.add_reader(self._socket.fileno(), self._readable)
            else:
                self._loop.remove_reader(self._socket.fileno())

    def _readable(self) -> None:
        try:
            count = self._socket.recv_into(_BUFFER)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            count = 0
        if not count:
            self._on_eof()
            return
        if self._closing:
            self._drained += count
            if self._drained > LINGER:
                self.close()
            return
        self._parser.feed(bytes(_BUFFER[:count]))
        self._pump()
        held = self._parser.held
        if held > AHEAD and not self.closed:
            if self._host.crowded():
                self.close()
            elif self._busy or self._backlog:
                self._read(False)

    def _pump(self) -> None:
        if self._pumping or self.closed:
            return
        self._pumping = True
        starved = False
        try:
            for _ in range(STEPS):
                if self._busy or self._held or self._backlog or self._closing or self.closed:
                    break
                if not self._step():
                    starved = True
                    break
            else:
                self._loop.call_soon(self._pump)
            if self._exchange is not None:
                self._exchange.flush()
        except BadRequest as error:
            self._fail(error)
        finally:
            self._pumping = False
        if not self._reading and not (self._busy or self._held or self._backlog or self._eof):
            self._read(True)
        if self._eof and (starved or (self._busy and not self._backlog)):
            self._at_end()

    def _step(self) -> bool:
        """One event of the parser. ``False`` if there is none."""
        event = self._parser.next()
        if event is None:
            return False
        if isinstance(event, Head):
            self._begin(event)
            return True
        exchange = self._exchange
        assert exchange is not None
        if isinstance(event, bytes):
            if exchange.data(event):
                self._hang_up_after()
                self._end(exchange, {})
        else:
            self._end(exchange, event.trailers)
        return True

    def _begin(self, head: Head) -> None:
        self._keep = head.keep_alive
        exchange = self._exchange = self._host.open_exchange(self.number, head)
        if head.expects and head.length != 0:
            if exchange.refused:
                self._hang_up_after()
                self._end(exchange, {})
            else:
                self._write(_CONTINUE)

    def _end(self, exchange: Exchange, trailers: dict[str, str]) -> None:
        self._exchange = None
        self._busy = True
        exchange.end(trailers)

    # -------------------------------------------------------------------------------------------------------------- ends

    def _hang_up_after(self) -> None:
        """Not all has been read, and will not be."""
        self._keep = False
        self._linger = True

    def _fail(self, error: BadRequest) -> None:
        """What follows cannot be told from what came before."""
        exchange, self._exchange = self._exchange, None
        self._hang_up_after()
        if exchange is not None and exchange.cut():
            return
        body = error_body("InvalidRequestFormat", error.text)
        self.answer(error.status, body, (), "application/json")

    def _on_eof(self) -> None:
        """The client sends nothing more. Who waits for an event is as good as gone; what was sent ahead is still looked at."""
        self._eof = True
        self._read(False)
        if self._busy or self._closing:
            if not self._backlog:
                self.close()
        elif self._parser.held or self._backlog:
            self._loop.call_soon(self._pump)
        else:
            self._at_end()

    def _at_end(self) -> None:
        """All that was sent has been looked at. One that broke off in the middle of a request is told so, if it still listens."""
        exchange, self._exchange = self._exchange, None
        self._keep = False
        if exchange is not None:
            exchange.cut()
        if not self._backlog:
            self.close()
        else:
            self._closing = True

    def close(self) -> None:
        """Hang up. Idempotent."""
        if self.closed:
            return
        self.closed = True
        descriptor = self._socket.fileno()
        if self._reading:
            self._loop.remove_reader(descriptor)
        if self._backlog:
            self._loop.remove_writer(descriptor)
        self._socket.close()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cut()
        self._host.lost(self)
