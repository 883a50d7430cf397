"""What a sandbox prints, on its way from the pipe to the log store: in order, bounded, and never late for its report.

Two things make lines wait in the pipe, and both are meant. A read takes a bounded chunk and then lets the loop turn, so that a
chatty function slows no neighbour. And a function that prints more than ``BURST`` bytes and then more than ``RATE`` bytes a second
is read no faster than that: the pipe fills, and ``write`` blocks inside the sandbox, which is where the cost belongs. Nothing is
queued in the node, since the sink takes lines at once.

Before a frame counts, ``drain`` empties the pipe, because what the runtime wrote before the frame is in there by then (the driver's
promise). It takes no more than the pipe holds: a thread that goes on printing cannot keep it busy.

The platform's own lines pass through here too, so that START, the function's lines, END and REPORT reach the stream in order. START
waits for company: it goes out with the lines that follow, or by ``flush`` when an invocation takes long, so that a short one costs
a single write.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
from collections.abc import Callable, Sequence
from typing import Any

from lambent.clock import Clock, Timer
from lambent.observe.log_frames import Record, RecordReader
from lambent.observe.log_levels import level_of, parsed
from lambent.observe.log_lines import LogTail
from lambent.observe.log_sink import LogSink, LogStream

CHUNK = 65_536
BURST = 4 * 1024 * 1024
RATE = 2 * 1024 * 1024
PAUSE = 0.05
_PIPE = 65_536


class Behind:
    """A sink for what extensions print: behind what the platform and the function have said before, in the same stream and tail."""

    def __init__(self, pump: LogPump) -> None:
        self._pump = pump

    def write(self, stream: LogStream, lines: Sequence[tuple[int, str]]) -> None:
        self._pump.add(lines)
        self._pump.flush()


def _nothing(timeout: int) -> object:
    del timeout
    return None


class LogPump:
    """Reads one pipe at a time and writes one log stream. ``least`` is the level below which JSON lines are dropped; 0 for a text log.

    ``tap`` is called with each line's time in epoch seconds and the line; or, in a JSON log, the object that it is.
    """

    __slots__ = (
        "_arrived",
        "_budget",
        "_clock",
        "_fd",
        "_last",
        "_least",
        "_loop",
        "_pending",
        "_reader",
        "_refilled",
        "_resume",
        "_sink",
        "_size",
        "_stream",
        "_tail",
        "tap",
    )

    def __init__(self, stream: LogStream, sink: LogSink, clock: Clock, least: int = 0) -> None:
        self.tap: Callable[[float, str | dict[str, Any]], None] | None = None
        self._least = least
        self._stream = stream
        self._sink = sink
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fd = -1
        self._arrived: Callable[[int], object] = _nothing
        self._size = _PIPE
        self._reader = RecordReader()
        self._pending: list[tuple[int, str]] = []
        self._last = 0  # the time of the last line
        self._tail: LogTail | None = None
        self._budget = float(BURST)
        self._refilled = 0.0
        self._resume: Timer | None = None

    def attach(self, fd: int) -> None:
        """Read ``fd``, non-blocking, from now on."""
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            self._size = max(fcntl.fcntl(fd, getattr(fcntl, "F_GETPIPE_SZ", 1032)), _PIPE)
        self._watch(fd)
        self._budget, self._refilled = float(BURST), self._clock.monotonic()
        self._loop.add_reader(fd, self._readable)

    def _watch(self, fd: int) -> None:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        self._arrived = poll.poll

    def detach(self) -> int:
        """Stop reading and give the descriptor back; -1 if there is none."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._pause(fd)
        return fd

    def begin(self, keep_tail: bool) -> None:
        """An invocation begins. Only what is written from here on is in its tail."""
        self._tail = LogTail() if keep_tail else None

    def platform(self, line: str, at: float = 0.0) -> None:
        """A line of the platform's; ``at`` is its time in epoch seconds, if not now. No record that is read later is older than it."""
        if self._tail is not None:
            self._tail.add(line.encode())
        stamp = int((at or self._clock.now()) * 1000)
        self._last = max(self._last, stamp)
        self._pending.append((stamp, line))

    def add(self, lines: Sequence[tuple[int, str]]) -> None:
        """Lines from elsewhere, with their times in epoch milliseconds."""
        if self._tail is not None:
            for _, line in lines:
                self._tail.add(line.encode())
        self._pending.extend(lines)

    def finish(self) -> bytes:
        """The invocation is over: write everything out, and give its tail."""
        tail, self._tail = self._tail, None
        self.flush()
        return b"" if tail is None else tail.value()

    def drain(self) -> None:
        """Take what is in the pipe now, up to what a pipe can hold."""
        fd = self._fd
        if fd < 0 or not self._arrived(0):  # nearly always nothing is there, and an exception would be the dear way to hear it
            return
        left = self._size
        while left > 0:
            try:
                data = os.read(fd, CHUNK)
            except OSError:  # most often BlockingIOError: empty
                break
            if not data:
                self._pause(fd)
                break
            left -= len(data)
            self._take(data)

    def end_line(self) -> None:
        """Whatever lacks its line feed is a line now."""
        rest = self._reader.flush()
        if rest:
            self._put(rest)

    def flush(self) -> None:
        """Hand the lines over."""
        if self._pending:
            lines, self._pending = self._pending, []
            self._sink.write(self._stream, lines)

    def last_words(self, fd: int) -> None:
        """Read a detached pipe whose writers are dead, hand over what is left, and close it."""
        self._fd = fd
        self._watch(fd)
        self.drain()
        self._fd = -1
        self.end_line()
        self.flush()
        os.close(fd)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._pause(self._fd)
            return
        self._take(data)
        self.flush()
        if self._budget <= 0:
            self._throttle()

    def _take(self, data: bytes) -> None:
        self._budget -= len(data)
        self._put(self._reader.feed(data))

    def _put(self, records: list[Record]) -> None:
        now = int(self._clock.now() * 1000)
        pending, tail, checked = self._pending, self._tail, self._least or self.tap is not None
        for text, level, time in records:
            stamp = self._last = max(min(time, now), self._last) if time else now
            if checked and self._is_dropped(text, level, stamp):
                continue
            pending.append((stamp, text))
            if tail is not None:
                tail.add(text.encode())

    def _is_dropped(self, text: str, level: int, stamp: int) -> bool:
        document = parsed(text) if self._least else None
        if self.tap is not None:
            self.tap(stamp / 1000, text if document is None else document)
        return (level or level_of(document)) < self._least

    def _throttle(self) -> None:
        now = self._clock.monotonic()
        self._budget = min(self._budget + (now - self._refilled) * RATE, float(BURST))
        self._refilled = now
        if self._budget > 0:
            return
        self._pause(self._fd)
        self._resume = self._clock.call_later(max(-self._budget / RATE, PAUSE), self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        if self._fd >= 0 and self._loop is not None:
            self._loop.add_reader(self._fd, self._readable)

    def _pause(self, fd: int) -> None:
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        if self._loop is not None:
            self._loop.remove_reader(fd)
