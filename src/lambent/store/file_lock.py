"""One process per data file: an advisory lock that ends with its holder, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from lambent.store.contract import StoreUnavailable


class StoreInUse(StoreUnavailable):
    """Another process has the data open."""


class FileLock:
    """``flock`` on a small file beside the data, which names the holder's process for the error message.

    The lock belongs to the open descriptor, which is closed on ``exec``; a child forked without ``exec`` would hold it on.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._path = data.with_name(data.name + ".lock")
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock or raise ``StoreInUse``; never waits."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(fd, 32).decode("ascii", "replace").strip()
            os.close(fd)
            who = f"process {holder}" if holder else "another process"
            raise StoreInUse(f"{self._data} is in use by {who}; stop it, or choose another data directory") from error
        with contextlib.suppress(OSError):  # a full disk must not keep the store from opening
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
