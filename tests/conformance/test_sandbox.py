"""Every sandbox driver that this machine can run, against the promises of ``sandbox/driver.py`` (the scenarios are next door)."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import sandbox_promises
import sandbox_scenarios as suite

from lambent.errors import SandboxFault
from lambent.runtimes.catalogue import Catalogue
from lambent.sandbox.choose import make_driver
from lambent.settings import SandboxSettings

RUNTIME = f"python3.{sys.version_info.minor}"
NOBODY = 65_534


def run(isolation: str, function: suite.Scenario, runtime: str = RUNTIME, **settings: object) -> None:
    async def live() -> None:
        async with suite.World(isolation, runtime, **settings) as world:
            await asyncio.wait_for(function(world), 60)

    asyncio.run(_or_skip(isolation, live()))


async def _or_skip(isolation: str, doing: Coroutine[Any, Any, object]) -> None:
    try:
        await doing
    except SandboxFault as fault:
        if isolation == "namespaces" and "does not let us" in fault.message:
            pytest.skip(fault.message)
        raise


class Worlds:
    """Drivers that scenarios share, one after the other, since starting one takes longer than most of what is done with it."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._worlds: dict[tuple[str, str], suite.World] = {}

    def run(self, isolation: str, name: str, runtime: str = RUNTIME) -> None:
        function, _ = suite.SCENARIOS[name]
        if name in suite.ALONE:
            run(isolation, function, runtime)
            return
        world = self._worlds.pop((isolation, runtime), None)
        if world is None:
            world = suite.World(isolation, runtime)
            self._runner.run(_or_skip(isolation, world.__aenter__()))
        try:
            self._runner.run(asyncio.wait_for(function(world), 60))
            self._runner.run(world.clear())
        except BaseException:
            self._runner.run(world.__aexit__())
            raise
        self._worlds[isolation, runtime] = world

    def close(self) -> None:
        for world in self._worlds.values():
            self._runner.run(world.__aexit__())
        self._runner.close()


@pytest.fixture(scope="module")
def worlds() -> Iterator[Worlds]:
    shared = Worlds()
    yield shared
    shared.close()


@pytest.mark.parametrize("isolation", ["namespaces", "process"])
@pytest.mark.parametrize("name", list(suite.SCENARIOS))
def test_scenario(worlds: Worlds, isolation: str, name: str) -> None:
    _, needs = suite.SCENARIOS[name]
    lacking = needs - suite.abilities(isolation, rootless=os.geteuid() != 0)
    if lacking:
        pytest.skip(f"the {isolation} driver gives no {', '.join(sorted(lacking))} here")
    worlds.run(isolation, name)


PROGRAMS = [("namespaces", "provided.al2023"), ("namespaces", "provided.al2"), ("process", "provided.al2023")]
PROGRAM_IDS = ["namespaces-executed", "namespaces-warm", "process-executed"]


@pytest.mark.parametrize(("isolation", "runtime"), PROGRAMS, ids=PROGRAM_IDS)
@pytest.mark.parametrize("name", [name for name in suite.SCENARIOS if name not in sandbox_promises.WITH_THEIR_OWN_PROGRAM])
def test_scenario_of_a_program(worlds: Worlds, isolation: str, runtime: str, name: str) -> None:
    """The same promises where the runtime is a program that is executed, or that was executed before its function was known."""
    _, needs = suite.SCENARIOS[name]
    lacking = needs - suite.abilities(isolation, rootless=os.geteuid() != 0)
    if lacking:
        pytest.skip(f"the {isolation} driver gives no {', '.join(sorted(lacking))} here")
    worlds.run(isolation, name, runtime)


@pytest.mark.parametrize("name", ["answers", "many_at_once", "daemons_do_not_outlive_their_sandbox", "a_cancelled_start_leaves_nothing"])
def test_without_a_pool(name: str) -> None:
    run("namespaces", suite.SCENARIOS[name][0], blanks=0)


@pytest.mark.skipif(os.geteuid() != 0, reason="the share of the CPU needs root")
@pytest.mark.parametrize(("mb_per_vcpu", "quota"), [(3538, {"50000"}), (0, {"-1", "max"})])
def test_with_another_share_of_the_cpu(mb_per_vcpu: int, quota: set[str]) -> None:
    async def shares(world: suite.World) -> None:
        quotas = await suite.cpu_quotas_after_init(world)
        assert set(quotas) & quota
        assert "100000" not in quotas

    run("namespaces", shares, mb_per_vcpu=mb_per_vcpu)


@pytest.mark.skipif(os.geteuid() != 0, reason="egress needs root")
@pytest.mark.parametrize("name", ["many_at_once", "the_network_is_its_own", "nothing_leaks"])
def test_with_egress(name: str) -> None:
    run("namespaces", suite.SCENARIOS[name][0], egress="auto")


@pytest.mark.parametrize("interpreter", Catalogue().interpreters(), ids=lambda interpreter: interpreter.runtime)
@pytest.mark.parametrize("isolation", ["namespaces", "process"])
def test_every_interpreter(isolation: str, interpreter: object) -> None:
    run(isolation, suite.answers, interpreter.runtime)  # type: ignore[attr-defined]


def test_as_an_unprivileged_user(tmp_path: Path) -> None:
    """The same scenarios in a user namespace, with the system's interpreter and copies of the files that its user may read."""
    python = "/usr/bin/python3"
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else; without root, the other tests are this test already")
    if not os.path.exists(python) or subprocess.run([python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]).returncode:
        pytest.skip(f"{python} is not there or older than 3.11")
    library = tmp_path / "library"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(suite.make_driver.__code__.co_filename).parents[1], library / "lambent", ignore=ignore)
    for name in ("sandbox_scenarios.py", "sandbox_promises.py", "sandbox_client.py"):
        shutil.copy(Path(__file__).with_name(name), library / name)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    os.chown(scratch, NOBODY, NOBODY)
    for folder in (tmp_path, *list(tmp_path.parents)[:-2]):
        if folder.stat().st_uid == os.geteuid() and str(folder).startswith(os.environ.get("TMPDIR", "/tmp")):
            folder.chmod(folder.stat().st_mode | 0o055)
    minor = subprocess.run(
        [python, "-c", "import sys; print(sys.version_info.minor)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    done = subprocess.run(
        [python, str(library / "sandbox_scenarios.py"), "namespaces", f"python3.{minor}"],
        env={**os.environ, "PYTHONPATH": str(library), "TMPDIR": str(scratch), "PATH": "/usr/bin:/bin"},
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    if "does not let us" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    passed = [line for line in done.stdout.splitlines() if line.startswith("passed")]
    assert len(passed) == sum(needs <= suite.abilities("namespaces", rootless=True) for _, needs in suite.SCENARIOS.values())


def test_auto_falls_back_and_says_why(tmp_path: Path) -> None:
    class Refusing:
        async def open(self) -> None:
            raise SandboxFault("no namespaces for you")

    async def live() -> None:
        driver = make_driver(SandboxSettings(egress="none"), tmp_path, Catalogue())
        driver._driver = Refusing()  # type: ignore[attr-defined]
        await driver.open()
        report = driver.report
        await driver.close()
        assert report.driver == "process"
        assert "no namespaces for you" in report.reason
        assert any("no isolation" in line for line in report.missing)

    asyncio.run(live())
