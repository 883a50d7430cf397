"""Unpacking a stranger's zip.

Nothing in a zip is trusted: not its directory, sizes, names, types nor modes. The rules, each of which stands on its own:

* The central directory is counted before an object is made for any of its entries (``_Archive``), so that a directory of millions of
  entries costs no memory.
* What is inflated is counted as it comes out, never read from a header; past the limit the work stops. Entries may not share bytes, so
  that the work is bounded by the archive's length too.
* A name is split at ``/``; ``.`` and empty parts vanish (``./a.py`` is ``a.py``), ``..`` and a leading ``/`` refuse the archive. A
  backslash is an ordinary character, as it is on Linux.
* Only regular files, folders and symbolic links are made; devices, pipes and sockets refuse the archive. A link must be relative and
  must end inside the folder, with every link on its way followed; others refuse the archive. (AWS keeps any link; one that points
  outside is of no use there, since nothing outside ``/var/task`` comes from the zip.)
* Links are made last, when no file is written any more, so that nothing is ever written through one.
* Of two files with the same name the last one stands, as with ``unzip``. A name that is both a file and a folder refuses the archive.
* Files keep their mode within ``rwxr-xr-x`` and are readable by all; folders are ``rwxr-xr-x``; set-id bits vanish. Files of an archive
  that knows no Unix modes get ``rw-r--r--``. Times are taken as UTC.

Everything here is blocking and runs in a thread.
"""

from __future__ import annotations

import calendar
import io
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lambent.disk import sync_file_system
from lambent.errors import ClientFault, invalid_parameter

MAX_ENTRIES = 100_000
MAX_PATH = 2_048  # bytes of one name
MAX_PART = 255  # bytes between two slashes, what Linux file systems take
MAX_LINK = 1_024
MAX_DEPTH = 128
MAX_HOPS = 40  # links on the way of a link, what Linux follows
MAX_STEPS = 1_000_000
CHUNK = 1 << 18
FEW_FILES = 32  # up to so many are flushed one by one; beyond it the file system as a whole is

_CENTRAL_ENTRY = b"PK\x01\x02"
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_BROKEN = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    NotImplementedError,  # a compression method or a version that zipfile lacks
    RuntimeError,  # encrypted
    EOFError,
    ValueError,  # includes UnicodeDecodeError
    OverflowError,
    IndexError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What came out: bytes of all files, and how many entries were made."""

    size: int
    entries: int


def unpack(content: bytes, target: Path, limit: int) -> Unpacked:
    """Unpack ``content`` into the existing, empty folder ``target``, and flush it to the disk.

    ``limit`` bounds the bytes that come out. Raises ``ClientFault`` in AWS's words (contract 01 §5.1); whatever was written until then is
    the caller's to remove. ``OSError`` means that this machine failed, not the archive.
    """
    try:
        with zipfile.ZipFile(_Archive(content)) as archive:
            plan = _plan(archive.infolist(), len(content))
            size = _write(archive, plan, target, limit)
    except _BROKEN as error:
        raise broken() from error
    _finish_folders(plan, target)
    flush(target, len(plan.files))
    return Unpacked(size, len(plan.files) + len(plan.folders) + len(plan.links))


def broken() -> ClientFault:
    return invalid_parameter("Could not unzip uploaded file. Please check your file, then try to upload again.")


def too_large(limit: int) -> ClientFault:
    return invalid_parameter(f"Unzipped size must be smaller than {limit} bytes")


class _Archive(io.BytesIO):
    """The bytes of the archive; reading a central directory of too many entries fails.

    ``zipfile`` reads the whole directory in one call before it looks at it, so counting signatures in what is read bounds exactly what it
    is about to parse, whatever the numbers in the archive claim. Data of entries is read in pieces too small to reach the bound.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        if chunk.count(_CENTRAL_ENTRY) > MAX_ENTRIES:
            raise zipfile.BadZipFile("too many entries")
        return chunk


Name = tuple[str, ...]


@dataclass(slots=True)
class _Plan:
    """What is to be made, by name."""

    folders: dict[Name, zipfile.ZipInfo | None]
    files: dict[Name, zipfile.ZipInfo]
    links: dict[Name, zipfile.ZipInfo]


