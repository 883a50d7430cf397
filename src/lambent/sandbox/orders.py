"""Orders: what the namespaces driver asks of the launcher, as the messages that go over the link.

The launcher knows nothing of runtimes, catalogues and settings. A *prepare* order says how the root of a runtime is made up and which of
the two kinds of zygote lives in it (``origins.py``); a *start* order says all about one environment. Paths of the host are checked here
for a clear message, and once more by the launcher for safety.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lambent.errors import SandboxFault
from lambent.runtimes.identifiers import family
from lambent.runtimes.plan import RuntimePlan
from lambent.sandbox.driver import Mount, SandboxSpec

if TYPE_CHECKING:
    from lambent.runtimes.catalogue import Catalogue
    from lambent.runtimes.interpreter import Interpreter

Packages = Callable[["Interpreter"], Sequence[tuple[str, str]]]
Order = dict[str, Any]

IMAGE = "image"  # stands for the runtime of container images, which bring their own
_IMAGE_PLAN = RuntimePlan(IMAGE, "", "http", argv=("/bin/sh",), wraps=False)

# What a program reads when it starts and never again. A warm interpreter serves a function only if it was started with the same.
_READ_AT_START = (
    "LD_",
    "LC_",
    "NODE_",
    "JAVA_",
    "JDK_",
    "_JAVA",
    "RUBY",
    "PYTHON",
    "MALLOC_",
    "GLIBC_",
    "SSL_",
    "OPENSSL_",
    "UV_",
    "DOTNET_",
)
_READ_AT_START_TOO = frozenset({"LANG", "LANGUAGE", "TZ", "CLASSPATH", "GEM_PATH", "GEM_HOME", "AWS_LAMBDA_EXEC_WRAPPER"})
USUAL = {
    "LANG": "en_US.UTF-8",
    "TZ": ":UTC",
    "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
    "LD_LIBRARY_PATH": (
        "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib"  # contract 03 §5
    ),
    "LAMBDA_TASK_ROOT": "/var/task",
    "LAMBDA_RUNTIME_DIR": "/var/runtime",
    "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
}


def prepare_order(catalogue: Catalogue, runtime: str, packages: Packages, client: str) -> Order:
    """How ``runtime`` is made ready. Blocks; raises ``ClientFault`` where this machine does not have it."""
    if runtime == IMAGE:
        return _carrier_order(_IMAGE_PLAN)
    if family(runtime) != "python":
        return _carrier_order(catalogue.plan(runtime))
    interpreter = catalogue.find(runtime)
    library = interpreter.shared_library
    if library and not interpreter.is_system and (library + "/").startswith(interpreter.prefix + "/"):
        library = "/var/lang" + library[len(interpreter.prefix) :]
    return {
        "op": "prepare",
        "runtime": runtime,
        "carrier": False,
        "executable": interpreter.executable,
        "prefix": interpreter.prefix,
        "version": list(interpreter.version),
        "library_path": "" if interpreter.is_system else library or "/var/lang/lib",
        "packages": [list(package) for package in packages(interpreter)],
        "client": client,
    }


def _carrier_order(plan: RuntimePlan) -> Order:
    return {
        "op": "prepare",
        "runtime": plan.runtime,
        "carrier": True,
        "executable": "",
        "prefix": plan.prefix,
        "version": [],
        "packages": [list(entry) for entry in plan.runtime_dir],
        "files": [(name, base64.b64encode(content).decode()) for name, content in plan.files],
        "links": [list(link) for link in plan.links],
        "warm": list(plan.warm),
        "warm_env": warm_environment(plan) if plan.warm else {},
    }


def warm_environment(plan: RuntimePlan) -> dict[str, str]:
    """What a warm interpreter is started with: what every function of the runtime has unless it says otherwise."""
    return {**USUAL, **plan.environment}


def may_be_warm(environment: Mapping[str, str], warm: Mapping[str, str]) -> bool:
    """Whether an interpreter that was started with ``warm`` can become one of ``environment``."""
    names = {name for name in (*environment, *warm) if name in _READ_AT_START_TOO or name.startswith(_READ_AT_START)}
    return all(environment.get(name) == warm.get(name) for name in names)


def runtime_of(spec: SandboxSpec) -> str:
    """The runtime whose nursery serves ``spec``."""
    return IMAGE if spec.image_layers else spec.runtime


def start_order(spec: SandboxSpec, code_root: str, file_systems: Sequence[str], warm: Mapping[str, str]) -> Order:
    """``warm`` is the environment of the runtime's warm interpreters, empty where there are none. Raises ``SandboxFault``."""
    program = spec.program
    if program is None and spec.image_layers:
        raise SandboxFault("an image needs a program")
    is_warm = program is not None and bool(program.warm and warm) and not spec.image_layers and may_be_warm(spec.environment, warm)
    return {
        "op": "start",
        "id": spec.sandbox_id,
        "runtime": runtime_of(spec),
        "handler": spec.handler,
        "code": _below(spec.code_dir, code_root) if not spec.image_layers else "",
        "opt": _below(spec.opt_dir, code_root) if spec.opt_dir else "",
        "layers": [_below(layer, code_root) for layer in spec.image_layers],
        "mounts": [_mount(mount, file_systems) for mount in spec.mounts],
        "argv": list(program.argv) if program is not None else [],
        "cwd": program.cwd if program is not None else "/var/task",
        "warm": is_warm,
        "extensions": list(spec.extensions),
        "hold": spec.hold,
        "keep_tmp": spec.keep_tmp,
        "code_key": spec.code_key if program is None else "",
        "memory_mb": spec.memory_mb,
        "ephemeral_mb": spec.ephemeral_mb,
        "environment": dict(spec.environment),
    }


def _below(path: str, root: str) -> str:
    real = os.path.realpath(path)
    if not real.startswith(root + "/"):
        raise SandboxFault(f"{path} is not below the code directory {root}")
    return real[len(root) + 1 :]


def _mount(mount: Mount, file_systems: Sequence[str]) -> Order:
    target = os.path.normpath(mount.target)
    if not target.startswith("/mnt/"):
        raise SandboxFault(f"{mount.target} is not below /mnt")
    real = os.path.realpath(mount.source)
    for root in file_systems:
        if real == root or real.startswith(root.rstrip("/") + "/"):
            return {"root": root, "source": real[len(root) :].strip("/"), "target": target, "read_only": mount.read_only}
    raise SandboxFault(f"{mount.source} is in none of the folders under [sandbox.file_systems]")
