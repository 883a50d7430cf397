"""The three layouts of control groups, on folders that look like them. The real thing is in ``tests/conformance/test_sandbox.py``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lambent.sandbox.cgroups import Cgroups, instance_name, vcpus

V1 = ("memory", "cpu", "pids", "freezer")
INSTANCE = "1-1-1"


def machine(root: Path, mounts: dict[str, str], own: dict[str, str]) -> None:
    """``mounts``: controller or "v2" -> mount point; ``own``: the same -> our cgroup."""
    (root / "proc/self").mkdir(parents=True)
    lines, groups = [], []
    for number, (name, point) in enumerate(mounts.items()):
        kind, options = ("cgroup2", "rw") if name == "v2" else ("cgroup", f"rw,{name}")
        lines.append(f"{number} 1 0:{number} / {point} rw,relatime - {kind} {kind} {options}\n")
        groups.append(f"{number}:{'' if name == 'v2' else name}:{own.get(name, '/')}\n")
        (root / point.lstrip("/") / own.get(name, "/").lstrip("/")).mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text("".join(lines))
    (root / "proc/self/cgroup").write_text("".join(groups))


def control(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_v1(tmp_path: Path) -> None:
    machine(tmp_path, {name: f"/cg/{name}" for name in V1}, {"memory": "/service"})
    groups = Cgroups(INSTANCE, str(tmp_path))
    assert groups.facts == {"cgroups": "v1"}
    assert groups.missing == []
    leaf = groups.make("7")
    assert sorted(leaf.dirs) == sorted(f"{tmp_path}/cg/{name}{'/service' if name == 'memory' else ''}/lambent/{INSTANCE}/7" for name in V1)
    assert leaf.freeze_file() == (f"{tmp_path}/cg/freezer/lambent/{INSTANCE}/7/freezer.state", b"FROZEN", b"THAWED")
    cpu = tmp_path / f"cg/cpu/lambent/{INSTANCE}/7"
    control(cpu, cpu__cfs_quota_us="", cpu__cfs_period_us="", cpu__cfs_burst_us="")
    leaf.limit_cpu(vcpus(1769) / 2)
    assert (cpu / "cpu.cfs_quota_us").read_text() == "50000"
    memory = tmp_path / f"cg/memory/service/lambent/{INSTANCE}/7"
    control(memory, memory__limit_in_bytes="", memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    leaf.limit_memory(1 << 20)
    assert (memory / "memory.limit_in_bytes").read_text() == "1048576"
    assert leaf.oom_kills() == 3


def test_v1_with_v2_beside_it(tmp_path: Path) -> None:
    machine(tmp_path, {**{name: f"/cg/{name}" for name in V1}, "v2": "/cg/unified"}, {})
    groups = Cgroups(INSTANCE, str(tmp_path))
    assert groups.facts == {"cgroups": "v1 with v2 beside it"}
    leaf = groups.make("7")
    assert leaf.freeze_file()[0] == f"{tmp_path}/cg/unified/lambent/{INSTANCE}/7/cgroup.freeze"
    assert not any("freezer" in directory for directory in leaf.dirs)
    assert not (tmp_path / "cg/freezer/lambent").exists()


def v2_machine(root: Path, controllers: str) -> None:
    machine(root, {"v2": "/cg"}, {"v2": "/user.slice/me"})
    base = root / "cg/user.slice/me"
    control(base, cgroup__controllers=controllers, cgroup__subtree_control="", cgroup__procs="")
    control(base / "lambent", cgroup__controllers=controllers, cgroup__subtree_control="")
    control(base / "lambent" / INSTANCE, cgroup__subtree_control="")


def test_v2(tmp_path: Path) -> None:
    v2_machine(tmp_path, "cpuset cpu io memory pids")
    groups = Cgroups(INSTANCE, str(tmp_path))
    assert groups.facts == {"cgroups": "v2"}
    assert groups.missing == []
    own = tmp_path / "cg/user.slice/me"
    for folder in (own, own / "lambent", own / "lambent" / INSTANCE):
        assert (folder / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    leaf = groups.make("7")
    folder = own / "lambent" / INSTANCE / "7"
    assert leaf.dirs == [str(folder)]
    control(
        folder, memory__max="", memory__oom__group="", cpu__max="", pids__max="", memory__events="oom 1\noom_kill 2\n", memory__peak="77\n"
    )
    leaf.limit_memory(2 << 20)
    leaf.limit_cpu(0.25)
    leaf.limit_pids(9)
    assert (folder / "memory.max").read_text() == "2097152"
    assert (folder / "memory.oom.group").read_text() == "1"
    assert (folder / "cpu.max").read_text() == "25000 100000"
    assert (folder / "pids.max").read_text() == "9"
    assert (leaf.oom_kills(), leaf.peak()) == (2, 77)
    assert leaf.freeze_file() == (f"{folder}/cgroup.freeze", b"1", b"0")


def test_v2_without_a_controller_says_what_is_missing(tmp_path: Path) -> None:
    v2_machine(tmp_path, "memory pids")
    groups = Cgroups(INSTANCE, str(tmp_path))
    assert groups.limits_memory
    assert [line.split(":")[0] for line in groups.missing] == ["no cpu limit"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who falls back on the hierarchy's root")
def test_nothing_to_delegate(tmp_path: Path) -> None:
    machine(tmp_path, {"v2": "/cg"}, {"v2": "/"})
    groups = Cgroups(INSTANCE, str(tmp_path))
    assert groups.facts == {"cgroups": "v2, freezing only"}
    assert not groups.limits_memory
    assert len(groups.missing) == 3


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    machine(tmp_path, {}, {})
    groups = Cgroups(INSTANCE, str(tmp_path))
    assert not groups.usable
    assert groups.facts == {"cgroups": "none"}
    assert len(groups.missing) == 4


def test_only_the_dead_are_swept(tmp_path: Path) -> None:
    machine(tmp_path, {name: f"/cg/{name}" for name in V1}, {})
    alive = instance_name(os.getpid())
    pid, start, space = alive.split("-")
    dead, foreign, other = f"{pid}-{int(start) + 1}-{space}", f"{pid}-{int(start) + 1}-1", "somebody"
    for name in (alive, dead, foreign, other):
        (tmp_path / "cg/memory/lambent" / name).mkdir(parents=True)
    (tmp_path / "cg/memory/lambent" / dead / "3").mkdir()
    assert Cgroups(INSTANCE, str(tmp_path)).sweep() == 1
    assert {entry.name for entry in (tmp_path / "cg/memory/lambent").iterdir()} == {alive, foreign, other, INSTANCE}
