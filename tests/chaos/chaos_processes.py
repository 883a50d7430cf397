"""The processes below a server: who they are, and whether they have ended."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


def below(root: int) -> set[int]:
    """``root`` and all that descends from it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                parent = int(Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry))
    found, rest = set(), [root]
    while rest:
        pid = rest.pop()
        found.add(pid)
        rest += children.get(pid, [])
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def wait_until_gone(pids: set[int], patience: float = 20.0) -> None:
    """Fail if one of ``pids`` lives on."""
    deadline = time.monotonic() + patience
    alive = pids
    while alive and time.monotonic() < deadline:
        alive = {pid for pid in alive if lives(pid)}
    assert alive == set(), "processes that outlived the node"


def launchers(root: int) -> list[int]:
    """The launchers of the node ``root``."""
    found = []
    for pid in below(root) - {root}:
        with contextlib.suppress(OSError):
            if b"lambent.sandbox.launcher" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found
