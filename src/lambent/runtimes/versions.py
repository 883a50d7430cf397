"""Runtime versions: what INIT_START prints and ``RuntimeVersionConfig`` holds (contract 03 §8).

AWS numbers the builds of a runtime and names each by a hash. Here a build is an interpreter together with a version of the runtime
client: the number is the interpreter's own (``python:3.12.v4`` is CPython 3.12.4, ``nodejs:20.v18`` is Node 20.18), the hash is taken over
all of it, so that the ARN changes when, and only when, either does. Custom runtimes have no version of ours: ``provided:al2023.v1``.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from lambent import __version__
from lambent.runtimes.identifiers import family
from lambent.runtimes.interpreter import Interpreter
from lambent.runtimes.plan import RuntimePlan
from lambent.runtimes.runtime_objects import Place, Runtime, Version, managed

_NAME = re.compile(r"(?P<family>[a-z]+)\.?(?P<rest>.*?)(\.x)?")


@dataclass(frozen=True, slots=True)
class RuntimeVersion:
    """``text`` is "python:3.12.v1"; ``arn`` is ``arn:<partition>:lambda:<region>::runtime:<64 hex digits>``."""

    text: str
    arn: str


def runtime_version(found: Interpreter | RuntimePlan, region: str, partition: str = "aws") -> RuntimeVersion:
    """The version that functions on this interpreter, or by this plan, run with."""
    runtime = runtime_of(found)
    version = runtime.at()
    assert version is not None
    return RuntimeVersion(version.text, runtime.version_arn(version, Place(region, partition)))


def runtime_of(found: Interpreter | RuntimePlan) -> Runtime:
    """The runtime of this interpreter, or of this plan, with its one version."""
    if isinstance(found, Interpreter):
        build: tuple[str, ...] = (found.runtime, found.version_text, found.release, found.abiflags, _client_version())
        return _named(found.runtime, found.version_text, build)
    client = _client_version() if family(found.runtime) == "python" else __version__
    return _named(found.runtime, found.version, (found.runtime, found.version, client))


def _named(runtime: str, version: str, build: tuple[str, ...]) -> Runtime:
    digest = hashlib.sha256("\n".join(build).encode()).hexdigest()
    text = version_text(runtime, version)
    return managed(runtime, Version(text.partition(":")[2], digest, text))


def version_text(runtime: str, version: str) -> str:
    """``("nodejs20.x", "20.18.1")`` is ``nodejs:20.v18``; what follows the release line that the runtime is named after is its number."""
    match = _NAME.fullmatch(runtime)
    assert match is not None, runtime
    line = match["rest"]
    plain = line.split(".al")[0]
    numbers = re.findall(r"\d+", version.removeprefix("1.") if plain == "8" else version)  # Java 8 calls itself 1.8.0
    named = re.findall(r"\d+", plain) if match["family"] != "provided" else []
    if numbers and numbers[: len(named)] != named:  # another line on purpose ("ruby3.3=/usr/bin/ruby"): say what it truly is
        return f"{match['family']}:{version}"
    build = numbers[len(named)] if numbers[: len(named)] == named and len(numbers) > len(named) else "1"
    return f"{match['family']}:{line}.v{int(build)}"


@cache
def _client_version() -> str:
    return metadata.version("awslambdaric")
