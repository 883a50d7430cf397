"""How a group of jobs becomes one PostgreSQL transaction, and what happens when the server goes away in the middle of it.

All calls of a group travel in one statement. Its last act inside the transaction is to write the group's id and outcomes into
``last_group``; so when the connection is lost while COMMIT is under way, the next connection can tell whether the group stands, and the
callers get their true answers: nothing is applied twice and nothing acknowledged is guessed. (Only what a lost lease had leased is leased
anew; those messages come back when their visibility ends, which is what at-least-once means.)

While the server is away, callers wait for some seconds (it may just be restarting), then get ``StoreUnavailable``; until it is back,
later calls fail at once.

One node at a time may use a schema: an advisory lock, which the server releases when the connection ends, says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
from psycopg import sql

from lambent.store import postgres_tables as tables
from lambent.store.contract import StoreConflict, StoreUnavailable
from lambent.store.file_lock import StoreInUse
from lambent.store.group_commit import Ticket
from lambent.store.postgres_tables import Connection, Row
from lambent.store.schema import later, migrations

_PAUSE_S = 0.25
_PATIENCE = 48  # pauses that a group waits for a server that is away
_LOCK_PATIENCE = 20  # pauses in which the server may notice that the process before us has died


class Calls(tuple[Row, ...]):
    """The mutations of one ``commit``, with what is needed to tell of a conflict."""

    __slots__ = ()


def connect(dsn: str, schema: str) -> Connection:
    """A connection in autocommit mode whose search path is ``schema``. Raises ``psycopg.Error``."""
    connection = psycopg.connect(dsn, autocommit=True, connect_timeout=5, application_name="lambent")
    try:
        connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))
        row = connection.execute("SHOW synchronous_commit").fetchone()
        if row == ("off",):
            connection.execute("SET synchronous_commit TO on")
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def unavailable() -> Iterator[None]:
    """Turn PostgreSQL's errors into ``StoreUnavailable``."""
    try:
        yield
    except psycopg.Error as error:
        raise StoreUnavailable(f"PostgreSQL: {str(error).strip()}") from error


def lock(connection: Connection, schema: str) -> None:
    """Become the one node of ``schema``. Raises ``StoreInUse``."""
    row = connection.execute("SELECT current_database()").fetchone()
    key = int.from_bytes(hashlib.sha256(f"lambent {row} {schema}".encode()).digest()[:8], "big", signed=True)
    for _ in range(_LOCK_PATIENCE):
        if connection.execute("SELECT pg_try_advisory_lock(%s)", (key,)).fetchone() == (True,):
            return
        threading.Event().wait(_PAUSE_S)
    raise StoreInUse(f"schema {schema} of the database is in use by another node; stop it, or choose another database")


def migrate(connection: Connection, schema: str, now: float) -> None:
    """Bring ``schema`` up to date. Raises ``SchemaTooNew`` and ``psycopg.Error``."""
    connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations (version integer PRIMARY KEY, name text NOT NULL, applied_at double precision NOT NULL)"
    )
    row = connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()
    for migration in later(migrations("", "postgres"), row[0] if row else 0):
        with connection.transaction():
            connection.execute(migration.script.encode())
            connection.execute("INSERT INTO migrations VALUES (%s, %s, %s)", (migration.version, migration.name, now))


class PostgresEngine:
    """``group_commit.Engine`` on one connection. A job is ``Calls`` or a function of the connection."""

    def __init__(self, dsn: str, schema: str, now: Callable[[], float]) -> None:
        self._dsn = dsn
        self._schema = schema
        self._now = now
        self._connection: Connection | None = None
        self._away = False
        self._pause = threading.Event()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()

    def attempt(self, group: Sequence[Ticket]) -> bool:
        """One transaction, through lost connections if need be. False if the server refused it, in which case each ticket has the error."""
        group_id = secrets.token_hex(16)
        tries = 1 if self._away else _PATIENCE
        commits = [ticket for ticket in group if isinstance(ticket.job, Calls) and ticket.job]
        others = [ticket for ticket in group if not isinstance(ticket.job, Calls)]
        for ticket in group:
            if isinstance(ticket.job, Calls) and not ticket.job:
                ticket.fill([])
        for number in range(tries):
            try:
                connection = self._connected()
                if number and commits and (outcomes := tables.recall(connection, group_id)) is not None:
                    _settle(commits, outcomes)
                    commits = []
                self._transact(connection, group_id, commits, others)
                self._away = False
                return True
            except (psycopg.Error, StoreUnavailable) as error:
                failure: Exception = error
            refused = self._is_alive()
            if refused:
                break
            self.close()
            if number + 1 < tries:
                self._pause.wait(_PAUSE_S)
        self._away = not refused
        unavailable = StoreUnavailable(f"PostgreSQL: {str(failure).strip()}")
        unavailable.__cause__ = failure
        for ticket in [*commits, *others]:
            ticket.fill(None, unavailable)
        return not refused

    def _is_alive(self) -> bool:
        return self._connection is not None and not self._connection.closed and not self._connection.broken

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = connect(self._dsn, self._schema)
            try:
                lock(connection, self._schema)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _transact(self, connection: Connection, group_id: str, commits: Sequence[Ticket], others: Sequence[Ticket]) -> None:
        if not commits and not others:
            return
        outcomes: list[Any] = []
        values: list[Any] = []
        with connection.transaction():
            if commits:
                outcomes = tables.commit(connection, group_id, [ticket.job for ticket in commits], self._now())
            values = [ticket.job(connection) for ticket in others]
        _settle(commits, outcomes)
        for ticket, value in zip(others, values, strict=True):
            ticket.fill(value)


def _settle(commits: Sequence[Ticket], outcomes: Sequence[Any]) -> None:
    """Give every call what came of it. A conflict names the mutation by its index among all of the group, from 1."""
    first = 1
    for ticket, outcome in zip(commits, outcomes, strict=True):
        if isinstance(outcome, dict):
            _, kind, key, _, expected, _, _ = ticket.job[outcome["at"] - first]
            ticket.fill(None, StoreConflict(kind, key.decode(), expected, outcome["found"]))
        else:
            ticket.fill(outcome)
        first += len(ticket.job)
