"""The process driver: environments as plain child processes, where the kernel gives nothing better. There is NO isolation here.

A function can read what the user who runs Lambent can read, reach the network, and see other functions. What remains is bookkeeping: a
session and temporary directory per environment, a memory bound by ``RLIMIT_DATA``, freezing by ``SIGSTOP``, and killing of everything
that the environment started, even when it detached itself. ``report`` says all that.

What belongs to an environment is found by its session and by the ``TMPDIR`` in its environment variables, which children inherit.
``/var/task`` and ``/var/runtime`` are real directories here, told to the function by ``LAMBDA_TASK_ROOT`` and ``LAMBDA_RUNTIME_DIR``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lambent.errors import SandboxFault
from lambent.sandbox import kernel
from lambent.sandbox.driver import IsolationReport, SandboxExit, SandboxSpec

if TYPE_CHECKING:
    from lambent.runtimes.catalogue import Catalogue
    from lambent.runtimes.interpreter import Interpreter

CLIENT = Path(__file__).parents[1] / "runtime_api" / "python_client.py"
_CHILD = str(Path(__file__).with_name("process_child.py"))
_CHANNEL_FD = 3
MISSING = (
    "no isolation: functions run as plain processes of the user who runs Lambent, and can read what that user can read",
    "no limit on CPU, processes and /tmp; memory is bounded per process only (RLIMIT_DATA)",
    "no network isolation: functions reach whatever this machine reaches",
    "the code directory is as writable for functions as for the user who runs Lambent",
)

Packages = Callable[["Interpreter"], Sequence[tuple[str, str]]]


class ProcessSandbox:
    """One environment: the leader of a session, and whatever it has started."""

    listener: socket.socket | None = None  # functions reach the platform where it is

    def __init__(self, spec: SandboxSpec, pid: int, channel: socket.socket, logs: int, folder: str) -> None:
        self.id = spec.sandbox_id
        self.channel = channel
        self.logs = logs
        loop = asyncio.get_running_loop()
        self._loop = loop
        self.exited: asyncio.Future[SandboxExit] = loop.create_future()
        self._pid = pid
        self._folder = folder
        self._frozen = False
        self._peak = 0
        self._killing: asyncio.Task[None] | None = None
        self._pidfd = os.pidfd_open(pid)
        loop.add_reader(self._pidfd, self._on_exit)

    def settled(self) -> None:
        """There is no CPU share to apply."""

    def freeze(self) -> None:
        if not self._frozen and not self.exited.done():
            self._frozen = True
            self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._frozen and not self.exited.done():
            self._frozen = False
            self._signal(signal.SIGCONT)

    def memory_peak(self) -> int:
        if not self.exited.done():
            with contextlib.suppress(OSError), open(f"/proc/{self._pid}/status") as file:
                for line in file:
                    if line.startswith("VmHWM:"):
                        self._peak = int(line.split()[1]) << 10
        return self._peak

    async def kill(self) -> None:
        if self._killing is None:
            self._killing = self._loop.create_task(self._kill())
        await asyncio.shield(self._killing)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, status, usage = os.wait4(self._pid, 0)
        self._peak = max(self._peak, usage.ru_maxrss << 10)
        if os.WIFSIGNALED(status):
            self.exited.set_result(SandboxExit(None, os.WTERMSIG(status)))
        else:
            self.exited.set_result(SandboxExit(os.waitstatus_to_exitcode(status), None))

    async def _kill(self) -> None:
        """Kill round after round until a round finds nobody: what is being killed may still have forked."""
        seen: set[int] = set()
        while members := self._members():
            seen.update(members)
            for pid in members:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            for pid in members:
                await _wait_for_end(pid)
        await self.exited
        _reap(seen - {self._pid})  # those whose parents died came to us
        shutil.rmtree(self._folder, ignore_errors=True)

    def _members(self) -> list[int]:
        """The pids of the environment's living processes."""
        mark = f"TMPDIR={self._folder}".encode()
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and self._is_member(name, mark):
                found.append(int(name))
        return found

    def _is_member(self, name: str, mark: bytes) -> bool:
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            if fields[0] in "ZX":
                return False
            if int(fields[3]) == self._pid:  # the session
                return True
            with open(f"/proc/{name}/environ", "rb") as environ:
                return mark in environ.read().split(b"\0")
        except (OSError, IndexError):
            return False


