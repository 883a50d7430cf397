"""Unpacking a stranger's layer into a folder that overlayfs can lay over others.

Nothing in a layer is trusted. The rules:

* The folder is ours alone while it is made, so what it holds is known from what was written. Names are walked in that knowledge, as if the
  folder were ``/``: a symbolic link on the way is followed inside, ``..`` stops at the top, and nothing is ever opened through a link by
  the kernel. Symbolic links are kept as they are, absolute ones too; they mean something inside the sandbox only.
* Hard links must lead to a file of the same layer. Devices and pipes are left out. Set-id bits vanish; extended attributes (capabilities,
  overlayfs's own) are not taken over. Everything belongs to whoever unpacks, root as a rule; modes are the image's, as on AWS, so a file
  that only root may read stays unreadable to functions.
* What comes out is counted against the budget of the whole image; entries, lengths of names and links followed are bounded.
* ``.wh.NAME`` becomes a whiteout, ``.wh..wh..opq`` makes its folder opaque (``overlay.py``), whatever their order. A name that a layer both
  removes and makes anew is made; as a folder it hides the one below.
* The hash of all uncompressed bytes must be the diff id that the image's configuration names.

All of it is blocking and runs in a thread.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from lambent.images.faults import invalid
from lambent.images.overlay import make_opaque, make_whiteout
from lambent.images.streams import CHUNK, Forward, Inflated

MAX_ENTRIES = 1_000_000  # of one image
MAX_PATH = 3_072  # bytes of one name
MAX_PART = 255
MAX_HOPS = 40
OVERHEAD = 2_048  # bytes of tar around one entry

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_AUFS = ".wh..wh."
_BROKEN = (tarfile.TarError, ValueError, OverflowError, IndexError, KeyError, RecursionError, EOFError)

Name = tuple[str, ...]


@dataclass(slots=True)
class Budget:
    """What all layers of an image together may take."""

    size: int
    entries: int = MAX_ENTRIES

    def take_entry(self) -> None:
        self.entries -= 1
        if self.entries < 0:
            raise invalid(f"the image has more than {MAX_ENTRIES} files")

    def take(self, size: int) -> None:
        self.size -= size
        if self.size < 0:
            raise invalid("the image is larger than the limit, unpacked")


def unpack(source: IO[bytes], target: Path, diff_id: str, budget: Budget, go_on: Callable[[], None] = lambda: None) -> int:
    """Unpack the layer in ``source`` into the existing, empty folder ``target``, unflushed; gives the bytes of its files.

    Raises ``ImageFault`` for what is wrong with the layer, ``OSError`` for what is wrong with this machine; what was written until then is
    the caller's to remove. ``go_on`` is called for each entry and may raise to stop.
    """
    before = budget.size
    stream = Inflated(source, budget.size + budget.entries * OVERHEAD)
    work = _Unpacking(str(target), budget)
    try:
        with tarfile.open(fileobj=cast(IO[bytes], Forward(stream)), mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            while (entry := archive.next()) is not None:
                go_on()
                archive.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
                work.add(entry, archive)
    except _BROKEN as error:
        raise invalid(f"the layer is no valid tar file: {error}") from error
    if stream.drain() != diff_id:
        raise invalid(f"the layer {diff_id} has other content than its name says")
    work.finish()
    return before - budget.size


@dataclass(slots=True)
class _Folder:
    mode: int = 0o755
    when: int = 0


@dataclass(slots=True)
class _Unpacking:
    """``root`` is the folder; the rest is what it holds by now."""

    root: str
    budget: Budget
    folders: dict[Name, _Folder] = field(default_factory=lambda: {(): _Folder()})
    links: dict[Name, str] = field(default_factory=dict)
    removed: list[Name] = field(default_factory=list)
    opaque: set[Name] = field(default_factory=set)

    def add(self, entry: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        self.budget.take_entry()
        parts = _parts(entry.name)
        if not parts:
            if entry.isdir():
                self.folders[()] = _Folder(entry.mode & 0o1777, _when(entry))
            return
        parent, last = self.walk(parts[:-1]), parts[-1]
        if last.startswith(_WHITEOUT):
            self._remove(parent, last)
            return
        name = (*parent, last)
        if entry.isdir():
            self._folder(name, entry)
        elif entry.isreg():
            self._make_way(name)
            self._file(name, entry, archive)
        elif entry.issym():
            self._make_way(name)
            self._link(name, entry)
        elif entry.islnk():
            self._hard_link(name, entry)

    def walk(self, parts: Name) -> Name:
        """The folder that ``parts`` lead to, with links followed; made where it is missing."""
        here: list[str] = []
        ahead = list(reversed(parts))
        hops = 0
        while ahead:
            part = ahead.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del here[-1:]
                continue
            name = (*here, part)
            end = self.links.get(name)
            if end is not None:
                hops += 1
                if hops > MAX_HOPS:
                    raise invalid(f"too many links on the way to {'/'.join(parts)!r}")
                if end.startswith("/"):
                    here = []
                ahead.extend(reversed(end.split("/")))
                continue
            here.append(part)
            if name not in self.folders:
                self._new_folder(name)
        return tuple(here)

    def path(self, name: Name) -> str:
        return "/".join((self.root, *name))

    def _new_folder(self, name: Name) -> None:
        if len(os.fsencode("/".join(name))) > MAX_PATH:
            raise invalid("a path of the layer is too long")
        self.budget.take_entry()
        try:
            os.mkdir(self.path(name), 0o700)
        except FileExistsError:
            raise invalid(f"{'/'.join(name)!r} is both a file and a folder") from None
        self.folders[name] = _Folder()

    def _folder(self, name: Name, entry: tarfile.TarInfo) -> None:
        if name not in self.folders:
            self._make_way(name)
            self._new_folder(name)
        self.folders[name] = _Folder(entry.mode & 0o1777, _when(entry))

    def _make_way(self, name: Name) -> None:
        """Of two entries with the same name the last one stands."""
        if name in self.folders:
            try:
                os.rmdir(self.path(name))
            except OSError:
                raise invalid(f"{'/'.join(name)!r} is both a file and a folder") from None
            del self.folders[name]
            self.opaque.discard(name)
        elif os.path.lexists(self.path(name)):
            os.unlink(self.path(name))
            self.links.pop(name, None)

    def _file(self, name: Name, entry: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        content = archive.extractfile(entry)
        if content is None:
            raise invalid(f"{'/'.join(name)!r} has no content")
        self.budget.take(entry.size)
        descriptor = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with content, open(descriptor, "wb", buffering=0) as sink:
            left = entry.size
            while left:
                piece = content.read(min(CHUNK, left))
                if not piece:
                    raise invalid(f"{'/'.join(name)!r} is cut short")
                left -= len(piece)
                view = memoryview(piece)
                while view:
                    view = view[sink.write(view) :]
            os.fchmod(descriptor, entry.mode & 0o777)
            os.utime(descriptor, (_when(entry), _when(entry)))

    def _link(self, name: Name, entry: tarfile.TarInfo) -> None:
        end = entry.linkname
        if not end or "\0" in end or len(os.fsencode(end)) > MAX_PATH:
            raise invalid(f"the link {'/'.join(name)!r} leads nowhere")
        os.symlink(end, self.path(name))
        self.links[name] = end

    def _hard_link(self, name: Name, entry: tarfile.TarInfo) -> None:
        parts = _parts(entry.linkname)
        other = (*self.walk(parts[:-1]), parts[-1]) if parts else ()
        if other == name:
            return
        try:
            kind = os.lstat(self.path(other)).st_mode
        except OSError:
            raise invalid(f"the hard link {'/'.join(name)!r} leads to {entry.linkname!r}, which this layer lacks") from None
        if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
            raise invalid(f"the hard link {'/'.join(name)!r} leads to no file")
        self._make_way(name)
        os.link(self.path(other), self.path(name), follow_symlinks=False)
        if other in self.links:
            self.links[name] = self.links[other]

    def _remove(self, parent: Name, last: str) -> None:
        if last == _OPAQUE:
            self.opaque.add(parent)
        elif not last.startswith(_AUFS):
            name = last[len(_WHITEOUT) :]
            if name in ("", ".", ".."):
                raise invalid(f"{last!r} removes nothing")
            self.removed.append((*parent, name))

    def finish(self) -> None:
        """Whiteouts, and what folders get at last: modes may forbid writing, and times change with each entry."""
        for name in self.removed:
            if name[:-1] not in self.folders:
                continue  # a file or a link took the place of the folder that it was in, and hides all below by itself
            if name in self.folders:
                self.opaque.add(name)
            elif not os.path.lexists(self.path(name)):
                make_whiteout(self.path(name))
        for name in self.opaque:
            make_opaque(self.path(name))
        for name in sorted(self.folders, key=len, reverse=True):
            folder = self.folders[name]
            os.utime(self.path(name), (folder.when, folder.when))
            os.chmod(self.path(name), folder.mode)


def _parts(text: str) -> Name:
    parts = tuple(part for part in text.split("/") if part not in ("", "."))
    if "\0" in text or ".." in parts:
        raise invalid(f"the layer holds the name {text!r}")
    if len(os.fsencode(text)) > MAX_PATH or any(len(os.fsencode(part)) > MAX_PART for part in parts):
        raise invalid("a name of the layer is too long")
    return parts


def _when(entry: tarfile.TarInfo) -> int:
    return min(max(int(entry.mtime), 0), 1 << 33)
