"""What happens to an execution environment, told once and seen three ways (contract 03 §4, §8).

Every event here is a small value that its owner makes when something happens. Three readers make three things of it, and each only when
it is asked:

* ``lines()``, the text of a log in the Text format: none, one or two lines (``log_lines.py`` words them);
* ``json_line(event, at)``, the line of a log in the JSON format;
* ``record()``, what the Telemetry API delivers under ``kind``; the JSON line is the same thing with its envelope.

A function that logs text and has no subscribers pays for ``lines()`` and for nothing else.

**Levels.** A JSON log has a SystemLogLevel. What went well is INFO where people look for it (start, report) and DEBUG where it only tells
of steps in between; whatever did not go well is WARN, so that it passes every setting. Subscribers are not filtered.

Pure: times and figures are brought along. Times are epoch seconds, durations milliseconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from lambent.observe import log_lines
from lambent.observe.log_levels import DEBUG, INFO, WARN

Record = Mapping[str, Any] | str

ON_DEMAND = "on-demand"
_error_type = re.compile(r"(?:Runtime|Function|Extension|Sandbox)\.[A-Z][a-zA-Z]+").fullmatch


class PlatformEvent(Protocol):
    """Something that the platform tells."""

    kind: ClassVar[str]

    def lines(self) -> tuple[str, ...]:
        """The lines of a text log."""
        ...

    def record(self) -> Record:
        """The record of a telemetry event."""
        ...

    def level(self) -> int:
        """Of ``log_levels``."""
        ...


def json_line(event: PlatformEvent, at: float) -> str:
    """The line of a JSON log. ``at`` is when it happened."""
    document = {"time": log_lines.timestamp(at), "type": event.kind, "record": event.record()}
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n"


def error_type(named: str) -> str:
    """What the world is told of an error type that user code named: AWS's own words, never a stranger's (contract 02 §2.1)."""
    if not named or _error_type(named):
        return named
    return "Function.Unknown" if named.startswith("Function.") else "Runtime.Unknown"


@dataclass(slots=True)
class Span:
    """A stretch of an invocation: ``responseLatency``, ``responseDuration``, ``runtimeOverhead`` or ``extensionOverhead``."""

    name: str
    start: float
    duration_ms: float


def _spans(spans: tuple[Span, ...]) -> list[dict[str, Any]]:
    return [
        {"name": span.name, "start": log_lines.timestamp(span.start), "durationMs": round(max(span.duration_ms, 0.0), 3)} for span in spans
    ]


def _tracing(trace: str) -> dict[str, Any]:
    """``trace`` is an X-Ray header; its Parent is the span that the function runs in."""
    parts = dict(part.strip().partition("=")[::2] for part in trace.split(";"))
    parent = parts.get("Parent", "")
    return {**({"spanId": parent} if parent else {}), "type": "X-Amzn-Trace-Id", "value": trace}


def _status(status: str, named: str) -> dict[str, Any]:
    return {"status": status, "errorType": error_type(named)} if named else {"status": status}


def _level(status: str, good: int) -> int:
    return good if status == "success" else WARN


# ----------------------------------------------------------------------------------------------------------------------- init


@dataclass(slots=True)
class InitStart:
    """``phase`` is ``init``, or ``invoke`` where a failed one is run again inside an invocation, which text logs do not tell.

    ``runtime_version`` is empty for container images, which have none and no INIT_START line either.
    """

    kind: ClassVar[str] = "platform.initStart"
    phase: str
    runtime_version: str
    runtime_version_arn: str
    function_name: str
    function_version: str
    function_arn: str
    log_stream: str
    memory_mb: int
    initialization_type: str = ON_DEMAND

    def lines(self) -> tuple[str, ...]:
        if self.phase != "init" or not self.runtime_version:
            return ()
        return (log_lines.init_start(self.runtime_version, self.runtime_version_arn),)

    def record(self) -> Record:
        runtime = {"runtimeVersion": self.runtime_version, "runtimeVersionArn": self.runtime_version_arn} if self.runtime_version else {}
        return {
            "initializationType": self.initialization_type,
            "phase": self.phase,
            **runtime,
            "functionName": self.function_name,
            "functionArn": self.function_arn,
            "functionVersion": self.function_version,
            "instanceId": self.log_stream,
            "instanceMaxMemory": self.memory_mb * 2**20,
        }

    def level(self) -> int:
        return INFO


@dataclass(slots=True)
class InitRuntimeDone:
    """``status``: success, error or timeout."""

    kind: ClassVar[str] = "platform.initRuntimeDone"
    phase: str
    status: str
    error_type: str = ""
    initialization_type: str = ON_DEMAND

    def lines(self) -> tuple[str, ...]:
        return ()

    def record(self) -> Record:
        return {"initializationType": self.initialization_type, "phase": self.phase, **_status(self.status, self.error_type)}

    def level(self) -> int:
        return _level(self.status, DEBUG)


@dataclass(slots=True)
class InitReport:
    """The end of init. A text log tells of it only if it went wrong: else its duration stands in the first REPORT."""

    kind: ClassVar[str] = "platform.initReport"
    phase: str
    status: str
    duration_ms: float
    error_type: str = ""
    initialization_type: str = ON_DEMAND

    def lines(self) -> tuple[str, ...]:
        if self.status == "success":
            return ()
        return (log_lines.init_report(self.duration_ms, self.phase, self.status, error_type(self.error_type)),)

    def record(self) -> Record:
        return {
            "initializationType": self.initialization_type,
            "phase": self.phase,
            **_status(self.status, self.error_type),
            "metrics": {"durationMs": round(self.duration_ms, 3)},
        }

    def level(self) -> int:
        return _level(self.status, DEBUG if self.initialization_type == ON_DEMAND else INFO)


# -------------------------------------------------------------------------------------------------------------------- restore


@dataclass(slots=True)
class RestoreStart:
    """A snapshot is about to be woken."""

    kind: ClassVar[str] = "platform.restoreStart"
    runtime_version: str
    runtime_version_arn: str
    function_name: str
    function_version: str
    log_stream: str = ""
    memory_mb: int = 0

    def lines(self) -> tuple[str, ...]:
        return (log_lines.restore_start(self.runtime_version, self.runtime_version_arn),)

    def record(self) -> Record:
        more = {"instanceId": self.log_stream, "instanceMaxMemory": self.memory_mb * 2**20} if self.log_stream else {}
        return {
            "functionName": self.function_name,
            "functionVersion": self.function_version,
            "runtimeVersion": self.runtime_version,
            "runtimeVersionArn": self.runtime_version_arn,
            **more,
        }

    def level(self) -> int:
        return INFO


@dataclass(slots=True)
class RestoreRuntimeDone:
    kind: ClassVar[str] = "platform.restoreRuntimeDone"
    status: str
    error_type: str = ""
    spans: tuple[Span, ...] = ()

    def lines(self) -> tuple[str, ...]:
        return ()

    def record(self) -> Record:
        return {**_status(self.status, self.error_type), **({"spans": _spans(self.spans)} if self.spans else {})}

    def level(self) -> int:
        return _level(self.status, DEBUG)


@dataclass(slots=True)
class RestoreReport:
    kind: ClassVar[str] = "platform.restoreReport"
    status: str
    duration_ms: float
    error_type: str = ""

    def lines(self) -> tuple[str, ...]:
        return (log_lines.restore_report(self.duration_ms, "" if self.status == "success" else self.status, self.error_type),)

    def record(self) -> Record:
        return {**_status(self.status, self.error_type), "metrics": {"durationMs": round(self.duration_ms, 3)}}

    def level(self) -> int:
        return _level(self.status, INFO)


# --------------------------------------------------------------------------------------------------------------------- invoke


@dataclass(slots=True)
class Start:
    """``version`` is ``$LATEST`` or a number, ``trace`` the header that the function sees."""

    kind: ClassVar[str] = "platform.start"
    request_id: str
    version: str
    trace: str = ""
    tenant: str = ""

    def lines(self) -> tuple[str, ...]:
        return (log_lines.start(self.request_id, self.version),)

    def record(self) -> Record:
        return {"requestId": self.request_id, "version": self.version, **_owner(self.tenant, self.trace)}

    def level(self) -> int:
        return INFO


def _owner(tenant: str, trace: str) -> dict[str, Any]:
    named = {"tenantId": tenant} if tenant else {}
    return {**named, "tracing": _tracing(trace)} if trace else named


@dataclass(slots=True)
class RuntimeDone:
    """The runtime has answered and asked for more, or it never will."""

    kind: ClassVar[str] = "platform.runtimeDone"
    request_id: str
    status: str
    duration_ms: float
    produced_bytes: int
    spans: tuple[Span, ...] = ()
    error_type: str = ""
    trace: str = ""
    tenant: str = ""

    def lines(self) -> tuple[str, ...]:
        return ()

    def record(self) -> Record:
        return {
            "requestId": self.request_id,
            **_status(self.status, self.error_type),
            "metrics": {"durationMs": round(self.duration_ms, 3), "producedBytes": self.produced_bytes},
            **({"spans": _spans(self.spans)} if self.spans else {}),
            **_owner(self.tenant, self.trace),
        }

    def level(self) -> int:
        return _level(self.status, DEBUG)


@dataclass(slots=True)
class Report:
    """``figures`` are those of the REPORT line. Their status is not always the event's: text logs have no word for an exception."""

    kind: ClassVar[str] = "platform.report"
    figures: log_lines.Report
    status: str
    error_type: str = ""
    spans: tuple[Span, ...] = ()
    trace: str = ""
    tenant: str = ""

    def lines(self) -> tuple[str, ...]:
        return (log_lines.end(self.figures.request_id), log_lines.report(self.figures))

    def record(self) -> Record:
        figures = self.figures
        metrics: dict[str, Any] = {
            "durationMs": round(figures.duration_ms, 3),
            "billedDurationMs": figures.billed_ms,
            "memorySizeMB": figures.memory_mb,
            "maxMemoryUsedMB": figures.max_memory_mb,
        }
        if figures.init_ms is not None:
            metrics["initDurationMs"] = round(figures.init_ms, 3)
        if figures.restore_ms is not None:
            metrics["restoreDurationMs"] = round(figures.restore_ms, 3)
        if figures.billed_restore_ms is not None:
            metrics["billedRestoreDurationMs"] = figures.billed_restore_ms
        return {
            "requestId": figures.request_id,
            **_status(self.status, self.error_type),
            "metrics": metrics,
            **({"spans": _spans(self.spans)} if self.spans else {}),
            **_owner(self.tenant, self.trace),
        }

    def level(self) -> int:
        return _level(self.status, INFO)


