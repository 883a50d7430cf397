"""Telemetry on its way to a subscriber: over HTTP or TCP, to a port inside the sandbox.

One ``Courier`` per subscription. It sends one batch at a time and keeps it until the subscriber has acknowledged it (HTTP) or the kernel
has taken it (TCP); meanwhile the outbox fills, and what does not fit is dropped and counted there. So a subscriber that is slow, dead or
frozen costs the node two batches of memory and never an invocation its time: a courier is a task that mostly does not exist.

A batch that cannot be delivered is tried again with growing pauses, ``ATTEMPTS`` times in all, then counted as dropped. There is no limit
on how long a subscriber may take to answer: while its environment is frozen it cannot, and a batch sent twice would be worse than one that
is late. The connection is kept open between batches, and made anew where the subscriber has closed it.

The subscriber is user code. Of its answer nothing but the status counts, and no more than ``MAX_ANSWER`` of it is read.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import httptools

from lambent.clock import Clock, Timer
from lambent.errors import LambentError
from lambent.runtime_api.telemetry import Outbox

ATTEMPTS = 8
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
MAX_ANSWER = 65_536

OpenSocket = Callable[[], Awaitable[socket.socket]]
"""Gives a fresh, unconnected, non-blocking TCP socket inside the sandbox's network."""


class _Refused(Exception):
    """The subscriber did not take the batch, or its answer makes no sense."""


class Courier:
    """Delivers what ``outbox`` holds. ``notice`` after every change; ``flush`` not to wait for a batch to fill."""

    def __init__(self, outbox: Outbox, clock: Clock, open_socket: OpenSocket) -> None:
        self.outbox = outbox
        self._clock = clock
        self._open_socket = open_socket
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._closed = False

    def notice(self) -> None:
        """Something was added to the outbox."""
        if self._task is not None or self._closed:
            return
        if self.outbox.full:
            self.flush()
        elif self._timer is None and not self.outbox.empty:
            self._timer = self._clock.call_later(self.outbox.subscription.timeout_s, self.flush)

    def flush(self) -> None:
        """Send what there is now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None and not self._closed and not self.outbox.empty:
            self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def under_way(self) -> asyncio.Task[None] | None:
        """The task that delivers, if one does."""
        return self._task

    async def close(self) -> None:
        """Send no more. What is under way is broken off."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._hang_up()

    # ---------------------------------------------------------------------------------------------------------- the task

    async def _run(self) -> None:
        try:
            while True:
                batch = self.outbox.take(self._clock.now())
                self.outbox.done(delivered=await self._deliver(batch))
                if not self.outbox.full:
                    break
        finally:
            self._task = None
            self.notice()

    async def _deliver(self, batch: list[bytes]) -> bool:
        send = self._post if self.outbox.subscription.protocol == "HTTP" else self._write
        data = _as_array(batch) if send == self._post else b"\n".join(batch) + b"\n"
        pause = FIRST_PAUSE
        for attempt in range(ATTEMPTS):
            reused = self._socket is not None
            try:
                await send(data)
            except (OSError, LambentError, _Refused) as error:
                self._hang_up()
                if reused and not isinstance(error, _Refused):
                    continue  # it had closed the connection that was kept
                if attempt < ATTEMPTS - 1:
                    await self._clock.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)
            else:
                return True
        return False

    async def _connect(self) -> socket.socket:
        if self._socket is None:
            self._socket = await self._open_socket()
            await asyncio.get_running_loop().sock_connect(self._socket, ("127.0.0.1", self.outbox.subscription.port))
        return self._socket

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _write(self, data: bytes) -> None:
        connection = await self._connect()
        if _is_gone(connection):
            raise ConnectionResetError
        await asyncio.get_running_loop().sock_sendall(connection, data)

    async def _post(self, data: bytes) -> None:
        subscription = self.outbox.subscription
        connection = await self._connect()
        if _is_gone(connection):
            raise ConnectionResetError
        head = (
            f"{subscription.method} {subscription.path} HTTP/1.1\r\nHost: {subscription.host}:{subscription.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, head.encode("latin-1") + data)
        answer = _Answer()
        read = 0
        while not answer.complete:
            received = await loop.sock_recv(connection, 16_384)
            read += len(received)
            if not received and not read:
                raise ConnectionResetError  # closed without an answer
            answer.feed(received)
            if read > MAX_ANSWER:
                break
        if answer.status >= 400:
            raise _Refused
        if not answer.complete or not answer.keep_alive:
            self._hang_up()


class _Answer:
    """The status of an HTTP response, and where it ends."""

    def __init__(self) -> None:
        self.status = 0
        self.complete = False
        self.keep_alive = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take what arrived; ``b""`` when the peer has closed."""
        if not data:
            if not self.status:
                raise _Refused
            self.complete = True
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.complete:
                raise _Refused from error

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        if self.status >= 200:  # else 100 Continue
            self.complete = True
            self.keep_alive = self._parser.should_keep_alive()


def _is_gone(connection: socket.socket) -> bool:
    """Whether the peer has closed, as far as the kernel knows."""
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _as_array(batch: list[bytes]) -> bytes:
    return b"[" + b",".join(batch) + b"]"
