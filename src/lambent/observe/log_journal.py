"""The journal of the log store: an append-only file that a line reaches with one ``write`` to the operating system.

What was handed to the operating system survives the death of this process, at the price of a few microseconds. Every record carries its
length and a checksum, so the record that was being written when the process died is recognised and left out: nobody was told
that it is safe. A stream is named once in each file and goes by a number after that.

    record  := length u32 | crc32 of the payload u32 | payload
    payload := 0x01 | number u32 | JSON [account, region, group, name]      a stream gets its number
             | 0x02 | number u32 | block                                    lines of that stream

Files are rotated at every flush and removed once their lines are in the database. A file that outlives its removal does no harm: its
blocks have sequence numbers that the database knows already.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from lambent.observe.log_blocks import Block, describe
from lambent.observe.log_sink import LogStream

_RECORD = struct.Struct("<II")
_HEAD = struct.Struct("<IIBI")
_NUMBER = struct.Struct("<BI")
_NAME, _LINES = 1, 2
_FILE = re.compile(r"logs\.journal\.(\d{12})")


class Journal:
    """The journal files in one directory. Its owner holds a lock where a method does not say otherwise."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd = -1
        self._path: Path | None = None
        self._next: tuple[int, Path] | None = None
        self._size = 0
        self._number = 0
        self._streams: dict[LogStream, int] = {}

    def found(self) -> list[Path]:
        """The files that an earlier process left, oldest first."""
        return sorted(entry for entry in self._directory.iterdir() if _FILE.fullmatch(entry.name))

    def prepare(self) -> None:
        """Make the next file, so that ``rotate`` has only to change over. Needs no lock. Raises ``OSError``."""
        if self._next is not None:
            return
        if self._number == 0:
            self._number = max((int(path.name[-12:]) for path in self.found()), default=0)
        self._number += 1
        path = self._directory / f"logs.journal.{self._number:012d}"
        self._next = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600), path

    def rotate(self) -> Path | None:
        """Change over to the prepared file, if there is one; gives the one before it, if any."""
        if self._next is None:
            return None
        before = self._path
        self._close()
        self._fd, self._path = self._next
        self._next = None
        self._size = 0
        self._streams = {}
        return before

    def append(self, stream: LogStream, data: bytes) -> None:
        """Hand one block to the operating system. Raises ``OSError``, in which case nothing of it is in the file."""
        number = self._streams.get(stream)
        if number is None:
            self._write(self._naming(stream) + _record(len(self._streams), data))
            self._streams[stream] = len(self._streams)
        else:
            self._write(_record(number, data))

    def close(self) -> list[Path]:
        """Close the files in use and give them."""
        paths = [path for path in (self._path, self._next and self._next[1]) if path is not None]
        if self._next is not None:
            os.close(self._next[0])
        self._path = self._next = None
        self._close()
        return paths

    def _naming(self, stream: LogStream) -> bytes:
        text = json.dumps([stream.account, stream.region, stream.group, stream.name]).encode()
        payload = _NUMBER.pack(_NAME, len(self._streams)) + text
        return _RECORD.pack(len(payload), zlib.crc32(payload)) + payload

    def _write(self, record: bytes) -> None:
        written = 0
        try:
            written = os.write(self._fd, record)
            while written < len(record):  # a disk that fills takes what fits first, and refuses the rest
                written += os.write(self._fd, record[written:])
        except OSError:
            self._take_back()
            raise
        self._size += written

    def _take_back(self) -> None:
        """Cut off a record that is not whole; what follows it would never be found again."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:  # then nothing may follow it: every append fails until the next rotation
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _record(number: int, data: bytes) -> bytes:
    prefix = _NUMBER.pack(_LINES, number)
    return _HEAD.pack(len(data) + _NUMBER.size, zlib.crc32(data, zlib.crc32(prefix)), _LINES, number) + data


def replay(path: Path) -> Iterator[tuple[LogStream, Block]]:
    """The blocks of a file, up to the first record that is not whole."""
    data = path.read_bytes()
    streams: dict[int, LogStream] = {}
    at = 0
    while at + _RECORD.size <= len(data):
        length, checksum = _RECORD.unpack_from(data, at)
        payload = data[at + _RECORD.size : at + _RECORD.size + length]
        if length < _NUMBER.size or len(payload) < length or zlib.crc32(payload) != checksum:
            return
        at += _RECORD.size + length
        kind, number = _NUMBER.unpack_from(payload)
        if kind == _NAME:
            streams[number] = LogStream(*json.loads(payload[_NUMBER.size :]))
        else:
            yield streams[number], describe(payload[_NUMBER.size :])
