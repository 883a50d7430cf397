"""Merging layers: against a model that lays dictionaries over each other, and the clashes by hand."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lambent.control.layer_merge import extensions_in, merge, merged_key

Tree = dict[str, "bytes | str | Tree"]  # a name's file, link (text) or folder

names = st.sampled_from("abc")
leaves = st.one_of(st.binary(max_size=3), st.sampled_from(["a", "../b", "nowhere"]))
trees: st.SearchStrategy[Tree] = st.recursive(
    st.dictionaries(names, leaves, max_size=3), lambda inner: st.dictionaries(names, st.one_of(leaves, inner), max_size=3), max_leaves=12
)


def plant(tree: Tree, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, what in tree.items():
        if isinstance(what, dict):
            plant(what, folder / name)
        elif isinstance(what, str):
            (folder / name).symlink_to(what)
        else:
            (folder / name).write_bytes(what)
    return folder


def harvest(folder: Path) -> Tree:
    tree: Tree = {}
    for entry in os.scandir(folder):
        if entry.is_symlink():
            tree[entry.name] = os.readlink(entry.path)
        elif entry.is_dir():
            tree[entry.name] = harvest(Path(entry.path))
        else:
            tree[entry.name] = Path(entry.path).read_bytes()
    return tree


def overlay(lower: Tree, upper: Tree) -> Tree:
    result = dict(lower)
    for name, what in upper.items():
        below = result.get(name)
        result[name] = overlay(below, what) if isinstance(below, dict) and isinstance(what, dict) else what
    return result


@given(st.lists(trees, min_size=2, max_size=4))
def test_the_later_layer_wins(layers: list[Tree]):
    with tempfile.TemporaryDirectory() as scratch:
        folders = [plant(tree, Path(scratch, str(number))) for number, tree in enumerate(layers)]
        target = Path(scratch, "merged")
        target.mkdir()
        merge(folders, target)
        expected: Tree = {}
        for tree in layers:
            expected = overlay(expected, tree)
        assert harvest(target) == expected
        assert [harvest(folder) for folder in folders] == layers


def test_files_are_not_copied_and_folders_can_be_read(tmp_path: Path):
    one, two = plant({"d": {"f": b"1"}}, tmp_path / "one"), plant({"d": {"g": b"2"}}, tmp_path / "two")
    target = tmp_path / "merged"
    target.mkdir()
    before = os.umask(0o077)
    try:
        assert merge([one, two], target) == 2
    finally:
        os.umask(before)
    assert (target / "d/f").stat().st_ino == (one / "d/f").stat().st_ino
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o755


def test_names_of_merges():
    one, two = "1" * 64, "2" * 64
    assert (merged_key([]), merged_key([one])) == ("", one)
    assert len({merged_key([one, two]), merged_key([two, one]), merged_key([one, two, one]), one, two}) == 5


def test_extensions_are_the_executable_files(tmp_path: Path):
    opt = plant(
        {"extensions": {"b": b"#!", "a": b"#!", "plain": b"", "folder": {"x": b"#!"}, "link": "a", "out": "../bin/x"}}, tmp_path / "opt"
    )
    for name in ("a", "b", "folder/x"):
        (opt / "extensions" / name).chmod(0o755)
    (opt / "extensions/plain").chmod(0o644)
    assert extensions_in(str(opt)) == ("/opt/extensions/a", "/opt/extensions/b", "/opt/extensions/link")
    assert extensions_in("") == ()
    assert extensions_in(str(plant({}, tmp_path / "empty"))) == ()
    assert extensions_in(str(plant({"extensions": b"a file"}, tmp_path / "file"))) == ()
