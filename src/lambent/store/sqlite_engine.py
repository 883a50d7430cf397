"""How a group of jobs becomes one SQLite transaction.

A job is a function of the connection. Each runs inside a SAVEPOINT, so one that refuses is rolled back to it alone; a job that is one
``Whole`` change needs none. A statement spared is one time less that this thread lets go of the interpreter and waits to have it back from
a busy loop. When the database itself fails, everything is rolled back.

A group of nothing but ``Soft`` jobs is not flushed to the disk: it survives the process, as whatever is written does, and the next flush
takes it along. A power loss may undo it. That is for leases: who held one is dead then, and the message comes again, as it may at any time.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence

from lambent.errors import LambentError
from lambent.store.contract import StoreUnavailable
from lambent.store.group_commit import Soft, Ticket


class Whole:
    """A job of one change that writes nothing before it refuses, and writes with one statement: it stands or not by itself."""

    __slots__ = ("_change",)

    def __init__(self, change: Callable[[sqlite3.Connection], int]) -> None:
        self._change = change

    def __call__(self, connection: sqlite3.Connection) -> list[int]:
        return [self._change(connection)]


_REFUSALS = (LambentError, sqlite3.InterfaceError, sqlite3.ProgrammingError, ValueError, TypeError, OverflowError)


class SqliteEngine:
    """``group_commit.Engine`` on one connection. ``connect`` is called in the writer's thread, whenever a connection has become useless."""

    def __init__(self, name: str, connect: Callable[[], sqlite3.Connection]) -> None:
        self._name = name
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._is_soft = False

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def attempt(self, group: Sequence[Ticket]) -> bool:
        """One transaction. False if the database failed, in which case nothing of the group stands and each has the error."""
        try:
            if self._connection is None:
                self._connection, self._is_soft = self._connect(), False
            connection = self._connection
            self._flush(connection, not all(type(ticket.job) is Soft for ticket in group))
            connection.execute("BEGIN IMMEDIATE")
            for ticket in group:
                self._run(connection, ticket)
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._roll_back()
            for ticket in group:
                failure = StoreUnavailable(f"{self._name}: {error}")
                failure.__cause__ = error
                ticket.fill(None, failure)
            return False
        return True

    def _flush(self, connection: sqlite3.Connection, wanted: bool) -> None:
        """Whether the next commit waits for the disk."""
        if wanted == self._is_soft:
            connection.execute(f"PRAGMA synchronous = {'FULL' if wanted else 'NORMAL'}")
            self._is_soft = not wanted

    @staticmethod
    def _run(connection: sqlite3.Connection, ticket: Ticket) -> None:
        if type(ticket.job) is Whole:
            try:
                ticket.fill(ticket.job(connection))
            except _REFUSALS as error:
                ticket.fill(None, error)
            return
        connection.execute("SAVEPOINT one")
        try:
            ticket.fill(ticket.job(connection))
        except _REFUSALS as error:
            ticket.fill(None, error)
            connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")

    def _roll_back(self) -> None:
        connection = self._connection
        if connection is None or not connection.in_transaction:  # SQLite itself rolls back on some errors
            return
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.close()
