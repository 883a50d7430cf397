"""Node.js: which ``node`` on this machine runs ``nodejs22.x``, and with what it is started.

All that is called ``node`` in the usual places, in ``[sandbox] interpreters`` and in ``[sandbox] packages`` (where packages of npm and PyPI
bring one along, ``search.py``) is asked once what it is; the name of a runtime stands for a major version. The client that it runs is ours
(``runtime_api/node_client``), bound at ``/var/runtime``; the AWS SDK for JavaScript is a folder ``node_modules``, prepared or configured,
and functions find it in ``NODE_PATH`` as on AWS.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lambent.runtimes.packages import default_folder
from lambent.runtimes.plan import RuntimePlan
from lambent.runtimes.search import NODE, candidates

CLIENT = Path(__file__).resolve().parent.parent / "runtime_api" / "node_client"
CLIENT_NAME = "lambent_node_client"
RUNTIME_DIR = "/var/runtime"
OPTIONS = ("--expose-gc", "--max-http-header-size=81920")  # as AWS starts it

# ES modules do not look into NODE_PATH, but into the node_modules of every folder above them: so the layers' and the runtime's are there.
LINKS = (("var/node_modules", "/opt/nodejs/node_modules"), ("node_modules", f"{RUNTIME_DIR}/node_modules"))

_QUESTION = "JSON.stringify({node: process.versions.node, release: process.release.name, arch: process.arch})"
_DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Node:
    """One ``node``. Paths are on the host, links resolved."""

    executable: str
    version: tuple[int, int, int]
    is_preview: bool = False

    @property
    def prefix(self) -> str:
        """The folder that is seen as ``/var/lang``, or ``/usr``."""
        if self.executable.startswith("/usr/") and not self.executable.startswith("/usr/local/"):
            return "/usr"
        folder = os.path.dirname(self.executable)
        return os.path.dirname(folder) if os.path.basename(folder) == "bin" else folder

    @property
    def inner_executable(self) -> str:
        return self.executable if self.prefix == "/usr" else "/var/lang" + self.executable[len(self.prefix) :]

    def preference(self) -> tuple[bool, tuple[int, int, int], bool]:
        """The greatest is chosen: released, newest, the system's own."""
        return (not self.is_preview, self.version, self.prefix == "/usr")


_asked: dict[tuple[str, int], Node | str] = {}  # (program, mtime ns)
_lock = threading.Lock()


def find(runtime: str, configured: Sequence[str], environ: Mapping[str, str]) -> RuntimePlan | str:
    """A finder of the catalogue. ``configured`` are programs and folders, and folders of prepared packages. Blocks."""
    major = int(runtime.removeprefix("nodejs").removesuffix(".x"))
    node = _choose(major, (*configured, str(default_folder())), environ)
    if node is None:
        return (
            f"Lambent found no Node.js {major} on this machine for runtime {runtime}: install it (nvm install {major}, or "
            f"`python -m lambent.runtimes.prepare {runtime}`), or name it under [sandbox] interpreters."
            + "".join(f" Passed over: {program}: {reason}." for program, reason in _refused((*configured, str(default_folder())), environ))
        )
    modules = sdk_folder(runtime, configured)
    return RuntimePlan(
        runtime=runtime,
        version=".".join(map(str, node.version)),
        transport="frames",
        prefix=node.prefix,
        runtime_dir=((CLIENT_NAME, str(CLIENT)), *((("node_modules", str(modules)),) if modules else ())),
        argv=(node.inner_executable, *OPTIONS, "--max-old-space-size={memory_mb}", f"{RUNTIME_DIR}/{CLIENT_NAME}/index.cjs"),
        warm=(node.inner_executable, *OPTIONS, f"{RUNTIME_DIR}/{CLIENT_NAME}/index.cjs", "--warm"),
        links=LINKS,
        environment={"NODE_PATH": node_path(major), **_switched_off(node.version)},
    )


