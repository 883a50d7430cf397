"""The process driver: environments as plain child processes, where the kernel gives nothing better. There is NO isolation here.

A function can read what the user who runs Lambent can read, reach the network, and see other functions. What remains is bookkeeping: a
session and temporary directory per environment, a memory bound by ``RLIMIT_DATA``, freezing by ``SIGSTOP``, and killing of everything
that the environment started, even when it detached itself. ``report`` says all that.

``/var/task``, ``/var/runtime``, ``/var/lang`` and ``/opt`` are other folders here. Command lines and the variables that are known to hold
paths are translated, ``LAMBDA_TASK_ROOT`` and ``LAMBDA_RUNTIME_DIR`` tell the function, and the three APIs are on a port of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lambent.errors import SandboxFault
from lambent.runtimes.identifiers import family
from lambent.sandbox import kernel
from lambent.sandbox.companions import extension_environment
from lambent.sandbox.driver import IsolationReport, SandboxSpec
from lambent.sandbox.orders import Packages
from lambent.sandbox.process_sandbox import CHANNEL_FD, HOLD_FD, ProcessSandbox

if TYPE_CHECKING:
    from lambent.runtimes.catalogue import Catalogue

CLIENT = Path(__file__).parents[1] / "runtime_api" / "python_client.py"
_CHILD = str(Path(__file__).with_name("process_child.py"))
_FOLDERS = re.compile(r"(?<![\w./-])(/var/task|/var/runtime|\.\./runtime|/var/lang|/opt)(?=[/:]|$)")
_PATHS = (
    "AWS_LAMBDA_EXEC_WRAPPER",
    "CLASSPATH",
    "GEM_HOME",
    "GEM_PATH",
    "LD_LIBRARY_PATH",
    "NODE_PATH",
    "PATH",
    "PWD",
    "PYTHONPATH",
    "RUBYLIB",
)
MISSING = (
    "no isolation: functions run as plain processes of the user who runs Lambent, and can read what that user can read",
    "no limit on CPU, processes and /tmp; memory is bounded per process only (RLIMIT_DATA)",
    "no network isolation: functions reach whatever this machine reaches",
    "the code directory is as writable for functions as for the user who runs Lambent",
)


@dataclass(frozen=True, slots=True)
class _Runtime:
    """What stands for the folders of a runtime outside."""

    python: str  # the interpreter that runs functions; "" where they are programs
    prefix: str  # for /var/lang
    folder: str  # for /var/runtime


class ProcessDriver:
    """Plain processes. See the top of this file for what that means."""

    def __init__(self, catalogue: Catalogue, packages: Packages, client: Path = CLIENT, reason: str = "it was chosen") -> None:
        self._catalogue = catalogue
        self._packages = packages
        self._client = client
        self._report = IsolationReport("process", reason, {"cgroups": "none", "uid": "ours", "seccomp": "off", "egress": "full"}, MISSING)
        self._folder = ""
        self._sandboxes: dict[str, ProcessSandbox] = {}
        self._runtimes: dict[str, _Runtime] = {}

    @property
    def report(self) -> IsolationReport:
        return self._report

    async def open(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="lambent-process-")
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)

    async def close(self) -> None:
        await asyncio.gather(*(sandbox.kill() for sandbox in list(self._sandboxes.values())))
        if self._folder:
            kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 0)
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""

    async def prepare(self, runtime: str) -> None:
        if not self._folder:
            raise SandboxFault("the driver is not open")
        if not runtime:
            raise SandboxFault('Container images need a root of their own; plain processes have none: isolation is "process" here')
        if runtime not in self._runtimes:
            self._runtimes[runtime] = await asyncio.to_thread(self._assemble, runtime)

    def _assemble(self, runtime: str) -> _Runtime:
        folder = os.path.join(self._folder, runtime)
        os.makedirs(folder, exist_ok=True)
        if family(runtime) == "python":
            interpreter = self._catalogue.find(runtime)
            links = (*self._packages(interpreter), ("lambent_runtime_client.py", str(self._client)))
            python, prefix = interpreter.executable, interpreter.prefix
            files: tuple[tuple[str, bytes], ...] = ()
        else:
            plan = self._catalogue.plan(runtime)
            python, prefix, links, files = "", plan.prefix, plan.runtime_dir, plan.files
        for name, path in links:
            os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.symlink(path, os.path.join(folder, name))
        for name, content in files:
            os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
        return _Runtime(python, prefix, folder)

    async def start(self, spec: SandboxSpec) -> ProcessSandbox:
        if spec.mounts or spec.image_layers:
            raise SandboxFault("the process driver mounts nothing: it runs no container images and has no file systems at /mnt")
        await self.prepare(spec.runtime)
        if spec.sandbox_id in self._sandboxes and not self._sandboxes[spec.sandbox_id].exited.done():
            raise SandboxFault(f"sandbox {spec.sandbox_id} exists already")
        runtime = self._runtimes[spec.runtime]
        folder = os.path.join(self._folder, "tmp-" + spec.sandbox_id)
        os.makedirs(folder, 0o700, exist_ok=spec.keep_tmp)
        sandbox = ProcessSandbox(spec.sandbox_id, folder, _listen(), spec.keep_tmp)
        try:
            self._begin(spec, runtime, sandbox, folder)
        except OSError as error:
            sandbox.give_up()
            raise SandboxFault(f"{spec.runtime} cannot be started: {error}") from error
        self._sandboxes[spec.sandbox_id] = sandbox
        sandbox.exited.add_done_callback(lambda _: self._sweep_later(sandbox))
        return sandbox

    def forget(self, sandbox_id: str) -> None:
        """Nobody will want the temporary folder of this sandbox."""
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is not None:
            sandbox.keep_tmp = False
        if sandbox is None or sandbox.is_gone:
            shutil.rmtree(os.path.join(self._folder, "tmp-" + sandbox_id), ignore_errors=True)

    def _begin(self, spec: SandboxSpec, runtime: _Runtime, sandbox: ProcessSandbox, folder: str) -> None:
        """Start the extensions and the runtime of ``spec``. Raises ``OSError``."""
        assert sandbox.api_listener is not None
        outside = _Outside(spec, runtime)
        environment = outside.environment(folder, f"127.0.0.1:{sandbox.api_listener.getsockname()[1]}")

        def program(argv: Sequence[str], cwd: str, env: dict[str, str], hold: int) -> list[str]:
            order = {"argv": list(argv), "cwd": cwd, "env": env, "memory_mb": spec.memory_mb, "hold": hold}
            return [sys.executable, "-I", "-S", "-B", _CHILD, json.dumps(order)]

        mark = {"TMPDIR": folder}
        for path in spec.extensions:
            sandbox.begin_extension(path, program([outside.path(path)], "/", extension_environment(environment), -1), mark)
        hold = HOLD_FD if spec.hold else -1
        if spec.program is None:
            child = [runtime.python, "-S", "-B", "-u", _CHILD, str(CHANNEL_FD), spec.handler, str(spec.memory_mb), str(hold)]
            sandbox.begin(child, environment, spec.hold)
        else:
            argv = [outside.path(word) for word in spec.program.argv]
            sandbox.begin(program(argv, outside.path(spec.program.cwd), environment, hold), mark, spec.hold)

    def _sweep_later(self, sandbox: ProcessSandbox) -> None:
        """The runtime has ended; end what it left behind, too, unless extensions live to hear of it."""
        if sandbox.has_extensions:
            return
        task = asyncio.get_running_loop().create_task(sandbox.kill())
        task.add_done_callback(lambda _: self._sandboxes.pop(sandbox.id, None) if self._sandboxes.get(sandbox.id) is sandbox else None)


class _Outside:
    """Where the folders that a function knows are on this machine."""

    def __init__(self, spec: SandboxSpec, runtime: _Runtime) -> None:
        self._spec = spec
        self._folders = {
            "/var/task": spec.code_dir,
            "/var/runtime": runtime.folder,
            "../runtime": runtime.folder,  # as it is seen from /var/task
            "/var/lang": runtime.prefix or "/var/lang",
            "/opt": spec.opt_dir or "/opt",
        }

    def path(self, text: str) -> str:
        """``text`` with every path in it (it may be a list with colons, or an option with a path) as it is outside."""
        return _FOLDERS.sub(lambda found: self._folders[found.group()], text)

    def environment(self, folder: str, api: str) -> dict[str, str]:
        """The function's variables, those that hold paths translated."""
        given = dict(self._spec.environment)
        for name in _PATHS:
            if name in given:
                given[name] = self.path(given[name])
        places = {"LAMBDA_TASK_ROOT": self._spec.code_dir, "LAMBDA_RUNTIME_DIR": self._folders["/var/runtime"], "TMPDIR": folder}
        if "PYTHONPATH" not in given and self._spec.program is None:
            places["PYTHONPATH"] = self._folders["/var/runtime"]
        return {**given, **places, "AWS_LAMBDA_RUNTIME_API": api, "AWS_LAMBDA_METADATA_API": api}


def _listen() -> socket.socket:
    """Where the three APIs of one environment are. Raises ``OSError``."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    listener.setblocking(False)
    return listener
