"""Group commit: one thread owns the writing connection, and all that queued while a transaction ran share the next one.

A disk flush costs the same for one change as for fifty, so the thread takes whatever is waiting, runs it all in one transaction and
commits once. Nobody waits for company: a lone call is committed at once. Three promises hold:

- *Durable before told.* A future is resolved only after COMMIT has returned.
- *Neighbours are strangers.* Each job runs inside a SAVEPOINT. One that refuses (a failed expectation) is rolled back to it and gets its
  error; the others in the group do not notice.
- *Failure is whole.* When the database itself fails (disk full, read-only, I/O error) everything is rolled back. A group is then
  tried again job by job, so that the one that was too big for the disk fails alone; whoever fails gets ``StoreUnavailable``, and
  the next call starts afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

from lambent.errors import LambentError
from lambent.store.contract import StoreUnavailable

Job = Callable[[sqlite3.Connection], Any]

_GROUP = 512
_REFUSALS = (LambentError, sqlite3.InterfaceError, sqlite3.ProgrammingError, ValueError, TypeError, OverflowError)


class _Ticket:
    """A job on its way, and what came of it."""

    __slots__ = ("error", "future", "job", "value")

    def __init__(self, job: Job, future: asyncio.Future[Any]) -> None:
        self.job = job
        self.future = future
        self.value: Any = None
        self.error: BaseException | None = None


class GroupCommit:
    """The writer thread. ``connect`` is called in it, at the start and whenever a connection has become useless."""

    def __init__(self, name: str, connect: Callable[[], sqlite3.Connection]) -> None:
        self._name = name
        self._connect = connect
        self._queue: queue.SimpleQueue[_Ticket | None] = queue.SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.groups = 0
        """Transactions committed so far."""

    def start(self) -> None:
        """Begin to take jobs from the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> asyncio.Future[Any]:
        """Run ``job`` in the next transaction. The future resolves after the commit; cancelling it does not call the job back."""
        if self._loop is None or self._thread is None:
            raise StoreUnavailable(f"{self._name} is not open")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue.put(_Ticket(job, future))
        return future

    async def close(self) -> None:
        """Finish what was submitted, then end the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(thread.join)

    def _work(self) -> None:
        group: list[_Ticket] = []
        try:
            more = True
            while more:
                more = self._gather(group)
                self._commit(group)
                self._tell(group)
                group = []
        finally:
            self._disconnect()
            self._abandon(group)

    def _gather(self, group: list[_Ticket]) -> bool:
        """Wait for one ticket, then take all that are there. False once the end was asked for."""
        ticket = self._queue.get()
        while ticket is not None:
            group.append(ticket)
            if len(group) >= _GROUP:
                return True
            try:
                ticket = self._queue.get_nowait()
            except queue.Empty:
                return True
        return False

    def _commit(self, group: list[_Ticket]) -> None:
        if not group or self._attempt(group):
            return
        if len(group) > 1:
            for ticket in group:
                self._attempt([ticket])

    def _attempt(self, group: list[_Ticket]) -> bool:
        """One transaction. False if the database failed, in which case nothing of the group stands and each has the error."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            connection = self._connection
            connection.execute("BEGIN IMMEDIATE")
            for ticket in group:
                self._run(connection, ticket)
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._roll_back()
            for ticket in group:
                ticket.value, ticket.error = None, StoreUnavailable(f"{self._name}: {error}")
                ticket.error.__cause__ = error
            return False
        self.groups += 1
        return True

    @staticmethod
    def _run(connection: sqlite3.Connection, ticket: _Ticket) -> None:
        connection.execute("SAVEPOINT one")
        try:
            ticket.value, ticket.error = ticket.job(connection), None
        except _REFUSALS as error:
            ticket.value, ticket.error = None, error
            connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")

    def _roll_back(self) -> None:
        connection = self._connection
        if connection is None or not connection.in_transaction:  # SQLite itself rolls back on some errors
            return
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _tell(self, group: list[_Ticket]) -> None:
        if group and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed; nobody waits any more
                self._loop.call_soon_threadsafe(_resolve, group)

    def _abandon(self, group: list[_Ticket]) -> None:
        """Whoever is left when the thread ends must not wait for ever."""
        while True:
            try:
                ticket = self._queue.get_nowait()
            except queue.Empty:
                break
            if ticket is not None:
                group.append(ticket)
        for ticket in group:
            ticket.error = ticket.error or StoreUnavailable(f"{self._name} has ended")
        self._tell(group)


def _resolve(group: list[_Ticket]) -> None:
    for ticket in group:
        if ticket.future.done():  # the caller was cancelled
            continue
        if ticket.error is not None:
            ticket.future.set_exception(ticket.error)
        else:
            ticket.future.set_result(ticket.value)
