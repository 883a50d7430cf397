"""Whether an image can be started, in the words that Go has for why it cannot."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest

from lambent.images.entry_point import INVALID_ENTRYPOINT, INVALID_WORKDIR, Problem, problem
from lambent.images.layer import Budget, unpack
from lambent.images.manifest import digest_of
from lambent.testing.image_kit import File, folder, layer, program, symlink

PATH = "/usr/local/bin:/bin"


def elf(machine: int = 62, interpreter: bytes = b"") -> bytes:
    """The headers of a program."""
    name = interpreter + b"\0" if interpreter else b""
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1 if name else 0, 0, 0, 0)
    return head + (struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(name), len(name), 1) + name if name else b"")


FILES: dict[str, bytes | File] = {
    "app": program(elf()),
    "arm": program(elf(183)),
    "dynamic": program(elf(62, b"/lib64/ld.so")),
    "orphan": program(elf(62, b"/lib/none.so")),
    "lib64/ld.so": program(elf()),
    "script": program(b"#!/bin/sh\n"),
    "other": program(b"#! /usr/bin/none -x\n"),
    "windows": program(b"#!/bin/sh\r\n"),
    "text": program(b"hello"),
    "empty": program(b""),
    "plain": b"#!/bin/sh\n",
    "owner": File(elf(), 0o700),
    "work": folder(),
    "work/here": program(elf()),
    "bin/sh": program(elf()),
    "bin/python": symlink("/usr/local/bin/python3"),
    "usr/local/bin/python3": program(elf()),
    "usr/local/bin/hidden": b"",
}


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    target = tmp_path_factory.mktemp("image") / "fs"
    target.mkdir()
    content = layer(FILES)
    unpack(io.BytesIO(content), target, digest_of(content), Budget(1 << 20))
    return (str(target),)


@pytest.mark.parametrize(
    ("argv", "workdir", "expected"),
    [
        ("/app", "/", ""),
        ("/dynamic", "/", ""),
        ("/script", "/work", ""),
        ("./here", "/work", ""),
        ("python", "/tmp", ""),
        ("/bin/python", "/var/task", ""),
        ("/proc/self/exe", "/", ""),
        ("/nope", "/", "fork/exec /nope: no such file or directory"),
        ("./here", "/", "fork/exec ./here: no such file or directory"),
        ("/arm", "/", "fork/exec /arm: exec format error"),
        ("/orphan", "/", "fork/exec /orphan: no such file or directory"),
        ("/other", "/", "fork/exec /other: no such file or directory"),
        ("/windows", "/", "fork/exec /windows: no such file or directory"),
        ("/text", "/", "fork/exec /text: exec format error"),
        ("/empty", "/", "fork/exec /empty: exec format error"),
        ("/plain", "/", "fork/exec /plain: permission denied"),
        ("/owner", "/", "fork/exec /owner: permission denied"),
        ("/work", "/", "fork/exec /work: permission denied"),
        ("nope", "/", 'exec: "nope": executable file not found in $PATH'),
        ("hidden", "/", 'exec: "hidden": executable file not found in $PATH'),
    ],
)
def test_entry_points(layers: tuple[str, ...], argv: str, workdir: str, expected: str) -> None:
    found = problem(layers, (argv, "handler"), workdir, PATH, "x86_64")
    assert found == (Problem(INVALID_ENTRYPOINT, expected) if expected else None)


@pytest.mark.parametrize(
    ("workdir", "expected"),
    [
        ("", "the working directory '' is invalid, it needs to be an absolute path"),
        ("work", "the working directory 'work' is invalid, it needs to be an absolute path"),
        ("/nope", "the working directory doesn't exist: /nope"),
        ("/app", "chdir /app: not a directory"),
    ],
)
def test_working_directories(layers: tuple[str, ...], workdir: str, expected: str) -> None:
    assert problem(layers, ("/app",), workdir, PATH, "x86_64") == Problem(INVALID_WORKDIR, expected)


def test_an_image_that_says_nothing(layers: tuple[str, ...]) -> None:
    assert problem(layers, (), "/", PATH, "x86_64") == Problem(INVALID_ENTRYPOINT, "Couldn't find valid bootstrap(s): []")


def test_headers_that_lie_are_survived(layers: tuple[str, ...], tmp_path: Path) -> None:
    for number, content in enumerate((b"\x7fELF", elf()[:40], elf(62, b"/l")[:100], elf()[:54] + b"\xff" * 10, b"#!", b"#!\n", b"#! \n")):
        (tmp_path / "fs").mkdir(exist_ok=True)
        path = tmp_path / "fs" / str(number)
        path.write_bytes(content)
        path.chmod(0o755)
        problem((str(tmp_path / "fs"),), (f"/{number}",), "/", PATH, "x86_64")
