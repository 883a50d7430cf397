"""A response on its way from a function to a caller that takes it in pieces, and the brakes on that way.

    function ──▶ channel ──▶ environment ──push──▶ InvocationStream ──async for──▶ caller

Nothing is stored beyond what keeps both ends busy: more than ``HIGH`` bytes that the caller has not taken make the stream *block*, which
stops the reading of the channel, so that the function's own writes wait (contract 02 §3). After the first ``burst`` bytes the caller is
given no more than ``rate`` bytes a second, the end among them. What arrives while the caller is away comes out in one piece.

A caller that leaves (``abandon``) ends nothing: the function runs on, unthrottled, and what it says is dropped.

A function that answers in one piece gives a stream, too: its whole answer, then the end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from lambent.clock import Clock, Timer
from lambent.invoke.invocation import InvocationResult

HIGH = 262_144
LOW = 65_536
PIECE = 1_048_576  # the largest piece given out of an answer that came whole


@dataclass(frozen=True, slots=True)
class Pace:
    """``burst`` bytes as fast as they come, then ``rate`` bytes a second; 0 is no limit."""

    burst: int = 6_291_456
    rate: int = 2_097_152


class InvocationStream:
    """``async for piece in stream``, then ``result``; ``await begun()`` first. One consumer; ``answer`` ends the stream."""

    __slots__ = (
        "_abandoned",
        "_answer",
        "_blocked",
        "_budget",
        "_clock",
        "_flow",
        "_full",
        "_held",
        "_opened",
        "_pace",
        "_pieces",
        "_refilled_at",
        "_timer",
        "_waiter",
        "content_type",
        "executed_version",
        "trace",
    )

    def __init__(self, answer: asyncio.Future[InvocationResult], clock: Clock, pace: Pace) -> None:
        self.content_type = "application/json"
        self.executed_version = ""  # known once the invocation has been accepted, and so is the trace
        self.trace = ""
        self._answer = answer
        self._clock = clock
        self._pace = pace
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._flow: Callable[[bool], None] | None = None
        self._opened = self._abandoned = self._full = self._blocked = False
        self._budget = float(pace.burst)
        self._refilled_at: float | None = None
        self._timer: Timer | None = None
        self._waiter: asyncio.Future[None] | None = None
        answer.add_done_callback(self._answered)

    # ------------------------------------------------------------------------------------------- what an environment calls

    def open(self, content_type: str, flow: Callable[[bool], None]) -> None:
        """The first sign of a streamed response. ``flow(True)`` asks to read no more of it, ``flow(False)`` to go on."""
        self.content_type = content_type
        self._opened = True
        self._flow = flow
        self._wake()

    def push(self, data: bytes) -> None:
        """The next piece."""
        if self._abandoned or not data:
            return
        self._pieces.append(data)
        self._held += len(data)
        self._wake()
        self._settle()

    def close(self) -> None:
        """No further piece will come, and nothing is to be braked any more."""
        flow, self._flow = self._flow, None
        if self._blocked and flow is not None:
            self._blocked = False
            flow(False)

    # ------------------------------------------------------------------------------------------------- what a caller calls

    async def begun(self) -> None:
        """Return at the first sign of a response, at its end at the latest. Raises ``PlatformFault`` if there will be none."""
        while not self._opened and not self._answer.done():
            await self._wait()
        if not self._opened:
            self._answer.result()

    def __aiter__(self) -> InvocationStream:
        return self

    async def __anext__(self) -> bytes:
        """All that is there, else what comes next. Raises ``PlatformFault`` where the platform failed halfway."""
        while not self._pieces or self._timer is not None:
            if self._timer is None and self._answer.done():
                self._answer.result()
                raise StopAsyncIteration
            await self._wait()
        data = self._take()
        self._held -= len(data)
        if self._blocked:
            self._settle()
        if self._pace.rate:
            self._budget -= len(data)
            if self._budget < 0:
                self._refill()
        return data

    @property
    def result(self) -> InvocationResult:
        """How it ended; for after the last piece."""
        return self._answer.result()

    def abandon(self) -> None:
        """The caller has gone. Idempotent."""
        self._abandoned = True
        self._pieces.clear()
        self._held = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._settle()

    # -------------------------------------------------------------------------------------------------------------- inside

    def _answered(self, answer: asyncio.Future[InvocationResult]) -> None:
        if not answer.cancelled() and answer.exception() is None and not self._opened and not self._abandoned:
            result = answer.result()
            if result.function_error is None:
                body = result.payload
                self._pieces.extend(body[start : start + PIECE] for start in range(0, len(body), PIECE))
        self._wake()

    def _take(self) -> bytes:
        """Everything that is there; where the pace counts, no more than an eighth of a second's worth."""
        pieces = self._pieces
        if len(pieces) > 1 and self._opened:
            data = b"".join(pieces)
            pieces.clear()
        else:
            data = pieces.popleft()
        if self._pace.rate and len(data) > self._budget:
            most = max(int(self._budget), self._pace.rate // 8, 1)
            if len(data) > most:
                pieces.appendleft(data[most:])
                data = data[:most]
        return data

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _refill(self) -> None:
        now = self._clock.monotonic()
        since, self._refilled_at = self._refilled_at, now
        if since is not None:
            self._budget = min(self._budget + (now - since) * self._pace.rate, float(self._pace.rate))
        if self._budget < 0 and self._timer is None:
            self._timer = self._clock.call_later(-self._budget / self._pace.rate, self._paid)

    def _paid(self) -> None:
        self._timer = None
        self._refill()
        self._wake()

    def _settle(self) -> None:
        """Block or go on, as things stand."""
        self._full = self._held > (LOW if self._full else HIGH)
        blocked = self._full and not self._abandoned
        if blocked != self._blocked and self._flow is not None:
            self._blocked = blocked
            self._flow(blocked)
