"""A folder becomes the zip file that Lambda takes, byte for byte the same whenever the files are the same.

Determinism matters because code identity is the hash of the zip: deploying an unchanged folder must change nothing. So entries are
sorted, times are fixed, and of the permissions only "executable or not" is kept.

``.lambdaignore`` in the folder holds one glob a line, against the path below the folder or any of its parts; ``#`` starts a comment.
What nobody wants in a function is left out anyway (``ALWAYS_IGNORED``).
"""

from __future__ import annotations

import ast
import fnmatch
import io
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from lambent.cli.screen import Trouble

ALWAYS_IGNORED = (
    "__pycache__",
    "*.pyc",
    ".git",
    ".hg",
    ".svn",
    ".venv",
    "venv",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".DS_Store",
    ".lambent",
    ".lambdaignore",
)
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip file can hold
_MODULES = ("lambda_function", "handler", "app", "main", "index", "function")
_FUNCTIONS = ("lambda_handler", "handler", "handle", "main")
_NEWEST = (3, 14)


def bundle(folder: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> bytes:
    """Zip ``folder``. ``progress`` hears of bytes read and bytes in all. Raises ``Trouble`` for a folder with nothing to deploy."""
    files = sorted(_files(folder))
    if not files:
        raise Trouble(f"{folder} holds no files to deploy")
    total = sum((folder / name).stat().st_size for name in files)
    done = 0
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in files:
            path = folder / name
            content = path.read_bytes()
            archive.writestr(entry(name, os.access(path, os.X_OK)), content)
            done += len(content)
            progress(done, total)
    return memory.getvalue()


def entry(name: str, executable: bool) -> zipfile.ZipInfo:
    """How a file stands in our zip files, whatever its times and owner."""
    info = zipfile.ZipInfo(name, _LONG_AGO)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3  # Unix: the permissions below count
    info.external_attr = (0o100755 if executable else 0o100644) << 16
    return info


def ignored_patterns(folder: Path) -> tuple[str, ...]:
    """Globs of what is left out of ``folder``."""
    return (*ALWAYS_IGNORED, *_ignore_file(folder / ".lambdaignore"))


def _files(folder: Path) -> Iterator[str]:
    patterns = ignored_patterns(folder)
    for parent, folders, names in os.walk(folder, followlinks=True):
        below = os.path.relpath(parent, folder)
        prefix = "" if below == "." else f"{below}/"
        folders[:] = [name for name in folders if not ignored(prefix + name, patterns)]
        for name in names:
            if (Path(parent) / name).is_file() and not ignored(prefix + name, patterns):
                yield prefix + name


def _ignore_file(path: Path) -> list[str]:
    if not path.is_file():
        return []
    lines = (line.strip() for line in path.read_text().splitlines())
    return [line.rstrip("/") for line in lines if line and not line.startswith("#")]


def ignored(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether ``name``, a path below the folder, is one that ``patterns`` leave out; the folders above it are the caller's to ask for."""
    last = name.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatchcase(last, pattern) or fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def guess_runtime(folder: Path) -> str:
    """provided.al2023 where there is a ``bootstrap``; ``.python-version`` of the folder; else this interpreter's version."""
    if (folder / "bootstrap").is_file():
        return "provided.al2023"
    pinned = folder / ".python-version"
    if pinned.is_file():
        parts = pinned.read_text().strip().split(".")
        if len(parts) >= 2 and parts[0] == "3" and parts[1].isdigit():
            return f"python3.{parts[1]}"
    major, minor = min(sys.version_info[:2], _NEWEST)
    return f"python{major}.{minor}"


def guess_handler(folder: Path) -> str:
    """``module.function`` of the likeliest entry point. Raises ``Trouble`` where nothing looks like one."""
    if (folder / "bootstrap").is_file():
        return "bootstrap"
    modules = {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem.isidentifier()}
    ordered = [name for name in _MODULES if name in modules] + [name for name in modules if name not in _MODULES]
    for module in ordered:
        defined = _two_argument_functions(modules[module])
        for function in _FUNCTIONS:
            if function in defined:
                return f"{module}.{function}"
        if len(defined) == 1 and len(ordered) == 1:
            return f"{module}.{defined[0]}"
    raise Trouble(f"cannot tell which function of {folder} is the handler: name it with --handler module.function")


def _two_argument_functions(path: Path) -> list[str]:
    """Names of top-level functions that can be called with (event, context), and of top-level assignments to handler-like names."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise Trouble(f"{path} is not valid Python: {error}") from error
    found: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            positional = len(node.args.posonlyargs) + len(node.args.args)
            if positional - len(node.args.defaults) <= 2 and (positional >= 2 or node.args.vararg):
                found.append(node.name)
        elif isinstance(node, ast.Assign):
            found += [target.id for target in node.targets if isinstance(target, ast.Name) and target.id in _FUNCTIONS]
    return found
