"""The file that a backup is: a plain tar archive, which any ``tar`` lists and unpacks.

    lambent-backup.json        first: the format, who wrote it and when
    store/000001.jsonl.gz      rows of the store (``export.py``), some megabyte each before packing
    blobs/<sha256>             the packages of functions and layers
    objects/<id>               the bytes of objects
    logs/000001.jsonl.gz       rows of the log store
    end.json                   last: what there is of everything, and the SHA-256 of every byte before it

An archive without its end, with another checksum or with other counts is broken, and nothing of it is used. It is written and read from
front to back, so it may go through a pipe of any kind and needs memory for one piece at a time.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
import zlib
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from lambent.errors import LambentError

FORMAT = 1
HEAD, END = "lambent-backup.json", "end.json"
PIECE = 1024 * 1024
_BLOCK = 512
_DOCUMENT_MOST = 1024 * 1024  # bytes of the first and the last member
_ROWS_MOST = 256 * 1024 * 1024  # bytes of one piece of rows, unpacked: a batch may end with a row that is large


class BadArchive(LambentError):
    """The file is no backup, or a broken one; nothing of it has been used."""


class ArchiveWriter:
    """Makes the bytes. ``head``, then ``body`` until its size is reached, then ``pad``; or ``member`` at once."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def member(self, name: str, data: bytes) -> bytes:
        return self.body(_header(name, len(data)) + data + _padding(len(data)))

    def head(self, name: str, size: int) -> bytes:
        return self.body(_header(name, size))

    def body(self, data: bytes) -> bytes:
        self._digest.update(data)
        return data

    def pad(self, size: int) -> bytes:
        return self.body(_padding(size))

    def end(self, contents: dict[str, Any]) -> bytes:
        """The last member and what closes a tar archive."""
        data = _dump({**contents, "sha256": self._digest.hexdigest()})
        return _header(END, len(data)) + data + _padding(len(data)) + bytes(2 * _BLOCK)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o600
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _dump(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1) + "\n").encode()


def pack(lines: bytes) -> bytes:
    """Rows as they lie in the archive."""
    return gzip.compress(lines, 1, mtime=0)


def unpack(data: bytes) -> bytes:
    """Raises ``BadArchive``."""
    try:
        inflater = zlib.decompressobj(wbits=31)
        lines = inflater.decompress(data, _ROWS_MOST)
    except zlib.error as error:
        raise BadArchive(f"a piece of rows does not unpack: {error}") from error
    if not inflater.eof:
        raise BadArchive("a piece of rows is cut off or too large")
    return lines


class Member:
    """One member while it is there to be read; the next one can be had only when this one has been read to its end."""

    def __init__(self, reader: ArchiveReader, name: str, size: int) -> None:
        self._reader = reader
        self.name = name
        self.size = size
        self.left = size

    async def read(self, most: int) -> bytes:
        """All of it. Raises ``BadArchive`` above ``most`` bytes."""
        if self.size > most:
            raise BadArchive(f"{self.name} has {self.size} bytes, which is more than it may have")
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncIterator[bytes]:
        while self.left:
            piece = await self._reader.take(min(self.left, PIECE))
            self.left -= len(piece)
            yield piece


class ArchiveReader:
    """Reads an archive as it comes from ``source``; whoever has gone through ``members`` to their end has what was written.

    ``head`` is the first member's document from the first member on, ``contents`` the last one's at the end.
    """

    def __init__(self, source: AsyncIterable[bytes]) -> None:
        self._source = aiter(source)
        self._held = memoryview(b"")
        self._digest = hashlib.sha256()
        self.head: dict[str, Any] = {}
        self.contents: dict[str, Any] = {}

    async def members(self) -> AsyncIterator[Member]:
        """All but the first and the last. Raises ``BadArchive``, and what ``source`` raises."""
        member = await self._next(HEAD)
        if member.name != HEAD:
            raise BadArchive("the file is no backup of Lambent")
        self.head = await self._document(member)
        if self.head.get("format") != FORMAT:
            raise BadArchive(f"the backup has format {self.head.get('format')!r}; this Lambent knows {FORMAT}: install a newer one")
        if not (_is_number(self.head.get("taken", 0)) and isinstance(self.head.get("lambent", ""), str)):
            raise BadArchive("the backup is damaged: its first member is not what it should be")
        while True:
            before = self._digest.hexdigest()
            member = await self._next("")
            if member.name == END:
                break
            yield member
            if member.left:
                raise AssertionError(f"{member.name} was not read to its end")
            await self._pad(member.size)
        self.contents = await self._document(member)
        if self.contents.pop("sha256", None) != before:
            raise BadArchive("the backup is damaged: its checksum is another")
        missing = self.contents.get("missing", [])
        if not isinstance(missing, list) or not all(_is_number(value) for name, value in self.contents.items() if name != "missing"):
            raise BadArchive("the backup is damaged: its last member is not what it should be")
        async for _ in self._source:  # what closes a tar archive
            pass

    async def take(self, size: int) -> bytes:
        """Up to ``size`` bytes, and at least one. Raises ``BadArchive`` at the end of the file."""
        while not self._held:
            try:
                self._held = memoryview(await anext(self._source))
            except StopAsyncIteration:
                raise BadArchive("the backup is cut off") from None
        data, self._held = bytes(self._held[:size]), self._held[size:]
        self._digest.update(data)
        return data

    async def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += await self.take(size - len(data))
        return data

    async def _next(self, wanted: str) -> Member:
        try:
            info = tarfile.TarInfo.frombuf(await self._exactly(_BLOCK), "utf-8", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise BadArchive("the file is no backup of Lambent" if wanted else "the backup is damaged or cut off") from error
        if info.type != tarfile.REGTYPE or info.size < 0:
            raise BadArchive(f"the backup is damaged: {info.name!r} is no file")
        return Member(self, info.name, info.size)

    async def _document(self, member: Member) -> dict[str, Any]:
        data = await member.read(_DOCUMENT_MOST)
        await self._pad(member.size)
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BadArchive(f"the backup is damaged: {member.name} is no JSON") from error
        if not isinstance(document, dict):
            raise BadArchive(f"the backup is damaged: {member.name} is no document")
        return document

    async def _pad(self, size: int) -> None:
        await self._exactly(-size % _BLOCK)


def _is_number(value: object) -> bool:
    """Of a size that a time or a count may have."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53


def first_member(head: dict[str, Any]) -> bytes:
    """The content of the first member."""
    return _dump({"format": FORMAT, **head})
