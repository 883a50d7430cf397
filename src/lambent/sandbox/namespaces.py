"""The namespaces driver: real isolation, without Docker and without a daemon.

This is the node's side, unprivileged. It asks the launcher (``launcher.py``) for everything that needs rights, and holds of each
sandbox only the descriptors that it was handed: the channel, the log pipe, and the open control files by which it freezes, thaws and
reads memory use in microseconds and without asking anybody.

Should the launcher die, every sandbox dies with it. The driver then tells the sandboxes' owners by ``exited``, starts another launcher,
which sweeps what the dead one left, prepares again what was prepared, and only then lets ``kill`` and ``start`` return.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambent.errors import SandboxFault
from lambent.sandbox.driver import IsolationReport, SandboxSpec
from lambent.sandbox.launcher_link import LauncherLink
from lambent.sandbox.namespace_sandbox import KILLED, NamespaceSandbox, Sockets, exit_of
from lambent.sandbox.orders import IMAGE, Packages, prepare_order, runtime_of, start_order

if TYPE_CHECKING:
    from lambent.runtimes.catalogue import Catalogue
    from lambent.settings import SandboxSettings

CLIENT = Path(__file__).parents[1] / "runtime_api" / "python_client.py"


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
        self._file_systems = [os.path.realpath(folder) for folder in settings.file_systems.values()]
        self._packages = packages
        self._sockets = Sockets()
        self._port = port
        self._client = str(client)
        self._reason = reason
        self._report = IsolationReport("namespaces", reason)
        self._link: LauncherLink | None = None
        self._hello: asyncio.Future[None] | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._orders: dict[str, dict[str, Any]] = {}  # prepare requests by runtime
        self._prepared: dict[str, asyncio.Future[None]] = {}
        self._starting: dict[str, tuple[asyncio.Future[NamespaceSandbox], tuple[str, ...]]] = {}  # with the extensions by number
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
        """Make ready for ``runtime``; the empty name stands for container images. Raises ``SandboxFault``."""
        runtime = runtime or IMAGE
        await self._ensure_running()
        future = self._prepared.get(runtime)
        if future is None or (future.done() and future.exception() is not None):
            future = self._prepared[runtime] = asyncio.get_running_loop().create_future()
            future.add_done_callback(_consume)
            try:
                if runtime not in self._orders:
                    self._orders[runtime] = await asyncio.to_thread(prepare_order, self._catalogue, runtime, self._packages, self._client)
            except BaseException as error:
                del self._prepared[runtime]
                if not future.done():
                    future.set_exception(SandboxFault(f"runtime {runtime}: {error}"))
                raise
            assert self._link is not None
            self._link.send(self._orders[runtime])
        await asyncio.shield(future)

    async def start(self, spec: SandboxSpec) -> NamespaceSandbox:
        runtime = runtime_of(spec)
        if runtime not in self._prepared or not self._prepared[runtime].done() or self._restarting is not None:
            await self.prepare(runtime)
        if spec.sandbox_id in self._starting or spec.sandbox_id in self._sandboxes:
            raise SandboxFault(f"sandbox {spec.sandbox_id} exists already")
        if self._link is None or not self._link.is_open:
            raise SandboxFault("the launcher has ended")
        order = start_order(spec, self._code_root, self._file_systems, self._orders[runtime].get("warm_env", {}))
        future: asyncio.Future[NamespaceSandbox] = asyncio.get_running_loop().create_future()
        self._starting[spec.sandbox_id] = (future, spec.extensions)
        self._link.send(order)
        try:
            return await future
        finally:
            if self._starting.get(spec.sandbox_id, (None, ()))[0] is future:  # cancelled; what comes now has no owner
                del self._starting[spec.sandbox_id]
                self._link.send({"op": "kill", "id": spec.sandbox_id})

    def forget(self, sandbox_id: str) -> None:
        """Nobody will want the ``/tmp`` of this sandbox."""
        if self._link is not None:
            self._link.send({"op": "forget", "id": sandbox_id})

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
                "mb_per_vcpu": settings.mb_per_vcpu,
                "port": self._port,
                "egress": settings.egress,
                "file_systems": self._file_systems,
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
            sandbox.end(KILLED)
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
        futures: list[asyncio.Future[Any]] = [*(future for future, _ in self._starting.values()), *self._prepared.values()]
        for future in futures:
            if not future.done():
                future.set_exception(SandboxFault(why))
        self._starting.clear()
        self._prepared.clear()
        self._sockets.fail()

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
        elif event == "extension_exited":
            sandbox = self._sandboxes.get(message["id"])
            if sandbox is not None:
                sandbox.extension_ended(message["number"], exit_of(message["status"]))
        elif event == "socket":
            self._sockets.answer(message["number"], fds)
        elif event == "refused":
            future, _ = self._starting.pop(message["id"], (None, ()))
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
        future, extensions = self._starting.pop(message["id"], (None, ()))
        if future is None or future.done():
            for fd in fds:
                os.close(fd)
            self._link.send({"op": "kill", "id": message["id"]})
            return
        sandbox = self._sandboxes[message["id"]] = NamespaceSandbox(self._link, message, fds, extensions, self._sockets)
        future.set_result(sandbox)

    def _on_exited(self, message: dict[str, Any]) -> None:
        sandbox = self._sandboxes.get(message["id"])
        if sandbox is None:
            return
        sandbox.end(replace(exit_of(message["status"], message["oom"]), fault=message["fault"]), message["peak"])


def _consume(future: asyncio.Future[Any]) -> None:
    """Somebody may or may not have waited; either way the error is not lost on purpose."""
    if not future.cancelled():
        future.exception()