def _plan(entries: list[zipfile.ZipInfo], length: int) -> _Plan:
    """Sort the entries by what they are. Raises for every entry that may not be made, before anything is."""
    if sum(info.compress_size for info in entries) > length:
        raise broken()  # entries that overlap: much work for few bytes
    plan = _Plan({}, {}, {})
    for info in entries:
        name = _name(info)
        if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
            raise broken()
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.orig_filename.endswith("/") or kind == stat.S_IFDIR:
            if name:
                plan.folders[name] = info
        elif kind in (0, stat.S_IFREG) and name:
            plan.links.pop(name, None)
            plan.files[name] = info
        elif kind == stat.S_IFLNK and name:
            plan.files.pop(name, None)
            plan.links[name] = info
        else:
            raise broken()
    if not plan.files and not plan.links:
        raise invalid_parameter("Uploaded file must be a non-empty zip")
    _add_parents(plan)
    if any(name in plan.files or name in plan.links for name in plan.folders):
        raise broken()
    return plan


def _add_parents(plan: _Plan) -> None:
    for name in [*plan.files, *plan.links, *plan.folders]:
        for depth in range(len(name) - 1, 0, -1):
            parent = name[:depth]
            if parent in plan.folders:
                break
            plan.folders[parent] = None
        if len(plan.folders) > MAX_ENTRIES:
            raise broken()


def _name(info: zipfile.ZipInfo) -> Name:
    text = info.orig_filename
    if "\0" in text or text.startswith("/") or len(text.encode()) > MAX_PATH:
        raise broken()
    parts = tuple(part for part in text.split("/") if part not in ("", "."))
    if ".." in parts or len(parts) > MAX_DEPTH or any(len(part.encode()) > MAX_PART for part in parts):
        raise broken()
    return parts


def _write(archive: zipfile.ZipFile, plan: _Plan, target: Path, limit: int) -> int:
    links = {name: _read_link(archive, info) for name, info in plan.links.items()}
    require_inside({name: tuple(os.fsdecode(end).split("/")) for name, end in links.items()})
    for name in sorted(plan.folders, key=len):
        os.mkdir(target.joinpath(*name), 0o755)
    size = 0
    for name, info in plan.files.items():
        size = _write_file(archive, info, target.joinpath(*name), size, limit)
    for name, end in links.items():
        os.symlink(end, os.fsencode(target.joinpath(*name)))
    return size


def _write_file(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, size: int, limit: int) -> int:
    mode = info.external_attr >> 16
    with archive.open(info) as source, open(path, "xb") as sink:
        while chunk := source.read(CHUNK):
            size += len(chunk)
            if size > limit:
                raise too_large(limit)
            sink.write(chunk)
        os.fchmod(sink.fileno(), (mode & 0o755) | 0o444 if mode else 0o644)
    when = _when(info)
    os.utime(path, (when, when))
    return size


def _read_link(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as source:
        end = source.read(MAX_LINK + 1)
    if not end or len(end) > MAX_LINK or b"\0" in end or end.startswith(b"/"):
        raise broken()
    return end


def require_inside(links: Mapping[Name, Name]) -> None:
    """Refuse links of which one leads above the folder. Keys are names of links, values the parts of what they point to.

    Every link on the way is followed, as the kernel does. The kernel gives up after 40 of them; a link that needs more, such as one that
    leads to itself, is of no use to anybody and refused as well. The steps are counted over all links together, since links of links of
    links are cheap to write and dear to walk.
    """
    steps = 0
    for name in links:
        here = list(name[:-1])
        ahead = list(reversed(links[name]))
        hops = 0
        while ahead:
            steps += 1
            if steps > MAX_STEPS or hops > MAX_HOPS:
                raise broken()
            part = ahead.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not here:
                    raise broken()
                here.pop()
                continue
            end = links.get((*here, part))
            if end is None:
                here.append(part)
            else:
                hops += 1
                ahead.extend(reversed(end))


def _finish_folders(plan: _Plan, target: Path) -> None:
    for name in sorted(plan.folders, key=len, reverse=True):
        info = plan.folders[name]
        when = 315_532_800 if info is None else _when(info)
        os.chmod(target.joinpath(*name), 0o755)  # mkdir's mode is subject to the umask
        os.utime(target.joinpath(*name), (when, when))


def _when(info: zipfile.ZipInfo) -> int:
    """Seconds since the epoch; 1980 where the archive names no real date."""
    year, month, day, hour, minute, second = info.date_time
    if not (year >= 1980 and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 62):
        return 315_532_800
    return calendar.timegm((year, month, day, hour, minute, second))


def flush(folder: Path, files: int) -> None:
    """Bring ``folder`` and all in it to the disk: one by one, or, for many files, with one flush of the file system."""
    if files > FEW_FILES and sync_file_system(folder):
        return
    for path in _tree(folder):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _tree(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        del folders
        for name in files:
            path = os.path.join(place, name)
            if not os.path.islink(path):
                yield path
        yield place
