"""Opening SQLite files the one way that Lambent opens them: write-ahead log, explicit transactions, errors in the store's own terms."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from lambent.store.contract import StoreUnavailable

_BUSY_MS = 5_000
_WAL_LIMIT = 64 * 1024 * 1024


def connect(path: Path, synchronous: str, read_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode, for one thread at a time.

    ``synchronous`` is ``FULL`` (what is committed survives a power loss) or ``NORMAL`` (it survives the process).
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def unavailable(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into ``StoreUnavailable``."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailable(f"{path}: {error}") from error
