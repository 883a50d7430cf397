"""One execution environment, as a pure machine: what may happen to it, in which order, and what must follow.

The life of an environment (contract 03 §1):

    STARTING ──▶ INITIALIZING ──▶ IDLE ◀──▶ FROZEN           init succeeded; nobody waits
                      │            ▲ │         │
                      │       Next │ │Assigned │
                      │            │ ▼         │
                      │      ANSWERED ◀── BUSY ◀┘            one invocation at a time
                      │            ▲        │
                      │            └ STREAMING               its response comes in chunks
                      ▼
                   BROKEN ──▶ RESTARTING ──▶ REINITIALIZING  init failed: it is run once more, inside the first invocation
                                                             and on that invocation's time
    at work ──▶ RESET ──▶ RESTARTING                         exit, timeout, lost extension: the processes have gone, /tmp has not
    every state ──▶ STOPPED                                  violation, kill, a second failure: never used again

**What an answer is.** The invocation ends when the runtime has posted its response *and* asks for the next one. Between the two
stands ANSWERED: the outcome is settled, but neither the caller is told nor the environment free. If the process ends or the time
runs out right there, the response stands, and only the report says what happened.

**Streams.** A response is one frame, or a start, chunks and an end. To a caller that takes chunks each is passed on as it comes; for
one that does not they are gathered here, up to the limit of a buffered response. Bytes over the limit are dropped and the function goes
on: a streaming caller hears at once that its stream was cut, a buffered one gets the error in place of the response. Whatever ends an
invocation early (timeout, exit, violation) ends its stream, too, with the same error.

**Extensions.** Init and invocations last until every extension waits for its next event again: SETTLING and RESETTLING (the runtime is
ready, they are not), LINGERING (the response is out, they are at work). A caller is answered as soon as the runtime is done (``Respond``);
the report, the timeout and the environment wait for the slowest extension. One that fails takes the environment with it.

**Reset.** An environment whose runtime ends, or runs out of time, with an invocation is not thrown away (contract 02 §2.1): what ran in it
is killed, and the next invocation that comes here runs init anew, on its own time. What was in ``/tmp`` is there still.

**Fencing.** The node trusts nothing that comes out of the sandbox, because user code shares the process with the runtime client.
Each hand-over gets a new *lease epoch*; an answer counts only if it carries the epoch and the request id of the invocation that is
running. A late answer, a second one, one for somebody else, one when nothing runs, a ``next`` before the answer: each is a
violation, and an environment that violates the conversation is killed and replaced. Whoever waits for it gets an error of the
function, once. The outcome of the invocation before is not touched.

**Init.** The init phase belongs to the environment and has its own limit. If it fails or runs over, the sandbox is dropped, and the
environment waits in BROKEN for an invocation that pays for the second attempt; a second failure is that invocation's answer, in the
runtime's own words.

**Events and instructions** are the only ways in and out. Times (``at``) are seconds of the monotonic clock, given with the event.
The machine never asks. ``environment_table.TABLE`` is the whole behaviour: (state, event) -> (action, states that may follow). What is
missing there cannot happen; if it does, that is our own bug, and ``IllegalTransition`` tells the story. The two transitions of a warm
invocation are as cheap as the rest is careful: no state is copied, the instructions without members exist once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from lambent.errors import FunctionFault, IllegalTransition, PlatformFault
from lambent.invoke import fault_payloads
from lambent.invoke.environment_events import (
    FREEZE,
    KILL_SANDBOX,
    KILL_TIMED_OUT,
    READY,
    READY_BROKEN,
    REQUEUE,
    SPIN_DOWN,
    START_SANDBOX,
    THAW,
    Answer,
    Assigned,
    Chunk,
    DeadlinePassed,
    ErrorFrame,
    Event,
    Exited,
    ExtensionFailed,
    ExtensionsReady,
    Gone,
    IdleLong,
    InitDeadlinePassed,
    InitDone,
    InitErrorFrame,
    Instruction,
    Kill,
    KillSandbox,
    NextFrame,
    OpenStream,
    Outcome,
    PassOn,
    ReadyAgain,
    Registered,
    ReportInit,
    Respond,
    ResponseFrame,
    SendInvoke,
    Started,
    StartFailed,
    StreamEnd,
    StreamStart,
    Undeliverable,
    Violated,
)
from lambent.invoke.environment_table import TABLE, State
from lambent.observe import log_lines

_AT_WORK = (State.BUSY, State.STREAMING, State.ANSWERED, State.LINGERING)
AnswerFrame = ResponseFrame | ErrorFrame | StreamStart | Chunk | StreamEnd
STREAM_CAP = 209_715_200

_NOTHING: tuple[Instruction, ...] = ()
_STORY = 24


class EnvironmentMachine:
    """Feed it events with ``handle``; carry out what it returns, in order. Nothing else changes its state."""

    __slots__ = (
        "_began_at",
        "_chunks",
        "_content_type",
        "_cut",
        "_fence",
        "_first_at",
        "_history",
        "_init_at",
        "_init_s",
        "_interest",
        "_outcome",
        "_produced",
        "_ready_at",
        "_streams",
        "_token",
        "_unready",
        "epoch",
        "name",
        "request_id",
        "response_cap",
        "state",
        "stream_cap",
        "timeout_s",
    )

    def __init__(self, name: str, timeout_s: float, response_cap: int, stream_cap: int = STREAM_CAP) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self.response_cap = response_cap
        self.stream_cap = stream_cap
        self.state = State.STARTING
        self.request_id = ""  # of the invocation that is assigned, else ""
        self.epoch = 0  # lease epochs given out, which is also how many invocations were handed over
        self._fence = ""
        self._token = ""
        self._streams = False  # the caller takes chunks
        self._content_type = ""
        self._chunks: list[bytes] = []  # gathered for a caller that does not
        self._first_at = 0.0  # when they began
        self._produced = 0
        self._cut = False  # over the limit: what else comes is dropped
        self._interest = False  # some extension wants to hear of invocations
        self._unready = False  # some extension has yet to ask for its next event
        self._began_at = 0.0
        self._init_at = 0.0
        self._ready_at = 0.0  # the runtime asked for its first invocation
        self._init_s: float | None = None
        self._outcome: Outcome | None = None
        self._history: deque[tuple[str, str, str]] = deque(maxlen=_STORY)

    def handle(self, event: Event) -> Sequence[Instruction]:
        """Take one event. Raises ``IllegalTransition``."""
        kind = type(event)
        before = self.state
        action = _ACTIONS[before].get(kind)
        if action is None:
            raise IllegalTransition(f"environment {self.name}", before, kind.__name__, self.story())
        instructions: Sequence[Instruction] = action(self, event)
        self._history.append((before, kind.__name__, self.request_id))
        return instructions

    def story(self) -> str:
        """The last transitions, oldest first, one a line."""
        lines = [f"  {state}: {event}{request and ' of ' + request}" for state, event, request in self._history]
        return "\n".join([*lines, f"  {self.state}"])

    # ---------------------------------------------------------------------------------------------------------- init

    def begin_init(self, event: Started) -> Sequence[Instruction]:
        self._init_at, self._ready_at = event.at, 0.0
        self._interest, self._unready = False, event.extensions
        self.state = State.INITIALIZING if self.state is State.STARTING else State.REINITIALIZING
        return _NOTHING

    def stillborn(self, event: StartFailed) -> Sequence[Instruction]:
        self.state = State.STOPPED
        return (KILL_SANDBOX, Gone("start failed", event.fault))

    def register(self, event: Registered) -> Sequence[Instruction]:
        self._unready = True
        self._interest = self._interest or event.invoke
        return _NOTHING

    def extensions_ready(self, event: ExtensionsReady) -> Sequence[Instruction]:
        self._unready = False
        return _NOTHING

    def runtime_ready(self, event: NextFrame) -> Sequence[Instruction]:
        self._ready_at = event.at
        if not self._unready:
            return self.initialized(event)
        self.state = State.SETTLING
        return _NOTHING

    def runtime_ready_again(self, event: NextFrame) -> Sequence[Instruction]:
        self._ready_at = event.at
        if not self._unready:
            return self.send(event)
        self.state = State.RESETTLING
        return _NOTHING

    def initialized(self, event: NextFrame | ExtensionsReady) -> Sequence[Instruction]:
        self.state = State.IDLE
        self._init_s = event.at - self._init_at
        return (InitDone(self._init_s, self._ready_at), READY)

    def init_failed(self, event: InitErrorFrame) -> Sequence[Instruction]:
        return self._break("error", event.at, event.error_type)

    def init_exited(self, event: Exited) -> Sequence[Instruction]:
        return self._break("error", event.at, fault_payloads.exit_type(event.how))

    def init_lost_extension(self, event: ExtensionFailed) -> Sequence[Instruction]:
        return self._break("error", event.at, event.error_type)

    def init_timed_out(self, event: InitDeadlinePassed) -> Sequence[Instruction]:
        return self._break("timeout", event.at, "")

    def init_violated(self, event: AnswerFrame | NextFrame | InitErrorFrame | Violated) -> Sequence[Instruction]:
        return self._break("error", event.at, "Runtime.Unknown")

    def _break(self, status: str, at: float, error_type: str) -> Sequence[Instruction]:
        self.state = State.BROKEN
        kill = KILL_TIMED_OUT if status == "timeout" else KILL_SANDBOX
        return (self._report_init("init", status, at, error_type), kill, READY_BROKEN)

    def _report_init(self, phase: str, status: str, at: float, error_type: str) -> ReportInit:
        return ReportInit(phase, status, at - self._init_at, error_type, self._ready_at)

    def restart(self, event: Assigned) -> Sequence[Instruction]:
        self._accept(event)
        self.state = State.RESTARTING
        return (START_SANDBOX,)

    def fail_restart(self, event: StartFailed) -> Sequence[Instruction]:
        return self._end(Outcome(status="error", error_type="Sandbox.Failure", fault=event.fault), self._began_at, "start failed")

    def fail_init(self, event: InitErrorFrame) -> Sequence[Instruction]:
        outcome = Outcome(event.body, function_error=True, status="error", error_type=event.error_type)
        report = self._report_init("invoke", "error", event.at, event.error_type)
        return (report, *self._end(outcome, event.at, "init error"))

    def fail_init_exit(self, event: Exited) -> Sequence[Instruction]:
        report = self._report_init("invoke", "error", event.at, fault_payloads.exit_type(event.how))
        return (report, *self._exit(event))

    def fail_init_extension(self, event: ExtensionFailed) -> Sequence[Instruction]:
        report = self._report_init("invoke", "error", event.at, event.error_type)
        return (report, *self.lose_extension(event))

    def time_out_init(self, event: DeadlinePassed) -> Sequence[Instruction]:
        return (self._report_init("invoke", "timeout", event.at, ""), *self.time_out(event))

    # --------------------------------------------------------------------------------------------------------- invoke

    def lease(self, event: Assigned) -> Sequence[Instruction]:
        self._accept(event)
        return (self._hand_over(),)

    def thaw_and_lease(self, event: Assigned) -> Sequence[Instruction]:
        self._accept(event)
        return (THAW, self._hand_over())

    def send(self, event: NextFrame | ExtensionsReady) -> Sequence[Instruction]:
        return (InitDone(event.at - self._init_at, self._ready_at), self._hand_over())

    def _accept(self, event: Assigned) -> None:
        self.request_id = event.request_id
        self._streams = event.streams
        self._began_at = event.at

    def _hand_over(self) -> SendInvoke:
        self.state = State.BUSY
        self.epoch += 1
        self._token = str(self.epoch)
        self._fence = f"{self._token}\n{self.request_id}\n"
        self._unready = self._interest
        return SendInvoke(self.epoch)

    def respond(self, event: ResponseFrame) -> Sequence[Instruction]:
        if not event.head.startswith(self._fence):
            return self._refuse(event)
        if event.oversize:
            return self._settle_too_large()
        self.state = State.ANSWERED
        self._outcome = Outcome(event.body, event.head[len(self._fence) :] or "application/json")
        self._outcome.first_at = self._outcome.answered_at = event.at
        return _NOTHING

    def respond_error(self, event: ErrorFrame) -> Sequence[Instruction]:
        if not event.head.startswith(self._fence):
            return self._refuse(event)
        if event.oversize:
            return self._settle_too_large()
        self.state = State.ANSWERED
        self._outcome = Outcome(event.body, function_error=True, error_type=event.head[len(self._fence) :].partition("\n")[0])
        self._outcome.first_at = self._outcome.answered_at = event.at
        return _NOTHING

    def _settle_too_large(self) -> Sequence[Instruction]:
        self.state = State.ANSWERED
        self._outcome = self._too_large()
        return _NOTHING

    def _too_large(self) -> Outcome:
        fault = fault_payloads.too_large(self.stream_cap if self._streams else self.response_cap)
        return Outcome(fault_payloads.payload(fault), function_error=True, status="error", error_type=fault.error_type)

    # ------------------------------------------------------------------------------------------------------- streams

    def begin_stream(self, event: StreamStart) -> Sequence[Instruction]:
        if not event.head.startswith(self._fence):
            return self._refuse(event)
        self.state = State.STREAMING
        self._content_type = event.head[len(self._fence) :] or "application/octet-stream"
        self._first_at, self._produced, self._cut, self._chunks = event.at, 0, False, []
        return (OpenStream(self._content_type),) if self._streams else _NOTHING

    def take_chunk(self, event: Chunk) -> Sequence[Instruction]:
        if event.head != self._token:
            return self._refuse(event)
        before = self._produced
        self._produced += len(event.body)
        if self._cut:
            return _NOTHING
        if not self._streams:
            self._gather(event.body)
            return _NOTHING
        if self._produced <= self.stream_cap:
            return (PassOn(event.body),)
        self._cut = True
        outcome = self._too_large()
        outcome.began_at, outcome.ended_at, outcome.produced = self._began_at, event.at, self.stream_cap
        return (PassOn(event.body[: self.stream_cap - before]), Respond(outcome))

    def _gather(self, data: bytes) -> None:
        if self._produced > self.response_cap:
            self._cut, self._chunks = True, []
        else:
            self._chunks.append(data)

    def end_stream(self, event: StreamEnd) -> Sequence[Instruction]:
        if not event.head.startswith(self._fence):
            return self._refuse(event)
        self.state = State.ANSWERED
        error_type = event.head[len(self._fence) :].partition("\n")[0]
        if self._cut:
            self._outcome = self._too_large()
        elif error_type:
            body = event.body or fault_payloads.payload(FunctionFault(error_type, ""))
            self._outcome = Outcome(body, function_error=True, error_type=error_type)
        else:
            self._outcome = Outcome(b"".join(self._chunks), self._content_type)
        self._outcome.produced, self._chunks = self._produced, []
        self._outcome.first_at, self._outcome.answered_at = self._first_at, event.at
        return _NOTHING

    def _refuse(self, event: AnswerFrame) -> Sequence[Instruction]:
        token, _, rest = event.head.partition("\n")
        stale = token.isascii() and token.isdigit() and len(token) < 20 and int(token) < self.epoch
        detail = "an answer to an invocation that is over" if stale else "an answer to an invocation that it was not given"
        return self._violation(f"{detail} ({rest.partition(chr(10))[0][:64]!r})", event.at)

    # ------------------------------------------------------------------------------------------------- the end of it

    def runtime_done(self, event: NextFrame) -> Sequence[Instruction]:
        if not self._unready:
            return self.finish(event)
        outcome = self._settled()
        outcome.began_at, outcome.ended_at, outcome.done_at = self._began_at, event.at, event.at
        self.state = State.LINGERING
        return (Respond(outcome),)

    def finish(self, event: NextFrame | ExtensionsReady) -> Sequence[Instruction]:
        outcome = self._close(self._settled(), event.at)
        outcome.done_at = outcome.done_at or event.at
        self.state = State.IDLE
        return (Answer(outcome), READY)

    def finish_and_stop(
        self, event: AnswerFrame | NextFrame | InitErrorFrame | Violated | Exited | ExtensionFailed | DeadlinePassed | Kill
    ) -> Sequence[Instruction]:
        """The response stands; the report says what came after it."""
        outcome = self._settled()
        reason, kill = "a second answer", KILL_SANDBOX
        if isinstance(event, Exited):
            reason = "exited after its answer"
            outcome.status, outcome.error_type = "error", fault_payloads.exit_type(event.how)
        elif isinstance(event, ExtensionFailed):
            reason = "an extension failed after the answer"
            outcome.status, outcome.error_type = "error", event.error_type
        elif isinstance(event, DeadlinePassed):
            reason, kill = "timed out after its answer", KILL_TIMED_OUT
            outcome.status = "timeout"
        elif isinstance(event, Kill):
            reason, kill = event.reason, SPIN_DOWN
        elif isinstance(event, Violated):
            reason = event.detail
        if isinstance(event, Exited | ExtensionFailed | DeadlinePassed):
            return self._reset(outcome, event.at, reason, kill)
        return self._end(outcome, event.at, reason, kill)

    def take_back(self, event: Undeliverable) -> Sequence[Instruction]:
        self.state = State.STOPPED
        self.request_id = ""
        return (REQUEUE, KILL_SANDBOX, Gone("died while idle"))

    def time_out(self, event: DeadlinePassed) -> Sequence[Instruction]:
        fault = fault_payloads.timed_out(self.request_id, self.timeout_s)
        return self._reset(self._failure(fault, "timeout", ""), event.at, "timed out", KILL_TIMED_OUT)

    def exit_busy(self, event: Exited) -> Sequence[Instruction]:
        return self._exit(event)

    def _exit(self, event: Exited) -> Sequence[Instruction]:
        if event.how.fault:  # ours, and not the function's
            failure = PlatformFault(event.how.reason(), self.story())
            return self._end(Outcome(status="error", error_type="Sandbox.Failure", fault=failure), event.at, event.how.reason())
        fault = fault_payloads.exited(self.request_id, event.how)
        note = log_lines.runtime_exited(self.request_id, fault.error_type, event.how.reason())
        return self._reset(self._failure(fault, "error", note), event.at, event.how.reason())

    def lose_extension(self, event: ExtensionFailed) -> Sequence[Instruction]:
        fault = fault_payloads.lost_extension(self.request_id, event.error_type, event.detail)
        outcome = self._failure(fault, "error", f"{fault.message}\n{fault.error_type}\n")
        return self._reset(outcome, event.at, f"{event.error_type}: {event.detail}")

    def violate(self, event: AnswerFrame | NextFrame | InitErrorFrame | Violated) -> Sequence[Instruction]:
        detail = event.detail if isinstance(event, Violated) else f"{_WORDS[type(event)]} out of turn"
        return self._violation(detail, event.at)

    def _violation(self, detail: str, at: float) -> Sequence[Instruction]:
        fault = fault_payloads.broke_protocol(self.request_id, detail)
        return self._end(self._failure(fault, "error", f"{fault.message}\n{fault.error_type}\n"), at, detail)

    def abandon(self, event: Kill) -> Sequence[Instruction]:
        fault = PlatformFault(f"The execution environment was stopped: {event.reason}", self.story())
        return self._end(Outcome(status="error", error_type="Sandbox.Failure", fault=fault), event.at, event.reason, SPIN_DOWN)

    # ---------------------------------------------------------------------------------------------------- free and over

    def freeze(self, event: IdleLong) -> Sequence[Instruction]:
        self.state = State.FROZEN
        return (FREEZE,)

    def violate_idle(self, event: AnswerFrame | NextFrame | InitErrorFrame | Violated) -> Sequence[Instruction]:
        detail = event.detail if isinstance(event, Violated) else f"{_WORDS[type(event)]} with no invocation running"
        return self._stop(detail)

    def exit_idle(self, event: Exited) -> Sequence[Instruction]:
        return self._stop(event.how.reason())

    def lose_extension_idle(self, event: ExtensionFailed) -> Sequence[Instruction]:
        return self._stop(f"{event.error_type}: {event.detail}")

    def stop(self, event: Kill) -> Sequence[Instruction]:
        return self._stop(event.reason, SPIN_DOWN)

    def drop(self, event: Started) -> Sequence[Instruction]:
        return (KILL_SANDBOX,)

    def nothing(self, event: Event) -> Sequence[Instruction]:
        return _NOTHING

    # -------------------------------------------------------------------------------------------------------- helpers

    def _failure(self, fault: FunctionFault, status: str, note: str) -> Outcome:
        return Outcome(fault_payloads.payload(fault), function_error=True, status=status, error_type=fault.error_type, note=note)

    def _settled(self) -> Outcome:
        assert self._outcome is not None
        return self._outcome

    def _close(self, outcome: Outcome, at: float) -> Outcome:
        """Complete the outcome of the running invocation and forget the invocation."""
        outcome.began_at = self._began_at
        outcome.ended_at = at
        outcome.init_s, self._init_s = self._init_s, None
        self._outcome = None
        self._fence = self._token = ""
        self.request_id = ""
        return outcome

    def _reset(self, outcome: Outcome, at: float, reason: str, kill: KillSandbox = KILL_SANDBOX) -> Sequence[Instruction]:
        """The end of what runs inside, but not of the environment, unless init itself has failed twice."""
        if self.state not in _AT_WORK:
            return self._end(outcome, at, reason, kill)
        self.state = State.RESET
        return (Answer(self._close(outcome, at)), kill, ReadyAgain(reason))

    def _end(self, outcome: Outcome, at: float, reason: str, kill: KillSandbox = KILL_SANDBOX) -> Sequence[Instruction]:
        self.state = State.STOPPED
        return (Answer(self._close(outcome, at)), kill, Gone(reason))

    def _stop(self, reason: str, kill: KillSandbox = KILL_SANDBOX) -> Sequence[Instruction]:
        self.state = State.STOPPED
        return (kill, Gone(reason))


_WORDS: dict[type[Any], str] = {
    NextFrame: "next",
    ResponseFrame: "an answer",
    ErrorFrame: "an answer",
    StreamStart: "an answer",
    Chunk: "a piece of an answer",
    StreamEnd: "the end of an answer",
    InitErrorFrame: "an init error",
}

_ACTIONS: dict[State, dict[type[Any], Any]] = {
    state: {event: getattr(EnvironmentMachine, action) for (at, event), (action, _) in TABLE.items() if at is state} for state in State
}
