"""Sealing: what a process in a sandbox gives up before it runs code that we did not write, and how it becomes another program.

In this order: groups and user id, the right to gain privileges, capabilities; then every descriptor but those it is meant to have; last
the system call filter, under which nothing of this could be undone. Whether the process then goes on as a forked interpreter or
executes a program, it has been through the same steps.

A process that was forked from more than the function itself (the carrier of ``origins.py``) must not be looked into by those who share its
user id until it has executed its program; so it stays undumpable.

Runs in the interpreter of the function, CPython 3.8 to 3.14, from the sandbox's own ``/var/runtime``, and in forks of the launcher.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from lambent.sandbox import kernel, seccomp
else:
    try:
        import lambent_kernel as kernel
        import lambent_seccomp as seccomp
    except ImportError:  # in the launcher
        from lambent.sandbox import kernel, seccomp

FAULT_STATUS = 70  # the process ended before user code ran
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as a shell says it
_ABOVE = 64  # where descriptors wait while their places are cleared
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)  # what CPython or we ignore or handle
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def drop_privileges(uid: int, rootless: bool) -> None:
    """Become the sandbox's user for good."""
    if rootless:
        _nest()
    else:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)


def _nest() -> None:
    """Without root there is one user id to map; a nested user namespace gives it AWS's number. Optional: some kernels refuse."""
    try:
        kernel.unshare(kernel.CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", "993 0 1"), ("gid_map", "990 0 1")):
            with open("/proc/self/" + name, "w") as file:
                file.write(text)
    except OSError:
        pass
    kernel.drop_bounding_set()  # a new user namespace starts with a full one


def seal(places: dict[int, int], stay_open: bool, program: bytes) -> None:
    """Keep the descriptors ``places`` (where: which), lose every other, and load the system call filter ``program``, if any.

    Standard input becomes ``/dev/null``. With ``stay_open`` they stay so when a program is executed; the standard ones do in any case.
    """
    places = {0: os.open("/dev/null", os.O_RDONLY), **places}
    if not places.keys().isdisjoint(places.values()):  # one stands in another's place
        places = {target: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for target, fd in places.items()}
    for target, fd in places.items():
        os.dup2(fd, target, inheritable=stay_open or target < 3)
    kept = max(places) + 1
    for free in range(kept):
        if free not in places:
            kernel.close_range(free, free)
    kernel.close_range(kept)
    if program:
        seccomp.load(program)


def execute(argv: list[str], folder: str, environment: dict[str, str]) -> NoReturn:
    """Become the program ``argv`` in ``folder``. If that cannot be, end with the status that a shell would give."""
    for number in _DEFAULT_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    status = NOT_FOUND
    try:
        os.chdir(folder)
    except OSError:
        os._exit(NOT_EXECUTABLE)
    for path in _candidates(argv[0], environment):
        try:
            os.execve(path, argv, environment)
        except OSError as error:
            if error.errno not in _MISSING:
                status = NOT_EXECUTABLE
        except ValueError:  # a null byte
            status = NOT_EXECUTABLE
    os._exit(status)


def _candidates(name: str, environment: dict[str, str]) -> list[str]:
    if "/" in name:
        return [name]
    return [(folder or ".") + "/" + name for folder in environment.get("PATH", "/usr/bin:/bin").split(":")]
