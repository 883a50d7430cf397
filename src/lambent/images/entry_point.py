"""Whether an image can be started at all, told from its layers before anything is (contract 02 §2.1).

AWS answers ``Runtime.InvalidWorkingDir`` and ``Runtime.InvalidEntrypoint`` to invocations of an image whose WORKDIR or ENTRYPOINT is not
there, in the words of Go's standard library. The checks are those that ``chdir`` and ``execve`` would make as the sandbox's user, who owns
nothing in an image; what passes them and fails all the same ends like any process that could not be executed.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lambent.images.layer_tree import Found, find

INVALID_ENTRYPOINT = "Runtime.InvalidEntrypoint"
INVALID_WORKDIR = "Runtime.InvalidWorkingDir"

_HEAD = 65_536  # enough for the program headers of any linker
_LINE = 256  # as much of the first line as the kernel reads
_MACHINES = {"x86_64": 62, "aarch64": 183}  # ELF's e_machine
_OURS = ("/", "/dev", "/etc", "/mnt", "/opt", "/proc", "/tmp", "/var", "/var/task")  # every sandbox has these
_ELSEWHERE = ("/proc/", "/dev/")  # not told from layers
_PT_INTERP = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an image cannot be started: ``text`` follows ``Error: `` in a payload of type ``error_type``."""

    error_type: str
    text: str


@lru_cache(1024)
def problem(layers: tuple[str, ...], argv: tuple[str, ...], workdir: str, path: str, machine: str = "") -> Problem | None:
    """``layers`` are folders of the host that never change, bottom first; ``path`` is the PATH that the process will have."""
    if not workdir.startswith("/"):
        return Problem(INVALID_WORKDIR, f"the working directory '{workdir}' is invalid, it needs to be an absolute path")
    if os.path.normpath(workdir) not in _OURS:
        folder = find(layers, workdir)
        if folder is None:
            return Problem(INVALID_WORKDIR, f"the working directory doesn't exist: {workdir}")
        if not folder.is_folder:
            return Problem(INVALID_WORKDIR, f"chdir {workdir}: not a directory")
    if not argv or not argv[0]:
        return Problem(INVALID_ENTRYPOINT, f"Couldn't find valid bootstrap(s): [{' '.join(argv)}]")
    program = argv[0]
    if "/" not in program:
        places = [f"{folder}/{program}" for folder in path.split(":") if folder]
        found = [place for place in places if _refusal(layers, place, machine) in ("", "exec format error")]
        if not found:
            return Problem(INVALID_ENTRYPOINT, f'exec: "{program}": executable file not found in $PATH')
        program = found[0]
    why = _refusal(layers, os.path.join(workdir, program), machine)
    return Problem(INVALID_ENTRYPOINT, f"fork/exec {program}: {why}") if why else None


def _refusal(layers: Sequence[str], path: str, machine: str) -> str:
    """The text of the error that ``execve`` would give, or ""."""
    if path.startswith(_ELSEWHERE):
        return ""
    found = find(layers, path)
    if found is None:
        return "no such file or directory"
    if not _executable(found):
        return "permission denied"
    with open(found.places[0], "rb") as file:
        head = file.read(_HEAD)
    if head.startswith(b"#!"):
        line = head[2:_LINE].split(b"\n", 1)[0].strip(b" \t")  # a carriage return is part of the name, as for the kernel
        needed = line.replace(b"\t", b" ").split(b" ", 1)[0]
    elif head.startswith(b"\x7fELF"):
        if not _same_machine(head, machine or os.uname().machine):
            return "exec format error"
        needed = _interpreter(head)
        if not needed:
            return ""
    else:
        return "exec format error"
    interpreter = find(layers, os.fsdecode(needed)) if needed else None
    if interpreter is None:
        return "no such file or directory" if needed else "exec format error"
    return "" if _executable(interpreter) else "permission denied"


def _executable(found: Found) -> bool:
    return stat.S_ISREG(found.status.st_mode) and bool(found.status.st_mode & 0o001)


def _same_machine(head: bytes, machine: str) -> bool:
    if len(head) < 64 or head[4] != 2 or head[5] != 1:  # 64 bits, little-endian: all that AWS's architectures are
        return False
    actual: int = struct.unpack_from("<H", head, 18)[0]
    return actual == _MACHINES.get(machine, actual)


def _interpreter(head: bytes) -> bytes:
    """The dynamic loader that an ELF file asks for; b"" for a static one, or where its headers lie far behind the beginning."""
    (offset,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    for number in range(count):
        place = offset + number * size
        if place + 56 > len(head):
            break
        kind, _, start, _, _, length = struct.unpack_from("<IIQQQQ", head, place)
        if kind == _PT_INTERP and start + length <= len(head):
            return head[start : start + length].rstrip(b"\0")
    return b""
