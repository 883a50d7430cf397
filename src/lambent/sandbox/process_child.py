"""The first thing that runs in an environment of the ``process`` driver: bound what a plain process can be bound by, then be the runtime.

Arguments: the channel's descriptor, the handler, the memory size in MB. Runs on CPython 3.8 to 3.14 from its file; the folder with the
runtime client is found by ``LAMBDA_RUNTIME_DIR``.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_HEADROOM_MB = 64  # RLIMIT_DATA counts the interpreter's own pages, too


def _bound(limit: int, value: int) -> None:
    ceiling = resource.getrlimit(limit)[1]
    value = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
    resource.setrlimit(limit, (value, value))


def main(channel: int, handler: str, memory_mb: int) -> None:
    """Never returns normally."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what daemonises stays below us, where the driver finds it
    _bound(resource.RLIMIT_NOFILE, 1024)
    _bound(resource.RLIMIT_CORE, 0)
    _bound(resource.RLIMIT_DATA, (memory_mb + _HEADROOM_MB) << 20)
    sys.path[:] = [os.environ["LAMBDA_RUNTIME_DIR"], *sys.path[1:]]
    client = importlib.import_module("lambent_runtime_client")
    client.run(channel, handler)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
