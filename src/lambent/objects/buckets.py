"""Buckets: their names, their owners, and the documents that configure them.

All buckets are held in memory, since every request asks for one. Names are unique over all accounts, as at AWS. A bucket's documents are
kept and shown in the shape of the wire; which of them have an effect is told by ``services/s3.py``.

Whoever commits an object does so under ``writing``: a bucket cannot be deleted meanwhile, and nothing is committed to one that is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from lambent.clock import Clock
from lambent.errors import ClientFault
from lambent.objects.faults import access_denied, no_such_bucket
from lambent.objects.records import BUCKET, OBJECT, Bucket
from lambent.store.contract import ABSENT, Delete, Put, Store, StoreConflict

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")


class Buckets:
    """``load`` first."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._buckets: dict[str, tuple[Bucket, int]] = {}
        self._writers: Counter[str] = Counter()
        self._turn = asyncio.Lock()

    async def load(self) -> None:
        after = ""
        while page := await self._store.scan(BUCKET, "", after):
            for record in page:
                self._buckets[record.key] = Bucket.from_document(record.value), record.revision
            after = page[-1].key

    def get(self, name: str, account: str) -> Bucket:
        """A bucket of ``account``. Raises 404 ``NoSuchBucket``, 403 for one of somebody else."""
        bucket = self.find(name)
        if bucket.account != account:
            raise access_denied()
        return bucket

    def find(self, name: str) -> Bucket:
        """A bucket, whoever owns it. Raises 404 ``NoSuchBucket``."""
        found = self._buckets.get(name)
        if found is None:
            raise no_such_bucket(name)
        return found[0]

    def owned(self, account: str) -> list[Bucket]:
        """By name."""
        return sorted((bucket for bucket, _ in self._buckets.values() if bucket.account == account), key=lambda bucket: bucket.name)

    async def create(self, name: str, account: str, region: str) -> None:
        """Creating a bucket of one's own again is an error, except in us-east-1, as at AWS."""
        if not _NAME.fullmatch(name) or ".." in name or _ADDRESS.fullmatch(name):
            raise ClientFault("InvalidBucketName", 400, "The specified bucket is not valid.", {"BucketName": name})
        async with self._turn:
            found = self._buckets.get(name)
            if found is not None:
                self._refuse_again(found[0], account, region)
                return
            bucket = Bucket(name, account, region, self._clock.now())
            [revision] = await self._commit(Put(BUCKET, name, bucket.to_document(), ABSENT))
            self._buckets[name] = bucket, revision

    @staticmethod
    def _refuse_again(bucket: Bucket, account: str, region: str) -> None:
        about = {"BucketName": bucket.name}
        if bucket.account != account:
            text = (
                "The requested bucket name is not available. The bucket namespace is shared by all users of the system. "
                "Please select a different name and try again."
            )
            raise ClientFault("BucketAlreadyExists", 409, text, about)
        if not (region == bucket.region == "us-east-1"):
            text = "Your previous request to create the named bucket succeeded and you already own it."
            raise ClientFault("BucketAlreadyOwnedByYou", 409, text, about)

    async def delete(self, name: str, account: str) -> None:
        async with self._turn:
            self.get(name, account)
            if self._writers[name] or await self._store.scan(OBJECT, f"{name}/", "", 1):
                raise ClientFault("BucketNotEmpty", 409, "The bucket you tried to delete is not empty", {"BucketName": name})
            if self._writers[name]:  # a write began while we looked
                raise ClientFault("BucketNotEmpty", 409, "The bucket you tried to delete is not empty", {"BucketName": name})
            bucket, revision = self._buckets.pop(name)  # from here on nobody can write
            try:
                await self._commit(Delete(BUCKET, name, revision))
            except BaseException:
                self._buckets[name] = bucket, revision
                raise

    async def set_versioning(self, name: str, account: str, status: str) -> None:
        await self._change(name, account, lambda bucket: replace(bucket, versioning=status))

    async def configure(self, name: str, account: str, kind: str, document: Any | None) -> None:
        """Set one of the bucket's documents, or with ``None`` take it away."""

        def change(bucket: Bucket) -> Bucket:
            rest = {each: value for each, value in bucket.configuration.items() if each != kind}
            return replace(bucket, configuration=rest if document is None else {**rest, kind: document})

        await self._change(name, account, change)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Bucket]:
        """Hold the bucket while an object is committed to it. Raises 404 where it has gone meanwhile."""
        found = self._buckets.get(name)
        if found is None:
            raise no_such_bucket(name)
        self._writers[name] += 1
        try:
            yield found[0]
        finally:
            self._writers[name] -= 1
            if not self._writers[name]:
                del self._writers[name]

    async def _change(self, name: str, account: str, change: Any) -> None:
        async with self._turn:
            self.get(name, account)
            bucket, revision = self._buckets[name]
            after: Bucket = change(bucket)
            [revision] = await self._commit(Put(BUCKET, name, after.to_document(), revision))
            self._buckets[name] = after, revision

    async def _commit(self, mutation: Put | Delete) -> list[int]:
        try:
            return await asyncio.shield(asyncio.ensure_future(self._store.commit(mutation)))
        except StoreConflict as conflict:
            text = "A conflicting conditional operation is currently in progress against this resource. Please try again."
            raise ClientFault("OperationAborted", 409, text) from conflict
