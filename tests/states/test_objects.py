"""The object store against a model in dictionaries: versions, lists, uploads, and the files behind them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambent.errors import ClientFault
from lambent.objects.buckets import Buckets
from lambent.objects.checksums import Digests, announced, check_md5, compare
from lambent.objects.listing import Asked, Listing
from lambent.objects.multipart import MIN_PART, Uploads
from lambent.objects.objects import Conditions, Objects
from lambent.objects.records import NULL, Version
from lambent.objects.segments import GRACE_S, Segment, Segments, cut
from lambent.services.s3_conditions import check_read, read_range
from lambent.testing.clock import ManualClock
from lambent.testing.memory_store import MemoryStore

ACCOUNT = "123456789012"
BUCKET = "bucket"


class Shop:
    """All parts over one folder and one store in memory. ``reborn`` is the next process."""

    def __init__(self, root: Path, store: MemoryStore | None = None) -> None:
        self.root = root
        self.clock = ManualClock()
        self.store = store or MemoryStore(self.clock)
        self.segments = Segments(root, self.clock)
        self.buckets = Buckets(self.store, self.clock)
        self.objects = Objects(self.store, self.buckets, self.segments, self.clock)
        self.uploads = Uploads(self.store, self.buckets, self.objects, self.segments, self.clock)
        self.listing = Listing(self.store, self.objects)

    async def __aenter__(self) -> Shop:
        await self.store.open()
        await self.segments.open()
        await self.buckets.load()
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.segments.close()

    async def put(self, key: str, content: bytes, conditions: Conditions | None = None) -> Version:
        segment = await self.segments.write(pieces(content), Digests(), 1 << 30)
        return await self.objects.put(BUCKET, version_of(key, content, segment), conditions)

    async def content(self, version: Version) -> bytes:
        return b"".join([data async for data in self.segments.read(cut(version.segments, 0, version.size))])

    def files(self) -> int:
        return sum(len(files) for _, _, files in os.walk(self.root))

    async def settle(self) -> None:
        """Let what was discarded go."""
        self.clock.advance(GRACE_S)
        threads = self.segments._threads
        for _ in range(2):  # what a thread has done may have given work to others
            meet = threading.Barrier(threads._max_workers)  # every thread, so none is still at something else
            await asyncio.gather(*[asyncio.get_running_loop().run_in_executor(threads, meet.wait) for _ in range(threads._max_workers)])


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


def version_of(key: str, content: bytes, segment: Segment) -> Version:
    etag = hashlib.md5(content).hexdigest()
    return Version(key=key, id="", sequence=0, modified=1.0, segments=(segment,), size=len(content), etag=etag)


def play(story: Callable[[Shop], Awaitable[None]]) -> None:
    async def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with Shop(Path(folder)) as shop:
                await shop.buckets.create(BUCKET, ACCOUNT, "us-east-1")
                await story(shop)

    asyncio.run(whole())


async def refusal(awaitable: Awaitable[Any]) -> ClientFault:
    with pytest.raises(ClientFault) as caught:
        await awaitable
    return caught.value


class Model:
    """What a key should hold: (id, content or ``None`` for a marker), newest first. Ids are matched as they are learned."""

    def __init__(self) -> None:
        self.keys: dict[str, list[tuple[str, bytes | None]]] = {}
        self.status = ""

    def put(self, key: str, identity: str, content: bytes | None) -> None:
        held = self.keys.setdefault(key, [])
        if self.status != "Enabled":
            held[:] = [each for each in held if each[0] != NULL]
        held.insert(0, (identity, content))

    def delete(self, key: str, identity: str) -> None:
        held = self.keys.get(key, [])
        held[:] = [each for each in held if each[0] != identity]


ACTS = ["put", "put", "delete", "delete version", "Enabled", "Suspended"]
STEPS = st.lists(
    st.tuples(st.sampled_from(ACTS), st.sampled_from("ab"), st.integers(0, 3)),
    max_size=24,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_versions(steps: list[tuple[str, str, int]]):
    async def story(shop: Shop) -> None:
        model, count = Model(), 0
        for step, key, pick in steps:
            held = model.keys.get(key, [])
            if step == "put":
                count += 1
                content = b"%d" % count
                stored = await shop.put(key, content)
                assert (stored.id == NULL) == (model.status != "Enabled")
                model.put(key, stored.id, content)
            elif step == "delete":
                marker = await shop.objects.delete(BUCKET, key)
                if model.status:
                    assert marker is not None
                    assert marker.is_marker
                    model.put(key, marker.id, None)
                else:
                    assert marker is None
                    model.keys.pop(key, None)
            elif step == "delete version":
                identity = held[pick % len(held)][0] if held else "none"
                gone = await shop.objects.delete(BUCKET, key, identity)
                assert (gone is None) == (not held)
                model.delete(key, identity)
            else:
                model.status = step
                await shop.buckets.set_versioning(BUCKET, ACCOUNT, step)
            await compare_all(shop, model)
        await shop.settle()
        assert shop.files() == sum(content is not None for held in model.keys.values() for _, content in held)

    play(story)


async def compare_all(shop: Shop, model: Model) -> None:
    page = await shop.listing.versions(Asked(BUCKET))
    shown = [(version.key, version.id, is_latest, version.is_marker) for version, is_latest in page.entries]
    assert shown == [
        (key, identity, not number, content is None)
        for key, held in sorted(model.keys.items())
        for number, (identity, content) in enumerate(held)
    ]
    current = await shop.listing.current(Asked(BUCKET))
    assert [version.key for version in current.entries] == [
        key for key, held in sorted(model.keys.items()) if held and held[0][1] is not None
    ]
    for key, held in model.keys.items():
        for identity, content in held:
            version = await shop.objects.find(BUCKET, key, identity)
            assert version.is_marker == (content is None)
            if content is not None:
                assert await shop.content(version) == content
        if held:
            assert (await shop.objects.find(BUCKET, key)).id == held[0][0]
        else:
            assert (await refusal(shop.objects.find(BUCKET, key))).code == "NoSuchKey"


KEYS = st.lists(st.text("ab/\x01é\U0001f600", min_size=1, max_size=5), max_size=12, unique=True)


@settings(max_examples=60, deadline=None)
@given(KEYS, st.sampled_from(["", "a", "a/", "b"]), st.sampled_from(["", "/", "b/"]), st.integers(1, 4))
def test_lists_in_pages(keys: list[str], prefix: str, delimiter: str, size: int):
    async def story(shop: Shop) -> None:
        for key in keys:
            await shop.objects.put(BUCKET, Version(key=key, id="", sequence=0, modified=1.0))
        expected: list[str] = []
        for key in sorted(each for each in keys if each.startswith(prefix)):
            found = key.find(delimiter, len(prefix)) if delimiter else -1
            name = key[: found + len(delimiter)] if found >= 0 else key
            if name not in expected:
                expected.append(name)
        listed: list[str] = []
        after = ""
        while True:
            page = await shop.listing.current(Asked(BUCKET, prefix, delimiter, after, size))
            listed += sorted([*(version.key for version in page.entries), *page.prefixes])
            assert len(page) <= size
            if not page.last:
                break
            after = page.last
        assert listed == expected

    play(story)


def test_pages_of_versions_go_on_within_a_key():
    async def story(shop: Shop) -> None:
        await shop.buckets.set_versioning(BUCKET, ACCOUNT, "Enabled")
        for number in range(5):
            for key in "ab":
                await shop.put(key, b"%d" % number)
        whole = [(version.key, version.id) for version, _ in (await shop.listing.versions(Asked(BUCKET))).entries]
        assert len(whole) == 10
        for size in (1, 2, 3, 7):
            listed: list[tuple[str, str]] = []
            key, identity = "", ""
            while True:
                page = await shop.listing.versions(Asked(BUCKET, after=key, limit=size), identity)
                listed += [(version.key, version.id) for version, _ in page.entries]
                if not page.last:
                    break
                key, identity = listed[-1]
            assert listed == whole

    play(story)


def test_common_prefixes_are_skipped_and_not_read():
    async def story(shop: Shop) -> None:
        for number in range(1_500):
            await shop.objects.put(BUCKET, Version(key=f"{'p' if number % 2 else 'q'}/{number:05d}", id="", sequence=0, modified=1.0))
        scans = []
        real = shop.store.scan

        async def scan(*given: Any) -> Any:
            scans.append(given)
            return await real(*given)

        shop.store.scan = scan  # type: ignore[method-assign]
        assert (await shop.listing.current(Asked(BUCKET, delimiter="/"))).prefixes == ["p/", "q/"]
        assert len(scans) == 2

    play(story)


def test_conditions_of_puts():
    async def story(shop: Shop) -> None:
        absent, match = Conditions(if_none_match="*"), Conditions(if_match=hashlib.md5(b"1").hexdigest())
        assert (await refusal(shop.put("k", b"0", match))).code == "NoSuchKey"
        await shop.put("k", b"1", absent)
        assert (await refusal(shop.put("k", b"2", absent))).status == 412
        await shop.put("k", b"2", match)
        assert (await refusal(shop.put("k", b"3", match))).status == 412

    play(story)


def test_writers_of_one_key_take_turns():
    async def story(shop: Shop) -> None:
        absent = Conditions(if_none_match="*")
        outcomes = await asyncio.gather(*(shop.put("k", b"%d" % number, absent) for number in range(20)), return_exceptions=True)
        assert sum(isinstance(each, Version) for each in outcomes) == 1
        await shop.buckets.set_versioning(BUCKET, ACCOUNT, "Enabled")
        await asyncio.gather(*(shop.put("k", b"%d" % number) for number in range(20)))
        assert len((await shop.listing.versions(Asked(BUCKET))).entries) == 21

    play(story)


def test_buckets():
    async def story(shop: Shop) -> None:
        for name in ("ab", "Upper", "a..b", "10.0.0.1", "a" * 64, "-ab", "a_b"):
            assert (await refusal(shop.buckets.create(name, ACCOUNT, "us-east-1"))).code == "InvalidBucketName"
        await shop.buckets.create(BUCKET, ACCOUNT, "us-east-1")  # once more, which us-east-1 allows
        assert (await refusal(shop.buckets.create(BUCKET, "210987654321", "us-east-1"))).code == "BucketAlreadyExists"
        await shop.buckets.create("euro", ACCOUNT, "eu-west-1")
        assert (await refusal(shop.buckets.create("euro", ACCOUNT, "eu-west-1"))).code == "BucketAlreadyOwnedByYou"
        with pytest.raises(ClientFault, match="AccessDenied"):
            shop.buckets.get(BUCKET, "210987654321")
        await shop.put("k", b"1")
        assert (await refusal(shop.buckets.delete(BUCKET, ACCOUNT))).code == "BucketNotEmpty"
        await shop.objects.delete(BUCKET, "k")
        with shop.buckets.writing(BUCKET):
            assert (await refusal(shop.buckets.delete(BUCKET, ACCOUNT))).code == "BucketNotEmpty"
        await shop.buckets.delete(BUCKET, ACCOUNT)
        assert (await refusal(shop.put("k", b"1"))).code == "NoSuchBucket"
        assert [bucket.name for bucket in shop.buckets.owned(ACCOUNT)] == ["euro"]

    play(story)


def test_uploads_in_parts():
    async def story(shop: Shop) -> None:
        upload = await shop.uploads.begin(BUCKET, "k", {"ContentType": "text/x"}, {"m": "1"}, {}, "CRC32")
        big, other, last = b"a" * MIN_PART, b"b" * MIN_PART, b"end"
        part = {
            number: await shop.uploads.put_part(upload, number, pieces(content), stated={}) for number, content in ((1, other), (5, last))
        }
        part[1] = await shop.uploads.put_part(upload, 1, pieces(big), stated={})
        spare = await shop.uploads.put_part(upload, 9, pieces(b"spare"), stated={})
        wanted = [{"PartNumber": number, "ETag": f'"{part[number].etag}"'} for number in (1, 5)]
        for wrong, code in (
            (wanted[::-1], "InvalidPartOrder"),
            ([*wanted, {"PartNumber": 7, "ETag": "x"}], "InvalidPart"),
            ([{"PartNumber": 1, "ETag": "x"}], "InvalidPart"),
            ([wanted[1], {"PartNumber": 9, "ETag": spare.etag}], "EntityTooSmall"),
            ([], "MalformedXML"),
        ):
            assert (await refusal(shop.uploads.finish(upload, wrong, Conditions()))).code == code
        done = await shop.uploads.finish(upload, wanted, Conditions())
        etag = hashlib.md5(hashlib.md5(big).digest() + hashlib.md5(last).digest()).hexdigest()
        assert (done.etag, done.size, done.headers, done.metadata) == (f"{etag}-2", MIN_PART + 3, {"ContentType": "text/x"}, {"m": "1"})
        assert await shop.content(await shop.objects.find(BUCKET, "k")) == big + last
        assert (await refusal(shop.uploads.finish(upload, wanted, Conditions()))).code == "NoSuchUpload"
        assert (await refusal(shop.uploads.put_part(upload, 2, pieces(b"late"), stated={}))).code == "NoSuchUpload"
        await shop.settle()
        assert shop.files() == 2
        again = await shop.uploads.begin(BUCKET, "k", {}, {}, {}, "")
        await shop.uploads.put_part(again, 1, pieces(b"x"), stated={})
        await shop.uploads.abort(again)
        await shop.settle()
        assert shop.files() == 2

    play(story)


def test_uploads_are_listed_in_pages():
    async def story(shop: Shop) -> None:
        made = [await shop.uploads.begin(BUCKET, key, {}, {}, {}, "") for key in ("a", "a", "b/1", "b/2", "c")]
        whole = sorted((upload.key, upload.id) for upload in made)
        listed: list[tuple[str, str]] = []
        key, identity = "", ""
        while True:
            page = await shop.listing.uploads(Asked(BUCKET, after=key, limit=2), identity)
            listed += [(upload.key, upload.id) for upload in page.entries]
            if not page.last:
                break
            key, identity = listed[-1]
        assert listed == whole
        rolled = await shop.listing.uploads(Asked(BUCKET, delimiter="/"))
        assert ([upload.key for upload in rolled.entries], rolled.prefixes) == (["a", "a", "c"], ["b/"])

    play(story)


def test_readers_keep_what_is_deleted():
    async def story(shop: Shop) -> None:
        content = os.urandom(3 << 20)
        version = await shop.put("k", content)
        reading = shop.segments.read(cut(version.segments, 0, version.size))
        first = await anext(reading)
        await shop.objects.delete(BUCKET, "k")
        await shop.settle()
        assert first + b"".join([data async for data in reading]) == content
        await shop.settle()
        assert shop.files() == 0

    play(story)


def test_failed_uploads_leave_nothing():
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (2 << 20)
        raise ClientFault("IncompleteBody", 400, "gone")

    async def story(shop: Shop) -> None:
        assert (await refusal(shop.segments.write(broken(), Digests(), 1 << 30))).code == "IncompleteBody"
        assert (await refusal(shop.segments.write(pieces(b"12345"), Digests(), 4))).code == "EntityTooLarge"
        assert shop.files() == 0

    play(story)


def test_the_next_process_sweeps_what_was_never_committed(tmp_path: Path):
    async def whole() -> None:
        async with Shop(tmp_path) as shop:
            await shop.buckets.create(BUCKET, ACCOUNT, "us-east-1")
            await shop.put("k", b"kept")
            upload = await shop.uploads.begin(BUCKET, "u", {}, {}, {}, "")
            await shop.uploads.put_part(upload, 1, pieces(b"part"), stated={})
            await shop.segments.write(pieces(b"lost"), Digests(), 100)
        async with Shop(tmp_path, shop.store) as again:
            fresh = await again.segments.write(pieces(b"not yet committed"), Digests(), 100)
            assert await again.segments.sweep(again.objects.used_segments()) == 1
            assert again.files() == 3
            assert await again.content(await again.objects.find(BUCKET, "k")) == b"kept"
            await again.objects.put(BUCKET, version_of("f", b"not yet committed", fresh))
            assert await again.content(await again.objects.find(BUCKET, "f")) == b"not yet committed"

    asyncio.run(whole())


@given(st.lists(st.integers(0, 5), max_size=5), st.integers(0, 30), st.integers(0, 30))
def test_cutting(sizes: list[int], start: int, length: int):
    segments = [Segment(str(number), size) for number, size in enumerate(sizes)]
    whole = [(str(number), offset) for number, size in enumerate(sizes) for offset in range(size)]
    found = [(piece.id, offset) for piece in cut(segments, start, length) for offset in range(piece.offset, piece.offset + piece.length)]
    assert found == whole[start : start + length]


def test_checksums():
    digests = Digests(["CRC32", "SHA256"])
    digests.update(b"123456789")
    assert digests.computed()["CRC32"] == "y/Q5Jg=="
    kept = compare({"CRC32": "", "CRC32C": "4waSgw=="}, digests, {"x-amz-checksum-crc32": "y/Q5Jg=="})
    assert (kept["CRC32"], kept["CRC32C"]) == ("y/Q5Jg==", "4waSgw==")
    for stated, trailers, code in (
        ({"CRC32": "AAAAAA=="}, {}, "BadDigest"),
        ({}, {"x-amz-checksum-crc32": "AAAAAA=="}, "BadDigest"),
        ({"CRC32": "AA=="}, {}, "InvalidRequest"),
    ):
        with pytest.raises(ClientFault) as caught:
            compare(stated, digests, trailers)
        assert caught.value.code == code
    with pytest.raises(ClientFault, match="InvalidRequest"):
        announced({"ChecksumSHA1": "?"})
    check_md5("JfnnlDI7RTiF9RgfG2JNCw==", digests)
    for wrong, code in (("AfnnlDI7RTiF9RgfG2JNCw==", "BadDigest"), ("x", "InvalidDigest")):
        with pytest.raises(ClientFault, match=code):
            check_md5(wrong, digests)


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=2-", (2, 8)),
        ("bytes=2-99", (2, 8)),
        ("bytes=-3", (7, 3)),
        ("bytes=-99", (0, 10)),
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("bytes=1-2,4-5", None),
        ("lines=1-2", None),
    ],
)
def test_ranges(header: str | None, span: tuple[int, int] | None):
    assert read_range(header, 10) == span


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=-0"])
def test_ranges_that_cannot_be(header: str):
    with pytest.raises(ClientFault) as caught:
        read_range(header, 10)
    assert (caught.value.code, caught.value.status, caught.value.extra["content-range"]) == ("InvalidRange", 416, "bytes */10")


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({}, 0),
        ({"IfMatch": '"e"'}, 0),
        ({"IfMatch": '"x", "e"'}, 0),
        ({"IfMatch": "*"}, 0),
        ({"IfMatch": '"x"'}, 412),
        ({"IfMatch": '"e"', "IfUnmodifiedSince": 5.0}, 0),
        ({"IfUnmodifiedSince": 5.0}, 412),
        ({"IfUnmodifiedSince": 10.0}, 0),
        ({"IfNoneMatch": '"e"'}, 304),
        ({"IfNoneMatch": '"x"'}, 0),
        ({"IfNoneMatch": '"x"', "IfModifiedSince": 20.0}, 0),
        ({"IfModifiedSince": 10.0}, 304),
        ({"IfModifiedSince": 9.0}, 0),
    ],
)
def test_conditions_of_reads(params: dict[str, Any], status: int):
    version = Version(key="k", id=NULL, sequence=1, modified=10.5, etag="e")
    if not status:
        check_read(version, params)
        return
    with pytest.raises(ClientFault) as caught:
        check_read(version, params)
    assert caught.value.status == status
    with pytest.raises(ClientFault) as caught:
        check_read(version, {f"CopySource{name}": value for name, value in params.items()}, "CopySource")
    assert caught.value.status == 412
