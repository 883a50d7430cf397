"""The pool of execution environments of one function version (and tenant), as a pure machine: who runs where.

**Leasing.** A job takes the environment that went idle last: it is the warmest, and the others grow old undisturbed and can be
reaped. If none is idle, the job waits in order of arrival and one more environment is started for it. On AWS a cold start is bound
to its request. Here whichever environment is free first takes the job that has waited longest, be it a fresh one or one that just
finished: nobody waits longer than on AWS, most wait less, and the spare start is there for the next job, which is counted on before
another is started. Two laws follow, and the tests hold the machine to them after every step: while jobs wait, at least as many
environments are starting; and there are never more environments than there have been jobs in flight at once, which the permits
bound.

**Init failures.** An environment whose init failed is good for one job, which pays for the second attempt (see
``environment_state``). With nobody waiting it is thrown away.

**Resets.** An environment whose runtime died with its invocation is as good as a new one, no better: it waits apart (``worn``), and is
taken only where otherwise another would be started. A kept one is replaced instead, so that what takes its place is initialised already.

**Idling.** ``idle`` is ordered by the time of going idle, oldest first; the frozen ones are always its head, so that a ``Tick``
looks only at what it changes. Freezing is lazy: an environment that is busy again at once pays nothing.

**Keeping.** With provisioned concurrency a pool keeps a number of environments whether anybody asks or not: they are started ahead, a
few at a time, are leased before all others, wait in a list of their own (``ready``), freeze like the others, are never reaped, and are
replaced when they die. Their initialisation may take minutes, so no waiting job counts on them; but if one is free first, it takes the
job all the same. A start that fails (``KeepFailed``), or the death of one that has not served yet, is made good only with the next
``Renew``, which the shell sends after a while, longer each time. One that is no longer wanted while it works becomes an ordinary one.

**Draining.** When the version changes, the pool's key is stale: what is idle stops at once, what is busy stops when it is free,
jobs that were accepted before still run on what they were accepted for, and nothing new comes in, since ``Submit`` is no word that
a draining pool knows. ``Abort`` is the end of patience: everything stops, and whoever waited gets the fault.

Two tables: what a pool hears, by phase; and what it hears about one environment, by the state of its slot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lambent.errors import IllegalTransition, PlatformFault
from lambent.invoke.pool_events import (
    RETIRE,
    Abort,
    Begin,
    Drain,
    Ended,
    Event,
    Evict,
    Fail,
    Free,
    FreeBroken,
    FreeReset,
    FreezeSlot,
    Instruction,
    Keep,
    KeepFailed,
    Renew,
    Resubmit,
    Start,
    Stop,
    Submit,
    Tick,
)


class Phase(StrEnum):
    """Where a pool stands."""

    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


class SlotState(StrEnum):
    """Where an environment stands, as far as the pool cares."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    STOPPING = "stopping"


# ------------------------------------------------------------------------------------------------------------------ the tables

POOL_TABLE: dict[tuple[Phase, type[Any]], tuple[str, tuple[Phase, ...]]] = {
    (Phase.OPEN, Submit): ("submit", (Phase.OPEN,)),
    (Phase.OPEN, Resubmit): ("resubmit", (Phase.OPEN,)),
    (Phase.OPEN, Tick): ("tick", (Phase.OPEN, Phase.CLOSED)),
    (Phase.OPEN, Keep): ("keep", (Phase.OPEN,)),
    (Phase.OPEN, Renew): ("renew", (Phase.OPEN,)),
    (Phase.OPEN, Evict): ("evict", (Phase.OPEN,)),
    (Phase.OPEN, Drain): ("drain", (Phase.DRAINING, Phase.CLOSED)),
    (Phase.OPEN, Abort): ("abort", (Phase.DRAINING, Phase.CLOSED)),
    (Phase.DRAINING, Resubmit): ("resubmit", (Phase.DRAINING,)),
    (Phase.DRAINING, Tick): ("ignore", (Phase.DRAINING,)),
    (Phase.DRAINING, Keep): ("ignore", (Phase.DRAINING,)),
    (Phase.DRAINING, Renew): ("ignore", (Phase.DRAINING,)),
    (Phase.DRAINING, Evict): ("ignore", (Phase.DRAINING,)),
    (Phase.DRAINING, Drain): ("ignore", (Phase.DRAINING,)),
    (Phase.DRAINING, Abort): ("abort", (Phase.DRAINING, Phase.CLOSED)),
    (Phase.CLOSED, Tick): ("ignore", (Phase.CLOSED,)),
    (Phase.CLOSED, Keep): ("ignore", (Phase.CLOSED,)),
    (Phase.CLOSED, Renew): ("ignore", (Phase.CLOSED,)),
    (Phase.CLOSED, Evict): ("ignore", (Phase.CLOSED,)),
    (Phase.CLOSED, Drain): ("ignore", (Phase.CLOSED,)),
    (Phase.CLOSED, Abort): ("ignore", (Phase.CLOSED,)),
}

