"""The rule by itself, and the keeper on real cgroups (v1) and on files that look like cgroups (v2)."""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambent.sandbox.memory_keeper import Decision, MemoryKeeper, Nothing, OutOfMemory, SetLimit, decide, headroom

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
        (100, 530, 640, Nothing()),  # 18 MB that cannot be files
        (120, 530, 640, OutOfMemory()),
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
        assert rss + max(0, shmem - files) > memory
        return
    assert rss <= memory, "its own memory never exceeds the memory size"
    limit = decision.limit if isinstance(decision, SetLimit) else current * MB
    if isinstance(decision, SetLimit):
        assert memory * MB <= limit <= (memory + files) * MB
        assert decide(memory, files, rss * MB, shmem * MB, limit) == Nothing(), "one move is enough"
    assert limit >= min(memory + files, memory + shmem) * MB, "files never meet the limit of memory"


# ---- on real cgroups, v1


def v1_is_usable() -> bool:
    return os.geteuid() == 0 and (V1 / "memory.usage_in_bytes").exists() and os.access(V1 / "cgroup.event_control", os.W_OK)


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


def limit_of(cgroup: Path) -> int:
    return int((cgroup / "memory.limit_in_bytes").read_text())


def attend(keeper: MemoryKeeper, seconds: float = 0) -> Decision | None:
    """Do what the launcher's loop does: poll, and call the keeper when it is ready. ``None`` when nothing came."""
    poller = select.epoll()
    try:
        poller.register(keeper.fileno(), keeper.events)
        return keeper.on_ready() if poller.poll(seconds) else None
    finally:
        poller.close()


@on_v1
def test_files_do_not_eat_memory_and_memory_not_files(cgroup: Path) -> None:
    keeper = MemoryKeeper(str(cgroup), 64, 256)
    assert limit_of(cgroup) == keeper.limit == 80 * MB
    tenant = Tenant(cgroup)
    try:
        for _ in range(100):
            assert tenant.ask("file 2") == "done"
            assert not isinstance(attend(keeper), OutOfMemory)
        assert 64 + 200 + 8 <= limit_of(cgroup) // MB <= 64 + 216
        for _ in range(12):
            assert tenant.ask("memory 4") == "done"
            assert not isinstance(attend(keeper), OutOfMemory)
        for _ in range(5):
            assert tenant.ask("memory 4") == "done"
            if isinstance(attend(keeper), OutOfMemory):
                break
        assert keeper.out_of_memory
    finally:
        keeper.close()
        assert tenant.end() == 0


@on_v1
def test_when_files_go_their_room_goes_too(cgroup: Path) -> None:
    keeper = MemoryKeeper(str(cgroup), 64, 256)
    tenant = Tenant(cgroup)
    try:
        for _ in range(50):
            tenant.ask("file 4")
            attend(keeper)
        assert limit_of(cgroup) >= 264 * MB
        tenant.ask("empty")
        assert attend(keeper, 5) is not None
        assert limit_of(cgroup) == keeper.limit <= 96 * MB
    finally:
        keeper.close()
        tenant.end()


@on_v1
def test_a_bomb_that_outruns_the_keeper_dies_by_the_kernel(cgroup: Path) -> None:
    keeper = MemoryKeeper(str(cgroup), 32, 512)
    tenant = Tenant(cgroup)
    with contextlib.suppress(ConnectionError):
        assert tenant.ask("memory 200") == ""
    assert tenant.end() == -signal.SIGKILL
    assert int((cgroup / "memory.max_usage_in_bytes").read_text()) <= 48 * MB
    keeper.close()


@on_v1
def test_a_vanished_cgroup_ends_the_keeper_quietly(cgroup: Path) -> None:
    keeper = MemoryKeeper(str(cgroup), 64, 256)
    cgroup.rmdir()
    try:
        assert keeper.on_ready() == Nothing()
    finally:
        keeper.close()
        keeper.close()
        cgroup.mkdir()


@on_v1
def test_no_descriptor_is_left(cgroup: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    keeper = MemoryKeeper(str(cgroup), 64, 256)
    for _ in range(3):
        keeper.on_ready()
    keeper.close()
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


def test_v2_moves_high_and_leaves_max(v2: Path) -> None:
    use(v2, 10, 0, 0)
    keeper = MemoryKeeper(str(v2), 128, 512)
    try:
        assert keeper.events == select.EPOLLPRI
        assert (v2 / "memory.max").read_text().strip() == str(640 * MB)
        assert int((v2 / "memory.high").read_text()) == 160 * MB
        use(v2, 170, 150, 100)
        assert keeper.on_ready() == SetLimit(260 * MB)
        assert int((v2 / "memory.high").read_text()) == 260 * MB
        use(v2, 240, 110, 100)
        assert keeper.on_ready() == OutOfMemory()
        assert keeper.out_of_memory
    finally:
        keeper.close()


def test_without_a_memory_controller_there_is_no_keeper(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="memory"):
        MemoryKeeper(str(tmp_path), 128, 512)
    assert sorted(os.listdir("/proc/self/fd")) == before
    shutil.rmtree(tmp_path)
