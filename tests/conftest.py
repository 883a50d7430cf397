"""Every test session must leave the machine as it found it: no process, cgroup, mount or temporary folder of ours stays behind.

The session gets a temporary folder of its own, and a mark in the environment that every process it starts inherits, so that sessions
which run side by side do not take each other's leftovers for their own. Leftovers fail the session and are listed at its end.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambent.testing import postgres_server
from lambent.testing.postgres_server import PostgresServer

sys.path.insert(0, str(Path(__file__).parent.parent))  # for tests of bench/ and tools/, which are not installed

MARK = "LAMBENT_TEST_SESSION"
PREFIX = "lt-"  # of a session's temporary folder

_state: dict[str, object] = {}


def pytest_configure(config: pytest.Config) -> None:
    if MARK in os.environ:  # a session inside a session answers to the outer one
        return
    os.environ[MARK] = uuid.uuid4().hex
    _state["tmp_before"] = os.environ.get("TMPDIR")
    tempfile.tempdir = None
    folder = tempfile.mkdtemp(prefix=PREFIX)  # short, since socket paths below it may not exceed 107 bytes
    os.environ["TMPDIR"] = folder
    tempfile.tempdir = None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # for sessions that end before they unconfigure
    _state["folder"] = folder
    _state["mounts"] = _mounts()
    _state["cgroups"] = _cgroups()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if "folder" not in _state:
        return
    left = _leftovers()
    for _ in range(40):  # what was just killed may need a moment to be gone
        if not left:
            break
        time.sleep(0.05)
        left = _leftovers()
    _state["left"] = left
    if left and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    left = _state.get("left")
    if left:
        terminalreporter.section("left behind", red=True)
        for line in left:  # type: ignore[attr-defined]
            terminalreporter.line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = _state.pop("folder", None)
    if folder is None:
        return
    before = _state["tmp_before"]
    if before is None:
        os.environ.pop("TMPDIR", None)
    else:
        os.environ["TMPDIR"] = str(before)
    tempfile.tempdir = None
    os.environ.pop(MARK, None)
    shutil.rmtree(str(folder), ignore_errors=True)


def _leftovers() -> list[str]:
    return [*_left_processes(), *_left_cgroups(), *_left_mounts(), *_left_files()]


def _left_processes() -> list[str]:
    """Processes that carry our mark, or descend from us, and live."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    parents = {pid: parent for pid, parent, state in _processes() if state != "Z"}
    left = []
    for pid in parents:
        if pid == os.getpid() or _is_ancestor(pid, parents):
            continue
        if mark in _read(f"/proc/{pid}/environ").split(b"\0") or _descends(pid, parents):
            command = _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
            if command:  # ended while we looked
                left.append(f"process {pid}: {command[:200]}")
    return left


def _processes() -> list[tuple[int, int, str]]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _read(f"/proc/{entry}/stat").rpartition(b")")[2].split()
            if len(fields) > 1:
                found.append((int(entry), int(fields[1]), fields[0].decode()))
    return found


def _descends(pid: int, parents: dict[int, int]) -> bool:
    while pid in parents:
        pid = parents[pid]
        if pid == os.getpid():
            return True
    return False


def _is_ancestor(pid: int, parents: dict[int, int]) -> bool:
    current = os.getpid()
    while current in parents:
        current = parents[current]
        if current == pid:
            return True
    return False


def _cgroups() -> set[str]:
    """Our sub-trees in every hierarchy: ``…/lambent``, and in it an instance for every server, named after its process."""
    found = set()
    for parent, folders, _ in os.walk("/sys/fs/cgroup"):
        for name in folders:
            if name in {"lambent", "lambent-node"}:
                found.add(f"{parent}/{name}")
                found.update(f"{parent}/{name}/{entry}" for entry in _folders(f"{parent}/{name}"))
        folders[:] = [name for name in folders if name not in {"lambent", "lambent-node"}]
    return found


def _left_cgroups() -> list[str]:
    """New ones, except those of a server that lives: it is either listed as a process of ours, or somebody else's."""
    left = []
    for path in sorted(_cgroups() - _state["cgroups"]):  # type: ignore[operator]
        owner = path.rsplit("/", 1)[-1].split("-")[0]
        alive = owner.isdigit() and os.path.exists(f"/proc/{owner}") and owner != str(os.getpid())
        in_use = not owner.isdigit() and bool(_folders(path) or _read(f"{path}/cgroup.procs"))
        if not alive and not in_use:
            left.append(f"cgroup {path}")
    return left


def _folders(path: str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _mounts() -> set[str]:
    lines = _read("/proc/self/mountinfo").decode(errors="replace").splitlines()
    return {line.split()[4] for line in lines if "lambent" in line}


def _left_mounts() -> list[str]:
    ours = str(_state["folder"])
    others = f"{os.path.dirname(ours)}/{PREFIX}"  # sessions that run side by side with this one
    new = sorted(_mounts() - _state["mounts"])  # type: ignore[operator]
    return [f"mount {path}" for path in new if path.startswith(ours) or not path.startswith(others)]


def _left_files() -> list[str]:
    """What tests put straight into the temporary folder; pytest's own folders are pytest's to keep."""
    folder = Path(str(_state["folder"]))
    return [f"temporary {path}" for path in sorted(folder.iterdir()) if not path.name.startswith("pytest-of-")]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


@pytest.fixture
def database() -> Iterator[PostgresServer]:
    """A PostgreSQL server of the test's own, or a skip with the reason."""
    yield from _postgres()


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """One that the tests of a module share."""
    yield from _postgres()


def _postgres() -> Iterator[PostgresServer]:
    if reason := postgres_server.missing():
        pytest.skip(reason)
    with postgres_server.temporary() as server:
        yield server
