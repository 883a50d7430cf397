"""Objects: put, found, deleted, in buckets that keep versions and in those that do not.

The latest version of a key is one document, the versions behind it are others, and every change of a key is one commit, so a killed process
leaves the key as it was before or as it is after. The changes of one key take turns.

What a put does to the version that was there:

    bucket            new version's id      the one before
    no versioning     null                  vanishes
    Enabled           new                   moves behind
    Suspended         null                  vanishes if its id is null, else moves behind; so does one with the id null from behind

Deleting without naming a version puts a delete marker by the same rules (without versioning: just deletes). Deleting a named version
removes it for good; was it the latest, the next one comes forward.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from lambent.clock import Clock
from lambent.objects.buckets import Buckets
from lambent.objects.faults import no_such_key, no_such_version, precondition_failed
from lambent.objects.records import (
    NULL,
    OBJECT,
    PART,
    VERSION,
    Bucket,
    Version,
    object_key,
    version_key,
    versions_prefix,
)
from lambent.objects.segments import Segment, Segments
from lambent.store.contract import ABSENT, Delete, Mutation, Put, Record, Store
from lambent.turns import Turns

Make = Callable[["Version | None"], Version]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the caller of a put insists on; ETags without quotes, ``*`` for any."""

    if_match: str = ""
    if_none_match: str = ""

    def check(self, there: Version | None, key: str) -> None:
        exists = there is not None and not there.is_marker
        if self.if_match and not exists:
            raise no_such_key(key)
        if self.if_match and there is not None and self.if_match not in ("*", there.etag):
            raise precondition_failed("If-Match")
        if self.if_none_match and exists and there is not None and self.if_none_match in ("*", there.etag):
            raise precondition_failed("If-None-Match")