_GONE = None  # the slot is removed
SLOT_TABLE: dict[tuple[SlotState, type[Any]], tuple[str, tuple[SlotState | None, ...]]] = {
    (SlotState.STARTING, Free): ("offer", (SlotState.BUSY, SlotState.IDLE, SlotState.STOPPING)),
    (SlotState.STARTING, FreeBroken): ("offer_broken", (SlotState.BUSY, SlotState.STOPPING)),
    (SlotState.STARTING, Ended): ("lose_start", (_GONE,)),
    (SlotState.BUSY, Free): ("offer", (SlotState.BUSY, SlotState.IDLE, SlotState.STOPPING)),
    (SlotState.BUSY, FreeReset): ("offer_reset", (SlotState.BUSY, SlotState.IDLE, SlotState.STOPPING)),
    (SlotState.BUSY, Ended): ("lose", (_GONE,)),
    (SlotState.IDLE, Ended): ("lose_idle", (_GONE,)),
    (SlotState.STOPPING, Ended): ("lose", (_GONE,)),
}

_NOTHING: tuple[Instruction, ...] = ()
_STORY = 32


@dataclass(slots=True, eq=False)
class Slot:
    """One environment. ``since`` is when it went idle, if it is. ``served``: a kept one that has had a job."""

    number: int
    state: SlotState
    since: float = 0.0
    kept: bool = False
    served: bool = False


