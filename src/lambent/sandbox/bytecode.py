"""The bytecode of handlers: one environment of a version compiles, those after it load.

The code of a function is read-only, so a Python interpreter in a sandbox compiles the handler's module each time it starts: a millisecond
for fifty lines, twenty for a thousand. So the first environment of a version gives the launcher what it has compiled, over a pipe that ends
before any of the function's code runs, and every later one gets it as a file in memory that nobody can change any more.

What comes is never looked at here. It is given to environments with the same *key* only, a hash over everything that an environment is
built from, the function's ARN among it; so a function could deceive nobody but itself, and what takes an environment over while it serves
comes too late, for the pipe is closed by then. Which source and which interpreter the bytecode belongs to is written at its head and
checked by whoever loads it (``python_imports.py``), who compiles where anything does not fit.

One environment at a time is asked; while it compiles, others compile for themselves. What is remembered is bounded, oldest out first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from typing import Protocol

MAX_BYTES = 1 << 20  # of one handler
MAX_KNOWN_BYTES = 32 << 20  # of all
_PIPE_BYTES = 1 << 20  # an environment need not wait for us then
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Loop(Protocol):
    """The launcher's loop."""

    def watch(self, channel: Pipe, reader: Callable[[], None]) -> None: ...

    def unwatch(self, channel: Pipe) -> None: ...


class Pipe:
    """The reading end, on which an environment says what it has compiled."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pieces: list[bytes] = []
        self._size = 0

    def fileno(self) -> int:
        return self._fd

    def read(self) -> bytes | None:
        """All that was said, once it is all; ``None`` before. Does not wait."""
        while True:
            try:
                piece = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return None
            if not piece:
                return b"".join(self._pieces) if self._size <= MAX_BYTES else b""
            self._size += len(piece)
            if self._size <= MAX_BYTES:
                self._pieces.append(piece)
            else:
                self._pieces.clear()


class Bytecodes:
    """What is known, by key. Every descriptor in here is ours to close."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._known: dict[str, int] = {}
        self._size = 0
        self._learning: set[str] = set()

    def lend(self, key: str) -> int:
        """A descriptor of the bytecode, to be passed on and not to be closed; -1 where it is not known."""
        return self._known.get(key, -1)

    def learn(self, key: str) -> int:
        """The writing end for the environment that is to tell; the caller closes its own copy. -1 where another is being asked."""
        if key in self._learning:
            return -1
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reading, False)
        with contextlib.suppress(OSError):  # a smaller one does, too
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        pipe = Pipe(reading)
        self._learning.add(key)
        self._loop.watch(pipe, lambda: self._on_pipe(key, pipe))
        return writing

    def _on_pipe(self, key: str, pipe: Pipe) -> None:
        said = pipe.read()
        if said is None:
            return
        self._loop.unwatch(pipe)
        os.close(pipe.fileno())
        self._learning.remove(key)
        if said:
            self._remember(key, said)

    def _remember(self, key: str, said: bytes) -> None:
        file = os.memfd_create("lambent-bytecode", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(file, said)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
        self._known[key] = file
        self._size += len(said)
        while self._size > MAX_KNOWN_BYTES:
            oldest = self._known.pop(next(iter(self._known)))
            self._size -= os.fstat(oldest).st_size
            os.close(oldest)
