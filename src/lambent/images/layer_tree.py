"""What a sandbox will see where, told from the folders of an image's layers without mounting them.

Lookups follow overlayfs: the topmost entry stands, folders merge with those below, a whiteout or an opaque folder hides what is below it.
Symbolic links are followed inside, as if the stack were ``/``; nothing outside the folders is ever looked at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lambent.images.overlay import is_opaque, is_whiteout

EXTENSIONS = "/opt/extensions"
MAX_HOPS = 40


@dataclass(frozen=True, slots=True)
class Found:
    """``places`` are host paths, top first: one for a file or a link, those that merge for a folder."""

    places: tuple[str, ...]
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


@lru_cache(1024)
def extensions(layers: tuple[str, ...]) -> tuple[str, ...]:
    """The executables in ``/opt/extensions``, by name, as paths inside. ``layers`` are bottom first and never change."""
    found = []
    for name in entries(layers, EXTENSIONS):
        path = f"{EXTENSIONS}/{name}"
        file = find(layers, path)
        if file is not None and stat.S_ISREG(file.status.st_mode) and file.status.st_mode & 0o111:
            found.append(path)
    return tuple(found)


def find(layers: Sequence[str], path: str) -> Found | None:
    """What is at ``path``, an absolute path inside, links followed; ``None`` for nothing. ``layers`` are bottom first."""
    root = _root(layers)
    trail = [root]
    ahead = [part for part in reversed(path.split("/")) if part]
    hops = 0
    while ahead:
        part = ahead.pop()
        here = trail[-1]
        if not here.is_folder:
            return None
        if part == "." or not part:
            continue
        if part == "..":
            trail = trail[:-1] or [root]
            continue
        found = _child(here, part)
        if found is None:
            return None
        if stat.S_ISLNK(found.status.st_mode):
            hops += 1
            if hops > MAX_HOPS:
                return None
            end = os.readlink(found.places[0])
            if end.startswith("/"):
                trail = [root]
            ahead.extend(reversed(end.split("/")))
            continue
        trail.append(found)
    return trail[-1]


def entries(layers: Sequence[str], path: str) -> list[str]:
    """The names in the folder at ``path``, sorted; none where there is no such folder."""
    folder = find(layers, path)
    if folder is None or not folder.is_folder:
        return []
    names = {name for place in folder.places for name in os.listdir(place)}
    return sorted(name for name in names if _child(folder, name) is not None)


def _root(layers: Sequence[str]) -> Found:
    places: list[str] = []
    for layer in reversed(layers):
        places.append(layer)
        if is_opaque(layer):
            break
    return Found(tuple(places), os.lstat(places[0]))


def _child(folder: Found, name: str) -> Found | None:
    places: list[str] = []
    first: os.stat_result | None = None
    for place in folder.places:
        path = f"{place}/{name}"
        try:
            status = os.lstat(path)
        except OSError:
            continue
        if is_whiteout(path, status):
            break
        if not stat.S_ISDIR(status.st_mode):
            return Found((path,), status) if first is None else Found(tuple(places), first)
        places.append(path)
        first = first or status
        if is_opaque(path):
            break
    return None if first is None else Found(tuple(places), first)
