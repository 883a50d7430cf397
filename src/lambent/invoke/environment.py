"""The shell around one ``EnvironmentMachine``: its sandbox, its socket, its pipe, its timers, its log lines.

Nothing is decided here. What comes from outside becomes an event; what the machine returns is carried out in order. An instruction
that hands control to the pool (``Ready``, ``ReadyBroken``, ``Gone``) is always the last of its list, so that the pool may begin the
next job from within.

A warm invocation costs one ``send``, one ``recv``, one read of the empty log pipe and one write of log lines. It makes no task and
no timer: the *alarm* is armed once and looks, when it fires, at what is due by then (the START line of a long invocation, or the
function's timeout), so that short invocations pass beneath it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from lambent.clock import Clock, Timer
from lambent.errors import PlatformFault
from lambent.function_version import FunctionVersion
from lambent.invoke.channel import Channel
from lambent.invoke.environment_events import (
    Answer,
    Assigned,
    DeadlinePassed,
    ErrorFrame,
    Event,
    Exited,
    Freeze,
    Gone,
    IdleLong,
    InitDeadlinePassed,
    InitErrorFrame,
    Kill,
    KillSandbox,
    NextFrame,
    Outcome,
    Ready,
    ReadyBroken,
    ReportInit,
    Requeue,
    ResponseFrame,
    SendInvoke,
    Started,
    StartFailed,
    StartSandbox,
    Thaw,
    Undeliverable,
    Violated,
)
from lambent.invoke.environment_state import EnvironmentMachine, State
from lambent.invoke.invocation import InvocationResult
from lambent.invoke.job import Job
from lambent.invoke.log_pump import LogPump
from lambent.observe import log_lines
from lambent.observe.log_sink import LogSink, LogStream
from lambent.runtime_api.frames import Frame, FrameType, encode_invoke
from lambent.sandbox.driver import Sandbox, SandboxDriver, SandboxExit, SandboxSpec

LOG = logging.getLogger(__name__)

FLUSH_AFTER = 0.1
EXIT_GRACE = 1.0  # between a closed channel and the news that the process has ended
MAX_DELIVERIES = 3
MB = 2**20

SpecFor = Callable[[FunctionVersion, str, str], SandboxSpec]
"""``(version, environment id, log stream name)`` -> what the sandbox is built from."""


RuntimeVersionOf = Callable[[FunctionVersion], tuple[str, str]]
"""The runtime version that INIT_START prints, and its ARN."""


class StoryRecorder(Protocol):
    """Where what happened is kept, for ``lambent story``. ``at`` is wall time in seconds."""

    def record(self, subject_id: str, event: str, cause: str = "", detail: str = "", at: float = 0.0) -> None: ...


class Owner(Protocol):
    """What an environment tells its pool."""

    def free(self, environment: Environment, at: float) -> None: ...

    def free_broken(self, environment: Environment) -> None: ...

    def ended(self, environment: Environment, fault: PlatformFault | None) -> None: ...

    def requeue(self, job: Job) -> None: ...


@dataclass(frozen=True, slots=True)
class Fittings:
    """What every environment of a node is made with. ``spawn`` runs a coroutine as a task of the node's and keeps hold of it."""

    driver: SandboxDriver
    clock: Clock
    sink: LogSink
    story: StoryRecorder
    spec_for: SpecFor
    runtime_version: RuntimeVersionOf
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    response_cap: int
    init_timeout: float


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


