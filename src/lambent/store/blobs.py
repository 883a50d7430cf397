"""Content-addressed bytes in a folder: ``ab/abcdef...`` by SHA-256, written whole or not at all.

A blob is written to a temporary file, flushed, renamed to its address, and the folder flushed: whoever gets the address back
may pull the plug. Storing what is there already costs a look and the flush of an unchanged folder. The content is checked against
its address when it is read, since code identity rests on it. All I/O happens in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

from lambent.disk import sync_directory
from lambent.store.connection import unavailable
from lambent.store.contract import StoreUnavailable

_ADDRESS = re.compile(r"[0-9a-f]{64}")
_HELD = "held-"
_FAN = re.compile(r"[0-9a-f]{2}")


class FileBlobs:
    """``store.contract.Blobs`` in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._temporary = directory / "tmp"
        self._holders = 0

    async def open(self) -> None:
        """Make the folder, and clear away what a killed process left half-written."""
        await asyncio.to_thread(self._open)

    async def put(self, content: bytes) -> str:
        return await asyncio.to_thread(self._put, content)

    async def get(self, address: str) -> bytes | None:
        return await asyncio.to_thread(self._get, address) if _ADDRESS.fullmatch(address) else None

    async def delete(self, address: str) -> None:
        """Deleting what is not there is no error."""
        if _ADDRESS.fullmatch(address):
            await asyncio.to_thread(self._delete, address)

    async def addresses(self) -> AsyncIterator[str]:
        """Every address, in no order; blobs that come or go meanwhile may or may not be among them."""
        for fan in await asyncio.to_thread(self._list, self._directory, _FAN):
            for address in await asyncio.to_thread(self._list, self._directory / fan, _ADDRESS):
                yield address

    @contextlib.contextmanager
    def holding_all(self) -> Iterator[None]:
        """Until the last holder leaves, what is deleted can still be opened. A killed process leaves nothing of it behind."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                for path in self._temporary.glob(f"{_HELD}*"):
                    path.unlink(missing_ok=True)

    async def held(self) -> list[str]:
        """The addresses that were deleted and can still be opened."""
        pattern = re.compile(_HELD + _ADDRESS.pattern)
        return [name.removeprefix(_HELD) for name in await asyncio.to_thread(self._list, self._temporary, pattern)]

    def open_file(self, address: str) -> IO[bytes]:
        """The blob's file, for reading, also where it was deleted while somebody holds all. Blocks. Raises ``FileNotFoundError``."""
        try:
            return self._path(address).open("rb")
        except FileNotFoundError:
            return (self._temporary / (_HELD + address)).open("rb")

    def _path(self, address: str) -> Path:
        return self._directory / address[:2] / address

    def _open(self) -> None:
        with unavailable(self._directory):
            self._temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
            for leftover in self._temporary.iterdir():
                leftover.unlink()
            sync_directory(self._directory)

    def _put(self, content: bytes) -> str:
        address = hashlib.sha256(content).hexdigest()
        path = self._path(address)
        with unavailable(path):
            if not _is_file_of(path, len(content)):
                if not path.parent.is_dir():
                    path.parent.mkdir(mode=0o700, exist_ok=True)
                    sync_directory(self._directory)
                self._write(path, content)
            sync_directory(path.parent)
        return address

    def _write(self, path: Path, content: bytes) -> None:
        temporary = self._temporary / secrets.token_hex(16)
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb", buffering=0) as file:
                view = memoryview(content)
                while view:
                    view = view[file.write(view) :]
                os.fsync(fd)
            temporary.rename(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def _get(self, address: str) -> bytes | None:
        path = self._path(address)
        with unavailable(path):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                return None
        if hashlib.sha256(content).hexdigest() != address:
            raise StoreUnavailable(f"{path}: the content does not match its address; the file is damaged")
        return content

    def _delete(self, address: str) -> None:
        path = self._path(address)
        with unavailable(path), contextlib.suppress(FileNotFoundError):
            if self._holders:
                path.rename(self._temporary / (_HELD + address))
            else:
                path.unlink()
            sync_directory(path.parent)

    def _list(self, folder: Path, pattern: re.Pattern[str]) -> list[str]:
        with unavailable(folder):
            try:
                return [entry.name for entry in os.scandir(folder) if pattern.fullmatch(entry.name)]
            except FileNotFoundError:
                return []


def _is_file_of(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False
