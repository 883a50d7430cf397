"""Group commit: one thread owns the writing connection, and all that queued while a transaction ran share the next one.

A disk flush costs the same for one change as for fifty, so the thread takes whatever is waiting, has its *engine* run it all in one
transaction, and tells every caller. Jobs of one round of the loop are handed over together, when the round ends: the thread is woken once
for all of them. Nobody waits for company: a lone call is committed at once. What a job is, and how a group of them becomes one
transaction, is the engine's affair (``sqlite_engine.py``, ``postgres_engine.py``). Every engine keeps three promises:

- *Durable before told.* A ticket has its value only after the commit has returned.
- *Neighbours are strangers.* A job that refuses (a failed expectation) gets its error; the others in the group do not notice.
- *Failure is whole.* When the database itself fails (disk full, read-only, gone) nothing of a job stands, and its caller gets
  ``StoreUnavailable``; the next call starts afresh. What a group failed of, one job may be to blame for: each is tried once more alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lambent.store.contract import StoreUnavailable

_GROUP = 512


class Ticket:
    """A job on its way, and what came of it."""

    __slots__ = ("error", "future", "job", "value")

    def __init__(self, job: Any, future: asyncio.Future[Any]) -> None:
        self.job = job
        self.future = future
        self.value: Any = None
        self.error: BaseException | None = None

    def fill(self, value: Any, error: BaseException | None = None) -> None:
        """Note what came of the job."""
        self.value, self.error = value, error


class Soft:
    """A job that need not survive a power loss; an engine may spare it the disk."""

    __slots__ = ("_job",)

    def __init__(self, job: Callable[[Any], Any]) -> None:
        self._job = job

    def __call__(self, connection: Any) -> Any:
        return self._job(connection)


class Engine(Protocol):
    """Runs groups. Called from the writer's thread only, and made in the loop's."""

    def attempt(self, group: Sequence[Ticket]) -> bool:
        """Run all jobs in one transaction, and fill every ticket. Raises nothing.

        False if it failed of something that may be one job's doing; nothing of the group stands then, and each has the error.
        """
        ...

    def close(self) -> None:
        """Let go of the connection; the next ``attempt`` opens another."""
        ...


class GroupCommit:
    """The writer thread."""

    def __init__(self, name: str, engine: Engine) -> None:
        self._name = name
        self._engine = engine
        self._queue: queue.SimpleQueue[list[Ticket] | None] = queue.SimpleQueue()
        self._waiting: list[Ticket] = []  # submitted in this round of the loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.groups = 0
        """Groups run so far."""

    def start(self) -> None:
        """Begin to take jobs from the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._thread.start()

    def submit(self, job: Any) -> asyncio.Future[Any]:
        """Run ``job`` in the next transaction. The future resolves after the commit; cancelling it does not call the job back."""
        if self._loop is None or self._thread is None:
            raise StoreUnavailable(f"{self._name} is not open")
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._hand_over)
        self._waiting.append(Ticket(job, future))
        return future

    def _hand_over(self) -> None:
        waiting, self._waiting = self._waiting, []
        for at in range(0, len(waiting), _GROUP):
            self._queue.put(waiting[at : at + _GROUP])

    async def close(self) -> None:
        """Finish what was submitted, then end the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._hand_over()
            self._queue.put(None)
            await asyncio.to_thread(thread.join)

    def _work(self) -> None:
        group: list[Ticket] = []
        try:
            more = True
            while more:
                more = self._gather(group)
                if group:
                    self._run(group)
                self._tell(group)
                group = []
        finally:
            self._engine.close()
            self._abandon(group)

    def _gather(self, group: list[Ticket]) -> bool:
        """Wait for tickets, then take all that are there. False once the end was asked for."""
        tickets = self._queue.get()
        while tickets is not None:
            group += tickets
            if len(group) >= _GROUP:
                return True
            try:
                tickets = self._queue.get_nowait()
            except queue.Empty:
                return True
        return False

    def _run(self, group: list[Ticket]) -> None:
        """In one transaction, or else in one each, so that the job that was too big for the disk fails alone."""
        if not self._engine.attempt(group) and len(group) > 1:
            for ticket in group:
                self._engine.attempt([ticket])
        self.groups += 1

    def _tell(self, group: list[Ticket]) -> None:
        if group and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed; nobody waits any more
                self._loop.call_soon_threadsafe(_resolve, group)

    def _abandon(self, group: list[Ticket]) -> None:
        """Whoever is left when the thread ends must not wait for ever."""
        while True:
            try:
                group += self._queue.get_nowait() or ()
            except queue.Empty:
                break
        for ticket in group:
            ticket.error = ticket.error or StoreUnavailable(f"{self._name} has ended")
        self._tell(group)


def _resolve(group: list[Ticket]) -> None:
    for ticket in group:
        if ticket.future.done():  # the caller was cancelled
            continue
        if ticket.error is not None:
            ticket.future.set_exception(ticket.error)
        else:
            ticket.future.set_result(ticket.value)
