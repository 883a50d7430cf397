"""The HTTP server: uvicorn's httptools protocol on uvloop, with a guard at the door.

uvicorn parses HTTP and runs the ASGI cycle; it is used as a library here (protocol, config, shared state), without its ``Server``, since
``node.py`` owns signals, sockets and the order of shutdown, and since connections also come from inside sandboxes, over listeners that
the sandbox driver made.

``GuardedProtocol`` adds what an API that faces strangers needs and uvicorn leaves to a proxy:

* the request line and headers together are bounded (AWS: 1 MB); more is answered 431 and closed;
* a request that arrives too slowly is closed: its head has ``HEAD_SECONDS``, and each pause in its body ``BODY_SECONDS``;
* a client that closes its sending half after a whole request still gets its answer (uvicorn would hang up on it).
"""

from __future__ import annotations

import asyncio
import email.utils
import socket
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from lambent.clock import Clock, Timer

HEAD_SECONDS = 20.0
BODY_SECONDS = 60.0
KEEP_ALIVE_SECONDS = 75

_TOO_LARGE_BODY = b'{"message":"The request line and headers together exceed the limit."}'
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
    b"x-amzn-errortype: RequestHeaderFieldsTooLarge\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_TOO_LARGE_BODY), _TOO_LARGE_BODY)
)


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, server: HttpServer) -> None:
        super().__init__(server.config, server.state, {})
        self._clock = server.clock
        self._head_limit = server.head_limit
        self._head_bytes = 0
        self._in_head = False
        self._patience: Timer | None = None

    def data_received(self, data: bytes) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._in_head = self._in_head or self.cycle is None or not self.cycle.more_body
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self.parser is None or self.transport.is_closing():
            return
        if self._in_head:
            # A body may follow its head in the same segment, so only what arrived before the head was whole counts for sure.
            if self._head_bytes > self._head_limit:
                self.transport.write(_TOO_LARGE)
                self.transport.close()
                return
            self._patience = self._clock.call_later(HEAD_SECONDS, self._lose_patience)
        elif self.cycle.more_body:
            self._patience = self._clock.call_later(BODY_SECONDS, self._lose_patience)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        super().on_headers_complete()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self.cycle.keep_alive = False
            return True
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        super().connection_lost(exc)

    def _lose_patience(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()


class HttpServer:
    """Listens, accepts and, at the end, lets running requests finish."""

    def __init__(self, app: Any, clock: Clock, head_limit: int) -> None:
        self.clock = clock
        self.head_limit = head_limit
        self.config = Config(
            app,
            http="httptools",
            loop="none",
            lifespan="off",
            ws="none",
            interface="asgi3",
            access_log=False,
            log_config=None,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        self.config.load()
        self.state = ServerState()
        self._servers: list[asyncio.Server] = []
        self._date: Timer | None = None

    async def listen(self, sock: socket.socket) -> None:
        """Serve what connects to ``sock``, a bound socket."""
        loop = asyncio.get_running_loop()
        if self._date is None:
            self._refresh_date()
        self._servers.append(await loop.create_server(self._protocol, sock=sock, backlog=2048))

    async def adopt(self, connection: socket.socket) -> None:
        """Serve one connection that somebody else accepted (from a sandbox's listener)."""
        await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    async def close(self, patience: float) -> None:
        """Stop listening at once, give running requests ``patience`` seconds, then hang up."""
        for server in self._servers:
            server.close()
        for connection in list(self.state.connections):
            connection.shutdown()
        if self.state.tasks:
            await asyncio.wait(list(self.state.tasks), timeout=patience)
        for connection in list(self.state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        if self._date is not None:
            self._date.cancel()

    def _protocol(self) -> GuardedProtocol:
        return GuardedProtocol(self)

    def _refresh_date(self) -> None:
        """The Date header is made once a second, not once a request."""
        date = email.utils.formatdate(self.clock.now(), usegmt=True).encode()
        self.state.default_headers = [(b"date", date)]
        self._date = self.clock.call_later(1.0, self._refresh_date)
