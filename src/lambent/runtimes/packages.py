"""What a managed Python runtime brings besides the interpreter: AWS's runtime client and the AWS SDK, at ``/var/runtime``.

Both come from Lambent's own installation, whatever the interpreter: they are pure Python, and where they have a compiled part it is
optional, belongs to one interpreter version, and is not importable by the others. So one set of folders serves all interpreters, as
long as each package still supports the version.

* The runtime client (``awslambdaric`` and the simplejson that it needs) is given to every interpreter from 3.8 on. Their metadata claim
  later versions, but what the client imports runs on 3.8; ``tests/conformance/test_python_client.py`` holds it to that on every
  interpreter that the machine has.
* The SDK (boto3 and what it stands on) is given where all of it supports the version by its metadata. The newest boto3 leaves old versions
  behind; for those, ``prepare.py`` installs the last one that fits into a folder ``<packages>/python3.8`` when Lambent is set up. Without
  such a folder the runtime has no boto3, which ``lambent doctor`` reports.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from lambent.runtimes.interpreter import Interpreter

CLIENT = Path(__file__).resolve().parent.parent / "runtime_api" / "python_client.py"
CLIENT_NAME = "lambent_runtime_client.py"  # its name at /var/runtime
_BESIDE = (
    ("awslambda.py", str(CLIENT.with_name("awslambda.py"))),  # streamed responses, for the client and for functions
    ("lambent_runtime_imports.py", str(CLIENT.with_name("python_imports.py"))),
)

_CLIENT = (("awslambdaric", "awslambdaric"), ("simplejson", "simplejson"))  # (distribution, module)
_SNAPSHOT = ("snapshot-restore-py", "snapshot_restore_py")
_SDK = (
    ("boto3", "boto3"),
    ("botocore", "botocore"),
    ("s3transfer", "s3transfer"),
    ("jmespath", "jmespath"),
    ("python-dateutil", "dateutil"),
    ("urllib3", "urllib3"),
    ("six", "six"),
)
_CLAUSE = re.compile(r"(>=|<=|==|!=|~=|>|<)\s*(\d+(?:\.\d+)*)(\.\*)?")
_NOT_PACKAGES = (".egg-info", ".pth")


def default_folder() -> Path:
    """Where ``prepare.py`` puts packages, and where they are looked for unless the settings name other folders."""
    return Path(sys.prefix) / "share" / "lambent" / "packages"


def runtime_packages(interpreter: Interpreter, folders: Sequence[str] = ()) -> list[tuple[str, str]]:
    """``(name under /var/runtime, path on the host)`` of every package for ``interpreter``.

    ``folders`` are the entries of ``[sandbox] packages``: each is named after a runtime and holds packages, or holds such folders. One for
    this runtime takes the place of our own SDK.
    """
    packages = [*_BESIDE, *_own(_CLIENT)]
    if _supports(_SNAPSHOT[0], interpreter.version):
        packages += _own((_SNAPSHOT,))
    prepared = _prepared(interpreter.runtime, folders)
    if prepared is not None:
        taken = {name for name, _ in packages}
        return packages + [(name, path) for name, path in _entries(prepared) if name.partition("-")[0] not in taken]
    if sdk_supports(interpreter.version):
        packages += _own(_SDK)
    return packages


def has_sdk(interpreter: Interpreter, folders: Sequence[str] = ()) -> bool:
    """Will functions on ``interpreter`` find boto3?"""
    return any(name == "boto3" for name, _ in runtime_packages(interpreter, folders))


@cache
def sdk_supports(version: tuple[int, int, int]) -> bool:
    """Does our own boto3, with all that it needs, run on this version?"""
    return all(_supports(distribution, version) for distribution, _ in _SDK)


def satisfies(requirement: str, version: tuple[int, int, int]) -> bool:
    """Is ``version`` within a ``Requires-Python`` such as ``>=3.9, !=3.10.*``? An empty requirement allows all."""
    return all(_holds(match[1], match[2], match[3], version) for match in _CLAUSE.finditer(requirement))


def _holds(operator: str, operand: str, wildcard: str | None, version: tuple[int, int, int]) -> bool:
    wanted = tuple(map(int, operand.split(".")))
    if wildcard or operator == "~=":
        prefix = wanted if wildcard else wanted[:-1]
        same = version[: len(prefix)] == prefix
        if operator == "~=":
            return same and version >= _padded(wanted)
        return same if operator == "==" else not same
    target = _padded(wanted)
    return {
        ">=": version >= target,
        "<=": version <= target,
        ">": version > target,
        "<": version < target,
        "==": version == target,
        "!=": version != target,
    }[operator]


def _padded(numbers: tuple[int, ...]) -> tuple[int, ...]:
    return (*numbers, 0, 0)[:3]


@cache
def _requirement(distribution: str) -> str:
    return str((metadata.metadata(distribution).get_all("Requires-Python") or [""])[0])


def _supports(distribution: str, version: tuple[int, int, int]) -> bool:
    return satisfies(_requirement(distribution), version)


def _own(packages: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for distribution, module in packages:
        for path in (_location(module), _description(distribution)):
            if path is not None:
                yield path.name, str(path)


@cache
def _description(distribution: str) -> Path | None:
    """The folder that tells ``importlib.metadata`` which version this is; on AWS it lies beside the package, and tracers look for it."""
    found = metadata.distribution(distribution)
    folder = Path(str(found.locate_file(f"{distribution.replace('-', '_')}-{found.version}.dist-info")))
    return folder if folder.is_dir() else None


@cache
def _location(module: str) -> Path:
    """The folder or file of a top-level module, without importing it."""
    spec = find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    origin = Path(spec.origin).resolve()
    return origin.parent if origin.name == "__init__.py" else origin


def _prepared(runtime: str, folders: Sequence[str]) -> Path | None:
    for folder in (*map(Path, folders), default_folder()):
        for candidate in (folder, folder / runtime):
            if candidate.name == runtime and candidate.is_dir():
                return candidate
    return None


def _entries(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.resolve().iterdir()):
        if path.name not in ("bin", "__pycache__") and not path.name.startswith(".") and not path.name.endswith(_NOT_PACKAGES):
            yield path.name, str(path)