class PoolMachine:
    """Feed it events with ``handle``; carry out what it returns, in order. Nothing else changes its state."""

    __slots__ = (
        "_at_once",
        "_history",
        "_numbers",
        "complete",
        "failures",
        "frozen",
        "idle",
        "kept",
        "kept_starting",
        "name",
        "phase",
        "ready",
        "ready_frozen",
        "reason",
        "slots",
        "starting",
        "target",
        "waiting",
        "worn",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.phase = Phase.OPEN
        self.reason = ""  # why it drains
        self.slots: dict[int, Slot] = {}
        self.idle: list[Slot] = []  # by ``since``, oldest first; the first ``frozen`` of them are frozen
        self.frozen = 0
        self.worn: list[Slot] = []  # idle ones that would have to run init, by ``since``
        self.starting = 0  # without the kept ones
        self.waiting: deque[Any] = deque()
        self.target = 0  # environments to keep
        self.kept = 0  # of them there are, those that start included
        self.kept_starting = 0
        self.ready: list[Slot] = []  # the kept ones that are idle, by ``since``; the first ``ready_frozen`` of them are frozen
        self.ready_frozen = 0
        self.failures = 0  # starts of kept environments that failed in a row
        self.complete = True  # since the target was set all kept environments were there at once
        self._at_once = 1
        self._numbers = 0
        self._history: deque[tuple[str, str, int]] = deque(maxlen=_STORY)

    def handle(self, event: Event) -> Sequence[Instruction]:
        """Take one event. Raises ``IllegalTransition``."""
        kind = type(event)
        if kind in _ABOUT_SLOTS:
            return self._handle_slot(event)
        action = _POOL_ACTIONS[self.phase].get(kind)
        if action is None:
            raise IllegalTransition(f"pool {self.name}", self.phase, kind.__name__, self.story())
        self._history.append((self.phase, kind.__name__, 0))
        instructions: Sequence[Instruction] = action(self, event)
        return instructions

    def _handle_slot(self, event: Any) -> Sequence[Instruction]:
        kind = type(event)
        slot = self.slots.get(event.slot)
        action = None if slot is None else _SLOT_ACTIONS[slot.state].get(kind)
        if slot is None or action is None:
            state = f"slot {event.slot} {'gone' if slot is None else slot.state}"
            raise IllegalTransition(f"pool {self.name}", state, kind.__name__, self.story())
        self._history.append((slot.state, kind.__name__, slot.number))
        instructions: Sequence[Instruction] = action(self, slot, event)
        return instructions

    def story(self) -> str:
        """The last events, oldest first, one a line."""
        lines = [f"  {state}: {event}{f' of {slot}' if slot else ''}" for state, event, slot in self._history]
        return "\n".join([*lines, f"  {self.phase}: {len(self.slots)} environments, {len(self.waiting)} waiting"])

    @property
    def unfrozen(self) -> int:
        """How many idle environments a coming ``Tick`` may freeze."""
        return len(self.idle) - self.frozen + len(self.ready) - self.ready_frozen

    @property
    def short(self) -> bool:
        """Whether another job would start another environment."""
        return not (self.idle or self.ready or self.worn) and self.starting <= len(self.waiting)

    @property
    def allocated(self) -> int:
        """How many kept environments are initialised, idle or at work."""
        return self.kept - self.kept_starting

    # -------------------------------------------------------------------------------------------------------- the pool

    def submit(self, event: Submit) -> Sequence[Instruction]:
        if self.ready:
            return self._lease_ready(event.job)
        idle = self.idle
        if idle:
            slot = idle.pop()
            if self.frozen > len(idle):  # noqa: PLR1730  (min() is a call, and this is the hot path)
                self.frozen = len(idle)
            slot.state = SlotState.BUSY
            return (Begin(slot.number, event.job),)
        if self.worn:
            return self._lease_worn(event.job)
        self.waiting.append(event.job)
        return self._start_if_short(event.job)

    def resubmit(self, event: Resubmit) -> Sequence[Instruction]:
        """It has waited longest, and goes first."""
        if self.idle or self.ready or self.worn:
            return self.submit(Submit(event.job))
        self.waiting.appendleft(event.job)
        return self._start_if_short(event.job)

    def _lease_ready(self, job: Any) -> Sequence[Instruction]:
        slot = self.ready.pop()
        self.ready_frozen = min(self.ready_frozen, len(self.ready))
        slot.state = SlotState.BUSY
        slot.served = True
        return (Begin(slot.number, job),)

    def _lease_worn(self, job: Any) -> Sequence[Instruction]:
        slot = self.worn.pop()
        slot.state = SlotState.BUSY
        return (Begin(slot.number, job),)

    def _start_if_short(self, job: Any) -> Sequence[Instruction]:
        return _NOTHING if self.starting >= len(self.waiting) else (self._start(job),)

    def _start(self, job: Any) -> Start:
        self._numbers += 1
        self.slots[self._numbers] = Slot(self._numbers, SlotState.STARTING)
        self.starting += 1
        return Start(self._numbers, job)

    def tick(self, event: Tick) -> Sequence[Instruction]:
        instructions: list[Instruction] = []
        oldest = event.at - event.idle_after
        reaped = 0
        for slot in self.idle:
            if slot.since > oldest:
                break
            reaped += 1
            instructions.append(self._stop(slot, "idle for too long"))
        del self.idle[:reaped]
        self.frozen = max(self.frozen - reaped, 0)
        while self.worn and self.worn[0].since <= oldest:
            instructions.append(self._stop(self.worn.pop(0), "idle for too long"))
        newest = event.at - event.freeze_after
        while self.frozen < len(self.idle) and self.idle[self.frozen].since <= newest:
            instructions.append(FreezeSlot(self.idle[self.frozen].number))
            self.frozen += 1
        while self.ready_frozen < len(self.ready) and self.ready[self.ready_frozen].since <= newest:
            instructions.append(FreezeSlot(self.ready[self.ready_frozen].number))
            self.ready_frozen += 1
        if not self.slots and not self.target:
            self.phase = Phase.CLOSED
            instructions.append(RETIRE)
        return instructions

    def evict(self, event: Evict) -> Sequence[Instruction]:
        if not self.idle:
            return _NOTHING
        self.frozen = max(self.frozen - 1, 0)
        return (self._stop(self.idle.pop(0), event.reason),)

    def keep(self, event: Keep) -> Sequence[Instruction]:
        self.target = event.count
        self._at_once = max(event.at_once, 1)
        self.failures = 0
        self.complete = self.allocated >= self.target
        return (*self._dismiss("no longer provisioned"), *self._replenish())

    def renew(self, event: Renew) -> Sequence[Instruction]:
        return self._replenish()

    def _replenish(self) -> list[Instruction]:
        instructions: list[Instruction] = []
        while self.phase is Phase.OPEN and self.kept < self.target and self.kept_starting < self._at_once:
            self._numbers += 1
            self.slots[self._numbers] = Slot(self._numbers, SlotState.STARTING, kept=True)
            self.kept += 1
            self.kept_starting += 1
            instructions.append(Start(self._numbers, None, kept=True))
        return instructions

    def _dismiss(self, reason: str) -> list[Instruction]:
        """Keep no more than the target: first those that are not there yet go, then the oldest idle ones; the busy ones stay as others."""
        instructions: list[Instruction] = []
        surplus = self.kept - self.target
        if surplus <= 0:
            return instructions
        for slot in [slot for slot in reversed(self.slots.values()) if slot.kept and slot.state is SlotState.STARTING][:surplus]:
            self.kept_starting -= 1
            instructions.append(self._stop_kept(slot, reason))
        while self.kept > self.target and self.ready:
            self.ready_frozen = max(self.ready_frozen - 1, 0)
            instructions.append(self._stop_kept(self.ready.pop(0), reason))
        for slot in [slot for slot in self.slots.values() if slot.kept and slot.state is SlotState.BUSY][: max(self.kept - self.target, 0)]:
            slot.kept = False
            self.kept -= 1
        return instructions

    def _stop_kept(self, slot: Slot, reason: str) -> Stop:
        slot.kept = False
        self.kept -= 1
        return self._stop(slot, reason)

    def drain(self, event: Drain) -> Sequence[Instruction]:
        self.phase = Phase.DRAINING
        self.reason = event.reason
        self.target = 0
        return (*self._dismiss(event.reason), *self._stop_idle(event.reason), *self._retire_if_empty())

    def abort(self, event: Abort) -> Sequence[Instruction]:
        self.phase = Phase.DRAINING
        self.reason = event.fault.message
        instructions: list[Instruction] = [Fail(job, event.fault) for job in self.waiting]
        self.waiting.clear()
        self.target = 0
        instructions += self._dismiss(self.reason)
        instructions += self._stop_idle(self.reason)
        for slot in self.slots.values():
            if slot.state in {SlotState.STARTING, SlotState.BUSY}:
                self.starting -= slot.state is SlotState.STARTING
                instructions.append(self._stop(slot, self.reason))
        return (*instructions, *self._retire_if_empty())

    def ignore(self, event: Event) -> Sequence[Instruction]:
        return _NOTHING

    # -------------------------------------------------------------------------------------------------- one environment

    def offer(self, slot: Slot, event: Free) -> Sequence[Instruction]:
        if slot.kept:
            return self._offer_kept(slot, event)
        if slot.state is SlotState.STARTING:
            self.starting -= 1
        if self.waiting:
            slot.state = SlotState.BUSY
            return (Begin(slot.number, self.waiting.popleft()),)
        if self.phase is not Phase.OPEN:
            return (self._stop(slot, self.reason),)
        slot.state = SlotState.IDLE
        slot.since = event.at
        self.idle.append(slot)
        return _NOTHING

    def _offer_kept(self, slot: Slot, event: Free) -> Sequence[Instruction]:
        instructions: list[Instruction] = []
        if slot.state is SlotState.STARTING:
            self.kept_starting -= 1
            self.failures = 0
            self.complete = self.complete or self.allocated >= self.target
            instructions += self._replenish()
        if self.waiting:
            slot.state = SlotState.BUSY
            slot.served = True
            instructions.append(Begin(slot.number, self.waiting.popleft()))
        else:
            slot.state = SlotState.IDLE
            slot.since = event.at
            self.ready.append(slot)
        return instructions

    def offer_reset(self, slot: Slot, event: FreeReset) -> Sequence[Instruction]:
        if slot.kept:
            return (self._stop_kept(slot, "another takes its place"), *self._replenish())
        if self.waiting:
            return (Begin(slot.number, self.waiting.popleft()),)
        if self.phase is not Phase.OPEN:
            return (self._stop(slot, self.reason),)
        slot.state = SlotState.IDLE
        slot.since = event.at
        self.worn.append(slot)
        return _NOTHING

    def offer_broken(self, slot: Slot, event: FreeBroken) -> Sequence[Instruction]:
        if slot.kept:
            self.kept_starting -= 1
            return (self._stop_kept(slot, "its init failed"), *self._note_failure())
        self.starting -= 1
        if self.waiting:
            slot.state = SlotState.BUSY
            return (Begin(slot.number, self.waiting.popleft()),)
        return (self._stop(slot, "its init failed and nobody waits"),)

    def lose_start(self, slot: Slot, event: Ended) -> Sequence[Instruction]:
        """A start that failed takes the job that has waited longest with it, unless another start is there for that one."""
        del self.slots[slot.number]
        if slot.kept:
            self.kept -= 1
            self.kept_starting -= 1
            return self._note_failure()
        self.starting -= 1
        if self.starting >= len(self.waiting):
            return self._retire_if_empty()
        fault = event.fault or PlatformFault("The execution environment ended before it was ready", self.story())
        return (Fail(self.waiting.popleft(), fault), *self._retire_if_empty())

    def _note_failure(self) -> list[Instruction]:
        self.failures += 1
        return [KeepFailed(self.failures)]

    def lose(self, slot: Slot, event: Ended) -> Sequence[Instruction]:
        del self.slots[slot.number]
        if slot.kept:
            self.kept -= 1
            return self._replenish() if slot.served else self._note_failure()
        return self._retire_if_empty()

    def lose_idle(self, slot: Slot, event: Ended) -> Sequence[Instruction]:
        if slot.kept:
            place = self.ready.index(slot)
            del self.ready[place]
            self.ready_frozen -= place < self.ready_frozen
        elif slot in self.worn:
            self.worn.remove(slot)
        else:
            place = self.idle.index(slot)
            del self.idle[place]
            self.frozen -= place < self.frozen
        return self.lose(slot, event)

    # ---------------------------------------------------------------------------------------------------------- helpers

    def _stop(self, slot: Slot, reason: str) -> Stop:
        slot.state = SlotState.STOPPING
        return Stop(slot.number, reason)

    def _stop_idle(self, reason: str) -> list[Instruction]:
        instructions: list[Instruction] = [self._stop(slot, reason) for slot in (*self.worn, *self.idle)]
        self.worn.clear()
        self.idle.clear()
        self.frozen = 0
        return instructions

    def _retire_if_empty(self) -> Sequence[Instruction]:
        if self.phase is not Phase.DRAINING or self.slots or self.waiting:
            return _NOTHING
        self.phase = Phase.CLOSED
        return (RETIRE,)


_ABOUT_SLOTS = frozenset({Free, FreeBroken, FreeReset, Ended})
_POOL_ACTIONS: dict[Phase, dict[type[Any], Any]] = {
    phase: {event: getattr(PoolMachine, action) for (at, event), (action, _) in POOL_TABLE.items() if at is phase} for phase in Phase
}
_SLOT_ACTIONS: dict[SlotState, dict[type[Any], Any]] = {
    state: {event: getattr(PoolMachine, action) for (at, event), (action, _) in SLOT_TABLE.items() if at is state} for state in SlotState
}
