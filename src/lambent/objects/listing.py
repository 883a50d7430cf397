"""Lists of a bucket's keys, versions and uploads: by key in byte order, rolled up at a delimiter, a page at a time.

A common prefix counts as one entry, and what it stands for is skipped, not read: the scan goes on behind the last key that could have it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from lambent.objects.objects import Objects
from lambent.objects.records import OBJECT, UPLOAD, Upload, Version
from lambent.store.contract import Record, Store

HIGHEST = "\U0010ffff"
_BATCH = 1000

T = TypeVar("T")


@dataclass(slots=True)
class Page(Generic[T]):
    """Entries and common prefixes in the order of their keys; ``last`` is where the next page goes on, ``""`` on the last page."""

    entries: list[T] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    last: str = ""

    def __len__(self) -> int:
        return len(self.entries) + len(self.prefixes)


@dataclass(frozen=True, slots=True)
class Asked:
    """``after``: keys up to and with this one are left out, and so is a common prefix that is this very text."""

    bucket: str
    prefix: str = ""
    delimiter: str = ""
    after: str = ""
    limit: int = 1000


class Listing:
    """Reads the documents that ``Objects`` and ``Uploads`` write."""

    def __init__(self, store: Store, objects: Objects) -> None:
        self._store = store
        self._objects = objects

    async def current(self, asked: Asked) -> Page[Version]:
        """The latest versions that are no delete markers."""
        page: Page[Version] = Page()
        if not asked.limit:
            return page
        place = ""
        async for name, version in self._walk(OBJECT, asked, _version, lambda version: not version.is_marker):
            if len(page) == asked.limit:
                page.last = place
                return page
            place = name
            if version is None:
                page.prefixes.append(name)
            else:
                page.entries.append(version)
        return page

    async def versions(self, asked: Asked, after_version: str = "") -> Page[tuple[Version, bool]]:
        """Every version and marker, newest first within its key, each with whether it is the latest.

        ``after_version``: of the key ``asked.after`` go on behind this version.
        """
        page: Page[tuple[Version, bool]] = Page()
        if not asked.limit:
            return page
        if after_version and await self._rest_of(asked, after_version, page):
            return page
        async for name, version in self._walk(OBJECT, asked, _version, lambda version: True):
            if version is None:
                if self._is_full(page, asked):
                    return page
                page.prefixes.append(name)
            else:
                async for each, is_latest in self._all_of(asked.bucket, version):
                    if self._is_full(page, asked):
                        return page
                    page.entries.append((each, is_latest))
        return page

    async def uploads(self, asked: Asked, after_upload: str = "") -> Page[Upload]:
        """Multipart uploads under way."""
        page: Page[Upload] = Page()
        if not asked.limit:
            return page
        place = ""
        skipping = bool(after_upload)
        begin = Asked(asked.bucket, asked.prefix, asked.delimiter, "" if skipping else asked.after, asked.limit)
        async for name, upload in self._walk(UPLOAD, begin, _upload, lambda upload: True):
            key = name if upload is None else upload.key
            if skipping and (key < asked.after or (key == asked.after and upload is not None and upload.id <= after_upload)):
                continue
            if len(page) == asked.limit:
                page.last = place
                return page
            place = key
            if upload is None:
                page.prefixes.append(name)
            else:
                page.entries.append(upload)
        return page

    async def _rest_of(self, asked: Asked, after_version: str, page: Page[tuple[Version, bool]]) -> bool:
        """The versions of ``asked.after`` behind ``after_version``; true if the page is full."""
        record = await self._store.get(OBJECT, f"{asked.bucket}/{asked.after}")
        if record is None:
            return False
        is_behind = False
        async for version, is_latest in self._all_of(asked.bucket, _version(record)):
            if is_behind:
                if self._is_full(page, asked):
                    return True
                page.entries.append((version, is_latest))
            is_behind = is_behind or version.id == after_version
        return False

    @staticmethod
    def _is_full(page: Page[tuple[Version, bool]], asked: Asked) -> bool:
        if len(page) < asked.limit:
            return False
        keys = [*(version.key for version, _ in page.entries[-1:]), *page.prefixes[-1:]]
        page.last = max(keys)
        return True

    async def _all_of(self, bucket: str, latest: Version) -> AsyncIterator[tuple[Version, bool]]:
        yield latest, True
        if latest.has_older:
            async for version in self._objects.behind(bucket, latest.key):
                yield version, False

    async def _walk(
        self, kind: str, asked: Asked, read: Callable[[Record], T], wanted: Callable[[T], bool]
    ) -> AsyncIterator[tuple[str, T | None]]:
        """(key, entry) or (common prefix, ``None``), in order, behind ``asked.after``."""
        start = f"{asked.bucket}/"
        scope, position = start + asked.prefix, start + asked.after if asked.after else ""
        if asked.delimiter and asked.after.endswith(asked.delimiter) and asked.after.startswith(asked.prefix):
            position += HIGHEST  # a page that ended with a common prefix goes on behind all that it stands for
        while True:
            page = await self._store.scan(kind, scope, position, _BATCH)
            common = ""
            for record in page:
                key = record.key[len(start) :].partition("\0")[0] if kind == UPLOAD else record.key[len(start) :]
                if common and key.startswith(common):
                    continue
                entry = read(record)
                if not wanted(entry):
                    continue
                common = _roll_up(key, asked)
                yield (common, None) if common else (key, entry)
            if len(page) < _BATCH:
                return
            position = start + common + HIGHEST if common and page[-1].key.startswith(start + common) else page[-1].key


def _roll_up(key: str, asked: Asked) -> str:
    """The common prefix that stands for ``key``, or ``""``."""
    if not asked.delimiter:
        return ""
    found = key.find(asked.delimiter, len(asked.prefix))
    return key[: found + len(asked.delimiter)] if found >= 0 else ""


def _version(record: Record) -> Version:
    return Version.from_document(record.value)


def _upload(record: Record) -> Upload:
    return Upload.from_document(record.value)
