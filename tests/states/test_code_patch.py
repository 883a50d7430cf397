"""A folder that was patched is the folder that unpacking would have made; what is not plain is not patched."""

from __future__ import annotations

import io
import os
import stat
import tempfile
import zipfile
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambent.control.code_spares import Spare, Spares, copy
from lambent.control.zip_archive import unpack
from lambent.control.zip_patch import Patch, Unpatchable, apply, compare, count, directory
from lambent.errors import ClientFault

LIMIT = 10_000
FILE, LINK = stat.S_IFREG, stat.S_IFLNK
Entry = tuple[str, bytes, int, int]  # name, content, mode, year


def zipped(entries: list[Entry], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content, mode, year in entries:
            info = zipfile.ZipInfo(name, (year, 1, 2, 3, 4, 6))
            info.create_system, info.external_attr, info.compress_type = 3, mode << 16, method
            archive.writestr(info, content)
    return sink.getvalue()


def seen(folder: Path) -> dict[str, object]:
    """All that a function could tell of a folder."""
    found: dict[str, object] = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place) / name
            status = path.lstat()
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            found[str(path.relative_to(folder))] = (status.st_mode, None if path.is_symlink() else status.st_mtime, content)
    return found


def unpacked(content: bytes, target: Path) -> int:
    target.mkdir()
    return unpack(content, target, LIMIT).size


def patched(old: bytes, new: bytes, place: Path) -> tuple[Path, int] | None:
    """The folder of ``new`` made from that of ``old``, which must stay as it is; ``None`` where it has to be unpacked."""
    difference = compare(old, new, directory(old))
    if difference is None:
        return None
    size = unpacked(old, place / "old")
    before = seen(place / "old")
    for name in ("new", "workshop"):
        (place / name).mkdir()
    copy(place / "old", place / "new")
    assert seen(place / "new") == before
    try:
        size = apply(difference, str(place / "new"), place / "workshop", size, LIMIT)
    except (Unpatchable, ClientFault, OSError):
        return None
    finally:
        assert seen(place / "old") == before
    return place / "new", size


USUAL = ["a", "p/b", "p/c", "p/q/d", "p/q/e", "r/\u00e9", "s/t/u/v"]
NAMES = st.sampled_from([*USUAL * 4, "p", "p/b/x", "./a", "p//b", "r", "../a", "l/x"])
FOLDERS = st.sampled_from(["p/", "p/q/", "empty/", "s/t/"])
FILES = st.tuples(NAMES, st.sampled_from([b"one", b"two", b"three" * 9]), st.sampled_from([FILE | 0o644, FILE | 0o755, 0]), st.just(2000))
FOLDER_ENTRIES = st.tuples(FOLDERS, st.just(b""), st.just(stat.S_IFDIR | 0o755), st.sampled_from([1990, 2010]))
LINKS = st.tuples(st.sampled_from(["l", "p/l"]), st.sampled_from([b"a", b"b/c", b"../a"]), st.just(LINK | 0o777), st.just(2000))
ENTRIES = st.integers(0, 7).flatmap(lambda number: (FOLDER_ENTRIES, LINKS)[number] if number < 2 else FILES)
ZIPS = st.lists(ENTRIES, min_size=1, max_size=7, unique_by=lambda entry: entry[0])
EDITS = st.tuples(st.integers(0, 6), st.sampled_from(["drop", "write", "mode", "more"]), FILES)


@settings(max_examples=200, deadline=None)
@given(ZIPS, st.lists(EDITS, max_size=3), st.lists(FILES, max_size=2), st.integers(0, 9))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_patched_is_unpacked(before: list[Entry], edits: list[tuple[int, str, Entry]], more: list[Entry], odd: int) -> None:
    after = list(before)
    for number, edit, (name, content, mode, year) in edits:
        at = number % len(after) if after else 0
        given = after[at : at + 1]
        replacement = {
            "drop": [],
            "write": [(each, content, kind, when) for each, _, kind, when in given],
            "mode": [(each, said, mode, when) for each, said, _, when in given],
            "more": [*given, (name, content, mode, year)],
        }[edit]
        after[at : at + 1] = replacement
    after += more
    if odd:  # else the same name may be there twice
        after = list({name: (name, *rest) for name, *rest in after}.values())
    old, new = zipped(before), zipped(after)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        try:
            with patch.object(os, "fsync"):
                unpacked(old, place / "first")
        except ClientFault:
            return  # such a zip never became a folder
        with patch.object(os, "fsync"):  # the disk's patience is not what is tested
            made = patched(old, new, place)
        if made is not None:
            with patch.object(os, "fsync"):
                size = unpacked(new, place / "expected")  # and is not refused
            assert (seen(made[0]), made[1]) == (seen(place / "expected"), size)


BASE: list[Entry] = [(f"package/module_{number}.py", b"x = %d" % number, FILE | 0o644, 1980) for number in range(20)]


