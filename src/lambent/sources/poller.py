"""One mapping at work: carries out what ``poller_state.py`` decides, and tells it what came of it.

Every batch is an invocation like any other: it enters by the front door and takes a permit there. What comes back is one of three: the
function succeeded (its answer may name records that failed), it failed, or it was not reached; what is done about each is the machine's.

Acknowledgements are gathered while one is being committed and, as long as further batches run, for ``GATHER_S`` before that: a mapping
that is busy commits seldom, and the store, whose commits wait for the disk, has time for leases, which do not. One that the store refuses
is tried a few times; then the records come again, since at least once is the promise.
"""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from lambent.clock import Clock, Timer
from lambent.errors import ClientFault, LambentError, PlatformFault
from lambent.invoke.fittings import StoryRecorder
from lambent.invoke.invocation import Invocation, InvocationResult
from lambent.invoke.lanes import Point
from lambent.invoke.recursion import digest_of
from lambent.sources import poller_words as words
from lambent.sources.filters import Filters, patterns_of
from lambent.sources.mapping import PolledMapping, reports_failures
from lambent.sources.partial_response import Malformed, failed_items
from lambent.sources.poller_state import PollerMachine
from lambent.sources.record import Plan, Record
from lambent.sources.source import Source

log = logging.getLogger("lambent.sources")

ATTEMPTS = 4
RETRY_S = 0.25
GATHER_S = 0.02
_FUNCTIONS_FAULT = frozenset({"RecursiveInvocationException", "RequestTooLargeException", "InvalidRequestContentException"})


MAPPING_POINTS = (
    "send:committed",  # ``Mailbox.at``: the message is durable, and its sender has not been told
    "dead:committed",  # ``Mailbox.at``: dead letters have been moved
    "take:committed",  # records are leased, and nobody knows of it
    "batch:begun",
    "batch:ended",  # the function has answered, and nobody knows of it
    "acknowledge:begun",
    "acknowledge:committed",
    "giveback:committed",
    "prolong:committed",
    "poller:drained",
    "mapping:committed",  # ``EventSourceMappings.at``: made or changed, and the caller has not been told
    "mapping:settled",  # ``EventSourceMappings.at``: the transition is over
)
"""The points on the way of a message through a mapping that ``at`` is told of, for tests that end the process there."""


class Door(Protocol):
    """The entrance to the data plane."""

    async def invoke(self, call: Invocation) -> InvocationResult: ...


