"""Companions: processes that start beside the runtime process of a sandbox and are not its children.

The blank forks them before it seals itself, as *siblings*: their parent is the zygote, as it is of the blank. So nobody in the sandbox can
reap them or stand in for them, and how they end is told by the same trusted way as how the runtime ended. Each says on the control
socket that it was born; the kernel adds its pid, in the launcher's terms.

*Extensions* are programs of the function's owner. They seal themselves like the runtime process and then wait at the *gate*, a pipe that
ends when the last privileged process of the sandbox has given up its privileges.

A *warm* interpreter knows no function yet. It is sealed from the beginning and waits for an object on descriptor 4. The blank that
started it stays privileged until the assignment, mounts what there is to mount (they share the mount namespace and the working directory),
writes the object and ends; the object is read to its end, so user code starts when the blank is gone.

Runs in the interpreter of the function, CPython 3.8 to 3.14, from the sandbox's own ``/var/runtime``, and in forks of the launcher.
"""

from __future__ import annotations

import _socket
import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from lambent.sandbox import kernel, seal
else:
    try:
        import lambent_kernel as kernel
        import lambent_seal as seal
    except ImportError:  # in the launcher
        from lambent.sandbox import kernel, seal

CHANNEL_FD, ASSIGN_FD = 3, 4
LOG_FD = 6  # standard output once more, for whole log records
# What belongs to the runtime process alone (AWS's page on the Extensions API).
_NOT_FOR_EXTENSIONS = frozenset(
    (
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_XRAY_CONTEXT_MISSING",
        "AWS_XRAY_DAEMON_ADDRESS",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
        "_AWS_XRAY_DAEMON_ADDRESS",
        "_AWS_XRAY_DAEMON_PORT",
        "_HANDLER",
        "_LAMBDA_TELEMETRY_LOG_FD",
    )
)


def extension_environment(environment: dict[str, str]) -> dict[str, str]:
    """The part of the function's environment that its extensions see."""
    return {name: value for name, value in environment.items() if name not in _NOT_FOR_EXTENSIONS}


def start_extensions(control: _socket.socket, message: dict[str, Any], logs: int, config: dict[str, Any], program: bytes) -> int:
    """Start what ``message["extensions"]`` names; the write end of the gate. Raises ``OSError``."""
    gate, opener = os.pipe()
    environment = extension_environment(message["env"])
    for number, path in enumerate(message["extensions"]):
        if kernel.fork_sibling() == 0:
            os.close(opener)
            _be_extension(control, number, path, environment, gate, logs, config, program)
    os.close(gate)
    return opener


def _be_extension(
    control: _socket.socket,
    number: int,
    path: str,
    environment: dict[str, str],
    gate: int,
    logs: int,
    config: dict[str, Any],
    program: bytes,
) -> NoReturn:
    try:
        control.send(json.dumps({"born": number}).encode())
        os.setsid()
        seal.drop_privileges(config["uid"], config["rootless"])
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        seal.seal({1: logs, 2: logs, CHANNEL_FD: gate}, False, program)
        os.read(CHANNEL_FD, 1)
        seal.execute([path], "/", environment)
    except BaseException:  # a fork must not return into the code of its parent
        os._exit(seal.FAULT_STATUS)


class Warm:
    """A warm interpreter as the blank that started it sees it."""

    def __init__(self, pid: int, assign: int, channel: int, logs: int) -> None:
        self.pid = pid  # in the sandbox's own terms
        self.channel = channel  # the node's ends
        self.logs = logs
        self.assignment = assign  # the pipe

    def discard(self) -> None:
        """The function needs something that only a fresh process can give."""
        os.kill(self.pid, signal.SIGKILL)
        os.close(self.assignment)

    def assign(self, message: dict[str, Any]) -> NoReturn:
        """Tell it what it is, and make way."""
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        left = memoryview(json.dumps({"env": message["env"], "handler": message["handler"]}).encode())
        try:
            while left:
                left = left[os.write(self.assignment, left) :]
        finally:
            os._exit(0)


def start_warm(control: _socket.socket, config: dict[str, Any], program: bytes) -> Warm:
    """Start ``config["warm"]``. Raises ``OSError``."""
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    waiting, assign = os.pipe()
    pid = kernel.fork_sibling(shares_folder=True)
    if pid == 0:
        _be_warm(control, config, program, theirs.fileno(), writing, waiting)
    for fd in (theirs.detach(), writing, waiting):
        os.close(fd)
    return Warm(pid, assign, ours.detach(), reading)


def _be_warm(control: _socket.socket, config: dict[str, Any], program: bytes, channel: int, logs: int, waiting: int) -> NoReturn:
    try:
        control.send(b'{"born": -1}')
        os.setsid()
        seal.drop_privileges(config["uid"], config["rootless"])
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        seal.seal({1: logs, 2: logs, CHANNEL_FD: channel, ASSIGN_FD: waiting, LOG_FD: logs}, True, program)
        seal.execute(config["warm"], "/var/task", config["warm_env"])
    except BaseException:  # a fork must not return into the code of its parent
        os._exit(seal.FAULT_STATUS)
