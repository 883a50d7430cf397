"""A cell: one sandbox as the launcher sees it, from its shell to its end.

    fork ──▶ setup ──▶ blank ──▶ assigned ──▶ dying ──▶ (gone)

``fork``: process 1 sleeps in its namespaces, and the zygote has been asked for the runtime process. ``setup``: that process joins its
cgroups and builds its mounts. ``blank``: it waits, ready, in the pool. From any stage a cell may die: then the shell is killed, and the
kernel kills everything in its pid namespace. A cell is gone, and its user id free for another, when both the shell and the runtime
process have been reaped.

The zygote's children in a cell have a *part*: ``RUNTIME`` is the process whose end is the environment's, which is the blank itself or, once
the blank has handed over to it, a warm interpreter; ``HELPER`` a blank that has handed over; 0 and up are extensions by their number.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lambent.sandbox.cgroups import Leaf
    from lambent.sandbox.nursery import Nursery

RUNTIME, WARM, HELPER = -2, -1, -3


class Cell:
    """One sandbox. Descriptors and sockets in it are the launcher's to close."""

    __slots__ = (
        "api",
        "control",
        "door",
        "fault",
        "is_furnished",
        "keeps_tmp",
        "kept_tmp",
        "leaf",
        "living_extensions",
        "name",
        "node_id",
        "nursery",
        "out_of_memory",
        "parts",
        "pidfd",
        "runtime_pid",
        "runtime_status",
        "shell_pid",
        "slot",
        "stage",
        "warm_ends",
        "warm_mb",
        "warm_pid",
    )

    def __init__(self, nursery: Nursery, name: str, slot: int, leaf: Leaf | None) -> None:
        self.nursery = nursery
        self.name = name
        self.slot = slot
        self.leaf = leaf
        self.stage = "fork"
        self.node_id = ""  # the id of the request that it serves
        self.fault = ""
        self.keeps_tmp = False  # somebody may come for it
        self.kept_tmp = -1  # its /tmp, detached, for the next sandbox of the same environment
        self.out_of_memory = False  # and killed for it by us; what the kernel kills is told by its count
        self.shell_pid = 0  # 0 once reaped
        self.runtime_pid = 0  # 0 before the fork is known
        self.runtime_status: int | None = None  # wait status once reaped
        self.warm_pid = 0  # of a warm interpreter that waits
        self.warm_mb = 0  # the memory size of functions that it can serve; 0: any
        self.is_furnished = False  # the blank has said that it is one
        self.warm_ends: list[int] = []  # its channel and log pipe, until they are handed over
        self.parts: dict[int, int] = {}  # living children of the zygote: pid to part
        self.living_extensions = 0  # that are expected to end, or not to have been born yet
        self.pidfd = -1
        self.door: socket.socket | None = None  # the listening sockets inside: the platform's
        self.api: socket.socket | None = None  # and that of the three APIs
        self.control: socket.socket | None = None

    def hand_over_to_warm(self) -> None:
        """The warm interpreter is the runtime from now on; the blank is a helper that ends."""
        if self.runtime_pid:  # else its fork is not known yet; it was quicker than the zygote
            self.parts[self.runtime_pid] = HELPER
        self.parts[self.warm_pid] = RUNTIME
        self.runtime_pid = self.warm_pid

    def forget_tmp(self) -> None:
        if self.kept_tmp >= 0:
            os.close(self.kept_tmp)
            self.kept_tmp = -1

    def close_descriptors(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        for fd in self.warm_ends:
            os.close(fd)
        self.warm_ends = []
        for listener in (self.door, self.api):
            if listener is not None:
                listener.close()
        self.door = self.api = None
