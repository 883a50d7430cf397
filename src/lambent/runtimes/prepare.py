"""Set-up, never run time: fetch what old interpreters need, and compile what all of them share.

``python -m lambent.runtimes.prepare [DIR] [python3.8 nodejs22.x java17 @aws-sdk/client-s3 ...]`` does five
things:

* For each named runtime that the installed boto3 has left behind, it has pip put the newest boto3 that still supports it into
  ``DIR/<runtime>``. DIR is by default the folder that ``packages.py`` looks into.
* For each supported interpreter on this machine it writes the ``.pyc`` files of the shared packages. A sandbox sees them read-only, so an
  interpreter that finds none would compile boto3 anew at each start of its zygote (half a second).

* For each named ``nodejs22.x`` it has pip or npm put a Node.js of that major version into ``DIR/nodejs22.x``.
* Packages of npm go into ``DIR/nodejs/node_modules``, which all Node.js functions see at ``/var/runtime/node_modules``.
* For each named ``java17`` it compiles our client for Java functions and lays down its class archive for that virtual machine
  (``java_client.py``), into the installation or, where that cannot be written, a cache of the user's.

Without names it prepares all Python interpreters and virtual machines that it finds. ``make setup`` runs it; Lambent itself never does,
since functions must run without a network.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lambent.runtimes import fetch_node, java
from lambent.runtimes.catalogue import Catalogue
from lambent.runtimes.identifiers import FAMILIES
from lambent.runtimes.interpreter import Interpreter
from lambent.runtimes.packages import default_folder, runtime_packages, sdk_supports


def fetch_sdk(runtime: str, folder: Path, pip: Sequence[str] = (sys.executable, "-m", "pip")) -> bool:
    """Install the newest boto3 for ``runtime`` into ``folder/runtime``, unless it is there. Gives whether it is there now.

    In two steps, since ``pip download`` heeds ``--python-version`` for every package's ``Requires-Python``, and ``pip install`` only for
    what an index says of it.
    """
    target = folder / runtime
    if (target / "boto3").is_dir():
        return True
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{runtime}.") as scratch:
        wheels, unpacked = Path(scratch, "wheels"), Path(scratch, "unpacked")
        version = ["--python-version", runtime.removeprefix("python"), "--only-binary=:all:"]
        if not _pip(pip, "download", "--dest", str(wheels), *version, "boto3"):
            return False
        files = [str(path) for path in sorted(wheels.glob("*.whl"))]
        if not _pip(pip, "install", "--target", str(unpacked), "--no-index", "--no-deps", "--no-compile", *files):
            return False
        unpacked.rename(target)
    return True


def _pip(pip: Sequence[str], *arguments: str) -> bool:
    command = [*pip, "--quiet", "--quiet", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == 0


def compile_packages(interpreter: Interpreter, folders: Sequence[str] = ()) -> None:
    """Write the ``.pyc`` files of the packages that ``interpreter`` sees; those that are up to date are left alone."""
    paths = [path for _, path in runtime_packages(interpreter, folders)]
    subprocess.run([interpreter.executable, "-I", "-m", "compileall", "-q", "-q", *paths], check=False)


def main(arguments: Sequence[str]) -> int:
    """Exit status 1 if something could not be fetched; the rest is prepared all the same."""
    names = [argument for argument in arguments if argument in FAMILIES["python"]]
    nodes = [argument for argument in arguments if argument in FAMILIES["nodejs"]]
    javas = [argument for argument in arguments if argument in FAMILIES["java"]]
    modules = [argument for argument in arguments if argument.startswith("@")]
    others = [argument for argument in arguments if argument not in (*names, *nodes, *javas, *modules)]
    if len(others) > 1:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(others[0]).absolute() if others else default_folder()
    results = [_prepare_node(runtime, folder) for runtime in nodes]
    results += [_prepare_java(runtime, True) for runtime in javas]
    if modules:
        added = fetch_node.add_packages(modules, folder / "nodejs")
        print(
            ", ".join(modules) + (f" is in {folder / 'nodejs' / 'node_modules'}" if added else " could not be fetched; is npm installed?")
        )
        results.append(added)
    if not results and not names:
        for runtime in FAMILIES["java"]:
            _prepare_java(runtime, False)
    if names or not results:
        results.append(_prepare_pythons(names, folder))
    return 0 if all(results) else 1


def _prepare_node(runtime: str, folder: Path) -> bool:
    fetched = fetch_node.fetch_node(runtime, folder, (sys.executable, "-m", "pip"))
    print(f"{runtime}: " + (f"Node.js is in {folder / runtime}" if fetched else "no Node.js could be fetched"))
    return fetched


def _prepare_java(runtime: str, is_wanted: bool) -> bool:
    answer = java.find(runtime, (), os.environ)
    if is_wanted or not isinstance(answer, str):
        print(f"{runtime}: " + (answer if isinstance(answer, str) else f"the client is compiled, for {answer.prefix}"))
    return not isinstance(answer, str)


def _prepare_pythons(names: Sequence[str], folder: Path) -> bool:
    interpreters = {each.runtime: each for each in Catalogue().interpreters()}
    is_complete = True
    for runtime in names or interpreters:
        major, minor = map(int, runtime.removeprefix("python").split("."))
        if not sdk_supports((major, minor, 99)):
            folder.mkdir(parents=True, exist_ok=True)
            fetched = fetch_sdk(runtime, folder)
            print(f"{runtime}: " + (f"boto3 is in {folder / runtime}" if fetched else "boto3 could not be fetched"))
            is_complete = is_complete and fetched
        if runtime in interpreters:
            compile_packages(interpreters[runtime], [str(folder)])
    return is_complete


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
