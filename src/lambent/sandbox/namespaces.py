"""The namespaces driver: real isolation, without Docker and without a daemon.

This is the node's side, unprivileged. It asks the launcher (``launcher.py``) for everything that needs rights, and holds of each
sandbox only the descriptors that it was handed: the channel, the log pipe, and the open control files by which it freezes, thaws and
reads memory use in microseconds and without asking anybody.

Should the launcher die, every sandbox dies with it. The driver then tells the sandboxes' owners by ``exited``, starts another launcher,
which sweeps what the dead one left, prepares again what was prepared, and only then lets ``kill`` and ``start`` return.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambent.errors import SandboxFault
from lambent.sandbox.driver import IsolationReport, SandboxExit, SandboxSpec
from lambent.sandbox.launcher_link import LauncherLink

if TYPE_CHECKING:
    from lambent.runtimes.catalogue import Catalogue
    from lambent.runtimes.interpreter import Interpreter
    from lambent.settings import SandboxSettings

CLIENT = Path(__file__).parents[1] / "runtime_api" / "python_client.py"
_KILLED = SandboxExit(None, 9)

Packages = Callable[["Interpreter"], Sequence[tuple[str, str]]]


class NamespaceSandbox:
    """One sandbox, by its descriptors."""

    __slots__ = (
        "_freeze_fd",
        "_freeze_word",
        "_frozen",
        "_gone",
        "_link",
        "_peak",
        "_peak_fd",
        "_settled",
        "_thaw_word",
        "channel",
        "exited",
        "id",
        "listener",
        "logs",
    )

    def __init__(self, link: LauncherLink, message: dict[str, Any], fds: list[int]) -> None:
        carried = dict(zip(message["carries"], fds, strict=True))
        loop = asyncio.get_running_loop()
        self.id: str = message["id"]
        self.channel = socket.socket(fileno=carried["channel"])
        self.channel.setblocking(False)
        self.logs: int = carried["logs"]
        self.listener: socket.socket | None = socket.socket(fileno=carried["door"]) if "door" in carried else None
        if self.listener is not None:
            self.listener.setblocking(False)
        self.exited: asyncio.Future[SandboxExit] = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()
        self._link = link
        self._freeze_fd: int = carried.get("freeze", -1)
        self._freeze_word, self._thaw_word = (word.encode() for word in message["freeze"])
        self._peak_fd: int = carried.get("peak", -1)
        self._peak = 0
        self._frozen = False
        self._settled = False

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

    def memory_peak(self) -> int:
        if self._peak_fd >= 0:
            with contextlib.suppress(OSError, ValueError):
                self._peak = max(self._peak, int(os.pread(self._peak_fd, 32, 0)))
        return self._peak

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

    def vanish(self) -> None:
        """Nothing of the sandbox exists any more."""
        self.end(_KILLED)
        for fd in (self._freeze_fd, self._peak_fd):
            if fd >= 0:
                os.close(fd)
        self._freeze_fd = self._peak_fd = -1
        if self.listener is not None:
            self.listener.close()
        if not self._gone.done():
            self._gone.set_result(None)


class NamespacesDriver:
    """Sandboxes of Linux namespaces, cgroups and a system call filter."""

    def __init__(
        self,
        settings: SandboxSettings,
        catalogue: Catalogue,
        code_root: Path,
        packages: Packages,
        port: int = 0,
        client: Path = CLIENT,
        reason: str = "this machine lets us make namespaces",
    ) -> None:
        """``code_root``: every ``code_dir`` lies below it. ``port``: where functions find the platform on their 127.0.0.1; or 0."""
        self._settings = settings
        self._catalogue = catalogue
        self._code_root = os.path.realpath(code_root)
        self._packages = packages
        self._port = port
        self._client = str(client)
        self._reason = reason
        self._report = IsolationReport("namespaces", reason)
        self._link: LauncherLink | None = None
        self._hello: asyncio.Future[None] | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._orders: dict[str, dict[str, Any]] = {}  # prepare requests by runtime
        self._prepared: dict[str, asyncio.Future[None]] = {}
        self._starting: dict[str, asyncio.Future[NamespaceSandbox]] = {}
        self._sandboxes: dict[str, NamespaceSandbox] = {}
        self._is_closed = False

    @property
    def report(self) -> IsolationReport:
        return self._report

    @property
    def launcher_pid(self) -> int:
        """The launcher's outer process; 0 before ``open`` and while there is none."""
        return self._link.pid if self._link is not None else 0

    async def open(self) -> None:
        """Start the launcher. Raises ``SandboxFault`` where the machine refuses."""
        await self._launch()

    async def close(self) -> None:
        self._is_closed = True
        if self._restarting is not None:
            await asyncio.wait([self._restarting])
        if self._link is not None:
            self._link.close()
            await self._link.ended
        for sandbox in list(self._sandboxes.values()):
            sandbox.vanish()
        self._sandboxes.clear()
        self._fail_all("the driver is closed")

    async def prepare(self, runtime: str) -> None:
        await self._ensure_running()
        future = self._prepared.get(runtime)
        if future is None or (future.done() and future.exception() is not None):
            future = self._prepared[runtime] = asyncio.get_running_loop().create_future()
            future.add_done_callback(_consume)
            try:
                if runtime not in self._orders:
                    self._orders[runtime] = await asyncio.to_thread(self._order, runtime)
            except BaseException as error:
                del self._prepared[runtime]
                if not future.done():
                    future.set_exception(SandboxFault(f"runtime {runtime}: {error}"))
                raise
            assert self._link is not None
            self._link.send(self._orders[runtime])
        await asyncio.shield(future)

    async def start(self, spec: SandboxSpec) -> NamespaceSandbox:
        if spec.runtime not in self._prepared or not self._prepared[spec.runtime].done() or self._restarting is not None:
            await self.prepare(spec.runtime)
        if spec.sandbox_id in self._starting or spec.sandbox_id in self._sandboxes:
            raise SandboxFault(f"sandbox {spec.sandbox_id} exists already")
        if self._link is None or not self._link.is_open:
            raise SandboxFault("the launcher has ended")
        code, layers = self._below(spec.code_dir), [self._below(spec.opt_dir)] if spec.opt_dir else []
        future: asyncio.Future[NamespaceSandbox] = asyncio.get_running_loop().create_future()
        self._starting[spec.sandbox_id] = future
        self._link.send(
            {
                "op": "start",
                "id": spec.sandbox_id,
                "runtime": spec.runtime,
                "handler": spec.handler,
                "code": code,
                "layers": layers,
                "memory_mb": spec.memory_mb,
                "ephemeral_mb": spec.ephemeral_mb,
                "environment": dict(spec.environment),
            }
        )
        try:
            return await future
        finally:
            if self._starting.get(spec.sandbox_id) is future:  # cancelled; what comes now has no owner
                del self._starting[spec.sandbox_id]
                self._link.send({"op": "kill", "id": spec.sandbox_id})

    # -- orders ----------------------------------------------------------------------------------------------------------------

    def _order(self, runtime: str) -> dict[str, Any]:
        """What the launcher must know to start a zygote. Blocks."""
        interpreter = self._catalogue.find(runtime)
        library = interpreter.shared_library
        if library and not interpreter.is_system and (library + "/").startswith(interpreter.prefix + "/"):
            library = "/var/lang" + library[len(interpreter.prefix) :]
        return {
            "op": "prepare",
            "runtime": runtime,
            "executable": interpreter.executable,
            "prefix": interpreter.prefix,
            "version": list(interpreter.version),
            "library_path": "" if interpreter.is_system else library or "/var/lang/lib",
            "packages": [list(package) for package in self._packages(interpreter)],
            "client": self._client,
        }

    def _below(self, path: str) -> str:
        real = os.path.realpath(path)
        if not real.startswith(self._code_root + "/"):
            raise SandboxFault(f"{path} is not below the code directory {self._code_root}")
        return real[len(self._code_root) + 1 :]

    # -- the launcher ----------------------------------------------------------------------------------------------------------

    async def _launch(self) -> None:
        self._hello = asyncio.get_running_loop().create_future()
        self._link = link = LauncherLink(self._on_message)
        link.ended.add_done_callback(lambda _: self._on_end(link))
        settings = self._settings
        link.send(
            {
                "op": "configure",
                "code_root": self._code_root,
                "blanks": settings.blanks,
                "pids": settings.pids,
                "port": self._port,
                "egress": settings.egress,
            }
        )
        try:
            await self._hello
        except BaseException:
            self._link = None
            link.close()
            await link.ended
            raise

    def _on_end(self, link: LauncherLink) -> None:
        if self._hello is not None and not self._hello.done():
            self._hello.set_exception(SandboxFault("the launcher ended before it was ready"))
        if link is self._link and not self._is_closed:
            self._link = None
            self._restarting = asyncio.get_running_loop().create_task(self._restart())

    async def _restart(self) -> None:
        """After the launcher's unexpected end."""
        orphans = list(self._sandboxes.values())
        self._sandboxes.clear()
        for sandbox in orphans:
            sandbox.end(_KILLED)
        self._fail_all("the launcher has ended")
        try:
            await self._launch()  # it has swept before it answers
            assert self._link is not None
            for runtime, order in self._orders.items():
                self._prepared[runtime] = asyncio.get_running_loop().create_future()
                self._prepared[runtime].add_done_callback(_consume)
                self._link.send(order)
        except SandboxFault as fault:
            self._report = IsolationReport(
                "namespaces", self._reason, self._report.facts, (*self._report.missing, f"the launcher does not start again: {fault}")
            )
        finally:
            for sandbox in orphans:
                sandbox.vanish()
            self._restarting = None

    async def _ensure_running(self) -> None:
        if self._restarting is not None:
            await asyncio.wait([self._restarting])
        if self._is_closed:
            raise SandboxFault("the driver is closed")
        if self._link is None:
            await self._launch()

    def _fail_all(self, why: str) -> None:
        futures: list[asyncio.Future[Any]] = [*self._starting.values(), *self._prepared.values()]
        for future in futures:
            if not future.done():
                future.set_exception(SandboxFault(why))
        self._starting.clear()
        self._prepared.clear()

    # -- what the launcher says --------------------------------------------------------------------------------------------------

    def _on_message(self, message: dict[str, Any], fds: list[int]) -> None:
        event = message["event"]
        if event == "started":
            self._on_started(message, fds)
        elif event == "exited":
            self._on_exited(message)
        elif event == "gone":
            sandbox = self._sandboxes.pop(message["id"], None)
            if sandbox is not None:
                sandbox.vanish()
        elif event == "refused":
            future = self._starting.pop(message["id"], None)
            if future is not None and not future.done():
                future.set_exception(SandboxFault(message["message"]))
        elif event in ("prepared", "unprepared"):
            self._on_prepared(message)
        elif event == "hello":
            self._report = IsolationReport("namespaces", self._reason, message["facts"], tuple(message["missing"]))
            if self._hello is not None and not self._hello.done():
                self._hello.set_result(None)
        elif event == "fatal" and self._hello is not None and not self._hello.done():
            self._hello.set_exception(SandboxFault(message["message"]))

    def _on_prepared(self, message: dict[str, Any]) -> None:
        future = self._prepared.get(message["runtime"])
        if future is None or future.done():
            return
        if message["event"] == "prepared":
            future.set_result(None)
        else:
            future.set_exception(SandboxFault(message["message"]))

    def _on_started(self, message: dict[str, Any], fds: list[int]) -> None:
        assert self._link is not None
        future = self._starting.pop(message["id"], None)
        if future is None or future.done():
            for fd in fds:
                os.close(fd)
            self._link.send({"op": "kill", "id": message["id"]})
            return
        sandbox = self._sandboxes[message["id"]] = NamespaceSandbox(self._link, message, fds)
        future.set_result(sandbox)

    def _on_exited(self, message: dict[str, Any]) -> None:
        sandbox = self._sandboxes.get(message["id"])
        if sandbox is None:
            return
        status = message["status"]
        if os.WIFSIGNALED(status):
            how = SandboxExit(None, os.WTERMSIG(status), message["oom"] and os.WTERMSIG(status) == 9)
        else:
            how = SandboxExit(os.waitstatus_to_exitcode(status), None)
        sandbox.end(how, message["peak"])


def _consume(future: asyncio.Future[Any]) -> None:
    """Somebody may or may not have waited; either way the error is not lost on purpose."""
    if not future.cancelled():
        future.exception()
