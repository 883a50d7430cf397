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
import math
import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from lambent.clock import Timer
from lambent.errors import PlatformFault
from lambent.function_version import FunctionVersion
from lambent.invoke.burial import Burial
from lambent.invoke.channel import Channel
from lambent.invoke.environment_events import (
    Answer,
    Assigned,
    DeadlinePassed,
    Event,
    Exited,
    Freeze,
    Gone,
    IdleLong,
    InitDeadlinePassed,
    InitDone,
    Kill,
    KillSandbox,
    OpenStream,
    PassOn,
    Ready,
    ReadyAgain,
    ReadyBroken,
    ReportInit,
    Requeue,
    Respond,
    SendInvoke,
    Started,
    StartFailed,
    StartSandbox,
    Thaw,
    Undeliverable,
    Violated,
    event_of,
)
from lambent.invoke.environment_state import EnvironmentMachine
from lambent.invoke.environment_table import State
from lambent.invoke.fittings import EnvironmentInfo, Fittings, log_stream_name
from lambent.invoke.inside import Inside
from lambent.invoke.job import Job
from lambent.invoke.log_pump import Behind, LogPump
from lambent.invoke.narrator import Narrator
from lambent.invoke.report import Report
from lambent.observe.log_levels import rank
from lambent.observe.log_sink import LogStream
from lambent.observe.platform_events import Fault, InitReport, InitRuntimeDone
from lambent.runtime_api.events import InvokeEvent
from lambent.runtime_api.frames import Frame, FrameType, encode_invoke
from lambent.sandbox.driver import Sandbox, SandboxExit, SandboxSpec

FLUSH_AFTER = 0.1
EXIT_GRACE = 1.0  # between a closed channel and the news that the process has ended
HELD = 0.1  # between two looks at the clock while a debugger holds it
MAX_DELIVERIES = 3


class Owner(Protocol):
    """What an environment tells its pool."""

    def free(self, environment: Environment, at: float) -> None: ...

    def free_broken(self, environment: Environment) -> None: ...

    def free_reset(self, environment: Environment, at: float) -> None: ...

    def ended(self, environment: Environment, fault: PlatformFault | None) -> None: ...

    def requeue(self, job: Job) -> None: ...


