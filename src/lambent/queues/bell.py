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

    def ring(self, name: str, count: int = 1) -> None:
        """Wake up to ``count`` waiters of ``name``."""
        waiting = self._waiting.get(name)
        while waiting and count > 0:
            future = waiting.popleft()
            if not future.done():
                future.set_result(None)
                count -= 1

    async def wait(self, name: str, seconds: float) -> None:
        """Until it rings, or for ``seconds``."""
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
