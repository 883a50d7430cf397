"""Memory is the function's; ``/tmp`` is not memory. Keeping the two apart, although the kernel counts both.

On AWS a function has ``MemorySize`` for its processes and ``EphemeralStorage`` for ``/tmp``, and filling one does not eat the other. Here
``/tmp`` is a tmpfs, whose pages the kernel charges to the same memory cgroup. A limit of ``MemorySize`` would kill a function for writing a
file; a limit of both together would let its processes use both. So the limit follows the files: a *keeper* watches the cgroup's usage,
raises the limit ahead of what is written to ``/tmp``, lowers it when files go, and calls it out of memory when what is left after the files
exceeds ``MemorySize``. ``decide`` is that rule, pure.

What counts as the function's own is usage without page cache: anonymous memory and what the kernel holds for the processes. Shared memory
that is no file (a memfd, a shared mapping) cannot be told from files in ``/tmp``; it is free up to the size of ``/tmp`` and memory beyond.

*How it hears of changes, v1.* Usage thresholds (``cgroup.event_control``): the next point where a decision could differ is registered,
one up and, while there are files, one down. The kernel's other offer, to switch its OOM killer off and be told, is no use: it makes only
page faults wait, while ``write`` into a tmpfs fails with ENOMEM (measured on Linux 6.18). Ahead of the keeper the kernel's own limit
stands ``headroom`` above, so a bomb that outruns us dies by the kernel, and a fast writer of files finds room until we come.

*v2.* ``memory.high`` is the limit that moves: beyond it the kernel reclaims cache and slows the processes down, and ``memory.events``
changes, which can be polled. ``memory.max`` stands fixed at the sum of both sizes. Falling usage is not told there, so ``memory.high``
goes down only at the next event.

Standard library only. The launcher's loop polls ``fileno()`` for ``events`` and calls ``on_ready()``.
"""

from __future__ import annotations

import errno
import os
import select
from dataclasses import dataclass

