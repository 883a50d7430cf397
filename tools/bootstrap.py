"""Make the virtual environment that everything else runs in: ``python3 -m tools.bootstrap FOLDER``.

Runs under whatever ``python3`` the machine has, before anything is installed, so it uses the standard library only and no syntax younger
than Python 3.7: an interpreter that is too old should be told so in words, not by a SyntaxError.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

OLDEST = (3, 11)
NEWEST = 14


def main(arguments: list[str]) -> int:
    """Create or complete the environment in the given folder; gives the exit code."""
    folder = arguments[0]
    python = os.path.join(folder, "bin", "python")
    if not _works([python, "-c", "import pip"]):
        host = _find_python()
        if host is None:
            print(f"Lambent needs Python {OLDEST[0]}.{OLDEST[1]} or newer; set PYTHON=/path/to/python", file=sys.stderr)
            return 1
        _create(host, folder)
    print(f"Installing the dependencies into {folder} ...", flush=True)
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", "constraints.txt"]
    if subprocess.call([*pip, "-e", ".[dev]"]) != 0:
        print("pip could not install the dependencies; its message stands above", file=sys.stderr)
        return 1
    _prepare_runtimes(python)
    return 0


def _works(command: list[str]) -> bool:
    try:
        return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def _find_python() -> str | None:
    """The interpreter that runs this, or a newer one on the PATH where this one is too old."""
    if sys.version_info[:2] >= OLDEST:
        return sys.executable
    for minor in range(NEWEST, OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found and _works([found, "-c", "pass"]):
            return found
    return None


def _create(host: str, folder: str) -> None:
    """Make the environment; on Debian that needs python3-venv, which is fetched where that is allowed."""
    if subprocess.call([host, "-m", "venv", folder]) == 0:
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("Python's venv module is missing here: installing python3-venv", flush=True)
        subprocess.call(["apt-get", "update", "-q"], stdout=subprocess.DEVNULL)
        subprocess.call(["apt-get", "install", "-y", "-q", "--no-install-recommends", "python3-venv"], stdout=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)
        if subprocess.call([host, "-m", "venv", folder]) == 0:
            return
    sys.exit("cannot make a virtual environment: install Python's venv module (Debian: apt-get install python3-venv)")


def _prepare_runtimes(python: str) -> None:
    """boto3 for the interpreters that the newest boto3 left behind; functions on those run without it where it cannot be fetched."""
    if subprocess.call([python, "-m", "lambent.runtimes.prepare"]) != 0:
        print("Some runtimes have no boto3: functions on them start, but cannot import it", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
