"""The socket to a runtime: frames in, bytes out, at once.

Not an asyncio transport, for two things that only the socket itself can tell (the speed is the same): whether a hand-over reached
anybody, which decides if it may be given to another environment; and all that a dead runtime had written, read to the end before
its exit counts.

All channels share one receive buffer, since everything here happens in the loop's thread.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from lambent.runtime_api.frames import BadFrame, Frame, FrameReader

_BUFFER = memoryview(bytearray(262_144))


class Channel:
    """``on_frames`` gets the frames of one read; ``on_broken`` one sentence when the peer closes or writes what is no frame."""

    __slots__ = ("_backlog", "_broken", "_loop", "_on_broken", "_on_frames", "_reader", "_socket", "closed")

    def __init__(
        self,
        connected: socket.socket,
        body_cap: int,
        on_frames: Callable[[Channel, list[Frame]], None],
        on_broken: Callable[[Channel, str], None],
    ) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._reader = FrameReader(body_cap)
        self._on_frames = on_frames
        self._on_broken = on_broken
        self._loop = asyncio.get_running_loop()
        self._backlog: memoryview | None = None
        self.closed = False
        self._broken = False
        self._loop.add_reader(connected.fileno(), self._readable)

    def send(self, data: bytes) -> bool:
        """Write now what the socket takes, the rest as it drains. ``False`` if the peer is gone and took nothing."""
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        if sent < len(data):
            self._backlog = memoryview(data)[sent:]
            self._loop.add_writer(self._socket.fileno(), self._writable)
        return True

    @property
    def backlogged(self) -> bool:
        """Whether the peer has yet to take some of what was sent."""
        return self._backlog is not None

    def drain(self) -> list[Frame]:
        """All frames that a dead peer left behind. What is broken among them is as good as unsaid."""
        frames: list[Frame] = []
        while not self.closed:
            try:
                count = self._socket.recv_into(_BUFFER)
                if not count:
                    break
                frames += self._reader.feed(bytes(_BUFFER[:count]))
            except (OSError, BadFrame):
                break
        return frames

    def pause(self) -> None:
        """Read nothing until ``resume``: the peer's writes wait."""
        self._loop.remove_reader(self._socket.fileno())

    def resume(self) -> None:
        if not self.closed and not self._broken:
            self._loop.add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._backlog = None
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()

    def _readable(self) -> None:
        try:
            count = self._socket.recv_into(_BUFFER)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            count = 0
        if not count:
            self._broken = True
            self._loop.remove_reader(self._socket.fileno())
            self._on_broken(self, "")
            return
        try:
            frames = self._reader.feed(bytes(_BUFFER[:count]))
        except BadFrame as error:
            self._broken = True
            self._loop.remove_reader(self._socket.fileno())
            self._on_broken(self, str(error))
            return
        if frames:
            self._on_frames(self, frames)

    def _writable(self) -> None:
        backlog = self._backlog
        if backlog is not None:
            try:
                backlog = backlog[self._socket.send(backlog) :]
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                backlog = None  # the exit, which explains it, is on its way
        self._backlog = backlog
        if not backlog:
            self._loop.remove_writer(self._socket.fileno())
            self._backlog = None