class Environment:
    """One execution environment. ``slot`` is its number in the pool that owns it."""

    __slots__ = (
        "_alarm",
        "_alarm_due",
        "_channel",
        "_clock",
        "_deadline",
        "_deadline_ms",
        "_fittings",
        "_grace",
        "_init_timer",
        "_job",
        "_killing",
        "_machine",
        "_owed",
        "_owner",
        "_pump",
        "_sandbox",
        "_settle",
        "_since",
        "_start_due",
        "id",
        "invocations",
        "log_stream",
        "memory_peak",
        "slot",
        "tenant",
        "version",
    )

    def __init__(self, slot: int, version: FunctionVersion, tenant: str, fittings: Fittings, owner: Owner) -> None:
        self.slot = slot
        self.id = secrets.token_hex(16)
        self.version = version
        self.tenant = tenant
        self.invocations = 0
        self.memory_peak = 0
        self.log_stream = log_stream_name(version, self.id, fittings.clock)
        self._fittings = fittings
        self._owner = owner
        self._clock = fittings.clock
        self._machine = EnvironmentMachine(self.id, version.timeout_s, fittings.response_cap)
        group = version.log_group or f"/aws/lambda/{version.arn.name}"
        stream = LogStream(version.arn.account, version.arn.region, group, self.log_stream)
        self._pump = LogPump(stream, fittings.sink, fittings.clock)
        self._sandbox: Sandbox | None = None
        self._channel: Channel | None = None
        self._killing: asyncio.Task[None] | None = None
        self._job: Job | None = None
        self._deadline = 0.0
        self._deadline_ms = 0
        self._start_due = 0.0
        self._alarm: Timer | None = None
        self._alarm_due = math.inf
        self._init_timer: Timer | None = None
        self._grace: Timer | None = None
        self._owed: Callable[[], bytes] | None = None
        self._settle: Callable[[], None] | None = None
        self._since = self._clock.monotonic()

    # ------------------------------------------------------------------------------------------------- what the pool calls

    def start(self, cause: str) -> None:
        """Make the sandbox and initialise. ``cause`` is the request that wanted an environment."""
        self._tell("starting", cause, f"{self.version.arn}:{self.version.version}")
        self._pump.platform(log_lines.init_start(*self._fittings.runtime_version(self.version)))
        self._bring_up()

    def begin(self, job: Job) -> None:
        """Run ``job``. Only for an environment that has said that it is free."""
        self._write_owed()
        at = self._clock.monotonic()
        now = self._clock.now()
        timeout = self._machine.timeout_s
        self._job = job
        job.deliveries += 1
        self.invocations += 1
        self._since = at
        self._deadline = at + timeout
        self._deadline_ms = int((now + timeout) * 1000)
        self._start_due = at + FLUSH_AFTER
        request_id = job.call.request_id
        self._feed(Assigned(request_id, at))
        if self._job is not job:
            return  # it never arrived, and is somebody else's by now
        # The function is at work already; what it says is not read before this returns, so START still comes first.
        self._pump.start(log_lines.start(request_id, self.version.version), job.call.want_log)
        story = self._fittings.story
        story.record(self.id, "busy", request_id, "", now)
        story.record(request_id, "assigned", self.id, "", now)
        if self._alarm_due > self._start_due:
            self._set_alarm(self._start_due, at)

    def freeze(self) -> None:
        """Idle for long: stop the world inside until the next job."""
        self._feed(IdleLong())

    def kill(self, reason: str) -> None:
        """End it, whatever it does."""
        self._write_owed()
        self._pump.drain()
        self._feed(Kill(reason, self._clock.monotonic()))

    def info(self) -> EnvironmentInfo:
        self._look_at_memory()
        return EnvironmentInfo(
            id=self.id,
            function=str(self.version.arn),
            version=self.version.version,
            tenant=self.tenant,
            state=str(self._machine.state),
            since=self._clock.now() - (self._clock.monotonic() - self._since),
            invocations=self.invocations,
            memory_bytes=self.memory_peak,
            log_stream=self.log_stream,
        )

    # ----------------------------------------------------------------------------------------------- what comes from outside

    def _on_frames(self, channel: Channel, frames: list[Frame]) -> None:
        at = self._clock.monotonic()
        if self._settle is not None:  # init is over, however it went: from here on the function gets its share of the CPU and no more
            settle, self._settle = self._settle, None
            settle()
        self._write_owed()
        self._pump.drain()
        for frame in frames:
            if channel is not self._channel:
                return  # a frame before this one was the end of the sandbox
            self._feed(self._event_of(frame, at, channel.backlogged))

    def _event_of(self, frame: Frame, at: float, unread: bool) -> Event:
        kind = frame.type
        if kind == FrameType.NEXT:
            return NextFrame(at)
        if unread:
            return Violated("it answers before it has read the invocation", at)
        if kind == FrameType.RESPONSE:
            return ResponseFrame(frame.head, frame.body, at, frame.oversize)
        if kind == FrameType.ERROR:
            return ErrorFrame(frame.head, frame.body, at, frame.oversize)
        return InitErrorFrame(frame.head.partition("\n")[0], frame.body, at)

    def _on_broken(self, channel: Channel, detail: str) -> None:
        if channel is not self._channel:
            return
        if detail:
            self._violated(channel, detail)
        else:
            self._grace = self._clock.call_later(EXIT_GRACE, partial(self._violated, channel, "it closed its channel and lives on"))

    def _violated(self, channel: Channel, detail: str) -> None:
        if channel is self._channel:
            self._pump.drain()
            self._feed(Violated(detail, self._clock.monotonic()))

    def _on_exit(self, sandbox: Sandbox, exited: asyncio.Future[SandboxExit]) -> None:
        """What the runtime said before it died counts, but for its ``next``: it will not be there for another invocation."""
        if sandbox is not self._sandbox or self._channel is None:
            return
        channel = self._channel
        at = self._clock.monotonic()
        frames = channel.drain()
        self._pump.drain()
        for frame in frames:
            if frame.type != FrameType.NEXT and channel is self._channel:
                self._feed(self._event_of(frame, at, unread=False))
        if channel is self._channel:
            how = SandboxExit(None, 9) if exited.cancelled() or exited.exception() is not None else exited.result()
            self._feed(Exited(how, at))

    def _on_init_timeout(self) -> None:
        self._init_timer = None
        if self._machine.state is State.INITIALIZING:
            self._pump.drain()
            self._feed(InitDeadlinePassed(self._clock.monotonic()))

    def _on_alarm(self) -> None:
        self._alarm, self._alarm_due = None, math.inf
        if self._job is None:
            return
        now = self._clock.monotonic()
        if now >= self._deadline:
            self._pump.drain()
            self._feed(DeadlinePassed(now))
            return
        if now >= self._start_due:
            self._pump.flush()
            self._start_due = math.inf
        self._set_alarm(min(self._start_due, self._deadline), now)

    def _set_alarm(self, due: float, now: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        due = min(due, self._deadline)
        self._alarm_due = due
        self._alarm = self._clock.call_later(max(due - now, 0.001), self._on_alarm)

    def _feed(self, event: Event) -> None:
        for instruction in self._machine.handle(event):
            _DO[type(instruction)](self, instruction)

    # ------------------------------------------------------------------------------------------------ what the machine wants

    def _start_sandbox(self, instruction: StartSandbox) -> None:
        assert self._job is not None
        self._tell("restarting", self._job.call.request_id, "its init failed and is run again inside the invocation")
        self._bring_up()

    def _bring_up(self) -> None:
        task = self._fittings.spawn(self._make_sandbox())
        task.add_done_callback(self._on_made)

    async def _make_sandbox(self) -> None:
        if self._killing is not None:
            await asyncio.wait([self._killing])  # the one before goes first: both bear this environment's id
        spec = self._fittings.spec_for(self.version, self.id, self.log_stream)
        asked = self._clock.monotonic()
        sandbox = await self._fittings.driver.start(spec)
        self._sandbox = sandbox
        self._settle = getattr(sandbox, "settled", None)
        self._channel = Channel(sandbox.channel, self._fittings.response_cap, self._on_frames, self._on_broken)
        self._pump.attach(sandbox.logs)
        sandbox.exited.add_done_callback(partial(self._on_exit, sandbox))
        self._feed(Started(asked))  # the runtime has begun before we hear of it
        if self._machine.state is State.INITIALIZING:
            self._init_timer = self._clock.call_later(self._fittings.init_timeout, self._on_init_timeout)

    def _on_made(self, task: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError("cancelled") if task.cancelled() else task.exception()
        if error is not None:
            fault = error if isinstance(error, PlatformFault) else PlatformFault(f"{type(error).__name__}: {error}", self._machine.story())
            self._tell("start failed", "", fault.message)
            self._feed(StartFailed(fault))

    def _kill_sandbox(self, instruction: KillSandbox) -> None:
        self._cancel_timers()
        sandbox, self._sandbox = self._sandbox, None
        channel, self._channel = self._channel, None
        if sandbox is None:
            return
        self.memory_peak = max(self.memory_peak, sandbox.memory_peak())
        if channel is not None:
            channel.close()
        else:  # adopting it failed halfway
            sandbox.channel.close()
        logs = self._pump.detach()
        self._killing = self._fittings.spawn(self._bury(sandbox, sandbox.logs if logs < 0 else logs))

    async def _bury(self, sandbox: Sandbox, logs: int) -> None:
        try:
            await sandbox.kill()
        finally:
            self._pump.last_words(logs)

    def _cancel_timers(self) -> None:
        for timer in (self._alarm, self._init_timer, self._grace):
            if timer is not None:
                timer.cancel()
        self._alarm, self._init_timer, self._grace = None, None, None
        self._alarm_due = math.inf

    def _send_invoke(self, instruction: SendInvoke) -> None:
        job, channel = self._job, self._channel
        assert job is not None
        assert channel is not None
        call = job.call
        frame = encode_invoke(
            instruction.token,
            call.request_id,
            self._deadline_ms,
            str(call.target),
            job.trace,
            job.payload,
            call.tenant,
            "",
            call.client_context,
        )
        if not channel.send(frame) and job.deliveries < MAX_DELIVERIES:
            self._feed(Undeliverable(self._clock.monotonic()))

    def _requeue(self, instruction: Requeue) -> None:
        job, self._job = self._job, None
        assert job is not None
        self._tell("taken back", job.call.request_id, "the environment had died while idle")
        self._owner.requeue(job)

    def _answer(self, instruction: Answer) -> None:
        outcome = instruction.outcome
        job, self._job = self._job, None
        assert job is not None
        self._since = outcome.ended_at
        self._look_at_memory()
        duration = (outcome.ended_at - outcome.began_at) * 1000
        init = None if outcome.init_s is None else outcome.init_s * 1000
        billed = math.ceil(duration + (init or 0.0))
        report = partial(self._report, job, outcome, duration, billed, init)
        tail = b""
        if job.call.want_log or outcome.status != "success":
            tail = report()
        else:
            # The caller is answered first: its waiting future was there before this, and the loop keeps the order.
            self._owed = report
            asyncio.get_running_loop().call_soon(self._write_owed)
        if outcome.fault is not None:
            job.fail(outcome.fault)
            return
        job.resolve(
            InvocationResult(
                outcome.payload,
                self.version.version,
                "Unhandled" if outcome.function_error else None,
                outcome.content_type,
                tail,
                job.trace,
                billed,
                {"duration_ms": duration} if init is None else {"duration_ms": duration, "init_ms": init},
            )
        )

    def _report(self, job: Job, outcome: Outcome, duration: float, billed: int, init: float | None) -> bytes:
        """Write what ends an invocation in the log; gives the tail."""
        pump, request_id = self._pump, job.call.request_id
        self._fittings.story.record(request_id, outcome.status, self.id, outcome.error_type, self._clock.now())
        pump.end_line()
        if outcome.status == "timeout":
            pump.platform(log_lines.timed_out(self._clock.now(), request_id, self._machine.timeout_s))
        elif outcome.note:
            pump.platform(outcome.note)
        pump.platform(log_lines.end(request_id))
        used = min(math.ceil(self.memory_peak / MB), self.version.memory_mb)  # the kernel counts /tmp too, AWS does not
        report = log_lines.Report(request_id, duration, billed, self.version.memory_mb, used, init)
        if outcome.status != "success":
            error_type = outcome.error_type if outcome.status == "error" else ""
            report = replace(report, status=outcome.status, error_type=error_type)
        pump.platform(log_lines.report(report))
        return pump.finish()

    def _write_owed(self) -> None:
        """The report of the invocation before, which every later line must follow."""
        owed, self._owed = self._owed, None
        if owed is not None:
            owed()

    def _report_init(self, instruction: ReportInit) -> None:
        self._tell(f"init {instruction.status}", self._machine.request_id, instruction.error_type)
        self._pump.end_line()
        line = log_lines.init_report(instruction.seconds * 1000, instruction.phase, instruction.status, instruction.error_type)
        self._pump.platform(line)
        self._pump.flush()

    def _freeze(self, instruction: Freeze) -> None:
        self._since = self._clock.monotonic()
        if self._sandbox is not None:
            self._sandbox.freeze()

    def _thaw(self, instruction: Thaw) -> None:
        if self._sandbox is not None:
            self._sandbox.thaw()

    def _ready(self, instruction: Ready) -> None:
        if self._init_timer is not None:
            self._init_timer.cancel()
            self._init_timer = None
            self._pump.flush()
            self._tell("initialized", "", "")
        at = self._clock.monotonic()
        self._since = at
        self._owner.free(self, at)

    def _ready_broken(self, instruction: ReadyBroken) -> None:
        self._owner.free_broken(self)

    def _gone(self, instruction: Gone) -> None:
        self._cancel_timers()
        self._write_owed()
        self._pump.flush()
        self._since = self._clock.monotonic()
        self._tell("stopped", "", instruction.reason)
        self._owner.ended(self, instruction.fault)

    # -------------------------------------------------------------------------------------------------------------- helpers

    def _look_at_memory(self) -> None:
        if self._sandbox is not None:
            self.memory_peak = max(self.memory_peak, self._sandbox.memory_peak())

    def _tell(self, event: str, cause: str, detail: str) -> None:
        self._fittings.story.record(self.id, event, cause, detail, self._clock.now())


def log_stream_name(version: FunctionVersion, environment_id: str, clock: Clock) -> str:
    """``YYYY/MM/DD/[<version>]<32 hex>``; in a log group of the user's own the function's name precedes the bracket (contract 03 §8)."""
    day = datetime.fromtimestamp(int(clock.now()), UTC).strftime("%Y/%m/%d")
    own = version.log_group not in {"", f"/aws/lambda/{version.arn.name}"}
    return f"{day}/{version.arn.name if own else ''}[{version.version}]{environment_id}"


_DO: dict[type[Any], Callable[[Environment, Any], None]] = {
    Answer: Environment._answer,
    Freeze: Environment._freeze,
    Gone: Environment._gone,
    KillSandbox: Environment._kill_sandbox,
    Ready: Environment._ready,
    ReadyBroken: Environment._ready_broken,
    ReportInit: Environment._report_init,
    Requeue: Environment._requeue,
    SendInvoke: Environment._send_invoke,
    StartSandbox: Environment._start_sandbox,
    Thaw: Environment._thaw,
}
