"""Unpacking zips, friendly and hostile."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

import pytest
from control_house import archive, entry, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lambent.control import zip_archive
from lambent.control.zip_archive import require_inside, unpack
from lambent.errors import ClientFault

LIMIT = 262_144_000
BROKEN = "Could not unzip uploaded file. Please check your file, then try to upload again."
LINK = stat.S_IFLNK | 0o777


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    return folder


def refused(content: bytes, target: Path, limit: int = LIMIT) -> str:
    with pytest.raises(ClientFault) as caught:
        unpack(content, target, limit)
    assert (caught.value.code, caught.value.status) == ("InvalidParameterValueException", 400)
    return caught.value.message


def raw_zip(name: bytes, packed: bytes, *, size: int, crc: int, copies: int = 1, comment: bytes = b"") -> bytes:
    """One stretch of deflated data, and a directory that lists it ``copies`` times."""
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 33, crc, len(packed), size, len(name), 0) + name + packed
    central = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 33, crc, len(packed), size, len(name), 0, 0, 0, 0, 0, 0) + name
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, copies & 0xFFFF, copies & 0xFFFF, len(central) * copies, len(local), len(comment))
    return local + central * copies + end + comment


def deflated(body: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(body) + packer.flush()


def test_files_folders_modes_and_times(target: Path):
    content = archive(
        entry("h.py", b"x = 1\n", stat.S_IFREG | 0o600),
        entry("bin/", mode=stat.S_IFDIR | 0o700),
        entry("bin/run", b"#!/bin/sh\n", stat.S_IFREG | 0o4777),
        entry("./pkg//deep/mod.py", b"y = 2\n", None),
        entry("dos\\name.txt", b"z"),
    )
    made = unpack(content, target, LIMIT)
    assert made.size == 6 + 10 + 6 + 1
    assert (target / "h.py").read_bytes() == b"x = 1\n"
    modes = {str(path.relative_to(target)): stat.S_IMODE(path.stat().st_mode) for path in target.rglob("*")}
    assert modes == {
        "h.py": 0o644,
        "bin": 0o755,
        "bin/run": 0o755,
        "pkg": 0o755,
        "pkg/deep": 0o755,
        "pkg/deep/mod.py": 0o644,
        "dos\\name.txt": 0o644,
    }
    assert (target / "h.py").stat().st_mtime == 1_767_323_046  # 2026-01-02T03:04:06Z
    assert (target / "bin").stat().st_mtime == 1_767_323_046


def test_modes_do_not_depend_on_the_umask(target: Path):
    before = os.umask(0o077)
    try:
        unpack(archive(entry("a/b.py", b"1")), target, LIMIT)
    finally:
        os.umask(before)
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "a/b.py").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"no zip at all", zipped()[:-30], b"PK\5\6" + b"\0" * 17, zipped()[40:]],
    ids=["empty", "two bytes", "text", "truncated", "short end", "beheaded"],
)
def test_broken_zip(content: bytes, target: Path):
    assert refused(content, target) == BROKEN


def test_corrupted_data_is_broken(target: Path):
    content = bytearray(archive(entry("h.py", b"0123456789" * 50, compress_type=zipfile.ZIP_STORED)))
    content[content.index(b"0123456789") + 7] ^= 0xFF
    assert refused(bytes(content), target) == BROKEN


def test_zip_without_files(target: Path):
    assert refused(archive(), target) == "Uploaded file must be a non-empty zip"
    assert refused(archive(entry("d/", mode=stat.S_IFDIR | 0o755)), target) == "Uploaded file must be a non-empty zip"


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/etc/evil", "//evil", "a/..", "..", "a\0b", "", "x" * 256, "/".join("d" * 200), "a/" * 1100 + "x"],
)
def test_names_that_lead_out_or_nowhere(name: str, target: Path, tmp_path: Path):
    assert refused(archive(entry("good.py", b"1"), entry(name, b"evil")), target) == BROKEN
    assert [path.name for path in tmp_path.iterdir()] == ["code"]
    assert list(target.iterdir()) == []  # refused before anything was written


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_devices_and_pipes(kind: int, target: Path):
    assert refused(archive(entry("h.py", b"1"), entry("dev", b"", kind | 0o666)), target) == BROKEN


@pytest.mark.parametrize("end", [b"/etc/passwd", b"../x", b"d/../../x", b"", b"x\0y", b"y" * 1025, b"up/../../x", b"link", b"link/../.."])
def test_links_that_lead_out(end: bytes, target: Path):
    content = archive(
        entry("d/f", b"1"),
        entry("up", b"d", LINK),
        entry("link", end, LINK),
    )
    assert refused(content, target) == BROKEN


def test_link_through_a_link_that_leads_out(target: Path):
    # a -> d/e is inside, and a/../../.. looks short enough to stay, but is taken from d/e's place
    content = archive(entry("d/e/f", b"1"), entry("a", b"d/e", LINK), entry("b", b"a/../../../x", LINK))
    assert refused(content, target) == BROKEN


def test_links_that_stay_inside_are_kept(target: Path):
    content = archive(
        entry("lib/tool.py", b"1"),
        entry("bin/tool", b"../lib/tool.py", LINK),
        entry("again", b"./bin/tool", LINK),
        entry("nowhere", b"lib/none", LINK),
    )
    unpack(content, target, LIMIT)
    assert (target / "again").read_bytes() == b"1"
    assert os.readlink(target / "bin/tool") == "../lib/tool.py"


def test_nothing_is_written_through_a_link(target: Path, tmp_path: Path):
    (tmp_path / "outside").mkdir()
    content = archive(entry("d", b"../outside", LINK), entry("d/evil", b"1"))
    assert refused(content, target) == BROKEN
    inside = archive(entry("real/f", b"1"), entry("d", b"real", LINK), entry("d/evil", b"2"))
    assert refused(inside, target) == BROKEN
    assert list((tmp_path / "outside").iterdir()) == []


def test_of_two_files_with_one_name_the_last_stands(target: Path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = archive(entry("h.py", b"first"), entry("h.py", b"second"), entry("d/", mode=stat.S_IFDIR), entry("d/", mode=stat.S_IFDIR))
    unpack(content, target, LIMIT)
    assert (target / "h.py").read_bytes() == b"second"


def test_a_name_that_is_file_and_folder(target: Path):
    assert refused(archive(entry("a", b"1"), entry("a/b", b"2")), target) == BROKEN
    assert refused(archive(entry("a/b", b"2"), entry("a", b"1")), target) == BROKEN


def test_encrypted(target: Path):
    content = bytearray(archive(entry("h.py", b"1")))
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    assert refused(bytes(content), target) == BROKEN


def test_other_compressions(target: Path):
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert refused(archive(entry("h.py", b"1" * 100, compress_type=method)), target) == BROKEN


def test_size_is_counted_while_inflating(target: Path):
    content = archive(entry("a", b"\0" * 700_000), entry("b", b"\0" * 400_000))
    assert len(content) < 3_000
    assert refused(content, target, 1_000_000) == "Unzipped size must be smaller than 1000000 bytes"
    written = sum(path.stat().st_size for path in target.iterdir())
    assert written <= 1_000_000 + zip_archive.CHUNK


def test_a_size_that_lies_is_not_believed(target: Path):
    body = b"\0" * 500_000
    content = raw_zip(b"a", deflated(body), size=10, crc=zlib.crc32(body))
    assert refused(content, target, 1_000) == BROKEN
    assert sum(path.stat().st_size for path in target.iterdir()) <= 1_000


def test_entries_that_share_their_bytes(target: Path):
    body = b"\0" * 100_000
    content = raw_zip(b"a", deflated(body), size=len(body), crc=zlib.crc32(body), copies=1_000)
    assert refused(content, target) == BROKEN
    assert list(target.iterdir()) == []


def test_a_directory_of_too_many_entries_is_refused_before_it_is_read(target: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(zip_archive, "MAX_ENTRIES", 50)
    made: list[object] = []
    before = zipfile.ZipInfo.__init__

    def count(self: zipfile.ZipInfo, *arguments: object, **named: object) -> None:
        made.append(self)
        before(self, *arguments, **named)  # type: ignore[arg-type]

    content = archive(*(entry(f"f{number}", b"") for number in range(51)))
    monkeypatch.setattr(zipfile.ZipInfo, "__init__", count)
    assert refused(content, target) == BROKEN
    assert made == []


def test_too_many_folders(target: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(zip_archive, "MAX_ENTRIES", 50)
    content = archive(entry("/".join("abcdefghijklmnopqrstuvwxyz" * 2), b"1"))
    assert refused(content, target) == BROKEN


def test_links_of_links_cost_bounded_work(monkeypatch: pytest.MonkeyPatch):
    # Each link walks through the next one many times over.
    links = {(f"l{number}",): (f"l{number + 1}", "..") * 30 for number in range(30)}
    monkeypatch.setattr(zip_archive, "MAX_STEPS", 1_000)
    with pytest.raises(ClientFault, match="Could not unzip"):
        require_inside({**links, ("l30",): ("d",)})


def test_many_files_are_flushed_and_whole(target: Path):
    files = {f"pkg{number % 7}/m{number}.py": b"%d" % number for number in range(200)}
    made = unpack(zipped(files), target, LIMIT)
    assert made.entries == 207
    assert {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()} == files


# -- properties ----------------------------------------------------------------------------------------------------

parts = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12).filter(
    lambda part: part not in (".", "..")
)
names = st.lists(parts, min_size=1, max_size=4).map("/".join)
hostile_names = st.lists(st.sampled_from(["..", ".", "", "a", "b", "c"]), min_size=1, max_size=5).map("/".join)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(names, st.binary(max_size=200), min_size=1, max_size=8))
def test_what_went_in_comes_out(files: dict[str, bytes]):
    folders = {"/".join(name.split("/")[:depth]) for name in files for depth in range(1, name.count("/") + 1)}
    content = zipped(files)
    folder = Path(tempfile.mkdtemp())
    try:
        if folders & set(files):
            assert refused(content, folder) == BROKEN
        else:
            unpack(content, folder, LIMIT)
            out = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            assert out == files
    finally:
        shutil.rmtree(folder)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(min_size=1, max_size=40), st.data())
def test_any_damage_is_a_refusal_or_harmless(noise: bytes, data: st.DataObject):
    content = bytearray(archive(entry("h.py", b"x = 1\n" * 20), entry("d/link", b"../h.py", LINK), entry("d/e/f", b"2")))
    at = data.draw(st.integers(0, len(content)))
    content[at : at + data.draw(st.integers(0, 40))] = noise
    contained(bytes(content))


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(hostile_names, st.sampled_from([stat.S_IFREG | 0o644, LINK, stat.S_IFDIR | 0o755]), hostile_names),
        min_size=1,
        max_size=8,
        unique_by=lambda each: each[0],
    )
)
def test_no_archive_escapes(entries: list[tuple[str, int, str]]):
    contained(archive(*(entry(name, body.encode(), mode) for name, mode, body in entries)))


def contained(content: bytes) -> None:
    """Unpacking changes nothing outside, and leaves no link that the kernel would follow to the outside."""
    world = Path(tempfile.mkdtemp())
    folder = world / "above" / "code"
    folder.mkdir(parents=True)
    try:
        with contextlib.suppress(ClientFault):
            unpack(content, folder, 100_000)
        root = os.path.realpath(folder)
        for path in folder.rglob("*"):
            end = os.path.realpath(path)
            assert end == root or end.startswith(root + os.sep)
            assert stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
        assert [str(path.relative_to(world)) for path in world.rglob("*") if folder not in path.parents] == ["above", "above/code"]
    finally:
        shutil.rmtree(world)


def test_link_rule_alone():
    require_inside({("a",): ("b",), ("b",): ("c",)})
    require_inside({("d", "l"): ("..", "x")})
    with pytest.raises(ClientFault):
        require_inside({("l",): ("..",)})
    with pytest.raises(ClientFault):
        require_inside({("a",): ("b",), ("b",): ("a",)})


def test_the_archive_reads_like_a_file():
    assert zip_archive._Archive(b"abc").read() == b"abc"
    assert isinstance(zip_archive._Archive(b""), io.BytesIO)
