"""Pollers with a source and a door made of paper: what comes of each answer, stores that refuse, changes, and the way to the end."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from lambent.arn import FunctionArn
from lambent.clock import SystemClock
from lambent.errors import ClientFault, PlatformFault
from lambent.observe.story import Story
from lambent.sources.poller import MAPPING_POINTS, trace_of
from lambent.sources.pollers import Pollers, SourceKind
from lambent.sources.record import Plan, Record
from lambent.sources.source import SourceUnavailable, Taken, records_envelope
from lambent.store.contract import StoreUnavailable

FUNCTION = FunctionArn("us-east-1", "000000000000", "f")


class Source:
    """Hands out what ``there`` holds; notes what it is told."""

    def __init__(self, *names):
        self.there = [Record(name, name, json.dumps({"id": name}).encode()) for name in names]
        self.more = asyncio.Event()
        self.told = []
        self.refusals = 0
        self.closed = False

    async def take(self, limit, filters):
        taken, self.there = self.there[:limit], self.there[limit:]
        self.more.clear()
        return Taken(taken, 30.0)

    async def wait(self):
        await self.more.wait()

    async def acknowledge(self, records):
        if self.refusals:
            self.refusals -= 1
            raise StoreUnavailable("full")
        self.told.append(("acknowledged", [record.id for record in records]))

    async def give_back(self, records):
        self.told.append(("given back", [record.id for record in records]))

    async def prolong(self, records, seconds):
        self.told.append(("prolonged", [record.id for record in records]))

    def envelope(self, records):
        return records_envelope(records)

    async def close(self):
        self.closed = True


class Door:
    """Answers as told, one after the other; the last answer for ever. Waits at an open ``gate``."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def invoke(self, call):
        self.calls.append(call)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await self.gate.wait()
        if isinstance(answer, Exception):
            raise answer
        error, payload = answer
        return SimpleNamespace(function_error=error, payload=payload)


class Table:
    """One mapping."""

    def __init__(self, polled=True, **config):
        self.config = config
        self.now = self.made(polled)

    def made(self, polled):
        return SimpleNamespace(uuid="m", kind="paper", function=FUNCTION, config=self.config, source="arn", polled=polled)

    def serve(self, kind):
        assert kind == "paper"

    def listen(self, told):
        self.told = told

    def all(self):
        return iter([self.now])

    def switch(self, polled):
        before, self.now = self.now, self.made(polled)
        self.told(before, self.now)


class Clock(SystemClock):
    """Patience costs nothing."""

    async def sleep(self, delay):
        await asyncio.sleep(0)

    def call_later(self, delay, callback):
        return super().call_later(min(delay, 0.01), callback)


GOOD = (None, b"null")


def run(check, source, door, plan=None, **config):
    """``check`` gets what is needed; at its end everything is closed."""

    async def inside():
        story, points = Story(), []
        kind = SourceKind(lambda arn: source, lambda config: plan or Plan(batch_size=2), ())
        pollers = Pollers({"paper": kind}, door, Clock(), story, points.append)
        table = Table(**config)
        pollers.start(table)
        await asyncio.wait_for(check(SimpleNamespace(table=table, pollers=pollers, story=story, points=points)), 20)
        await pollers.close(5.0)
        assert source.closed
        assert set(points) <= set(MAPPING_POINTS)
        assert points[-1] == "poller:drained"
        return points

    return asyncio.run(inside())


async def until(holds):
    while not holds():  # noqa: ASYNC110 - there is nothing to be told by
        await asyncio.sleep(0)


def test_a_batch_goes_through_the_door_and_is_acknowledged():
    async def check(house):
        await until(lambda: source.told)
        (call,) = door.calls
        assert (call.target, json.loads(call.payload)) == (FUNCTION, {"Records": [{"id": "a"}, {"id": "b"}]})
        assert call.cause == "m"
        assert source.told == [("acknowledged", ["a", "b"])]

    source, door = Source("a", "b"), Door(GOOD)
    points = run(check, source, door)
    assert [each for each in points if not each.startswith("take")] == [
        "batch:begun", "batch:ended", "acknowledge:begun", "acknowledge:committed", "poller:drained",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [("Unhandled", b"{}"), ClientFault("RecursiveInvocationException", 400, "a loop"), ClientFault("RequestTooLargeException", 413, "")],
)
def test_a_failure_is_left_to_the_source(answer):
    async def check(house):
        await until(lambda: any(entry.event == "failed" for entry in house.story.tell("m")))
        assert source.told == []

    source = Source("a")
    run(check, source, Door(answer))


