"""A stranger's layer becomes a folder: what is made, what is refused, and that nothing is written anywhere else."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import os
import stat
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lambent.images.faults import ImageFault
from lambent.images.layer import Budget, unpack
from lambent.images.layer_tree import entries, extensions, find
from lambent.images.manifest import digest_of
from lambent.testing.image_kit import File, folder, layer, program, symlink

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def hardlink(to: str) -> File:
    return File(b"", 0o644, tarfile.LNKTYPE, to)


def made(tmp_path: Path, content: bytes, packed: bytes | None = None, name: str = "layer", **limits: int) -> Path:
    target = tmp_path / name
    target.mkdir()
    budget = Budget(limits.get("size", 1 << 20), limits.get("entries", 1_000))
    unpack(io.BytesIO(content if packed is None else packed), target, digest_of(content), budget)
    return target


def refused(tmp_path: Path, content: bytes, packed: bytes | None = None, **limits: int) -> str:
    with pytest.raises(ImageFault) as caught:
        made(tmp_path, content, packed, **limits)
    assert caught.value.code == "InvalidImage"
    return caught.value.detail


CONTENT = layer({"a/b": b"x" * 200_000, "a/c": symlink("b")})


@pytest.mark.parametrize(
    "pack",
    [
        lambda content: content,
        gzip.compress,
        zstd.compress,
        lambda content: gzip.compress(content[:1000]) + gzip.compress(b"") + gzip.compress(content[1000:]) + b"\0" * 600,
        lambda content: zstd.compress(content[:1000]) + zstd.compress(content[1000:]),
    ],
)
def test_every_compression_gives_the_same(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    target = made(tmp_path, CONTENT, pack(CONTENT))
    assert (target / "a" / "c").read_bytes() == b"x" * 200_000


def test_the_padding_at_the_end_may_be_missing(tmp_path: Path) -> None:
    content = layer({"a": b"1234567"})[: 512 + 7]
    assert (made(tmp_path, content) / "a").read_bytes() == b"1234567"


@pytest.mark.parametrize(
    "packed",
    [
        CONTENT[:-10_000],
        gzip.compress(CONTENT)[:-20],
        gzip.compress(CONTENT)[:50] + b"?" * 100,
        zstd.compress(CONTENT)[:-5],
        bz2.compress(CONTENT),
        b"",
        b"no tar at all" * 100,
        gzip.compress(layer({"a": b"other"})),
    ],
    ids=["cut", "cut gzip", "broken gzip", "cut zstd", "bzip2", "nothing", "no tar", "another layer"],
)
def test_other_bytes_than_promised_are_refused(tmp_path: Path, packed: bytes) -> None:
    refused(tmp_path, CONTENT, packed)


def test_modes_and_kinds(tmp_path: Path) -> None:
    content = layer(
        {
            "./": folder(0o711),
            "set": File(b"1", 0o6755),
            "private": File(b"2", 0o600),
            "tmp": folder(0o1777),
            "null": File(b"", 0o666, tarfile.CHRTYPE),
            "pipe": File(b"", 0o666, tarfile.FIFOTYPE),
            "hard": hardlink("set"),
            "etc": symlink("/etc"),
            "closed": folder(0o000),
            "closed/in": b"3",
        }
    )
    target = made(tmp_path, content)
    modes = {name: stat.S_IMODE((target / name).lstat().st_mode) for name in ("set", "private", "tmp", "closed")}
    assert modes == {"set": 0o755, "private": 0o600, "tmp": 0o1777, "closed": 0}
    assert stat.S_IMODE(target.stat().st_mode) == 0o711
    assert sorted(os.listdir(target)) == ["closed", "etc", "hard", "private", "set", "tmp"]
    assert (target / "hard").stat().st_ino == (target / "set").stat().st_ino
    assert os.readlink(target / "etc") == "/etc"
    os.chmod(target / "closed", 0o700)


def test_nothing_is_written_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    for name in ("up", "abs"):
        content = layer(
            {
                "up": symlink("../outside"),
                "abs": symlink(str(outside)),
                f"{name}/new": b"escaped",
                f"{name}/kept": b"overwritten",
            }
        )
        target = made(tmp_path, content, name=f"layer-{name}")
        assert os.listdir(outside) == ["kept"]
        assert (outside / "kept").read_text() == "kept"
        inside = target / "outside" if name == "up" else Path(f"{target}{outside}")
        assert (inside / "new").read_bytes() == b"escaped"


def test_a_file_does_not_go_through_a_link_of_its_name(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    target = made(tmp_path, layer({"a": symlink(str(victim)), "./a": b"mine"}))
    assert victim.read_text() == "safe"
    assert (target / "a").read_bytes() == b"mine"
    assert not (target / "a").is_symlink()


@pytest.mark.parametrize(
    "files",
    [
        {"../a": b""},
        {"a/../../b": b""},
        {"a": b"1", "a/b": b"2"},
        {"a/b": b"1", "a": b"2"},
        {"a": hardlink("/etc/passwd")},
        {"a": hardlink("../../etc/passwd")},
        {"etc": symlink("/etc"), "a": hardlink("etc/passwd")},
        {"d": folder(), "a": hardlink("d")},
        {"l": symlink("l"), "l/x": b""},
        {"l": symlink("m"), "m": symlink("l"), "m/x": b""},
        {"a" * 256: b""},
        {".wh.": b""},
        {".wh...": b""},
        {"x": symlink("")},
    ],
)
def test_what_could_escape_or_means_nothing_is_refused(tmp_path: Path, files: dict[str, bytes | File]) -> None:
    refused(tmp_path, layer(files))
    assert os.listdir(tmp_path) == ["layer"]


def test_limits(tmp_path: Path) -> None:
    assert "larger than the limit" in refused(tmp_path, layer({"a": b"x" * 1001}), size=1000)
    (tmp_path / "layer" / "a").unlink(missing_ok=True)
    (tmp_path / "layer").rmdir()
    assert "more than" in refused(tmp_path, layer({str(number): b"" for number in range(11)}), entries=10)


def test_a_bomb_costs_little(tmp_path: Path) -> None:
    """A gigabyte of zeros in a megabyte, claimed by no entry."""
    packed = gzip.compress(layer({"a": b""}) + bytes(1 << 24), 9)
    assert "larger than" in refused(tmp_path, b"", packed, size=1000, entries=100)


def test_a_header_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("././@PaxHeader")
    entry.type, entry.size = tarfile.XHDTYPE, 4 << 30
    assert "at once" in refused(tmp_path, entry.tobuf() + bytes(10_240), size=1 << 40)


def test_attributes_of_overlayfs_and_capabilities_are_not_taken_over(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("a")
        entry.type = tarfile.DIRTYPE
        entry.pax_headers = {
            "SCHILY.xattr.trusted.overlay.redirect": "/etc",
            "SCHILY.xattr.user.x": "1",
            "SCHILY.xattr.security.capability": "x",
        }
        archive.addfile(entry)
    target = made(tmp_path, sink.getvalue())
    assert os.listxattr(target / "a") == []


@pytest.mark.parametrize("place", [b"x", symlink("../outside")], ids=["file", "link"])
def test_a_whiteout_in_a_folder_that_is_replaced_goes_with_it(tmp_path: Path, place: bytes | File) -> None:
    (tmp_path / "outside").mkdir()
    content = b"".join(_entry(name, file) for name, file in [("a/.wh.b", b""), ("a", place)]) + bytes(10_240)
    target = made(tmp_path, content)
    assert os.listdir(target) == ["a"]
    assert os.listdir(tmp_path / "outside") == []


NAMES = st.lists(st.sampled_from(["a", "b", ".wh.a", ".wh.b", ".wh..wh..opq", "..", ".", "l"]), min_size=1, max_size=4).map("/".join)
ENTRIES = st.one_of(
    st.just(b"x"),
    st.just(folder()),
    st.sampled_from(["a", "..", "/", "/a/b", "../../x"]).map(symlink),
    NAMES.map(hardlink),
    st.just(File(kind=b"6")),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NAMES, ENTRIES), max_size=12))
def test_any_layer_stays_in_its_folder(tmp_path: Path, files: list[tuple[str, bytes | File]]) -> None:
    content = b"".join(_entry(name, file) for name, file in files) + bytes(10_240)
    house = tmp_path / f"h{len(os.listdir(tmp_path))}"
    (house / "x").mkdir(parents=True)
    target = house / "layer"
    target.mkdir()
    with contextlib.suppress(ImageFault):
        unpack(io.BytesIO(content), target, digest_of(content), Budget(1 << 20, 100))
    assert sorted(os.listdir(house)) == ["layer", "x"]
    assert os.listdir(house / "x") == []


def _entry(name: str, file: bytes | File) -> bytes:
    whole = layer({name: file})
    entry = file if isinstance(file, File) else File(file)
    return whole[: 512 + (512 if entry.content else 0)]


# -- the stack ------------------------------------------------------------------------------------------------------------------------

Tree = dict[str, bytes | None]


def model(layers: list[dict[str, bytes | File]]) -> Tree:
    """What is to be seen of ``layers``, which hold plain files, folders and whiteouts, by the words of the image specification."""
    seen: Tree = {}
    for files in layers:
        for name in files:
            parent, _, last = name.rpartition("/")
            prefix = f"{parent}/" if parent else ""
            if last == ".wh..wh..opq":
                seen = {path: content for path, content in seen.items() if not path.startswith(prefix)}
            elif last.startswith(".wh."):
                gone = prefix + last[4:]
                seen = {path: content for path, content in seen.items() if path != gone and not path.startswith(f"{gone}/")}
        for name, file in files.items():
            if ".wh." in name:
                continue
            parts = name.split("/")
            for depth in range(1, len(parts)):
                above = "/".join(parts[:depth])
                if seen.get(above, b"") is not None:
                    seen[above] = None
            if isinstance(file, bytes):
                seen = {path: content for path, content in seen.items() if not path.startswith(f"{name}/")}
                seen[name] = file
            else:
                seen[name] = None
        for name in files:  # folders that only a whiteout is in exist all the same
            parts = name.split("/")
            for depth in range(1, len(parts)):
                seen.setdefault("/".join(parts[:depth]), None)
                if seen["/".join(parts[:depth])] is not None:
                    seen["/".join(parts[:depth])] = None
    return seen


def walk(layers: tuple[str, ...], path: str = "") -> Tree:
    seen: Tree = {}
    for name in entries(layers, path or "/"):
        below = f"{path}/{name}"
        found = find(layers, below)
        assert found is not None
        if found.is_folder:
            seen[below[1:]] = None
            seen.update(walk(layers, below))
        else:
            seen[below[1:]] = Path(found.places[0]).read_bytes()
    return seen


PARTS = st.sampled_from(["a", "b"])
FILES = st.dictionaries(
    st.builds(
        lambda parents, last: "/".join([*parents, last]),
        st.lists(PARTS, max_size=2),
        st.sampled_from(["a", "b", "c", ".wh.a", ".wh.b", ".wh..wh..opq"]),
    ),
    st.sampled_from([b"1", b"2", folder()]),
    max_size=5,
)


def consistent(files: dict[str, bytes | File]) -> bool:
    """No name of a layer is both a file and a folder, and none lies in what the same layer's other names make a file."""
    plain = [name for name, file in files.items() if isinstance(file, bytes) and ".wh." not in name]
    return not any(other.startswith(f"{name}/") for name in plain for other in files)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(FILES.filter(consistent), min_size=1, max_size=4))
