"""Hostile functions against the namespaces driver: with root, and as an unprivileged user."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import hostile_functions as hostile
import pytest
from sandbox_scenarios import World

from lambent.errors import SandboxFault

RUNTIME = f"python3.{sys.version_info.minor}"
NOBODY = 65_534


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMBENT_ESCAPE_SECRET", hostile.SECRET)


@pytest.mark.parametrize("name", list(hostile.ATTACKS))
def test_attack(name: str) -> None:
    function, needs = hostile.ATTACKS[name]

    async def live() -> None:
        async with World("namespaces", RUNTIME) as world:
            if os.geteuid() != 0 and needs:
                pytest.skip(f"without root there is nothing to hold against it ({', '.join(sorted(needs))})")
            if "limits" in needs and world.driver.report.facts["cgroups"] == "none":
                pytest.skip("no cgroups here, and so no limits")
            await asyncio.wait_for(function(world), 60)
            await asyncio.wait_for(hostile.next_works(world), 20)

    try:
        asyncio.run(live())
    except SandboxFault as fault:
        if "does not let us" in fault.message:
            pytest.skip(fault.message)
        raise


def test_without_root(tmp_path: Path) -> None:
    """The attacks in a user namespace, with the system's interpreter and copies of the files that its user may read."""
    python = "/usr/bin/python3"
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else; without root, the other tests are this test already")
    if not os.path.exists(python) or subprocess.run([python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]).returncode:
        pytest.skip(f"{python} is not there or older than 3.11")
    library = tmp_path / "library"
    source = Path(World.__init__.__code__.co_filename)
    package = Path(sys.modules["lambent"].__path__[0])
    shutil.copytree(package, library / "lambent", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (source, source.with_name("sandbox_client.py"), Path(hostile.__file__)):
        shutil.copy(path, library / path.name)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    os.chown(scratch, NOBODY, NOBODY)
    for folder in (tmp_path, *list(tmp_path.parents)[:-2]):
        if folder.stat().st_uid == os.geteuid() and str(folder).startswith(os.environ.get("TMPDIR", "/tmp")):
            folder.chmod(folder.stat().st_mode | 0o055)
    minor = subprocess.run([python, "-c", "import sys; print(sys.version_info.minor)"], capture_output=True, text=True, check=True)
    done = subprocess.run(
        [python, str(library / "hostile_functions.py"), f"python3.{minor.stdout.strip()}"],
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
    withstood = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("withstood")]
    assert withstood == [name for name, (_, needs) in hostile.ATTACKS.items() if not needs], done.stderr
