"""One environment of the process driver: the leader of a session, and whatever it has started.

What belongs to it is found by its session and by the ``TMPDIR`` in its environment variables, which children inherit.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket

from lambent.sandbox.driver import LOG_FD, SandboxExit
from lambent.sandbox.extension_exits import ExtensionExits
from lambent.sandbox.namespace_sandbox import exit_of

CHANNEL_FD, HOLD_FD = 3, 4
_CLEAR = 16  # descriptors are moved above this, so that none is in another's place


def spawn(argv: list[str], environment: dict[str, str], logs: int, channel: int = -1, hold: int = -1) -> int:
    """Start ``argv`` in a session of its own with these descriptors; its pid. Raises ``OSError``."""
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in ((nothing, 0), (logs, 1), (logs, 2), (logs, LOG_FD))]
        actions += [(os.POSIX_SPAWN_DUP2, fd, target) for fd, target in ((channel, CHANNEL_FD), (hold, HOLD_FD)) if fd >= 0]
        return os.posix_spawn(argv[0], argv, environment, file_actions=actions, setsid=True)
    finally:
        os.close(nothing)


class ProcessSandbox(ExtensionExits):
    """Keeps the promises of ``driver.Sandbox`` as far as plain processes go."""

    listener: socket.socket | None = None  # functions reach the platform where it is

    def __init__(self, sandbox_id: str, folder: str, api_listener: socket.socket, keep_tmp: bool = False) -> None:
        super().__init__()
        self.id = sandbox_id
        self.channel, self._their_channel = socket.socketpair()
        self.channel.setblocking(False)
        self.logs, self._their_logs = _pipe()
        self.extension_logs = self._their_extension_logs = -1
        self.api_listener: socket.socket | None = api_listener
        loop = asyncio.get_running_loop()
        self._loop = loop
        self.exited: asyncio.Future[SandboxExit] = loop.create_future()
        self._pid = 0
        self._pidfd = -1
        self._hold_fd = -1
        self._extensions: set[int] = set()  # living
        self.keep_tmp = keep_tmp
        self.is_gone = False
        self._folder = folder
        self._frozen = False
        self._peak = 0
        self._killing: asyncio.Task[None] | None = None

    # -- for the driver ---------------------------------------------------------------------------------------------------------

    def begin(self, argv: list[str], environment: dict[str, str], hold: bool) -> None:
        """Start the runtime process. Raises ``OSError``."""
        waiting = -1
        if hold:
            waiting, self._hold_fd = (_move(fd) for fd in os.pipe())
        try:
            self._pid = spawn(argv, environment, self._their_logs, self._their_channel.fileno(), waiting)
        finally:
            self._their_channel.close()
            for fd in (waiting, self._their_logs, self._their_extension_logs):
                if fd >= 0:
                    os.close(fd)
        self._pidfd = os.pidfd_open(self._pid)
        self._loop.add_reader(self._pidfd, self._on_exit)

    def begin_extension(self, path: str, argv: list[str], environment: dict[str, str]) -> None:
        """Start an extension, before the runtime. Raises ``OSError``."""
        if self.extension_logs < 0:
            self.extension_logs, self._their_extension_logs = _pipe()
        pid = spawn(argv, environment, self._their_extension_logs)
        self._extensions.add(pid)
        pidfd = os.pidfd_open(pid)
        self._loop.add_reader(pidfd, self._on_extension_end, pid, pidfd, os.path.basename(path))

    def give_up(self) -> None:
        """The start has failed."""
        self.channel.close()
        os.close(self.logs)
        self.release()
        self._close_listener()
        if not self.keep_tmp:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def has_extensions(self) -> bool:
        return bool(self._extensions)

    # -- the contract -------------------------------------------------------------------------------------------------------------

    def settled(self) -> None:
        """There is no CPU share to apply."""

    def release(self) -> None:
        if self._hold_fd >= 0:
            os.close(self._hold_fd)
            self._hold_fd = -1

    def freeze(self) -> None:
        if not self._frozen and not self.exited.done():
            self._frozen = True
            self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._frozen:
            self._frozen = False
            self._signal(signal.SIGCONT)

    def terminate(self) -> None:
        self.thaw()
        if not self.exited.done():
            signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    def memory_peak(self) -> int:
        if not self.exited.done():
            with contextlib.suppress(OSError), open(f"/proc/{self._pid}/status") as file:
                for line in file:
                    if line.startswith("VmHWM:"):
                        self._peak = int(line.split()[1]) << 10
        return self._peak

    async def open_socket(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        return made

    async def kill(self) -> None:
        if self._killing is None:
            self._killing = self._loop.create_task(self._kill())
        await asyncio.shield(self._killing)

    # -- the processes --------------------------------------------------------------------------------------------------------------

    def _signal(self, number: int) -> None:
        for leader in (self._pid, *self._extensions):
            if leader in self._extensions or not self.exited.done():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(leader, number)

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, status, usage = os.wait4(self._pid, 0)
        self._peak = max(self._peak, usage.ru_maxrss << 10)
        self.exited.set_result(exit_of(status))

    def _on_extension_end(self, pid: int, pidfd: int, name: str) -> None:
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        how = exit_of(os.waitpid(pid, 0)[1])
        self._extensions.discard(pid)
        self.tell_extension_exit(name, how)

    async def _kill(self) -> None:
        """Kill round after round until a round finds nobody: what is being killed may still have forked."""
        seen: set[int] = set()
        ours = {self._pid, *self._extensions}
        while members := self._members():
            seen.update(members)
            for pid in members:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            for pid in members:
                await _wait_for_end(pid)
        await self.exited
        _reap(seen - ours)  # those whose parents died came to us
        self.release()
        self._close_listener()
        self.is_gone = True
        if not self.keep_tmp:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _close_listener(self) -> None:
        if self.api_listener is not None:
            self.api_listener.close()

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
            if int(fields[3]) in (self._pid, *self._extensions):  # the session
                return True
            with open(f"/proc/{name}/environ", "rb") as environ:
                return mark in environ.read().split(b"\0")
        except (OSError, IndexError):
            return False


def _pipe() -> tuple[int, int]:
    """(our read end, not blocking; their write end)"""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    return reading, _move(writing)


def _move(fd: int) -> int:
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _CLEAR)
    os.close(fd)
    return moved


def _reap(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


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
