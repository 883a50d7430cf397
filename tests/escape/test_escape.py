"""Hostile functions against the namespaces driver: with root, and as an unprivileged user."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import hostile_functions as hostile
import pytest
import test_network
from sandbox_scenarios import World

from lambent.errors import SandboxFault

RUNTIME = f"python3.{sys.version_info.minor}"
NOBODY = 65_534


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMBENT_ESCAPE_SECRET", hostile.SECRET)


@pytest.mark.parametrize("runtime", [RUNTIME, "provided.al2023", "provided.al2"], ids=["forked", "executed", "warm"])
@pytest.mark.parametrize("name", list(hostile.ATTACKS))
def test_attack(name: str, runtime: str) -> None:
    """From an interpreter that was forked from a zygote, from a program, and from one that was started ahead."""
    function, needs = hostile.ATTACKS[name]

    async def live() -> None:
        async with World("namespaces", runtime) as world:
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


@pytest.mark.skipif(not test_network.ability.full, reason="; ".join(test_network.ability.missing))
def test_with_egress_the_world_can_be_reached_and_nothing_else() -> None:
    """The driver in a network namespace that plays the host, beside one that plays the internet."""

    def body(wires: test_network.World) -> None:
        servers = [wires.listen(wires.internet, address, 80) for address in (test_network.WORLD_SERVER, test_network.METADATA)]
        servers += [wires.listen(wires.internet, test_network.WORLD_SERVER, 25), wires.listen(wires.host, "0.0.0.0", 8080)]
        abstract = socket.socket(socket.AF_UNIX)
        abstract.bind("\0lambent-escape-host")
        abstract.listen()

        async def live() -> None:
            world = World("namespaces", RUNTIME)
            world.settings = dataclasses.replace(world.settings, egress="full")
            async with world:
                victim = await world.started()
                address = await victim.call("import socket, builtins; builtins.keep = socket.create_server(('0.0.0.0', 8080)); " + ADDRESS)
                code = f"""
                places = [(address, 8080) for address in {[*wires_addresses(), address]!r}]
                places += [({test_network.METADATA!r}, 80), ({test_network.WORLD_SERVER!r}, 25), ({test_network.WORLD_SERVER!r}, 80)]
                for place in places:
                    attempt(str(place), lambda: socket.create_connection(place, 5) and None)
                attempt("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\\0lambent-escape-host"))
                attempt("raw", socket.socket, 2, 3, 1)
                """
                assert await hostile.tried(world, code) == [str((test_network.WORLD_SERVER, 80))]
                await hostile.next_works(world)

        asyncio.run(live())
        assert test_network.traces() == []
        for server in servers[1:]:
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()
        abstract.close()

    test_network.in_a_world(body)


ADDRESS = "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('203.0.113.9', 1)); result = s.getsockname()[0]"


def wires_addresses() -> list[str]:
    return ["127.0.0.1", test_network.HOST, test_network.HOST_ALIAS]
