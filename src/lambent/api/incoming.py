"""A request body on its way in, handed to whoever reads it piece by piece, with the client held back while nobody does."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol

from lambent.errors import ClientFault

HIGH = 1 << 20  # bytes held before the client is asked to wait
LOW = 1 << 18


class Valve(Protocol):
    """The connection that the body comes from."""

    def want_body(self) -> None:
        """Somebody reads: a client that waits for 100 Continue may begin."""
        ...

    def hold(self) -> None: ...

    def let_flow(self) -> None: ...


class Incoming:
    """An async iterator of bytes. ``complete``: the whole body is here. ``starved``: a reader waits for the client."""

    def __init__(self, valve: Valve) -> None:
        self._valve = valve
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._held = False
        self._asked = False
        self._broken = False
        self.complete = False

    @property
    def starved(self) -> bool:
        return self._waiter is not None

    def feed(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > HIGH and not self._held:
            self._held = True
            self._valve.hold()
        self._wake()

    def finish(self) -> None:
        self.complete = True
        self._wake()

    def fail(self) -> None:
        """The client went away, or was too slow."""
        self._broken = not self.complete
        self._wake()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._asked:
            self._asked = True
            self._valve.want_body()
        while not self._pieces:
            if self.complete:
                raise StopAsyncIteration
            if self._broken:
                raise ClientFault("RequestTimeout", 400, "Your socket connection to the server was not read from or written to in time.")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        piece = self._pieces.popleft()
        self._size -= len(piece)
        if self._held and self._size < LOW:
            self._held = False
            self._valve.let_flow()
        return piece

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
