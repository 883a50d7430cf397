"""The blank: a sandbox's runtime process from its fork until user code runs.

A blank is forked from a zygote, still root and still trusted. It does everything that needs no knowledge of the function first: it
joins its cgroups (which takes long, and which is why blanks are made ahead), builds its mounts and enters the shell's namespaces. Then
it waits. An assignment makes it a function's environment for good: code is mounted, privileges are dropped one after the other, all
descriptors but the channel and the log pipe are closed, the system call filter is loaded, and the runtime client takes over. There is
no way back: a blank is used once.

Runs in the interpreter of the function, CPython 3.8 to 3.14, from the sandbox's own ``/var/runtime``.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import socket
import struct
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from lambent.sandbox import kernel, seccomp

    Message = dict[str, Any]
else:
    import lambent_kernel as kernel
    import lambent_seccomp as seccomp

CHANNEL_FD = 3
FAULT_STATUS = 70  # the process ended before user code ran
_MAX_MESSAGE = 1 << 18
_DATA_HEADROOM = 64 << 20  # RLIMIT_DATA counts the interpreter's own pages too
_LIMITS = (
    (resource.RLIMIT_NOFILE, 1024, 1024),
    (resource.RLIMIT_CORE, 1, 1),  # with 0 the host's core dump handler would still be run; with 1 neither handler nor file
    (resource.RLIMIT_STACK, 8 << 20, 8 << 20),
    (resource.RLIMIT_MEMLOCK, 64 << 10, 64 << 10),
)


def receive(control: socket.socket) -> tuple[Message, list[int]]:
    """The next message and its descriptors; an empty message when the peer is gone."""
    data, ancillary, _, _ = control.recvmsg(_MAX_MESSAGE, socket.CMSG_SPACE(16 * 4))
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.extend(struct.unpack("=%di" % (len(payload) // 4), payload[: len(payload) // 4 * 4]))  # noqa: UP031
    return (json.loads(data) if data else {}), fds


def run(control: socket.socket, shell: int, attach: list[int], config: Message, program: bytes, client: Any) -> NoReturn:
    """Live as a blank and then as an environment.

    ``shell`` is a pidfd of process 1, ``attach`` are the doors of the cgroups, ``config`` is what the launcher knows already: uid,
    rootless, pids, tmp_mb. ``program`` is the system call filter.
    """
    try:
        _prepare(shell, attach, config)
        control.send(b'{"blank": true}')
        message, fds = receive(control)
        if not message:
            os._exit(0)
        _assign(message, fds, config)
    except OSError as error:
        _fault(control, error)
    channel, logs = fds[0], fds[1]
    try:
        _seal(channel, logs, program)
    except OSError as error:
        os.write(2, ("sandbox: %s\n" % error).encode())  # noqa: UP031
        os._exit(FAULT_STATUS)
    client.run(CHANNEL_FD, message["handler"])
    os._exit(0)


def _fault(control: socket.socket, error: OSError) -> NoReturn:
    try:
        control.send(json.dumps({"fault": str(error)}).encode())
    finally:
        os._exit(FAULT_STATUS)


def _prepare(shell: int, attach: list[int], config: Message) -> None:
    os.setsid()  # a signal to its process group must not reach zygote and launcher, which without root have the same user id
    for door in attach:
        os.write(door, b"0")
        os.close(door)
    kernel.setns(shell, kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)
    os.close(shell)
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWCGROUP)
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, "hidepid=2")
    owner = config["uid"]
    kernel.mount("tmp", "/tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, _tmp_options(config["tmp_mb"], owner))
    for limit, soft, hard in _LIMITS:
        _limit(limit, soft, hard)
    _limit(resource.RLIMIT_NPROC, config["pids"], config["pids"])
    kernel.drop_bounding_set()
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")  # a machine short of memory loses sandboxes before it loses the platform


def _limit(limit: int, soft: int, hard: int) -> None:
    ceiling = resource.getrlimit(limit)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(limit, (soft, hard))


def _tmp_options(size_mb: int, owner: int) -> str:
    return "size=%dm,nr_inodes=%d,mode=0700,uid=%d,gid=%d" % (size_mb, size_mb * 64, owner, owner)  # noqa: UP031


def _assign(message: Message, fds: list[int], config: Message) -> None:
    """Everything that still needs privileges. ``fds`` are channel, logs, code, and the merged layers where there are any."""
    kernel.move_mount(fds[2], "/var/task")
    kernel.restrict_mount("/var/task")
    if len(fds) > 3:
        kernel.move_mount(fds[3], "/opt")
        kernel.restrict_mount("/opt")
    if message["tmp_mb"] != config["tmp_mb"]:
        flags = kernel.MS_REMOUNT | kernel.MS_NOSUID | kernel.MS_NODEV
        kernel.mount("tmp", "/tmp", "tmpfs", flags, _tmp_options(message["tmp_mb"], config["uid"]))
    if message["data_mb"]:
        size = (message["data_mb"] << 20) + _DATA_HEADROOM
        _limit(resource.RLIMIT_DATA, size, size)
    os.chdir("/var/task")
    _replace_environment(message["env"])
    if config["rootless"]:
        _nest()
    else:
        os.setgroups([])
        os.setresgid(config["uid"], config["uid"], config["uid"])
        os.setresuid(config["uid"], config["uid"], config["uid"])
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # the change of user hid our own /proc/self from us
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)


def _replace_environment(environment: dict[str, str]) -> None:
    """What ``os.environ.clear()`` and ``update()`` do, without the thousand small objects that they touch, each in a page of its own."""
    encoded = {os.fsencode(name): os.fsencode(value) for name, value in environment.items()}
    data = os.environ._data  # type: ignore[attr-defined]
    for name in data:
        os.unsetenv(name)
    data.clear()
    for name, value in encoded.items():
        os.putenv(name, value)
    data.update(encoded)


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


def _seal(channel: int, logs: int, program: bytes) -> None:
    """Keep the channel and the log pipe, lose every other descriptor, and load the system call filter."""
    channel = fcntl.fcntl(channel, fcntl.F_DUPFD_CLOEXEC, 16)
    logs = fcntl.fcntl(logs, fcntl.F_DUPFD_CLOEXEC, 16)
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(logs, 1)
    os.dup2(logs, 2)
    os.dup2(channel, CHANNEL_FD, inheritable=False)
    kernel.close_range(CHANNEL_FD + 1)
    if program:
        seccomp.load(program)
