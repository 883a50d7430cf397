"""A folder becomes the same zip file as long as its files are the same; handler and runtime are guessed sensibly."""

from __future__ import annotations

import io
import os
import sys
import zipfile

import pytest

from lambent.cli.bundle import bundle, guess_handler, guess_runtime
from lambent.cli.screen import Trouble

HANDLER = "def handler(event, context):\n    return event\n"


def names(content: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def write(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_the_zip_depends_on_contents_only(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    write(first, app_dot_py=HANDLER, lib__b_dot_py="b", lib__a_dot_py="a")
    write(second, lib__a_dot_py="a", lib__b_dot_py="b", app_dot_py=HANDLER)
    os.utime(second / "app.py", (1, 1))
    os.chmod(second / "lib" / "a.py", 0o600)
    assert bundle(first) == bundle(second)
    assert names(bundle(first)) == ["app.py", "lib/a.py", "lib/b.py"]
    (second / "app.py").write_text(HANDLER + "\n")
    assert bundle(first) != bundle(second)


def test_files_are_readable_for_all_and_stay_executable(tmp_path):
    write(tmp_path, app_dot_py=HANDLER, tool="#!/bin/sh\n")
    os.chmod(tmp_path / "app.py", 0o600)
    os.chmod(tmp_path / "tool", 0o700)
    with zipfile.ZipFile(io.BytesIO(bundle(tmp_path))) as archive:
        modes = {info.filename: info.external_attr >> 16 & 0o777 for info in archive.infolist()}
    assert modes == {"app.py": 0o644, "tool": 0o755}


def test_litter_and_ignored_files_stay_behind(tmp_path):
    write(tmp_path, app_dot_py=HANDLER, notes_dot_txt="x", docs__deep__page_dot_md="x", keep__notes_dot_md="x")
    write(tmp_path, __pycache____app_dot_pyc="x", _dot_git__config="x")
    (tmp_path / "__pycache__").mkdir(exist_ok=True)
    (tmp_path / "__pycache__" / "app.cpython-311.pyc").write_text("x")
    (tmp_path / ".git").mkdir(exist_ok=True)
    (tmp_path / ".git" / "HEAD").write_text("x")
    (tmp_path / ".lambdaignore").write_text("# comment\n*.txt\n\ndocs/\n")
    assert [name for name in names(bundle(tmp_path)) if "pycache" not in name] == names(bundle(tmp_path))
    assert {"app.py", "keep/notes.md"} <= set(names(bundle(tmp_path)))
    assert not {"notes.txt", "docs/deep/page.md", ".lambdaignore", ".git/HEAD"} & set(names(bundle(tmp_path)))


def test_progress_reaches_the_total(tmp_path):
    write(tmp_path, a="12345", b="678")
    heard = []
    bundle(tmp_path, lambda done, total: heard.append((done, total)))
    assert heard == [(5, 8), (8, 8)]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(Trouble, match="no files"):
        bundle(tmp_path)


@pytest.mark.parametrize(
    ("files", "guess"),
    [
        ({"app_dot_py": HANDLER}, "app.handler"),
        ({"lambda_function_dot_py": HANDLER.replace("handler", "lambda_handler"), "app_dot_py": HANDLER}, "lambda_function.lambda_handler"),
        ({"app_dot_py": "x = 1\n", "main_dot_py": HANDLER}, "main.handler"),
        ({"anything_dot_py": "def work(event, context):\n    pass\n"}, "anything.work"),
        ({"service_dot_py": "def helper(a):\n    pass\n" + HANDLER}, "service.handler"),
        ({"app_dot_py": "handler = make_handler()\n"}, "app.handler"),
        ({"app_dot_py": "def handler(*args):\n    pass\n"}, "app.handler"),
    ],
)
def test_guesses_of_the_handler(tmp_path, files, guess):
    write(tmp_path, **files)
    assert guess_handler(tmp_path) == guess


@pytest.mark.parametrize(
    "files",
    [{"app_dot_py": "x = 1\n"}, {"a_dot_txt": ""}, {"app_dot_py": "def one(a, b): ...\ndef two(a, b): ...\n"}, {"app_dot_py": "def ("}],
)
def test_no_guess_is_better_than_a_wrong_one(tmp_path, files):
    write(tmp_path, **files)
    with pytest.raises(Trouble):
        guess_handler(tmp_path)


def test_guesses_of_the_runtime(tmp_path):
    assert guess_runtime(tmp_path) == f"python3.{min(sys.version_info[1], 14)}"
    (tmp_path / ".python-version").write_text("3.9.18\n")
    assert guess_runtime(tmp_path) == "python3.9"
    (tmp_path / ".python-version").write_text("system\n")
    assert guess_runtime(tmp_path) == f"python3.{min(sys.version_info[1], 14)}"
