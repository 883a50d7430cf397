"""The embedded driver: everything in one SQLite file, in WAL mode, with every commit flushed to the disk.

What it shares with other databases is in ``database.py``. One process at a time may have the file open (``file_lock.py``). After
``kill -9`` the next open replays SQLite's log, and that is all.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lambent.clock import Clock
from lambent.disk import sync_directory
from lambent.store import export_sqlite, mutations
from lambent.store.connection import connect, unavailable
from lambent.store.contract import Append, Mutation
from lambent.store.database import DatabaseStore
from lambent.store.file_lock import FileLock
from lambent.store.schema import migrate
from lambent.store.sqlite_engine import SqliteEngine, Whole


class SqliteStore(DatabaseStore[sqlite3.Connection]):
    """``store.contract.Store`` on one SQLite file at ``path``, whose folder is made where it is missing."""

    _contradictions = (sqlite3.IntegrityError,)

    def __init__(self, path: Path, clock: Clock) -> None:
        name = f"store {path.name}"
        super().__init__(name, clock, SqliteEngine(name, partial(connect, path, "FULL")), mutations, export_sqlite)
        self._path = path
        self._lock = FileLock(path)

    async def close(self) -> None:
        await super().close()
        self._lock.release()

    def _job(self, calls: Sequence[Mutation]) -> Any:
        now = self._clock.now()
        changes = [mutations.bind(call, now) for call in calls]
        if len(changes) == 1 and not isinstance(calls[0], Append):  # which writes twice
            return Whole(changes[0])
        return lambda connection: [change(connection) for change in changes]

    def _connect(self) -> sqlite3.Connection:
        return connect(self._path, "FULL", read_only=True)

    def _unavailable(self) -> contextlib.AbstractContextManager[None]:
        return unavailable(self._path)

    def _prepare(self) -> None:
        """Lock, create, migrate, and open the reading connection: whoever has opened the file can read it."""
        with unavailable(self._path):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire()
            try:
                with contextlib.closing(connect(self._path, "FULL")) as writing:
                    migrate(writing, "", self._clock.now())
                os.chmod(self._path, 0o600)
                sync_directory(self._path.parent)
                self._reader = self._connect()
            except BaseException:
                self._lock.release()
                raise
