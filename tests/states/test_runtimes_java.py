"""Which Java runs a runtime, with made-up homes; and the client that is compiled once."""

from __future__ import annotations

import os
import platform

import pytest

from lambent.runtimes import java, java_client
from lambent.runtimes.java_machines import Machine, ask, machines, major
from lambent.runtimes.plan import RuntimePlan

COMPILERS = [machine for group in machines((), os.environ) for machine in group if machine.compiler]


def home(folder, version="17.0.9", *, release=True, compiler=False, says="", **facts):
    """A folder that looks like a home. Its ``java`` is an ELF file by its first bytes only, unless it is to say something."""
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin" / "java"
    program.write_bytes(b"\x7fELF" if not says else f"#!/bin/sh\ncat >&2 <<'END'\n{says}\nEND\n".encode())
    program.chmod(0o755)
    if compiler:
        (folder / "bin" / "javac").write_bytes(b"\x7fELF")
        (folder / "bin" / "javac").chmod(0o755)
    if release:
        lines = {"JAVA_VERSION": version, "IMPLEMENTOR": "Somebody", **facts}
        (folder / "release").write_text("".join(f'{name}="{value}"\n' for name, value in lines.items()))
    return folder


@pytest.fixture
def nothing(monkeypatch):
    """No Java but the configured."""
    monkeypatch.setattr("lambent.runtimes.search._patterns", lambda environ, habitat: environ.get("PATH", "").split(":"))


@pytest.fixture
def unmade(monkeypatch, tmp_path):
    """Nothing compiled yet, and room for it."""
    monkeypatch.setattr(java_client, "default_folder", lambda: tmp_path / "packages")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "packages" / "java"


@pytest.mark.parametrize(
    ("text", "number"),
    [("1.8.0_452", 8), ("11.0.22", 11), ("17.0.15", 17), ("25", 25), ("26-ea", 26), ("21.0.1+12", 21), ("", 0), ("x", 0)],
)
def test_feature_releases(text, number):
    assert major(text) == number


def test_what_a_home_says(tmp_path):
    machine = ask(str(home(tmp_path / "a", "17.0.9", compiler=True) / "bin" / "java"))
    assert machine == Machine(str(tmp_path / "a"), "17.0.9", "Somebody")
    assert machine.compiler == str(tmp_path / "a" / "bin" / "javac")
    inner = home(tmp_path / "eight" / "jre", release=False)
    home(tmp_path / "eight", "1.8.0_452", compiler=True)
    eight = ask(str(inner / "bin" / "java"))
    assert (eight.major, eight.home) == (8, str(inner))
    assert eight.compiler == str(tmp_path / "eight" / "bin" / "javac")
    silent = home(tmp_path / "silent", release=False, says="    java.version = 11.0.2\n    os.arch = " + platform.machine())
    assert ask(str(silent / "bin" / "java")).major == 11


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"OS_ARCH": "sparc"}, "it is made for sparc"),
        ({"JVM_VARIANT": "Openj9"}, "it is OpenJ9, and AWS runs HotSpot"),
        ({"JAVA_VERSION": "x"}, "it does not answer as a Java virtual machine does"),
    ],
)
def test_what_is_of_no_use(tmp_path, facts, why):
    assert ask(str(home(tmp_path / "a", **facts) / "bin" / "java")) == why


def test_something_else_that_is_called_java(tmp_path):
    odd = home(tmp_path / "a", release=False, says="coffee")
    assert ask(str(odd / "bin" / "java")) == "it does not answer as a Java virtual machine does"


def test_a_missing_release_is_told_with_what_there_is(nothing, tmp_path):
    home(tmp_path / "jdk-17")
    home(tmp_path / "jdk-25", "25.0.1")
    answer = java.find("java21", [str(tmp_path)], {})
    assert isinstance(answer, str)
    assert "no Java 21 on this machine for runtime java21; it has Java 17, 25." in answer
    assert "it has" not in java.find("java8.al2", [], {})


def test_without_a_compiler_there_is_no_client(nothing, unmade, tmp_path):
    home(tmp_path / "jre-17")
    assert "there is no javac on this machine" in java.find("java17", [str(tmp_path / "jre-17")], {})


def made_up(monkeypatch, tmp_path):
    """A client and an archive that need no Java."""
    monkeypatch.setattr(java_client, "jar", lambda machines: tmp_path / "lambent.jar")
    monkeypatch.setattr(java_client, "archive", lambda client, machine: tmp_path / "x.jsa" if machine.major >= 11 else None)


def test_the_newest_update_is_chosen_and_the_settings_come_first(nothing, monkeypatch, tmp_path):
    made_up(monkeypatch, tmp_path)
    for name, version in (("a", "17.0.9"), ("b", "17.0.10"), ("c", "21.0.1")):
        home(tmp_path / "many" / name, version)
    home(tmp_path / "chosen", "17.0.1")
    environ = {"JAVA_HOME": str(tmp_path / "many" / "a"), "JAVA_HOME_17_X64": str(tmp_path / "many" / "b"), "PATH": ""}
    plan = java.find("java17", [], environ)
    assert (plan.prefix, plan.version) == (str(tmp_path / "many" / "b"), "17.0.10")
    assert java.find("java17", [str(tmp_path / "chosen")], environ).version == "17.0.1"
    assert java.find("java17", [str(tmp_path / "chosen" / "bin" / "java")], environ).version == "17.0.1"
    assert java.find("java21", [str(tmp_path / "chosen"), str(tmp_path / "many")], {}).version == "21.0.1"


