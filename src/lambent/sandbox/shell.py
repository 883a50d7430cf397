"""The shell: process 1 of a sandbox, which holds its namespaces and buries its orphans.

User code must not be process 1: signals that it sends to itself would be ignored, and it would have to reap what its children leave
behind. So every sandbox begins with a shell. The launcher steps into fresh pid, network, ipc and host name namespaces, furnishes them
(loopback and two doors, sockets that listen on 127.0.0.1 and that the node serves: the platform's, and that of the three APIs), starts the
shell there and steps back.

The shell gives up what it has (descriptors, root directory, user id, capabilities) and sleeps until somebody kills it, which kills the
whole sandbox. Orphans need no attention, since it ignores ``SIGCHLD``. There is one per environment, so it must cost nothing: it is a
program of a dozen system calls without a library (``machine_code.py``) and takes some 20 kB. A forked interpreter would take 1.4 MB.
User code sees a process 1 that it may neither signal, trace nor look into.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
from dataclasses import dataclass

from lambent.sandbox import kernel
from lambent.sandbox.machine_code import Step, executable, in_memory

NAMESPACES = kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
_HELD = (("net", kernel.CLONE_NEWNET), ("ipc", kernel.CLONE_NEWIPC), ("uts", kernel.CLONE_NEWUTS), ("pid", kernel.CLONE_NEWPID))
API_PORT = 9001  # contract 03, section 2
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def program(uid: int, machine: str = "") -> bytes:
    """The shell as an executable. It becomes user ``uid``, unless that is 0. Raises ``KeyError`` for a machine without a code generator."""
    identity: list[Step] = [("setgroups", 0, 0), ("setresgid", uid, uid, uid), ("setresuid", uid, uid, uid)]
    ignore = struct.pack("=QQQQ", 1, 0, 0, 0)
    version = struct.pack("=Ii", 0x20080522, 0)
    steps: list[Step] = [
        ("close_range", 0, 0xFFFFFFFF, 0),
        ("prctl", kernel.PR_SET_NAME, b"lambent-shell\0"),
        ("rt_sigaction", signal.SIGCHLD, ignore, 0, 8),
        ("chdir", b"/proc/self/fdinfo\0"),  # nothing is in there once there are no descriptors
        ("chroot", b".\0"),
        ("chdir", b"/\0"),
        ("prctl", kernel.PR_SET_NO_NEW_PRIVS, 1),
        *(identity if uid else []),
        ("capset", version, bytes(24)),
        ("prctl", kernel.PR_SET_DUMPABLE, 0),
        ("prctl", kernel.PR_SET_PDEATHSIG, signal.SIGKILL),
        ("ppoll",),  # for ever
    ]
    return executable(steps, machine)


@dataclass(frozen=True, slots=True)
class Shell:
    """A started shell. The receiver owns the descriptors."""

    pid: int
    pidfd: int
    door: socket.socket | None  # the platform's
    api: socket.socket  # where the three APIs are


class ShellStarter:
    """Starts shells. Must be used by a process with one thread, since it changes its own namespaces for a moment."""

    def __init__(self, hostname: str, port: int, uid: int) -> None:
        """``port`` 0: there is no platform's door; ``uid`` 0: there is no other user to become (without root). Raises ``OSError``."""
        self._hostname = hostname
        self._port = port
        self._program = in_memory("lambent-shell", program(uid))
        self._own = [(os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), flag) for name, flag in _HELD]

    def start(self) -> Shell:
        """Raises ``OSError``."""
        kernel.unshare(NAMESPACES)
        doors: list[socket.socket] = []
        try:
            kernel.sethostname(self._hostname)
            _raise_loopback()
            doors += [_open_door(port) for port in (API_PORT, self._port) if port]
            pid = os.posix_spawn(f"/proc/self/fd/{self._program}", ["shell"], {})
        except OSError:
            for door in doors:
                door.close()
            raise
        finally:
            for fd, flag in self._own:
                kernel.setns(fd, flag)
        return Shell(pid, kernel.pidfd_open(pid), doors[1] if self._port else None, doors[0])

    def open_socket(self, pid: int) -> socket.socket:
        """A TCP socket in the network of the shell ``pid``. Raises ``OSError``."""
        there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.setns(there, kernel.CLONE_NEWNET)
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        finally:
            for fd, flag in self._own:
                if flag == kernel.CLONE_NEWNET:
                    kernel.setns(fd, flag)
            os.close(there)


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
