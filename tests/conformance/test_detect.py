"""The machine's facts: the pure parts on texts of other machines, the probes on this one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lambent.sandbox import detect
from lambent.sandbox.attempt import attempt
from lambent.sandbox.detect import Finding, Hierarchy, find_hierarchies


def mounted(tmp_path: Path, *rows: tuple[str, str, str, str]) -> str:
    """A mountinfo text of (root, mount point, kind, options), and the mount points as directories."""
    lines = []
    for root, point, kind, options in rows:
        (tmp_path / point).mkdir(parents=True, exist_ok=True)
        lines.append(f"30 20 0:26 {root} {tmp_path}/{point} rw,nosuid shared:9 - {kind} cgroup {options}")
    return "21 20 0:5 / /proc rw - proc proc rw\n" + "\n".join(lines) + "\n"


def test_a_v2_machine(tmp_path: Path) -> None:
    text = mounted(tmp_path, ("/", "cg", "cgroup2", "rw,nsdelegate"))
    inside = tmp_path / "cg/user.slice/session.scope"
    inside.mkdir(parents=True)
    (inside / "cgroup.controllers").write_text("memory pids\n")
    assert find_hierarchies("0::/user.slice/session.scope\n", text) == (Hierarchy(True, ("memory", "pids"), str(inside)),)


def test_a_hybrid_machine(tmp_path: Path) -> None:
    text = mounted(
        tmp_path,
        ("/", "memory", "cgroup", "rw,memory"),
        ("/", "cpu", "cgroup", "rw,cpu,cpuacct"),
        ("/", "systemd", "cgroup", "rw,name=systemd"),
        ("/", "unified", "cgroup2", "rw"),
    )
    (tmp_path / "memory/job").mkdir()
    own = "5:memory:/job\n4:cpu,cpuacct:/\n1:name=systemd:/x\n0::/\n"
    assert find_hierarchies(own, text) == (
        Hierarchy(True, (), f"{tmp_path}/unified"),
        Hierarchy(False, ("memory",), f"{tmp_path}/memory/job"),
        Hierarchy(False, ("cpu", "cpuacct"), f"{tmp_path}/cpu"),
    )


def test_a_container_sees_its_own_part_as_the_root(tmp_path: Path) -> None:
    text = mounted(tmp_path, ("/docker/abc", "memory", "cgroup", "rw,memory"), ("/kube/pod", "pids", "cgroup", "rw,pids"))
    (tmp_path / "memory/inner").mkdir()
    own = "5:memory:/docker/abc/inner\n4:pids:/somewhere/else\n"
    assert find_hierarchies(own, text) == (
        Hierarchy(False, ("memory",), f"{tmp_path}/memory/inner"),
        Hierarchy(False, ("pids",), f"{tmp_path}/pids"),
    )


def test_no_cgroups_at_all() -> None:
    assert find_hierarchies("", "") == ()
    findings = {finding.name: finding for finding in detect._cgroups(())}
    assert findings["cgroups"] == Finding("cgroups", False, "none", "mount a cgroup hierarchy at /sys/fs/cgroup")
    assert not findings["memory limit"].ok
    assert not detect._freezing(()).ok


INTEL = "processor : 0\nflags : fpu vmx sse\n"
PLAIN = "processor : 0\nflags : fpu sse\n"


@pytest.mark.parametrize(
    ("exists", "usable", "cpuinfo", "machine", "ok", "says"),
    [
        (False, False, INTEL, "x86_64", False, "there is no /dev/kvm"),
        (True, True, PLAIN, "x86_64", False, "neither vmx nor svm"),
        (True, False, INTEL, "x86_64", False, "may not be opened"),
        (True, True, INTEL, "x86_64", True, "only booting something"),
        (True, True, "Features : fp asimd\n", "aarch64", True, "only booting something"),
    ],
)
def test_a_device_is_no_proof_of_virtualisation(exists: bool, usable: bool, cpuinfo: str, machine: str, ok: bool, says: str) -> None:
    found = detect._kvm(exists, usable, cpuinfo, machine)
    assert found.ok is ok
    assert says in found.detail
    assert bool(found.advice) is not ok


NAMES = {"kernel", "root", "user namespaces", "namespaces", "mounts", "tmpfs", "pidfd", "seccomp", "cgroups", "memory limit", "cpu limit"}
NAMES |= {"pids limit", "freeze and kill", "egress", "open files", "kvm"}


def traces() -> dict[str, object]:
    groups = [str(path) for path in Path("/sys/fs/cgroup").rglob("lambent-probe-*")]
    return {
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "interfaces": socket.if_nameindex(),
        "groups": [path for path in groups if path.endswith(f"-{os.getpid()}")],
        "children": Path(f"/proc/self/task/{os.getpid()}/children").read_text(),
        "descriptors": sorted(os.listdir("/proc/self/fd")),
    }


def test_this_machine_and_nothing_left_on_it() -> None:
    for _ in range(10):  # other servers of this machine come and go; what is left behind is left every time
        before = traces()
        findings = detect.detect()
        after = traces()
        if after == before:
            break
    assert after == before
    assert {finding.name for finding in findings} == NAMES
    assert len(findings) == len(NAMES)
    for finding in findings:
        assert finding.detail, finding
        assert bool(finding.advice) is not finding.ok, finding


def test_an_unprivileged_user_is_told_what_to_do() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")

    def as_nobody() -> str:
        os.setgroups([])
        os.setresgid(detect.NOBODY, detect.NOBODY, detect.NOBODY)
        os.setresuid(detect.NOBODY, detect.NOBODY, detect.NOBODY)
        return "\n".join(f"{finding.ok}|{finding.name}|{finding.advice}" for finding in detect.detect())

    tried = attempt(as_nobody)
    assert tried.ok, tried.detail
    rows = {line.split("|")[1]: line for line in tried.detail.splitlines()}
    assert rows["root"].startswith("False|root|run as root")
    assert rows["egress"].startswith("False|egress|")
    assert "need root" in rows["egress"]


def test_a_failed_attempt_says_why() -> None:
    def refuse() -> str:
        raise PermissionError(1, "Operation not permitted", "/proc/secret")

    def die() -> str:
        os.kill(os.getpid(), 9)
        return ""

    def hang() -> str:
        while True:
            os.read(reader, 1)

    reader, writer = os.pipe()
    try:
        assert (attempt(refuse).ok, attempt(refuse).detail) == (False, "/proc/secret: Operation not permitted")
        assert attempt(die).detail == "killed by signal 9"
        assert attempt(hang, seconds=0.05).detail == "no answer within 0.05 s"
        assert attempt(lambda: "fine") == attempt(lambda: "fine")
        assert attempt(lambda: "fine").detail == "fine"
    finally:
        os.close(reader)
        os.close(writer)
