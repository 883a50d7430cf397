"""The shell: process 1 of a sandbox, which holds its namespaces and buries its orphans.

User code must not be process 1: signals that it sends to itself would be ignored, and it would have to reap what its children leave
behind. So the launcher forks a shell first, as init of a fresh pid namespace. The shell makes the network, ipc and host name
namespaces, opens the platform's door inside (a listening socket on 127.0.0.1 that the node serves), gives everything up that it has
(root directory, user id, capabilities, descriptors) and sleeps until somebody kills it, which kills the whole sandbox. The kernel reaps
for it, since it ignores ``SIGCHLD``. User code sees a process 1 that it may neither signal, trace nor look into.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
from typing import NoReturn

from lambent.sandbox import kernel

NAMESPACES = kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def run_shell(ready: int, hostname: str, port: int, uid: int) -> NoReturn:
    """Become the shell; call in a child that is process 1 of its pid namespace.

    ``ready`` is a socket: it gets the listening socket and the message "ready", or "fault ..." before the process ends. ``port`` 0 means
    that there is no door. ``uid`` 0 means that there is no user id to change to (without root).
    """
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        kernel.close_range(0, ready - 1)
        kernel.close_range(ready + 1)
        doors = _furnish(hostname, port)
        os.chdir("/proc/self/fdinfo")
        os.chroot(".")
        os.chdir("/")
        _drop(uid)
        _send(ready, b"ready", doors)
    except OSError as error:
        _send(ready, b"fault " + str(error).encode(), [])
        os._exit(1)
    kernel.close_range(0)
    while True:
        signal.pause()


def _furnish(hostname: str, port: int) -> list[int]:
    kernel.unshare(NAMESPACES)
    kernel.sethostname(hostname)
    control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    request = struct.pack("16sH14x", b"lo", 0)
    flags = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)[0]
    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))
    control.close()
    if not port:
        return []
    door = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind(("127.0.0.1", port))
    door.listen(64)
    door.setblocking(False)
    return [door.detach()]


def _drop(uid: int) -> None:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)


def _send(ready: int, message: bytes, fds: list[int]) -> None:
    with socket.socket(fileno=ready) as channel:
        socket.send_fds(channel, [message], fds)
