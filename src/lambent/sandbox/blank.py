"""The blank: a sandbox's runtime process from its fork until user code runs.

A blank is forked from a zygote, still root and still trusted. It does everything that needs no knowledge of the function first: it
joins its cgroups (which takes long, and which is why blanks are made ahead), builds its mounts and enters the shell's namespaces. Then
it waits. An assignment makes it a function's environment for good: code is mounted (``furnish.py``), extensions are started beside it
(``companions.py``), it is sealed (``seal.py``), and the runtime client takes over in the same process, or a program is executed in its
place. There is no way back: a blank is used once.

Where a warm interpreter waits beside it, the blank is only its helper: it mounts, tells the interpreter what it is, and ends.

Runs in the interpreter of the function, CPython 3.8 to 3.14, from the sandbox's own ``/var/runtime``, and in forks of the launcher.
"""

from __future__ import annotations

import _socket
import array
import json
import os
import resource
import socket
import struct
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from lambent.sandbox import companions, furnish, kernel, seal

    Message = dict[str, Any]
else:
    try:
        import lambent_companions as companions
        import lambent_furnish as furnish
        import lambent_kernel as kernel
        import lambent_seal as seal
    except ImportError:  # in the launcher
        from lambent.sandbox import companions, furnish, kernel, seal

CHANNEL_FD = 3
_GATE_FD, _HOLD_FD = 4, 5
_BYTECODE_FD, _LEARN_FD = 7, 8  # 6 is companions.LOG_FD
_buffer = bytearray(1 << 18)  # for messages; of its pages only those are touched that one fills
_MAX_DESCRIPTORS = 250
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # what ``json.loads`` comes to, without the Python around it
_OPTIONAL = ((_HOLD_FD, "hold"), (_BYTECODE_FD, "bytecode"), (_LEARN_FD, "learn"))
_LIMITS = (
    (resource.RLIMIT_NOFILE, 1024, 1024),
    (resource.RLIMIT_CORE, 1, 1),  # with 0 the host's core dump handler would still be run; with 1 neither handler nor file
    (resource.RLIMIT_STACK, 8 << 20, 8 << 20),
    (resource.RLIMIT_MEMLOCK, 64 << 10, 64 << 10),
)


def receive(control: _socket.socket) -> tuple[Message, list[int]]:
    """The next message and its descriptors; an empty message when the peer is gone."""
    size, ancillary, _, _ = control.recvmsg_into([_buffer], socket.CMSG_SPACE(_MAX_DESCRIPTORS * 4))
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.extend(struct.unpack("=%di" % (len(payload) // 4), payload[: len(payload) // 4 * 4]))  # noqa: UP031
    return (_scan(_buffer[:size].decode(), 0)[0] if size else {}), fds


def settle_family() -> None:
    """What a zygote does once for all blanks: they inherit it. It starts no program itself, and needs few descriptors."""
    for limit, soft, hard in _LIMITS:
        furnish.set_limit(limit, soft, hard)
    kernel.drop_bounding_set()


def run(control: _socket.socket, shell: int, attach: list[int], config: Message, program: bytes, client: Any) -> NoReturn:
    """Live as a blank and then as an environment.

    ``shell`` is a pidfd of process 1, ``attach`` are the doors of the cgroups, ``config`` is what the launcher knows already: uid,
    rootless, pids, tmp_mb, and with a warm interpreter what to execute (warm, warm_env). ``program`` is the system call filter. ``client``
    is the Python runtime client, or ``None`` where a program is executed in any case.
    """
    try:
        _prepare(shell, attach, config)
        warm = companions.start_warm(control, config, program) if config.get("warm") else None
        _tell_blank(control, warm)
        message, received = receive(control)
        if not message:
            os._exit(0)
        fds = dict(zip(message["carries"], received))  # noqa: B905  (3.10)
        furnish.furnish(message, fds, config["uid"], config["tmp_mb"])
        if message["keep_tmp"]:
            _keep_tmp(control)
        gate = -1
        if message["extensions"]:
            gate = companions.start_extensions(control, message, fds["extension_logs"], config, program)
        if warm is not None:
            _dismiss(warm, message, fds, config, program)
        _bound_data(message["data_mb"])
        seal.drop_privileges(config["uid"], config["rootless"])
    except OSError as error:
        _fault(control, error)
    _go_on(message, fds, gate, program, client)


def _prepare(shell: int, attach: list[int], config: Message) -> None:
    os.setsid()  # a signal to its process group must not reach zygote and launcher, which without root have the same user id
    for door in attach:
        os.write(door, b"0")
        os.close(door)
    kernel.setns(shell, kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)
    os.close(shell)
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWCGROUP)
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, "hidepid=2")
    kernel.mount("tmp", "/tmp", "tmpfs", furnish.SAFE, furnish.tmp_options(config["tmp_mb"], config["uid"]))
    furnish.set_limit(resource.RLIMIT_NPROC, config["pids"], config["pids"])
    adjust = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    os.write(adjust, b"500")  # a machine short of memory loses sandboxes before it loses the platform
    os.close(adjust)


def _tell_blank(control: _socket.socket, warm: companions.Warm | None) -> None:
    if warm is None:
        control.send(b'{"blank": true}')
        return
    ends = array.array("i", (warm.channel, warm.logs))
    control.sendmsg([b'{"blank": true}'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, ends)])
    os.close(warm.channel)
    os.close(warm.logs)


