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
LEFT_BEHIND = ("python3.8", "python3.9")  # the newest boto3 no longer supports these: they get packages of their own


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
    _prepare_old_runtimes(python, folder)
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


def _prepare_old_runtimes(python: str, folder: str) -> None:
    """boto3 for the interpreters that the newest boto3 left behind; functions run without it where this fails."""
    target = os.path.join(folder, "share", "lambent", "packages")
    missing = [name for name in LEFT_BEHIND if not os.path.isdir(os.path.join(target, name))]
    present = [name for name in missing if _works([name, "-c", "pass"])]
    if present and subprocess.call([python, "-m", "lambent.runtimes.prepare", target, *present]) != 0:
        print(f"Without boto3 for {', '.join(present)}: functions on them start, but cannot import it", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
