"""A disk that takes nothing any more: callers are told, what was acknowledged is there, and all goes on when it takes things again."""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from acceptance_helpers import call, stop_cleanly
from durable_calls import CALLS, Clients, quick

from lambent.testing.local_server import LocalServer, ServerFailed


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB, or a skip where this user may not mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "lambent-test", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def until_refused(clients: Clients, fill: Callable[[], None]) -> None:
    """Every kind of call until it has been refused twice in a row; synchronous invocations go on all the while."""
    for name in CALLS:
        refused = 0  # a disk that is full may still have room in files that are large enough already
        for _ in range(300):
            fill()
            refused = 0 if clients.turn(name) else refused + 1
            if refused == 2:
                break
        else:
            raise AssertionError(f"{name} was never refused")
        assert call(clients.api, "runs", name)[0] == [0, name]


@contextlib.contextmanager
def no_writes(pid: int) -> Iterator[None]:
    """No file takes a byte of the process: what a disk that has become read-only is to it."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def fill(filler: Path) -> None:
    """Take all that is free."""
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


def test_a_full_disk_and_one_that_takes_nothing(disk: Path, tmp_path: Path) -> None:
    filler = disk / "filler"
    backup = [str(Path(sys.executable).with_name("lambent")), "backup", str(tmp_path / "state.tar"), "--endpoint"]
    with LocalServer(disk / "data", quick(tmp_path)) as server:
        clients = Clients(server)
        clients.prepare()
        until_refused(clients, lambda: fill(filler))
        subprocess.run([*backup, server.endpoint], check=True, capture_output=True)  # what is there can still be saved
        filler.unlink()
        for name in CALLS:
            assert clients.turn(name)
        clients.check()

        clients = again(clients)
        with no_writes(server.pid):
            until_refused(clients, lambda: None)
        for name in CALLS:
            assert clients.turn(name)
        until_refused(clients, lambda: fill(filler))
        server.kill()
        filler.unlink()
        server.start()
        clients.check()
        stop_cleanly(server)


def again(clients: Clients) -> Clients:
    """The queue is empty from here on."""
    clients.sqs.purge_queue(QueueUrl=clients.url)
    clients.told.done["send"] = []
    return clients


def test_a_disk_that_is_read_only_from_the_start_is_told(disk: Path, tmp_path: Path) -> None:
    with LocalServer(disk / "data", quick(tmp_path)) as server:
        clients = Clients(server)
        clients.prepare()
        stop_cleanly(server)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(ServerFailed, match=r"(?i)read-?only") as caught:
            server.start()
        assert "Traceback" not in str(caught.value)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        server.start()
        clients.check()
        stop_cleanly(server)
