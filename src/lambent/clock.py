"""One clock, passed in.

Nothing else in Lambent calls ``time`` or sleeps. ``SystemClock`` stands on the running asyncio loop; tests pass
``lambent.testing.clock.ManualClock``, which moves only when told to. Wall time (``now``) is for people and for the wire; elapsed
time (``monotonic``) is for deadlines.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A scheduled call that may be cancelled once or often."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """What may be known and asked of time."""

    def now(self) -> float:
        """Wall time, seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        """Call ``callback`` once after ``delay`` seconds, in the loop's thread."""
        ...

    async def sleep(self, delay: float) -> None: ...


class SystemClock:
    """The machine's clock and the running loop's timers."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def call_later(self, delay: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(delay, callback)

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(delay)
