"""One mapping at work, pure: when to take records from the source, how to batch them, how many batches at once, what becomes of each.

The machine is *polling*, *resting* after the source failed, *draining* since somebody said stop, or *stopped*. It reads one thing at a
time: a ``Take`` brings what is there now, a ``Wait`` ends when there may be something. A take that brings less than was asked for is
followed by a wait, so an idle mapping has one wait outstanding and no timer at all.

**Slots.** A batch that runs or is held takes a slot. Nothing is taken from the source that has no slot: beyond the cap, records stay
where they are and nobody is throttled. While all slots are in use their number grows by ``Plan.growth`` a second, and while there
is nothing to take it falls at the same pace, to ``Plan.start`` or what is in use.

**Batches.** Records are gathered in order of arrival and cut when there are ``batch_size`` of them, when the next one would not fit, or
when the window of the oldest is over; without a window, whatever a take brought goes at once. With ``ordered`` a group is in one batch at
a time.

**What becomes of a batch.** *Succeeded*: its records are acknowledged, but those that the function named. *Failed*: the source redelivers
(a queue, after its visibility timeout, counting), or, if it cannot, the batch is held and tried again. *Refused*, by a throttle or a
fault of ours: the function has not seen it, so it must not cost the records a delivery, or a throttle would drive them to a dead-letter
queue. The batch is held, its visibility is prolonged (which counts nothing), and it is tried again with exponential back-off, or as soon
as another batch of the mapping ends, for then there is room. While a batch is held nothing else is taken.

Errors and refusals halve the slots; time gives them back. Held batches run as far as there are slots, oldest first. So a function that
cannot keep up is met at its own speed.

**Visibility.** Records that are gathered or held are kept invisible as long as they are, and get at least half of their visibility
timeout when the function starts. While it runs, the queue's visibility timeout holds, as on AWS. What was not prolonged in time, because
the machine slept or the source was away, is forgotten: the source brings it again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lambent.errors import IllegalTransition
from lambent.sources.poller_words import (
    Acknowledge,
    CancelWait,
    Change,
    Failed,
    GiveBack,
    Instruction,
    Invoke,
    Prolong,
    Rang,
    Refused,
    SourceFailed,
    Start,
    Stop,
    Stopped,
    Succeeded,
    Take,
    Tell,
    Tick,
    Took,
    Wait,
    Wake,
)
from lambent.sources.record import Plan, Record

TAKE_MOST = 500
TAKE_FIRST = 50  # until it is known how large the records are
ROOM = 256 * 2**20  # bytes of records in memory per mapping
REST_FIRST, REST_MOST = 0.5, 10.0
RETRY_FIRST, RETRY_MOST = 0.1, 10.0
HOLD_MOST = 11 * 3_600.0  # a queue hides a message for 12 hours at most

_NEVER = float("inf")

STOPPED, POLLING, RESTING, DRAINING = "stopped", "polling", "resting", "draining"


@dataclass(slots=True)
class _Gathered:
    record: Record
    since: float
    until: float  # end of its visibility
    visibility: float


@dataclass(slots=True)
class _Batch:
    records: Sequence[Record]
    size: int
    until: float
    visibility: float
    attempt: int = 0
    held_since: float | None = None
    retry_at: float | None = None  # None: it runs


class PollerMachine:
    """See above. ``handle`` takes an event and gives instructions; times are monotonic seconds."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.state = STOPPED
        self.slots = float(plan.start)
        self.gathered: deque[_Gathered] = deque()
        self.batches: dict[int, _Batch] = {}
        self.held: dict[int, None] = {}  # batches that wait for another try, oldest first
        self._busy: Counter[str] = Counter()
        self._bytes = 0
        self._mean = 0.0
        self._reading = ""  # "take", "wait" or nothing
        self._asked = 0
        self._more = True
        self._rests = 0
        self._rest_until = 0.0
        self._seen = 0.0
        self._saturated = False
        self._next = 1
        self._wake: float | None = None
        self._keep_at = _NEVER  # when something that is gathered must be prolonged; may be too early
        self._told: list[Instruction] = []

    def handle(self, event: Any) -> list[Instruction]:
        rule = _TABLE.get((self.state, type(event)))
        if rule is None:
            raise IllegalTransition("poller", self.state, type(event).__name__)
        self._told = []
        self._grow(event.at)
        rule(self, event)
        self._go_on(event.at)
        return self._told

    # -- the source ------------------------------------------------------------------------------------------------------------

    def _start(self, event: Start) -> None:
        self.state = POLLING

    def _change(self, event: Change) -> None:
        self.plan = event.plan
        self.slots = min(max(self.slots, float(event.plan.start)), float(event.plan.most))

    def _took(self, event: Took) -> None:
        self._reading = ""
        self._rests = 0
        self._more = len(event.records) >= self._asked
        wanted = [record for record in event.records if record.wanted]
        unwanted = [record for record in event.records if not record.wanted]
        if unwanted:
            self._told.append(Acknowledge(unwanted))
            self._told.append(Tell("filtered", f"{len(unwanted)} of {len(event.records)}"))
        for record in wanted:
            self._gather(record, event)
        if wanted:
            self._mean = sum(len(record.payload) for record in wanted) / len(wanted)

    def _gather(self, record: Record, event: Took) -> None:
        if len(record.payload) > self.plan.payload_limit:
            self._told.append(Acknowledge([record]))
            self._told.append(Tell("oversized", record.id))
            return
        until = event.at + event.visibility if event.visibility else _NEVER
        self._keep_at = min(self._keep_at, until - event.visibility / 4)
        self.gathered.append(_Gathered(record, event.at, until, event.visibility))
        self._bytes += len(record.payload)

    def _took_in_vain(self, event: Took) -> None:
        """We are draining: nothing of it is wanted any more, but what the filters drop is dropped."""
        self._reading = ""
        back = [record for record in event.records if record.wanted]
        gone = [record for record in event.records if not record.wanted]
        if back:
            self._told.append(GiveBack(back))
        if gone:
            self._told.append(Acknowledge(gone))

    def _rang(self, event: Rang) -> None:
        self._reading = ""
        self._more = True

    def _read_nothing(self, event: Any) -> None:
        self._reading = ""

    def _source_failed(self, event: SourceFailed) -> None:
        self._reading = ""
        self._more = True
        self.state = RESTING
        self._rest_until = event.at + min(REST_FIRST * 2**self._rests, REST_MOST)
        self._rests = min(self._rests + 1, 16)
        if self._rests == 1:
            self._told.append(Tell("source failed", event.reason))

    def _tick(self, event: Tick) -> None:
        self._wake = None

    # -- batches ---------------------------------------------------------------------------------------------------------------

    def _succeeded(self, event: Succeeded) -> None:
        batch = self._end(event.batch)
        done = [record for record in batch.records if record.id not in event.failed] if event.failed else batch.records
        if done:
            self._told.append(Acknowledge(done))
        if event.failed:
            self._told.append(Tell("partly failed", f"batch {event.batch}: {len(batch.records) - len(done)} of {len(batch.records)}"))
            self._let_go_behind([record for record in batch.records if record.id in event.failed])
        self._make_way(event.at)

    def _failed(self, event: Failed) -> None:
        self._slow_down()
        self._told.append(Tell("failed", f"batch {event.batch}"))
        if not self.plan.redelivers and self.state != DRAINING:
            self._hold(event.batch, event.at)
            return
        batch = self._end(event.batch)
        self._let_go_behind(batch.records)
        self._make_way(event.at)

    def _refused(self, event: Refused) -> None:
        self._slow_down()
        if self.state == DRAINING:
            self._told.append(GiveBack(self._end(event.batch).records))
        else:
            self._hold(event.batch, event.at)

    def _hold(self, number: int, at: float) -> None:
        batch = self.batches[number]
        batch.held_since = at if batch.held_since is None else batch.held_since
        if at - batch.held_since > HOLD_MOST:
            self._told.append(Tell("given up", f"batch {number}: held for {HOLD_MOST:.0f} s"))
            self._let_go_behind(self._end(number).records)
            return
        batch.retry_at = at + min(RETRY_FIRST * 2 ** min(batch.attempt - 1, 16), RETRY_MOST)
        self.held[number] = None
        if batch.attempt == 1:
            self._told.append(Tell("held", f"batch {number}"))

    def _make_way(self, at: float) -> None:
        """A batch has ended, so there is room for one that was refused."""
        for number in self.held:
            self.batches[number].retry_at = at
            return

    def _let_go_behind(self, failed: Sequence[Record]) -> None:
        """Records of the same groups that are gathered must not overtake those that failed."""
        groups = {record.group for record in failed if record.group} if self.plan.ordered and self.gathered else set()
        if not groups:
            return
        behind = [each.record for each in self.gathered if each.record.group in groups]
        if behind:
            self.gathered = deque(each for each in self.gathered if each.record.group not in groups)
            self._bytes -= sum(len(record.payload) for record in behind)
            self._told.append(GiveBack(behind))

    def _end(self, number: int) -> _Batch:
        batch = self.batches.pop(number)
        self.held.pop(number, None)
        self._bytes -= batch.size
        if self.plan.ordered:
            self._busy.subtract({record.group for record in batch.records})
            self._busy += Counter()
        return batch

    def _slow_down(self) -> None:
        self.slots = max(1.0, self.slots / 2)

    def _grow(self, at: float) -> None:
        pace = self.plan.growth * max(at - self._seen, 0.0)
        if self._saturated:
            self.slots = min(float(self.plan.most), self.slots + pace)
        elif self._reading == "wait":
            self.slots = max(self.slots - pace, min(self.slots, float(max(self.plan.start, len(self.batches) + 1))))
        self._seen = at

    # -- stopping --------------------------------------------------------------------------------------------------------------

    def _stop(self, event: Stop) -> None:
        self.state = DRAINING
        if self._reading == "wait":
            self._told.append(CancelWait())
        back = [each.record for each in self.gathered]
        self.gathered.clear()
        self._bytes -= sum(len(record.payload) for record in back)
        for number in list(self.held):
            back += self._end(number).records
        if back:
            self._told.append(GiveBack(back))

    def _ignore(self, event: Any) -> None:
        pass

    # -- what follows ----------------------------------------------------------------------------------------------------------

    def _go_on(self, at: float) -> None:
        if self.state == RESTING and at >= self._rest_until:
            self.state = POLLING
        if self.state == DRAINING:
            if not self.batches and not self._reading:
                self.state = STOPPED
                self._told.append(Stopped())
            return self._set_wake(None)
        self._keep(at)
        self._retry(at)
        self._cut(at)
        self._read()
        self._saturated = not self._free()
        return self._set_wake(self._due())

    def _retry(self, at: float) -> None:
        for number in [number for number in self.held if (self.batches[number].retry_at or 0.0) <= at][: self._free()]:
            batch = self.batches[number]
            batch.retry_at = None
            del self.held[number]
            self._run(number, batch, at)

    def _free(self) -> int:
        """How many more may run."""
        return max(0, int(self.slots) - len(self.batches) + len(self.held))

    def _run(self, number: int, batch: _Batch, at: float) -> None:
        if batch.until - at < batch.visibility / 2:
            self._told.append(Prolong(batch.records, batch.visibility))
            batch.until = at + batch.visibility
        batch.attempt += 1
        self._told.append(Invoke(number, batch.records, batch.attempt))

    def _cut(self, at: float) -> None:
        while self.gathered and not self.held and len(self.batches) < int(self.slots):
            chosen, full = self._choose()
            if not chosen or not (full or at >= chosen[0].since + self.plan.window):
                return
            self._take_out(chosen)
            records = [each.record for each in chosen]
            visibility = max(each.visibility for each in chosen)
            batch = _Batch(records, sum(len(record.payload) for record in records), min(each.until for each in chosen), visibility)
            number, self._next = self._next, self._next + 1
            self.batches[number] = batch
            if self.plan.ordered:
                self._busy.update({record.group for record in records})
            self._run(number, batch, at)

    def _take_out(self, chosen: Sequence[_Gathered]) -> None:
        if self.plan.ordered:
            taken = {id(each) for each in chosen}
            self.gathered = deque(each for each in self.gathered if id(each) not in taken)
        else:
            for _ in chosen:
                self.gathered.popleft()

    def _choose(self) -> tuple[list[_Gathered], bool]:
        """The next batch as far as it goes, and whether it is full."""
        chosen: list[_Gathered] = []
        size = 0
        for each in self.gathered:
            if self.plan.ordered and self._busy.get(each.record.group):
                continue
            if size + len(each.record.payload) > self.plan.payload_limit:
                return chosen, True
            chosen.append(each)
            size += len(each.record.payload) + 1
            if len(chosen) >= self.plan.batch_size:
                return chosen, True
        return chosen, False

    def _keep(self, at: float) -> None:
        """Prolong what nobody works on yet, and forget what is not ours any more: it comes again."""
        if at >= self._keep_at:
            self._forget_gathered(at)
            self._keep_gathered(at)
        for number in list(self.held):
            batch = self.batches[number]
            if at >= batch.until:
                self._told.append(Tell("lost", f"batch {number}: its visibility timeout is over"))
                self._let_go_behind(self._end(number).records)
            elif batch.visibility and at >= batch.until - batch.visibility / 4:
                self._told.append(Prolong(batch.records, batch.visibility))
                batch.until = at + batch.visibility

    def _forget_gathered(self, at: float) -> None:
        lost = [each for each in self.gathered if at >= each.until]
        if lost:
            self._told.append(Tell("lost", f"{len(lost)} records: their visibility timeout is over"))
            self._bytes -= sum(len(each.record.payload) for each in lost)
            self.gathered = deque(each for each in self.gathered if at < each.until)
            self._let_go_behind([each.record for each in lost])

    def _keep_gathered(self, at: float) -> None:
        late = [each for each in self.gathered if each.visibility and at >= each.until - each.visibility / 4]
        if late:
            seconds = max(each.visibility for each in late)
            self._told.append(Prolong([each.record for each in late], seconds))
            for each in late:
                each.until = at + seconds
        self._keep_at = min((each.until - each.visibility / 4 for each in self.gathered), default=_NEVER)

    def _read(self) -> None:
        if self._reading or self.state != POLLING or self.held or self._bytes >= ROOM:
            return
        limit = (int(self.slots) - len(self.batches)) * self.plan.batch_size - len(self.gathered)
        if self.plan.ordered:
            limit = min(limit, self.plan.batch_size) if not self.gathered else 0
        if limit <= 0:
            return
        if not self._more:
            self._reading = "wait"
            self._told.append(Wait())
            return
        fits = int((ROOM - self._bytes) / self._mean) + 1 if self._mean else TAKE_FIRST
        self._asked = min(limit, fits, TAKE_MOST)
        self._reading = "take"
        self._told.append(Take(self._asked))

    def _due(self) -> float | None:
        """When there is something to do though nothing happens."""
        times = [self._rest_until] if self.state == RESTING else []
        if self._free():
            times += [batch.retry_at for number in self.held if (batch := self.batches[number]).retry_at is not None]
        times += [batch.until - batch.visibility / 4 for number in self.held if (batch := self.batches[number]).visibility]
        if self.gathered:
            times.append(self._keep_at)
            if len(self.batches) < int(self.slots) and not self.held and self.plan.window:
                times.append(self.gathered[0].since + self.plan.window)
        if self._saturated and self.slots < self.plan.most and self.state == POLLING:
            times.append(self._seen + (int(self.slots) + 1 - self.slots) / self.plan.growth + 1e-6)
        return min((each for each in times if each != _NEVER), default=None)

    def _set_wake(self, at: float | None) -> None:
        if at != self._wake:
            self._wake = at
            self._told.append(Wake(at))


