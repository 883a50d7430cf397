"""The server that ``lambent dev`` works with: the one that listens at the endpoint, or one of our own for as long as we live."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from lambent.cli.api import page
from lambent.cli.screen import Trouble, remark

_READY = "Lambent is up at"
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_PR_SET_PDEATHSIG = 1


@contextmanager
def server_at(endpoint: str, data_dir: Path | None, config: Path | None) -> Iterator[bool]:
    """A server at ``endpoint`` for the length of the block; gives whether it is ours. Raises ``Trouble``."""
    try:
        page(endpoint, "health")
    except Trouble as trouble:
        host, port = urlsplit(endpoint).hostname or "", urlsplit(endpoint).port or 80
        if host not in _LOCAL or not isinstance(trouble.__cause__, OSError):
            raise
    else:
        yield False
        return
    process = _start(host, port, data_dir, config)
    try:
        yield True
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _start(host: str, port: int, data_dir: Path | None, config: Path | None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lambent.cli.main", "up", "--host", "127.0.0.1" if host == "localhost" else host, "--port", str(port)]
    command += ["--data-dir", str(data_dir)] if data_dir else []
    command += ["--config", str(config)] if config else []
    libc, parent = ctypes.CDLL(None), os.getpid()

    def die_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:
            os._exit(1)

    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is ours to handle
        preexec_fn=die_with_parent,  # noqa: PLW1509  (no thread of ours runs yet)
    )
    settled = threading.Event()
    said: list[str] = []
    threading.Thread(target=_read, args=(process.stdout, settled, said), daemon=True).start()
    settled.wait(_START_SECONDS)
    if not any(_READY in line for line in said):
        process.kill()
        process.wait()
        raise Trouble("lambent up did not start:\n" + "".join(said).rstrip())
    return process


def _read(stream: IO[str] | None, settled: threading.Event, said: list[str]) -> None:
    """Pass on what matters of what the server says: where it is and what it warns of."""
    assert stream is not None
    with stream:
        for line in stream:
            if not settled.is_set():
                said.append(line)
            if _READY in line:
                settled.set()
                remark(line.strip())
            elif settled.is_set() and not line.startswith(" ") and line.strip():
                remark(line.rstrip())
    settled.set()
