"""A folder as it is now, as a zip: the same bytes that ``bundle`` makes, without reading again what has not changed.

A file is taken to be unchanged while its size, inode, permissions and times of modification and of change are (the last cannot be set
back), unless it was changed within the last two seconds: then it is read again. Of each file the piece that it contributes is kept: its
compressed bytes and its line in the directory of the zip. A snapshot of an edited folder therefore costs one ``stat`` a file and one
compression an edit.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from lambent.cli.bundle import entry, ignored, ignored_patterns
from lambent.cli.screen import Trouble
from lambent.clock import Clock

_END = struct.Struct("<4sHHHHIIH")  # end of the directory
_RACY_S = 2.0
_VERDICTS = 200_000
_OFFSET_AT = 42  # in a line of the directory: where the file's bytes begin

Mark = tuple[int, int, int, int, int]
_mark: Callable[[os.stat_result], Mark] = attrgetter("st_size", "st_ino", "st_mode", "st_mtime_ns", "st_ctime_ns")


@dataclass(slots=True)
class _Piece:
    mark: Mark | None  # None: read it again
    content: bytes  # local header and compressed bytes
    size: int  # uncompressed
    line: tuple[bytes, bytes]  # in the directory: what stands before and behind the place of the content


class Snapshot:
    """Of one folder; keep it and ask again. Not thread-safe."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = str(folder)
        self._clock = clock
        self._pieces: dict[str, _Piece] = {}
        self._patterns: tuple[str, ...] = ()
        self._verdicts: dict[str, bool] = {}  # whether they leave out a path: asked for every file at every look

    def take(self) -> tuple[bytes, list[str]]:
        """The zip, and the files that differ from those of the call before: changed, new, gone. Raises ``Trouble`` where there are none."""
        pieces: dict[str, _Piece] = {}
        changed: list[str] = []
        found = dict(self._files())
        for name in sorted(found):
            piece = self._pieces.get(name)
            mark = _mark(found[name])
            if piece is None or piece.mark != mark:
                try:
                    fresh = self._piece(name)
                except FileNotFoundError:
                    continue  # gone since we looked; so is its piece
                if piece is None or piece.content != fresh.content or piece.line != fresh.line:
                    changed.append(name)
                piece = fresh
            pieces[name] = piece
        changed += [name for name in self._pieces if name not in pieces]
        self._pieces = pieces
        if not pieces:
            raise Trouble(f"{self._folder} holds no files to deploy")
        return _join(list(pieces.values())), changed

    def still(self, names: list[str]) -> bool:
        """Whether these files hold now what they held at the last ``take``: a file that is being written does not."""
        for name in names:
            before = self._pieces.get(name)
            try:
                now = self._piece(name)
            except FileNotFoundError:
                now = None
            if (now and now.content) != (before and before.content):
                return False
        return True

    def emptied(self, names: list[str]) -> bool:
        """Whether one of these files held nothing at the last ``take``."""
        return any(name in self._pieces and self._pieces[name].size == 0 for name in names)

    def _piece(self, name: str) -> _Piece:
        path = os.path.join(self._folder, name)
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            content = file.read()
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(entry(name, os.access(path, os.X_OK)), content)
            start = archive.start_dir
        whole = memory.getvalue()
        # Times of files are coarse: what was written a moment ago may be written again within the same tick and look the same.
        settled = self._clock.now() - max(status.st_mtime, status.st_ctime) > _RACY_S and len(content) == status.st_size
        line = (whole[start : start + _OFFSET_AT], whole[start + _OFFSET_AT + 4 : -_END.size])
        return _Piece(_mark(status) if settled else None, whole[:start], len(content), line)

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        patterns = ignored_patterns(Path(self._folder))
        if patterns != self._patterns or len(self._verdicts) > _VERDICTS:
            self._patterns, self._verdicts = patterns, {}
        pending, seen = [""], set[tuple[int, int]]()
        while pending:
            prefix = pending.pop()
            try:
                entries = list(os.scandir(f"{self._folder}/{prefix}"))
            except OSError:
                continue
            for each in entries:
                name = prefix + each.name
                if self._ignored(name):
                    continue
                try:
                    status = each.stat()
                except OSError:
                    continue  # a link into nothing, or gone
                kind = stat.S_IFMT(status.st_mode)
                if kind == stat.S_IFREG:
                    yield name, status
                elif kind == stat.S_IFDIR and (status.st_dev, status.st_ino) not in seen:  # a link to a folder above would never end
                    seen.add((status.st_dev, status.st_ino))
                    pending.append(name + "/")

    def _ignored(self, name: str) -> bool:
        verdict = self._verdicts.get(name)
        if verdict is None:
            verdict = self._verdicts[name] = ignored(name, self._patterns)
        return verdict


def _join(pieces: list[_Piece]) -> bytes:
    """One zip of many. Within the limits of a zip without extensions, which are far above Lambda's."""
    lines: list[bytes] = []
    offset = 0
    for piece in pieces:
        lines += (piece.line[0], (offset & 0xFFFF_FFFF).to_bytes(4, "little"), piece.line[1])
        offset += len(piece.content)
    directory = b"".join(lines)
    if len(pieces) > 0xFFFF or offset > 0xFFFF_FFFF:
        raise Trouble("the folder has more files, or larger ones, than a function may have")
    end = _END.pack(b"PK\x05\x06", 0, 0, len(pieces), len(pieces), len(directory), offset, 0)
    return b"".join([*(piece.content for piece in pieces), directory, end])
