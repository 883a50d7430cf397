"""The scale-out driver: the same four capabilities in a PostgreSQL database (15 or newer), in a schema of their own.

What it shares with the embedded driver is in ``database.py``; what a group of jobs is to the server, in ``postgres_engine.py``. A reading
connection that was lost is opened again at the next question. Blobs stay in files (``blobs.py``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import psycopg

from lambent.clock import Clock
from lambent.store import export_postgres
from lambent.store import postgres_tables as tables
from lambent.store.contract import Mutation, StoreUnavailable
from lambent.store.database import DatabaseStore
from lambent.store.postgres_engine import Calls, PostgresEngine, connect, lock, migrate, unavailable
from lambent.store.postgres_tables import Connection

T = TypeVar("T")


class PostgresStore(DatabaseStore[Connection]):
    """``store.contract.Store`` in ``schema`` of the database at ``dsn`` (``postgresql://user@host/name`` or any libpq string)."""

    _contradictions = (psycopg.IntegrityError, psycopg.DataError)

    def __init__(self, dsn: str, clock: Clock, schema: str = "lambent") -> None:
        super().__init__("store postgresql", clock, PostgresEngine(dsn, schema, clock.now), tables, export_postgres)
        self._dsn = dsn
        self._schema = schema

    async def open(self) -> None:
        await super().open()
        await self._writer.submit(lambda connection: None)  # takes the lock for good

    def _job(self, mutations: Sequence[Mutation]) -> Calls:
        return Calls(tables.encode(mutation) for mutation in mutations)

    def _connect(self) -> Connection:
        return connect(self._dsn, self._schema)

    def _unavailable(self) -> contextlib.AbstractContextManager[None]:
        return unavailable()

    def _answer(self, question: Callable[[Connection], T]) -> T:
        """On the connection that there is, and if that is lost, once more on a new one."""
        for is_last in (False, True):
            try:
                return super()._answer(question)
            except StoreUnavailable:
                lost = self._reader is None or self._reader.closed
                if lost:
                    self._drop_reader()
                if is_last or not lost:
                    raise
        raise AssertionError("unreachable")

    def _prepare(self) -> None:
        with unavailable(), contextlib.closing(self._connect()) as connection:
            lock(connection, self._schema)
            migrate(connection, self._schema, self._clock.now())
