"""Code on the disk: shared, whole or absent, mended, and removed only when nobody needs it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from control_house import Disk, House, TinyStore, archive, entry, small, zipped

from lambent.control.code import GRACE_S, CodeLost
from lambent.control.code_links import LIFETIME_S, CodeLinks
from lambent.errors import ClientFault
from lambent.testing.clock import ManualClock


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def unused(_: str) -> bool:
    return False


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_same_content_is_stored_once_even_at_the_same_time(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path) as house:
            content = zipped()

            async def put() -> str:
                async with house.code.put(content) as code:
                    assert (tmp_path / code.sha256 / "h.py").exists()
                    return code.sha256

            assert set(await asyncio.gather(*(put() for _ in range(10)))) == {sha(content)}
            assert folders(tmp_path) == [sha(content)]
            assert house.disk.blobs == {sha(content): content}

    asyncio.run(story())


def test_refused_zip_leaves_nothing(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path, limits=small(code_unzipped=100)) as house:
            for content in (b"junk", zipped({"big": b"x" * 101}), archive(entry("ok", b"1"), entry("../no", b"1"))):
                with pytest.raises(ClientFault):
                    async with house.code.put(content):
                        raise AssertionError("accepted")
            assert folders(tmp_path) == []
            assert house.disk.blobs == {}

    asyncio.run(story())


def test_zip_over_the_direct_limit(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path, limits=small(zip_direct=50)) as house:
            with pytest.raises(ClientFault) as caught:
                async with house.code.put(zipped()):
                    raise AssertionError("accepted")
            assert (caught.value.code, caught.value.status) == ("RequestEntityTooLargeException", 413)
            assert caught.value.message == "Zipped size must be smaller than 50 bytes"

    asyncio.run(story())


def test_missing_folder_is_made_anew_from_the_blob(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path) as house:
            async with house.code.put(zipped()) as code:
                pass
            (tmp_path / code.sha256).rename(tmp_path / "elsewhere")
            assert await house.code.ensure(code.sha256) == str(tmp_path / code.sha256)
            assert (tmp_path / code.sha256 / "h.py").exists()
            (tmp_path / code.sha256).rename(tmp_path / "elsewhere2")
            house.disk.blobs[code.sha256] = b"rotten"
            with pytest.raises(CodeLost):
                await house.code.ensure(code.sha256)
            house.disk.blobs.clear()
            with pytest.raises(CodeLost):
                await house.code.ensure(code.sha256)

    asyncio.run(story())


def test_unused_code_goes_after_the_grace_and_not_before(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path) as house:
            async with house.code.put(zipped()):
                assert not house.code.pending
            house.clock.advance(GRACE_S - 1)
            assert await house.code.collect(unused, unused) == 0
            house.clock.advance(1)
            assert await house.code.collect(unused, unused) == 1
            assert folders(tmp_path) == []
            assert house.disk.blobs == {}
            assert not house.code.pending

    asyncio.run(story())


def test_code_stays_while_a_function_an_environment_or_an_upload_needs_it(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path) as house:
            content = zipped()
            async with house.code.put(content) as code:
                pass
            house.clock.advance(2 * GRACE_S)
            house.running.add(code.sha256)
            assert await house.code.collect(unused, unused) == 0
            house.running.clear()
            async with house.code.put(content):
                house.code.unused(code.sha256)  # another function lets go of the same code
                house.clock.advance(2 * GRACE_S)
                assert await house.code.collect(unused, unused) == 0
            house.clock.advance(2 * GRACE_S)
            assert await house.code.collect({code.sha256}.__contains__, {code.sha256}.__contains__) == 0
            assert not house.code.pending
            assert folders(tmp_path) == [code.sha256]

    asyncio.run(story())


def test_start_sweeps_half_made_folders_and_notes_orphans(tmp_path: Path):
    async def story() -> None:
        disk = Disk()
        async with House(tmp_path, disk) as house, house.code.put(zipped()) as code:
            pass
        (tmp_path / ".tmp-left" / "pkg").mkdir(parents=True)
        (tmp_path / ".tmp-left" / "pkg" / "half.py").write_bytes(b"1")
        other = hashlib.sha256(b"not code").hexdigest()
        disk.blobs[other] = b"not code"
        async with House(tmp_path, disk) as house:
            assert folders(tmp_path) == [code.sha256]
            house.clock.advance(GRACE_S)
            await house.code.collect(house.table.uses, house.table.uses)
            assert folders(tmp_path) == []
            assert list(disk.blobs) == [other]  # other parts' blobs are not ours to remove

    asyncio.run(story())


def test_check_keeps_nothing(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path) as house:
            content = zipped({"a": b"12345"})
            code = await house.code.check(content)
            assert (code.sha256, code.size, code.unzipped) == (sha(content), len(content), 5)
            assert folders(tmp_path) == []
            assert house.disk.blobs == {}
            with pytest.raises(ClientFault):
                await house.code.check(b"junk")

    asyncio.run(story())


def test_known_code_is_measured_without_unpacking(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path) as house:
            content = zipped({"a/b": b"12345", "c": b"67"})
            async with house.code.put(content) as first:
                pass
            before = (tmp_path / first.sha256).stat().st_ino
            async with house.code.put(content) as second:
                assert second == first
                assert second.unzipped == 7
            assert (tmp_path / first.sha256).stat().st_ino == before

    asyncio.run(story())


def parts(url: str) -> tuple[str, str, str]:
    split = urlsplit(url)
    query = parse_qs(split.query)
    return split.path.removeprefix("/_lambent/code/"), query["expires"][0], query["token"][0]


def test_location_gives_the_zip_for_ten_minutes(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path) as house:
            async with house.code.put(zipped()) as code:
                url = house.code.location("http://host:4566", code.sha256)
            assert url.startswith(f"http://host:4566/_lambent/code/{code.sha256}?")
            assert await house.code.download(*parts(url)) == zipped()
            house.clock.advance(LIFETIME_S)
            assert await house.code.download(*parts(url)) == zipped()
            house.clock.advance(1)
            assert await house.code.download(*parts(url)) is None

    asyncio.run(story())


def test_location_cannot_be_forged_and_outlives_a_restart():
    async def story() -> None:
        store, clock = TinyStore(Disk()), ManualClock()
        links = await CodeLinks.open(store, clock)
        sha256, expires, token = parts(links.make("http://h", "a" * 64))
        assert (await CodeLinks.open(store, clock)).verify(sha256, expires, token)
        assert not (await CodeLinks.open(TinyStore(Disk()), clock)).verify(sha256, expires, token)
        for forged in (
            ("b" * 64, expires, token),
            (sha256, str(int(expires) + 1), token),
            (sha256, expires, token[:-1] + ("0" if token[-1] != "0" else "1")),
            ("../../etc/passwd", expires, token),
            (sha256, "", ""),
            (sha256, "²", token),
            (sha256, expires, "é\udcff"),
            (sha256, "9" * 5000, token),
        ):
            assert not links.verify(*forged)

    asyncio.run(story())


def test_two_openings_at_once_agree_on_the_secret():
    async def story() -> None:
        store, clock = TinyStore(Disk()), ManualClock()
        one, two = await asyncio.gather(CodeLinks.open(store, clock), CodeLinks.open(store, clock))
        assert two.verify(*parts(one.make("", "a" * 64)))

    asyncio.run(story())


def test_sha_in_documents_is_base64_of_the_same_hash(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path) as house:
            shown = await house.create()
            assert base64.b64decode(shown["CodeSha256"]).hex() == sha(zipped())
            assert shown["CodeSize"] == len(zipped())

    asyncio.run(story())
