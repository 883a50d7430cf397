"""Try something for real, in a forked child, and leave nothing behind.

The only honest probe of a kernel is an attempt. The child may unshare, mount, drop its user or die; the parent learns what it returned,
or why it failed. For ``detect.py`` and ``network.probe``; call it from a process with one thread.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attempt:
    """``detail`` is what the child returned, or the error in words."""

    ok: bool
    detail: str


def attempt(action: Callable[[], str], seconds: float = 5.0) -> Attempt:
    """Run ``action`` in a child; an ``OSError`` in it is a failed attempt. A child that takes longer than ``seconds`` is killed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(action, writer)
    os.close(writer)
    data = b""
    timed_out = False
    try:
        while True:
            if not select.select([reader], [], [], seconds)[0]:
                timed_out = True
                os.kill(pid, signal.SIGKILL)
                break
            chunk = os.read(reader, 65536)
            if not chunk:
                break
            data += chunk
    finally:
        os.close(reader)
        _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if timed_out:
        return Attempt(False, f"no answer within {seconds:g} s")
    if code < 0:
        return Attempt(False, f"killed by signal {-code}")
    return Attempt(code == 0, data.decode(errors="replace"))


def _child(action: Callable[[], str], writer: int) -> None:
    code = 1
    try:
        message = action()
        code = 0
    except OSError as error:
        message = f"{error.filename2 or error.filename or ''}: {error.strerror}".lstrip(": ") if error.strerror else str(error)
    except BaseException as error:  # the child must never return into the parent's code
        message = f"{type(error).__name__}: {error}"
    try:
        os.write(writer, message.encode()[:60000])
    finally:
        os._exit(code)
