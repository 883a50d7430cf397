"""Memory is the function's; ``/tmp`` is not memory. Keeping the two apart, although the kernel counts both.

On AWS a function has ``MemorySize`` for its processes and ``EphemeralStorage`` for ``/tmp``, and filling one does not eat the other. Here
``/tmp`` is a tmpfs, whose pages the kernel charges to the same memory cgroup. A kernel limit of ``MemorySize`` would kill a function for
writing a file. So the kernel's hard limit is the sum of both sizes, which bounds everything, and a *keeper* per sandbox sees to it that
what is left without the files stays within ``MemorySize``. ``decide`` is that rule, pure.

What counts as the function's own is usage without page cache: anonymous memory and what the kernel holds for the processes. Shared memory
that is no file (a memfd, a shared mapping) cannot be told from files in ``/tmp``, and is bounded by the hard limit only.

*v2* tells: ``memory.high`` stands a ``headroom`` above memory and files; beyond it the kernel reclaims cache and slows the processes down,
and ``memory.events`` changes, which can be polled. The keeper then moves ``memory.high`` along with the files, or says that it is over.

*v1* does not, at a price that could be paid. A usage threshold costs the thread that registers it a grace period of RCU (10 to 30 ms,
measured on Linux 6.18), which no cold start can wait for. With the OOM killer switched off, which is told at once, only page faults wait
for us, while ``write`` into a tmpfs fails with ENOMEM. So v1 is sampled: 5 us a look, every 25 ms while usage changes, more and more
seldom while it does not, as in a frozen sandbox. A bomb is found after some megabytes; a peak shorter than that is forgiven.

Standard library only; the clock is the caller's. The launcher's loop drives one ``MemoryWatch``, and kills what ``due`` names.
"""

from __future__ import annotations

import heapq
import os
import select
from dataclasses import dataclass

