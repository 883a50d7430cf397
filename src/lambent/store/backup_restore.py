"""Restoring: the archive becomes a second state beside the one in use, and then, in one step, the one in use.

    <data dir>/restore/new/          what comes: lambent.sqlite, blobs/, objects/, logs/   (a PostgreSQL store: the schema RESTORED)
    <data dir>/restore/ready.json    written when all of it is there, checked and on the disk: from now on it is the state
    <data dir>/restore/old/          what goes

``Staging.take`` does all that can fail: it reads the archive to its last byte and compares checksum and counts. ``Staging.commit`` writes
``ready.json``. ``finish``, which every start of a server calls before it opens anything, moves the parts to their places, each move
repeatable, and removes the rest. So whatever is killed when, before ``ready.json`` there is the old state (what was staged is removed by
the next start), and after it the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from lambent.clock import Clock
from lambent.disk import sync_directory
from lambent.store.backup_archive import ArchiveReader, BadArchive, Member, unpack
from lambent.store.connection import unavailable
from lambent.store.contract import Store, StoreUnavailable
from lambent.store.export import KeptDocument, KeptEntry, KeptMessage, decode
from lambent.store.export_sqlite import TableLoader
from lambent.store.file_lock import FileLock
from lambent.store.sqlite import SqliteStore

SCHEMA, RESTORED = "lambent", "lambent restored"
_PARTS = ("blobs", "objects", "logs")
_SQLITE = "lambent.sqlite"
_MEMBER = re.compile(r"(store|blobs|objects|logs)/([0-9a-zA-Z_-]{1,128}|\d{6}\.jsonl\.gz)")
_ROWS_MOST = 512 * 1024 * 1024
_COUNTED = ("documents", "entries", "messages", "blobs", "blobBytes", "objects", "objectBytes", "logRows")
_NO_ROWS = (
    ValueError,
    TypeError,
    LookupError,
    RecursionError,
    OverflowError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
"""What rows that are none make of those who read them."""


class Staging:
    """A second state below ``data_dir``, or in ``database``. One at a time; ``take``, then ``commit`` or ``drop``."""

    def __init__(self, data_dir: Path, database: str, clock: Clock) -> None:
        self._data_dir = data_dir
        self._database = database
        self._clock = clock
        self._root = data_dir / "restore"
        self._new = self._root / "new"
        self._counts: dict[str, int] = {}
        self._logs: TableLoader | None = None

    async def take(self, reader: ArchiveReader) -> dict[str, Any]:
        """Put the whole archive there; gives what it says of itself. Raises ``BadArchive``, ``SchemaTooNew``, ``StoreUnavailable``; then,
        and when it is cancelled, nothing stays."""
        try:
            with unavailable(self._root):
                await asyncio.to_thread(self._prepare)
                store = self._store()
                await store.open()
                try:
                    async for member in reader.members():
                        await self._put(member, store)
                finally:
                    await store.close()
                    if self._logs is not None:
                        await asyncio.to_thread(self._logs.close)
                self._compare(reader.contents)
                await asyncio.to_thread(os.sync)
        except BaseException:
            await asyncio.to_thread(self.drop)
            raise
        return {**reader.head, **reader.contents}

    def commit(self) -> None:
        """From here on the new state is the state; ``finish`` puts it in place. Raises ``StoreUnavailable``."""
        draft = self._root / "ready.tmp"
        with unavailable(draft):
            with draft.open("w") as file:
                json.dump({"database": bool(self._database)}, file)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(self._root / "ready.json")
            sync_directory(self._root)

    def drop(self) -> None:
        """Forget the new state."""
        _drop(self._root, self._database)

    def _prepare(self) -> None:
        self.drop()
        self._new.mkdir(mode=0o700, parents=True)
        for part in _PARTS:
            (self._new / part).mkdir(mode=0o700)

    def _store(self) -> Store:
        if not self._database:
            return SqliteStore(self._new / _SQLITE, self._clock)
        from lambent.store.postgres import PostgresStore

        return PostgresStore(self._database, self._clock, RESTORED)

    async def _put(self, member: Member, store: Store) -> None:
        match = _MEMBER.fullmatch(member.name)
        if match is None:
            raise BadArchive(f"the backup is damaged: it has a member {member.name[:80]!r}")
        folder, name = match[1], match[2]
        if folder in {"blobs", "objects"}:
            await self._put_file(member, folder, name)
            return
        packed = await member.read(_ROWS_MOST)
        try:
            if folder == "store":
                await self._put_rows(packed, store)
            else:
                await asyncio.to_thread(self._put_logs, packed)
        except _NO_ROWS as error:
            raise BadArchive(f"the backup is damaged: {member.name}: {error}") from error

    async def _put_rows(self, packed: bytes, store: Store) -> None:
        rows = await asyncio.to_thread(lambda: decode(unpack(packed)))
        for kind, name in ((KeptDocument, "documents"), (KeptEntry, "entries"), (KeptMessage, "messages")):
            self._add(name, sum(type(row) is kind for row in rows))
        await store.load(rows)

    def _put_logs(self, packed: bytes) -> None:
        lines = unpack(packed)
        if self._logs is None:
            self._logs = TableLoader(self._new / "logs" / "logs.sqlite", "logs_", self._clock.now())
        self._logs.feed(lines)
        self._add("logRows", lines.count(b"\n"))

    async def _put_file(self, member: Member, folder: str, name: str) -> None:
        path = self._new / folder / name[:2] / name
        digest = hashlib.sha256()
        with _created(path) as file:
            async for piece in member.pieces():
                await asyncio.to_thread(_write, file, piece, digest)
        if folder == "blobs" and digest.hexdigest() != name:
            raise BadArchive(f"the backup is damaged: the blob {name} is not what its name says")
        self._add(folder, 1)
        self._add(f"{folder.removesuffix('s')}Bytes", member.size)

    def _add(self, name: str, number: int) -> None:
        self._counts[name] = self._counts.get(name, 0) + number

    def _compare(self, contents: dict[str, Any]) -> None:
        for name in _COUNTED:
            said, found = contents.get(name, 0), self._counts.get(name, 0)
            if said != found:
                raise BadArchive(f"the backup is damaged: it says {said} {name} and has {found}")


def finish(data_dir: Path, database: str, at: Callable[[str], None] = lambda point: None) -> bool:
    """Put in place what was committed, remove what was not; whether there was a new state. Call it with nothing of the state open.

    Raises ``StoreInUse`` and ``StoreUnavailable``. ``at`` is told of each point where dying would be interesting; tests die there.
    """
    root = data_dir / "restore"
    shutil.rmtree(_grave_of(root), ignore_errors=True)
    if not root.exists():
        return False
    with unavailable(root), _locked(data_dir):
        if not (root / "ready.json").exists():
            _drop(root, database)
            return False
        in_database = json.loads((root / "ready.json").read_text())["database"]
        if in_database != bool(database):
            where = "in a PostgreSQL database: start with the same --database" if in_database else "in the data directory alone"
            raise StoreUnavailable(f"{root}: a restore is under way whose store lies {where}")
        if database:
            from lambent.store.export_postgres import replace

            replace(database, SCHEMA, RESTORED)
            at("database")
        else:
            for suffix in ("-wal", "-shm"):  # before the file that they belong to: the new one must never meet them
                if (root / "new" / _SQLITE).exists():
                    _move_out(data_dir, root, _SQLITE + suffix, at)
            _swap(data_dir, root, _SQLITE, at)
        for part in _PARTS:
            _swap(data_dir, root, part, at)
        sync_directory(data_dir)
        grave = _grave(root)
        at("swapped")
        shutil.rmtree(grave, ignore_errors=True)
    return True


def holds_state(data_dir: Path, database: str) -> str:
    """What is there already, in words; ``""`` where a restore would overwrite nothing. Raises ``StoreUnavailable``."""
    if database:
        from lambent.store.export_postgres import is_empty

        if not is_empty(database, SCHEMA):
            return "the database holds the state of a server already"
    for name in (_SQLITE, *_PARTS):
        path = data_dir / name
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            return f"{path} exists already"
    return ""


def _created(path: Path) -> IO[bytes]:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")


def _write(file: IO[bytes], piece: bytes, digest: hashlib._Hash) -> None:
    digest.update(piece)
    file.write(piece)


def _swap(data_dir: Path, root: Path, name: str, at: Callable[[str], None]) -> None:
    """Move one part. Where the new one has gone from its place, this has been done."""
    current, new = data_dir / name, root / "new" / name
    if new.exists():
        _move_out(data_dir, root, name, at)
        new.rename(current)
        at(f"{name} in")


def _move_out(data_dir: Path, root: Path, name: str, at: Callable[[str], None]) -> None:
    if (data_dir / name).exists():
        (root / "old").mkdir(mode=0o700, exist_ok=True)
        (data_dir / name).rename(root / "old" / name)
        at(f"{name} out")


def _drop(root: Path, database: str) -> None:
    if not root.exists():
        return
    if database:
        from lambent.store.export_postgres import drop

        drop(database, RESTORED)
    shutil.rmtree(_grave(root), ignore_errors=True)


def _grave_of(root: Path) -> Path:
    return root.with_name("restore.gone")


def _grave(root: Path) -> Path:
    """``root`` under another name: gone in one step, whatever the removal takes."""
    grave = _grave_of(root)
    shutil.rmtree(grave, ignore_errors=True)
    root.rename(grave)
    return grave


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """No server may have the state open."""
    with contextlib.ExitStack() as stack:
        for path in (data_dir / _SQLITE, data_dir / "logs" / "logs.sqlite"):
            if path.parent.is_dir():
                lock = FileLock(path)
                lock.acquire()
                stack.callback(lock.release)
        yield
