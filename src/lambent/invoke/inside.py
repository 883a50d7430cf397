"""An environment's side of the three APIs inside its sandbox: who is out there, and their last two seconds.

The APIs (``runtime_api/events.py``) are opened when somebody needs them: at once for a runtime that talks HTTP and where there are external
extensions, else with the first connection, which most functions never make; until then there is one watched descriptor and nothing else.

What is heard becomes events of the environment's machine. Whatever comes from a sandbox that the environment has dropped is not passed on.

**Shutdown** (contract 03 §1). A sandbox without extensions is killed at once. With an internal one the runtime gets SIGTERM and 500 ms;
with an external one 2 s, of which the runtime has the first 30 % to itself; then extensions hear SHUTDOWN. Whoever is through early
shortens it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from lambent.arn import zone_id
from lambent.function_version import FunctionVersion
from lambent.invoke.environment_events import Event, ExtensionFailed, ExtensionsReady, Registered
from lambent.invoke.fittings import Fittings
from lambent.invoke.narrator import Narrator
from lambent.observe import platform_events
from lambent.runtime_api import events
from lambent.runtime_api.events import Identity, InvokeEvent, RuntimeApi
from lambent.runtime_api.extension_routes import Facilities
from lambent.runtime_api.extension_state import MAX_EXTENSIONS
from lambent.runtime_api.frames import Frame
from lambent.sandbox.driver import Sandbox, SandboxExit, SandboxSpec

INTERNAL_SECONDS = 0.5
EXTERNAL_SECONDS = 2.0
RUNTIME_SHARE = 0.3
# Exit codes of a process that could not become the extension: what is wrong in the words of the payload, and in those of the log.
_NOT_LAUNCHED = {126: ("permission denied", "PermissionDenied"), 127: ("no such file or directory", "UnknownError")}

Hear = Callable[["Inside", Event], None]
HearFrames = Callable[["Inside", list[Frame]], None]


class Inside:
    """``hear`` and ``hear_frames`` are the environment's ears, ``narrator`` is its voice."""

    def __init__(
        self,
        sandbox: Sandbox,
        spec: SandboxSpec,
        version: FunctionVersion,
        fittings: Fittings,
        hear: Hear,
        hear_frames: HearFrames,
        narrator: Narrator,
    ) -> None:
        self.over_http = spec.program is not None and spec.program.transport == "http"
        self.api: RuntimeApi | None = None
        self._sandbox = sandbox
        self._spec = spec
        self._version = version
        self._fittings = fittings
        self._hear = hear
        self._hear_frames = hear_frames
        self._narrator = narrator
        self._loop = asyncio.get_running_loop()
        self._external = tuple(path.rpartition("/")[2] for path in spec.extensions)
        self._running = set(self._external)
        self._unregistered = set(self._external)
        self._initializing = True
        self._ending = False
        self._changed: asyncio.Future[None] | None = None
        self._listening: socket.socket | None = getattr(sandbox, "api_listener", None)
        setattr(sandbox, "api_listener", None)  # noqa: B010  (ours from here on; no member of the contract)

    @property
    def has_extensions(self) -> bool:
        """External ones were started with the sandbox."""
        return bool(self._external)

    # ------------------------------------------------------------------------------------------ what the environment calls

    def begin(self) -> None:
        """Listen. What extensions did before, if they ended, is heard at once."""
        if self._listening is not None and self._listening.fileno() >= 0 and self._fittings.open_api is not None:
            if self.over_http or self._external:
                self._open()
            else:
                self._loop.add_reader(self._listening.fileno(), self._first_connection)
        if len(self._external) > MAX_EXTENSIONS:
            self._lost(self._external[MAX_EXTENSIONS], "Extension.LaunchError", "ErrTooManyExtensions", "LaunchError", "TooManyExtensions")
        elif self._external:
            setattr(self._sandbox, "on_extension_exit", self._on_extension_exit)  # noqa: B010

    def invoke(self, event: InvokeEvent) -> bool:
        """Deliver to whoever asked. ``False`` if it was meant for a runtime that is gone."""
        if self.api is None:
            return not self.over_http
        return self.api.invoke(event, to_runtime=self.over_http)

    def flow(self, blocked: bool) -> None:
        """Read no more of a streamed response, or go on."""
        if self.api is not None:
            (self.api.pause if blocked else self.api.resume)()

    def end_init(self) -> None:
        """Everybody is ready."""
        self._initializing = False
        if self.api is not None:
            for extension in self.api.extensions.values():
                self._narrator.tell(platform_events.Extension(extension.name, "Ready", tuple(sorted(extension.events))))
            self.api.end_init()

    def leave(self) -> None:
        """Hear nothing more."""
        self._ending = True
        listening, self._listening = self._listening, None
        if listening is not None and self.api is None:
            if listening.fileno() >= 0:
                self._loop.remove_reader(listening.fileno())
            listening.close()

    async def shut_down(self, reason: str) -> None:
        """The end of everybody inside but for the last blow: ``Sandbox.kill`` follows."""
        if self.api is not None:
            try:
                await self._last_words(self.api, reason)
            finally:
                await self.api.close()

    # ------------------------------------------------------------------------------------------------ what the APIs tell us

    def on_runtime_frames(self, frames: list[Frame]) -> None:
        if not self._ending:
            self._hear_frames(self, frames)

    def on_registered(self, event: events.Registered) -> None:
        self._unregistered.discard(event.name)
        if self._external and not self._unregistered:
            self._release()
        self._tell(Registered("INVOKE" in event.events, self._now()))

    def on_extensions_ready(self) -> None:
        self._tell(ExtensionsReady(self._now()))

    def on_extension_failed(self, event: events.ExtensionFailed) -> None:
        state = "InitError" if event.during == "init" else "ExitError"
        kind = f"Extension.{state}"
        self._lost(event.name, kind, event.error_type or kind, state, event.error_type)

    def on_subscribed(self, name: str, types: tuple[str, ...], api: str) -> None:
        subscription = platform_events.LogsSubscription if api == "logs" else platform_events.TelemetrySubscription
        self._narrator.tell(subscription(name, types))

    # -------------------------------------------------------------------------------------------------------------- inside

    def _on_extension_exit(self, name: str, how: SandboxExit) -> None:
        self._running.discard(name)
        self._notify()
        registered = self.api is not None and name in self.api.extensions
        if not registered and how.code in _NOT_LAUNCHED:
            what, short = _NOT_LAUNCHED[how.code]
            self._lost(name, "Extension.LaunchError", f"fork/exec /opt/extensions/{name}: {what}", "LaunchError", short)
        else:
            detail = "exit code 0" if how.code == 0 else how.reason().rpartition("error: ")[2]
            self._lost(name, "Extension.Crash", detail, "Registered" if registered else "Started", "Extension.Crash")

    def _lost(self, name: str, error_type: str, detail: str, state: str, told_type: str) -> None:
        """``state`` and ``told_type`` are for the log, if this was init: AWS has words of its own there."""
        if self._ending:
            return
        if self._initializing:
            known = self.api.extensions.get(name) if self.api is not None else None
            self._narrator.tell(platform_events.Extension(name, state, known.events if known is not None else (), told_type))
        self._tell(ExtensionFailed(error_type, detail, self._now()))

    def _release(self) -> None:
        """Let the runtime start: everybody who wants to see it from its beginning is there (contract 03 §1)."""
        release: Callable[[], None] | None = getattr(self._sandbox, "release", None)
        if release is not None:
            release()

    def _tell(self, event: Event) -> None:
        if not self._ending:
            self._hear(self, event)

    def _now(self) -> float:
        return self._fittings.clock.monotonic()

    def _first_connection(self) -> None:
        assert self._listening is not None
        self._loop.remove_reader(self._listening.fileno())
        self._open()

    def _open(self) -> None:
        assert self._listening is not None
        assert self._fittings.open_api is not None
        version = self._version
        self.api = self._fittings.open_api(
            self._listening,
            Identity(version.arn.name, version.version, version.handler, version.arn.account),
            self,
            self._fittings.clock,
            self._fittings.response_cap,
            self._external,
            getattr(self._sandbox, "open_socket", None),
            Facilities(
                metadata_token=self._spec.environment.get("AWS_LAMBDA_METADATA_TOKEN", ""),
                zone_id=self._fittings.zone or zone_id(version.arn.region),
            ),
        )
        self._narrator.opened(self.api)
        if not self._initializing:
            self.api.end_init()

    # ------------------------------------------------------------------------------------------------------------ shutdown

    async def _last_words(self, api: RuntimeApi, reason: str) -> None:
        if not api.extensions:
            return
        clock = self._fittings.clock
        outside = any(extension.external for extension in api.extensions.values())
        window = EXTERNAL_SECONDS if outside else INTERNAL_SECONDS
        deadline = clock.monotonic() + window
        self._sandbox.thaw()
        terminate: Callable[[], Any] | None = getattr(self._sandbox, "terminate", None)
        exited = self._sandbox.exited
        exited.add_done_callback(self._notify)
        if terminate is not None and not exited.done():
            terminate()
            await self._until(exited.done, deadline - window * (1 - RUNTIME_SHARE) if outside else deadline)
        api.shutdown(reason, int((clock.now() + deadline - clock.monotonic()) * 1000))
        await self._until(lambda: exited.done() and not self._running, deadline)

    async def _until(self, done: Callable[[], bool], deadline: float) -> None:
        clock = self._fittings.clock
        while not done():
            left = deadline - clock.monotonic()
            if left <= 0:
                return
            self._changed = self._loop.create_future()
            timer = clock.call_later(left, self._notify)
            await self._changed
            timer.cancel()

    def _notify(self, _: Any = None) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