class Poller:
    """``start`` once; after ``stop`` it drains, and ``stopped`` is set when nothing is left to do."""

    def __init__(
        self,
        mapping: PolledMapping,
        plan: Plan,
        payload_keys: Sequence[str],
        source: Source,
        door: Door,
        clock: Clock,
        story: StoryRecorder,
        at: Point = lambda name: None,
    ) -> None:
        self.mapping = mapping
        self.machine = PollerMachine(plan)
        self.source = source
        self.stopped = asyncio.Event()
        self.stopping = False
        self._abandoned = False
        self._keys = payload_keys
        self._filters = Filters(patterns_of(mapping.config.get("FilterCriteria")), payload_keys)
        self._door = door
        self._clock = clock
        self._story = story
        self._at = at
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._done: list[Record] = []
        self._acknowledging = False
        self._carry_out: dict[type, Callable[[Any], None]] = {
            words.Take: self._take,
            words.Wait: self._wait,
            words.CancelWait: self._cancel_wait,
            words.Invoke: self._invoke,
            words.Acknowledge: self._acknowledge,
            words.GiveBack: self._give_back,
            words.Prolong: self._prolong,
            words.Wake: self._wake,
            words.Tell: self._tell,
            words.Stopped: self._end,
        }

    def start(self) -> None:
        self._feed(words.Start(self._clock.monotonic()))

    def change(self, mapping: PolledMapping, plan: Plan) -> None:
        """What the mapping says from now on. Batches that run are not touched."""
        self.mapping = mapping
        self._filters = Filters(patterns_of(mapping.config.get("FilterCriteria")), self._keys)
        if plan != self.machine.plan:
            self._feed(words.Change(plan, self._clock.monotonic()))

    def stop(self) -> None:
        """Take nothing more, give back what the function has not seen, finish what runs."""
        if not self.stopping:
            self.stopping = True
            self._feed(words.Stop(self._clock.monotonic()))

    async def abandon(self) -> None:
        """End whatever still runs; for the end of the node, after ``stop``."""
        self._abandoned = True  # what is cancelled now may still run in its environment, so nothing is given back
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()

    # -- events in, instructions out -------------------------------------------------------------------------------------------

    def _feed(self, event: Any) -> None:
        if self._abandoned:
            return
        for instruction in self.machine.handle(event):
            self._carry_out[type(instruction)](instruction)

    def _spawn(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._spawned_ended)
        return task

    def _spawned_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("mapping %s", self.mapping.uuid, exc_info=error)

    def _take(self, order: words.Take) -> None:
        self._spawn(self._taking(order.limit))

    async def _taking(self, limit: int) -> None:
        try:
            taken = await self.source.take(limit, self._filters)
        except LambentError as error:
            self._feed(words.SourceFailed(str(error), self._clock.monotonic()))
            return
        self._at("take:committed")
        self._feed(words.Took(taken.records, taken.visibility, self._clock.monotonic()))

    def _wait(self, order: words.Wait) -> None:
        self._waiting = self._spawn(self._waits())

    async def _waits(self) -> None:
        try:
            await self.source.wait()
        except asyncio.CancelledError:
            self._feed(words.Rang(self._clock.monotonic()))
            raise
        except LambentError as error:
            self._feed(words.SourceFailed(str(error), self._clock.monotonic()))
            return
        self._feed(words.Rang(self._clock.monotonic()))

    def _cancel_wait(self, order: words.CancelWait) -> None:
        """A wait that has not begun cannot be cancelled from inside, so it is told off after its first step."""
        waiting = self._waiting
        if waiting is not None:
            asyncio.get_running_loop().call_soon(waiting.cancel)

    def _wake(self, order: words.Wake) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if order.at is not None:
            self._timer = self._clock.call_later(max(order.at - self._clock.monotonic(), 0.0), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._feed(words.Tick(self._clock.monotonic()))

    def _tell(self, order: words.Tell) -> None:
        self._story.record(self.mapping.uuid, order.event, "", order.detail, self._clock.now())

    # -- batches ---------------------------------------------------------------------------------------------------------------

    def _invoke(self, order: words.Invoke) -> None:
        self._spawn(self._invoking(order))

    async def _invoking(self, order: words.Invoke) -> None:
        self._at("batch:begun")
        try:
            event = await self._outcome(order)
        except BaseException:
            self._feed(words.Refused(order.batch, self._clock.monotonic()))
            raise
        self._at("batch:ended")
        self._feed(event)

    async def _outcome(self, order: words.Invoke) -> words.Succeeded | words.Failed | words.Refused:
        mapping, records, clock = self.mapping, order.records, self._clock
        request_id = str(uuid.uuid4())
        again = f", attempt {order.attempt}" if order.attempt > 1 else ""
        detail = f"{order.batch}: {len(records)} records as {request_id}{again}"
        self._story.record(mapping.uuid, "batch", records[0].id, detail, clock.now())
        payload = self.source.envelope(records)
        trace = trace_of(records, digest_of(mapping.function.unqualified))
        try:
            result = await self._door.invoke(Invocation(mapping.function, payload, request_id, trace=trace, cause=mapping.uuid))
        except (ClientFault, PlatformFault) as fault:
            code = fault.code if isinstance(fault, ClientFault) else type(fault).__name__
            self._story.record(mapping.uuid, "refused", request_id, code, clock.now())
            kind = words.Failed if code in _FUNCTIONS_FAULT else words.Refused
            return kind(order.batch, clock.monotonic())
        if result.function_error:
            return words.Failed(order.batch, clock.monotonic())
        if not reports_failures(mapping.config):
            return words.Succeeded(order.batch, frozenset(), clock.monotonic())
        try:
            failed = failed_items(result.payload, {record.id for record in records})
        except Malformed as problem:
            self._story.record(mapping.uuid, "malformed answer", request_id, str(problem), clock.now())
            return words.Failed(order.batch, clock.monotonic())
        return words.Succeeded(order.batch, failed, clock.monotonic())

    # -- what becomes of records -----------------------------------------------------------------------------------------------

    def _acknowledge(self, order: words.Acknowledge) -> None:
        self._done += order.records
        if not self._acknowledging:
            self._acknowledging = True
            self._spawn(self._acknowledges())

    async def _acknowledges(self) -> None:
        try:
            while self._done:
                if self.machine.batches and not self.machine.plan.ordered:  # of an ordered source the next ones wait for these
                    await self._clock.sleep(GATHER_S)
                records, self._done = self._done, []
                self._at("acknowledge:begun")
                if await self._persist(self.source.acknowledge, records):
                    self._at("acknowledge:committed")
        finally:
            self._acknowledging = False

    def _give_back(self, order: words.GiveBack) -> None:
        self._spawn(self._gives_back(order.records))

    async def _gives_back(self, records: Sequence[Record]) -> None:
        if await self._persist(self.source.give_back, records):
            self._at("giveback:committed")

    def _prolong(self, order: words.Prolong) -> None:
        self._spawn(self._prolongs(order))

    async def _prolongs(self, order: words.Prolong) -> None:
        try:
            await self.source.prolong(order.records, order.seconds)
        except LambentError as error:
            self._story.record(self.mapping.uuid, "not prolonged", "", str(error), self._clock.now())
            return
        self._at("prolong:committed")

    async def _persist(self, change: Callable[[Sequence[Record]], Coroutine[Any, Any, None]], records: Sequence[Record]) -> bool:
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._clock.sleep(RETRY_S * 2**attempt)
            try:
                await change(records)
                return True
            except LambentError as error:
                problem = str(error)
        self._story.record(self.mapping.uuid, "not settled", "", f"{len(records)} records will come again: {problem}", self._clock.now())
        return False

    def _end(self, order: words.Stopped) -> None:
        asyncio.get_running_loop().create_task(self._finish())

    async def _finish(self) -> None:
        while rest := [task for task in self._tasks if task is not asyncio.current_task()]:
            await asyncio.wait(rest)
        try:
            await self.source.close()
        except LambentError as error:
            log.warning("mapping %s: %s", self.mapping.uuid, error)
        self._at("poller:drained")
        self.stopped.set()


def trace_of(records: Sequence[Record], digest: str) -> str:
    """The trace header that the batch goes by: of the record that has been through the function most often, so that no loop is missed.

    Records that carry no lineage say nothing about loops; the header of a batch of them is that of the first that has one.
    """
    traces = [record.trace for record in records if record.trace]
    if len(traces) < 2:
        return traces[0] if traces else ""
    count = re.compile(rf"{digest}:(\d+)")
    return max(traces, key=lambda trace: int(found[1]) if (found := count.search(trace)) else 0)
