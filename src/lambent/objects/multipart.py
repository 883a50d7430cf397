"""Multipart uploads: begun, filled part by part, and finished without moving a byte.

An upload and its parts are documents of their own. Finishing is one commit: the object's document, which lists the parts' segments, comes,
and the upload and its parts go. So an upload is finished once, however often it is asked for and whatever is killed.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence

from lambent.clock import Clock
from lambent.errors import ClientFault
from lambent.objects.buckets import Buckets
from lambent.objects.checksums import ALGORITHMS, Digests, check_md5, compare, computable
from lambent.objects.faults import no_such_upload
from lambent.objects.objects import Conditions, Objects, discard_on_failure
from lambent.objects.records import PART, UPLOAD, Part, Upload, Version, part_key, upload_key
from lambent.objects.segments import Segments
from lambent.store.contract import Delete, Mutation, Put, Store
from lambent.turns import Turns

MAX_PART = 5 * 2**30
MAX_PARTS = 10_000
MIN_PART = 5 * 2**20  # of every part but the last


class Uploads:
    """Multipart uploads of all buckets."""

    def __init__(self, store: Store, buckets: Buckets, objects: Objects, segments: Segments, clock: Clock) -> None:
        self._store = store
        self._buckets = buckets
        self._objects = objects
        self._segments = segments
        self._clock = clock
        self._turns = Turns()

    async def begin(
        self, bucket: str, key: str, headers: Mapping[str, str], metadata: Mapping[str, str], tags: Mapping[str, str], algorithm: str
    ) -> Upload:
        upload = Upload(secrets.token_urlsafe(48), bucket, key, self._clock.now(), headers, metadata, tags, algorithm)
        with self._buckets.writing(bucket):
            await self._store.commit(Put(UPLOAD, upload_key(bucket, key, upload.id), upload.to_document()))
        return upload

    async def get(self, bucket: str, key: str, upload_id: str) -> Upload:
        """Raises 404 ``NoSuchUpload``."""
        record = await self._store.get(UPLOAD, upload_key(bucket, key, upload_id))
        if record is None:
            raise no_such_upload(upload_id)
        return Upload.from_document(record.value)

    async def put_part(
        self,
        upload: Upload,
        number: int,
        source: AsyncIterable[bytes],
        *,
        stated: Mapping[str, str],
        md5: str | None = None,
        trailers: Mapping[str, str] | None = None,
    ) -> Part:
        """Store a part in place of an earlier one of that number. ``trailers`` is filled while ``source`` is read."""
        digests = Digests(computable({*stated, upload.algorithm}, trailers is not None))
        segment = await self._segments.write(source, digests, MAX_PART)
        with discard_on_failure(self._segments, [segment]):
            check_md5(md5, digests)
            checksums = compare(stated, digests, trailers or {})
            part = Part(number, segment, digests.md5.hexdigest(), self._clock.now(), checksums)
            place = part_key(upload.id, number)
            async with self._turns(upload.id):
                await self.get(upload.bucket, upload.key, upload.id)  # it may have been finished or aborted while we read
                before = await self._store.get(PART, place)
                with self._buckets.writing(upload.bucket):
                    await asyncio.shield(asyncio.ensure_future(self._store.commit(Put(PART, place, part.to_document()))))
        if before is not None:
            self._segments.discard([Part.from_document(before.value).segment])
        return part

    async def parts(self, upload: Upload, after: int = 0) -> AsyncIterator[Part]:
        """By number."""
        place = part_key(upload.id, after) if after else ""
        while page := await self._store.scan(PART, f"{upload.id}/", place):
            for record in page:
                yield Part.from_document(record.value)
            place = page[-1].key

    async def abort(self, upload: Upload) -> None:
        async with self._turns(upload.id):
            await self.get(upload.bucket, upload.key, upload.id)
            parts = [part async for part in self.parts(upload)]
            await asyncio.shield(asyncio.ensure_future(self._store.commit(*self._farewell(upload, parts))))
        self._segments.discard(part.segment for part in parts)

    async def finish(self, upload: Upload, wanted: Sequence[Mapping[str, object]], conditions: Conditions) -> Version:
        """Make an object of the parts listed. Raises 400 ``InvalidPart``, ``InvalidPartOrder``, ``EntityTooSmall``."""
        async with self._turns(upload.id):
            await self.get(upload.bucket, upload.key, upload.id)
            there = {part.number: part async for part in self.parts(upload)}
            chosen = _choose(there, wanted)
            stored = await self._objects.put(upload.bucket, self._whole(upload, chosen), conditions, self._farewell(upload, there.values()))
        used = {part.number for part in chosen}
        self._segments.discard(part.segment for part in there.values() if part.number not in used)
        return stored

    def _whole(self, upload: Upload, chosen: Sequence[Part]) -> Version:
        digest = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in chosen), usedforsecurity=False)
        return Version(
            key=upload.key,
            id="",
            sequence=0,
            modified=self._clock.now(),
            segments=tuple(part.segment for part in chosen),
            size=sum(part.segment.size for part in chosen),
            etag=f"{digest.hexdigest()}-{len(chosen)}",
            headers=upload.headers,
            metadata=upload.metadata,
            tags=upload.tags,
            part_count=len(chosen),
        )

    @staticmethod
    def _farewell(upload: Upload, parts: Iterable[Part]) -> list[Mutation]:
        """The documents go; that of the upload must still be there, so that it ends once."""
        return [
            Delete(UPLOAD, upload_key(upload.bucket, upload.key, upload.id), 1),
            *(Delete(PART, part_key(upload.id, part.number)) for part in parts),
        ]


def _choose(there: Mapping[int, Part], wanted: Sequence[Mapping[str, object]]) -> list[Part]:
    if not wanted:
        raise ClientFault("MalformedXML", 400, "The XML you provided was not well-formed or did not validate against our published schema")
    chosen: list[Part] = []
    for entry in wanted:
        number = entry.get("PartNumber")
        part = there.get(number) if isinstance(number, int) else None
        if part is None or str(entry.get("ETag", "")).strip('"') != part.etag or not _same_checksums(entry, part):
            text = (
                "One or more of the specified parts could not be found.  "
                "The part may not have been uploaded, or the specified entity tag may not match the part's entity tag."
            )
            raise ClientFault("InvalidPart", 400, text, {"PartNumber": number})
        if chosen and chosen[-1].number >= part.number:
            raise _bad_order()
        chosen.append(part)
    for part in chosen[:-1]:
        if part.segment.size < MIN_PART:
            text = "Your proposed upload is smaller than the minimum allowed size"
            about = {"ProposedSize": part.segment.size, "MinSizeAllowed": MIN_PART, "PartNumber": part.number, "ETag": part.etag}
            raise ClientFault("EntityTooSmall", 400, text, about)
    return chosen


def _same_checksums(entry: Mapping[str, object], part: Part) -> bool:
    return all(entry.get(f"Checksum{name}") in (None, part.checksums.get(name)) for name in ALGORITHMS)


def _bad_order() -> ClientFault:
    text = "The list of parts was not in ascending order. The parts list must be specified in order by part number."
    return ClientFault("InvalidPartOrder", 400, text)
