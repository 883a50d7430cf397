"""One sandbox of the namespaces driver, as the node holds it: a handful of descriptors and a line to the launcher.

Freezing, thawing and measuring are plain writes and reads of open control files, in microseconds and without asking anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

from lambent.errors import SandboxFault
from lambent.sandbox.driver import SandboxExit
from lambent.sandbox.extension_exits import ExtensionExits

if TYPE_CHECKING:
    from lambent.sandbox.launcher_link import LauncherLink

KILLED = SandboxExit(None, 9)


def exit_of(status: int, oom: bool = False) -> SandboxExit:
    """What a wait status means."""
    if os.WIFSIGNALED(status):
        return SandboxExit(None, os.WTERMSIG(status), oom and os.WTERMSIG(status) == 9)
    return SandboxExit(os.waitstatus_to_exitcode(status), None)


class NamespaceSandbox(ExtensionExits):
    """One sandbox, by its descriptors."""

    __slots__ = (
        "_extensions",
        "_freeze_fd",
        "_freeze_word",
        "_frozen",
        "_gone",
        "_hold_fd",
        "_link",
        "_peak",
        "_peak_fd",
        "_settled",
        "_sockets",
        "_thaw_word",
        "api_listener",
        "channel",
        "exited",
        "extension_logs",
        "id",
        "listener",
        "logs",
    )

    def __init__(self, link: LauncherLink, message: dict[str, Any], fds: list[int], extensions: tuple[str, ...], sockets: Sockets) -> None:
        super().__init__()
        carried = dict(zip(message["carries"], fds, strict=True))
        loop = asyncio.get_running_loop()
        self.id: str = message["id"]
        self.channel = socket.socket(fileno=carried["channel"])
        self.channel.setblocking(False)
        self.logs: int = carried["logs"]
        self.extension_logs: int = carried.get("extension_logs", -1)
        for fd in (self.logs, self.extension_logs):
            if fd >= 0:
                os.set_blocking(fd, False)
        self.listener = _listener(carried.get("door", -1))
        self.api_listener = _listener(carried.get("api", -1))
        self.exited: asyncio.Future[SandboxExit] = loop.create_future()
        self._extensions = extensions
        self._sockets = sockets
        self._gone: asyncio.Future[None] = loop.create_future()
        self._link = link
        self._freeze_fd: int = carried.get("freeze", -1)
        self._freeze_word, self._thaw_word = (word.encode() for word in message["freeze"])
        self._peak_fd: int = carried.get("peak", -1)
        self._hold_fd: int = carried.get("hold", -1)
        self._peak = 0
        self._frozen = False
        self._settled = False

    def release(self) -> None:
        if self._hold_fd >= 0:
            os.close(self._hold_fd)
            self._hold_fd = -1

    def settled(self) -> None:
        """Init is over: from now on the CPU share of the memory size applies. Idempotent; implied by the first ``freeze``."""
        if not self._settled:
            self._settled = True
            self._link.send({"op": "settled", "id": self.id})

    def freeze(self) -> None:
        if self._frozen or self._freeze_fd < 0:
            return
        self.settled()
        with contextlib.suppress(OSError):  # the cgroup has just been removed
            os.pwrite(self._freeze_fd, self._freeze_word, 0)
        self._frozen = True

    def thaw(self) -> None:
        if not self._frozen or self._freeze_fd < 0:
            return
        with contextlib.suppress(OSError):
            os.pwrite(self._freeze_fd, self._thaw_word, 0)
        self._frozen = False

    def terminate(self) -> None:
        self.thaw()
        self._link.send({"op": "terminate", "id": self.id})

    def memory_peak(self) -> int:
        if self._peak_fd >= 0:
            with contextlib.suppress(OSError, ValueError):
                self._peak = max(self._peak, int(os.pread(self._peak_fd, 32, 0)))
        return self._peak

    async def open_socket(self) -> socket.socket:
        """Raises ``SandboxFault`` when the sandbox is gone."""
        made = await self._sockets.open(self._link, self.id)
        made.setblocking(False)
        return made

    async def kill(self) -> None:
        if not self._gone.done():
            self._link.send({"op": "kill", "id": self.id})
            await asyncio.shield(self._gone)

    # -- for the driver ---------------------------------------------------------------------------------------------------------

    def end(self, how: SandboxExit, peak: int = 0) -> None:
        """The runtime process has ended."""
        self._peak = max(self._peak, peak)
        if not self.exited.done():
            self.exited.set_result(how)

    def extension_ended(self, number: int, how: SandboxExit) -> None:
        self.tell_extension_exit(os.path.basename(self._extensions[number]), how)

    def vanish(self) -> None:
        """Nothing of the sandbox exists any more."""
        self.end(KILLED)
        self.release()
        for fd in (self._freeze_fd, self._peak_fd):
            if fd >= 0:
                os.close(fd)
        self._freeze_fd = self._peak_fd = -1
        for listener in (self.listener, self.api_listener):
            if listener is not None:
                listener.close()
        if not self._gone.done():
            self._gone.set_result(None)


class Sockets:
    """Requests for sockets that are under way."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[socket.socket]] = {}
        self._asked = 0

    async def open(self, link: LauncherLink, sandbox_id: str) -> socket.socket:
        self._asked += 1
        number = self._asked
        future: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        link.send({"op": "socket", "id": sandbox_id, "number": number})
        if not link.is_open:
            self.fail()
        try:
            return await future
        finally:
            self._waiting.pop(number, None)

    def answer(self, number: int, fds: list[int]) -> None:
        """Take the launcher's answer."""
        future = self._waiting.pop(number, None)
        if future is None or future.done():
            for fd in fds:
                os.close(fd)
        elif fds:
            future.set_result(socket.socket(fileno=fds[0]))
        else:
            future.set_exception(SandboxFault("the sandbox has ended"))

    def fail(self) -> None:
        """The launcher is gone."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(SandboxFault("the launcher has ended"))


def _listener(fd: int) -> socket.socket | None:
    if fd < 0:
        return None
    listener = socket.socket(fileno=fd)
    listener.setblocking(False)
    return listener
