"""Code that differs in little from what it replaces: made of links, from a spare where one is ready, and never of what is not there."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from control_house import House, archive, entry, small

from lambent.control.code import GRACE_S, SPARE_AFTER_S, CodeStore
from lambent.control.code_spares import MIN_FILES
from lambent.errors import ClientFault
from lambent.settings import Limits

OLD = {f"package/m{number}.py": b"x = %d" % number for number in range(MIN_FILES)}
NEW = {**OLD, "package/m7.py": b"changed"}


def content_of(files: dict[str, bytes]) -> bytes:
    return archive(*(entry(name, content) for name, content in files.items()))


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@asynccontextmanager
async def linking(house: House, limits: Limits | None = None, on: bool = True) -> AsyncIterator[CodeStore]:
    code = CodeStore(house.root, house.store, house.blobs, house.links, limits or house.limits, house.clock, house.running.__contains__, on)
    try:
        yield code
    finally:
        code.close()


async def put(code: CodeStore, files: dict[str, bytes], before: dict[str, bytes] | None = None) -> Path:
    content = content_of(files)
    async with code.put(content, before="" if before is None else sha(content_of(before))) as stored:
        assert stored.sha256 == sha(content)
        assert stored.unzipped == sum(map(len, files.values()))
    folder = Path(code.folder(stored.sha256))
    assert files_in(folder) == files
    assert folder.stat().st_mode & 0o777 == 0o755
    return folder


def shared(first: Path, second: Path) -> set[str]:
    return {name for name in files_in(second) if (first / name).exists() and os.path.samefile(first / name, second / name)}


async def until_made(code: CodeStore) -> None:
    await asyncio.gather(*code._making.values())


def temporary(root: Path) -> list[str]:
    return [name for name in os.listdir(root) if name.startswith(".tmp-")]


def test_files_that_are_the_same_are_shared(tmp_path: Path) -> None:
    async def story() -> None:
        async with House(tmp_path) as house, linking(house) as code:
            old = await put(code, OLD)
            new = await put(code, NEW, OLD)
            assert shared(old, new) == set(OLD) - {"package/m7.py"}
            assert files_in(old) == OLD
            assert temporary(tmp_path) == []

    asyncio.run(story())


def test_the_next_change_takes_the_spare(tmp_path: Path) -> None:
    async def story() -> None:
        async with House(tmp_path) as house, linking(house) as code:
            old = await put(code, OLD)
            await asyncio.sleep(0)
            house.clock.advance(SPARE_AFTER_S)
            await until_made(code)
            [spare] = temporary(tmp_path)
            inode = (tmp_path / spare).stat().st_ino
            assert files_in(tmp_path / spare) == OLD
            new = await put(code, NEW, OLD)
            assert new.stat().st_ino == inode
            assert shared(old, new) == set(OLD) - {"package/m7.py"}
            assert temporary(tmp_path) == []

    asyncio.run(story())


def test_a_spare_that_comes_too_late_is_not_made_and_one_of_removed_code_goes_with_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with House(tmp_path) as house, linking(house) as code:
            await put(code, OLD)
            await asyncio.sleep(0)
            await put(code, NEW, OLD)
            await asyncio.sleep(0)
            house.clock.advance(SPARE_AFTER_S)
            await until_made(code)
            [spare] = temporary(tmp_path)  # of the new code only
            assert files_in(tmp_path / spare) == NEW
            house.clock.advance(GRACE_S)
            assert await code.collect(lambda sha256: False, lambda sha256: False) == 2
            assert os.listdir(tmp_path) == []

    asyncio.run(story())


@pytest.mark.parametrize("lost", ["folder", "zip", "spare"])
def test_what_is_missing_is_unpacked_whole(tmp_path: Path, lost: str) -> None:
    async def story() -> None:
        async with House(tmp_path) as house, linking(house) as code:
            old = await put(code, OLD)
            await asyncio.sleep(0)
            house.clock.advance(SPARE_AFTER_S)
            await until_made(code)
            if lost == "zip":
                await house.blobs.delete(old.name)
            else:
                shutil.rmtree(old if lost == "folder" else tmp_path / temporary(tmp_path)[0])
            new = await put(code, NEW, OLD)
            assert not old.exists() or shared(old, new) == set()

    asyncio.run(story())


def test_little_in_common_or_few_files_are_unpacked(tmp_path: Path) -> None:
    async def story() -> None:
        async with House(tmp_path) as house, linking(house) as code:
            old = await put(code, OLD)
            other = await put(
                code, {name: content + b" + 1" if number % 3 else content for number, (name, content) in enumerate(OLD.items())}, OLD
            )
            assert shared(old, other) == set()
            few = await put(code, {"a": b"1", "b": b"2"})
            assert shared(few, await put(code, {"a": b"1", "b": b"3"}, {"a": b"1", "b": b"2"})) == set()

    asyncio.run(story())


def test_nothing_is_shared_where_functions_could_write_to_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with House(tmp_path) as house, linking(house, on=False) as code:
            old = await put(code, OLD)
            assert shared(old, await put(code, NEW, OLD)) == set()
            assert not code._making

    asyncio.run(story())


def test_refusals_are_those_of_the_whole_zip(tmp_path: Path) -> None:
    async def story() -> None:
        limits = small(code_unzipped=sum(map(len, OLD.values())) + 10)
        async with House(tmp_path) as house, linking(house, limits) as code:
            await put(code, OLD)
            for files, text in [
                ({**OLD, "more": b"x" * 11}, f"Unzipped size must be smaller than {limits.code_unzipped} bytes"),
                ({**OLD, "../x": b""}, "Could not unzip uploaded file. Please check your file, then try to upload again."),
                ({**OLD, "package": b""}, "Could not unzip uploaded file. Please check your file, then try to upload again."),
            ]:
                with pytest.raises(ClientFault) as caught:
                    async with code.put(content_of(files), before=sha(content_of(OLD))):
                        raise AssertionError("accepted")
                assert caught.value.message == text
            assert temporary(tmp_path) == []

    asyncio.run(story())
