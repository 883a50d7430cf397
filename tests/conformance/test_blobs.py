"""What every driver of the blobs must do."""

import asyncio
import os
import resource

import pytest

from lambent.store.blobs import FileBlobs
from lambent.store.contract import StoreUnavailable
from lambent.testing.memory_store import MemoryBlobs


@pytest.fixture(params=["memory", "files"])
def blobs_of(request, tmp_path):
    def run(scenario):
        async def main():
            blobs = MemoryBlobs() if request.param == "memory" else FileBlobs(tmp_path / "blobs")
            await blobs.open()
            await scenario(blobs)

        asyncio.run(main())

    return run


HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def test_a_blob_is_found_by_its_hash(blobs_of):
    async def scenario(blobs):
        assert await blobs.get(HELLO) is None
        assert await blobs.put(b"hello") == HELLO
        assert await blobs.put(b"hello") == HELLO
        other = await blobs.put(b"")
        assert await blobs.get(HELLO) == b"hello"
        assert await blobs.get(other) == b""
        assert sorted([address async for address in blobs.addresses()]) == sorted([HELLO, other])
        await blobs.delete(HELLO)
        await blobs.delete(HELLO)
        assert await blobs.get(HELLO) is None
        assert [address async for address in blobs.addresses()] == [other]
        assert await blobs.put(b"hello") == HELLO

    blobs_of(scenario)


def test_what_is_no_address_is_not_found(blobs_of):
    async def scenario(blobs):
        for text in ("", "..", "../../etc/passwd", HELLO.upper(), HELLO[:-1], HELLO + "\n"):
            assert await blobs.get(text) is None
            await blobs.delete(text)

    blobs_of(scenario)


def test_the_same_blob_stored_by_many_at_once(blobs_of):
    async def scenario(blobs):
        content = os.urandom(200_000)
        addresses = await asyncio.gather(*[blobs.put(content) for _ in range(20)])
        assert len(set(addresses)) == 1
        assert await blobs.get(addresses[0]) == content

    blobs_of(scenario)


def test_leftovers_are_cleared_and_half_files_are_written_anew(tmp_path):
    async def scenario():
        blobs = FileBlobs(tmp_path / "blobs")
        await blobs.open()
        address = await blobs.put(b"content")
        leftover = tmp_path / "blobs" / "tmp" / "half"
        leftover.write_bytes(b"con")
        again = FileBlobs(tmp_path / "blobs")
        await again.open()
        assert not leftover.exists()
        assert [found async for found in again.addresses()] == [address]
        path = tmp_path / "blobs" / address[:2] / address
        path.write_bytes(b"con")
        with pytest.raises(StoreUnavailable, match="damaged"):
            await again.get(address)
        await again.put(b"content")
        assert await again.get(address) == b"content"

    asyncio.run(scenario())


def test_a_blob_without_room_leaves_nothing_behind(tmp_path):
    async def scenario():
        blobs = FileBlobs(tmp_path / "blobs")
        await blobs.open()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        try:
            with pytest.raises(StoreUnavailable):
                await blobs.put(b"x" * 20_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list((tmp_path / "blobs" / "tmp").iterdir()) == []
        assert [address async for address in blobs.addresses()] == []

    asyncio.run(scenario())


def test_what_is_deleted_while_somebody_holds_all_can_still_be_read(tmp_path):
    async def main():
        blobs = FileBlobs(tmp_path)
        await blobs.open()
        kept, gone, later = [await blobs.put(content) for content in (b"kept", b"gone", b"later")]
        with blobs.holding_all():
            with blobs.holding_all():
                await blobs.delete(gone)
            await blobs.delete(later)
            assert [address async for address in blobs.addresses()] == [kept]
            assert sorted(await blobs.held()) == sorted([gone, later])
            assert await blobs.get(gone) is None
            for address, content in ((kept, b"kept"), (gone, b"gone"), (later, b"later")):
                with blobs.open_file(address) as file:
                    assert file.read() == content
        assert await blobs.held() == []
        with pytest.raises(FileNotFoundError):
            blobs.open_file(gone)
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [kept]

    asyncio.run(main())