class Objects:
    """``segments`` holds the bytes."""

    def __init__(self, store: Store, buckets: Buckets, segments: Segments, clock: Clock) -> None:
        self._store = store
        self._buckets = buckets
        self._segments = segments
        self._clock = clock
        self._turns = Turns()

    async def find(self, bucket: str, key: str, version_id: str = "") -> Version:
        """The latest version, or the one named; a delete marker is given as it is. Raises 404."""
        latest = await self._latest(bucket, key)
        if not version_id:
            if latest is None:
                raise no_such_key(key)
            return latest[0]
        found = await self._named(bucket, key, version_id, latest)
        if found is None:
            raise no_such_version(key, version_id)
        return found

    async def put(self, bucket: str, version: Version, conditions: Conditions | None = None, also: Iterable[Mutation] = ()) -> Version:
        """Make ``version`` the latest of its key, together with ``also``; gives it with its id. Its segments are taken over.

        Raises 404 where the bucket has gone, 412 where ``conditions`` do not hold; then the segments are the caller's to discard.
        """

        def make(there: Version | None) -> Version:
            if conditions is not None:
                conditions.check(there, version.key)
            return version

        stored, _ = await self._place(bucket, version.key, make, tuple(also))
        return stored

    async def delete(self, bucket: str, key: str, version_id: str = "") -> Version | None:
        """Delete; gives the marker that was made, or the version that was removed, or ``None`` where nothing was there."""
        if version_id:
            return await self._delete_version(bucket, key, version_id)
        with self._buckets.writing(bucket) as about:
            versioned = bool(about.versioning)
        if versioned:
            now = self._clock.now()
            marker, _ = await self._place(bucket, key, lambda there: Version(key, "", 0, now, is_marker=True), ())
            return marker
        async with self._turns(object_key(bucket, key)):
            latest = await self._latest(bucket, key)
            if latest is not None:
                await self._commit(bucket, (Delete(OBJECT, object_key(bucket, key), latest[1]),))
                self._segments.discard(latest[0].segments)
        return None

    async def retag(self, bucket: str, key: str, version_id: str, tags: Mapping[str, str]) -> Version:
        """Replace the tags of a version. Raises 404."""
        async with self._turns(object_key(bucket, key)):
            latest = await self._latest(bucket, key)
            found = await self._named(bucket, key, version_id, latest) if version_id else latest and latest[0]
            if found is None or found.is_marker:
                raise no_such_version(key, version_id) if version_id else no_such_key(key)
            after = replace(found, tags=dict(tags))
            if latest is not None and latest[0].id == found.id:
                await self._commit(bucket, (Put(OBJECT, object_key(bucket, key), after.to_document(), latest[1]),))
            else:
                await self._commit(bucket, (Put(VERSION, version_key(bucket, after), after.to_document()),))
            return after

    async def used_segments(self) -> AsyncIterator[str]:
        """The names of all segments that any document refers to."""
        for kind in (OBJECT, VERSION, PART):
            after = ""
            while page := await self._store.scan(kind, "", after):
                for record in page:
                    segments = [record.value["segment"]] if kind == PART else record.value["segments"]
                    for name, _ in segments:
                        yield name
                after = page[-1].key

    # -- changing -------------------------------------------------------------------------------------------------------------------------

    async def _place(self, bucket: str, key: str, make: Make, also: tuple[Mutation, ...]) -> tuple[Version, Version | None]:
        """Put what ``make`` gives in front. The second of the pair is what was there."""
        async with self._turns(object_key(bucket, key)):
            with self._buckets.writing(bucket) as about:
                found = await self._latest(bucket, key)
                there, revision = found or (None, ABSENT)
                version = make(there)
                sequence = max(int(self._clock.now() * 1e6), there.sequence + 1 if there is not None else 1)
                version = replace(version, id=_new_id(about), sequence=sequence, has_older=False)
                mutations: list[Mutation] = []
                gone: list[Version] = []
                if there is not None:
                    version = await self._move_behind(bucket, about, there, version, mutations, gone)
                mutations.insert(0, Put(OBJECT, object_key(bucket, key), version.to_document(), revision))
                await self._commit(bucket, (*mutations, *also))
        for each in gone:
            self._segments.discard(each.segments)
        return version, there

    async def _move_behind(
        self, bucket: str, about: Bucket, there: Version, version: Version, mutations: list[Mutation], gone: list[Version]
    ) -> Version:
        """What becomes of the version that was the latest, and of one behind it with the same id."""
        if there.id == version.id:
            gone.append(there)
            return replace(version, has_older=there.has_older)
        mutations.append(Put(VERSION, version_key(bucket, there), there.to_document()))
        if version.id == NULL and there.has_older:
            old = await self._behind(bucket, version.key, NULL)
            if old is not None:
                gone.append(old)
                mutations.append(Delete(VERSION, version_key(bucket, old)))
        return replace(version, has_older=True)

    async def _delete_version(self, bucket: str, key: str, version_id: str) -> Version | None:
        async with self._turns(object_key(bucket, key)):
            latest = await self._latest(bucket, key)
            found = await self._named(bucket, key, version_id, latest)
            if found is None or latest is None:
                return None
            if latest[0].id != version_id:
                await self._commit(bucket, (Delete(VERSION, version_key(bucket, found)),))
            else:
                await self._commit(bucket, await self._bring_forward(bucket, *latest))
        self._segments.discard(found.segments)
        return found

    async def _bring_forward(self, bucket: str, latest: Version, revision: int) -> tuple[Mutation, ...]:
        place = object_key(bucket, latest.key)
        behind = [version async for version in self.behind(bucket, latest.key, 2)] if latest.has_older else []
        if not behind:
            return (Delete(OBJECT, place, revision),)
        forward = replace(behind[0], has_older=len(behind) > 1)
        return (Put(OBJECT, place, forward.to_document(), revision), Delete(VERSION, version_key(bucket, forward)))

    async def _commit(self, bucket: str, mutations: tuple[Mutation, ...]) -> None:
        """All or nothing, and to the end even if the caller goes away."""
        with self._buckets.writing(bucket):
            await asyncio.shield(asyncio.ensure_future(self._store.commit(*mutations)))

    # -- finding --------------------------------------------------------------------------------------------------------------------------

    async def _latest(self, bucket: str, key: str) -> tuple[Version, int] | None:
        record = await self._store.get(OBJECT, object_key(bucket, key))
        return None if record is None else (_read(record), record.revision)

    async def _named(self, bucket: str, key: str, version_id: str, latest: tuple[Version, int] | None) -> Version | None:
        if latest is None or latest[0].id == version_id:
            return None if latest is None else latest[0]
        return await self._behind(bucket, key, version_id) if latest[0].has_older else None

    async def _behind(self, bucket: str, key: str, version_id: str) -> Version | None:
        async for version in self.behind(bucket, key):
            if version.id == version_id:
                return version
        return None

    async def behind(self, bucket: str, key: str, limit: int = 1000) -> AsyncIterator[Version]:
        """The versions behind the latest one, newest first; ``limit`` is only how many are fetched at a time."""
        prefix, after = versions_prefix(bucket, key), ""
        while page := await self._store.scan(VERSION, prefix, after, limit):
            for record in page:
                version = _read(record)
                if version.key == key:  # a key may hold NUL itself, and then begin as this prefix does
                    yield version
            after = page[-1].key


def discard_on_failure(segments: Segments, written: Iterable[Segment]) -> contextlib.AbstractContextManager[None]:
    """Remove ``written`` again if the block raises."""
    return _Discarding(segments, written)


class _Discarding(contextlib.AbstractContextManager[None]):
    def __init__(self, segments: Segments, written: Iterable[Segment]) -> None:
        self._segments = segments
        self._written = list(written)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # A caller that goes away cancels nothing that was handed to the store, so its segments may be in use: the next sweep knows.
        if error is not None and not isinstance(error, asyncio.CancelledError):
            self._segments.discard(self._written)


def _new_id(bucket: Bucket) -> str:
    return secrets.token_urlsafe(24) if bucket.versioning == "Enabled" else NULL


def _read(record: Record) -> Version:
    return Version.from_document(record.value)
