"""The log store: every line of every function, kept, and answered for as CloudWatch Logs would.

**A line's way.** ``write`` encodes the lines once, hands them to the operating system with one ``write`` to the journal, and keeps the
bytes in memory. Some 200 ms after the first of them, the writer thread packs all that came into the database, one row for each stream,
moves the ledger's sequence number on in the same transaction, and removes the journal file. So a line costs the loop microseconds, and a
thousand lines cost the disk about what one does.

**Death at any moment.** Before the journal: nobody was told that the line is safe. After it: the next ``open`` reads the journals and
takes what the ledger does not cover, and nothing twice, because a block is either below the ledger's number or not. Power loss is weaker:
nothing here is flushed to the platter, so the last moments may go; the database stays sound.

**Bounds and trouble.** Memory holds some ``bound`` bytes that are not in the database; beyond that ``write`` waits for a flush
(back-pressure). When even the disk refuses, lines stay in memory as long as they fit. What then has to go is counted, said in the
platform's log, and said again in the stream itself once the disk is back. ``write`` never raises for it: a full disk must not fail an
invocation. ``put_events`` does, and keeps nothing then: whoever sends lines over the API can send them again.

**Questions** wait for a flush and then go to a reading connection in a thread of its own, so an answer holds every line that was written
before it was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from lambent.clock import Clock
from lambent.observe import log_query
from lambent.observe.log_blocks import Block, encode
from lambent.observe.log_database import LogDatabase
from lambent.observe.log_entities import EventPage, FilterQuery, FoundPage, GroupPage, LogGroup, LogHealth, StreamPage
from lambent.observe.log_journal import Journal, replay
from lambent.observe.log_lines import timestamp
from lambent.observe.log_sink import LogStream
from lambent.store.connection import connect, unavailable
from lambent.store.contract import StoreUnavailable
from lambent.store.file_lock import FileLock
from lambent.store.schema import migrate

FLUSH_AFTER = 0.2
RETRY_AFTER = 1.0
BOUND = 32 * 1024 * 1024

T = TypeVar("T")
_log = logging.getLogger(__name__)


class _Batch:
    """Blocks on their way to the database, by stream; ``upto`` is the sequence number after the last of them."""

    __slots__ = ("blocks", "journal", "size", "upto")

    def __init__(self) -> None:
        self.blocks: dict[LogStream, list[Block]] = {}
        self.size = 0
        self.upto = 0
        self.journal: Path | None = None

    def add(self, stream: LogStream, block: Block) -> None:
        held = self.blocks.get(stream)
        if held is None:
            self.blocks[stream] = [block]
        else:
            held.append(block)
        self.size += len(block.data)
        self.upto = block.seq + block.lines


class LogStore:
    """``observe.log_sink.LogSink``, and the questions of CloudWatch Logs.

    ``at`` is called with the name of each point where dying would be interesting; tests die there.
    """

    def __init__(self, directory: Path, clock: Clock, bound: int = BOUND, at: Callable[[str], None] | None = None) -> None:
        self._path = directory / "logs.sqlite"
        self._directory = directory
        self._clock = clock
        self._bound = bound
        self._at = at
        self._file_lock = FileLock(self._path)
        self._journal = Journal(directory)
        self._lock = threading.Lock()  # guards the lines that wait, between the loop's thread and the writer's
        self._open = False
        self._next_seq = 1
        self._batch = _Batch()
        self._sealed: list[_Batch] = []
        self._waiting = 0
        self._armed = False
        self._refused = False
        self._trouble = ""
        self._dropped: dict[LogStream, list[int]] = {}
        self._dropped_lines = 0
        self._unjournalled = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._database: LogDatabase | None = None
        self._writing: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._reader: ThreadPoolExecutor | None = None

    # -- life

    async def open(self) -> None:
        """Take the files and replay what a killed process left. Raises ``StoreInUse``, ``SchemaTooNew`` or ``StoreUnavailable``."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        await asyncio.to_thread(self._prepare)
        self._writer = ThreadPoolExecutor(1, "logs writer")
        self._reader = ThreadPoolExecutor(1, "logs reader")
        self._open = True

    async def close(self) -> None:
        """Put everything into the database and let go of the files."""
        writer, reader = self._writer, self._reader
        if not self._open or writer is None or reader is None:
            return
        with contextlib.suppress(StoreUnavailable):  # the journal still has it
            await self._run(writer, self._flush)
        self._open = False
        self._writer = self._reader = None
        for executor in (writer, reader):
            await asyncio.to_thread(executor.shutdown)
        await asyncio.to_thread(self._release)

    def health(self) -> LogHealth:
        """How it fares."""
        return LogHealth(self._waiting, self._trouble, self._dropped_lines, self._unjournalled)

    # -- lines

    def write(self, stream: LogStream, lines: Sequence[tuple[int, str]]) -> None:
        """Take ``(epoch ms, message)`` pairs; on return they survive the death of this process. May be called from any thread."""
        if not lines:
            return
        if self._waiting > self._bound and not self._relieve():
            self._drop(stream, lines)
        else:
            self._take(stream, lines)

    def _take(self, stream: LogStream, lines: Sequence[tuple[int, str]], refusing: bool = False) -> None:
        ingested = int(self._clock.now() * 1000)
        with self._lock:
            if not self._open:
                raise StoreUnavailable("the log store is not open")
            block = encode(self._next_seq, ingested, lines)
            self._next_seq += block.lines
            try:
                self._journal.append(stream, block.data)
            except OSError as error:
                if refusing:
                    raise StoreUnavailable(f"{self._directory}: the journal takes no lines: {error}") from error
                self._unjournalled += block.lines
                self._complain(f"{self._directory}: the journal takes no lines, they are in memory only: {error}")
            self._batch.add(stream, block)
            self._waiting += len(block.data)
        if self._at is not None:
            self._at("write:journalled")
        if not self._armed:
            self._arm(FLUSH_AFTER)

    async def flush(self) -> None:
        """Put everything written so far into the database. Raises ``StoreUnavailable``."""
        await self._run(self._writer, self._flush)

    async def purge(self, now: float) -> int:
        """Remove what is past its retention at wall time ``now`` (seconds); gives the number of rows."""
        return await self._change(lambda tables: tables.purge(int(now * 1000)))

    # -- groups

    async def create_group(self, group: LogGroup, log_class: str = "STANDARD", tags: Mapping[str, str] | None = None) -> None:
        """Raises ``GroupExists``."""
        await self._change(lambda tables: tables.create_group(group, self._now(), log_class, tags or {}))

    async def delete_group(self, group: LogGroup) -> None:
        """With everything in it. Raises ``NoSuchGroup``."""
        await self._change(lambda tables: tables.delete_group(group))

    async def describe_groups(
        self, account: str, region: str, prefix: str = "", pattern: str = "", limit: int = 50, token: str | None = None
    ) -> GroupPage:
        """Groups by name; ``pattern`` is a substring. Raises ``BadToken``."""
        return await self._ask(lambda reading: log_query.describe_groups(reading, account, region, prefix, pattern, limit, token or ""))

    async def put_retention(self, group: LogGroup, days: int) -> None:
        """Events older than ``days`` are not given any more, and removed by the next purge. Raises ``NoSuchGroup``."""
        await self._change(lambda tables: tables.set_retention(group, days))

    async def delete_retention(self, group: LogGroup) -> None:
        """Raises ``NoSuchGroup``."""
        await self._change(lambda tables: tables.set_retention(group, None))

    async def change_tags(self, group: LogGroup, add: Mapping[str, str] | None = None, remove: Sequence[str] = ()) -> dict[str, str]:
        """Gives the tags as they stand then; without ``add`` and ``remove`` it only reads. Raises ``NoSuchGroup``."""
        return await self._change(lambda tables: tables.change_tags(group, add or {}, remove))

    # -- streams

    async def create_stream(self, stream: LogStream) -> None:
        """Raises ``NoSuchGroup`` or ``StreamExists``."""
        await self._change(lambda tables: tables.create_stream(stream, self._now()))

    async def delete_stream(self, stream: LogStream) -> None:
        """Raises ``NoSuchGroup`` or ``NoSuchStream``."""
        await self._change(lambda tables: tables.delete_stream(stream))

    async def describe_streams(
        self, group: LogGroup, prefix: str = "", by_time: bool = False, reverse: bool = False, limit: int = 50, token: str | None = None
    ) -> StreamPage:
        """Streams by name, or by the time of their last event. Raises ``NoSuchGroup`` or ``BadToken``."""
        return await self._ask(lambda reading: log_query.describe_streams(reading, group, prefix, by_time, reverse, limit, token or ""))

    # -- events

    async def put_events(self, stream: LogStream, lines: Sequence[tuple[int, str]]) -> None:
        """``write`` for callers who must have made the stream before, and who are told when the disk takes nothing: then nothing is kept.
        Raises ``NoSuchGroup``, ``NoSuchStream`` or ``StoreUnavailable``."""
        await self._change(lambda tables: tables.stream_id(stream))
        if self._waiting > self._bound and not self._relieve():
            raise StoreUnavailable(f"{self._path}: the disk takes no lines")
        if lines:
            self._take(stream, lines, refusing=True)

    async def get_events(
        self,
        stream: LogStream,
        start: int | None = None,
        end: int | None = None,
        from_head: bool = False,
        limit: int = 10_000,
        token: str | None = None,
    ) -> EventPage:
        """Events of one stream from ``start`` (epoch ms) on and before ``end``. Raises ``NoSuchGroup``, ``NoSuchStream``, ``BadToken``."""
        now = self._now()
        return await self._ask(lambda reading: log_query.get_events(reading, stream, start, end, from_head, limit, token, now))

    async def filter_events(self, group: LogGroup, query: FilterQuery) -> FoundPage:
        """Events of a group, streams interleaved. Raises ``NoSuchGroup``, ``NoSuchStream``, ``BadToken``, ``BadPattern``."""
        now = self._now()
        return await self._ask(lambda reading: log_query.filter_events(reading, group, query, now))

    # -- threads

    def _now(self) -> int:
        return int(self._clock.now() * 1000)

    async def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        await self.flush()
        reading = self._reading
        if reading is None:
            raise StoreUnavailable("the log store is not open")
        return await self._run(self._reader, lambda: question(reading))

    async def _change(self, change: Callable[[LogDatabase], T]) -> T:
        def work() -> T:
            self._flush()
            return self._transaction(change)

        return await self._run(self._writer, work)

    async def _run(self, executor: Executor | None, work: Callable[[], T]) -> T:
        if executor is None:
            raise StoreUnavailable("the log store is not open")

        def guarded() -> T:
            with unavailable(self._path):
                return work()

        return await asyncio.get_running_loop().run_in_executor(executor, guarded)

    def _prepare(self) -> None:
        with unavailable(self._path):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file_lock.acquire()
            try:
                self._writing = connect(self._path, "NORMAL")
                migrate(self._writing, "logs_", self._clock.now())
                self._path.chmod(0o600)
                self._reading = connect(self._path, "NORMAL", read_only=True)
                self._replay()
                self._journal.prepare()
                self._journal.rotate()
            except BaseException:
                self._release()
                raise

    def _release(self) -> None:
        for path in self._journal.close():
            if not self._waiting:
                path.unlink(missing_ok=True)
        for connection in (self._reading, self._writing):
            if connection is not None:
                connection.close()
        self._reading = self._writing = None
        self._file_lock.release()

    def _replay(self) -> None:
        """Take what the journals hold and the ledger does not cover."""
        found = self._journal.found()
        covered = self._transaction(lambda tables: tables.next_seq())
        batch = _Batch()
        batch.upto = covered
        for path in found:
            for stream, block in replay(path):
                if block.seq >= covered:
                    batch.add(stream, block)
        self._transaction(lambda tables: tables.store(batch.blocks, batch.upto, self._now()))
        self._point("replay:committed")
        for path in found:
            path.unlink()
        self._next_seq = max(covered, batch.upto)

    def _transaction(self, change: Callable[[LogDatabase], T]) -> T:
        """In the writer's thread. Raises ``sqlite3.Error``, in which case nothing has changed."""
        writing = self._writing
        if writing is None:
            raise StoreUnavailable("the log store is not open")
        tables = self._database = self._database or LogDatabase(writing)
        writing.execute("BEGIN IMMEDIATE")
        try:
            outcome = change(tables)
            self._point("transaction:applied")
            writing.execute("COMMIT")
        except BaseException:
            tables.forget()  # also where SQLite has rolled back by itself, as it does when the disk is full
            if writing.in_transaction:
                writing.execute("ROLLBACK")
            raise
        return outcome

    def _flush(self) -> None:
        """In the writer's thread: seal what is in memory, bring all that is sealed into the database, remove its journals."""
        self._armed = False
        if self._batch.blocks:
            try:
                self._journal.prepare()
            except OSError as error:  # the present file goes on; the ledger keeps its lines from coming twice
                self._complain(f"{self._directory}: no new journal: {error}")
        with self._lock:
            if self._batch.blocks:
                batch, self._batch = self._batch, _Batch()
                batch.journal = self._journal.rotate()
                self._sealed.append(batch)
            sealed = list(self._sealed)
        if not sealed:
            return
        self._point("flush:rotated")
        try:
            self._transaction(lambda tables: self._store(tables, sealed))
        except sqlite3.Error as error:
            self._refused = True
            self._complain(f"{self._path}: {error}")
            self._arm(RETRY_AFTER)
            raise
        self._refused = False
        self._point("flush:committed")
        with self._lock:
            del self._sealed[: len(sealed)]
            self._waiting -= sum(batch.size for batch in sealed)
        for batch in sealed:
            if batch.journal is not None:
                batch.journal.unlink(missing_ok=True)
        self._point("flush:removed")
        self._recover()

    def _store(self, tables: LogDatabase, sealed: list[_Batch]) -> None:
        for batch in sealed:
            tables.store(batch.blocks, batch.upto, self._now())

    def _relieve(self) -> bool:
        """Memory is full: wait for a flush. False if the database takes nothing; then only the timer tries again, not every line."""
        writer = self._writer
        if writer is None or self._refused:
            return False
        try:
            writer.submit(self._flush).result()
        except (sqlite3.Error, StoreUnavailable):
            return False
        return True

    def _drop(self, stream: LogStream, lines: Sequence[tuple[int, str]]) -> None:
        with self._lock:
            lost = self._dropped.setdefault(stream, [0, 0])
            lost[0] += len(lines)
            lost[1] += sum(len(message) for _, message in lines)
            self._dropped_lines += len(lines)
        self._complain(f"{self._path}: the disk takes no lines and memory is full, lines are dropped")

    def _recover(self) -> None:
        """The database takes lines again: say in each stream what it lost."""
        if not self._trouble:
            return
        _log.warning("%s: lines are kept again", self._path)
        self._trouble = ""
        with self._lock:
            dropped, self._dropped = self._dropped, {}
        now = self._clock.now()
        for stream, (records, size) in dropped.items():
            record = {"reason": "The log store had no room", "droppedRecords": records, "droppedBytes": size}
            notice = {"time": timestamp(now), "type": "platform.logsDropped", "record": record}
            self._take(stream, [(int(now * 1000), json.dumps(notice) + "\n")])

    def _complain(self, trouble: str) -> None:
        if not self._trouble:
            _log.error("%s", trouble)
        self._trouble = trouble

    def _arm(self, delay: float) -> None:
        """See to a flush after ``delay`` seconds."""
        self._armed = True
        loop = self._loop
        if loop is None:
            return
        call = partial(self._clock.call_later, delay, self._kick)
        if threading.get_ident() == self._loop_thread:
            call()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed; what the journal has, the next open takes
                loop.call_soon_threadsafe(call)

    def _kick(self) -> None:
        writer = self._writer
        if writer is not None and self._open:
            writer.submit(self._flush_quietly)

    def _flush_quietly(self) -> None:
        with contextlib.suppress(sqlite3.Error, StoreUnavailable):  # told by ``_complain``, tried again by its timer
            self._flush()

    def _point(self, name: str) -> None:
        if self._at is not None:
            self._at(name)
