"""Fetching a blob into a file: resumed where the last attempt ended, bounded by its size, checked against its digest. Blocking.

The file grows in place; a killed process, or a connection that breaks, leaves a beginning that the next attempt goes on from. Since nobody
vouches for what a crash left, a whole that does not match is fetched once more from the start before the blob is called bad.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from lambent.images.faults import INVALID, UNREACHABLE, ImageFault, invalid
from lambent.images.manifest import MAX_DOCUMENT, Blob
from lambent.images.sources import Source

FRUITLESS = 3  # attempts in a row without one new byte
CHUNK = 1 << 20


class _Short(ImageFault):
    """The bytes ended early without a word: the connection's fault, or, if they always do, the image's."""


def fetch(source: Source, blob: Blob, path: Path, go_on: Callable[[], None] = lambda: None) -> None:
    """``go_on`` is called for each piece and may raise to stop. Raises ``ImageFault``, and ``OSError`` where this machine fails."""
    resumed = path.exists()
    while True:
        _complete(source, blob, path, go_on)
        if _hash(path) == blob.digest:
            return
        path.unlink()
        if not resumed:
            raise invalid(f"the registry gave other bytes than {blob.digest}")
        resumed = False


def fetch_small(source: Source, blob: Blob) -> bytes:
    """A blob that is kept in memory: the configuration."""
    if blob.size > MAX_DOCUMENT:
        raise invalid(f"{blob.digest} is larger than {MAX_DOCUMENT} bytes")
    content = bytearray()
    for piece in source.blob(blob, 0)[1]:
        content += piece
        if len(content) > blob.size:
            break
    if len(content) != blob.size or f"sha256:{hashlib.sha256(content).hexdigest()}" != blob.digest:
        raise invalid(f"the registry gave other bytes than {blob.digest}")
    return bytes(content)


def _complete(source: Source, blob: Blob, path: Path, go_on: Callable[[], None]) -> None:
    fruitless = 0
    while True:
        before = _size(path)
        try:
            _append(source, blob, path, before, go_on)
            return
        except ImageFault as fault:
            if fault.code != UNREACHABLE and not isinstance(fault, _Short):
                raise
            fruitless = 0 if _size(path) > before else fruitless + 1
            if fruitless == FRUITLESS:
                raise


def _append(source: Source, blob: Blob, path: Path, offset: int, go_on: Callable[[], None]) -> None:
    if offset > blob.size:
        os.truncate(path, 0)
        offset = 0
    if offset == blob.size and path.exists():
        return
    start, pieces = source.blob(blob, offset)
    with open(path, "r+b" if path.exists() else "xb") as file:
        file.truncate(start)
        file.seek(start)
        size = start
        for piece in pieces:
            go_on()
            size += len(piece)
            if size > blob.size:
                raise invalid(f"{blob.digest} is larger than the manifest says")
            file.write(piece)
    if size < blob.size:
        raise _Short(INVALID, f"{blob.digest} ended after {size} of {blob.size} bytes")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _hash(path: Path) -> str:
    hashed = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(CHUNK):
            hashed.update(piece)
    return f"sha256:{hashed.hexdigest()}"
