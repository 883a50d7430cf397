"""When names and files are on the disk: what the file system has been told to keep through a power loss.

A file's bytes are flushed with ``os.fsync`` where they are written. That is not enough: its name stands in its directory, which is flushed
too once the file has been made, renamed or removed. Where a tree has many files, one flush of the file system costs less than one each.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path


def sync_directory(directory: Path | str) -> None:
    """Make the directory's entries durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(directory: Path) -> bool:
    """Make all durable that is on the file system of ``directory``; false where this C library has no such call."""
    call: Callable[[int], int] | None = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None:
        return False
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if call(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
    return True
