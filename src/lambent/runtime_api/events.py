"""What passes between an execution environment and the three APIs that its processes see over HTTP (contract 03, sections 2 to 4).

The environment (``invoke/environment.py``) owns a ``RuntimeApi`` per sandbox, gives it what there is to deliver, and hears what happened
through ``Listener``. Who is ready for what, which answer is in order and which registration is too late is decided by the pure sessions
behind it (``runtime_api/session_state.py``, ``extension_state.py``); the environment never sees HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from lambent.runtime_api.frames import Frame


@dataclass(frozen=True, slots=True)
class Identity:
    """What registrations are answered with."""

    function_name: str
    function_version: str
    handler: str
    account_id: str


@dataclass(frozen=True, slots=True)
class InvokeEvent:
    """One invocation, for the runtime (over HTTP) and for every extension that asked for INVOKE."""

    token: int
    request_id: str
    deadline_ms: int  # epoch
    invoked_arn: str  # as addressed, with its qualifier
    trace: str
    payload: bytes
    tenant: str = ""
    client_context: str = ""
    cognito: str = ""


@dataclass(frozen=True, slots=True)
class Registered:
    """An extension registered. ``external`` if its name is one of the files in ``/opt/extensions``."""

    name: str
    identifier: str
    events: tuple[str, ...]
    external: bool


@dataclass(frozen=True, slots=True)
class ExtensionFailed:
    """``init/error`` or ``exit/error`` of an extension. ``error_type`` is what it said; ``during`` is "init" or "exit"."""

    name: str
    during: str
    error_type: str


class Listener(Protocol):
    """What a ``RuntimeApi`` tells its environment. Called from the loop's thread, never from within a call of the environment."""

    def on_runtime_frames(self, frames: list[Frame]) -> None:
        """A runtime over HTTP asked for the next invocation, answered, streamed or failed: the same frames as over the channel."""
        ...

    def on_registered(self, event: Registered) -> None: ...

    def on_extensions_ready(self) -> None:
        """Every registered extension waits in ``event/next`` (again). Told once after the last registration and once after each INVOKE.

        After an INVOKE only if some extension asked for INVOKE: the others wait all along. Not before all external ones have registered.
        """
        ...

    def on_extension_failed(self, event: ExtensionFailed) -> None: ...

    def on_subscribed(self, name: str, types: tuple[str, ...], api: str) -> None:
        """An extension subscribed to telemetry (types of contract 03 section 4); ``api`` is "telemetry" or "logs"."""
        ...


class RuntimeApi(Protocol):
    """The three APIs of one sandbox."""

    @property
    def extensions(self) -> Mapping[str, Registered]:
        """Registered extensions by name."""
        ...

    @property
    def extensions_ready(self) -> bool:
        """Every external extension has registered, and every registered one waits in ``event/next``."""
        ...

    @property
    def wants_telemetry(self) -> frozenset[str]:
        """Types of telemetry that somebody subscribed to: platform, function, extension."""
        ...

    def invoke(self, event: InvokeEvent, *, to_runtime: bool) -> bool:
        """Deliver to the extensions that asked for INVOKE, and with ``to_runtime`` to the runtime that waits in ``next``.

        ``False`` if the runtime's connection is gone and nothing was sent.
        """
        ...

    def end_init(self) -> None:
        """No more registrations, subscriptions or init errors."""
        ...

    def pause(self) -> None:
        """Read no more of the runtime's response until ``resume``: whoever it is for is slow."""
        ...

    def resume(self) -> None: ...

    def shutdown(self, reason: str, deadline_ms: int) -> None:
        """Deliver SHUTDOWN (reason "spindown", "timeout" or "failure") to the extensions that asked for it."""
        ...

    def publish(self, kind: str, record: Any, time: float, category: str) -> None:
        """One event: ``kind`` "platform.start", "function", ...; ``category`` platform, function or extension; epoch seconds.

        Until ``end_init`` publish whether or not anybody ``wants_telemetry``: what is early is kept for those who subscribe later. After
        that ask first. For subscribers of the Logs API events are translated; platform.fault is for them alone.
        """
        ...

    async def close(self) -> None:
        """Flush telemetry as far as it goes at once, close every connection. Idempotent."""
        ...
