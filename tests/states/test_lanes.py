"""Work in lanes: fair, bounded, without polling, and never stopped for good by a rush."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import replace

from lambent.invoke.lanes import Lanes
from lambent.settings import AsyncSettings
from lambent.store.contract import Enqueue
from lambent.testing.clock import ManualClock
from lambent.testing.memory_store import MemoryStore

SETTINGS = AsyncSettings(in_flight=32, per_function=32)


class CountingStore(MemoryStore):
    calls = 0

    async def lease(self, *arguments):
        self.calls += 1
        return await super().lease(*arguments)

    async def due(self, queue):
        self.calls += 1
        return await super().due(queue)


class Yard:
    """Lanes whose runs last until they are let go; ``quick`` lanes end at once, ``refused`` ones are refused."""

    def __init__(self, settings=SETTINGS):
        self.clock = ManualClock()
        self.store = CountingStore(self.clock)
        self.tasks = set()
        self.quick, self.refused = set(), set()
        self.started, self.running = [], []
        self.lanes = Lanes(self.store, self.clock, self.spawn, "q/", self.carry_out, settings, lambda moment: None)

    def spawn(self, coro):
        task = asyncio.get_running_loop().create_task(coro)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def carry_out(self, held):
        name = held.lane.name
        self.started.append(name)
        if name in self.refused:
            await self.lanes.finish(held, Enqueue(held.lane.queue, held.body, self.clock.now() + 1_000))
            return True
        if name not in self.quick:
            ended = asyncio.get_running_loop().create_future()
            self.running.append((name, ended))
            await ended
        await self.lanes.finish(held)
        return False

    async def fill(self, name, number, body=b"x"):
        await self.store.commit(*[Enqueue(f"q/{name}", body) for _ in range(number)])

    async def settle(self):
        for _ in range(50):
            await asyncio.sleep(0)

    async def end(self, number):
        for _, ended in self.running[:number]:
            ended.set_result(None)
        del self.running[:number]
        await self.settle()

    async def close(self):
        self.lanes.stop()
        for task in list(self.tasks):
            task.cancel()
        await self.settle()


def in_yard(settings=SETTINGS):
    def run(test):
        def wrapped():
            async def story():
                yard = Yard(settings)
                await yard.store.open()
                try:
                    await test(yard)
                finally:
                    await yard.close()

            asyncio.run(story())

        wrapped.__name__ = test.__name__
        return wrapped

    return run


@in_yard()
async def test_lanes_with_a_backlog_take_turns(yard):
    for name, number in (("a", 900), ("b", 300), ("c", 100)):
        await yard.fill(name, number)
    await yard.lanes.start()
    while len(yard.started) < 250:
        await yard.settle()
        await yard.end(4)
    assert min(Counter(yard.started[:250]).values()) >= 60


@in_yard()
async def test_slow_functions_leave_room_for_others(yard):
    for name in ("slow", "slower"):
        await yard.fill(name, 100)
    await yard.lanes.start()
    await yard.settle()
    assert 16 <= len(yard.running) < 32
    for number in range(3):
        await yard.lanes.put(f"new-{number}", b"x")
        await yard.settle()
        assert yard.started[-1] == f"new-{number}"
    assert len(yard.running) <= 32


@in_yard(replace(SETTINGS, in_flight_bytes=8 * 2**20))
async def test_large_messages_are_bounded_by_their_bytes(yard):
    body = b"x" * 2**20
    for name in ("a", "b", "c", "d"):
        await yard.fill(name, 10, body)
    await yard.lanes.start()
    seen = 0
    while await yard.store.queues() or yard.running:
        await yard.settle()
        held = len(yard.running)
        assert 0 < held <= 8
        seen = max(seen, held)
        await yard.end(3)
    assert seen >= 4
    assert len(yard.started) == 40


@in_yard()
async def test_a_lane_that_is_refused_rests_and_comes_back(yard):
    yard.refused.add("full")
    await yard.fill("full", 1_000)
    await yard.lanes.start()
    await yard.settle()
    before = len(yard.started)
    assert before <= 40  # 16 at once, 8, 4, 2, 1
    yard.clock.advance(0.5)
    await yard.settle()
    assert len(yard.started) == before
    yard.clock.advance(0.6)
    await yard.settle()
    assert before < len(yard.started) <= before + 4
    yard.refused.clear()
    yard.quick.add("full")
    for _ in range(4):
        yard.clock.advance(20.0)
        await yard.settle()
    assert len(yard.started) > before + 500


@in_yard()
async def test_a_refusal_beside_runs_lowers_the_number_and_does_not_stop_the_lane(yard):
    await yard.fill("f", 200)
    await yard.lanes.start()
    await yard.settle()
    assert len(yard.running) == 16
    yard.refused.add("f")
    await yard.end(1)
    assert len(yard.running) == 15
    assert len(yard.started) == 17  # one was refused, and that halved the number
    yard.refused.clear()
    await yard.end(8)
    assert (len(yard.running), len(yard.started)) == (8, 18)


@in_yard()
async def test_a_rush_never_stops_the_backlog(yard):
    """2,000 messages a second for as long as it is looked at, on a loop that is always busy: every lane still moves."""
    await rush(yard, 2, 300, 3_000)


@in_yard()
async def test_nor_does_a_flood(yard):
    """5,000 messages a second: runs get the least, and that they get."""
    await rush(yard, 5, 100, 300)


async def rush(yard, per_millisecond, least, most):
    """Runs in a second, all lanes together, are at least so many and at most."""
    yard.quick = {"a", "b", "c"}
    await yard.fill("b", 2_000)
    await yard.fill("c", 2_000)
    await yard.lanes.start()
    puts = set()
    progress = []
    for tick in range(1_200):
        for _ in range(per_millisecond):
            put = asyncio.get_running_loop().create_task(yard.lanes.put("a", b"x"))
            puts.add(put)
            put.add_done_callback(puts.discard)
        for _ in range(8):
            await asyncio.sleep(0)
        yard.clock.advance(0.001)
        if tick % 300 == 299:
            assert yard.lanes._is_rushed()
            progress.append(Counter(yard.started))
    for earlier, later in itertools.pairwise(progress):
        done = later - earlier
        assert set(done) == {"a", "b", "c"}
        assert 0.3 * least <= sum(done.values()) <= 0.3 * most


@in_yard()
async def test_what_is_not_there_costs_nothing(yard):
    yard.quick.add("f")
    for _ in range(3):
        await yard.lanes.put("f", b"x")
        await yard.settle()
    assert yard.started == ["f"] * 3
    assert (yard.store.calls, yard.clock.pending(), len(yard.tasks)) == (0, 0, 0)
    await yard.store.commit(Enqueue("q/f", b"x", yard.clock.now() + 60))
    yard.lanes.expect("f", yard.clock.now() + 60)
    yard.clock.advance(59.0)
    await yard.settle()
    assert (yard.store.calls, yard.clock.pending(), len(yard.tasks)) == (0, 1, 0)
    yard.clock.advance(1.1)
    await yard.settle()
    assert yard.started == ["f"] * 4
    assert (yard.clock.pending(), len(yard.tasks)) == (0, 0)
