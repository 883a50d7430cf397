"""The zygote: one warm interpreter per runtime, from which environments are forked.

It is started in the root that its children will see (``rootfs.py``), imports the runtime client and what that preloads (AWS's client,
boto3), and then does nothing but fork when the launcher says so and report how its children ended. It runs no user code and holds no
secret, so that a child shares nothing with it that a function may not know. It is single-threaded, since a fork copies one thread.

The launcher's messages: first the system call filter as it is, then ``{"uid", "rootless", "pids", "tmp_mb"}`` with the descriptors
[pidfd of the shell, control socket, cgroup doors ...] for each child, and ``{"signal": [pid, number]}`` for one that lives. Ours:
``{"ready": version}``, ``{"forked": pid}`` or ``{"forked": 0, "fault"}`` in the order of the requests, ``{"ended": [pid, wait status]}``.

A *carrier* is the same for runtimes that are programs of their own: a fork of the launcher in the root of that runtime, where no Python
need be, with ``serve`` for its life (``origins.py``).

Runs on CPython 3.8 to 3.14, standard library only.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambent.sandbox import blank, immortals, kernel, packing
else:
    try:
        import lambent_blank as blank
        import lambent_immortals as immortals
        import lambent_kernel as kernel
        import lambent_packing as packing
    except ImportError:  # in the launcher
        from lambent.sandbox import blank, immortals, kernel, packing

_SIGCHLD, _DEFAULT = int(signal.SIGCHLD), int(signal.SIG_DFL)


def main(control: socket.socket) -> None:
    """The zygote of a Python runtime."""
    program = control.recv(1 << 20)
    client = importlib.import_module("lambent_runtime_client")
    client.preload()
    os.environ.clear()  # a child's is the function's
    gc.collect()
    immortals.make_immortal()
    packing.pack()
    serve(control, program, client)


def serve(control: socket.socket, program: bytes, client: Any) -> None:
    """Fork for the launcher until it goes away. ``client`` is ``None`` in a carrier, whose children execute programs."""
    if program == b"\0":  # this machine has none
        program = b""
    bell, clapper = socket.socketpair()
    for end in (bell, clapper):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(clapper.fileno(), warn_on_full_buffer=False)
    own_pid_namespace = kernel.pidfd_open(os.getpid())
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(bell, select.POLLIN)
    blank.settle_family()
    gc.freeze()
    _tell(control, {"ready": "%d.%d.%d" % sys.version_info[:3]})  # noqa: UP031
    while True:
        for fd, _ in poller.poll():
            if fd == bell.fileno():
                bell.recv(4096)
                _reap(control)
                continue
            config, fds = blank.receive(control)
            if not config:
                os._exit(0)
            if "signal" in config:
                _send(*config["signal"])
                continue
            _fork(control, config, fds, own_pid_namespace, program, client)


def _fork(control: socket.socket, config: blank.Message, fds: list[int], own: int, program: bytes, client: Any) -> None:
    try:
        kernel.setns(fds[0], kernel.CLONE_NEWPID)
        pid = kernel.fork()
    except OSError as error:
        pid = -1
        _tell(control, {"forked": 0, "fault": str(error)})
    if pid == 0:
        # Not ``signal.signal``, ``socket.socket``: every line of Python that a child runs costs it pages (packing.py).
        _signal.set_wakeup_fd(-1)
        _signal.signal(_SIGCHLD, _DEFAULT)
        _socket.socket.close(control)
        blank.run(_socket.socket(fileno=fds[1]), fds[0], fds[2:], config, program, client)
    kernel.setns(own, kernel.CLONE_NEWPID)
    for fd in fds:
        os.close(fd)
    if pid > 0:
        _tell(control, {"forked": pid})


def _send(pid: int, number: int) -> None:
    """Signal a child of ours. Nobody else can be sure whom a pid belongs to, since nobody else reaps."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        os.kill(pid, number)
    except (ChildProcessError, ProcessLookupError):
        pass


def _reap(control: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _tell(control, {"ended": [pid, status]})


def _tell(control: socket.socket, message: blank.Message) -> None:
    try:
        control.send(json.dumps(message).encode())
    except OSError:
        os._exit(0)  # the launcher is gone; so is the reason to be


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
