"""Runtime versions: what INIT_START prints and ``RuntimeVersionConfig`` holds (contract 03 §8).

AWS numbers the builds of a runtime and names each by a hash. Here a build is an interpreter together with a version of AWS's runtime
client: the number is the interpreter's patch level, the hash is taken over both, so that the ARN changes when, and only when, either does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from lambent.runtimes.interpreter import Interpreter


@dataclass(frozen=True, slots=True)
class RuntimeVersion:
    """``text`` is "python:3.12.v1"; ``arn`` is ``arn:<partition>:lambda:<region>::runtime:<64 hex digits>``."""

    text: str
    arn: str


def runtime_version(interpreter: Interpreter, region: str, partition: str = "aws") -> RuntimeVersion:
    """The version that functions on ``interpreter`` run with."""
    major, minor, patch = interpreter.version
    build = (interpreter.runtime, interpreter.version_text, interpreter.release, interpreter.abiflags, _client_version())
    digest = hashlib.sha256("\n".join(build).encode()).hexdigest()
    return RuntimeVersion(f"python:{major}.{minor}.v{patch}", f"arn:{partition}:lambda:{region}::runtime:{digest}")


@cache
def _client_version() -> str:
    return metadata.version("awslambdaric")
