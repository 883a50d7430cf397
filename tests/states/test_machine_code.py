"""Generated programs do their system calls in order, stop at the first that fails, and are encoded as the architecture's manual says."""

from __future__ import annotations

import os
import struct
import subprocess

import pytest

from lambent.sandbox.machine_code import executable, in_memory
from lambent.sandbox.shell import program

here = pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="no code generator for this machine")


def run(program: bytes) -> int:
    fd = in_memory("test", program)
    try:
        return subprocess.run(["program"], executable=f"/proc/self/fd/{fd}", pass_fds=[fd], check=False).returncode
    finally:
        os.close(fd)


@here
def test_a_program_exits_with_zero() -> None:
    assert run(executable([])) == 0


@here
def test_arguments_arrive() -> None:
    assert run(executable([("exit", 42)])) == 42


@here
def test_bytes_are_passed_by_address_and_steps_run_in_order() -> None:
    assert run(executable([("chdir", b"/proc\0"), ("chdir", b"self\0"), ("exit", 9)])) == 9


@here
def test_a_failing_step_ends_the_program() -> None:
    assert run(executable([("chdir", b"/does/not/exist\0"), ("exit", 9)])) == 1


def test_arm64_words() -> None:
    code = executable([("exit", 0x12345)], "aarch64")[120:]
    words = struct.unpack(f"<{len(code) // 4}I", code)
    assert words[:2] == (0xD28468A0, 0xF2A00020)  # movz x0, #0x2345; movk x0, #1, lsl #16
    assert words[12:15] == (0xD2800BA8, 0xF2A00008, 0xD4000001)  # movz x8, #93; movk x8, #0, lsl #16; svc #0
    assert words[15] == 0xB6F80000 | 16 << 5  # tbz x0, #63, over the fifteen words of the exit that follows


def test_headers() -> None:
    for machine, number in (("x86_64", 62), ("aarch64", 183)):
        elf = program(1234, machine)
        assert elf[:4] == b"\x7fELF"
        kind, arch, _, entry = struct.unpack_from("<HHIQ", elf, 16)
        assert (kind, arch) == (2, number)
        assert 0x400000 + 120 < entry < 0x400000 + len(elf)
        assert len(elf) < 4096


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(KeyError):
        executable([], "vax")
