"""The three APIs of a sandbox without HTTP: what an environment delivers is noted down, and the test speaks for everybody inside.

``FakeApis`` is an ``OpenApi``; ``apis.opened[-1]`` is the one of the newest sandbox that has one.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from lambent.clock import Clock
from lambent.runtime_api.events import ExtensionFailed, Identity, InvokeEvent, Listener, Registered
from lambent.runtime_api.frames import Frame, FrameType


class FakeRuntimeApi:
    """See ``runtime_api.events.RuntimeApi``."""

    def __init__(self, listening: socket.socket, identity: Identity, listener: Listener, external: Sequence[str]) -> None:
        self.identity = identity
        self.external = tuple(external)
        self.invocations: list[InvokeEvent] = []
        self.to_runtime: list[bool] = []
        self.init_over = False
        self.paused = False
        self.shutdowns: list[tuple[str, int]] = []
        self.closed = False
        self.deaf = False  # the runtime's connection is gone
        self._listening = listening
        self._listener = listener
        self._extensions: dict[str, Registered] = {}

    # ------------------------------------------------------------------------------------------------- for environments

    @property
    def extensions(self) -> Mapping[str, Registered]:
        return self._extensions

    @property
    def wants_telemetry(self) -> frozenset[str]:
        return frozenset()

    def invoke(self, event: InvokeEvent, *, to_runtime: bool) -> bool:
        if self.deaf and to_runtime:
            return False
        self.invocations.append(event)
        self.to_runtime.append(to_runtime)
        return True

    def end_init(self) -> None:
        self.init_over = True

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def shutdown(self, reason: str, deadline_ms: int) -> None:
        self.shutdowns.append((reason, deadline_ms))

    def publish(self, kind: str, record: Any, time: float, category: str) -> None:
        return None

    async def close(self) -> None:
        self.closed = True
        self._listening.close()

    # -------------------------------------------------------------------------------------------- for whoever is inside

    def register(self, name: str, *events: str) -> None:
        registered = Registered(name, f"id-{name}", events, name in self.external)
        self._extensions[name] = registered
        self._listener.on_registered(registered)

    def ready(self) -> None:
        """Every extension waits for its next event."""
        self._listener.on_extensions_ready()

    def fail(self, name: str, during: str, error_type: str) -> None:
        self._listener.on_extension_failed(ExtensionFailed(name, during, error_type))

    def next(self) -> None:
        """The runtime asks for an invocation."""
        self._listener.on_runtime_frames([Frame(FrameType.NEXT, "", b"")])

    def respond(self, event: InvokeEvent, body: bytes) -> None:
        head = f"{event.token}\n{event.request_id}\napplication/json"
        self._listener.on_runtime_frames([Frame(FrameType.RESPONSE, head, body)])

    def say(self, kind: FrameType, head: str, body: bytes = b"") -> None:
        self._listener.on_runtime_frames([Frame(kind, head, body)])


class FakeApis:
    """Opens them, and keeps hold of them."""

    def __init__(self) -> None:
        self.opened: list[FakeRuntimeApi] = []

    def __call__(
        self,
        listening: socket.socket,
        identity: Identity,
        listener: Listener,
        clock: Clock,
        response_cap: int,
        external: Sequence[str],
        open_socket: object,
        facilities: object,
    ) -> FakeRuntimeApi:
        del clock, response_cap, open_socket, facilities
        self.opened.append(FakeRuntimeApi(listening, identity, listener, external))
        return self.opened[-1]