def test_another_release_on_purpose(nothing, monkeypatch, tmp_path):
    made_up(monkeypatch, tmp_path)
    other = home(tmp_path / "25", "25.0.1")
    for entry in (f"java21={other}", f"java21={other}/bin/java"):
        plan = java.find("java21", [entry], {})
        assert (plan.runtime, plan.version, plan.prefix) == ("java21", "25.0.1", str(other))
    assert "names /nowhere for java21, but there is no such file" in java.find("java21", ["java21=/nowhere"], {})


def test_the_plan(nothing, monkeypatch, tmp_path):
    made_up(monkeypatch, tmp_path)
    plan = java.find("java17", [str(home(tmp_path / "17"))], {})
    assert isinstance(plan, RuntimePlan)
    assert plan.transport == "frames"
    assert dict(plan.runtime_dir) == {"lambent.jar": str(tmp_path / "lambent.jar"), "lambent.jsa": str(tmp_path / "x.jsa")}
    flags = dict(plan.files)["lambent.flags"].decode().split()
    assert {"+UseSerialGC", "TieredStopAtLevel=1", "MaxRAMPercentage=85.0", "SharedArchiveFile=/var/runtime/lambent.jsa"} <= set(flags)
    command = plan.command(256)
    assert command[0] == "/var/lang/bin/java"
    assert "-XX:MaxRAM=256m" in command
    assert command[-2:] == ("-jar", "../runtime/lambent.jar")
    assert plan.warm[-1] == "--warm"
    assert "-XX:MaxRAM={memory_mb}m" in plan.warm
    assert plan.wrapped_command(128)[-2:] == ("-jar", "/var/runtime/lambent.jar")


def test_old_machines_get_only_what_they_know(nothing, monkeypatch, tmp_path):
    made_up(monkeypatch, tmp_path)
    eight = java.find("java8.al2023", [str(home(tmp_path / "8", "1.8.0_452"))], {})
    assert not any(option.startswith("-Xlog") for option in eight.argv)
    assert b"SharedArchiveFile" not in dict(eight.files)["lambent.flags"]
    assert b"TieredStopAtLevel" not in dict(eight.files)["lambent.flags"]
    eleven = java.find("java11", [str(home(tmp_path / "11", "11.0.2"))], {})
    assert "-Xlog:cds=off" in eleven.argv
    assert b"SharedArchiveFile" in dict(eleven.files)["lambent.flags"]
    assert (eight.warm, eleven.warm) == ((), ())


@pytest.mark.skipif(not COMPILERS, reason="this machine has no JDK")
def test_the_client_is_compiled_once_and_anew_for_other_sources(unmade, monkeypatch, tmp_path):
    first = java_client.jar(COMPILERS)
    assert first.parent.parent.parent == unmade
    assert first.stat().st_mode & 0o777 == 0o644
    made = first.stat().st_mtime_ns
    assert java_client.jar([]) == first  # no compiler is needed any more
    assert first.stat().st_mtime_ns == made
    sources = tmp_path / "sources"
    (sources / "lambent" / "runtime").mkdir(parents=True)
    (sources / "lambent" / "runtime" / "Main.java").write_text("package lambent.runtime; class Main { }")
    monkeypatch.setattr(java_client, "SOURCES", sources)
    java_client._identity.cache_clear()
    try:
        second = java_client.jar(COMPILERS)
        assert second != first
        assert second.is_file()
        (sources / "lambent" / "runtime" / "Main.java").write_text("nonsense")
        java_client._identity.cache_clear()
        answer = java_client.jar(COMPILERS)
        assert isinstance(answer, str)
        assert "could not compile its client" in answer
        assert "Main.java:1: error" in answer
        assert sorted(path.name for path in unmade.iterdir() if path.name.startswith(".")) == []
    finally:
        java_client._identity.cache_clear()


@pytest.mark.skipif(not COMPILERS, reason="this machine has no JDK")
def test_where_the_installation_cannot_be_written_the_cache_of_the_user_is_used(unmade, tmp_path):
    unmade.parent.mkdir()
    unmade.write_text("a file is in the way")
    assert java_client.jar(COMPILERS).is_relative_to(tmp_path / "cache" / "lambent" / "java")


@pytest.mark.skipif(not COMPILERS, reason="this machine has no JDK")
def test_archives_are_made_once_for_each_machine(unmade, monkeypatch):
    client = java_client.jar(COMPILERS)
    machine = COMPILERS[-1]
    archive = java_client.archive(client, machine)
    assert archive.stat().st_size > 1_000_000
    made = archive.stat().st_mtime_ns
    assert java_client.archive(client, machine) == archive
    assert archive.stat().st_mtime_ns == made
    assert java_client.archive(client, Machine(machine.home, "1.8.0_452")) is None
    broken = Machine("/nowhere", "17.0.1")
    assert java_client.archive(client, broken) is None