@dataclass(slots=True)
class Fault:
    """What the platform has to say of an invocation that ended badly; ``text`` is a line of a text log. Only the Logs API tells of it."""

    kind: ClassVar[str] = "platform.fault"
    text: str

    def lines(self) -> tuple[str, ...]:
        return (self.text,)

    def record(self) -> Record:
        return self.text.rstrip("\n")

    def level(self) -> int:
        return WARN


# ----------------------------------------------------------------------------------------------------------------- extensions


@dataclass(slots=True)
class Extension:
    """``state``: Registered, Ready, LaunchError, Failed. ``events`` are those that it asked for."""

    kind: ClassVar[str] = "platform.extension"
    name: str
    state: str
    events: tuple[str, ...]
    error_type: str = ""

    def lines(self) -> tuple[str, ...]:
        return (log_lines.extension(self.name, self.state, self.events, self.error_type),)

    def record(self) -> Record:
        failed = {"errorType": self.error_type} if self.error_type else {}
        return {"name": self.name, "state": self.state, "events": list(self.events), **failed}

    def level(self) -> int:
        return WARN if self.error_type else INFO


@dataclass(slots=True)
class TelemetrySubscription:
    """``types`` as an extension writes them: platform, function, extension. Subscribers of the Logs API see it as logsSubscription."""

    kind: ClassVar[str] = "platform.telemetrySubscription"
    name: str
    types: tuple[str, ...]
    state: str = "Subscribed"

    def lines(self) -> tuple[str, ...]:
        return (log_lines.telemetry(self.name, tuple(kind.capitalize() for kind in self.types), self.state),)

    def record(self) -> Record:
        return {"name": self.name, "state": self.state, "types": list(self.types)}

    def level(self) -> int:
        return INFO


@dataclass(slots=True)
class LogsSubscription:
    """The same through the Logs API."""

    kind: ClassVar[str] = "platform.logsSubscription"
    name: str
    types: tuple[str, ...]
    state: str = "Subscribed"

    def lines(self) -> tuple[str, ...]:
        types = ", ".join(kind.capitalize() for kind in self.types)
        return (f"LOGS\tName: {self.name}\tState: {self.state}\tTypes: [{types}]\n",)

    def record(self) -> Record:
        return {"name": self.name, "state": self.state, "types": list(self.types)}

    def level(self) -> int:
        return INFO


@dataclass(slots=True)
class LogsDropped:
    """A subscriber fell behind. Subscribers alone hear of it (``runtime_api/telemetry.py``)."""

    kind: ClassVar[str] = "platform.logsDropped"
    reason: str
    dropped_records: int
    dropped_bytes: int

    def lines(self) -> tuple[str, ...]:
        return ()

    def record(self) -> Record:
        return {"reason": self.reason, "droppedRecords": self.dropped_records, "droppedBytes": self.dropped_bytes}

    def level(self) -> int:
        return WARN
