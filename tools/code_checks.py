"""Rules of the house that no ready-made tool knows. Each function gives a line per complaint."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

TOP = Path(__file__).parent.parent
SOURCE = TOP / "src" / "lambent"
LINES_OF_MODULE = 600
LINES_OF_FUNCTION = 50
IMPURE = {"asyncio", "logging", "os", "random", "secrets", "socket", "subprocess", "threading", "time", "uuid"}
# What runs inside a sandbox or in the launcher has no event loop and so no Clock.
BESIDE_THE_NODE = ("runtimes/", "runtime_api/python_client.py", "sandbox/", "clock.py")
SHARED_FOLDERS = {"/", "/home", "/opt", "/root", "/srv", "/tmp", "/usr/src", "/var/tmp", tempfile.gettempdir(), str(Path.home())}


def small_rooms() -> list[str]:
    """A module has at most 600 lines, a function at most 50, docstring not counted."""
    found = []
    for path in _sources():
        text = path.read_text()
        count = len(text.splitlines())
        if count > LINES_OF_MODULE:
            found.append(f"{path.relative_to(TOP)}: {count} lines, at most {LINES_OF_MODULE}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = _length(node)
                if length > LINES_OF_FUNCTION:
                    found.append(f"{path.relative_to(TOP)}:{node.lineno}: {node.name} has {length} lines, at most {LINES_OF_FUNCTION}")
    return found


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is not None:
        first = node.body[0]
        length -= (first.end_lineno or first.lineno) - first.lineno + 1
    return length


def pure_machines() -> list[str]:
    """A ``*_state.py`` imports nothing that reaches the world outside."""
    found = []
    for path in sorted(SOURCE.rglob("*_state.py")):
        for module, line in _imports(path):
            if module.split(".")[0] in IMPURE:
                found.append(f"{path.relative_to(TOP)}:{line}: a state machine imports {module}")
    return found


def one_clock() -> list[str]:
    """In the node only ``clock.py`` knows ``time``; everybody else is given a ``Clock``."""
    found = []
    for path in _sources():
        name = path.relative_to(SOURCE).as_posix()
        if not name.startswith(BESIDE_THE_NODE):
            found += [f"{path.relative_to(TOP)}:{line}: imports time; take a Clock" for module, line in _imports(path) if module == "time"]
    return found


def test_names() -> list[str]:
    """No two modules below ``tests/`` have the same name: pytest would import the first and refuse the second."""
    places: dict[str, list[str]] = {}
    for path in sorted((TOP / "tests").rglob("*.py")):
        if path.name != "conftest.py":
            places.setdefault(path.name, []).append(str(path.relative_to(TOP)))
    return [f"the same name: {', '.join(paths)}" for paths in places.values() if len(paths) > 1]


def no_traces_of_this_machine() -> list[str]:
    """No tracked file names a folder of the machine at hand or the host of a package registry."""
    patterns = [re.compile(rf"(?<![\w/}}]){re.escape(text)}") for text in _local_folders()]
    patterns += [re.compile(rf"\b{re.escape(host)}\b") for host in _registry_hosts()]
    patterns.append(re.compile(r"\bpy(?:pi|thonhosted)\.org\b"))
    found = []
    for name in _tracked():
        path = TOP / name
        try:
            lines = path.read_text().splitlines()
        except (UnicodeDecodeError, OSError):
            continue
        for number, line in enumerate(lines, 1):
            found += [f"{name}:{number}: {match[0]}" for match in (pattern.search(line) for pattern in patterns) if match]
    return found


def _local_folders() -> list[str]:
    top = str(TOP)
    parent = str(TOP.parent)
    folders = [top] if top.count("/") > 1 else []
    if parent not in SHARED_FOLDERS and not parent.startswith(tempfile.gettempdir()):
        folders.append(f"{parent}/")
    home = str(Path.home())
    return [*folders, f"{home}/." if home == "/root" else f"{home}/"]  # every machine has a /root; what attacks try to read may stand there


def _registry_hosts() -> list[str]:
    """Hosts that pip is told to fetch from, in its environment or configuration."""
    done = subprocess.run(["pip", "config", "list"], capture_output=True, text=True, check=False)
    words = done.stdout + " ".join(value for name, value in os.environ.items() if name.endswith("INDEX_URL"))
    hosts = {urlsplit(url.strip("'\"")).hostname for url in re.findall(r"https?://[^\s'\"]+", words)}
    return sorted(host for host in hosts if host and host not in {"localhost", "127.0.0.1"})


def _tracked() -> list[str]:
    done = subprocess.run(["git", "-C", str(TOP), "ls-files", "-z"], capture_output=True, text=True, check=False)
    return [name for name in done.stdout.split("\0") if name]


def _sources() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno
