"""The driver contract: what the data plane may ask of isolation, and nothing more.

A *driver* makes *sandboxes*. A sandbox holds one execution environment: the runtime process, whatever it starts, a private ``/tmp``,
the function's code read-only at ``/var/task``, and limits on memory, CPU, processes and disk. The data plane talks to the runtime inside
through ``channel`` (the frames of ``runtime_api/frames.py``) and reads what the function prints from ``logs``; it knows no pids,
cgroups or mounts.

The promises, which ``tests/conformance/test_sandbox.py`` holds every driver to:

* ``start`` returns as soon as the sandbox is assigned; the runtime's first ``NEXT`` (or ``INIT_ERROR``) frame says that init is over.
* What the runtime wrote to stdout or stderr before it wrote a frame can be read from ``logs`` once that frame has been read.
* ``exited`` completes once, when the runtime process has ended for whatever reason, and tells a memory kill from any other.
* ``freeze`` and ``thaw`` return within microseconds, are idempotent, and do nothing after ``kill``.
* ``kill`` is idempotent; once it has returned, no process, mount or cgroup of the sandbox exists. It closes neither ``channel`` nor
  ``logs``: both belong to the receiver of the sandbox, which closes them.
* ``/tmp`` of a sandbox that was started with ``keep_tmp`` outlives it: the next one that is started with the same id finds in it what the
  one before had left (contract 02 §2.1), until ``forget``.
* ``close`` on the driver kills every sandbox and leaves nothing behind.

Members that are not part of the contract and may be missing, so ask with ``getattr``:

* ``listener``, a socket that listens on the sandbox's own 127.0.0.1 at the platform's port; ``api_listener``, the same at port 9001,
  where the three APIs of contract 03 are served by the owner. Both are closed by the driver when the sandbox is gone.
* ``settled()``, by which the owner says that init is over and the CPU share of the memory size should apply. The first ``freeze`` implies
  it, and so do 10 s.
* ``open_socket()``, a coroutine that gives a fresh, unconnected, non-blocking TCP socket inside the sandbox's network (for telemetry).
* ``terminate()``, which sends SIGTERM to the runtime process, thawed if need be.
* ``release()``, for a sandbox that was started with ``hold``: let the runtime go on. Extensions do not wait for it, so that they can
  register before the runtime starts, as on AWS. Idempotent.
* ``extension_logs``, like ``logs`` but of the external extensions (-1 where there are none), and ``on_extension_exit``, an attribute that
  the owner may set to a function of ``(name, SandboxExit)``, called once for each extension process that ends, or could not be started
  (status 127 where there is no such program, 126 where it may not be executed). While extensions live, the runtime's end does not end the
  sandbox: they can be told, and its owner kills it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

LOG_FD = 6


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the host inside a sandbox. ``target`` is absolute and lies below ``/mnt``."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """What is executed as the runtime process, where it is no fork of a Python zygote. All paths are those inside.

    ``argv[0]`` without a slash is looked for on the function's ``PATH``. With ``warm`` a runtime that knows nothing of the function yet
    may be started ahead: it waits for one JSON object ``{"env": {...}, "handler": "..."}`` on descriptor 4, read to its end, then takes
    over the environment and goes on as ``argv`` would have. In both cases descriptor 3 is the channel. ``transport`` says what it speaks:
    frames over that channel, or HTTP with the Runtime API, and then nothing comes over the channel. Drivers need not look at it.

    In every runtime process, executed or forked, descriptor ``LOG_FD`` is standard output once more, for log records that stay whole.
    """

    argv: tuple[str, ...]
    cwd: str = "/var/task"
    warm: tuple[str, ...] = ()
    transport: str = "frames"  # or "http"
    problem: str = ""  # why it cannot be executed, where that is known ahead: AWS's words, as they follow ``Error: ``. Not for drivers
    problem_type: str = "Runtime.InvalidEntrypoint"  # the error type that goes with it
    problem_line: str = ""  # what the log says of it, beside what it says of every such end


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What one execution environment is built from. Sizes in MB (2**20 bytes).

    ``program`` is ``None`` for Python, which is forked from a zygote. ``image_layers`` are the unpacked layers of a container image on the
    host, bottom first; where there are any they are the root, and ``code_dir`` and ``opt_dir`` are empty.
    """

    sandbox_id: str  # also the execution environment's id, 32 hex digits
    runtime: str  # "python3.12": a name of the runtime catalogue
    handler: str
    code_dir: str  # on the host; seen as /var/task
    memory_mb: int
    ephemeral_mb: int
    environment: Mapping[str, str]  # the whole environment of the runtime process (contract 03 §5)
    opt_dir: str = ""  # the merged layers on the host; seen as /opt
    program: Program | None = None
    mounts: tuple[Mount, ...] = ()
    extensions: tuple[str, ...] = ()  # executables inside, started before the runtime: "/opt/extensions/name"
    image_layers: tuple[str, ...] = ()
    hold: bool = False  # the runtime process runs no code of anybody's before ``release`` is called
    code_key: str = ""  # sandboxes with the same one are built from the same: what Python has compiled in one, another may load
    keep_tmp: bool = False  # /tmp outlives the sandbox, for another one with the same id


