"""The system calls of isolation, by ctypes.

The one place that knows numbers and structs of the kernel. It runs in the launcher (CPython 3.11+) and, copied into a sandbox's root, in
every zygote, so it is plain standard library for CPython 3.8 to 3.14. Every function raises ``OSError`` when the kernel refuses. Needs
Linux 5.8 (``setns`` with a pidfd; ``open_tree`` and ``move_mount`` came with 5.2).
"""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
for _name in ("unshare", "setns", "mount", "umount2", "syscall", "prctl", "capset"):
    getattr(_libc, _name)  # looked up once, before any fork: each child that did so would write to pages of its own
_holding = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock while it calls

CLONE_FS = 0x00000200
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

# Numbers from 424 on are the same on every architecture.
_OPEN_TREE, _MOVE_MOUNT, _PIDFD_OPEN, _CLOSE_RANGE, _MOUNT_SETATTR = 428, 429, 434, 436, 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(os.uname().machine, 41)
_CLONE = {"x86_64": 56, "aarch64": 220}.get(os.uname().machine, 220)
_SIGCHLD = 17
_MOUNT_ATTR_IDMAP = 0x00100000

_CAPABILITIES_HEADER, _NO_CAPABILITIES = struct.pack("=Ii", 0x20080522, 0), bytes(24)

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_ENOSYS = 38


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, flags: int) -> None:
    """Enter the namespaces ``flags`` of the process that the pidfd ``fd`` names, or the one namespace that ``fd`` is."""
    _check(_libc.setns(fd, flags), "setns")


def fork() -> int:
    """Fork without the interpreter's own rites: ``os.fork`` makes locks anew and calls hooks that a process of one thread has no need of.

    They would write to some fifty pages in each child. A child must still seed its random numbers and tell its thread its new number.
    """
    return _check(_holding.fork(), "fork")


def fork_sibling(shares_folder: bool = False) -> int:
    """Fork, but the child is our parent's, who will reap it. With ``shares_folder`` both have one working directory: ``chdir`` moves both.

    The interpreter is not told, so the child may do little more than prepare an ``execve``. Needs a process with one thread.
    """
    flags = CLONE_PARENT | _SIGCHLD | (CLONE_FS if shares_folder else 0)
    zero = ctypes.c_ulong(0)
    pid: int = _libc.syscall(_CLONE, ctypes.c_ulong(flags), zero, zero, zero, zero)
    return _check(pid, "clone")


def pidfd_open(pid: int) -> int:
    fd: int = _libc.syscall(_PIDFD_OPEN, pid, 0)
    return _check(fd, "pidfd_open")


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode() or None)
    _check(result, "mount " + target)


def umount(target: str) -> None:
    """Detach ``target`` now, whoever uses it."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), "umount " + target)


def pivot_root(new: str, old: str) -> None:
    _check(_libc.syscall(_PIVOT_ROOT, new.encode(), old.encode()), "pivot_root")


def open_tree(path: str, recursive: bool = False, dir_fd: int = _AT_FDCWD) -> int:
    """A detached bind mount of ``path`` as a descriptor. It may be given to another process and mounted in another namespace."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_EMPTY_PATH if not path else 0) | (0x8000 if recursive else 0)
    fd: int = _libc.syscall(_OPEN_TREE, dir_fd, path.encode(), flags)
    return _check(fd, "open_tree " + path)


def move_mount(fd: int, target: str) -> None:
    """Attach what ``open_tree`` gave at ``target``."""
    _check(_libc.syscall(_MOVE_MOUNT, fd, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH), "move_mount " + target)


def map_owner(fd: int, user_namespace: int) -> None:
    """Show the detached mount ``fd`` with the owners that ``user_namespace`` maps. Linux 5.12, and a file system that can."""
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, user_namespace)
    result = _libc.syscall(_MOUNT_SETATTR, fd, b"", _AT_EMPTY_PATH, attributes, ctypes.c_ulong(len(attributes)))
    _check(result, "mount_setattr")


def restrict_mount(target: str, writable: bool = False, devices: bool = False) -> None:
    """Make the bind mount at ``target`` read-only, nosuid and nodev, and keep the flags that a user namespace may not lift."""
    has = os.statvfs(target).f_flag
    atime = has & (1024 | 2048 | 4096)  # ST_NOATIME, ST_NODIRATIME, ST_RELATIME as statvfs tells them
    flags = has & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC) | MS_NOSUID | (0 if writable else MS_RDONLY) | (0 if devices else MS_NODEV)
    flags |= (1024 if atime & 1024 else 0) | (2048 if atime & 2048 else 0) | ((1 << 21) if atime & 4096 else 0)
    mount("none", target, "none", MS_REMOUNT | MS_BIND | flags)


def prctl(option: int, argument: int = 0) -> None:
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(option, ctypes.c_ulong(argument), zero, zero, zero), "prctl")


def set_name(name: str) -> None:
    """What ``ps`` shows, 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _libc.prctl(PR_SET_NAME, ctypes.byref(buffer), 0, 0, 0)


def sethostname(name: str) -> None:
    encoded = name.encode()
    _check(_libc.sethostname(encoded, ctypes.c_size_t(len(encoded))), "sethostname")


def drop_bounding_set() -> None:
    """No program executed from here on gains a capability."""
    for capability in range(64):
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) != 0:
            break  # EINVAL: beyond the kernel's last capability


def drop_capabilities() -> None:
    """Empty the effective, permitted and inheritable sets (and with them the ambient one)."""
    _check(_libc.capset(_CAPABILITIES_HEADER, _NO_CAPABILITIES), "capset")


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """Close every descriptor from ``first`` to ``last``."""
    if first > last:
        return
    result = _libc.syscall(_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(last), ctypes.c_uint(0))
    if result < 0:
        if ctypes.get_errno() != _ENOSYS:
            _check(result, "close_range")
        os.closerange(first, min(last, 65536))
