"""Who waits for messages of which queue. Sending rings for as many waiters as there are messages, oldest first; nobody polls."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial

from lambent.clock import Clock


class Bell:
    """Waiters by the name of a queue."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._rung: dict[str, int] = {}

    def count(self, name: str) -> int:
        """How often it has rung for ``name``: whoever looks and then waits takes it before looking, and misses nothing in between."""
        return self._rung.get(name, 0)

    def ring(self, name: str, count: int = 1) -> None:
        """Wake up to ``count`` waiters of ``name``."""
        self._rung[name] = self._rung.get(name, 0) + 1
        waiting = self._waiting.get(name)
        while waiting and count > 0:
            future = waiting.popleft()
            if not future.done():
                future.set_result(None)
                count -= 1

    async def wait(self, name: str, seconds: float, since: int | None = None) -> None:
        """Until it rings, or for ``seconds``; not at all if it has rung after ``count`` gave ``since``."""
        if since is not None and self._rung.get(name, 0) != since:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(name, deque())
        waiting.append(future)
        timer = self._clock.call_later(max(seconds, 0.0), partial(_wake, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.ring(name)  # it rang for us, and we shall not look
            raise
        finally:
            timer.cancel()
            if future in waiting:
                waiting.remove(future)
            if not waiting and self._waiting.get(name) is waiting:
                del self._waiting[name]


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