def _switched_off(version: tuple[int, int, int]) -> dict[str, str]:
    """What AWS switches off in these releases, since it was experimental there; ``NODE_OPTIONS`` of a function's own bring it back.

    The client takes the variable away before user code sees it. https://docs.aws.amazon.com/lambda/latest/dg/lambda-nodejs.html
    """
    options = []
    if (20, 17, 0) <= version < (24, 0, 0):
        options.append("--no-experimental-require-module")
    if version[0] == 22:
        options.append("--no-experimental-detect-module")
    return {"NODE_OPTIONS": " ".join(options)} if options else {}


def node_path(major: int, task: str = "/var/task", runtime_dir: str = RUNTIME_DIR) -> str:
    """Where ``require`` looks besides the folders above a module (contract 03 §5)."""
    folders = (f"/opt/nodejs/node{major}/node_modules", "/opt/nodejs/node_modules", f"{runtime_dir}/node_modules", runtime_dir, task)
    return ":".join(folders)


def sdk_folder(runtime: str, configured: Sequence[str] = ()) -> Path | None:
    """The ``node_modules`` that is the runtime's own: of a folder named after the runtime or ``nodejs``, prepared or configured."""
    for folder in (*map(Path, configured), default_folder()):
        for candidate in (folder, folder / runtime, folder / "nodejs"):
            modules = candidate if candidate.name == "node_modules" else candidate / "node_modules"
            if candidate.name in (runtime, "nodejs", "node_modules") and modules.is_dir() and _brings_modules(modules):
                return modules.resolve()
    return None


def _brings_modules(modules: Path) -> bool:
    """Whether there is more in it than a Node.js that npm has installed."""
    return any(not (name.startswith((".", "node-")) or name == "node") for name in os.listdir(modules))


def has_sdk(plan: RuntimePlan) -> bool:
    """Will functions find ``@aws-sdk/*``?"""
    return any(name == "node_modules" and os.path.isdir(os.path.join(path, "@aws-sdk")) for name, path in plan.runtime_dir)


def _choose(major: int, configured: Sequence[str], environ: Mapping[str, str]) -> Node | None:
    for group in candidates("node", configured, environ, NODE):
        fitting = [node for node in ask(group).values() if isinstance(node, Node) and node.version[0] == major]
        if fitting:
            return max(fitting, key=Node.preference)
    return None


def _refused(configured: Sequence[str], environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """What is called node and cannot be used for any version, and why."""
    answers = ask(program for group in candidates("node", configured, environ, NODE) for program in group)
    return [(program, answer) for program, answer in answers.items() if isinstance(answer, str)]


def ask(programs: Iterable[str]) -> dict[str, Node | str]:
    """Ask all at once what they are, each only once in the life of this process; a reason where one is no Node.js that runs here."""
    with _lock:
        keys = {program: (program, os.stat(program).st_mtime_ns) for program in programs}
        running = {program: _start(program) for program, key in keys.items() if key not in _asked}
        for program, process in running.items():
            _asked[keys[program]] = _answer(program, process)
        return {program: _asked[key] for program, key in keys.items()}


def _start(program: str) -> subprocess.Popen[bytes] | None:
    try:
        return subprocess.Popen(
            [program, "-p", _QUESTION], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={}, cwd="/"
        )
    except OSError:
        return None


def _answer(program: str, process: subprocess.Popen[bytes] | None) -> Node | str:
    if process is None:
        return "it cannot be executed"
    complaint = b""
    try:
        output, complaint = process.communicate(timeout=_DEADLINE_S)
        said = json.loads(output)
        text, is_node = str(said["node"]), said["release"] == "node"
        number, _, suffix = text.partition("-")
        major, minor, patch = map(int, number.split("."))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"it did not answer within {_DEADLINE_S:.0f} s"
    except (ValueError, KeyError, TypeError):
        if process.returncode and complaint.strip():  # the C library is too old for it, say
            return f"it does not start: {complaint.decode(errors='replace').strip().splitlines()[-1]}"
        return "it does not answer as Node.js does"
    if not is_node:
        return f"it is {said['release']}, not Node.js"
    return Node(program, (major, minor, patch), bool(suffix))
