"""Where the code of functions lives: once per content, as a folder to run from and as the zip to hand back.

    <root>/<sha256 hex>/      the unpacked zip; what sandboxes see as /var/task
    <root>/<sha256 hex>/      or several layers merged, under the hash of the list of their hashes; what sandboxes see as /opt
    <root>/.tmp-<random>/     being unpacked; swept away at the next start
    blobs                     the zip itself, under the same SHA-256, unless it stays in a bucket (``referenced_code.py``)
    store, kind "code"        that this content is code of ours; other parts may keep other things in the same blobs

A folder appears under its final name by one rename, after everything in it is on the disk. It is therefore whole or absent, whatever is
killed when, and since its name is the hash of its content it is never changed, only shared and at last removed. The blob is the truth: a
missing folder is unpacked anew (``ensure``), a missing merge made anew (``ensure_layers``).

**Who keeps code.** The owner of the functions says what is used (``used``, from its documents), the data plane says what still runs
(``running``, from its environments), and ``put`` holds what it made until the caller has committed a document that names it. Code that
none of the three keeps is removed, but only after ``GRACE_S``: an invocation that resolved the old version a moment ago may be about to
start an environment from it. Code that is used, but only by those who refer to it in a bucket, has a folder and no zip (``copied``); the
zip of one who kept a copy before goes the same way as code that nobody uses.

Unpacking is heavy and blocking: it runs in ``PARALLEL`` threads, never on the event loop. Code that differs from what it replaces in a few
files of many is not unpacked but made from the folder before, of links (``zip_patch.py``, ``code_spares.py``): the same folder, sooner.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from lambent.clock import Clock
from lambent.control.code_links import CodeLinks
from lambent.control.code_source import Reference
from lambent.control.code_spares import MIN_FILES, Spare, Spares, copy, discard
from lambent.control.layer_merge import merge, merged_key
from lambent.control.zip_archive import flush, unpack
from lambent.control.zip_patch import Unpatchable, apply, compare, count, directory
from lambent.disk import sync_directory
from lambent.errors import ClientFault, PlatformFault
from lambent.settings import Limits
from lambent.store.contract import Blobs, Delete, Put, Store, StoreUnavailable
from lambent.turns import Turns

KIND = "code"
PARALLEL = 2
GRACE_S = 60.0
SPARE_AFTER_S = 0.3  # after a change, when its environments have started
_TEMPORARY = ".tmp-"

T = TypeVar("T")
Used = Callable[[str], bool]
Fetch = Callable[[], Awaitable[bytes]]
"""Brings a zip that is kept elsewhere; it is the right one."""


class CodeLost(PlatformFault):
    """Neither the folder nor the zip of some code exists any more."""


@dataclass(frozen=True, slots=True)
class Code:
    """One zip. ``size`` is that of the zip, ``unzipped`` that of its files, both in bytes. ``reference``: it stays in a bucket.

    Or a container image: ``sha256`` is its digest, ``image_uri`` the name that was given, ``resolved_uri`` the one with the digest.
    """

    sha256: str
    size: int
    unzipped: int
    image_uri: str = ""
    resolved_uri: str = ""
    reference: Reference | None = None


class CodeStore:
    """``running(sha256)`` says whether any execution environment still lives on that code.

    ``linking``: folders may share files by links, as functions cannot write to their code.
    """

    def __init__(
        self,
        root: Path,
        store: Store,
        blobs: Blobs,
        links: CodeLinks,
        limits: Limits,
        clock: Clock,
        running: Callable[[str], bool],
        linking: bool = False,
    ) -> None:
        self._root = root.absolute()
        self._store = store
        self._blobs = blobs
        self._links = links
        self._limits = limits
        self._clock = clock
        self._running = running
        self._held: Counter[str] = Counter()
        self._turns = Turns()  # one at a time per content
        self._unused_since: dict[str, float] = {}
        self._threads = ThreadPoolExecutor(PARALLEL, "unzip")
        self._linking = linking
        self._spares = Spares()
        self._making: dict[str, asyncio.Task[None]] = {}  # spares, by the hash of their code
        self._outdated: set[str] = set()  # of these, the ones that are not wanted any more
        self.elsewhere: Callable[[str], Awaitable[bytes | None]] = _nowhere  # zips that are not kept here, by their SHA-256

    def close(self) -> None:
        """Wait for the threads; further calls fail."""
        for task in list(self._making.values()):
            task.cancel()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def folder(self, sha256: str) -> str:
        return str(self._root / sha256)

    def has(self, sha256: str) -> bool:
        """Whether the folder is there."""
        return (self._root / sha256).is_dir()

    def location(self, base_url: str, sha256: str) -> str:
        """A ``Code.Location``."""
        return self._links.make(base_url, sha256)

    async def download(self, sha256: str, expires: str, token: str) -> bytes | None:
        """The zip for a URL that ``location`` made; ``None`` for any other."""
        if not self._links.verify(sha256, expires, token):
            return None
        return await self._blobs.get(sha256) or await self.elsewhere(sha256)

    @contextlib.asynccontextmanager
    async def put(self, content: bytes, direct: bool = True, before: str = "", reference: Reference | None = None) -> AsyncIterator[Code]:
        """Store a zip, durably, and keep it while the caller commits what refers to it. ``direct``: it came in a request.

        ``before`` is the hash of code that it may have much in common with. Of a zip with a ``reference`` only the folder is made. Raises
        ``ClientFault`` for a zip that is too large or that ``zip_archive`` refuses, ``PlatformFault`` where the disk fails.
        """
        if direct:
            require_zip_size(content, self._limits)
        sha256 = await self._off_loop(lambda: hashlib.sha256(content).hexdigest())
        self._unused_since.pop(sha256, None)
        with self._holding(sha256):
            async with self._turns(sha256):
                unzipped = await self._patched(content, sha256, before)
                if unzipped is None:
                    unzipped = await self._off_loop(lambda: self._unpack(content, sha256))
                if reference is None:
                    await self._keep(content, sha256, unzipped)
            if reference is None:
                self._want_spare(sha256, count(content))
            yield Code(sha256, len(content), unzipped, reference=reference)

    async def _keep(self, content: bytes, sha256: str, unzipped: int) -> None:
        if await self._store.get(KIND, sha256) is None:
            # First the note, then the blob: killed between the two, the next start finds what to remove.
            await self._store.commit(Put(KIND, sha256, {"size": len(content), "unzipped": unzipped}))
        await self._blobs.put(content)

    async def check(self, content: bytes, direct: bool = True) -> Code:
        """What ``put`` would give or raise, with nothing kept."""
        if direct:
            require_zip_size(content, self._limits)
        return await self._off_loop(lambda: self._check(content))

    async def ensure(self, sha256: str, fetch: Fetch | None = None) -> str:
        """The folder of code that was stored before, unpacked anew if it is missing. Raises ``CodeLost``, and what ``fetch`` raises."""
        target = self._root / sha256
        if target.is_dir():
            return str(target)
        async with self._turns(sha256):
            kept = await self._blobs.get(sha256)
            if kept is not None and await self._off_loop(lambda: hashlib.sha256(kept).hexdigest()) == sha256:
                content = kept
            elif fetch is not None:
                content = await fetch()
            else:
                raise CodeLost(f"The deployment package {sha256} is missing from the store.")
            try:
                await self._off_loop(lambda: self._unpack(content, sha256))
            except ClientFault as fault:
                raise CodeLost(f"The deployment package {sha256} does not unpack any more: {fault.message}") from fault
        return str(target)

    async def ensure_layers(self, hashes: Sequence[str], fetches: Mapping[str, Fetch] | None = None) -> str:
        """The folder of these layers merged, bottom first, made anew if it is missing; ``""`` of none. Raises as ``ensure`` does."""
        key = merged_key(hashes)
        if not key or (self._root / key).is_dir():
            return str(self._root / key) if key else ""
        folders = [Path(await self.ensure(sha256, (fetches or {}).get(sha256))) for sha256 in hashes]
        if len(folders) > 1:
            async with self._turns(key):
                await self._off_loop(lambda: self._merge(folders, key))
        return str(self._root / key)

    def unused(self, sha256: str) -> None:
        """Take note that a function stopped using ``sha256``; ``collect`` decides whether anybody else does."""
        self._unused_since[sha256] = self._clock.monotonic()

    @property
    def pending(self) -> bool:
        """Whether ``collect`` may have something to do, now or later."""
        return bool(self._unused_since)

    async def collect(self, used: Used, copied: Used) -> int:
        """Remove what has been unused for ``GRACE_S``; gives how many.

        ``used`` says which code some function refers to, ``copied`` of which one of them keeps the zip here.
        """
        removed = 0
        for sha256, since in list(self._unused_since.items()):
            if copied(sha256):
                self._unused_since.pop(sha256, None)
            elif self._clock.monotonic() - since < GRACE_S:
                continue
            elif used(sha256):
                removed += await self._remove_copy(sha256, copied)
            elif not self._running(sha256):
                removed += await self._remove(sha256, used)
        return removed

    async def sweep(self, used: Used, copied: Used) -> None:
        """At the start, before anything runs: drop half-made folders, and note all code that no function uses for ``collect``."""
        names = await self._off_loop(self._tidy)
        for name in names:
            if not used(name):
                self.unused(name)
        after = ""
        while page := await self._store.scan(KIND, "", after):
            for record in page:
                if not copied(record.key):
                    self.unused(record.key)
            after = page[-1].key

    async def _remove_copy(self, sha256: str, copied: Used) -> int:
        """The zip only: whoever uses the code refers to it in a bucket."""
        async with self._turns(sha256):
            if copied(sha256) or self._held[sha256]:
                return 0
            kept = await self._store.get(KIND, sha256) is not None
            if kept:
                await self._drop_spares(sha256)
                await self._blobs.delete(sha256)
                await self._store.commit(Delete(KIND, sha256))
            self._unused_since.pop(sha256, None)
        return int(kept)

    async def _remove(self, sha256: str, used: Used) -> int:
        async with self._turns(sha256):
            if used(sha256) or self._held[sha256] or self._running(sha256):
                return 0
            # The folder goes first: a blob without a folder can be mended, a folder without a blob cannot.
            await self._off_loop(lambda: self._discard(self._root / sha256))
            await self._drop_spares(sha256)
            await self._blobs.delete(sha256)
            await self._store.commit(Delete(KIND, sha256))
            self._unused_since.pop(sha256, None)
        return 1

    async def _patched(self, content: bytes, sha256: str, before: str) -> int | None:
        """Make the folder from that of ``before``; gives the bytes of its files, or ``None`` where it has to be unpacked."""
        if not self._linking or before in ("", sha256) or count(content) < MIN_FILES or (self._root / sha256).is_dir():
            return None
        with self._holding(before):
            note, old = await self._store.get(KIND, before), await self._blobs.get(before)
            if note is None or old is None or not (self._root / before).is_dir():
                return None
            spare = self._spares.take(before)
            self._outdated.add(before)
            try:
                return await self._off_loop(lambda: self._patch(content, sha256, old, before, int(note.value["unzipped"]), spare))
            except (Unpatchable, ClientFault, PlatformFault):
                return None  # unpacking the whole zip tells what is the matter

    def _want_spare(self, sha256: str, entries: int) -> None:
        if not self._linking or entries < MIN_FILES or sha256 in self._spares:
            return
        self._outdated.discard(sha256)
        if sha256 not in self._making:
            task = self._making[sha256] = asyncio.create_task(self._make_spare(sha256))
            task.add_done_callback(lambda _: self._making.pop(sha256, None))

    async def _make_spare(self, sha256: str) -> None:
        await self._clock.sleep(SPARE_AFTER_S)
        if sha256 in self._outdated:
            self._outdated.discard(sha256)
            return
        with self._holding(sha256), contextlib.suppress(PlatformFault, StoreUnavailable):
            content = await self._blobs.get(sha256)
            if content is not None:
                spare = await self._off_loop(lambda: Spare(self._copy(sha256), directory(content)))
                for dropped in self._spares.keep(sha256, spare):
                    await self._off_loop(partial(discard, dropped.folder))

    async def _drop_spares(self, sha256: str) -> None:
        self._outdated.add(sha256) if sha256 in self._making else self._outdated.discard(sha256)
        spare = self._spares.take(sha256)
        if spare is not None:
            await self._off_loop(partial(discard, spare.folder))

    @contextlib.contextmanager
    def _holding(self, sha256: str) -> Iterator[None]:
        """Code that is held is not removed."""
        self._held[sha256] += 1
        try:
            yield
        finally:
            self._held[sha256] -= 1
            if not self._held[sha256]:
                del self._held[sha256]
                self.unused(sha256)

    async def _off_loop(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except OSError as error:
            raise PlatformFault(f"The code folder {self._root} cannot be used: {error}") from error

    def _unpack(self, content: bytes, sha256: str) -> int:
        target = self._root / sha256
        if target.is_dir():
            return measure(target)
        self._root.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self._root))
        try:
            size = unpack(content, workshop, self._limits.code_unzipped).size
            os.chmod(workshop, 0o755)
            try:
                os.rename(workshop, target)
            except OSError:
                if not target.is_dir():  # else another thread, whose caller went away, was first with the same bytes
                    raise
                shutil.rmtree(workshop, ignore_errors=True)
        except BaseException:
            shutil.rmtree(workshop, ignore_errors=True)
            raise
        sync_directory(self._root)
        return size

    def _patch(self, content: bytes, sha256: str, old: bytes, before: str, unzipped: int, spare: Spare | None) -> int | None:
        patch = compare(old, content, directory(old) if spare is None else spare.directory)
        if patch is None or 2 * len(patch.changed) > len(patch.names):
            if spare is not None:
                discard(spare.folder)
            return None
        folder = self._copy(before) if spare is None else spare.folder
        workshop = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self._root))
        try:
            size = apply(patch, str(folder), workshop, unzipped, self._limits.code_unzipped)
            os.chmod(folder, 0o755)
            os.rename(folder, self._root / sha256)
        except BaseException:
            discard(folder)
            raise
        finally:
            discard(workshop)
        sync_directory(self._root)
        return size

    def _copy(self, sha256: str) -> Path:
        target = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self._root))
        try:
            copy(self._root / sha256, target)
        except BaseException:
            discard(target)
            raise
        return target

    def _merge(self, folders: Sequence[Path], key: str) -> None:
        target = self._root / key
        if target.is_dir():
            return
        workshop = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self._root))
        try:
            flush(workshop, merge(folders, workshop))
            os.chmod(workshop, 0o755)
            os.rename(workshop, target)
        except BaseException:
            shutil.rmtree(workshop, ignore_errors=True)
            raise
        sync_directory(self._root)

    def _check(self, content: bytes) -> Code:
        self._root.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self._root))
        try:
            size = unpack(content, workshop, self._limits.code_unzipped).size
        finally:
            shutil.rmtree(workshop, ignore_errors=True)
        return Code(hashlib.sha256(content).hexdigest(), len(content), size)

    def _discard(self, folder: Path) -> None:
        """Remove a folder so that it is never seen half-removed under its own name."""
        grave = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self._root))
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, grave / "code")
        shutil.rmtree(grave, ignore_errors=True)

    def _tidy(self) -> list[str]:
        """Drop what a killed process left half-made; gives the names of the folders that stay."""
        self._root.mkdir(parents=True, exist_ok=True)
        names = os.listdir(self._root)
        for name in names:
            if name.startswith(_TEMPORARY):
                shutil.rmtree(self._root / name, ignore_errors=True)
        return [name for name in names if len(name) == 64]


async def _nowhere(sha256: str) -> bytes | None:
    return None


def require_zip_size(content: bytes, limits: Limits) -> None:
    if len(content) > limits.zip_direct:
        raise ClientFault(
            "RequestEntityTooLargeException",
            413,
            f"Zipped size must be smaller than {limits.zip_direct} bytes",
        )


def measure(folder: Path) -> int:
    """Bytes of the files and links in ``folder``."""
    total = 0
    pending: list[str] = [str(folder)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif not entry.is_symlink():
                    total += entry.stat(follow_symlinks=False).st_size
    return total
