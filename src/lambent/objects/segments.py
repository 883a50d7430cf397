"""The bytes of objects, in files: written once, never changed, removed when nothing refers to them.

    <root>/ab/ab<30 hex>      one segment: an object put in one piece, or one part of a multipart upload

An object's document lists its segments, so finishing a multipart upload moves no bytes, and copying an object within the store makes hard
links. A segment is on the disk, its folder entry too, before ``write`` returns; only then is a document committed that names it. What a
killed process wrote and did not commit is found by ``sweep`` at the next start.

Whoever reads holds the segments: one that is discarded meanwhile is removed when the last reader has gone, and in any case only after
``GRACE_S``, since somebody may just have read a document that names it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lambent.clock import Clock
from lambent.disk import sync_directory
from lambent.objects.checksums import Digests
from lambent.objects.faults import entity_too_large
from lambent.store.connection import unavailable

BLOCK = 1 << 20
PARALLEL = 4
GRACE_S = 10.0


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of ``size`` bytes."""

    id: str
    size: int


@dataclass(frozen=True, slots=True)
class Piece:
    """``length`` bytes of a segment from ``offset``."""

    id: str
    offset: int
    length: int


def cut(segments: Sequence[Segment], start: int, length: int) -> list[Piece]:
    """The pieces that hold ``length`` bytes from ``start`` of the segments put together."""
    pieces: list[Piece] = []
    for segment in segments:
        if length <= 0:
            break
        if start < segment.size:
            take = min(length, segment.size - start)
            pieces.append(Piece(segment.id, start, take))
            length -= take
        start = max(0, start - segment.size)
    return pieces


