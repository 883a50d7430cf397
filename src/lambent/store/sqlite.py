"""The embedded driver: everything in one SQLite file, in WAL mode, with every commit flushed to the disk.

Two threads, two connections. The writer commits in groups (``group_commit.py``); the reader answers questions, each in a
transaction of its own, so it sees whatever was acknowledged before the question was asked. The loop's thread never waits for the disk.
One process at a time may have the file open (``file_lock.py``). After ``kill -9`` the next open replays SQLite's log, and that is all.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from lambent.clock import Clock
from lambent.store import export_sqlite
from lambent.store import mutations as tables
from lambent.store.connection import connect, sync_directory, unavailable
from lambent.store.contract import Append, Counts, Entry, Message, Mutation, Peek, Record, StoreUnavailable
from lambent.store.export import Kept, take
from lambent.store.file_lock import FileLock
from lambent.store.group_commit import GroupCommit, Soft
from lambent.store.schema import migrate
from lambent.store.sqlite_engine import SqliteEngine, Whole

T = TypeVar("T")


class SqliteStore:
    """``store.contract.Store`` on one SQLite file at ``path``, whose folder is made where it is missing."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._lock = FileLock(path)
        name = f"store {path.name}"
        self._writer = GroupCommit(name, SqliteEngine(name, partial(connect, path, "FULL")))
        self._reader: sqlite3.Connection | None = None
        self._readers: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Raises ``StoreInUse``, ``SchemaTooNew`` or ``StoreUnavailable``."""
        self._reader = await asyncio.to_thread(self._prepare)
        self._readers = ThreadPoolExecutor(1, "store reader")
        self._writer.start()

    async def close(self) -> None:
        """Finish what was submitted, then let go of the file."""
        await self._writer.close()
        readers, self._readers = self._readers, None
        if readers is not None:
            await asyncio.to_thread(readers.shutdown)
        reader, self._reader = self._reader, None
        if reader is not None:
            await asyncio.to_thread(reader.close)
        self._lock.release()

    async def commit(self, *mutations: Mutation) -> list[int]:
        now = self._clock.now()
        changes = [tables.bind(mutation, now) for mutation in mutations]
        numbers: list[int]
        if len(changes) == 1 and not isinstance(mutations[0], Append):  # which writes twice
            numbers = await self._writer.submit(Whole(changes[0]))
        else:
            numbers = await self._writer.submit(lambda connection: [change(connection) for change in changes])
        return numbers

    async def get(self, kind: str, key: str) -> Record | None:
        return await self._ask(lambda connection: tables.get(connection, kind, key))

    async def scan(self, kind: str, prefix: str = "", after: str = "", limit: int = 1000) -> list[Record]:
        return await self._ask(lambda connection: tables.scan(connection, kind, prefix, after, limit))

    async def read(self, topic: str, after: int = 0, limit: int = 1000) -> list[Entry]:
        return await self._ask(lambda connection: tables.read(connection, topic, after, limit))

    async def truncate(self, topic: str, through: int) -> None:
        await self._writer.submit(partial(tables.truncate, topic, through))

    async def lease(self, queue: str, limit: int, now: float, visibility: float, ordered: bool = False) -> list[Message]:
        latest = max(now, self._clock.now())
        messages: list[Message] = await self._writer.submit(Soft(partial(tables.lease, queue, limit, now, visibility, latest, ordered)))
        return messages

    async def release(self, queue: str) -> int:
        released: int = await self._writer.submit(partial(tables.release, queue, self._clock.now()))
        return released

    async def peek(self, queue: str, limit: int = 100, after: int = 0) -> list[Peek]:
        now = self._clock.now()
        return await self._ask(lambda connection: tables.peek(connection, queue, limit, after, now))

    async def drop(self, queue: str, position: int) -> bool:
        return bool(await self._writer.submit(partial(tables.drop, queue, position)))

    async def purge(self, queue: str, limit: int = 10_000) -> int:
        dropped: int = await self._writer.submit(partial(tables.purge, queue, limit))
        return dropped

    async def depth(self, queue: str) -> int:
        return await self._ask(lambda connection: tables.depth(connection, queue))

    async def counts(self, queue: str, now: float) -> Counts:
        return await self._ask(lambda connection: tables.counts(connection, queue, now))

    async def due(self, queue: str) -> float | None:
        return await self._ask(lambda connection: tables.due(connection, queue))

    async def queues(self, prefix: str = "") -> list[str]:
        return await self._ask(lambda connection: tables.queues(connection, prefix))

    async def snapshot(self) -> AsyncGenerator[list[Kept], None]:
        if self._reader is None:
            raise StoreUnavailable(f"{self._path} is not open")
        run = asyncio.get_running_loop().run_in_executor
        with unavailable(self._path), ThreadPoolExecutor(1, "store snapshot") as own:  # whoever leaves early waits for its thread
            connection = await run(own, partial(connect, self._path, "FULL", read_only=True))
            try:
                rows = export_sqlite.everything(connection)
                while batch := await run(own, take, rows):
                    yield batch
            finally:
                await run(own, connection.close)

    async def load(self, rows: Sequence[Kept]) -> None:
        try:
            await self._writer.submit(partial(export_sqlite.load, rows))
        except StoreUnavailable as error:
            if isinstance(error.__cause__, sqlite3.IntegrityError):
                raise ValueError(str(error.__cause__)) from error
            raise

    async def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        reader, readers = self._reader, self._readers
        if reader is None or readers is None:
            raise StoreUnavailable(f"{self._path} is not open")

        def answer() -> T:
            with unavailable(self._path):
                return question(reader)

        return await asyncio.get_running_loop().run_in_executor(readers, answer)

    def _prepare(self) -> sqlite3.Connection:
        """Lock, create, migrate; gives the reading connection."""
        with unavailable(self._path):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire()
            try:
                writing = connect(self._path, "FULL")
                try:
                    migrate(writing, "", self._clock.now())
                finally:
                    writing.close()
                os.chmod(self._path, 0o600)
                sync_directory(self._path.parent)
                return connect(self._path, "FULL", read_only=True)
            except BaseException:
                self._lock.release()
                raise
