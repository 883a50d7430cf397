"""What differs between two zips, and a folder patched from one to the other.

An edit in ``lambent dev`` changes one file of thousands, yet a function's code comes as one whole zip. The line of a file in the zip's
directory (without its place) and the file's bytes, header and compressed data, are all that unpacking makes a file from: same line and
same bytes, same file. So two zips are compared line by line and their bytes run by run, without inflating anything; what differs is made
a small zip of its own, which goes through all of ``zip_archive.unpack``'s rules; and a copy of the old folder (``code_spares.py``) becomes
the new one by a few renames.

**The result is the same as if everything had been unpacked anew**, names, bytes, modes, times, and refusals: ``compare`` answers only
where that is plain, ``apply`` raises ``Unpatchable`` when it meets what it did not expect, and in both cases the whole zip is unpacked as
ever. Bytes are compared with bytes, not by checksums that a stranger chose. What is plain:

* a zip without comments, extensions or gaps, where each entry's bytes lie between its neighbours' (so entries cannot share any);
* names that are spelled one way only, each once;
* regular files as the only difference, not folders nor links. What links may not do is judged by links alone.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from lambent.control.zip_archive import MAX_ENTRIES, too_large, unpack
from lambent.disk import sync_directory

_LINE = struct.Struct("<4s24xHHH8xI")  # signature, lengths of name, extra and comment, place
_LOCAL = struct.Struct("<4s22xHH")  # signature, lengths of name and extra
_END = struct.Struct("<4sHHHHIIH")
_PLACE = 42  # in a line: four bytes
_KIND = 38  # in a line: permissions and type, four bytes
_FLAGS = 8  # in a line: two bytes
_PACKED = 20  # in a line: the compressed size, four bytes
_UTF8 = 0x800
_ODD = re.compile(rb"[\0/]\.{0,2}/|[\0/]\.{1,2}\0|\0\0")  # in names with zeros around them: empty parts, ".", ".."
_NOWHERE = (0, 0)
_IMPLIED_NS = 315_532_800_000_000_000  # the time of a folder that no entry names: 1980


_Entry = tuple[bytes, int, int]  # line without its place; where the bytes begin and end


class Unpatchable(Exception):
    """The folder is not what the zips let expect."""


@dataclass(frozen=True, slots=True)
class Patch:
    """``fresh`` is a zip of the files that are new or different, empty of none; ``changed`` their names, ``removed`` those that went.

    ``names`` are the new zip's, as they stand there.
    """

    fresh: bytes
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    names: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Directory:
    """The entries of a plain zip: where the bytes of each begin and end, by its line without its place; the lines by their names."""

    spans: dict[bytes, tuple[int, int]]
    lines: dict[bytes, bytes]
    slashes: int


def directory(content: bytes) -> Directory | None:
    """What ``compare`` has to know of the old zip; ``None`` where that is not plain."""
    entries = _entries(content)
    if entries is None:
        return None
    spans = {line: (start, end) for line, start, end in entries}
    lines = {_name(line): line for line in spans}
    if len(lines) != len(entries) or not all(_is_tight(content, *entry) for entry in entries) or not _are_plain(lines, spans):
        return None
    return Directory(spans, lines, b"".join(lines).count(b"/"))


def compare(old: bytes, new: bytes, before: Directory | None) -> Patch | None:
    """What leads from ``old``, a zip that was unpacked, to ``new``, which nobody has looked at; ``None`` where that is not plain.

    ``before`` is ``directory(old)``.
    """
    entries = _entries(new)
    if before is None or entries is None:
        return None
    changed: list[_Entry] = []
    runs: list[tuple[int, int, int, int]] = []  # stretches that both have, in the new and in the old
    start = end = was_start = was_end = 0
    for entry in entries:
        line, first, last = entry
        low, high = before.spans.get(line, _NOWHERE)
        if high - low != last - first:
            changed.append(entry)
        elif first == end and low == was_end:
            end, was_end = last, high
        else:
            runs.append((start, end, was_start, was_end))
            start, end, was_start, was_end = first, last, low, high
    runs.append((start, end, was_start, was_end))
    if any(new[start:end] != old[was_start:was_end] for start, end, was_start, was_end in runs):
        return None
    return _patch(new, before, entries, changed)


def _patch(new: bytes, before: Directory, entries: list[_Entry], changed: list[_Entry]) -> Patch | None:
    """The difference, if it is plain. Of the lines that both zips have, all is known by the old one's."""
    fresh = {_name(line): line for line, _, _ in changed}
    lines = {line for line, _, _ in entries}
    gone = before.spans.keys() - lines
    names = before.lines.keys() - map(_name, gone)
    if len(lines) != len(entries) or len(fresh) != len(changed) or not names.isdisjoint(fresh):
        return None  # a name that is there twice
    if all(_is_folder(line) for line in lines):
        return None  # nothing but folders, which counts as empty
    if not all(_is_file(line) for line in (*fresh.values(), *gone)) or not all(_is_tight(new, *entry) for entry in changed):
        return None
    if not _are_plain(fresh, fresh.values()) or before.slashes + b"".join(fresh).count(b"/") > MAX_ENTRIES:
        return None
    removed = tuple(name.decode() for name in map(_name, gone) if name not in fresh)
    return Patch(_zip(new, changed), tuple(name.decode() for name in fresh), removed, frozenset(names | fresh.keys()))


