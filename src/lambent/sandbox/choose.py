"""Which driver: what the settings say, or with "auto" the best that this machine allows, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lambent.errors import SandboxFault
from lambent.runtimes.packages import runtime_packages
from lambent.sandbox.driver import IsolationReport, Sandbox, SandboxDriver, SandboxSpec
from lambent.sandbox.namespaces import CLIENT, NamespacesDriver
from lambent.sandbox.process import ProcessDriver

if TYPE_CHECKING:
    from lambent.runtimes.catalogue import Catalogue
    from lambent.sandbox.orders import Packages
    from lambent.settings import SandboxSettings


def make_driver(
    settings: SandboxSettings,
    code_root: Path,
    catalogue: Catalogue,
    port: int = 0,
    packages: Packages | None = None,
    client: Path = CLIENT,
) -> SandboxDriver:
    """The driver that ``settings.isolation`` asks for; not open yet.

    ``code_root``: the directory below which every ``code_dir`` lies. ``port``: where functions find the platform on their 127.0.0.1.
    """
    bring = packages or (lambda interpreter: runtime_packages(interpreter, settings.packages))

    def namespaces(reason: str) -> SandboxDriver:
        return NamespacesDriver(settings, catalogue, code_root, bring, port, client, reason)

    if settings.isolation == "namespaces":
        return namespaces("the settings ask for it")
    if settings.isolation == "process":
        return ProcessDriver(catalogue, bring, client, "the settings ask for it")
    fallback = ProcessDriver(catalogue, bring, client, "this machine does not allow namespaces")
    return AutoDriver(namespaces("this machine allows namespaces"), fallback)


class AutoDriver:
    """Namespaces where they can be had, else plain processes. The choice falls in ``open``."""

    def __init__(self, best: SandboxDriver, fallback: SandboxDriver) -> None:
        self._driver = best
        self._fallback = fallback
        self._why = ""

    @property
    def report(self) -> IsolationReport:
        report = self._driver.report
        if not self._why:
            return report
        return IsolationReport(report.driver, f"{report.reason}: {self._why}", report.facts, report.missing)

    async def open(self) -> None:
        try:
            await self._driver.open()
        except SandboxFault as fault:
            self._why = fault.message
            self._driver = self._fallback
            await self._driver.open()

    async def close(self) -> None:
        await self._driver.close()

    async def prepare(self, runtime: str) -> None:
        await self._driver.prepare(runtime)

    async def start(self, spec: SandboxSpec) -> Sandbox:
        return await self._driver.start(spec)

    def forget(self, sandbox_id: str) -> None:
        self._driver.forget(sandbox_id)