_MB = 1 << 20
FAST_S, SLOW_S = 0.025, 0.4
_STILL = 64 << 10  # the kernel counts in batches of pages per CPU; less than this is no change


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
    """How far above memory and files ``memory.high`` stands, bytes: a quarter of the memory size, 16 MB at least and 64 MB at most."""
    return min(64, max(16, limit_mb // 4)) * _MB


def decide(limit_mb: int, ephemeral_mb: int, rss_bytes: int, shmem_bytes: int, current_limit: int) -> Decision:
    """What to do. ``rss_bytes``: usage without page cache; ``shmem_bytes``: files in ``/tmp``; ``current_limit``: of both, bytes."""
    memory, files, room = limit_mb * _MB, ephemeral_mb * _MB, headroom(limit_mb)
    if rss_bytes > memory:
        return OutOfMemory()
    wanted = memory + min(files, shmem_bytes + room)
    is_tight = current_limit - memory - shmem_bytes < room // 2
    is_loose = current_limit - wanted > room
    return SetLimit(wanted) if is_loose or (is_tight and wanted > current_limit) else Nothing()


class MemoryKeeper:
    """Keeps one cgroup."""

    def __init__(self, directory: str, limit_mb: int, ephemeral_mb: int) -> None:
        """``directory``: of the memory controller, v1 or v2, whose hard limit is set already. Raises ``OSError``."""
        self._directory = directory
        self._memory_mb = limit_mb
        self._ephemeral_mb = ephemeral_mb
        self.is_v2 = os.path.exists(directory + "/memory.max")
        self.interval = FAST_S
        self.limit = (limit_mb + ephemeral_mb) * _MB
        self._usage = 0
        self.usage_fd = os.open(f"{directory}/{'memory.current' if self.is_v2 else 'memory.usage_in_bytes'}", os.O_RDONLY | os.O_CLOEXEC)
        self.events_fd = -1
        try:
            if self.is_v2:
                self.events_fd = os.open(directory + "/memory.events", os.O_RDONLY | os.O_CLOEXEC)
                self._move(limit_mb * _MB + min(ephemeral_mb * _MB, headroom(limit_mb)))
        except OSError:
            self.close()
            raise

    def look(self) -> bool:
        """Whether the function is out of memory now; otherwise moves what must move. False, too, where the cgroup is gone."""
        try:
            if self.is_v2:
                os.pread(self.events_fd, 4096, 0)  # only a file that has been read reports its next change
            usage = int(os.pread(self.usage_fd, 32, 0))
            is_still = abs(usage - self._usage) < _STILL
            self.interval = min(SLOW_S, self.interval * 2) if is_still else FAST_S
            self._usage = usage
            if usage <= self._memory_mb * _MB:
                return False
            cache, shmem = self._pages()
            decision = decide(self._memory_mb, self._ephemeral_mb, usage - cache, shmem, self.limit)
            if self.is_v2 and isinstance(decision, SetLimit):
                self._move(decision.limit)
            return isinstance(decision, OutOfMemory)
        except OSError:
            return False

    def close(self) -> None:
        """Idempotent."""
        for fd in (self.usage_fd, self.events_fd):
            if fd >= 0:
                os.close(fd)
        self.usage_fd = self.events_fd = -1

    def _pages(self) -> tuple[int, int]:
        """(page cache with shared memory, shared memory), bytes."""
        cache = shmem = 0
        with open(self._directory + "/memory.stat") as file:
            for line in file:
                name, _, value = line.partition(" ")
                if name == ("file" if self.is_v2 else "cache"):
                    cache = int(value)
                elif name == "shmem":
                    shmem = int(value)
        return cache, shmem

    def _move(self, limit: int) -> None:
        self._write("memory.high", limit)
        self.limit = limit

    def _write(self, name: str, value: int) -> None:
        fd = os.open(f"{self._directory}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)


class MemoryWatch:
    """All keepers of one launcher. ``now`` is the caller's monotonic clock, seconds."""

    def __init__(self) -> None:
        self._keepers: dict[str, MemoryKeeper] = {}
        self._by_fd: dict[int, str] = {}
        self._due: list[tuple[float, str]] = []
        self._poller = select.epoll()

    def fileno(self) -> int:
        """Readable when ``due`` should be called."""
        return self._poller.fileno()

    def add(self, name: str, directory: str, limit_mb: int, ephemeral_mb: int, now: float) -> None:
        """Keep the memory cgroup ``directory``, whose hard limit is the sum of both sizes. Raises ``OSError``."""
        keeper = self._keepers[name] = MemoryKeeper(directory, limit_mb, ephemeral_mb)
        if keeper.is_v2:
            self._by_fd[keeper.events_fd] = name
            self._poller.register(keeper.events_fd, select.EPOLLPRI)
        else:
            heapq.heappush(self._due, (_tick(now + keeper.interval), name))

    def remove(self, name: str) -> None:
        """Forget a sandbox. Idempotent."""
        keeper = self._keepers.pop(name, None)
        if keeper is not None:
            if keeper.is_v2:
                self._poller.unregister(keeper.events_fd)
                del self._by_fd[keeper.events_fd]
            keeper.close()

    def patience(self, now: float) -> float:
        """Seconds until ``due`` should be called even if nothing is readable; -1 for never."""
        while self._due and self._due[0][1] not in self._keepers:
            heapq.heappop(self._due)
        return max(0.0, self._due[0][0] - now) if self._due else -1

    def due(self, now: float) -> list[str]:
        """Look where it is time to; the names of those that are out of memory, which are forgotten here."""
        names = [self._by_fd[fd] for fd, _ in self._poller.poll(0) if fd in self._by_fd]
        sampled = []
        while self._due and self._due[0][0] <= now:
            sampled.append(heapq.heappop(self._due)[1])
        over = []
        for name in (*names, *sampled):
            keeper = self._keepers.get(name)
            if keeper is None:
                continue
            if keeper.look():
                over.append(name)
                self.remove(name)
            elif not keeper.is_v2:
                heapq.heappush(self._due, (_tick(now + keeper.interval), name))
        return over

    def close(self) -> None:
        for name in list(self._keepers):
            self.remove(name)
        self._poller.close()


def _tick(moment: float) -> float:
    """Looks are bundled, so that many sandboxes wake the launcher as seldom as one."""
    return (int(moment / FAST_S) + 1) * FAST_S
