"""Who tells what happens in an environment to those who listen: its log, as text or as JSON, and whoever subscribed to its telemetry.

One narrator per sandbox. Everything that happens is an event of ``observe/platform_events.py``; ``tell`` makes of it what the function's
LogFormat wants and publishes it inside. Nearly all functions log text and have no subscriber; then ``plain`` is true once init is over, and
who has a line to write writes it without an event (``invoke/report.py``, ``begin``).

**Early events.** Whoever subscribes does so during init, when INIT_START is long past. An API inside keeps what is published until init is
over, but it may itself be opened late, with the first connection. So until then the narrator keeps what there was, within bounds.
"""

from __future__ import annotations

from typing import Any

from lambent.clock import Clock
from lambent.function_version import FunctionVersion
from lambent.invoke.job import Job
from lambent.invoke.log_pump import LogPump
from lambent.observe import log_lines
from lambent.observe.log_levels import rank
from lambent.observe.platform_events import InitStart, PlatformEvent, Start, json_line
from lambent.runtime_api.events import RuntimeApi

EARLY_ITEMS, EARLY_CHARACTERS = 1000, 262_144


class Narrator:
    """``plain``: a text log and nobody else; true at the end of init at the earliest."""

    __slots__ = ("_api", "_clock", "_early", "_early_size", "_extension_pump", "_least", "_pump", "_text", "_version", "phase", "plain")

    def __init__(self, pump: LogPump, version: FunctionVersion, clock: Clock, phase: str = "init") -> None:
        self.phase = phase
        self.plain = False
        self._pump = pump
        self._extension_pump: LogPump | None = None
        self._version = version
        self._clock = clock
        self._text = version.log_format != "JSON"
        self._least = rank(version.system_log_level)
        self._api: RuntimeApi | None = None
        self._early: list[tuple[PlatformEvent | str | dict[str, Any], float, str]] | None = []
        self._early_size = 0
        pump.tap = self._function_line

    # ------------------------------------------------------------------------------------------------------- who listens

    def adopt(self, pump: LogPump) -> None:
        """The pump of what extensions print."""
        self._extension_pump = pump
        pump.tap = self._extension_line

    def opened(self, api: RuntimeApi) -> None:
        """The API inside is there: it gets what came before it."""
        self._api = api
        for what, at, category in self._early or ():
            self._publish(what, at, category)
        if self._early is not None:
            self._early = []

    def settle(self) -> None:
        """Init is over: whoever has not subscribed by now never will."""
        self._early = None
        wanted = self._api.wants_telemetry if self._api is not None else frozenset()
        self.plain = self._text and "platform" not in wanted
        if "function" not in wanted:
            self._pump.tap = None
        if self._extension_pump is not None and "extension" not in wanted:
            self._extension_pump.tap = None

    # ------------------------------------------------------------------------------------------------------ what happens

    def tell(self, event: PlatformEvent, at: float = 0.0) -> None:
        """``at`` is when it happened, in epoch seconds, if not now."""
        at = at or self._clock.now()
        stamp = at if isinstance(event, Start) else 0.0
        if self._text:
            for line in event.lines():
                self._pump.platform(line, stamp)
        elif event.level() >= self._least:
            self._pump.platform(json_line(event, at), stamp)
        self._hear(event, at, "platform")

    def init_start(self, runtime_version: str, runtime_version_arn: str, log_stream: str) -> None:
        """A sandbox is about to be made."""
        version = self._version
        event = InitStart(
            self.phase,
            runtime_version,
            runtime_version_arn,
            version.arn.name,
            version.version,
            str(version.arn),
            log_stream,
            version.memory_mb,
            initialization_type=version.initialization,
        )
        self.tell(event)

    def begin(self, job: Job, at: float) -> None:
        """START, ``at`` that time: what the function says bears a time of its own, and it may be at work before we come to write this."""
        call = job.call
        self._pump.begin(call.want_log)
        if self.plain:
            self._pump.platform(log_lines.start(call.request_id, self._version.version), at)
        else:
            self.tell(Start(call.request_id, self._version.version, job.trace, call.tenant), at)

    def wall(self, at: float) -> float:
        """The epoch seconds of ``at``, which is monotonic."""
        return self._clock.now() - self._clock.monotonic() + at

    # ------------------------------------------------------------------------------------------------------------ inside

    def _function_line(self, at: float, line: str | dict[str, Any]) -> None:
        self._hear(line, at, "function")

    def _extension_line(self, at: float, line: str | dict[str, Any]) -> None:
        self._hear(line, at, "extension")

    def _hear(self, what: PlatformEvent | str | dict[str, Any], at: float, category: str) -> None:
        if self._api is not None:
            if self._early is not None or category in self._api.wants_telemetry:
                self._publish(what, at, category)
        elif self._early is not None:
            self._early_size += len(what) if isinstance(what, str) else 400
            if self._early_size <= EARLY_CHARACTERS and len(self._early) < EARLY_ITEMS:
                self._early.append((what, at, category))

    def _publish(self, what: PlatformEvent | str | dict[str, Any], at: float, category: str) -> None:
        assert self._api is not None
        if isinstance(what, (str, dict)):
            self._api.publish(category, what, at, category)
        else:
            self._api.publish(what.kind, what.record(), at, category)
