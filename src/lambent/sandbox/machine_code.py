"""Programs of a few system calls, in machine code.

Two processes of Lambent do nothing but hold something by being there: the shell of every sandbox and the launcher's parent. An interpreter
for each would cost megabytes. Both are a straight line of system calls with constant arguments, which must all succeed, followed by one
that waits; so this module writes them as static ELF executables of a few hundred bytes, for x86-64 and for arm64.
"""

from __future__ import annotations

import os
import struct

_BASE = 0x400000
_HEADERS = 64 + 56  # an ELF header and one program header
_FILES = ("chdir", "chroot", "close_range", "ppoll")
_IDENTITY = ("prctl", "setgroups", "setresgid", "setresuid", "capset")
_LIFE = ("rt_sigaction", "exit", "wait4")
_NUMBERS = {
    "x86_64": dict(zip((*_FILES, *_IDENTITY, *_LIFE), (80, 161, 436, 271, 157, 116, 119, 117, 126, 13, 60, 61), strict=True)),
    "aarch64": dict(zip((*_FILES, *_IDENTITY, *_LIFE), (49, 51, 436, 73, 167, 159, 149, 147, 91, 134, 93, 260), strict=True)),
}
_MACHINES = {"x86_64": 62, "aarch64": 183}

Argument = int | bytes
Step = tuple[str, *tuple[Argument, ...]]


def executable(steps: list[Step], machine: str = "") -> bytes:
    """An ELF executable for ``machine`` (of ``uname -m``; ours by default) that makes the system calls ``steps`` and then exits with 0.

    A step is a name and its arguments; ``bytes`` are passed by address. A call that fails ends the program with status 1. Raises
    ``KeyError`` for a machine that it does not know.
    """
    machine = machine or os.uname().machine
    numbers, call = _NUMBERS[machine], {"x86_64": _call_x86_64, "aarch64": _call_aarch64}[machine]
    data = b""
    calls: list[tuple[int, list[int]]] = []
    for name, *arguments in steps:
        values = []
        for argument in arguments:
            if isinstance(argument, bytes):
                values.append(_BASE + _HEADERS + len(data))
                data += argument + bytes(-len(argument) % 8)
            else:
                values.append(argument)
        calls.append((numbers[name], values))
    code = b"".join(call(number, values, call(numbers["exit"], [1], b"")) for number, values in calls) + call(numbers["exit"], [0], b"")
    size = _HEADERS + len(data) + len(code)
    entry = _BASE + _HEADERS + len(data)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, _MACHINES[machine], 1, entry, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)
    return header + load + data + code


def _call_x86_64(number: int, arguments: list[int], otherwise: bytes) -> bytes:
    """The system call ``number``; on failure, the code ``otherwise``."""
    registers = (b"\xbf", b"\xbe", b"\xba", b"\x41\xba", b"\x41\xb8", b"\x41\xb9")  # mov edi, esi, edx, r10d, r8d, r9d
    filled = (*arguments, *(0,) * (6 - len(arguments)))
    moves = b"".join(register + struct.pack("<I", value) for register, value in zip(registers, filled, strict=True))
    code = moves + b"\xb8" + struct.pack("<I", number) + b"\x0f\x05"  # mov eax; syscall
    return code + (b"\x85\xc0\x79" + bytes([len(otherwise)]) + otherwise if otherwise else b"")  # test eax, eax; jns over it


def _call_aarch64(number: int, arguments: list[int], otherwise: bytes) -> bytes:
    def move(register: int, value: int) -> list[int]:
        return [0xD2800000 | (value & 0xFFFF) << 5 | register, 0xF2A00000 | (value >> 16) << 5 | register]  # movz; movk lsl 16

    filled = (*arguments, *(0,) * (6 - len(arguments)))
    words = [word for register, value in enumerate(filled) for word in move(register, value)]
    words += [*move(8, number), 0xD4000001]  # svc 0
    if otherwise:
        words.append(0xB6F80000 | (len(otherwise) // 4 + 1) << 5)  # tbz x0, 63, over it
    return struct.pack(f"<{len(words)}I", *words) + otherwise


def in_memory(name: str, program: bytes) -> int:
    """A descriptor of ``program`` that can be executed. Raises ``OSError``."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.write(fd, program)
    return fd
