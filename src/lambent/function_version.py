"""The immutable value that the data plane runs: one version of one function.

The control plane stores AWS's FunctionConfiguration documents; from one it compiles a ``FunctionVersion`` and publishes it to
``invoke/registry.py``. A change makes a new value; nobody edits one. ``environment_key`` is a hash over everything that an execution
environment is built from, so that a pool can tell stale environments from current ones by comparing two strings: code identity is the
hash of its bytes, and stale code is impossible by construction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from lambent.arn import FunctionArn

ON_DEMAND = "on-demand"
PROVISIONED = "provisioned-concurrency"
MANAGED = "lambda-managed-instances"

UNPUBLISHED = "ActiveNonInvocable"  # state of $LATEST of a function on a capacity provider: only what is published is invoked
INACTIVE = "Inactive"  # state of a version that rests (``control/idle.py``)
DURABLE = "Durable"  # state of a version whose invocations would be durable executions


@dataclass(frozen=True, slots=True)
class ImageRoot:
    """An unpacked container image and how it is started, overrides applied. ``layers`` are folders on the host, bottom first."""

    digest: str
    layers: tuple[str, ...]
    argv: tuple[str, ...]  # ENTRYPOINT followed by CMD
    workdir: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()  # of ``argv``, what is CMD; for the log


@dataclass(frozen=True, slots=True)
class FileSystem:
    """One of FileSystemConfigs, resolved to a folder of the host."""

    source: str  # "" where there is none
    mount_path: str
    arn: str = ""


@dataclass(frozen=True, slots=True)
class FunctionVersion:
    """``arn`` is unqualified; ``version`` is ``$LATEST`` or a number; ``code_dir`` is a read-only folder on the host."""

    arn: FunctionArn
    version: str
    runtime: str  # "python3.12"
    handler: str
    code_sha256: str  # hex
    code_dir: str
    memory_mb: int = 128
    timeout_s: int = 3
    ephemeral_mb: int = 512
    environment: Mapping[str, str] = field(default_factory=dict)
    role: str = ""
    log_group: str = ""
    state: str = "Active"
    state_reason: str = ""
    environment_key: str = ""
    opt_dir: str = ""  # the merged layers, a read-only folder on the host; "" without layers
    layer_sha256: str = ""  # identity of what is in it
    image: ImageRoot | None = None  # PackageType=Image
    mounts: tuple[FileSystem, ...] = ()  # FileSystemConfigs
    log_format: str = "Text"  # or "JSON"
    application_log_level: str = ""  # "" where the format is Text
    system_log_level: str = ""
    tenant_isolation: bool = False  # TenancyConfig: one environment serves one tenant, whom every invocation names
    dead_letters: str = ""  # DeadLetterConfig.TargetArn; nothing that an environment is built from
    tracing: str = "PassThrough"  # or "Active"; nothing that an environment is built from
    initialization: str = ON_DEMAND  # how one environment came to be: AWS_LAMBDA_INITIALIZATION_TYPE; its pool says so, and it is in no key

    def keyed(self) -> str:
        """The hash of all that an environment is built from."""
        parts = [
            str(self.arn),
            self.version,
            self.runtime,
            self.handler,
            self.code_sha256,
            self.memory_mb,
            self.timeout_s,
            self.ephemeral_mb,
            sorted(self.environment.items()),
            self.role,
            self.log_group,
            self.layer_sha256,
            self.image and [self.image.digest, self.image.argv, self.image.workdir, sorted(self.image.environment.items())],
            [[each.source, each.mount_path] for each in self.mounts],
            [self.log_format, self.application_log_level, self.system_log_level],
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
