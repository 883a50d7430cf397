"""The lines that the platform writes into a function's log, and what turns a pipe's bytes into lines (contract 03 §8).

Everything here is pure: the caller brings times and figures, and gets text or lines back.

**Line ends.** CloudWatch keeps the line feed of every line that a function prints, so ours end with one as well: a line is what stands up
to and with ``\\n``. A carriage return ends nothing, because runtimes join the lines of one record (a traceback) with it and mean them
to stay one event.

**Bounds.** A line of more than 262,144 bytes is cut into several, never inside a UTF-8 character. So endless output costs
a bounded buffer and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

LINE_LIMIT = 262_144
TAIL_LIMIT = 4_096
_CUT = 2 * TAIL_LIMIT


def init_start(runtime_version: str, runtime_version_arn: str) -> str:
    """``runtime_version`` is like ``python:3.14.v5``."""
    return f"INIT_START Runtime Version: {runtime_version}\tRuntime Version ARN: {runtime_version_arn}\n"


def restore_start(runtime_version: str, runtime_version_arn: str) -> str:
    return f"RESTORE_START Runtime Version: {runtime_version}\tRuntime Version ARN: {runtime_version_arn}\n"


def start(request_id: str, version: str) -> str:
    """``version`` is ``$LATEST`` or a number, whatever alias was called."""
    return f"START RequestId: {request_id} Version: {version}\n"


def end(request_id: str) -> str:
    return f"END RequestId: {request_id}\n"


@dataclass(slots=True)
class Report:
    """What a REPORT line tells. Times in milliseconds, memory in MB; ``None`` and ``""`` leave a field out. Not frozen, for speed.

    ``status`` is ``timeout`` or ``error`` (then with ``error_type``); ``trace_id`` brings the second line, and needs ``segment_id``.
    """

    request_id: str
    duration_ms: float
    billed_ms: int
    memory_mb: int
    max_memory_mb: int
    init_ms: float | None = None
    status: str = ""
    error_type: str = ""
    restore_ms: float | None = None
    billed_restore_ms: int | None = None
    trace_id: str = ""
    segment_id: str = ""
    sampled: bool = True


def report(figures: Report) -> str:
    """The REPORT line, with its fields in AWS's order.

    The last field is followed by a tab, except a status, which ends the line.
    """
    fields = [
        f"REPORT RequestId: {figures.request_id}",
        f"Duration: {figures.duration_ms:.2f} ms",
        f"Billed Duration: {figures.billed_ms} ms",
        f"Memory Size: {figures.memory_mb} MB",
        f"Max Memory Used: {figures.max_memory_mb} MB",
    ]
    if figures.init_ms is not None:
        fields.append(f"Init Duration: {figures.init_ms:.2f} ms")
    if figures.status:
        fields.append(f"Status: {figures.status}")
    if figures.error_type:
        fields.append(f"Error Type: {figures.error_type}")
    if figures.restore_ms is not None:
        fields.append(f"Restore Duration: {figures.restore_ms:.2f} ms")
    if figures.billed_restore_ms is not None:
        fields.append(f"Billed Restore Duration: {figures.billed_restore_ms} ms")
    ends_with_status = bool(figures.status or figures.error_type) and figures.restore_ms is None and figures.billed_restore_ms is None
    line = "\t".join(fields) + ("\n" if ends_with_status else "\t\n")
    if figures.trace_id:
        line += f"XRAY TraceId: {figures.trace_id}\tSegmentId: {figures.segment_id}\tSampled: {str(figures.sampled).lower()}\t\n"
    return line


def init_report(init_ms: float, phase: str, status: str, error_type: str = "") -> str:
    """Init failed or took too long. ``phase`` is ``init``, or ``invoke`` on the retry; ``status`` ``timeout`` or ``error``."""
    extra = f"\tError Type: {error_type}" if error_type else ""
    return f"INIT_REPORT Init Duration: {init_ms:.2f} ms\tPhase: {phase}\tStatus: {status}{extra}\n"


def restore_report(restore_ms: float, status: str = "", error_type: str = "") -> str:
    """``status`` only where the restore failed."""
    extra = (f"\tStatus: {status}" if status else "") + (f"\tError Type: {error_type}" if error_type else "")
    return f"RESTORE_REPORT Restore Duration: {restore_ms:.2f} ms{extra}\n"


def timestamp(at: float) -> str:
    """Wall time (seconds) as AWS writes it: ``2026-01-01T00:00:00.000Z``; the milliseconds are cut, never rounded up."""
    whole = int(at * 1000)
    moment = datetime.fromtimestamp(whole // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{whole % 1000:03d}Z"


def timed_out(at: float, request_id: str, seconds: float) -> str:
    """The invocation was cut off at its timeout of ``seconds``; ``at`` is wall time in seconds."""
    return f"{timestamp(at)} {request_id} Task timed out after {seconds:.2f} seconds\n\n"


def runtime_exited(request_id: str, error_type: str, reason: str) -> str:
    """The runtime is dead: ``reason`` is the driver's ``Runtime exited with error: exit status 1`` or its siblings."""
    return f"RequestId: {request_id} Error: {reason}\n{error_type}\n"