@pytest.mark.parametrize(
    ("after", "changed", "removed"),
    [
        ([*BASE[:7], ("package/module_7.py", b"x = 'new'", FILE | 0o644, 1980), *BASE[8:]], {"package/module_7.py"}, set()),
        ([*BASE[:3], ("package/module_3.py", b"x = 3", FILE | 0o755, 1980), *BASE[4:]], {"package/module_3.py"}, set()),
        ([("a/b/c.txt", b"new", FILE | 0o644, 1980), *BASE], {"a/b/c.txt"}, set()),
        (BASE[1:-1], set(), {"package/module_0.py", "package/module_19.py"}),
        ([("app.py", b"", FILE | 0o644, 1980)], {"app.py"}, {name for name, *_ in BASE}),
        (BASE[::-1], set(), set()),
    ],
    ids=["changed", "executable", "added", "removed", "all else gone", "another order"],
)
def test_only_the_difference_is_unpacked(tmp_path: Path, after: list[Entry], changed: set[str], removed: set[str]) -> None:
    old, new = zipped(BASE), zipped(after)
    difference = compare(old, new, directory(old))
    assert difference is not None
    assert (set(difference.changed), set(difference.removed)) == (changed, removed)
    assert count(difference.fresh) == len(changed)
    made = patched(old, new, tmp_path)
    assert made is not None
    assert made[1] == unpacked(new, tmp_path / "expected")
    assert seen(made[0]) == seen(tmp_path / "expected")
    same = {name for name, *_ in BASE if name not in changed | removed}
    assert all(os.path.samefile(tmp_path / "old" / name, made[0] / name) for name in same)


def test_bytes_count_and_not_checksums_that_a_stranger_chose() -> None:
    old = zipped([("a", b"first", FILE, 1980), ("b", b"other", FILE, 1980)], zipfile.ZIP_STORED)
    assert compare(old, old, directory(old)) == Patch(compare(old, old, directory(old)).fresh, (), (), frozenset({b"a", b"b"}))  # type: ignore[union-attr]
    assert compare(old, old.replace(b"first", b"FIRST"), directory(old)) is None  # the same line in the directory, other bytes


@pytest.mark.parametrize(
    "change",
    [
        lambda zip_: b"",
        lambda zip_: zip_[1:],
        lambda zip_: zip_[:-1],
        lambda zip_: b"#!/bin/sh\n" + zip_,
        lambda zip_: zip_ + b"\0",
        lambda zip_: zip_[:-2] + b"\x01\0!",
        lambda zip_: zip_.replace(b"PK\x03\x04", b"PK\x03\x05", 1),
        lambda zip_: zip_.replace(b"package/module_1.py", b"package//odule_1.py"),
        lambda zip_: zip_.replace(b"package/module_1.py", b"package/./dule_1.py"),
        lambda zip_: zip_.replace(b"package/module_1.py", b"/ackage/module_1.py"),
        lambda zip_: zip_.replace(b"package/module_1.py", b"package/module_2.py"),
        lambda zip_: zip_.replace(b"package/module_1.py", b"package/modul\xff_1.py"),
    ],
    ids=["empty", "head cut", "tail cut", "before", "behind", "comment", "local", "twice", "dot", "root", "same", "code page"],
)
def test_what_is_not_plain_is_unpacked_whole(change) -> None:  # type: ignore[no-untyped-def]
    old = zipped(BASE)
    assert change(old) != old
    assert compare(old, change(old), directory(old)) is None
    assert compare(change(old), old, directory(change(old))) is None


def test_entries_that_share_bytes_are_not_plain() -> None:
    """Two lines that lead to one entry, with a directory that is otherwise in order."""
    whole = zipped([("a", b"x", FILE, 1980), ("b", b"y", FILE, 1980)], zipfile.ZIP_STORED)
    place = whole.index(b"PK\x01\x02")
    second = whole.index(b"PK\x01\x02", place + 4)
    shared = whole[: second + 42] + whole[place + 42 : place + 46] + whole[second + 46 :]
    assert len(shared) == len(whole)
    assert compare(whole, shared, directory(whole)) is None


def test_nothing_but_folders_is_left_to_unpacking_to_refuse() -> None:
    folder: Entry = ("p/", b"", stat.S_IFDIR | 0o755, 1980)
    old = zipped([folder, *BASE])
    assert compare(old, zipped([folder]), directory(old)) is None


def test_the_limit_holds(tmp_path: Path) -> None:
    old = zipped([*BASE, ("big", b"x" * (LIMIT - 200), FILE, 1980)])
    new = zipped([*BASE, ("big", b"x" * (LIMIT - 200), FILE, 1980), ("more", b"y" * 300, FILE, 1980)])
    with pytest.raises(ClientFault, match=f"Unzipped size must be smaller than {LIMIT} bytes"):
        unpacked(new, tmp_path / "whole")
    difference = compare(old, new, directory(old))
    assert difference is not None
    size = unpacked(old, tmp_path / "old")
    (tmp_path / "workshop").mkdir()
    with pytest.raises(ClientFault, match=f"Unzipped size must be smaller than {LIMIT} bytes"):
        apply(difference, str(tmp_path / "old"), tmp_path / "workshop", size, LIMIT)


def test_few_spares_are_kept() -> None:
    spares = Spares(kept=2)
    a, b, c, again = (Spare(Path(name), None) for name in ("a", "b", "c", "again"))
    assert [spares.keep(spare.folder.name, spare) for spare in (a, b, c)] == [[], [], [a]]
    assert spares.keep("c", again) == [c]
    assert ("b" in spares, spares.take("b"), spares.take("b"), spares.take("a")) == (True, b, None, None)
