"""The node's end of the launcher: starts it, carries messages and descriptors, and notices its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

_MAX_MESSAGE = 1 << 20
_MAX_DESCRIPTORS = 16
_BATCH = 16  # messages read before the loop gets its turn

Message = dict[str, Any]


class LauncherLink:
    """One launcher process. ``on_message`` gets every message with its descriptors; ``ended`` completes when the process is gone."""

    def __init__(self, on_message: Callable[[Message, list[int]], None]) -> None:
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._outgoing: deque[bytes] = deque()
        self._is_open = True
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        code = f"import sys; sys.path.insert(0, {source!r}); from lambent.sandbox.launcher import bootstrap; bootstrap({theirs.fileno()})"
        keep = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=keep,
                cwd="/",
                start_new_session=True,  # Ctrl-C in a terminal is for the node, which then ends the launcher in order
            )
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._exited)

    @property
    def pid(self) -> int:
        """Of the launcher's outer process."""
        return self._process.pid

    @property
    def is_open(self) -> bool:
        """Whether messages can still come through."""
        return self._is_open

    def send(self, message: Message) -> None:
        """Queue ``message``; lost without a word when the launcher has ended."""
        if not self._is_open:
            return
        data = json.dumps(message).encode()
        if not self._outgoing and self._try(data):
            return
        if not self._outgoing:
            self._loop.add_writer(self._socket.fileno(), self._writable)
        self._outgoing.append(data)

    def close(self) -> None:
        """Hang up. The launcher then removes everything that it has made and ends; await ``ended`` for that."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()

    def _try(self, data: bytes) -> bool:
        try:
            self._socket.send(data)
        except BlockingIOError:
            return False
        except OSError:
            pass  # it has ended; the reader hears of it
        return True

    def _writable(self) -> None:
        while self._outgoing:
            if not self._try(self._outgoing[0]):
                return
            self._outgoing.popleft()
        self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        for _ in range(_BATCH):
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, _MAX_MESSAGE, _MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self.close()
                return
            self._on_message(json.loads(data), list(fds))
            if not self._is_open:
                return

    def _exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()
        with contextlib.suppress(OSError):
            self._readable() if self._is_open else None
        self.close()
        if not self.ended.done():
            self.ended.set_result(None)