def image_launch_error(text: str, entry: Sequence[str], command: Sequence[str], workdir: str) -> str:
    """A container image that cannot be started; ``text`` is why, the rest what was to be started."""
    return f"IMAGE\tLaunch error: {text}\tEntrypoint: [{','.join(entry)}]\tCmd: [{','.join(command)}]\tWorkingDir: [{workdir}]\n"


def extension(name: str, state: str, events: tuple[str, ...], error_type: str = "") -> str:
    """``state`` is ``Registered``, ``Ready``, ``LaunchError``, ..."""
    extra = f"\tError Type: {error_type}" if error_type else ""
    return f"EXTENSION\tName: {name}\tState: {state}\tEvents: [{', '.join(events)}]{extra}\n"


def telemetry(name: str, types: tuple[str, ...], state: str = "Subscribed") -> str:
    """An extension subscribed to ``types`` (``Platform``, ``Function``, ``Extension``)."""
    return f"TELEMETRY\tName: {name}\tState: {state}\tTypes: [{', '.join(types)}]\n"


class LineSplitter:
    """Bytes in, whole lines out. Holds at most one unfinished line, which is at most ``limit`` bytes long."""

    __slots__ = ("_limit", "_rest")

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that ``data`` completes, each with its line feed (or without, where an over-long line was cut)."""
        parts = (self._rest + data).split(b"\n") if self._rest else data.split(b"\n")
        rest = parts.pop()
        lines: list[str] = []
        for part in parts:
            if len(part) < self._limit:
                lines.append(part.decode("utf-8", "replace") + "\n")
            else:
                self._cut(part + b"\n", lines)
        self._rest = self._cut(rest, lines, keep=True) if len(rest) > self._limit else rest
        return lines

    def flush(self) -> list[str]:
        """Whatever still lacks its line feed, as a line of its own."""
        rest, self._rest = self._rest, b""
        return [rest.decode("utf-8", "replace")] if rest else []

    def _cut(self, data: bytes, lines: list[str], keep: bool = False) -> bytes:
        """Put ``data`` into ``lines`` in pieces of at most the limit; with ``keep``, give the last, unfinished piece back instead."""
        at, size = 0, len(data)
        while size - at > self._limit:
            end = _boundary(data, at + self._limit)
            lines.append(data[at:end].decode("utf-8", "replace"))
            at = end
        if keep:
            return data[at:]
        lines.append(data[at:].decode("utf-8", "replace"))
        return b""


def _boundary(data: bytes, end: int) -> int:
    """The last character boundary at or before ``end``: of a character's at most four bytes all but the first are ``10xxxxxx``."""
    for back in range(4):
        if data[end - back] & 0xC0 != 0x80:
            return end - back
    return end


class LogTail:
    """Exactly the last 4,096 bytes of what was added, as ``X-Amz-Log-Result`` wants them."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, data: bytes) -> None:
        held = self._bytes
        held += data[-TAIL_LIMIT:] if len(data) > TAIL_LIMIT else data
        if len(held) > _CUT:
            del held[:-TAIL_LIMIT]

    def value(self) -> bytes:
        return bytes(self._bytes[-TAIL_LIMIT:])
