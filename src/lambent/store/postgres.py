"""The scale-out driver: the same four capabilities in a PostgreSQL database (15 or newer), in a schema of their own.

As with the embedded driver there is one writing connection, which commits in groups (``postgres_engine.py``), and one that reads, each in a
thread of its own; whoever reads sees whatever was acknowledged before. A reading connection that was lost is opened again at the next
question. Blobs stay in files (``blobs.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import psycopg

from lambent.clock import Clock
from lambent.store import export_postgres
from lambent.store import postgres_tables as tables
from lambent.store.contract import Counts, Entry, Message, Mutation, Peek, Record, StoreUnavailable
from lambent.store.export import Kept, take
from lambent.store.group_commit import GroupCommit
from lambent.store.postgres_engine import Calls, PostgresEngine, connect, lock, migrate
from lambent.store.postgres_tables import Connection

T = TypeVar("T")


class PostgresStore:
    """``store.contract.Store`` in ``schema`` of the database at ``dsn`` (``postgresql://user@host/name`` or any libpq string)."""

    def __init__(self, dsn: str, clock: Clock, schema: str = "lambent") -> None:
        self._dsn = dsn
        self._schema = schema
        self._clock = clock
        self._writer = GroupCommit("store postgresql", PostgresEngine(dsn, schema, clock.now))
        self._reader: Connection | None = None
        self._readers: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Raises ``StoreInUse``, ``SchemaTooNew`` or ``StoreUnavailable``."""
        await asyncio.to_thread(self._prepare)
        self._readers = ThreadPoolExecutor(1, "store reader")
        self._writer.start()
        await self._writer.submit(lambda connection: None)  # takes the lock for good

    async def close(self) -> None:
        """Finish what was submitted, then let go of the database."""
        await self._writer.close()
        readers, self._readers = self._readers, None
        if readers is not None:
            await asyncio.to_thread(readers.shutdown)
        self._drop_reader()

    async def commit(self, *mutations: Mutation) -> list[int]:
        numbers: list[int] = await self._writer.submit(Calls(tables.encode(mutation) for mutation in mutations))
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
        messages: list[Message] = await self._writer.submit(partial(tables.lease, queue, limit, now, visibility, latest, ordered))
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
        if self._readers is None:
            raise StoreUnavailable("the store is not open")
        run = asyncio.get_running_loop().run_in_executor
        try:
            with ThreadPoolExecutor(1, "store snapshot") as own:  # whoever leaves early waits for its thread
                connection = await run(own, connect, self._dsn, self._schema)
                try:
                    rows = export_postgres.everything(connection)
                    while batch := await run(own, take, rows):
                        yield batch
                finally:
                    await run(own, connection.close)
        except psycopg.Error as error:
            raise StoreUnavailable(f"PostgreSQL: {str(error).strip()}") from error

    async def load(self, rows: Sequence[Kept]) -> None:
        try:
            await self._writer.submit(partial(export_postgres.load, rows))
        except StoreUnavailable as error:
            if isinstance(error.__cause__, psycopg.IntegrityError | psycopg.DataError):
                raise ValueError(str(error.__cause__)) from error
            raise

    async def _ask(self, question: Callable[[Connection], T]) -> T:
        readers = self._readers
        if readers is None:
            raise StoreUnavailable("the store is not open")
        return await asyncio.get_running_loop().run_in_executor(readers, self._answer, question)

    def _answer(self, question: Callable[[Connection], T]) -> T:
        """In the reader's thread: on the connection that there is, and if that is lost, once more on a new one."""
        for is_last in (False, True):
            try:
                if self._reader is None:
                    self._reader = connect(self._dsn, self._schema)
                return question(self._reader)
            except psycopg.Error as error:
                lost = self._reader is None or self._reader.closed
                if lost:
                    self._drop_reader()
                if is_last or not lost:
                    raise StoreUnavailable(f"PostgreSQL: {str(error).strip()}") from error
        raise AssertionError("unreachable")

    def _drop_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            with contextlib.suppress(psycopg.Error):
                reader.close()

    def _prepare(self) -> None:
        try:
            with contextlib.closing(connect(self._dsn, self._schema)) as connection:
                lock(connection, self._schema)
                migrate(connection, self._schema, self._clock.now())
        except psycopg.Error as error:
            raise StoreUnavailable(f"PostgreSQL: {str(error).strip()}") from error
