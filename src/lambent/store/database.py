"""What the drivers over a database share: a change is a job for the thread that writes, a question goes to the thread that reads.

Two threads, two connections. The writer commits in groups (``group_commit.py``); the reader answers questions, each in a transaction of
its own, so it sees whatever was acknowledged before the question was asked. The loop's thread never waits for the database. A snapshot
has a third thread and a connection of its own while it lasts.

A driver adds what only it knows: how its database is prepared and opened, what a call of ``commit`` is to its engine, which of the
database's errors mean what, and two modules of plain functions on a connection, the ``Tables`` and the ``Export``.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from lambent.clock import Clock
from lambent.store.contract import Counts, Entry, Message, Mutation, Peek, Record, StoreUnavailable
from lambent.store.export import Kept, take
from lambent.store.group_commit import Engine, GroupCommit, Soft


class Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T")
C = TypeVar("C", bound=Closable)
C_contra = TypeVar("C_contra", contravariant=True)


class Tables(Protocol[C_contra]):
    """What jobs do to the tables (the writer gives the connection, last), and what questions ask of them (the connection first)."""

    def truncate(self, topic: str, through: int, connection: C_contra) -> int: ...
    def lease(
        self, queue: str, limit: int, now: float, visibility: float, latest: float, ordered: bool, connection: C_contra
    ) -> list[Message]: ...
    def release(self, queue: str, now: float, connection: C_contra) -> int: ...
    def drop(self, queue: str, position: int, connection: C_contra) -> int: ...
    def purge(self, queue: str, limit: int, connection: C_contra) -> int: ...

    def get(self, connection: C_contra, kind: str, key: str) -> Record | None: ...
    def scan(self, connection: C_contra, kind: str, prefix: str, after: str, limit: int) -> list[Record]: ...
    def read(self, connection: C_contra, topic: str, after: int, limit: int) -> list[Entry]: ...
    def peek(self, connection: C_contra, queue: str, limit: int, after: int, now: float) -> list[Peek]: ...
    def depth(self, connection: C_contra, queue: str) -> int: ...
    def counts(self, connection: C_contra, queue: str, now: float) -> Counts: ...
    def due(self, connection: C_contra, queue: str) -> float | None: ...
    def queues(self, connection: C_contra, prefix: str) -> list[str]: ...


class Export(Protocol[C_contra]):
    """All rows out and in (``export.py``)."""

    def everything(self, connection: C_contra) -> Iterator[Kept]: ...
    def load(self, rows: Sequence[Kept], connection: C_contra) -> None: ...


class DatabaseStore(ABC, Generic[C]):
    """``store.contract.Store``, but for what a driver adds."""

    _contradictions: ClassVar[tuple[type[Exception], ...]]
    """Errors of the database that are the fault of the rows that ``load`` was given."""

    def __init__(self, name: str, clock: Clock, engine: Engine, tables: Tables[C], export: Export[C]) -> None:
        self._name = name
        self._clock = clock
        self._tables = tables
        self._export = export
        self._writer = GroupCommit(name, engine)
        self._reader: C | None = None
        self._readers: ThreadPoolExecutor | None = None

    @abstractmethod
    def _prepare(self) -> None:
        """In a thread of its own: make what is missing, bring the schema up to date. Raises what ``open`` does."""

    @abstractmethod
    def _connect(self) -> C:
        """A connection to read on."""

    @abstractmethod
    def _unavailable(self) -> contextlib.AbstractContextManager[None]:
        """Turns the database's errors into ``StoreUnavailable``."""

    @abstractmethod
    def _job(self, mutations: Sequence[Mutation]) -> Any:
        """One call of ``commit``, as the engine wants it. Raises ``TypeError`` or ``ValueError`` where a value cannot be stored."""

    async def open(self) -> None:
        """Raises ``StoreInUse``, ``SchemaTooNew`` or ``StoreUnavailable``."""
        await asyncio.to_thread(self._prepare)
        self._readers = ThreadPoolExecutor(1, "store reader")
        self._writer.start()

    async def close(self) -> None:
        """Finish what was submitted, then let go of the database."""
        await self._writer.close()
        readers, self._readers = self._readers, None
        if readers is not None:
            readers.submit(self._drop_reader)
            await asyncio.to_thread(readers.shutdown)

    async def commit(self, *mutations: Mutation) -> list[int]:
        numbers: list[int] = await self._writer.submit(self._job(mutations))
        return numbers

    async def get(self, kind: str, key: str) -> Record | None:
        return await self._ask(lambda connection: self._tables.get(connection, kind, key))

    async def scan(self, kind: str, prefix: str = "", after: str = "", limit: int = 1000) -> list[Record]:
        return await self._ask(lambda connection: self._tables.scan(connection, kind, prefix, after, limit))

    async def read(self, topic: str, after: int = 0, limit: int = 1000) -> list[Entry]:
        return await self._ask(lambda connection: self._tables.read(connection, topic, after, limit))

    async def truncate(self, topic: str, through: int) -> None:
        await self._writer.submit(partial(self._tables.truncate, topic, through))

    async def lease(self, queue: str, limit: int, now: float, visibility: float, ordered: bool = False) -> list[Message]:
        latest = max(now, self._clock.now())
        job = partial(self._tables.lease, queue, limit, now, visibility, latest, ordered)
        messages: list[Message] = await self._writer.submit(Soft(job))
        return messages

    async def release(self, queue: str) -> int:
        released: int = await self._writer.submit(partial(self._tables.release, queue, self._clock.now()))
        return released

    async def peek(self, queue: str, limit: int = 100, after: int = 0) -> list[Peek]:
        now = self._clock.now()
        return await self._ask(lambda connection: self._tables.peek(connection, queue, limit, after, now))

    async def drop(self, queue: str, position: int) -> bool:
        return bool(await self._writer.submit(partial(self._tables.drop, queue, position)))

    async def purge(self, queue: str, limit: int = 10_000) -> int:
        dropped: int = await self._writer.submit(partial(self._tables.purge, queue, limit))
        return dropped

    async def depth(self, queue: str) -> int:
        return await self._ask(lambda connection: self._tables.depth(connection, queue))

    async def counts(self, queue: str, now: float) -> Counts:
        return await self._ask(lambda connection: self._tables.counts(connection, queue, now))

    async def due(self, queue: str) -> float | None:
        return await self._ask(lambda connection: self._tables.due(connection, queue))

    async def queues(self, prefix: str = "") -> list[str]:
        return await self._ask(lambda connection: self._tables.queues(connection, prefix))

    async def snapshot(self) -> AsyncGenerator[list[Kept], None]:
        self._require_readers()
        run = asyncio.get_running_loop().run_in_executor
        with self._unavailable(), ThreadPoolExecutor(1, "store snapshot") as own:  # whoever leaves early waits for its thread
            connection = await run(own, self._connect)
            try:
                rows = self._export.everything(connection)
                while batch := await run(own, take, rows):
                    yield batch
            finally:
                await run(own, connection.close)

    async def load(self, rows: Sequence[Kept]) -> None:
        try:
            await self._writer.submit(partial(self._export.load, rows))
        except StoreUnavailable as error:
            if isinstance(error.__cause__, self._contradictions):
                raise ValueError(str(error.__cause__)) from error
            raise

    async def _ask(self, question: Callable[[C], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._require_readers(), self._answer, question)

    def _require_readers(self) -> ThreadPoolExecutor:
        if self._readers is None:
            raise StoreUnavailable(f"{self._name} is not open")
        return self._readers

    def _answer(self, question: Callable[[C], T]) -> T:
        """What ``question`` gives. In the reader's thread, as ``_drop_reader``."""
        with self._unavailable():
            if self._reader is None:
                self._reader = self._connect()
            return question(self._reader)

    def _drop_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            with contextlib.suppress(StoreUnavailable), self._unavailable():
                reader.close()
