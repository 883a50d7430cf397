"""A backup of a running server: one consistent archive (``backup_archive.py``), written while everything goes on.

**Why it is consistent.** A document that names a blob or a segment is committed only after that file is on the disk, and the file is
removed only after the last such document is gone. So first all removals are held back (``holding_all``), then the snapshot of the store is
taken, and whatever the snapshot names lies in its file until the archive has it. The store's part is one snapshot: a message and the
document that was committed with it are both in it or both not. The log store has a snapshot of its own, taken later; it may know of
invocations that the store's snapshot does not know of.

**What it costs.** Snapshots keep nobody waiting (``export_sqlite.py``, ``export_postgres.py``). Reading, packing and hashing happen in
threads, in pieces of about a megabyte, at the pace at which the client takes them. Memory holds a piece, the names of blobs, and some 30
bytes for every segment.

**What is not in it.** Code folders, which are unpacked from the blobs when they are needed. Container images, which are fetched from their
registries again (a server that is restored in place still has them): they are large, and named by their digest. Configuration files.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from lambent.store.backup_archive import HEAD, PIECE, ArchiveWriter, first_member, pack
from lambent.store.blobs import FileBlobs
from lambent.store.connection import unavailable
from lambent.store.contract import Store, StoreUnavailable
from lambent.store.export import Kept, KeptDocument, encode
from lambent.store.export_sqlite import tables_of

_COUNTED = {"KeptDocument": "documents", "KeptEntry": "entries", "KeptMessage": "messages"}
_MISSING_MOST = 100


class Files(Protocol):
    """Files by name, of which none that is there vanishes while somebody holds them."""

    def holding_all(self) -> AbstractContextManager[None]: ...

    def open_file(self, name: str) -> IO[bytes]:
        """For reading, in a thread. Raises ``OSError``."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What a server keeps. ``named`` gives the segments that a document of the store names, ``flush`` puts all lines into ``logs``."""

    store: Store
    blobs: FileBlobs
    segments: Files
    named: Callable[[str, dict[str, Any]], Iterable[str]]
    kinds: frozenset[str]  # the kinds of documents that ``named`` is asked about
    logs: Path
    flush: Callable[[], Awaitable[None]]


@dataclass(slots=True)
class _Tally:
    """What has been written so far."""

    counts: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def add(self, name: str, number: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + number


async def backup(parts: Parts, head: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """The archive, piece by piece. ``head`` is told in its first member. Raises ``StoreUnavailable``."""
    writer, tally = ArchiveWriter(), _Tally()
    yield writer.member(HEAD, first_member(head))
    with parts.blobs.holding_all(), parts.segments.holding_all():
        segments = bytearray()
        blobs: list[str] | None = None
        number = 0
        async with contextlib.aclosing(parts.store.snapshot()) as batches:
            async for rows in batches:
                if blobs is None:  # the snapshot has begun: what it names is here, or was deleted since and is held
                    blobs = [address async for address in parts.blobs.addresses()]
                    blobs += sorted(set(await parts.blobs.held()).difference(blobs))
                number += 1
                yield await asyncio.to_thread(_store_rows, parts, writer, number, rows, segments, tally)
        for address in blobs or ():
            async for piece in _file(writer, "blobs", address, parts.blobs, tally):
                yield piece
        for at in range(0, len(segments), 33):
            async for piece in _file(writer, "objects", segments[at : at + 32].decode(), parts.segments, tally):
                yield piece
    try:
        await parts.flush()
    except StoreUnavailable as error:  # a full disk is no reason to save nothing
        tally.missing.append(f"logs: the last lines ({error})")
    with unavailable(parts.logs):
        lines = tables_of(parts.logs)
        for index in range(1, 10**6):
            data = await asyncio.to_thread(next, lines, b"")
            if not data:
                break
            tally.add("logRows", data.count(b"\n"))
            yield await asyncio.to_thread(_log_rows, writer, index, data)
    yield writer.end({**tally.counts, "missing": tally.missing})


def _store_rows(parts: Parts, writer: ArchiveWriter, number: int, rows: Sequence[Kept], segments: bytearray, tally: _Tally) -> bytes:
    for row in rows:
        counted = _COUNTED.get(type(row).__name__)
        if counted is not None:
            tally.add(counted)
        if isinstance(row, KeptDocument) and row.kind in parts.kinds:
            for name in parts.named(row.kind, json.loads(row.text)):
                segments += f"{name:32}\n".encode()
    return writer.member(f"store/{number:06d}.jsonl.gz", pack(encode(rows)))


def _log_rows(writer: ArchiveWriter, number: int, lines: bytes) -> bytes:
    return writer.member(f"logs/{number:06d}.jsonl.gz", pack(lines))


async def _file(writer: ArchiveWriter, folder: str, name: str, files: Files, tally: _Tally) -> AsyncIterator[bytes]:
    """One file as a member. One that the disk has lost is told of and left out: what is left is worth keeping all the more."""
    try:
        file = await asyncio.to_thread(files.open_file, name)
    except FileNotFoundError:
        tally.missing += [f"{folder}/{name}"] if len(tally.missing) < _MISSING_MOST else []
        return
    with file:
        size = os.fstat(file.fileno()).st_size
        yield writer.head(f"{folder}/{name}", size)
        left = size
        while left:
            piece = await asyncio.to_thread(file.read, min(PIECE, left))
            if not piece:
                raise StoreUnavailable(f"{folder}/{name} became shorter while it was read")
            left -= len(piece)
            yield await asyncio.to_thread(writer.body, piece)
        yield writer.pad(size)
    tally.add(folder)
    tally.add(f"{folder.removesuffix('s')}Bytes", size)
