"""Work that lies in the store, one queue a function, and is carried out here: fairly, bounded, and without polling.

A *lane* is a store's queue and what runs of it. Three ways lead into a run:

- ``put`` with no backlog and room: the message is enqueued *leased* and starts in memory once the one commit is through;
- ``put`` otherwise: it is enqueued visible, and costs the node nothing until the pump takes it;
- the pump: goes round the lanes that have work and room, leases a few messages of each, and ends when there is nothing to lease. It is
  started by whatever makes work or room: a commit, a run's end, a timer set for the time that the store names (``due``).

Leases last until they are given up: one process holds a store, so at its start it ends the leases of the process before it and goes on
with what that one left. A run ends in one commit: the message is acknowledged and whatever follows of it is enqueued. Through outages of
the store that commit is repeated, after a look whether it had not come through after all.

Acceptance goes first, since somebody waits for it and nobody for a run, but it never goes alone. While messages come in fast (a *rush*)
nothing starts in memory, and the pump pauses before each step and feels how busy the loop is: a step grows while the loop has room and is
halved when it has none, so runs get what acceptance leaves. It never takes less than ``_STEP_LEAST`` messages in a step, and the lanes
take turns, so however long a rush lasts, each lane with a backlog moves, at no less than two hundred messages a second in all. In a
*flood*, faster still, the loop may feel idle and yet the processors are not, since a run costs several times what acceptance does, and
mostly elsewhere; there a step does not grow. What a rush leaves behind is run at full speed when it is over.

In flight are at most so many runs and so many bytes. Of the runs that are free one lane may have as many as it leaves to others: alone
half of all, two lanes a third each, so slow functions cannot keep everybody else from starting. How many of one lane run adapts, too: a
run that was refused halves the number, runs that are not slower for company let it grow; and a lane of which nothing else runs rests
after a refusal, longer each time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from lambent.clock import Clock
from lambent.invoke.lane import Held, Lane, position_of
from lambent.settings import AsyncSettings
from lambent.store.contract import Acknowledge, Enqueue, Message, Mutation, Requeue, Store, StoreUnavailable, leased_receipt

LOG = logging.getLogger(__name__)

LEASE_S = 30 * 86_400.0
_BATCH = 64
_OUTAGE_FIRST_S, _OUTAGE_MOST_S = 0.05, 5.0
_REST_MOST_S = 16.0
_BROKEN_S = 60.0  # a run that broke off by a fault of ours is tried again after
_RECONCILE_S = 1.0
_EVENT_MOST = 1_048_576
_IDLE_LANES = 10_000
_RUSH = 1_000.0  # puts a second from which on runs give way
_FLOOD = 2_000.0  # and to the least that there is
_WINDOW_S = 0.02
_PAUSE_S = 0.005  # before a step of the pump in a rush
_FLOOD_PAUSE_S = 0.02
_BUSY_S = 0.0005  # one round of a loop that has no room for more
_STEP_LEAST = 4
_STEP_MORE = 2

Spawn = Callable[[Coroutine[Any, Any, None]], object]
Point = Callable[[str], None]

MOMENTS = ("accepting", "accepted", "released", "leased", "finishing", "finished")
"""What ``at`` is told: before and after the commit of ``put``, after those of a start and of a lease, around that of ``finish``."""


CarryOut = Callable[[Held], Awaitable[bool]]


class Lanes:
    """All lanes of the queues that begin with ``prefix``. ``carry_out`` must ``finish`` what it is given, and says whether it was refused.

    ``at`` is told of moments on the way (``MOMENTS``), for tests that end the process there.
    """

    def __init__(
        self, store: Store, clock: Clock, spawn: Spawn, prefix: str, carry_out: CarryOut, settings: AsyncSettings, at: Point
    ) -> None:
        self._store = store
        self._clock = clock
        self._spawn = spawn
        self._prefix = prefix
        self._carry_out = carry_out
        self._settings = settings
        self._at = at
        self._lanes: dict[str, Lane] = {}
        self._turns: deque[Lane] = deque()  # lanes with a backlog, in the order of their turns
        self._in_flight = 0
        self._leasing = 0  # may be in flight soon
        self._size = 0
        self._pumping = False
        self._runs = 0
        self._idle: asyncio.Event | None = None
        self._puts = 0  # since
        self._window = 0.0  # monotonic
        self._rush = self._flood = False
        self._step = _STEP_LEAST
        self.closing = False

    async def start(self) -> None:
        """Take up what the process before left."""
        for queue in await self._store.queues(self._prefix):
            await self._store.release(queue)
            self._at("released")
            self._has_work(self._lane(queue.removeprefix(self._prefix)))

    def stop(self) -> None:
        """Begin nothing new."""
        self.closing = True
        for lane in self._lanes.values():
            if lane.timer is not None:
                lane.timer.cancel()

    async def drained(self) -> None:
        """Until everything that runs has ended."""
        self._idle = asyncio.Event()
        if self._runs:
            await self._idle.wait()

    # -- in --------------------------------------------------------------------------------------------------------------------

    async def put(self, name: str, body: bytes, item: Any = None) -> None:
        """Durable when this returns; carried out even if the caller goes away meanwhile. Raises ``StoreUnavailable``."""
        lane = self._lane(name)
        self._count_put()
        if self._admits(lane, len(body)):
            accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._take(lane, len(body))
            self._spawn(self._put_and_run(lane, body, item, accepted))
            await accepted
            return
        self._at("accepting")
        try:
            await self._store.commit(Enqueue(lane.queue, body))
        finally:
            self._has_work(lane)  # whoever stopped waiting, or was told of a failure: it may be there
        self._at("accepted")

    async def _put_and_run(self, lane: Lane, body: bytes, item: Any, accepted: asyncio.Future[None]) -> None:
        self._at("accepting")
        try:
            [position] = await self._store.commit(Enqueue(lane.queue, body, leased_until=self._clock.now() + LEASE_S))
        except StoreUnavailable as error:
            self._leave(lane, len(body))
            self._suspect(lane)
            if not accepted.done():
                accepted.set_exception(error)
            return
        self._at("accepted")
        if not accepted.done():
            accepted.set_result(None)
        lane.held.add(position)
        await self._run(Held(lane, leased_receipt(position), body, item))

    def _count_put(self) -> None:
        self._puts += 1
        now = self._clock.monotonic()
        if (passed := now - self._window) >= _WINDOW_S:
            self._rush, self._flood = self._puts > _RUSH * passed, self._puts > _FLOOD * passed
            self._puts, self._window = 0, now

    def _is_rushed(self) -> bool:
        """Whether messages come in so fast that runs should wait."""
        return self._rush and self._clock.monotonic() - self._window < 2 * _WINDOW_S

    def expect(self, name: str, at: float = 0.0) -> None:
        """Somebody has enqueued in lane ``name`` what is to be had from wall time ``at``."""
        lane = self._lane(name)
        if at > self._clock.now():
            self._wake_at(lane, at)
        else:
            self._has_work(lane)

    # -- out -------------------------------------------------------------------------------------------------------------------

    async def finish(self, held: Held, *mutations: Mutation) -> None:
        """Take ``held`` off its queue and apply ``mutations``, in one commit, however long the store is away."""
        wait = _OUTAGE_FIRST_S
        self._at("finishing")
        while True:
            try:
                await self._store.commit(Acknowledge(held.lane.queue, held.receipt), *mutations)
            except StoreUnavailable as error:
                if self.closing:
                    return  # it stays leased, and the next process takes it up
                LOG.warning("%s: %s; trying again", held.lane.queue, error)
                await self._clock.sleep(wait)
                wait = min(wait * 2, _OUTAGE_MOST_S)
                if not await self._is_gone(held):
                    continue
            break
        held.finished = True
        self._at("finished")

    async def _is_gone(self, held: Held) -> bool:
        """Whether a commit that failed for us was made after all."""
        try:
            found = await self._store.peek(held.lane.queue, 1, held.position - 1)
        except StoreUnavailable:
            return False
        return not found or found[0].position != held.position

    # -- running ---------------------------------------------------------------------------------------------------------------

    async def _run(self, held: Held) -> None:
        lane, size = held.lane, len(held.body)
        self._runs += 1
        was_full = lane.running >= int(lane.limit.value)
        begun = self._clock.monotonic()
        refused = True
        try:
            refused = await self._carry_out(held)
        finally:
            self._runs -= 1
            lane.held.discard(held.position)
            self._learn(lane, refused, begun, was_full)
            self._leave(lane, size)
            if not held.finished and not self.closing:
                self._spawn(self._give_back(held))
            if not self._runs and self._idle is not None:
                self._idle.set()

    async def _give_back(self, held: Held) -> None:
        """A run that broke off must not be lost with its lease."""
        at = self._clock.now() + _BROKEN_S
        while not self.closing:
            try:
                await self._store.commit(Requeue(held.lane.queue, held.receipt, at))
            except StoreUnavailable:
                await self._clock.sleep(_OUTAGE_MOST_S)
                continue
            self._wake_at(held.lane, at)
            return

    def _learn(self, lane: Lane, refused: bool, begun: float, was_full: bool) -> None:
        now = self._clock.monotonic()
        if not refused:
            lane.streak = 0
            lane.limit.done(now - begun, was_full)
            return
        lane.limit.refused()
        if lane.running <= 1 and now >= lane.rest_until:  # else the end of another run says when there is room again
            lane.rest_until = now + min(self._settings.backoff_first * 2.0 ** min(lane.streak, 16), _REST_MOST_S)
            lane.streak += 1

    def _admits(self, lane: Lane, size: int) -> bool:
        """Whether a message may start at once, past the store's order: only where nothing waits."""
        if lane.backlog or lane.leasing or self.closing or self._is_rushed() or lane.rest_until > self._clock.monotonic():
            return False
        return self._room(lane) > 0 and (not lane.size or lane.size + size <= self._settings.in_flight_bytes // 2)

    def _room(self, lane: Lane) -> int:
        """How many more of ``lane`` may run."""
        settings = self._settings
        size = self._size + self._leasing * _EVENT_MOST  # none is known to be smaller before it is leased
        free = settings.in_flight - self._in_flight - self._leasing
        if free <= 0 or size >= settings.in_flight_bytes or lane.size >= settings.in_flight_bytes // 2:
            return 0
        has = lane.running + lane.leasing
        fits = max(1, (settings.in_flight_bytes - size) // _EVENT_MOST)
        return min(int(lane.limit.value) - has, max(free - has, 0 if has else 1), fits)

    def _take(self, lane: Lane, size: int) -> None:
        self._in_flight += 1
        lane.running += 1
        self._size += size
        lane.size += size

    def _leave(self, lane: Lane, size: int) -> None:
        self._in_flight -= 1
        lane.running -= 1
        self._size -= size
        lane.size -= size
        if self._turns:
            self._ring()

    # -- the pump --------------------------------------------------------------------------------------------------------------

    def _lane(self, name: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            if len(self._lanes) >= _IDLE_LANES:
                self._lanes = {key: each for key, each in self._lanes.items() if each.is_busy}
            lane = self._lanes[name] = Lane(name, self._prefix + name, self._settings.per_function)
        return lane

    def _has_work(self, lane: Lane) -> None:
        if not lane.backlog:
            lane.backlog = True
            self._turns.append(lane)
            self._ring()
        elif self._room(lane) > 0:
            self._ring()

    def _ring(self) -> None:
        if not self._pumping and not self.closing:
            self._pumping = True
            self._spawn(self._pump())

    async def _pump(self) -> None:
        """One round after the other, a few messages of each lane in turn, until there is nothing to be had or no room."""
        try:
            while not self.closing and self._turns:
                most = await self._pace() if self._is_rushed() else _BATCH
                if (lane := self._next()) is None:
                    break
                await self._fill(lane, most)
        finally:
            self._pumping = False

    async def _pace(self) -> int:
        """Give way to acceptance; how many messages the next step may be."""
        await self._clock.sleep(_FLOOD_PAUSE_S if self._flood else _PAUSE_S)
        if self._flood:
            self._step = _STEP_LEAST
            return self._step
        begun = self._clock.monotonic()
        await self._clock.sleep(0.0)  # one round of the loop
        busy = self._clock.monotonic() - begun > _BUSY_S
        self._step = max(self._step // 2, _STEP_LEAST) if busy else min(self._step + _STEP_MORE, _BATCH)
        return self._step

    def _next(self) -> Lane | None:
        """The lane whose turn it is; it goes to the end. Lanes that rest or are full are passed over."""
        now = self._clock.monotonic()
        for _ in range(len(self._turns)):
            lane = self._turns.popleft()
            if lane.rest_until > now:
                lane.backlog = False
                self._wake_at(lane, self._clock.now() + lane.rest_until - now)
                continue
            self._turns.append(lane)
            if self._room(lane) > 0:
                return lane
        return None

    async def _fill(self, lane: Lane, most: int) -> None:
        share = max(1, (self._settings.in_flight - self._in_flight) // len(self._turns))
        want = min(self._room(lane), share, most)
        self._turns.remove(lane)
        lane.backlog = False  # whatever is put from here on says so again
        lane.leasing += want
        self._leasing += want
        try:
            messages = await self._store.lease(lane.queue, want, self._clock.now(), LEASE_S)
            self._at("leased")
            lane.held.update(position_of(message.receipt) for message in messages)
            if len(messages) < want:
                await self._look_ahead(lane)
            else:
                self._has_work(lane)
        except StoreUnavailable as error:
            LOG.warning("%s: %s; trying again", lane.queue, error)
            messages = []
            self._suspect(lane)
            await self._clock.sleep(_OUTAGE_FIRST_S * 10)
            self._has_work(lane)
        finally:
            lane.leasing -= want
            self._leasing -= want
        for message in messages:
            self._begin(lane, message)

    def _begin(self, lane: Lane, message: Message) -> None:
        held = Held(lane, message.receipt, message.body)
        self._take(lane, len(message.body))
        self._spawn(self._run(held))

    async def _look_ahead(self, lane: Lane) -> None:
        """Nothing more is to be had now: set the timer for when there is."""
        due = await self._store.due(lane.queue)
        if due is not None and due < self._clock.now() + LEASE_S / 2:
            self._wake_at(lane, due)

    def _wake_at(self, lane: Lane, at: float) -> None:
        """``at`` is wall time. An earlier timer stays; what it finds sets the next."""
        if self.closing or (lane.timer is not None and lane.timer_at <= at):
            return
        if lane.timer is not None:
            lane.timer.cancel()
        lane.timer_at = at
        lane.timer = self._clock.call_later(max(at - self._clock.now(), 0.001), lambda: self._woken(lane))

    def _woken(self, lane: Lane) -> None:
        lane.timer, lane.timer_at = None, float("inf")
        self._has_work(lane)

    # -- after outages -----------------------------------------------------------------------------------------------------------

    def _suspect(self, lane: Lane) -> None:
        """A commit failed for us that may have been made: there may be messages leased that nobody holds."""
        lane.suspect += 1
        if lane.suspect == 1 and not self.closing:
            self._spawn(self._reconcile(lane))

    async def _reconcile(self, lane: Lane) -> None:
        """Give back what is leased and not held, if two looks agree."""
        lost: dict[int, str] = {}
        known = 0  # failures before the look before
        while not self.closing:
            await self._clock.sleep(_RECONCILE_S)
            failures = lane.suspect
            try:
                found = await self._orphans(lane)
                both = [receipt for position, receipt in found.items() if lost.get(position) == receipt]
                await self._store.commit(*[Requeue(lane.queue, receipt, 0.0) for receipt in both])
            except StoreUnavailable:
                continue
            if both:
                self._has_work(lane)
            if known == failures == lane.suspect:
                lane.suspect = 0
                return
            lost, known = found, failures

    async def _orphans(self, lane: Lane) -> dict[int, str]:
        found: dict[int, str] = {}
        after = 0
        while page := await self._store.peek(lane.queue, 1_000, after):
            found.update({each.position: f"{each.position}.{each.attempt}" for each in page if each.leased})
            after = page[-1].position
        return {position: receipt for position, receipt in found.items() if position not in lane.held}