class ProcessDriver:
    """Plain processes. See the top of this file for what that means."""

    def __init__(self, catalogue: Catalogue, packages: Packages, client: Path = CLIENT, reason: str = "it was chosen") -> None:
        self._catalogue = catalogue
        self._packages = packages
        self._client = client
        self._report = IsolationReport("process", reason, {"cgroups": "none", "uid": "ours", "seccomp": "off", "egress": "full"}, MISSING)
        self._folder = ""
        self._sandboxes: dict[str, ProcessSandbox] = {}
        self._executables: dict[str, tuple[str, str]] = {}  # runtime -> (interpreter, folder that stands for /var/runtime)

    @property
    def report(self) -> IsolationReport:
        return self._report

    async def open(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="lambent-process-")
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)

    async def close(self) -> None:
        await asyncio.gather(*(sandbox.kill() for sandbox in list(self._sandboxes.values())))
        if self._folder:
            kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 0)
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""

    async def prepare(self, runtime: str) -> None:
        if not self._folder:
            raise SandboxFault("the driver is not open")
        if runtime not in self._executables:
            self._executables[runtime] = await asyncio.to_thread(self._assemble, runtime)

    def _assemble(self, runtime: str) -> tuple[str, str]:
        interpreter = self._catalogue.find(runtime)
        folder = os.path.join(self._folder, runtime)
        os.makedirs(folder, exist_ok=True)
        for name, path in (*self._packages(interpreter), ("lambent_runtime_client.py", str(self._client))):
            with contextlib.suppress(FileExistsError):
                os.symlink(path, os.path.join(folder, name))
        return interpreter.executable, folder

    async def start(self, spec: SandboxSpec) -> ProcessSandbox:
        await self.prepare(spec.runtime)
        if spec.opt_dir or spec.program or spec.mounts or spec.image_layers:
            raise SandboxFault("the process driver runs plain Python functions only")
        if spec.sandbox_id in self._sandboxes and not self._sandboxes[spec.sandbox_id].exited.done():
            raise SandboxFault(f"sandbox {spec.sandbox_id} exists already")
        executable, runtime_dir = self._executables[spec.runtime]
        folder = os.path.join(self._folder, "tmp-" + spec.sandbox_id)
        os.mkdir(folder, 0o700)
        places = {"LAMBDA_TASK_ROOT": spec.code_dir, "LAMBDA_RUNTIME_DIR": runtime_dir, "TMPDIR": folder}
        if spec.environment.get("PYTHONPATH", "/var/runtime") == "/var/runtime":
            places["PYTHONPATH"] = runtime_dir
        argv = [executable, "-S", "-B", "-u", _CHILD, str(_CHANNEL_FD), spec.handler, str(spec.memory_mb)]
        try:
            pid, channel, logs = _spawn(argv, {**spec.environment, **places})
        except OSError as error:
            os.rmdir(folder)
            raise SandboxFault(f"{executable} cannot be started: {error}") from error
        sandbox = self._sandboxes[spec.sandbox_id] = ProcessSandbox(spec, pid, channel, logs, folder)
        sandbox.exited.add_done_callback(lambda _: self._sweep_later(sandbox))
        return sandbox

    def _sweep_later(self, sandbox: ProcessSandbox) -> None:
        """The runtime has ended; end what it left behind, too."""
        task = asyncio.get_running_loop().create_task(sandbox.kill())
        task.add_done_callback(lambda _: self._sandboxes.pop(sandbox.id, None) if self._sandboxes.get(sandbox.id) is sandbox else None)


def _reap(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _spawn(argv: list[str], environment: dict[str, str]) -> tuple[int, socket.socket, int]:
    """Start ``argv`` in a session of its own; its pid, our end of the channel, the log pipe. Raises ``OSError``."""
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in ((nothing, 0), (writing, 1), (writing, 2))]
        actions.append((os.POSIX_SPAWN_DUP2, theirs.fileno(), _CHANNEL_FD))
        pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions, setsid=True)
    except OSError:
        ours.close()
        os.close(reading)
        raise
    finally:
        theirs.close()
        os.close(writing)
        os.close(nothing)
    ours.setblocking(False)
    os.set_blocking(reading, False)
    return pid, ours, reading


async def _wait_for_end(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, ended.cancel)
    try:
        await asyncio.wait([ended])
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
