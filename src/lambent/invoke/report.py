"""How an invocation ends: its figures, what its caller gets, and what its log and its subscribers are told (contract 03 §4, §8)."""

from __future__ import annotations

import math
from dataclasses import replace

from lambent.clock import Clock
from lambent.function_version import FunctionVersion
from lambent.invoke import trace
from lambent.invoke.environment_events import Outcome
from lambent.invoke.fittings import StoryRecorder
from lambent.invoke.invocation import InvocationResult
from lambent.invoke.job import Job
from lambent.invoke.log_pump import LogPump
from lambent.invoke.narrator import Narrator
from lambent.observe import log_lines, platform_events
from lambent.observe.platform_events import Fault, RuntimeDone, Span

MB = 2**20


class Report:
    """One invocation and how it ended. Durations are milliseconds; ``init_ms`` is for the first one after a successful init phase."""

    __slots__ = ("_job", "_outcome", "_version", "billed_ms", "duration_ms", "init_ms", "memory_peak")

    def __init__(self, job: Job, outcome: Outcome, version: FunctionVersion) -> None:
        self._job = job
        self._outcome = outcome
        self._version = version
        self.memory_peak = 0  # bytes; to be known when it is written
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

    def write(self, pump: LogPump, narrator: Narrator, clock: Clock, story: StoryRecorder, environment_id: str) -> bytes:
        """Tell what ends an invocation, and write out its log; gives the tail."""
        outcome, version, request_id = self._outcome, self._version, self._job.call.request_id
        story.record(request_id, outcome.status, environment_id, outcome.error_type, clock.now())
        pump.end_line()
        note = outcome.note
        if outcome.status == "timeout":
            note = log_lines.timed_out(clock.now(), request_id, float(version.timeout_s))
        if not narrator.plain:
            self._tell(narrator, note)
            return pump.finish()
        if note:
            pump.platform(note)
        pump.platform(log_lines.end(request_id))
        pump.platform(log_lines.report(self._figures()))
        return pump.finish()

    def _figures(self) -> log_lines.Report:
        outcome, version, job = self._outcome, self._version, self._job
        used = min(math.ceil(self.memory_peak / MB), version.memory_mb)  # the kernel counts /tmp too, AWS does not
        figures = log_lines.Report(job.call.request_id, self.duration_ms, self.billed_ms, version.memory_mb, used, self.init_ms)
        if outcome.status != "success":
            error_type = platform_events.error_type(outcome.error_type) if outcome.status == "error" else ""
            figures = replace(figures, status=outcome.status, error_type=error_type)
        if job.version.tracing == "Active" or "Sampled=1" in job.trace:
            seen = trace.split(job.trace)
            figures = replace(figures, trace_id=seen["Root"], segment_id=seen["Parent"], sampled=seen["Sampled"] == "1")
        return figures

    # ----------------------------------------------------------------------------------------------------------- telemetry

    def tell_runtime_done(self, narrator: Narrator) -> None:
        """The runtime is through with the invocation, whatever extensions still do. Told once."""
        outcome, job = self._outcome, self._job
        if outcome.told:
            return
        outcome.told = True
        done_at = outcome.done_at or outcome.ended_at
        event = RuntimeDone(
            job.call.request_id,
            self._status(),
            (done_at - outcome.began_at) * 1000,
            outcome.produced or (len(outcome.payload) if outcome.answered_at else 0),
            self._spans(narrator),
            "" if outcome.status == "timeout" else outcome.error_type,
            job.trace,
            job.call.tenant,
        )
        narrator.tell(event, narrator.wall(done_at))

    def _tell(self, narrator: Narrator, note: str) -> None:
        outcome, job = self._outcome, self._job
        if note:
            narrator.tell(Fault(note))
        self.tell_runtime_done(narrator)
        spans: tuple[Span, ...] = ()
        if outcome.done_at and outcome.ended_at > outcome.done_at:
            overhead = (outcome.ended_at - outcome.done_at) * 1000
            spans = (Span("extensionOverhead", narrator.wall(outcome.done_at), overhead),)
        error_type = "" if outcome.status == "timeout" else outcome.error_type
        narrator.tell(platform_events.Report(self._figures(), self._status(), error_type, spans, job.trace, job.call.tenant))

    def _status(self) -> str:
        """An exception of the function's is no success for telemetry, although the REPORT line has no word for it."""
        outcome = self._outcome
        return "error" if outcome.function_error and outcome.status == "success" else outcome.status

    def _spans(self, narrator: Narrator) -> tuple[Span, ...]:
        outcome = self._outcome
        began, first, answered, done = outcome.began_at, outcome.first_at, outcome.answered_at, outcome.done_at
        if not answered:
            return ()
        wall = narrator.wall
        spans = (
            Span("responseLatency", wall(began), (first - began) * 1000),
            Span("responseDuration", wall(first), (answered - first) * 1000),
        )
        return (*spans, Span("runtimeOverhead", wall(answered), (done - answered) * 1000)) if done else spans
