"""provided.al2 and provided.al2023: whatever the function brings is executed, and speaks the Runtime API over HTTP (contract 03 §7).

``find`` always succeeds, since nothing of the machine is needed. What is executed depends on the version: ``bootstrap`` looks into its
code and its layers, and either gives the path inside or says, in AWS's words, why nothing can be. The checks are those that ``execve``
makes, done ahead on the host's copy, so that the error has AWS's type and text whatever the sandbox driver; what passes them and fails
all the same ends like any process that could not be executed.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lambent.runtimes.plan import RuntimePlan

RUNTIMES = ("provided.al2", "provided.al2023")
ERROR_TYPE = "Runtime.InvalidEntrypoint"
PLACES = ("/var/task/bootstrap", "/opt/bootstrap")

_LINE = 256  # as much of the first line as the kernel reads
_MACHINES = {"x86_64": 62, "aarch64": 183}  # ELF's e_machine


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What to execute. With a ``problem`` nothing can be: it follows ``Error: `` in a payload of type ``ERROR_TYPE``."""

    argv: tuple[str, ...]
    problem: str = ""


def find(runtime: str, configured: Sequence[str], environ: Mapping[str, str]) -> RuntimePlan | str:
    """The plan of a provided runtime. Its ``argv`` is the usual one; ``bootstrap`` decides for a version."""
    return RuntimePlan(runtime=runtime, version="", transport="http", argv=(PLACES[0],), wraps=False)


def bootstrap(code_dir: str, opt_dir: str, machine: str = "") -> Bootstrap:
    """The entry point of a version with its code in ``code_dir`` and its merged layers in ``opt_dir`` ("" without), folders of the host.

    Only a regular file counts: a folder named bootstrap is passed over. ``machine`` is what ``uname -m`` says, by default here.
    """
    for place, folder in zip(PLACES, (code_dir, opt_dir), strict=True):
        path = os.path.join(folder, "bootstrap") if folder else ""
        if path and os.path.lexists(path) and not os.path.isdir(path):
            why = _refusal(path, code_dir, opt_dir, machine or os.uname().machine)
            return Bootstrap((place,), f"fork/exec {place}: {why}" if why else "")
    return Bootstrap((PLACES[0],), f"Couldn't find valid bootstrap(s): [{' '.join(PLACES)}]")


def _refusal(path: str, code_dir: str, opt_dir: str, machine: str) -> str:
    """Go's text for the error that ``execve`` would give, or ""."""
    target = _on_host(os.readlink(path), code_dir, opt_dir) if os.path.islink(path) else path
    try:
        mode = os.stat(target).st_mode
        with open(target, "rb") as file:
            head = file.read(_LINE)
    except OSError:
        return "no such file or directory"
    if not stat.S_ISREG(mode) or not mode & 0o111:
        return "permission denied"
    if head.startswith(b"#!"):
        return _script_refusal(head, code_dir, opt_dir)
    if head.startswith(b"\x7fELF") and len(head) >= 20:
        wanted = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)[0]
        return "" if wanted == _MACHINES.get(machine, wanted) else "exec format error"
    return "exec format error"


def _script_refusal(head: bytes, code_dir: str, opt_dir: str) -> str:
    words = head[2:].split(b"\n", 1)[0].split()
    if not words:
        return "exec format error"
    named = os.fsdecode(words[0])
    if b"\r" in head.split(b"\n", 1)[0]:  # the carriage return is part of the interpreter's name
        return "no such file or directory"
    interpreter = _on_host(named, code_dir, opt_dir)
    if not os.path.exists(interpreter):
        return "no such file or directory"
    return "" if os.access(interpreter, os.X_OK) else "permission denied"


def _on_host(inside: str, code_dir: str, opt_dir: str) -> str:
    """The host's path of what the function sees as ``inside``; relative ones start at ``/var/task``."""
    absolute = os.path.normpath(os.path.join("/var/task", inside))
    for seen, folder in (("/var/task", code_dir), ("/opt", opt_dir or "/var/empty")):
        if absolute == seen or absolute.startswith(seen + "/"):
            return folder + absolute[len(seen) :]
    return absolute