_TABLE: dict[tuple[str, type], Callable[[PollerMachine, Any], None]] = {
    (STOPPED, Start): PollerMachine._start,
    (POLLING, Took): PollerMachine._took,
    (POLLING, Rang): PollerMachine._rang,
    (POLLING, SourceFailed): PollerMachine._source_failed,
    (POLLING, Succeeded): PollerMachine._succeeded,
    (POLLING, Failed): PollerMachine._failed,
    (POLLING, Refused): PollerMachine._refused,
    (POLLING, Tick): PollerMachine._tick,
    (POLLING, Change): PollerMachine._change,
    (POLLING, Stop): PollerMachine._stop,
    (RESTING, Succeeded): PollerMachine._succeeded,
    (RESTING, Failed): PollerMachine._failed,
    (RESTING, Refused): PollerMachine._refused,
    (RESTING, Tick): PollerMachine._tick,
    (RESTING, Change): PollerMachine._change,
    (RESTING, Stop): PollerMachine._stop,
    (DRAINING, Took): PollerMachine._took_in_vain,
    (DRAINING, Rang): PollerMachine._read_nothing,
    (DRAINING, SourceFailed): PollerMachine._read_nothing,
    (DRAINING, Succeeded): PollerMachine._succeeded,
    (DRAINING, Failed): PollerMachine._failed,
    (DRAINING, Refused): PollerMachine._refused,
    (DRAINING, Tick): PollerMachine._tick,
    (DRAINING, Stop): PollerMachine._ignore,
    (STOPPED, Tick): PollerMachine._ignore,
}