@pytest.mark.parametrize(
    "refusal",
    [ClientFault("TooManyRequestsException", 429, ""), ClientFault("ResourceNotFoundException", 404, ""), PlatformFault("ours")],
)
def test_a_refusal_is_tried_again_until_it_succeeds(refusal):
    async def check(house):
        await until(lambda: source.told)
        assert len(door.calls) == 3
        assert len({call.request_id for call in door.calls}) == 3
        assert source.told == [("acknowledged", ["a"])]

    source, door = Source("a"), Door(refusal, refusal, GOOD)
    run(check, source, door)


def test_named_failures_stay_and_malformed_answers_fail_the_batch():
    reports = {"FunctionResponseTypes": ["ReportBatchItemFailures"]}

    async def named(house):
        await until(lambda: source.told)
        assert source.told == [("acknowledged", ["b"])]

    source = Source("a", "b")
    run(named, source, Door((None, b'{"batchItemFailures":[{"itemIdentifier":"a"}]}')), **reports)

    async def malformed(house):
        await until(lambda: any(entry.event == "failed" for entry in house.story.tell("m")))
        assert source.told == []

    source = Source("a", "b")
    run(malformed, source, Door((None, b'{"batchItemFailures":[{"itemIdentifier":"z"}]}')), **reports)


def test_an_acknowledgement_that_the_store_refuses_is_tried_again():
    async def check(house):
        await until(lambda: source.told)
        assert source.told == [("acknowledged", ["a"])]

    source = Source("a")
    source.refusals = 2
    run(check, source, Door(GOOD))

    async def given_up(house):
        await until(lambda: any(entry.event == "not settled" for entry in house.story.tell("m")))

    source = Source("a")
    source.refusals = 99
    run(given_up, source, Door(GOOD))
    assert source.told == []


def test_switched_off_it_finishes_what_runs_and_gives_back_the_rest():
    async def check(house):
        await until(lambda: len(door.calls) == 1)
        house.table.switch(False)
        drained = asyncio.ensure_future(house.pollers.drained("m"))
        await until(lambda: source.told)
        assert source.told == [("given back", ["b"])]
        assert not drained.done()
        door.gate.set()
        await drained
        assert source.told[1:] == [("acknowledged", ["a"])]
        source.closed = False
        source.there = [Record("c", "c", b"{}")]
        house.table.switch(True)
        await until(lambda: len(source.told) == 3)
        assert source.told[2] == ("acknowledged", ["c"])

    source, door = Source("a", "b"), Door(GOOD)
    door.gate.clear()
    run(check, source, door, Plan(batch_size=2, start=1, most=1, payload_limit=15))


def test_a_source_that_is_away_is_asked_again():
    class Away(Source):
        async def take(self, limit, filters):
            if len(house_story) < 2:
                house_story.append(limit)
                raise SourceUnavailable("away")
            return await super().take(limit, filters)

    house_story: list[int] = []

    async def check(house):
        await until(lambda: source.told)
        assert [entry.detail for entry in house.story.tell("m") if entry.event == "source failed"] == ["away"]

    source = Away("a")
    run(check, source, Door(GOOD))


def test_the_trace_of_a_batch_is_that_of_the_record_that_went_round_most_often():
    def record(trace):
        return Record("a", "a", b"", trace=trace)

    assert trace_of([record("")], "abc") == ""
    assert trace_of([record(""), record("Root=1"), record("Root=2")], "abc") == "Root=1"
    assert trace_of([record("Root=1;Lineage=abc:2"), record("Root=2;Lineage=x:9|abc:11")], "abc") == "Root=2;Lineage=x:9|abc:11"
