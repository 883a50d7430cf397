"""Copies of folders of code, made of hard links and kept ready, for the next edit to change (``zip_patch.py``).

Making a folder of thousands of files takes longer than anybody likes to wait, even of links. So after code has changed, a *spare* of it is
made while nobody waits; the next change takes the spare, alters the few files that differ, and gives it its name.

Why a link is safe: folders of code are never changed, only made and removed (``code.py``), and removing one takes away names, not files
that others name. A spare has no name that anybody runs from, and a file in it is never written to: another takes its place. Where
functions could write to their code, with plain processes for sandboxes, there are no spares.
"""

from __future__ import annotations

import os
import shutil
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from lambent.control.zip_archive import flush
from lambent.control.zip_patch import Directory

KEPT = 3
MIN_FILES = 100  # below that, making a folder anew is quick enough


@dataclass(frozen=True, slots=True)
class Spare:
    """A folder that is what some code is, and what ``zip_patch.compare`` has to know of its zip."""

    folder: Path
    directory: Directory | None


class Spares:
    """The spares at hand, by the hash of their code. Not thread-safe; what is dropped is the caller's to remove."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._ready: OrderedDict[str, Spare] = OrderedDict()

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._ready

    def take(self, sha256: str) -> Spare | None:
        """The spare of this code; from now on the caller's."""
        return self._ready.pop(sha256, None)

    def keep(self, sha256: str, spare: Spare) -> list[Spare]:
        """Keep a spare; gives those that there is no room for any more."""
        dropped = [before] if (before := self._ready.pop(sha256, None)) is not None else []
        self._ready[sha256] = spare
        while len(self._ready) > self._kept:
            dropped.append(self._ready.popitem(last=False)[1])
        return dropped


def copy(source: Path, target: Path) -> int:
    """Make the existing, empty folder ``target`` what ``source`` is, of links, and flush it; gives how many. Raises ``OSError``; blocks."""
    linked = 0
    pending = [(str(source), str(target))]
    times: list[tuple[str, int]] = []
    while pending:
        origin, place = pending.pop()
        with os.scandir(origin) as entries:
            for entry in entries:
                path = f"{place}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    os.mkdir(path)
                    os.chmod(path, 0o755)
                    times.append((path, entry.stat(follow_symlinks=False).st_mtime_ns))
                    pending.append((entry.path, path))
                else:
                    os.link(entry.path, path, follow_symlinks=False)
                    linked += 1
    for path, when in reversed(times):
        os.utime(path, ns=(when, when))
    flush(target, linked)
    return linked


def discard(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