_MB = 1 << 20
_STEP = _MB  # closer than this no threshold is set to the present, lest events become a storm
_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class SetLimit:
    """The limit should move, up or down, to ``limit`` bytes."""

    limit: int


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The function uses more than its memory size: kill it."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """All is well."""


Decision = SetLimit | OutOfMemory | Nothing


def headroom(limit_mb: int) -> int:
    """How far above memory and files the kernel's limit stands, bytes: a quarter of the memory size, 16 MB at least and 64 MB at most."""
    return min(64, max(16, limit_mb // 4)) * _MB


def decide(limit_mb: int, ephemeral_mb: int, rss_bytes: int, shmem_bytes: int, current_limit: int) -> Decision:
    """What to do. ``rss_bytes``: usage without any page cache; ``shmem_bytes``: tmpfs and other shared memory; ``current_limit``: bytes."""
    memory, files, room = limit_mb * _MB, ephemeral_mb * _MB, headroom(limit_mb)
    if rss_bytes + max(0, shmem_bytes - files) > memory:
        return OutOfMemory()
    wanted = memory + min(files, shmem_bytes + room)
    is_tight = current_limit - memory - shmem_bytes < room // 2
    is_loose = current_limit - wanted > room
    return SetLimit(wanted) if is_loose or (is_tight and wanted > current_limit) else Nothing()


class MemoryKeeper:
    """Keeps one cgroup. Close it before or after the cgroup goes."""

    def __init__(self, directory: str, limit_mb: int, ephemeral_mb: int) -> None:
        """``directory``: of the memory controller, v1 or v2. Sets the first limits. Raises ``OSError``."""
        self._directory = directory
        self._memory_mb = limit_mb
        self._ephemeral_mb = ephemeral_mb
        self._is_v2 = os.path.exists(directory + "/memory.max")
        self._fd = -1
        self._alarm = -1
        self.out_of_memory = False
        self.limit = 0
        try:
            if self._is_v2:
                self._write("memory.max", (limit_mb + ephemeral_mb) * _MB)
                self._fd = os.open(directory + "/memory.events", os.O_RDONLY | os.O_CLOEXEC)
            else:
                self.limit = int(self._read("memory.limit_in_bytes"))
                self._inner = select.epoll()
                self._fd = self._inner.fileno()
            self._move(limit_mb * _MB + min(ephemeral_mb * _MB, headroom(limit_mb)))
            self.on_ready()
        except OSError:
            self.close()
            raise

    @property
    def events(self) -> int:
        """What to poll for."""
        return select.EPOLLPRI if self._is_v2 else select.EPOLLIN

    def fileno(self) -> int:
        return self._fd

    def on_ready(self) -> Decision:
        """Look, decide, and do it. ``OutOfMemory`` is for the caller to act upon, and final. Does not raise."""
        decision: Decision = Nothing()
        try:
            for _ in range(_ROUNDS):
                usage, rss, shmem = self._measure()
                decision = decide(self._memory_mb, self._ephemeral_mb, rss, shmem, self.limit)
                if isinstance(decision, OutOfMemory):
                    self.out_of_memory = True
                    self._disarm()
                    break
                if isinstance(decision, SetLimit):
                    self._move(decision.limit)
                if self._is_v2 or self._arm(usage, rss, shmem):
                    break
        except OSError:
            self._disarm()  # the cgroup is gone, and with it the question
        return decision

    def close(self) -> None:
        """Idempotent."""
        self._disarm()
        if self._fd >= 0:
            if self._is_v2:
                os.close(self._fd)
            else:
                self._inner.close()
            self._fd = -1

    def _measure(self) -> tuple[int, int, int]:
        """Usage, usage without page cache, shared memory; bytes."""
        if self._is_v2:
            os.pread(self._fd, 4096, 0)  # only a file that has been read reports its next change
        usage = int(self._read("memory.current" if self._is_v2 else "memory.usage_in_bytes"))
        cache = shmem = 0
        for line in self._read("memory.stat").splitlines():
            name, _, value = line.partition(" ")
            if name == ("file" if self._is_v2 else "cache"):
                cache = int(value)
            elif name == "shmem":
                shmem = int(value)
        return usage, max(0, usage - cache), shmem

    def _move(self, limit: int) -> None:
        if self._is_v2:
            self._write("memory.high", limit)
        else:
            names = ["memory.limit_in_bytes"]
            if os.path.exists(self._directory + "/memory.memsw.limit_in_bytes"):  # may never be the smaller of the two
                names.insert(0 if limit > self.limit else 1, "memory.memsw.limit_in_bytes")
            for name in names:
                try:
                    self._write(name, limit)
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
                    return  # usage rose above the lower limit meanwhile; the next event will tell
        self.limit = limit

    def _arm(self, usage: int, rss: int, shmem: int) -> bool:
        """Ask for the next event. False where usage has moved past it meanwhile."""
        memory, room = self._memory_mb * _MB, headroom(self._memory_mb)
        above = usage + memory - rss
        if self.limit < memory + self._ephemeral_mb * _MB:
            above = min(above, self.limit - room // 2)
        above = max(above, usage + _STEP)
        self._disarm()
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._inner.register(self._alarm, select.EPOLLIN)
        watched = os.open(self._directory + "/memory.usage_in_bytes", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._write("cgroup.event_control", f"{self._alarm} {watched} {above}")
            if shmem > room:
                self._write("cgroup.event_control", f"{self._alarm} {watched} {usage - max(shmem // 4, 4 * _STEP)}")
        finally:
            os.close(watched)
        return int(self._read("memory.usage_in_bytes")) < above

    def _disarm(self) -> None:
        if self._alarm >= 0:
            os.close(self._alarm)  # takes its thresholds with it
            self._alarm = -1

    def _read(self, name: str) -> str:
        with open(f"{self._directory}/{name}") as file:
            return file.read()

    def _write(self, name: str, value: int | str) -> None:
        fd = os.open(f"{self._directory}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)
