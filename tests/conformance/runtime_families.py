"""The runtimes of this machine, each with its sample function (``runtime_samples/``) and what is peculiar to its family.

A sample does what the word ``do`` of its event says: count, fail, exit, kill, sleep, memory, log, context, env, layer, keep, kept; anything
else comes back as it is. With ``FAIL_INIT`` in its environment it fails while it is loaded.
"""

from __future__ import annotations

import functools
import io
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lambent.errors import ClientFault
from lambent.runtimes import java_client, ruby
from lambent.runtimes.catalogue import Catalogue
from lambent.runtimes.identifiers import FAMILIES
from lambent.runtimes.java_machines import machines

SAMPLES = Path(__file__).with_name("runtime_samples")
RUBIES = [found for path in ruby._searched(dict(os.environ)) if isinstance(found := ruby.ask(path), ruby.Ruby)]

Files = Mapping[str, bytes | tuple[bytes, bool]]


@dataclass(frozen=True, slots=True)
class Sample:
    """``fails`` and ``breaks`` are the error types of an exception in the handler and while loading; ``keys`` those of its payload."""

    name: str  # of the parameter
    runtime: str  # as CreateFunction wants it; "" for an image
    handler: str
    build: Callable[[], dict[str, bytes | tuple[bytes, bool]]]
    fails: str
    breaks: str
    keys: frozenset[str]
    init_keys: frozenset[str]
    timeout: int = 1
    no_memory: str = "Runtime.OutOfMemory"
    lacks: str = ""  # why it cannot run here
    like: str = ""  # another that the same program runs, so that there is little to find out anew

    @property
    def is_image(self) -> bool:
        return not self.runtime

    @property
    def is_custom(self) -> bool:
        """It brings its own runtime client."""
        return self.is_image or self.runtime.startswith("provided")


def zipped(files: Files) -> bytes:
    """A zip file; ``(content, True)`` is executable."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, given in files.items():
            content, executable = given if isinstance(given, tuple) else (given, False)
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3
            entry.external_attr = (0o100755 if executable else 0o100644) << 16
            archive.writestr(entry, content)
    return memory.getvalue()


def layer() -> bytes:
    """A layer that every family looks into, each in its own place."""
    return zipped(
        {
            "data.txt": b"from /opt",
            "python/layered.py": b"WORD = 'from the search path'\n",
            "nodejs/node_modules/layered/index.js": b"exports.WORD = 'from the search path';\n",
            "ruby/lib/layered.rb": b"LAYERED = 'from the search path'\n",
            "java/lib/layered.jar": zipped({"layered.txt": b"from the search path\n"}),
            "bin/layered": (b"#!/bin/sh\nprintf 'from the search path'\n", True),
            "wrapper": (b'#!/bin/sh\nexport WRAPPED="$(basename "$1")"\nexec "$@"\n', True),
        }
    )


def _file(name: str, as_name: str, executable: bool = False) -> Callable[[], dict[str, bytes | tuple[bytes, bool]]]:
    return lambda: {as_name: ((SAMPLES / name).read_bytes(), True) if executable else (SAMPLES / name).read_bytes()}


@functools.cache
def compilers() -> list[Any]:
    chosen, found = machines((), dict(os.environ))
    return [machine for machine in (*chosen, *found) if machine.compiler]


def _classes() -> dict[str, bytes | tuple[bytes, bool]]:
    client = java_client.jar(compilers())
    with tempfile.TemporaryDirectory() as folder:
        options = ["--release", "8", "-nowarn", "-Xlint:-options", "-cp", client, "-d", folder]
        subprocess.run([compilers()[-1].compiler, *options, SAMPLES / "sample" / "Sample.java"], check=True)
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*.class")}


@functools.cache
def compiled() -> bytes:
    """The runtime in C, as one static program."""
    with tempfile.TemporaryDirectory() as folder:
        target = os.path.join(folder, "runtime")
        subprocess.run(["gcc", "-static", "-O1", "-D_GNU_SOURCE", "-w", "-o", target, SAMPLES / "runtime.c"], check=True)
        return Path(target).read_bytes()


def _lacks(catalogue: Catalogue, runtime: str) -> str:
    try:
        catalogue.plan(runtime)
    except ClientFault as fault:
        return fault.message
    return ""


_PYTHON = frozenset({"errorMessage", "errorType", "requestId", "stackTrace"})
_TRACED = frozenset({"errorMessage", "errorType", "stackTrace"})
_NODE = frozenset({"errorMessage", "errorType", "trace"})
_PLAIN = frozenset({"errorMessage", "errorType"})


def samples() -> list[Sample]:
    """Every runtime that the product knows, whether or not this machine has it."""
    catalogue = Catalogue()
    found: list[Sample] = []

    def add(runtime: str, handler: str, build: Callable[[], Any], fails: str, breaks: str, keys: Any, init_keys: Any, **more: Any) -> None:
        more.setdefault("lacks", _lacks(catalogue, runtime))
        found.append(Sample(more.pop("name", runtime), runtime, handler, build, fails, breaks, keys, init_keys, **more))

    for name in FAMILIES["python"]:
        add(name, "app.handler", _file("app.py", "app.py"), "ValueError", "ValueError", _PYTHON, _PYTHON)
    for name in FAMILIES["nodejs"]:
        add(name, "index.handler", _file("index.js", "index.js"), "RangeError", "RangeError", _NODE, _NODE)
    jdks: dict[str, str] = {}
    for name in FAMILIES["java"]:
        lacks = _lacks(catalogue, name) or ("" if compilers() else "this machine has no JDK")
        java = "java.lang.IllegalStateException"
        machine = "" if lacks else catalogue.plan(name).prefix
        more = {"timeout": 3, "no_memory": "java.lang.OutOfMemoryError", "lacks": lacks, "like": jdks.get(machine, "")}
        jdks.setdefault(machine, name)
        add(name, "sample.Sample", functools.cache(_classes), java, java, _TRACED, _PLAIN, **more)
    rubies = FAMILIES["ruby"]
    for name in rubies:
        lacks = _lacks(catalogue, name)
        if lacks and name == stand_in():
            lacks = ""
        add(name, "app.handler", _file("app.rb", "app.rb"), "Function<RuntimeError>", "Init<RuntimeError>", _TRACED, _TRACED, lacks=lacks)
    for name in FAMILIES["provided"]:
        lacks = _lacks(catalogue, name) or ("" if shutil.which("curl") else "this machine has no curl")
        custom = ("Shell.Failed", "Shell.Failed", _PLAIN, _PLAIN)
        like = "" if name == FAMILIES["provided"][-1] else FAMILIES["provided"][-1]
        add(name, "any", _file("bootstrap.sh", "bootstrap", True), *custom, name=f"{name}-shell", lacks=lacks, like=like)
    no_compiler = "" if shutil.which("gcc") else "this machine has no C compiler"
    native = ("Compiled.Failed", "Compiled.Failed", _PLAIN, _PLAIN)
    add("provided.al2023", "any", lambda: {"bootstrap": (compiled(), True)}, *native, name="provided.al2023-c", lacks=no_compiler)
    add("", "any", dict, *native, name="image", lacks=no_compiler)
    return found


def stand_in() -> str:
    """The name under which the settings offer this machine's Ruby, where it is of no managed version."""
    managed = any(not _lacks(Catalogue(), name) for name in FAMILIES["ruby"])
    return "" if managed or not RUBIES else "ruby3.3"