@dataclass(frozen=True, slots=True)
class SandboxExit:
    """How the runtime process ended. Exactly one of ``code`` and ``signal`` is set."""

    code: int | None
    signal: int | None
    out_of_memory: bool = False
    entry: str = ""  # the ``problem`` of a program that was never executed; filled in by the owner
    entry_type: str = "Runtime.InvalidEntrypoint"  # and its type
    fault: str = ""  # what went wrong with the sandbox itself, before it ran anything of the function's

    def reason(self) -> str:
        """AWS's words, as they follow ``Error: `` in an error payload (contract 02 §2.1)."""
        if self.fault:
            return f"The sandbox could not be made: {self.fault}"
        if self.entry:
            return self.entry
        if self.signal is not None:
            names = {
                9: "killed",
                11: "segmentation fault",
                6: "aborted",
                15: "terminated",
                7: "bus error",
                4: "illegal instruction",
            }
            return f"Runtime exited with error: signal: {names.get(self.signal, f'signal {self.signal}')}"
        if self.code == 0:
            return "Runtime exited without providing a reason"
        return f"Runtime exited with error: exit status {self.code}"


class Sandbox(Protocol):
    """One started sandbox."""

    @property
    def id(self) -> str: ...

    @property
    def channel(self) -> socket.socket:
        """A connected, non-blocking stream socket to the runtime client."""
        ...

    @property
    def logs(self) -> int:
        """The non-blocking read end of the pipe that is stdout and stderr inside."""
        ...

    @property
    def exited(self) -> asyncio.Future[SandboxExit]: ...

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...

    def memory_peak(self) -> int:
        """Most memory used since the start, in bytes; 0 where the machine cannot tell."""
        ...

    async def kill(self) -> None: ...


@dataclass(frozen=True, slots=True)
class IsolationReport:
    """What a driver gives on this machine, for ``/_lambent/health``, ``lambent doctor`` and the banner."""

    driver: str  # "namespaces" | "process"
    reason: str  # why this one was chosen, one sentence
    facts: Mapping[str, str] = field(default_factory=dict)  # e.g. {"cgroups": "v1", "uid": "per sandbox", "egress": "none"}
    missing: tuple[str, ...] = ()  # what this machine lacks, one sentence each


class SandboxDriver(Protocol):
    """Makes sandboxes. ``open`` before anything else, ``close`` at the end; both once."""

    @property
    def report(self) -> IsolationReport: ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def prepare(self, runtime: str) -> None:
        """Make ready for ``runtime`` (start its zygote, fill its pool of blanks). Idempotent. Raises ``SandboxFault``."""
        ...

    async def start(self, spec: SandboxSpec) -> Sandbox:
        """Assign a sandbox to ``spec``. Raises ``SandboxFault``."""
        ...

    def forget(self, sandbox_id: str) -> None:
        """Nobody will want the ``/tmp`` of this sandbox. Harmless for an id that means nothing, or a sandbox that still lives."""
        ...