def apply(patch: Patch, folder: str, workshop: Path, unzipped: int, limit: int) -> int:
    """Make ``folder``, which is what the old zip unpacks to, what the new one does; flushed. Gives the bytes of its files.

    ``workshop`` is an empty folder on the same file system, ``unzipped`` what the old zip's files come to. Raises ``Unpatchable`` or
    ``OSError`` with the folder in any state, ``ClientFault`` in AWS's words for a zip that is refused.
    """
    if patch.changed:
        unpack(patch.fresh, workshop, limit)
    times: dict[str, int] = {}  # of folders that were touched
    for name in patch.removed:
        unzipped -= _size(f"{folder}/{name}")
        _note(os.path.dirname(f"{folder}/{name}"), times)
        os.unlink(f"{folder}/{name}")
    for name in patch.changed:
        _make_parents(folder, name, times)
        target = f"{folder}/{name}"
        if os.path.lexists(target):
            unzipped -= _size(target)
        unzipped += _size(f"{workshop}/{name}")
        os.rename(f"{workshop}/{name}", target)
    if unzipped > limit:
        raise too_large(limit)
    for name in patch.removed:
        _drop_parents(folder, name, patch.names, times)
    for path, when in times.items():
        if path != folder:
            os.utime(path, ns=(when, when))
        sync_directory(path)
    return unzipped


def count(content: bytes) -> int:
    """How many entries a zip says that it has; 0 for one that ends in no plain way."""
    if len(content) < _END.size:
        return 0
    signature, _, _, _, entries, *_ = _END.unpack_from(content, len(content) - _END.size)
    return int(entries) if signature == b"PK\x05\x06" else 0


# ---------------------------------------------------------------------------------------------------------------- the zips


def _entries(content: bytes) -> list[_Entry] | None:
    """The lines of a plain zip's directory, and where their bytes are, in order; nothing else is in the zip."""
    edge = len(content) - _END.size
    if edge < 0:
        return None
    signature, disk, other, here, total, size, place, comment = _END.unpack_from(content, edge)
    if signature != b"PK\x05\x06" or disk or other or comment or here != total or total in (0, 0xFFFF) or place + size != edge:
        return None
    found: list[_Entry] = []
    at, line, begin = place, b"", 0  # the entry before
    for _ in range(total):
        if at + _LINE.size > edge:
            return None
        signature, name, extra, more, start = _LINE.unpack_from(content, at)
        following = at + _LINE.size + name + extra + more
        if signature != b"PK\x01\x02" or following > edge or start > place:
            return None
        if line:
            if start <= begin:
                return None
            found.append((line, begin, start))
        elif start:
            return None
        line, begin = content[at : at + _PLACE] + content[at + _LINE.size : following], start
        at = following
    found.append((line, begin, place))
    return found if at == edge and begin < place else None