def test_a_stack_is_seen_as_the_specification_says(tmp_path: Path, stack: list[dict[str, bytes | File]]) -> None:
    house = tmp_path / f"s{len(os.listdir(tmp_path))}"
    house.mkdir()
    stack = [{name: b"" if ".wh." in name else file for name, file in files.items()} for files in stack]
    folders = tuple(str(made(house, layer(files), name=str(number))) for number, files in enumerate(stack))
    assert walk(folders) == model(stack)


def test_links_are_followed_inside(tmp_path: Path) -> None:
    layers = (
        str(
            made(tmp_path, layer({"usr/lib/z": b"z", "lib": symlink("usr/lib"), "abs": symlink("/usr"), "loop": symlink("loop")}), name="0")
        ),
        str(made(tmp_path, layer({"up": symlink("../../../../lib"), "etc": symlink(str(tmp_path))}), name="1")),
    )
    for path in ("/lib/z", "/abs/lib/z", "/up/z", "/usr/../lib/./z", "//lib//z"):
        found = find(layers, path)
        assert found is not None
        assert Path(found.places[0]).read_bytes() == b"z"
    assert find(layers, "/loop") is None
    assert find(layers, "/etc/0") is None
    assert find(layers, "/lib/z/y") is None


def test_extensions_of_an_image(tmp_path: Path) -> None:
    layers = (
        str(
            made(
                tmp_path,
                layer({"opt/extensions/old": program(b"1"), "opt/extensions/one": program(b"2"), "bin/real": program(b"3")}),
                name="0",
            )
        ),
        str(
            made(
                tmp_path,
                layer(
                    {
                        "opt/extensions/.wh.old": b"",
                        "opt/extensions/notes.txt": b"4",
                        "opt/extensions/two": symlink("/bin/real"),
                        "opt/extensions/lib": folder(),
                    }
                ),
                name="1",
            )
        ),
    )
    assert extensions(layers) == ("/opt/extensions/one", "/opt/extensions/two")
    assert extensions(layers[:1]) == ("/opt/extensions/old", "/opt/extensions/one")
