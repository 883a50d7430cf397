"""What every environment of a node is made with, and what one shows of itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from lambent.clock import Clock
from lambent.function_version import ON_DEMAND, FunctionVersion
from lambent.observe.log_sink import LogSink
from lambent.runtime_api.events import Identity, Listener, RuntimeApi
from lambent.runtime_api.extension_routes import Facilities
from lambent.sandbox.driver import SandboxDriver, SandboxSpec

PROVISIONED_INIT_SECONDS = 130.0

SpecFor = Callable[[FunctionVersion, str, str], SandboxSpec]
"""``(version, environment id, log stream name)`` -> what the sandbox is built from."""

RuntimeVersionOf = Callable[[FunctionVersion], tuple[str, str]]
"""The runtime version that INIT_START prints, and its ARN."""

OpenSocket = Callable[[], Awaitable[socket.socket]]
"""A fresh socket inside the network of a sandbox."""

OpenApi = Callable[[socket.socket, Identity, Listener, Clock, int, Sequence[str], OpenSocket | None, Facilities], RuntimeApi]
"""Makes the three APIs of one sandbox, on a socket that listens there: who they answer for, who hears of it, the clock, the cap of a
buffered response, the names of external extensions, how to open a socket inside, and what else is served. Closes the listening socket
when it is closed."""


class StoryRecorder(Protocol):
    """Where what happened is kept, for ``lambent story``. ``at`` is wall time in seconds."""

    def record(self, subject_id: str, event: str, cause: str = "", detail: str = "", at: float = 0.0) -> None: ...


@dataclass(frozen=True, slots=True)
class Fittings:
    """``spawn`` runs a coroutine as a task of the node's and keeps hold of it. Without ``open_api`` no process inside finds an API."""

    driver: SandboxDriver
    clock: Clock
    sink: LogSink
    story: StoryRecorder
    spec_for: SpecFor
    runtime_version: RuntimeVersionOf
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    response_cap: int
    stream_cap: int
    init_timeout: float
    open_api: OpenApi | None = None
    zone: str = ""  # the id of the availability zone that functions are told; by default the first one of their Region

    def init_limit(self, version: FunctionVersion) -> float:
        """How long init may take, in seconds (contract 01 §8)."""
        return self.init_timeout if version.initialization == ON_DEMAND else max(PROVISIONED_INIT_SECONDS, float(version.timeout_s))


@dataclass(frozen=True, slots=True)
class EnvironmentInfo:
    """One line of ``lambent ps``. ``since`` is when the state was entered, in epoch seconds."""

    id: str
    function: str  # unqualified ARN
    version: str
    tenant: str
    state: str
    since: float
    invocations: int
    memory_bytes: int  # the most it has used
    log_stream: str


def log_stream_name(version: FunctionVersion, environment_id: str, clock: Clock) -> str:
    """``YYYY/MM/DD/[<version>]<32 hex>``; in a log group of the user's own the function's name precedes the bracket (contract 03 §8)."""
    day = datetime.fromtimestamp(int(clock.now()), UTC).strftime("%Y/%m/%d")
    own = version.log_group not in {"", f"/aws/lambda/{version.arn.name}"}
    return f"{day}/{version.arn.name if own else ''}[{version.version}]{environment_id}"
