"""Java virtual machines on this computer: where they lie, and what each says of itself.

A virtual machine is a *home*, a folder with ``bin/java`` in it. Most homes hold a file ``release`` that tells their version, their maker
and the processor they are made for, which takes no time to read; a home without one is asked by running it (40 ms), once.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lambent.runtimes.search import Habitat, candidates

JAVA = Habitat(
    managers=(
        ".sdkman/candidates/java",
        ".jenv/versions",
        ".asdf/installs/java",
        ".local/share/mise/installs/java",
        ".local/share/rtx/installs/java",
        ".jdks",
        ".jabba/jdk",
    ),
    roots=(
        ("SDKMAN_DIR", "candidates/java"),
        ("JENV_ROOT", "versions"),
        ("ASDF_DATA_DIR", "installs/java"),
        ("MISE_DATA_DIR", "installs/java"),
    ),
    prefixes=(),
    folders=(
        "/usr/lib/jvm/*/bin",
        "/usr/lib/jvm/*/jre/bin",
        "/usr/java/*/bin",
        "/opt/java/bin",
        "/opt/java/*/bin",
        "/opt/jdk*/bin",
        "/opt/*/jdk*/bin",
        "/usr/bin",
        "/usr/local/bin",
        "/home/linuxbrew/.linuxbrew/opt/openjdk*/bin",
    ),
    nests=("*/*/bin",),
    own=("java",),
)
_DEADLINE_S = 10.0
_PROCESSORS = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Machine:
    """One Java virtual machine. ``home`` is on the host, links resolved."""

    home: str
    version: str  # "17.0.15", "1.8.0_452"
    maker: str = ""

    @property
    def major(self) -> int:
        """8, 11, 17, ..."""
        return major(self.version)

    @property
    def executable(self) -> str:
        return os.path.join(self.home, "bin", "java")

    @property
    def compiler(self) -> str | None:
        """Its ``javac``, if this is more than a machine to run programs. That of Java 8 may stand one folder up."""
        for folder in (self.home, os.path.dirname(self.home)):
            path = os.path.join(folder, "bin", "javac")
            if os.access(path, os.X_OK) and (folder == self.home or os.path.basename(self.home) == "jre"):
                return path
        return None

    def preference(self) -> tuple[tuple[int, ...], bool]:
        """The greatest is chosen: the newest update, one that can compile."""
        return (_numbers(self.version), self.compiler is not None)


def major(version: str) -> int:
    """The feature release of a version text; 0 where there is none in it."""
    numbers = _numbers(version)
    return numbers[1] if numbers[:1] == (1,) and len(numbers) > 1 else numbers[0] if numbers else 0


def machines(configured: Sequence[str], environ: Mapping[str, str]) -> tuple[list[Machine], list[Machine]]:
    """Those from the settings, and those found. Blocks."""
    homes = [environ[name] for name in sorted(environ) if name.startswith("JAVA_HOME") and environ[name]]
    path = os.pathsep.join([*(os.path.join(home, "bin") for home in homes), environ.get("PATH", "")])
    chosen, found = candidates("java", configured, {**environ, "PATH": path}, JAVA)
    return _answers(chosen), _answers(found)


def ask(executable: str) -> Machine | str:
    """What a ``java`` is, or why it is of no use here."""
    home = os.path.dirname(os.path.dirname(os.path.realpath(executable)))
    facts = _release(home) or _release(os.path.dirname(home) if os.path.basename(home) == "jre" else home) or _said(executable)
    version = facts.get("JAVA_VERSION", "")
    if not major(version):
        return "it does not answer as a Java virtual machine does"
    processor = facts.get("OS_ARCH", "")
    if processor and _PROCESSORS.get(processor, processor) != _PROCESSORS.get(platform.machine(), platform.machine()):
        return f"it is made for {processor}"
    if "openj9" in (facts.get("JVM_VARIANT", "") + facts.get("JVM_NAME", "")).lower():
        return "it is OpenJ9, and AWS runs HotSpot"
    return Machine(home, version, facts.get("IMPLEMENTOR", ""))


def _answers(executables: Iterable[str]) -> list[Machine]:
    answers = {os.path.dirname(os.path.dirname(path)): ask(path) for path in executables}
    return [answer for answer in answers.values() if isinstance(answer, Machine)]


def _release(home: str) -> dict[str, str]:
    try:
        with open(os.path.join(home, "release"), encoding="utf-8", errors="replace") as file:
            pairs = [line.strip().partition("=") for line in file]
    except OSError:
        return {}
    facts = {name: value.strip('"') for name, equals, value in pairs if equals}
    return facts if facts.get("JAVA_VERSION") else {}


def _said(executable: str) -> dict[str, str]:
    """The same facts from the machine itself."""
    try:
        answer = subprocess.run(
            [executable, "-XshowSettings:properties", "-version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_DEADLINE_S,
            env={},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    names = {"java.version": "JAVA_VERSION", "os.arch": "OS_ARCH", "java.vm.name": "JVM_NAME", "java.vendor": "IMPLEMENTOR"}
    pairs = [line.strip().partition(" = ") for line in answer.stderr.decode(errors="replace").splitlines()]
    return {names[name]: value for name, equals, value in pairs if equals and name in names}


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.partition("-")[0].partition("+")[0].replace("_", ".").split(".")
    return tuple(int(part) for part in parts if part.isdigit())
