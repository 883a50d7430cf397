"""One interpreter on this machine: what it is, and how to ask it.

A path tells little: it may be a shim, a virtual environment, another implementation or a wrong version. So each candidate is asked once,
by running it without site packages (about 20 ms), and what it says of itself is believed.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

_QUESTION = """
import os, sys
library = os.path.dirname(os.__file__)
shared = ""
try:
    with open("/proc/self/maps") as maps:
        for line in maps:
            if "/libpython" in line:
                shared = os.path.dirname(line.split(None, 5)[5].strip())
                break
except OSError:
    pass
import json
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": list(sys.version_info),
    "prefix": sys.prefix,
    "virtual": sys.prefix != sys.base_prefix or os.path.exists(os.path.join(os.path.dirname(sys.executable), "..", "pyvenv.cfg")),
    "abiflags": sys.abiflags,
    "complete": os.path.isfile(os.path.join(library, "decimal.py")),
    "shared": shared,
}))
"""
_DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A CPython that Lambent can run functions with. Paths are on the host, links resolved."""

    runtime: str  # "python3.12"
    executable: str
    prefix: str
    version: tuple[int, int, int]
    is_system: bool  # the prefix is /usr
    shared_library: str = ""  # the folder of libpython, if the executable links to it
    release: str = "final"  # or "alpha", "beta", "candidate"
    abiflags: str = ""  # "t" is free-threaded, "d" a debug build

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def inner_executable(self) -> str:
        """The path inside a sandbox, where ``prefix`` is ``/var/lang``."""
        return self.executable if self.is_system else "/var/lang" + self.executable[len(self.prefix) :]

    def preference(self) -> tuple[bool, bool, tuple[int, int, int], bool]:
        """The greatest is chosen: an ordinary build, released, of the newest patch, of the system."""
        return (not self.abiflags, self.release == "final", self.version, self.is_system)


def is_program(path: str) -> bool:
    """Is ``path`` a compiled program? Version managers put scripts ("shims") in the place of interpreters."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def ask(executables: Iterable[str]) -> dict[str, Interpreter | str]:
    """Ask all at once; for each the interpreter that it is, or the reason why it is none that Lambent can use. Blocks."""
    running: list[tuple[str, subprocess.Popen[bytes] | None]] = []
    for executable in executables:
        running.append((executable, _start(executable)))
    return {executable: _answer(executable, process) for executable, process in running}


def _start(executable: str) -> subprocess.Popen[bytes] | None:
    try:
        return subprocess.Popen(
            [executable, "-I", "-S", "-B", "-c", _QUESTION],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
        )
    except OSError:
        return None


def _answer(executable: str, process: subprocess.Popen[bytes] | None) -> Interpreter | str:
    if process is None:
        return "it cannot be executed"
    try:
        output, _ = process.communicate(timeout=_DEADLINE_S)
        said = json.loads(output)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"it did not answer within {_DEADLINE_S:.0f} s"
    except ValueError:
        return "it does not run Python 3 code"
    if said["implementation"] != "cpython":
        return f"it is {said['implementation']}, not CPython"
    if said["virtual"]:
        return "it belongs to a virtual environment"
    if not said["complete"]:
        return "its standard library is incomplete"
    major, minor, micro, release = said["version"][:4]
    return Interpreter(
        runtime=f"python{major}.{minor}",
        executable=executable,
        prefix=said["prefix"],
        version=(major, minor, micro),
        is_system=said["prefix"] == "/usr",
        shared_library=said["shared"],
        release=release,
        abiflags=said["abiflags"],
    )
