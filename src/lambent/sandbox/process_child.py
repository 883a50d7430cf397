"""The first thing that runs in an environment of the ``process`` driver: bound what a plain process can be bound by, then be the runtime.

For Python the arguments are the channel's descriptor, the handler, the memory size in MB and the descriptor to wait at (-1: none); it runs
on CPython 3.8 to 3.14 from its file, and finds the runtime client by ``LAMBDA_RUNTIME_DIR``. For a program the only argument is a JSON
object: ``argv``, ``cwd``, ``env`` (all of it), ``memory_mb`` and ``hold``.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_HEADROOM_MB = 64  # RLIMIT_DATA counts the interpreter's own pages, too
_PROGRAM_HEADROOM_MB = 1_024  # and heaps and stacks that a virtual machine reserves without using them
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as a shell says it


def _bound(limit: int, value: int) -> None:
    ceiling = resource.getrlimit(limit)[1]
    value = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
    resource.setrlimit(limit, (value, value))


def _settle(memory_mb: int, hold: int) -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what daemonises stays below us, where the driver finds it
    _bound(resource.RLIMIT_NOFILE, 1024)
    _bound(resource.RLIMIT_CORE, 0)
    _bound(resource.RLIMIT_DATA, memory_mb << 20)
    if hold >= 0:
        os.read(hold, 1)
        os.close(hold)


def main(channel: int, handler: str, memory_mb: int, hold: int) -> None:
    """Never returns normally."""
    _settle(memory_mb + _HEADROOM_MB, hold)
    sys.path[:] = [os.environ["LAMBDA_RUNTIME_DIR"], *sys.path[1:]]
    client = importlib.import_module("lambent_runtime_client")
    client.run(channel, handler)


def execute(order: dict) -> None:  # type: ignore[type-arg]  # 3.8 evaluates nothing else
    """Become the program; never returns."""
    _settle(order["memory_mb"] + _PROGRAM_HEADROOM_MB, order["hold"])
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    argv, environment = order["argv"], order["env"]
    folders = [""] if "/" in argv[0] else environment.get("PATH", "/usr/bin:/bin").split(":")
    status = _NOT_FOUND
    try:
        os.chdir(order["cwd"])
    except OSError:
        os._exit(_NOT_EXECUTABLE)
    for folder in folders:
        try:
            os.execve(os.path.join(folder, argv[0]), argv, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError):
            status = _NOT_EXECUTABLE
    os._exit(status)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        execute(json.loads(sys.argv[1]))
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