class Segments:
    """Segments below ``root``. ``open`` first."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root = root
        self._clock = clock
        self._threads = ThreadPoolExecutor(PARALLEL, "objects")
        self._readers: Counter[str] = Counter()
        self._doomed: set[str] = set()
        self._found: list[str] = []
        self._holders = 0
        self._closed = False

    async def open(self) -> None:
        """Make the folders, and note what is there for ``sweep``."""
        await asyncio.to_thread(self._open)

    def close(self) -> None:
        self._closed = True
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def write(self, source: AsyncIterable[bytes], digests: Digests, most: int) -> Segment:
        """Store what ``source`` gives, durably, and tell ``digests`` of it. Raises 400 ``EntityTooLarge`` above ``most`` bytes.

        Nothing stays behind when ``source`` raises.
        """
        name = secrets.token_hex(16)
        path = self._path(name)
        loop = asyncio.get_running_loop()
        file: IO[bytes] | None = None
        size, held, pending = 0, 0, list[bytes]()
        try:
            async for data in source:
                size += len(data)
                held += len(data)
                if size > most:
                    raise entity_too_large(most)
                pending.append(data)
                if held >= BLOCK:
                    file = await loop.run_in_executor(self._threads, _append, file, path, pending, digests, False)
                    held, pending = 0, []
            file = await loop.run_in_executor(self._threads, _append, file, path, pending, digests, True)
        except BaseException:
            await asyncio.shield(loop.run_in_executor(self._threads, _abandon, file, path))
            raise
        return Segment(name, size)

    async def link(self, segment: Segment) -> Segment:
        """The same bytes once more, as a segment of its own. The caller holds the given one."""
        name = secrets.token_hex(16)
        await asyncio.get_running_loop().run_in_executor(self._threads, self._link, segment.id, name)
        return Segment(name, segment.size)

    def read(self, pieces: Sequence[Piece]) -> Reading:
        """The bytes of ``pieces``, as an async iterator that must be read to its end or closed."""
        return Reading(self, pieces)

    @contextlib.contextmanager
    def holding(self, segments: Iterable[Segment]) -> Iterator[None]:
        """Keep segments from vanishing."""
        names = [segment.id for segment in segments]
        self.hold(names)
        try:
            yield
        finally:
            self.let_go(names)

    @contextlib.contextmanager
    def holding_all(self) -> Iterator[None]:
        """Keep every segment that is named by a document now; for backups."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            self._remove(list(self._doomed))

    def open_file(self, name: str) -> IO[bytes]:
        """A segment's file, for reading. Blocks. Raises ``FileNotFoundError``."""
        return self._path(name).open("rb")

    def hold(self, names: Iterable[str]) -> None:
        self._readers.update(names)

    def let_go(self, names: Iterable[str]) -> None:
        free = []
        for name in names:
            self._readers[name] -= 1
            if self._readers[name] <= 0:
                del self._readers[name]
                free.append(name)
        self._remove(free)

    def discard(self, segments: Iterable[Segment]) -> None:
        """Remove segments that no document names any more, when nobody reads them."""
        names = [segment.id for segment in segments]

        def condemn() -> None:
            self._doomed.update(names)
            self._remove(names)

        if names:
            self._clock.call_later(GRACE_S, condemn)

    async def sweep(self, used: AsyncIterable[str]) -> int:
        """Remove what was there at ``open`` and is not in ``used``; gives how many."""
        lost = set(self._found)
        async for name in used:
            lost.discard(name)
        self._found = []
        await asyncio.get_running_loop().run_in_executor(self._threads, self._unlink, list(lost))
        return len(lost)

    async def block(self, piece: Piece, file: IO[bytes] | None, at: int) -> tuple[IO[bytes], bytes]:
        """The next bytes of ``piece`` from ``at`` in it. For ``Reading``."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._block, piece, file, at)

    def _block(self, piece: Piece, file: IO[bytes] | None, at: int) -> tuple[IO[bytes], bytes]:
        path = self._path(piece.id)
        with unavailable(path):
            if file is None:
                file = path.open("rb")
                file.seek(piece.offset)
            data = file.read(min(BLOCK, piece.length - at))
            if not data:
                raise OSError(f"{path} is shorter than it should be")
            return file, data

    def _path(self, name: str) -> Path:
        return self._root / name[:2] / name

    def _open(self) -> None:
        with unavailable(self._root):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_directory(self._root.parent)
            self._found = [entry.name for folder in os.scandir(self._root) for entry in os.scandir(folder.path)]

    def _link(self, source: str, target: str) -> None:
        path = self._path(target)
        with unavailable(path):
            _make_room(path)
            try:
                os.link(self._path(source), path)
            except OSError:  # a file system without links, or too many of them
                shutil.copyfile(self._path(source), path)
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            sync_directory(path.parent)

    def _remove(self, names: list[str]) -> None:
        """Of ``names`` those that are doomed and not read."""
        free = [name for name in names if name in self._doomed and name not in self._readers and not self._holders]
        self._doomed.difference_update(free)
        if free and not self._closed:
            self._threads.submit(self._unlink, free)

    def _unlink(self, names: list[str]) -> None:
        for name in names:
            with contextlib.suppress(OSError):  # what stays is found by the next sweep
                self._path(name).unlink()


class Reading:
    """An async iterator over pieces. ``close`` may be called at any time, any number of times."""

    def __init__(self, segments: Segments, pieces: Sequence[Piece]) -> None:
        self._segments = segments
        self._names = [piece.id for piece in pieces]
        self._pieces = list(reversed(pieces))
        self._file: IO[bytes] | None = None
        self._at = 0  # in the piece that is read now
        segments.hold(self._names)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            self.close()
            raise StopAsyncIteration
        piece = self._pieces[-1]
        try:
            self._file, data = await self._segments.block(piece, self._file, self._at)
        except BaseException:
            self.close()
            raise
        self._at += len(data)
        if self._at >= piece.length:
            self._pieces.pop()
            self._close_file()
        return data

    def close(self) -> None:
        self._pieces = []
        self._close_file()
        names, self._names = self._names, []
        self._segments.let_go(names)

    def _close_file(self) -> None:
        file, self._file, self._at = self._file, None, 0
        if file is not None:
            file.close()


def _make_room(path: Path) -> None:
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        sync_directory(path.parent.parent)


def _append(file: IO[bytes] | None, path: Path, pieces: list[bytes], digests: Digests, is_last: bool) -> IO[bytes]:
    with unavailable(path):
        if file is None:
            _make_room(path)
            file = path.open("xb", buffering=0)
            os.fchmod(file.fileno(), 0o600)
        for piece in pieces:
            digests.update(piece)
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
        if is_last:
            os.fsync(file.fileno())
            file.close()
            sync_directory(path.parent)
    return file


def _abandon(file: IO[bytes] | None, path: Path) -> None:
    with contextlib.suppress(OSError):
        if file is not None:
            file.close()
        path.unlink()
