"""The shell: process 1 of a sandbox, which holds its namespaces and buries its orphans.

User code must not be process 1: signals that it sends to itself would be ignored, and it would have to reap what its children leave
behind. So every sandbox begins with a shell. The launcher steps into fresh pid, network, ipc and host name namespaces, furnishes them
(loopback, the platform's door: a socket that listens on 127.0.0.1 and that the node serves), starts the shell there and steps back.

The shell gives up what it has (descriptors, root directory, user id, capabilities) and sleeps until somebody kills it, which kills the
whole sandbox. Orphans need no attention, since it ignores ``SIGCHLD``. There is one per environment, so it must cost nothing: it is a
program of a dozen system calls without a library, in machine code that this module writes, and takes some 20 kB. A forked interpreter
would take 1.4 MB. User code sees a process 1 that it may neither signal, trace nor look into.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
from dataclasses import dataclass

from lambent.sandbox import kernel

NAMESPACES = kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
_HELD = (("net", kernel.CLONE_NEWNET), ("ipc", kernel.CLONE_NEWIPC), ("uts", kernel.CLONE_NEWUTS), ("pid", kernel.CLONE_NEWPID))
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

_BASE = 0x400000
_HEADERS = 64 + 56  # an ELF header and one program header
_CALLS = ("prctl", "setgroups", "setresgid", "setresuid", "capset", "chdir", "chroot", "rt_sigaction", "ppoll", "close_range", "exit")
_NUMBERS = {
    "x86_64": dict(zip(_CALLS, (157, 116, 119, 117, 126, 80, 161, 13, 271, 436, 60), strict=True)),
    "aarch64": dict(zip(_CALLS, (167, 159, 149, 147, 91, 49, 51, 134, 73, 436, 93), strict=True)),
}
_MACHINES = {"x86_64": 62, "aarch64": 183}

# What the program points to: name -> bytes. Directories, a sigaction that ignores, a capability header and two empty sets.
_DATA = {
    "name": b"lambent-shell\0\0\0",
    "empty": b"/proc/self/fdinfo\0\0\0\0\0\0\0",
    "here": b".\0\0\0\0\0\0\0",
    "root": b"/\0\0\0\0\0\0\0",
    "ignore": struct.pack("=QQQQ", 1, 0, 0, 0),
    "version": struct.pack("=Ii", 0x20080522, 0),
    "nothing": bytes(24),
}


def program(machine: str, uid: int) -> bytes:
    """The shell as an ELF executable for ``machine`` (of ``uname -m``). It becomes user ``uid``, unless that is 0. Raises ``KeyError``."""
    places, data = {}, b""
    for name, content in _DATA.items():
        places[name] = _BASE + _HEADERS + len(data)
        data += content
    steps: list[tuple[str, tuple[int, ...]]] = [
        ("close_range", (0, 0xFFFFFFFF, 0)),
        ("prctl", (kernel.PR_SET_NAME, places["name"])),
        ("rt_sigaction", (signal.SIGCHLD, places["ignore"], 0, 8)),
        ("chdir", (places["empty"],)),
        ("chroot", (places["here"],)),
        ("chdir", (places["root"],)),
        ("prctl", (kernel.PR_SET_NO_NEW_PRIVS, 1)),
        *([("setgroups", (0, 0)), ("setresgid", (uid, uid, uid)), ("setresuid", (uid, uid, uid))] if uid else []),
        ("capset", (places["version"], places["nothing"])),
        ("prctl", (kernel.PR_SET_DUMPABLE, 0)),
        ("prctl", (kernel.PR_SET_PDEATHSIG, signal.SIGKILL)),
    ]
    assemble = {"x86_64": _x86_64, "aarch64": _aarch64}[machine]
    code = assemble([(_NUMBERS[machine][name], arguments) for name, arguments in steps], _NUMBERS[machine])
    size = _HEADERS + len(data) + len(code)
    entry = _BASE + _HEADERS + len(data)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    elf = ident + struct.pack("<HHIQQQIHHHHHH", 2, _MACHINES[machine], 1, entry, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)
    return elf + load + data + code


def _x86_64(steps: list[tuple[int, tuple[int, ...]]], numbers: dict[str, int]) -> bytes:
    """Each step as a system call that must succeed; then sleep for ever."""
    registers = (b"\xbf", b"\xbe", b"\xba", b"\x41\xba", b"\x41\xb8", b"\x41\xb9")  # mov edi, esi, edx, r10d, r8d, r9d

    def call(number: int, arguments: tuple[int, ...]) -> bytes:
        filled = (*arguments, *(0,) * (6 - len(arguments)))
        moves = b"".join(register + struct.pack("<I", value) for register, value in zip(registers, filled, strict=True))
        return moves + b"\xb8" + struct.pack("<I", number) + b"\x0f\x05"  # mov eax; syscall

    leave = call(numbers["exit"], (1,))
    code = b""
    for number, arguments in steps:
        code += call(number, arguments) + b"\x85\xc0\x79" + bytes([len(leave)]) + leave  # test eax, eax; jns over
    sleep = call(numbers["ppoll"], ())
    return code + sleep + b"\xeb" + struct.pack("b", -len(sleep) - 2)  # jmp


def _aarch64(steps: list[tuple[int, tuple[int, ...]]], numbers: dict[str, int]) -> bytes:
    def move(register: int, value: int) -> list[int]:
        return [0xD2800000 | (value & 0xFFFF) << 5 | register, 0xF2A00000 | (value >> 16) << 5 | register]  # movz; movk lsl 16

    def call(number: int, arguments: tuple[int, ...]) -> list[int]:
        filled = (*arguments, *(0,) * (6 - len(arguments)))
        words = [word for register, value in enumerate(filled) for word in move(register, value)]
        return [*words, *move(8, number), 0xD4000001]  # svc 0

    leave = call(numbers["exit"], (1,))
    code: list[int] = []
    for number, arguments in steps:
        code += [*call(number, arguments), 0xB6F80000 | (len(leave) + 1) << 5, *leave]  # tbz x0, 63, over
    sleep = call(numbers["ppoll"], ())
    code += [*sleep, 0x14000000 | (-len(sleep) & 0x3FFFFFF)]  # b
    return struct.pack(f"<{len(code)}I", *code)


@dataclass(frozen=True, slots=True)
class Shell:
    """A started shell. The receiver owns the descriptors."""

    pid: int
    pidfd: int
    door: socket.socket | None


class ShellStarter:
    """Starts shells. Must be used by a process with one thread, since it changes its own namespaces for a moment."""

    def __init__(self, hostname: str, port: int, uid: int) -> None:
        """``port`` 0 means that there is no door; ``uid`` 0 that there is no other user to become (without root). Raises ``OSError``."""
        self._hostname = hostname
        self._port = port
        self._program = os.memfd_create("lambent-shell", os.MFD_CLOEXEC)
        os.write(self._program, program(os.uname().machine, uid))
        self._own = [(os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), flag) for name, flag in _HELD]

    def start(self) -> Shell:
        """Raises ``OSError``."""
        kernel.unshare(NAMESPACES)
        door = None
        try:
            kernel.sethostname(self._hostname)
            _raise_loopback()
            door = _open_door(self._port) if self._port else None
            pid = os.posix_spawn(f"/proc/self/fd/{self._program}", ["shell"], {})
        except OSError:
            if door is not None:
                door.close()
            raise
        finally:
            for fd, flag in self._own:
                kernel.setns(fd, flag)
        return Shell(pid, kernel.pidfd_open(pid), door)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def _open_door(port: int) -> socket.socket:
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", port))
        door.listen(64)
        door.setblocking(False)
    except OSError:
        door.close()
        raise
    return door