def _keep_tmp(control: _socket.socket) -> None:
    """Give the launcher a hold on ``/tmp``: what is in it is for the next sandbox of this environment, should this one be reset."""
    fd = kernel.open_tree("/tmp")
    control.sendmsg([b'{"tmp": true}'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", (fd,)))])
    os.close(fd)


def _dismiss(warm: companions.Warm, message: Message, fds: dict[str, int], config: Message, program: bytes) -> None:
    """Hand over to the warm interpreter, or end it and go on alone."""
    if not message["warm"]:
        warm.discard()
        return
    os.chdir(message["cwd"])  # which is the interpreter's working directory, too
    _bound_data(message["data_mb"], warm.pid)
    if "hold" in fds:  # extensions run meanwhile, so nobody may wait with privileges
        seal.drop_privileges(config["uid"], config["rootless"])
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        seal.seal({companions.ASSIGN_FD: warm.assignment, _HOLD_FD: fds["hold"]}, False, program)
        os.read(_HOLD_FD, 1)
        warm.assignment = companions.ASSIGN_FD
    warm.assign(message)


def _bound_data(size_mb: int, pid: int = 0) -> None:
    """Where no cgroup limits memory, this does, for each process alone."""
    if size_mb:
        furnish.set_limit(resource.RLIMIT_DATA, size_mb << 20, size_mb << 20, pid)


def _fault(control: _socket.socket, error: OSError) -> NoReturn:
    try:
        control.send(json.dumps({"fault": str(error)}).encode())
    finally:
        os._exit(seal.FAULT_STATUS)


def _go_on(message: Message, fds: dict[str, int], gate: int, program: bytes, client: Any) -> NoReturn:
    """Without privileges: seal, open the gate, wait if we are told to, and run what there is to run."""
    argv = message["argv"]
    try:
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0 if argv else 1)  # the change of user hid our own /proc/self from us
        places = {1: fds["logs"], 2: fds["logs"], CHANNEL_FD: fds["channel"], companions.LOG_FD: fds["logs"]}
        for target, name in _OPTIONAL:
            if name in fds:
                places[target] = fds[name]
        if gate >= 0:
            places[_GATE_FD] = gate
        if not argv:
            os.chdir("/var/task")
            _replace_environment(message["env"])
        seal.seal(places, bool(argv), program)
        if _GATE_FD in places:
            os.close(_GATE_FD)
        if _HOLD_FD in places:
            os.read(_HOLD_FD, 1)
            os.close(_HOLD_FD)
    except OSError as error:
        os.write(2, ("sandbox: %s\n" % error).encode())  # noqa: UP031
        os._exit(seal.FAULT_STATUS)
    if argv:
        seal.execute(argv, message["cwd"], message["env"])
    bytecode = _BYTECODE_FD if _BYTECODE_FD in places else -1
    client.run(CHANNEL_FD, message["handler"], bytecode=bytecode, learn=_LEARN_FD if _LEARN_FD in places else -1)
    os._exit(0)


def _replace_environment(environment: dict[str, str]) -> None:
    """What ``os.environ.clear()`` and ``update()`` do, without the thousand small objects that they touch, each in a page of its own."""
    how = "surrogateescape"
    encoded = {name.encode("utf-8", how): value.encode("utf-8", how) for name, value in environment.items()}
    data = os.environ._data  # type: ignore[attr-defined]
    for name in data:
        os.unsetenv(name)
    data.clear()
    for name, value in encoded.items():
        os.putenv(name, value)
    data.update(encoded)
