"""Install the Debian packages that tests need, where this may be done; say what is missing where it may not.

The list is ``debian-packages.txt``. Nothing is installed that is already there, without root, or without apt-get; nothing fails, since
every test that needs a package skips itself with the reason.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).with_name("debian-packages.txt")


@dataclass(frozen=True)
class Package:
    """A line of the list: the package, a command or file (a pattern) that it brings, and what goes untested without it."""

    name: str
    command: str
    purpose: str

    def present(self) -> bool:
        if self.command.startswith("/"):
            return bool(glob.glob(self.command))
        return shutil.which(self.command, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def wanted() -> list[Package]:
    lines = (line.strip() for line in LIST.read_text().splitlines())
    return [Package(*line.split(None, 2)) for line in lines if line and not line.startswith("#")]


def install() -> list[str]:
    """Install what is missing. Gives a line for each package that is still missing: name, purpose, why."""
    missing = [package for package in wanted() if not package.present()]
    if not missing:
        return []
    refusal = _refusal()
    if not refusal:
        names = [package.name for package in missing]
        print(f"Installing Debian packages: {' '.join(names)}", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *names]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            subprocess.run(["apt-get", "update", "-q"], env=environment, capture_output=True, check=False)
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        refusal = errors[-1] if errors else f"apt-get ended with {done.returncode}"
    return [f"{package.name} ({package.purpose}): {refusal}" for package in missing if not package.present()]


def _refusal() -> str:
    if shutil.which("apt-get") is None:
        return "no apt-get on this machine"
    if os.geteuid() != 0:
        return "not root; install it yourself"
    return ""


if __name__ == "__main__":
    for line in install():
        print(f"missing: {line}")
    sys.exit(0)
