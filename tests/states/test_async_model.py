"""Asynchronous invocation as a whole, against its promises: the real queue, lanes and deliveries, on a store and a clock of ours.

A ``World`` is a process over a store that outlives it. Commits wait until they are let through, fail (made or not) or die with it;
functions answer when told; time moves when told. After every step the bounds hold, and now and then every event is accounted for:

- an acknowledged event is on the queue once, or has run with success, or is a delivery, a delivered result or a dead letter;
- it is never twice on the queue, never run twice at once by one process, never run too old, nor before its wait is over;
- at most so many runs are in flight, in all and of one function;
- once everything works again, all that was accepted comes to its end.

``LAMBENT_MODEL_STEPS`` sets the number of steps of the long run, ``LAMBENT_MODEL_SEED`` repeats one; Hypothesis looks for short stories.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from collections import Counter, deque
from types import SimpleNamespace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from lambent.arn import FunctionArn
from lambent.errors import ClientFault, PlatformFault, not_found, throttled
from lambent.invoke.async_event import DEAD, DELIVERIES, EVENTS, AsyncEvent, decode, decode_dead, lane_of
from lambent.invoke.async_house import AsyncHouse
from lambent.invoke.async_queue import Functions
from lambent.invoke.invocation import Invocation, InvocationResult
from lambent.settings import AsyncSettings, Settings
from lambent.store.contract import Enqueue, StoreUnavailable
from lambent.testing.clock import ManualClock
from lambent.testing.memory_store import MemoryStore

STEPS = int(os.environ.get("LAMBENT_MODEL_STEPS", "20000"))
SEED = int(os.environ.get("LAMBENT_MODEL_SEED", str(random.SystemRandom().randrange(2**32))))

QUEUE = "arn:aws:sqs:us-east-1:000000000000:results"
LOST = "arn:aws:sqs:us-east-1:000000000000:no-such-queue"
LIMITS = AsyncSettings(
    retry_waits=(6.0, 12.0), backoff_first=1.0, backoff_most=8.0, age=120.0, in_flight=12, per_function=8, delivery_age=30.0
)


def arn(name: str) -> FunctionArn:
    return FunctionArn("us-east-1", "000000000000", name)


CONFIGS = {
    "plain": {},
    "told": {"DestinationConfig": {"OnSuccess": {"Destination": QUEUE}, "OnFailure": {"Destination": QUEUE}}},
    "chain": {
        "MaximumRetryAttempts": 1,
        "DestinationConfig": {"OnSuccess": {"Destination": str(arn("plain"))}, "OnFailure": {"Destination": LOST}},
    },
    "hasty": {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60},
}
LETTERS = {"told": QUEUE}  # dead-letter queues
NAMES = sorted(CONFIGS)


class Gate:
    """The store as one process sees it."""

    def __init__(self, store, made):
        self.store = store
        self.made = made  # is told of mutations that were made
        self.waiting = deque()
        self.down = False

    def __getattr__(self, name):
        operation = getattr(self.store, name)

        async def ask(*arguments):
            if self.down:
                raise StoreUnavailable("the disk is away")
            return await operation(*arguments)

        return ask

    async def commit(self, *mutations):
        return await self._pass(self.store.commit, mutations)

    async def lease(self, *arguments):
        return await self._pass(self.store.lease, arguments)

    async def _pass(self, operation, arguments):
        if self.down:
            raise StoreUnavailable("the disk is away")
        answer = asyncio.get_running_loop().create_future()
        self.waiting.append((operation, arguments, answer))
        return await answer

    async def let_through(self, number):
        for _ in range(min(number, len(self.waiting))):
            operation, arguments, answer = self.waiting.popleft()
            value = await operation(*arguments)
            self.made(arguments)
            if not answer.done():
                answer.set_result(value)

    async def fail(self, made):
        """The group on its way fails for its callers, made or not."""
        while self.waiting:
            operation, arguments, answer = self.waiting.popleft()
            if made:
                await operation(*arguments)
                self.made(arguments)
            if not answer.done():
                answer.set_exception(StoreUnavailable("no answer"))


class World:
    def __init__(self, dice):
        self.dice = dice
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.accepted = {}  # id -> (function, when): acknowledged, and not yet known to have ended
        self.unsure = set()  # asked for, without an answer
        self.asking = {}  # task -> id
        self.running = {}  # id -> (call, future)
        self.most = Counter()
        self.succeeded = set()
        self.earliest = {}  # id -> no run before this
        self.failures = Counter()
        self.setbacks = Counter()
        self.delivered = set()  # (id, what of it)
        self.chained = set()  # ids of which a function has been told
        self.broken = None
        self.sending = []
        self.seen = Counter()
        self.number = self.ended = 0
        self.tasks = set()

    # -- the process -----------------------------------------------------------------------------------------------------------

    async def begin(self):
        await self.store.open()
        await self._boot()

    async def _boot(self):
        self.gate = Gate(self.store, self._made)
        version = lambda target: SimpleNamespace(arn=target, tracing="PassThrough", dead_letters=LETTERS.get(target.name, ""))  # noqa: E731
        functions = Functions(SimpleNamespace(resolve=version), lambda target: CONFIGS[target.name])
        directory = SimpleNamespace(by_arn=lambda name: None if name == LOST else name)
        story = SimpleNamespace(record=lambda *_: None)
        self.house = AsyncHouse(self.gate, functions, self, directory, self, self.clock, story, Settings(async_events=LIMITS), self._spawn)
        self.house.deliveries.accept = self._chain
        await self.house.start()
        for lane in await self.store.queues():
            held = [found for found in await self.store.peek(lane, 100_000) if found.leased]
            assert not held or lane.startswith(DEAD), "leases of a dead process"
        await self._settle()

    def _spawn(self, coro):
        task = asyncio.get_running_loop().create_task(coro)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task):
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.broken = task.exception()

    async def _settle(self, rounds=6):
        for _ in range(rounds):
            await asyncio.sleep(0)

    async def _chain(self, call):
        traced = await self.house.accept(call)
        self.chained.add(json.loads(call.payload)["requestContext"]["requestId"])
        return traced

    # -- what the process stands on --------------------------------------------------------------------------------------------

    async def dry_run(self, call):
        pass

    async def invoke(self, call):
        """The front door."""
        identity, now = call.request_id, self.clock.now()
        assert identity not in self.running, "run twice at once"
        assert now >= self.earliest.get(identity, 0.0) - 1e-6, "tried before its wait was over"
        if identity in self.accepted:
            age = CONFIGS[call.target.name].get("MaximumEventAgeInSeconds", LIMITS.age)
            assert now - self.accepted[identity][1] <= age + 1e-6, "tried too old"
        answer = asyncio.get_running_loop().create_future()
        self.running[identity] = call, answer
        return await answer

    async def send(self, queue, messages):
        """The mailbox."""
        answer = asyncio.get_running_loop().create_future()
        self.sending.append((messages[0], answer))
        return await answer

    # -- steps -----------------------------------------------------------------------------------------------------------------

    async def act(self, action):
        self.seen[action] += 1
        await getattr(self, action)()
        await self._settle()
        self.clock.advance(self.dice.choice((0.0, 0.0, 0.0001, 0.001)))
        await self._settle(2)
        assert self.broken is None, self.broken
        assert len(self.running) <= LIMITS.in_flight
        functions = Counter(call.target.name for call, _ in self.running.values())
        assert max(functions.values(), default=0) <= LIMITS.per_function
        for task in [task for task in self.asking if task.done()]:
            identity = self.asking.pop(task)
            self.unsure.discard(identity)
            if task.cancelled() or task.exception() is not None:
                self.accepted.pop(identity, None)

    async def accept(self):
        if len(self.accepted) > 60:
            return
        self.number += 1
        name, identity = self.dice.choice(NAMES), f"event-{self.number}"
        self.unsure.add(identity)
        self.accepted[identity] = name, self.clock.now()
        call = Invocation(arn(name), json.dumps({"n": self.number}).encode(), identity)
        self.asking[asyncio.get_running_loop().create_task(self.house.accept(call))] = identity

    async def commit(self):
        await self.gate.let_through(self.dice.choice((1, 2, 8)))

    async def answer(self):
        """A run ends, in any way."""
        if not self.running:
            return
        identity = self.dice.choice(list(self.running))
        call, answer = self.running.pop(identity)
        how = self.dice.choices(("good", "bad", "throttle", "fault", "gone"), (6, 5, 3, 1, 1))[0]
        if answer.done():
            return
        if how == "good":
            self.succeeded.add(identity)
            answer.set_result(InvocationResult(b'"fine"', "$LATEST"))
        elif how == "bad":
            self.failures[identity] += 1
            self.setbacks[identity] = 0
            count = self.failures[identity]
            assert count <= 1 + CONFIGS[call.target.name].get("MaximumRetryAttempts", 2), "retried too often"
            self.earliest[identity] = self.clock.now() + LIMITS.retry_waits[min(count, 2) - 1]
            answer.set_result(InvocationResult(b'{"errorMessage": "no"}', "$LATEST", "Unhandled"))
        elif how == "gone":
            answer.set_exception(not_found("gone"))
        else:
            wait = min(2.0 ** self.setbacks[identity], LIMITS.backoff_most)
            self.setbacks[identity] += 1
            self.earliest[identity] = self.clock.now() + wait
            reason = "ConcurrentInvocationLimitExceeded"
            answer.set_exception(throttled(reason) if how == "throttle" else PlatformFault("out of luck"))

    async def take(self):
        """A queue takes what is delivered, or does not."""
        if not self.sending:
            return
        message, answer = self.sending.pop(self.dice.randrange(len(self.sending)))
        if answer.done():
            return
        how = self.dice.choices(("taken", "refused", "away"), (8, 1, 1))[0]
        if how == "taken":
            self._note(message)
            answer.set_result([None])
        elif how == "refused":
            answer.set_result([ClientFault("InvalidMessageContents", 400, "no")])
        else:
            answer.set_exception(StoreUnavailable("away"))

    def _note(self, message):
        if message.attributes:
            assert message.attributes["RequestID"]["DataType"] == "String"
            self.delivered.add((message.attributes["RequestID"]["StringValue"], "letter"))
        else:
            told = json.loads(message.text)["requestContext"]
            self.delivered.add((told["requestId"], "success" if told["condition"] == "Success" else "failure"))

    async def wait(self):
        self.clock.advance(self.dice.choice((0.01, 0.3, 1.0, 6.0, 20.0)))

    async def outage(self):
        self.gate.down = not self.gate.down
        if self.gate.down:
            await self.gate.fail(self.dice.random() < 0.5)

    async def failure(self):
        await self.gate.fail(self.dice.random() < 0.5)

    async def death(self):
        """``kill -9``: some of the commits on their way were made, and nobody was told; the next process starts."""
        for operation, arguments, _ in list(self.gate.waiting)[: self.dice.randrange(4)]:
            await operation(*arguments)
            self._made(arguments)
        self.gate.down = True
        self.house.stop()
        for task in [*self.tasks, *self.asking]:
            task.cancel()
        await self._settle(4)
        for identity in self.unsure:  # nobody was told
            self.accepted.pop(identity, None)
        self.unsure.clear()
        self.asking.clear()
        self.running.clear()
        self.sending.clear()
        self.earliest.clear()
        self.failures.clear()
        self.setbacks.clear()
        await self.account()
        self.succeeded.clear()  # what has not ended will run again
        await self._boot()

    async def look(self):
        await self.account()

    async def redrive(self):
        """Dead letters get another chance."""
        redriven = asyncio.get_running_loop().create_task(self.house.redrive(arn(self.dice.choice(NAMES))))
        self.tasks.add(redriven)
        redriven.add_done_callback(lambda task: self.tasks.discard(task) or (None if task.cancelled() else task.exception()))

    def _made(self, mutations):
        """What a commit puts on a queue untried begins anew: an accepted event, or one that is redriven."""
        for mutation in mutations:
            if not isinstance(mutation, Enqueue) or not mutation.queue.startswith(EVENTS):
                continue
            event = decode(mutation.body)
            identity = event.request_id
            if event.invocations == event.setbacks == 0:
                known = self.accepted.get(identity)
                self._forget(identity)
                if known is not None:
                    self.accepted[identity] = known[0], event.accepted_at

    def _forget(self, identity):
        for known in (self.failures, self.setbacks, self.earliest, self.accepted):
            known.pop(identity, None)
        self.succeeded.discard(identity)

    # -- the account -----------------------------------------------------------------------------------------------------------

    async def account(self):
        """Every event that was acknowledged is somewhere, and those that have ended are struck off."""
        queued, left, dead = Counter(), set(), set()
        for name in NAMES:
            lane = lane_of(arn(name))
            for found in await self.store.peek(EVENTS + lane, 100_000):
                queued[decode(found.body).request_id] += 1
            for found in await self.store.peek(DELIVERIES + lane, 100_000):
                left.add(_what(decode(found.body)))
            for found in await self.store.peek(DEAD + lane, 100_000):
                letter = decode_dead(found.body).letter
                dead.add(letter.request_id)
                left.add((letter.request_id, "dead") if isinstance(letter, AsyncEvent) else _what(letter))
        assert all(count == 1 for count in queued.values()), "twice on the queue"
        there = left | self.delivered | {(identity, "success") for identity in self.chained}
        for identity in [each for each in self.accepted if each not in queued and each not in self.unsure]:
            name, _ = self.accepted[identity]
            assert any(traces <= there for traces in _traces(name, identity, identity in self.succeeded)), f"{identity} of {name} vanished"
            self._forget(identity)
            self.ended += 1
        kept = set(self.accepted)
        for known in (self.failures, self.setbacks, self.earliest):
            for identity in [each for each in known if each not in queued and each not in kept]:
                del known[identity]
        self.succeeded &= kept | set(self.running)
        self.delivered = {each for each in self.delivered if each[0] in kept}
        self.chained = {each for each in self.chained if each in kept}
        if len(dead) > 200:
            for name in NAMES:
                await self.store.purge(DEAD + lane_of(arn(name)))

    async def rest(self):
        """Everything works from here on; whatever was accepted must end, in bounded time."""
        self.gate.down = False
        for _ in range(3_000):
            await self.gate.let_through(10_000)
            for identity in list(self.running):
                _, answer = self.running.pop(identity)
                self.succeeded.add(identity)
                if not answer.done():
                    answer.set_result(InvocationResult(b'"fine"', "$LATEST"))
            while self.sending:
                message, answer = self.sending.pop()
                self._note(message)
                if not answer.done():
                    answer.set_result([None])
            await self._settle(10)
            if not self.gate.waiting and not self.running and not self.sending:
                left = [*await self.store.queues(EVENTS), *await self.store.queues(DELIVERIES)]
                held = self.house.queue.lanes._in_flight + self.house.deliveries.lanes._in_flight
                if not left and not held and not self.asking:
                    break
                self.clock.advance(1.0)
                await self._settle()
            for task in [task for task in self.asking if task.done()]:
                identity = self.asking.pop(task)
                self.unsure.discard(identity)
                if task.exception() is not None:
                    self.accepted.pop(identity, None)
        assert await self.store.queues(EVENTS) == []
        assert await self.store.queues(DELIVERIES) == []
        assert self.house.queue.lanes._in_flight == self.house.deliveries.lanes._in_flight == 0
        await self.account()
        assert not self.accepted

    async def end(self):
        await self.rest()
        self.house.stop()
        for task in list(self.tasks):
            task.cancel()
        await self._settle(4)


def _what(delivery):
    if delivery.attributes is not None:
        return delivery.request_id, "letter"
    return delivery.request_id, "success" if delivery.success else "failure"


def _traces(name, identity, succeeded):
    """What an event that has ended may have left behind: one of these sets must be there."""
    config = CONFIGS[name].get("DestinationConfig", {})
    options = []
    if succeeded:
        options.append({(identity, "success")} if "OnSuccess" in config else set())
    failed = {(identity, "failure")} if "OnFailure" in config else set()
    if name in LETTERS:
        failed.add((identity, "letter"))
    options.append(failed or {(identity, "dead")})
    return options


ACTIONS = ("accept", "commit", "answer", "take", "wait", "look", "redrive", "failure", "outage", "death", "rest")
WEIGHTS = (30, 40, 30, 10, 8, 0.5, 0.2, 0.3, 0.3, 0.15, 0.2)


def test_the_promises_hold_for_as_many_steps_as_wanted():
    print(f"seed {SEED}, {STEPS} steps")
    logging.getLogger("lambent").setLevel(logging.CRITICAL)
    dice = random.Random(SEED)
    world = World(dice)

    async def run():
        await world.begin()
        for _ in range(STEPS):
            [action] = dice.choices(ACTIONS, WEIGHTS)
            if world.gate.down and dice.random() < 0.1:
                action = "outage"  # which ends it
            await world.act(action)
        await world.end()

    asyncio.run(run())
    if STEPS >= 10_000:
        assert all(world.seen[action] for action in ACTIONS), world.seen
        assert world.ended > STEPS / 50


class AnyStory(RuleBasedStateMachine):
    """The same world, in stories that Hypothesis makes up, and makes short when one breaks a promise."""

    def __init__(self):
        super().__init__()
        logging.getLogger("lambent").setLevel(logging.CRITICAL)
        self.runner = asyncio.Runner()
        self.world = World(random.Random(0))
        self.runner.run(self.world.begin())

    @rule(action=st.sampled_from(ACTIONS), again=st.integers(1, 5), dice=st.randoms(use_true_random=False))
    def act(self, action, again, dice):
        self.world.dice = dice
        for _ in range(again):
            self.runner.run(self.world.act(action))

    def teardown(self):
        try:
            self.runner.run(self.world.end())
        finally:
            self.runner.close()


AnyStory.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
TestAnyStory = AnyStory.TestCase
