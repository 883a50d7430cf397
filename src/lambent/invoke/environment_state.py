"""One execution environment, as a pure machine: what may happen to it, in which order, and what must follow.

The life of an environment (contract 03 §1):

    STARTING ──▶ INITIALIZING ──▶ IDLE ◀──▶ FROZEN           init succeeded; nobody waits
                      │            ▲ │         │
                      │       Next │ │Assigned │
                      │            │ ▼         │
                      │      ANSWERED ◀── BUSY ◀┘            one invocation at a time
                      ▼                    ▲
                   BROKEN ──▶ RESTARTING ──▶ REINITIALIZING  init failed: it is run once more, inside the first invocation
                                                             and on that invocation's time
    every state ──▶ STOPPED                                  exit, timeout, violation, kill: never used again

**What an answer is.** The invocation ends when the runtime has posted its response *and* asks for the next one. Between the two
stands ANSWERED: the outcome is settled, but neither the caller is told nor the environment free. If the process ends or the time
runs out right there, the response stands, and only the report says what happened.

**Fencing.** The node trusts nothing that comes out of the sandbox, because user code shares the process with the runtime client.
Each hand-over gets a new *lease epoch*; an answer counts only if it carries the epoch and the request id of the invocation that is
running. A late answer, a second one, one for somebody else, one when nothing runs, a ``next`` before the answer: each is a
violation, and an environment that violates the conversation is killed and replaced. Whoever waits for it gets an error of the
function, once. The outcome of the invocation before is not touched.

**Init.** The init phase belongs to the environment and has its own limit. If it fails or runs over, the sandbox is dropped, and the
environment waits in BROKEN for an invocation that pays for the second attempt; a second failure is that invocation's answer, in the
runtime's own words.

**Events and instructions** are the only ways in and out. Times (``at``) are seconds of the monotonic clock, given with the event.
The machine never asks. ``TABLE`` is the whole behaviour: (state, event) -> (action, states that may follow). What is missing there
cannot happen; if it does, that is our own bug, and ``IllegalTransition`` tells the story. The two transitions of a warm invocation
are as cheap as the rest is careful: no state is copied, the instructions without members exist once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from lambent.errors import FunctionFault, IllegalTransition, PlatformFault
from lambent.invoke import fault_payloads
from lambent.invoke.environment_events import (
    FREEZE,
    KILL_SANDBOX,
    READY,
    READY_BROKEN,
    REQUEUE,
    START_SANDBOX,
    THAW,
    Answer,
    Assigned,
    DeadlinePassed,
    ErrorFrame,
    Event,
    Exited,
    Gone,
    IdleLong,
    InitDeadlinePassed,
    InitErrorFrame,
    Instruction,
    Kill,
    NextFrame,
    Outcome,
    ReportInit,
    ResponseFrame,
    SendInvoke,
    Started,
    StartFailed,
    Undeliverable,
    Violated,
)
from lambent.observe import log_lines


class State(StrEnum):
    """Where an environment stands. The values are what people see."""

    STARTING = "starting"
    INITIALIZING = "initializing"
    BROKEN = "broken"
    IDLE = "idle"
    FROZEN = "frozen"
    RESTARTING = "restarting"
    REINITIALIZING = "reinitializing"
    BUSY = "busy"
    ANSWERED = "answered"
    STOPPED = "stopped"


# ------------------------------------------------------------------------------------------------------------------- the table

_S = State
_ENDS = (_S.STOPPED,)

TABLE: dict[tuple[State, type[Any]], tuple[str, tuple[State, ...]]] = {
    # before init is over
    (_S.STARTING, Started): ("begin_init", (_S.INITIALIZING,)),
    (_S.STARTING, StartFailed): ("stillborn", _ENDS),
    (_S.STARTING, Kill): ("stop", _ENDS),
    (_S.INITIALIZING, NextFrame): ("initialized", (_S.IDLE,)),
    (_S.INITIALIZING, InitErrorFrame): ("init_failed", (_S.BROKEN,)),
    (_S.INITIALIZING, Exited): ("init_exited", (_S.BROKEN,)),
    (_S.INITIALIZING, InitDeadlinePassed): ("init_timed_out", (_S.BROKEN,)),
    (_S.INITIALIZING, ResponseFrame): ("init_violated", (_S.BROKEN,)),
    (_S.INITIALIZING, ErrorFrame): ("init_violated", (_S.BROKEN,)),
    (_S.INITIALIZING, Violated): ("init_violated", (_S.BROKEN,)),
    (_S.INITIALIZING, Kill): ("stop", _ENDS),
    # the second attempt at init, inside an invocation
    (_S.BROKEN, Assigned): ("restart", (_S.RESTARTING,)),
    (_S.BROKEN, Kill): ("stop", _ENDS),
    (_S.RESTARTING, Started): ("begin_init", (_S.REINITIALIZING,)),
    (_S.RESTARTING, StartFailed): ("fail_restart", _ENDS),
    (_S.RESTARTING, DeadlinePassed): ("time_out", _ENDS),
    (_S.RESTARTING, Kill): ("abandon", _ENDS),
    (_S.REINITIALIZING, NextFrame): ("send", (_S.BUSY,)),
    (_S.REINITIALIZING, InitErrorFrame): ("fail_init", _ENDS),
    (_S.REINITIALIZING, Exited): ("fail_init_exit", _ENDS),
    (_S.REINITIALIZING, DeadlinePassed): ("time_out_init", _ENDS),
    (_S.REINITIALIZING, ResponseFrame): ("violate", _ENDS),
    (_S.REINITIALIZING, ErrorFrame): ("violate", _ENDS),
    (_S.REINITIALIZING, Violated): ("violate", _ENDS),
    (_S.REINITIALIZING, Kill): ("abandon", _ENDS),
    # free
    (_S.IDLE, Assigned): ("lease", (_S.BUSY,)),
    (_S.IDLE, IdleLong): ("freeze", (_S.FROZEN,)),
    (_S.IDLE, NextFrame): ("violate_idle", _ENDS),
    (_S.IDLE, ResponseFrame): ("violate_idle", _ENDS),
    (_S.IDLE, ErrorFrame): ("violate_idle", _ENDS),
    (_S.IDLE, InitErrorFrame): ("violate_idle", _ENDS),
    (_S.IDLE, Violated): ("violate_idle", _ENDS),
    (_S.IDLE, Exited): ("exit_idle", _ENDS),
    (_S.IDLE, Kill): ("stop", _ENDS),
    (_S.FROZEN, Assigned): ("thaw_and_lease", (_S.BUSY,)),
    (_S.FROZEN, IdleLong): ("nothing", (_S.FROZEN,)),
    (_S.FROZEN, NextFrame): ("violate_idle", _ENDS),  # written before the freeze, read after it
    (_S.FROZEN, ResponseFrame): ("violate_idle", _ENDS),
    (_S.FROZEN, ErrorFrame): ("violate_idle", _ENDS),
    (_S.FROZEN, InitErrorFrame): ("violate_idle", _ENDS),
    (_S.FROZEN, Violated): ("violate_idle", _ENDS),
    (_S.FROZEN, Exited): ("exit_idle", _ENDS),
    (_S.FROZEN, Kill): ("stop", _ENDS),
    # at work
    (_S.BUSY, ResponseFrame): ("respond", (_S.ANSWERED, _S.STOPPED)),
    (_S.BUSY, ErrorFrame): ("respond_error", (_S.ANSWERED, _S.STOPPED)),
    (_S.BUSY, NextFrame): ("violate", _ENDS),
    (_S.BUSY, InitErrorFrame): ("violate", _ENDS),
    (_S.BUSY, Violated): ("violate", _ENDS),
    (_S.BUSY, Undeliverable): ("take_back", _ENDS),
    (_S.BUSY, Exited): ("exit_busy", _ENDS),
    (_S.BUSY, DeadlinePassed): ("time_out", _ENDS),
    (_S.BUSY, Kill): ("abandon", _ENDS),
    (_S.ANSWERED, NextFrame): ("finish", (_S.IDLE,)),
    (_S.ANSWERED, ResponseFrame): ("finish_and_stop", _ENDS),
    (_S.ANSWERED, ErrorFrame): ("finish_and_stop", _ENDS),
    (_S.ANSWERED, InitErrorFrame): ("finish_and_stop", _ENDS),
    (_S.ANSWERED, Violated): ("finish_and_stop", _ENDS),
    (_S.ANSWERED, Exited): ("finish_and_stop", _ENDS),
    (_S.ANSWERED, DeadlinePassed): ("finish_and_stop", _ENDS),
    (_S.ANSWERED, Kill): ("finish_and_stop", _ENDS),
    # over: what was under way when it stopped still arrives
    (_S.STOPPED, Started): ("drop", _ENDS),
    (_S.STOPPED, StartFailed): ("nothing", _ENDS),
    (_S.STOPPED, NextFrame): ("nothing", _ENDS),
    (_S.STOPPED, ResponseFrame): ("nothing", _ENDS),
    (_S.STOPPED, ErrorFrame): ("nothing", _ENDS),
    (_S.STOPPED, InitErrorFrame): ("nothing", _ENDS),
    (_S.STOPPED, Violated): ("nothing", _ENDS),
    (_S.STOPPED, Exited): ("nothing", _ENDS),
    (_S.STOPPED, DeadlinePassed): ("nothing", _ENDS),
    (_S.STOPPED, InitDeadlinePassed): ("nothing", _ENDS),
    (_S.STOPPED, IdleLong): ("nothing", _ENDS),
    (_S.STOPPED, Kill): ("nothing", _ENDS),
}

_NOTHING: tuple[Instruction, ...] = ()
_STORY = 24


class EnvironmentMachine:
    """Feed it events with ``handle``; carry out what it returns, in order. Nothing else changes its state."""

    __slots__ = (
        "_began_at",
        "_fence",
        "_history",
        "_init_at",
        "_init_s",
        "_outcome",
        "epoch",
        "name",
        "request_id",
        "response_cap",
        "state",
        "timeout_s",
    )

    def __init__(self, name: str, timeout_s: float, response_cap: int) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self.response_cap = response_cap
        self.state = State.STARTING
        self.request_id = ""  # of the invocation that is assigned, else ""
        self.epoch = 0  # lease epochs given out, which is also how many invocations were handed over
        self._fence = ""
        self._began_at = 0.0
        self._init_at = 0.0
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
        self._init_at = event.at
        self.state = State.INITIALIZING if self.state is State.STARTING else State.REINITIALIZING
        return _NOTHING

    def stillborn(self, event: StartFailed) -> Sequence[Instruction]:
        self.state = State.STOPPED
        return (KILL_SANDBOX, Gone("start failed", event.fault))

    def initialized(self, event: NextFrame) -> Sequence[Instruction]:
        self.state = State.IDLE
        self._init_s = event.at - self._init_at
        return (READY,)

    def init_failed(self, event: InitErrorFrame) -> Sequence[Instruction]:
        return self._break("error", event.at, event.error_type)

    def init_exited(self, event: Exited) -> Sequence[Instruction]:
        return self._break("error", event.at, fault_payloads.exit_type(event.how))

    def init_timed_out(self, event: InitDeadlinePassed) -> Sequence[Instruction]:
        return self._break("timeout", event.at, "")

    def init_violated(self, event: ResponseFrame | ErrorFrame | Violated) -> Sequence[Instruction]:
        return self._break("error", event.at, "Runtime.Unknown")

    def _break(self, status: str, at: float, error_type: str) -> Sequence[Instruction]:
        self.state = State.BROKEN
        return (ReportInit("init", status, at - self._init_at, error_type), KILL_SANDBOX, READY_BROKEN)

    def restart(self, event: Assigned) -> Sequence[Instruction]:
        self._accept(event)
        self.state = State.RESTARTING
        return (START_SANDBOX,)

    def fail_restart(self, event: StartFailed) -> Sequence[Instruction]:
        return self._end(Outcome(status="error", error_type="Sandbox.Failure", fault=event.fault), self._began_at, "start failed")

    def fail_init(self, event: InitErrorFrame) -> Sequence[Instruction]:
        outcome = Outcome(event.body, function_error=True, status="error", error_type=event.error_type)
        report = ReportInit("invoke", "error", event.at - self._init_at, event.error_type)
        return (report, *self._end(outcome, event.at, "init error"))

    def fail_init_exit(self, event: Exited) -> Sequence[Instruction]:
        report = ReportInit("invoke", "error", event.at - self._init_at, fault_payloads.exit_type(event.how))
        return (report, *self._exit(event))

    def time_out_init(self, event: DeadlinePassed) -> Sequence[Instruction]:
        return (ReportInit("invoke", "timeout", event.at - self._init_at, ""), *self.time_out(event))

    # --------------------------------------------------------------------------------------------------------- invoke

    def lease(self, event: Assigned) -> Sequence[Instruction]:
        self._accept(event)
        return (self._hand_over(),)

    def thaw_and_lease(self, event: Assigned) -> Sequence[Instruction]:
        self._accept(event)
        return (THAW, self._hand_over())

    def send(self, event: NextFrame) -> Sequence[Instruction]:
        return (self._hand_over(),)

    def _accept(self, event: Assigned) -> None:
        self.request_id = event.request_id
        self._began_at = event.at

    def _hand_over(self) -> SendInvoke:
        self.state = State.BUSY
        self.epoch += 1
        self._fence = f"{self.epoch}\n{self.request_id}\n"
        return SendInvoke(self.epoch)

    def respond(self, event: ResponseFrame) -> Sequence[Instruction]:
        if not event.head.startswith(self._fence):
            return self._refuse(event)
        if event.oversize:
            return self._settle_too_large()
        self.state = State.ANSWERED
        self._outcome = Outcome(event.body, event.head[len(self._fence) :] or "application/json")
        return _NOTHING

    def respond_error(self, event: ErrorFrame) -> Sequence[Instruction]:
        if not event.head.startswith(self._fence):
            return self._refuse(event)
        if event.oversize:
            return self._settle_too_large()
        self.state = State.ANSWERED
        self._outcome = Outcome(event.body, function_error=True, error_type=event.head[len(self._fence) :].partition("\n")[0])
        return _NOTHING

    def _settle_too_large(self) -> Sequence[Instruction]:
        self.state = State.ANSWERED
        fault = fault_payloads.too_large(self.response_cap)
        self._outcome = Outcome(fault_payloads.payload(fault), function_error=True, status="error", error_type=fault.error_type)
        return _NOTHING

    def _refuse(self, event: ResponseFrame | ErrorFrame) -> Sequence[Instruction]:
        token, _, rest = event.head.partition("\n")
        stale = token.isascii() and token.isdigit() and len(token) < 20 and int(token) < self.epoch
        detail = "an answer to an invocation that is over" if stale else "an answer to an invocation that it was not given"
        return self._violation(f"{detail} ({rest.partition(chr(10))[0][:64]!r})", event.at)

    def finish(self, event: NextFrame) -> Sequence[Instruction]:
        outcome = self._close(self._settled(), event.at)
        self.state = State.IDLE
        return (Answer(outcome), READY)

    def finish_and_stop(
        self, event: ResponseFrame | ErrorFrame | InitErrorFrame | Violated | Exited | DeadlinePassed | Kill
    ) -> Sequence[Instruction]:
        """The response stands; the report says what came after it."""
        outcome = self._settled()
        reason = "a second answer"
        if isinstance(event, Exited):
            reason = "exited after its answer"
            outcome.status, outcome.error_type = "error", fault_payloads.exit_type(event.how)
        elif isinstance(event, DeadlinePassed):
            reason = "timed out after its answer"
            outcome.status = "timeout"
        elif isinstance(event, Kill):
            reason = event.reason
        elif isinstance(event, Violated):
            reason = event.detail
        return self._end(outcome, event.at, reason)

    def take_back(self, event: Undeliverable) -> Sequence[Instruction]:
        self.state = State.STOPPED
        self.request_id = ""
        return (REQUEUE, KILL_SANDBOX, Gone("died while idle"))

    def time_out(self, event: DeadlinePassed) -> Sequence[Instruction]:
        fault = fault_payloads.timed_out(self.request_id, self.timeout_s)
        return self._end(self._failure(fault, "timeout", ""), event.at, "timed out")

    def exit_busy(self, event: Exited) -> Sequence[Instruction]:
        return self._exit(event)

    def _exit(self, event: Exited) -> Sequence[Instruction]:
        fault = fault_payloads.exited(self.request_id, event.how)
        note = log_lines.runtime_exited(self.request_id, fault.error_type, event.how.reason())
        return self._end(self._failure(fault, "error", note), event.at, event.how.reason())

    def violate(self, event: NextFrame | ResponseFrame | ErrorFrame | InitErrorFrame | Violated) -> Sequence[Instruction]:
        detail = event.detail if isinstance(event, Violated) else f"{_WORDS[type(event)]} out of turn"
        return self._violation(detail, event.at)

    def _violation(self, detail: str, at: float) -> Sequence[Instruction]:
        fault = fault_payloads.broke_protocol(self.request_id, detail)
        return self._end(self._failure(fault, "error", f"{fault.message}\n{fault.error_type}\n"), at, detail)

    def abandon(self, event: Kill) -> Sequence[Instruction]:
        fault = PlatformFault(f"The execution environment was stopped: {event.reason}", self.story())
        return self._end(Outcome(status="error", error_type="Sandbox.Failure", fault=fault), event.at, event.reason)

    # ---------------------------------------------------------------------------------------------------- free and over

    def freeze(self, event: IdleLong) -> Sequence[Instruction]:
        self.state = State.FROZEN
        return (FREEZE,)

    def violate_idle(self, event: NextFrame | ResponseFrame | ErrorFrame | InitErrorFrame | Violated) -> Sequence[Instruction]:
        detail = event.detail if isinstance(event, Violated) else f"{_WORDS[type(event)]} with no invocation running"
        return self._stop(detail)

    def exit_idle(self, event: Exited) -> Sequence[Instruction]:
        return self._stop(event.how.reason())

    def stop(self, event: Kill) -> Sequence[Instruction]:
        return self._stop(event.reason)

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
        self._fence = ""
        self.request_id = ""
        return outcome

    def _end(self, outcome: Outcome, at: float, reason: str) -> Sequence[Instruction]:
        self.state = State.STOPPED
        return (Answer(self._close(outcome, at)), KILL_SANDBOX, Gone(reason))

    def _stop(self, reason: str) -> Sequence[Instruction]:
        self.state = State.STOPPED
        return (KILL_SANDBOX, Gone(reason))


_WORDS: dict[type[Any], str] = {
    NextFrame: "next",
    ResponseFrame: "an answer",
    ErrorFrame: "an answer",
    InitErrorFrame: "an init error",
}

_ACTIONS: dict[State, dict[type[Any], Any]] = {
    state: {event: getattr(EnvironmentMachine, action) for (at, event), (action, _) in TABLE.items() if at is state} for state in State
}