def _is_tight(content: bytes, line: bytes, start: int, end: int) -> bool:
    """Whether the entry's header and compressed bytes lie where it is said to be."""
    if start + _LOCAL.size > end:
        return False
    signature, name, extra = _LOCAL.unpack_from(content, start)
    packed = int.from_bytes(line[_PACKED : _PACKED + 4], "little")
    return bool(signature == b"PK\x03\x04" and start + _LOCAL.size + name + extra + packed <= end)


def _are_plain(names: Collection[bytes], lines: Iterable[bytes]) -> bool:
    """Whether each name is a path spelled the one way, so that no two of them can come to the same, and all are text."""
    together = b"\0" + b"\0".join(names) + b"\0"
    if not names:
        return True
    if together.count(b"\0") != len(names) + 1 or together.count(b"/") > MAX_ENTRIES or _ODD.search(together):
        return False
    return together.isascii() or all(_is_utf8(line) for line in lines)


def _is_utf8(line: bytes) -> bool:
    name = _name(line)
    if name.isascii():
        return True
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return bool(int.from_bytes(line[_FLAGS : _FLAGS + 2], "little") & _UTF8)


def _name(line: bytes) -> bytes:
    return line[_PLACE : _PLACE + int.from_bytes(line[28:30], "little")]


def _is_file(line: bytes) -> bool:
    kind = stat.S_IFMT(int.from_bytes(line[_KIND : _KIND + 4], "little") >> 16)
    return kind in (0, stat.S_IFREG) and not _name(line).endswith(b"/")


def _is_folder(line: bytes) -> bool:
    return stat.S_IFMT(int.from_bytes(line[_KIND : _KIND + 4], "little") >> 16) == stat.S_IFDIR or _name(line).endswith(b"/")


def _zip(content: bytes, entries: list[_Entry]) -> bytes:
    """These entries of ``content`` as a zip of their own."""
    pieces, lines, place = [], [], 0
    for line, start, end in entries:
        pieces.append(content[start:end])
        lines.append(line[:_PLACE] + place.to_bytes(4, "little") + line[_PLACE:])
        place += end - start
    size = sum(map(len, lines))
    return b"".join([*pieces, *lines, _END.pack(b"PK\x05\x06", 0, 0, len(entries), len(entries), size, place, 0)])


# --------------------------------------------------------------------------------------------------------------- the folder


def _size(path: str) -> int:
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        raise Unpatchable(path)
    return found.st_size


def _make_parents(folder: str, name: str, times: dict[str, int]) -> None:
    """Have real folders on the way to ``name``, and note the one that it goes to."""
    path = folder
    for part in name.split("/")[:-1]:
        above, path = path, f"{path}/{part}"
        try:
            kind = os.lstat(path).st_mode
        except FileNotFoundError:
            _note(above, times)
            os.mkdir(path)
            os.chmod(path, 0o755)
            times[path] = _IMPLIED_NS
        else:
            if not stat.S_ISDIR(kind):
                raise Unpatchable(path)
    _note(path, times)


def _drop_parents(folder: str, name: str, names: frozenset[bytes], times: dict[str, int]) -> None:
    """Folders that stood for nothing but what was in them go with it."""
    while "/" in name:
        name = name.rpartition("/")[0]
        path = f"{folder}/{name}"
        named = name.encode()
        if named in names or named + b"/" in names or not os.path.lexists(path) or os.listdir(path):
            return
        _note(os.path.dirname(path), times)
        os.rmdir(path)
        times.pop(path, None)


def _note(path: str, times: dict[str, int]) -> None:
    if path not in times:
        times[path] = os.lstat(path).st_mtime_ns
