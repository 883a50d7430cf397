"""How an invocation ends: its figures, what its caller gets, and what is written in the log (contract 03 §8)."""

from __future__ import annotations

import math
from dataclasses import replace

from lambent.clock import Clock
from lambent.function_version import FunctionVersion
from lambent.invoke.environment_events import Outcome
from lambent.invoke.fittings import StoryRecorder
from lambent.invoke.invocation import InvocationResult
from lambent.invoke.job import Job
from lambent.invoke.log_pump import LogPump
from lambent.observe import log_lines

MB = 2**20


class Report:
    """One invocation and how it ended. Durations are milliseconds; ``init_ms`` is for the first one after a successful init phase."""

    __slots__ = ("_job", "_outcome", "_version", "billed_ms", "duration_ms", "init_ms", "memory_peak")

    def __init__(self, job: Job, outcome: Outcome, version: FunctionVersion, memory_peak: int) -> None:
        self._job = job
        self._outcome = outcome
        self._version = version
        self.memory_peak = memory_peak
        self.duration_ms = (outcome.ended_at - outcome.began_at) * 1000
        self.init_ms = None if outcome.init_s is None else outcome.init_s * 1000
        self.billed_ms = math.ceil(self.duration_ms + (self.init_ms or 0.0))

    def result(self, tail: bytes) -> InvocationResult:
        """What the caller gets; not for a fault of the platform's."""
        outcome, duration, init = self._outcome, self.duration_ms, self.init_ms
        return InvocationResult(
            outcome.payload,
            self._version.version,
            "Unhandled" if outcome.function_error else None,
            outcome.content_type,
            tail,
            self._job.trace,
            self.billed_ms,
            {"duration_ms": duration} if init is None else {"duration_ms": duration, "init_ms": init},
            outcome.error_type,
        )

    def write(self, pump: LogPump, clock: Clock, story: StoryRecorder, environment_id: str) -> bytes:
        """Write what ends an invocation in the log; gives the tail."""
        outcome, version, request_id = self._outcome, self._version, self._job.call.request_id
        story.record(request_id, outcome.status, environment_id, outcome.error_type, clock.now())
        pump.end_line()
        if outcome.status == "timeout":
            pump.platform(log_lines.timed_out(clock.now(), request_id, float(version.timeout_s)))
        elif outcome.note:
            pump.platform(outcome.note)
        pump.platform(log_lines.end(request_id))
        used = min(math.ceil(self.memory_peak / MB), version.memory_mb)  # the kernel counts /tmp too, AWS does not
        report = log_lines.Report(request_id, self.duration_ms, self.billed_ms, version.memory_mb, used, self.init_ms)
        if outcome.status != "success":
            error_type = outcome.error_type if outcome.status == "error" else ""
            report = replace(report, status=outcome.status, error_type=error_type)
        pump.platform(log_lines.report(report))
        return pump.finish()