class Environment:
    """One execution environment. ``slot`` is its number in the pool that owns it."""

    __slots__ = (
        "_alarm",
        "_alarm_due",
        "_channel",
        "_clock",
        "_deadline",
        "_deadline_ms",
        "_extension_pump",
        "_fittings",
        "_grace",
        "_held",
        "_init_timer",
        "_inside",
        "_job",
        "_killing",
        "_machine",
        "_narrator",
        "_owed",
        "_owner",
        "_problem",
        "_pump",
        "_sandbox",
        "_settle",
        "_since",
        "_start_due",
        "_stream",
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
        self._machine = EnvironmentMachine(self.id, version.timeout_s, fittings.response_cap, fittings.stream_cap)
        group = version.log_group or f"/aws/lambda/{version.arn.name}"
        self._stream = LogStream(version.arn.account, version.arn.region, group, self.log_stream)
        least = rank(version.application_log_level) if version.log_format == "JSON" else 0
        self._pump = LogPump(self._stream, fittings.sink, fittings.clock, least)
        self._narrator = Narrator(self._pump, version, fittings.clock)
        self._extension_pump: LogPump | None = None
        self._sandbox: Sandbox | None = None
        self._problem = ("", "", "")
        self._channel: Channel | None = None
        self._inside: Inside | None = None
        self._killing: asyncio.Task[None] | None = None
        self._job: Job | None = None
        self._deadline = 0.0
        self._deadline_ms = 0
        self._start_due = 0.0
        self._alarm: Timer | None = None
        self._alarm_due = math.inf
        self._held = 0  # by so many debuggers
        self._init_timer: Timer | None = None
        self._grace: Timer | None = None
        self._owed: Report | None = None
        self._settle: Callable[[], None] | None = None
        self._since = self._clock.monotonic()

    # ------------------------------------------------------------------------------------------------- what the pool calls

    def start(self, cause: str) -> None:
        """Make the sandbox and initialise. ``cause`` is the request that wanted an environment."""
        self._tell("starting", cause, f"{self.version.arn}:{self.version.version}")
        self._narrator.init_start(*self._fittings.runtime_version(self.version), self.log_stream)
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
        self._feed(Assigned(request_id, at, job.stream is not None))
        if self._job is not job:
            return  # it never arrived, and is somebody else's by now
        # The function is at work already; what it says is not read before this returns, so START still comes first.
        self._narrator.begin(job, now)
        story = self._fittings.story
        story.record(self.id, "busy", request_id, "", now)
        story.record(request_id, "assigned", self.id, "", now)
        if self._alarm_due > self._start_due:
            self._set_alarm(self._start_due, at)

    def freeze(self) -> None:
        """Idle for long: stop the world inside until the next job."""
        if not self._held:
            self._feed(IdleLong())

    def kill(self, reason: str) -> None:
        """End it, whatever it does."""
        self._write_owed()
        self._pump.drain()
        self._feed(Kill(reason, self._clock.monotonic()))

    def hold(self) -> Sandbox | None:
        """For a debugger: until ``release`` no deadline ends anything here and nothing freezes. Gives the sandbox, if there is one."""
        self._held += 1
        return self._sandbox

    def release(self) -> None:
        """A debugger has left. After the last one, what runs gets its whole timeout anew."""
        self._held -= 1
        if not self._held:
            self._deadline = self._clock.monotonic() + self._machine.timeout_s

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
        self._write_owed()
        if self._machine.state is not State.BUSY:  # what is printed while it is at work is looked for when its report is written
            self._pump.drain()
        for frame in frames:
            if channel is not self._channel:
                return  # a frame before this one was the end of the sandbox
            self._feed(event_of(frame, at, channel.backlogged))

    def _on_http_frames(self, inside: Inside, frames: list[Frame]) -> None:
        """The same from a runtime that talks HTTP; one with a channel has no business there."""
        at = self._clock.monotonic()
        self._write_owed()
        self._pump.drain()
        for frame in frames:
            if inside is self._inside:
                event = event_of(frame, at, False) if inside.over_http else Violated("it speaks to the Runtime API beside its channel", at)
                self._feed(event)

    def _on_inside(self, inside: Inside, event: Event) -> None:
        if inside is self._inside:
            self._write_owed()
            self._feed(event)

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
        if sandbox is not self._sandbox:
            return
        channel = self._channel
        at = self._clock.monotonic()
        frames = channel.drain() if channel is not None else []
        self._pump.drain()
        for frame in frames:
            if frame.type != FrameType.NEXT and sandbox is self._sandbox:
                self._feed(event_of(frame, at, unread=False))
        if sandbox is self._sandbox:
            how = SandboxExit(None, 9) if exited.cancelled() or exited.exception() is not None else exited.result()
            if self._problem[0]:
                how = replace(how, entry=self._problem[0], entry_type=self._problem[1])
            if self._problem[2]:
                self._narrator.tell(Fault(self._problem[2]))
            self._feed(Exited(how, at))

    def _on_init_timeout(self) -> None:
        self._init_timer = self._clock.call_later(HELD, self._on_init_timeout) if self._held else None
        if self._machine.state in _INIT_PHASE and not self._held:
            self._pump.drain()
            self._feed(InitDeadlinePassed(self._clock.monotonic()))

    def _on_alarm(self) -> None:
        self._alarm, self._alarm_due = None, math.inf
        if self._job is None:
            return
        now = self._clock.monotonic()
        if now >= self._deadline and not self._held:
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
        self._alarm = self._clock.call_later(max(due - now, HELD if self._held else 0.001), self._on_alarm)

    def _feed(self, event: Event) -> None:
        for instruction in self._machine.handle(event):
            _DO[type(instruction)](self, instruction)

    # ------------------------------------------------------------------------------------------------ what the machine wants

    def _start_sandbox(self, instruction: StartSandbox) -> None:
        assert self._job is not None
        self._tell("restarting", self._job.call.request_id, "init is run again, inside the invocation")
        self._narrator = Narrator(self._pump, self.version, self._clock, "invoke")
        self._narrator.init_start(*self._fittings.runtime_version(self.version), self.log_stream)
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
        program = spec.program
        self._problem = ("", "", "") if program is None else (program.problem, program.problem_type, program.problem_line)
        self._settle = getattr(sandbox, "settled", None)
        self._look_inside(sandbox, spec)
        self._pump.attach(sandbox.logs)
        sandbox.exited.add_done_callback(partial(self._on_exit, sandbox))
        self._feed(Started(asked, bool(spec.extensions)))  # the runtime has begun before we hear of it
        if self._inside is not None:
            self._inside.begin()
        if self._machine.state in _INIT_PHASE:
            self._init_timer = self._clock.call_later(self._fittings.init_limit(self.version), self._on_init_timeout)

    def _look_inside(self, sandbox: Sandbox, spec: SandboxSpec) -> None:
        fittings = self._fittings
        if spec.program is None or spec.program.transport == "frames":
            self._channel = Channel(sandbox.channel, fittings.response_cap, self._on_frames, self._on_broken)
        if getattr(sandbox, "api_listener", None) is not None:
            inside = Inside(sandbox, spec, self.version, fittings, self._on_inside, self._on_http_frames, self._narrator)
            self._inside = inside
        elif self._channel is None:
            raise PlatformFault("This sandbox driver has no Runtime API for a runtime that talks HTTP")
        extension_logs: int = getattr(sandbox, "extension_logs", -1)
        if extension_logs >= 0:
            self._extension_pump = LogPump(self._stream, Behind(self._pump), self._clock)
            self._narrator.adopt(self._extension_pump)
            self._extension_pump.attach(extension_logs)

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
        inside, self._inside = self._inside, None
        if sandbox is None:
            return
        self.memory_peak = max(self.memory_peak, sandbox.memory_peak())
        burial = Burial(sandbox, channel, inside, self._pump, self._extension_pump)
        self._extension_pump = None
        burial.begin()
        self._killing = self._fittings.spawn(burial.end(instruction.reason))

    def _cancel_timers(self) -> None:
        for timer in (self._alarm, self._init_timer, self._grace):
            if timer is not None:
                timer.cancel()
        self._alarm, self._init_timer, self._grace = None, None, None
        self._alarm_due = math.inf

    def _send_invoke(self, instruction: SendInvoke) -> None:
        job, channel = self._job, self._channel
        assert job is not None
        call = job.call
        if channel is None:
            delivered = self._announce(instruction.token, job)
        else:
            delivered = channel.send(
                encode_invoke(
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
            )
        if not delivered and job.deliveries < MAX_DELIVERIES:
            self._feed(Undeliverable(self._clock.monotonic()))
        elif channel is not None and self._inside is not None and self._inside.api is not None:
            self._announce(instruction.token, job)

    def _announce(self, token: int, job: Job) -> bool:
        """The invocation, for all that talk HTTP inside."""
        assert self._inside is not None
        call = job.call
        event = InvokeEvent(
            token, call.request_id, self._deadline_ms, str(call.target), job.trace, job.payload, call.tenant, call.client_context
        )
        return self._inside.invoke(event)

    def _requeue(self, instruction: Requeue) -> None:
        job, self._job = self._job, None
        assert job is not None
        self._tell("taken back", job.call.request_id, "the environment had died while idle")
        self._owner.requeue(job)

    def _open_stream(self, instruction: OpenStream) -> None:
        assert self._job is not None
        assert self._job.stream is not None
        self._job.stream.open(instruction.content_type, self._flow)

    def _pass_on(self, instruction: PassOn) -> None:
        assert self._job is not None
        assert self._job.stream is not None
        self._job.stream.push(instruction.data)

    def _flow(self, blocked: bool) -> None:
        """The caller of a stream is slower than the function, or no longer."""
        if self._channel is not None:
            (self._channel.pause if blocked else self._channel.resume)()
        elif self._inside is not None:
            self._inside.flow(blocked)

    def _respond(self, instruction: Respond) -> None:
        """The caller need not wait for what is left to do here, unless it wants the log."""
        job = self._job
        assert job is not None
        if job.stream is not None:
            job.stream.close()
        report = Report(job, instruction.outcome, self.version)
        if instruction.outcome.done_at and not self._narrator.plain:
            self._pump.drain()
            report.tell_runtime_done(self._narrator)
        if not job.call.want_log and not job.future.done():
            job.future.set_result(report.result(b""))

    def _answer(self, instruction: Answer) -> None:
        outcome = instruction.outcome
        job, self._job = self._job, None
        assert job is not None
        self._since = outcome.ended_at
        if job.stream is not None:
            job.stream.close()
        report = Report(job, outcome, self.version)
        now = job.call.want_log or outcome.status != "success"
        tail = self._write(report) if now else b""
        if outcome.fault is not None:
            job.fail(outcome.fault)
        else:
            job.resolve(report.result(tail))
        if not now:  # whoever waits is answered first: the loop keeps the order in which it was asked
            self._owed = report
            asyncio.get_running_loop().call_soon(self._write_owed)

    def _write(self, report: Report) -> bytes:
        self._pump.drain()
        if self._extension_pump is not None:
            self._extension_pump.drain()
            self._extension_pump.flush()  # nobody else would: what has been read makes its pipe readable no more
        self._look_at_memory()
        report.memory_peak = self.memory_peak
        return report.write(self._pump, self._narrator, self._clock, self._fittings.story, self.id)

    def _write_owed(self) -> None:
        """The report of the invocation before, which every later line must follow."""
        owed, self._owed = self._owed, None
        if owed is not None:
            self._write(owed)

    def _report_init(self, instruction: ReportInit) -> None:
        self._tell(f"init {instruction.status}", self._machine.request_id, instruction.error_type)
        self._pump.end_line()
        self._init_over(instruction.status, instruction.seconds, instruction.ready_at, instruction.error_type)
        self._pump.flush()

    def _freeze(self, instruction: Freeze) -> None:
        self._since = self._clock.monotonic()
        if self._sandbox is not None:
            self._sandbox.freeze()

    def _thaw(self, instruction: Thaw) -> None:
        if self._sandbox is not None:
            self._sandbox.thaw()

    def _init_done(self, instruction: InitDone) -> None:
        if self._settle is not None:  # from here on the function gets its share of the CPU and no more
            settle, self._settle = self._settle, None
            settle()
        self._init_over("success", instruction.seconds, instruction.ready_at, "")
        if self._init_timer is not None:
            self._init_timer.cancel()
            self._init_timer = None
            self._pump.flush()
            self._tell("initialized", "", "")

    def _init_over(self, status: str, seconds: float, ready_at: float, error_type: str) -> None:
        narrator = self._narrator
        at = narrator.wall(ready_at) if ready_at else 0.0
        how = self.version.initialization
        done = InitRuntimeDone(narrator.phase, *(("success", "") if ready_at else (status, error_type)), how)
        narrator.tell(done, at)
        if self._inside is not None and status == "success":
            self._inside.end_init()
        narrator.tell(InitReport(narrator.phase, status, seconds * 1000, error_type, how))
        narrator.settle()

    def _ready(self, instruction: Ready) -> None:
        at = self._clock.monotonic()
        self._since = at
        self._owner.free(self, at)

    def _ready_broken(self, instruction: ReadyBroken) -> None:
        self._owner.free_broken(self)

    def _ready_again(self, instruction: ReadyAgain) -> None:
        self._tell("reset", "", instruction.reason)
        self._pump.flush()
        self._owner.free_reset(self, self._clock.monotonic())

    def _gone(self, instruction: Gone) -> None:
        self._cancel_timers()
        self._fittings.driver.forget(self.id)  # there will be no other sandbox that wants its /tmp
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


_INIT_PHASE = (State.INITIALIZING, State.SETTLING)

_DO: dict[type[Any], Callable[[Environment, Any], None]] = {
    Answer: Environment._answer,
    Freeze: Environment._freeze,
    Gone: Environment._gone,
    InitDone: Environment._init_done,
    KillSandbox: Environment._kill_sandbox,
    OpenStream: Environment._open_stream,
    PassOn: Environment._pass_on,
    Ready: Environment._ready,
    ReadyAgain: Environment._ready_again,
    ReadyBroken: Environment._ready_broken,
    ReportInit: Environment._report_init,
    Requeue: Environment._requeue,
    Respond: Environment._respond,
    SendInvoke: Environment._send_invoke,
    StartSandbox: Environment._start_sandbox,
    Thaw: Environment._thaw,
}
