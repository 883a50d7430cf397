"""The rule by itself, and the keeper on real cgroups (v1) and on files that look like cgroups (v2)."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambent.sandbox.memory_keeper import (
    FAST_S,
    SLOW_S,
    Decision,
    MemoryKeeper,
    MemoryWatch,
    Nothing,
    OutOfMemory,
    SetLimit,
    decide,
    headroom,
)

MB = 1 << 20
V1 = Path("/sys/fs/cgroup/memory")


@pytest.mark.parametrize(
    ("rss", "shmem", "current", "expected"),
    [
        (10, 0, 160, Nothing()),
        (128, 0, 160, Nothing()),
        (129, 0, 160, OutOfMemory()),
        (10, 15, 160, Nothing()),  # 17 MB of room are left for files
        (10, 17, 160, SetLimit(128 + 17 + 32)),
        (10, 500, 640, Nothing()),  # all that /tmp may ever take is in already
        (10, 500, 600, SetLimit(640)),
        (128, 512, 640, Nothing()),
        (129, 512, 640, OutOfMemory()),
        (100, 530, 640, Nothing()),  # 18 MB that cannot be files; the hard limit is there for them
        (10, 0, 640, SetLimit(160)),  # the files have gone
        (10, 0, 192, Nothing()),  # not worth a move
    ],
)
def test_the_rule(rss: int, shmem: int, current: int, expected: Decision) -> None:
    decision = decide(128, 512, rss * MB, shmem * MB, current * MB)
    if isinstance(expected, SetLimit):
        expected = SetLimit(expected.limit * MB)
    assert decision == expected


def test_headroom_is_bounded() -> None:
    assert [headroom(size) // MB for size in (32, 128, 256, 10_240)] == [16, 32, 64, 64]


megabytes = st.integers(min_value=0, max_value=12_000)


@given(memory=st.integers(128, 10_240), files=st.integers(512, 10_240), rss=megabytes, shmem=megabytes, current=megabytes)
def test_whatever_happens(memory: int, files: int, rss: int, shmem: int, current: int) -> None:
    decision = decide(memory, files, rss * MB, shmem * MB, current * MB)
    if isinstance(decision, OutOfMemory):
        assert rss > memory
        return
    assert rss <= memory, "its own memory never exceeds the memory size"
    limit = decision.limit if isinstance(decision, SetLimit) else current * MB
    if isinstance(decision, SetLimit):
        assert memory * MB <= limit <= (memory + files) * MB
        assert decide(memory, files, rss * MB, shmem * MB, limit) == Nothing(), "one move is enough"
    assert limit >= min(memory + files, memory + shmem) * MB, "files never meet the limit of memory"


# ---- on real cgroups, v1


def v1_is_usable() -> bool:
    return os.geteuid() == 0 and (V1 / "memory.usage_in_bytes").exists() and os.access(V1, os.W_OK)


on_v1 = pytest.mark.skipif(not v1_is_usable(), reason="needs root and a v1 memory hierarchy at /sys/fs/cgroup/memory")


class Tenant:
    """A process in the cgroup that takes and gives back memory when told to."""

    def __init__(self, cgroup: Path) -> None:
        self._ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._ours.close()
            _serve(cgroup, theirs)
        theirs.close()

    def ask(self, command: str) -> str:
        self._ours.sendall(command.encode() + b"\n")
        return self._ours.recv(100).decode()

    def end(self) -> int:
        """The exit code, negative for a signal."""
        self._ours.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _serve(cgroup: Path, channel: socket.socket) -> None:
    code = 1
    try:
        (cgroup / "cgroup.procs").write_text("0")
        held = []
        file = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR)
        for line in channel.makefile():
            command, _, size = line.partition(" ")
            if command == "memory":
                page = mmap.mmap(-1, int(size) * MB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                for offset in range(0, len(page), 4096):
                    page[offset] = 1
                held.append(page)
            elif command == "file":
                for _ in range(int(size)):
                    os.write(file, bytes(MB))
            else:
                os.truncate(file, 0)
                os.lseek(file, 0, os.SEEK_SET)
            channel.sendall(b"done")
        code = 0
    finally:
        os._exit(code)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    path = V1 / f"lambent-test-keeper-{os.getpid()}"
    path.mkdir()
    try:
        yield path
    finally:
        for _ in range(1000):
            with contextlib.suppress(OSError):  # the dead leave a moment after they are reaped
                path.rmdir()
                break


@contextlib.contextmanager
def watched(cgroup: Path, limit_mb: int, ephemeral_mb: int) -> Iterator[tuple[MemoryWatch, Tenant]]:
    watch = MemoryWatch()
    tenant = Tenant(cgroup)
    (cgroup / "memory.limit_in_bytes").write_text(str((limit_mb + ephemeral_mb) * MB))
    try:
        watch.add("it", str(cgroup), limit_mb, ephemeral_mb, 0.0)
        yield watch, tenant
    finally:
        watch.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(tenant.pid, signal.SIGKILL)
        tenant.end()


@on_v1
def test_files_do_not_eat_memory_and_memory_not_files(cgroup: Path) -> None:
    with watched(cgroup, 64, 256) as (watch, tenant):
        now = 0.0
        for command, times in (("file 50", 4), ("memory 10", 5)):
            for _ in range(times):
                assert tenant.ask(command) == "done"
                now += 1
                assert watch.due(now) == []
        assert int((cgroup / "memory.usage_in_bytes").read_text()) > 245 * MB
        assert tenant.ask("memory 20") == "done"
        assert watch.due(now + 1) == ["it"]
        assert watch.due(now + 2) == [], "said once"
        assert watch.patience(now + 2) == -1


@on_v1
def test_room_that_files_had_is_not_memory_afterwards(cgroup: Path) -> None:
    with watched(cgroup, 64, 256) as (watch, tenant):
        tenant.ask("file 200")
        assert watch.due(1) == []
        tenant.ask("empty")
        tenant.ask("memory 90")
        assert watch.due(2) == ["it"]


@on_v1
def test_the_kernel_bounds_what_nobody_watches(cgroup: Path) -> None:
    with watched(cgroup, 32, 16) as (_, tenant):
        assert tenant.ask("file 20") == "done", "more than /tmp holds, and so other shared memory"
        with contextlib.suppress(ConnectionError):
            assert tenant.ask("memory 30") == ""
        assert int((cgroup / "memory.max_usage_in_bytes").read_text()) <= 48 * MB
        assert "oom_kill 1" in (cgroup / "memory.oom_control").read_text()


@on_v1
def test_looks_become_seldom_while_nothing_changes(cgroup: Path) -> None:
    with watched(cgroup, 64, 256) as (watch, tenant):
        tenant.ask("memory 1")
        now, gaps = 0.0, []
        for _ in range(9):
            gaps.append(watch.patience(now))
            now += gaps[-1]
            assert watch.due(now) == []
        assert gaps[0] <= 2 * FAST_S
        assert all(later >= sooner - FAST_S for sooner, later in pairwise(gaps))
        assert SLOW_S <= gaps[-1] <= SLOW_S + FAST_S
        tenant.ask("memory 1")
        now += watch.patience(now)
        watch.due(now)
        assert watch.patience(now) <= 2 * FAST_S


@on_v1
def test_a_vanished_cgroup_is_no_news(cgroup: Path) -> None:
    watch = MemoryWatch()
    watch.add("it", str(cgroup), 64, 256, 0.0)
    cgroup.rmdir()
    try:
        assert watch.due(1) == []
        watch.remove("it")
        watch.remove("it")
        assert watch.patience(2) == -1
    finally:
        watch.close()
        cgroup.mkdir()


@on_v1
def test_no_descriptor_is_left(cgroup: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    watch = MemoryWatch()
    watch.add("it", str(cgroup), 64, 256, 0.0)
    watch.due(1)
    watch.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


# ---- v2, on files


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    for name in ("memory.max", "memory.high", "memory.events", "memory.current", "memory.stat"):
        (tmp_path / name).write_text("0\n")
    return tmp_path


def use(directory: Path, current: int, file: int, shmem: int) -> None:
    (directory / "memory.current").write_text(f"{current * MB}\n")
    (directory / "memory.stat").write_text(f"anon 1\nfile {file * MB}\nkernel 5\nshmem {shmem * MB}\n")


def test_v2_moves_high(v2: Path) -> None:
    use(v2, 10, 0, 0)
    keeper = MemoryKeeper(str(v2), 128, 512)
    try:
        assert (v2 / "memory.high").read_text().strip() == str(160 * MB)
        use(v2, 170, 150, 100)
        assert not keeper.look()
        assert (v2 / "memory.high").read_text().strip() == str(260 * MB)
        use(v2, 240, 110, 100)
        assert keeper.look()
    finally:
        keeper.close()
        keeper.close()


def test_without_a_memory_controller_there_is_no_keeper(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="memory"):
        MemoryKeeper(str(tmp_path), 128, 512)
    assert sorted(os.listdir("/proc/self/fd")) == before
