"""What every driver of the store must do: examples of each promise, and a machine that compares long random histories with a model."""

import asyncio
import contextlib
import itertools
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from lambent.errors import LambentError
from lambent.store.contract import (
    ABSENT,
    ANY,
    Acknowledge,
    Append,
    Counts,
    Delete,
    Enqueue,
    Entry,
    Extend,
    Put,
    Record,
    Requeue,
    StoreConflict,
    StoreUnavailable,
    leased_receipt,
)
from lambent.store.file_lock import StoreInUse
from lambent.store.mutations import beyond
from lambent.store.postgres import PostgresStore
from lambent.store.schema import Migration, SchemaTooNew, migrate, migrations
from lambent.store.sqlite import SqliteStore
from lambent.testing.clock import ManualClock
from lambent.testing.memory_store import MemoryStore

DRIVERS = ["memory", "sqlite", "postgresql"]


SCHEMAS = itertools.count()


def fresh_postgres(postgres, clock):
    """A store in a schema that nobody has used."""
    return PostgresStore(postgres.dsn, clock, f"test {next(SCHEMAS)}")


@pytest.fixture(params=DRIVERS)
def make(request, tmp_path):
    """Run ``scenario(store, clock)`` on a fresh, open store of the driver."""

    def run(scenario):
        async def main():
            clock = ManualClock()
            match request.param:
                case "memory":
                    store = MemoryStore(clock)
                case "sqlite":
                    store = SqliteStore(tmp_path / "data" / "lambent.sqlite", clock)
                case "postgresql":
                    store = fresh_postgres(request.getfixturevalue("postgres"), clock)
            await store.open()
            try:
                await scenario(store, clock)
            finally:
                await store.close()

        asyncio.run(main())

    return run


# -- documents


def test_a_document_has_a_revision_that_grows_with_every_put(make):
    async def scenario(store, _):
        assert await store.get("function", "f") is None
        assert await store.commit(Put("function", "f", {"a": 1})) == [1]
        assert await store.commit(Put("function", "f", {"a": "ü\u0000\ud800"})) == [2]
        assert await store.get("function", "f") == Record("f", {"a": "ü\u0000\ud800"}, 2)
        assert await store.get("alias", "f") is None

    make(scenario)


def test_a_put_may_expect_a_revision_or_absence(make):
    async def scenario(store, _):
        assert await store.commit(Put("k", "x", {}, ABSENT)) == [1]
        with pytest.raises(StoreConflict) as caught:
            await store.commit(Put("k", "x", {"late": True}, ABSENT))
        assert (caught.value.kind, caught.value.key, caught.value.expected, caught.value.found) == ("k", "x", 0, 1)
        assert await store.commit(Put("k", "x", {"n": 2}, 1)) == [2]
        with pytest.raises(StoreConflict):
            await store.commit(Put("k", "x", {"n": 3}, 1))
        with pytest.raises(StoreConflict):
            await store.commit(Put("k", "missing", {}, 1))
        assert await store.get("k", "x") == Record("x", {"n": 2}, 2)

    make(scenario)


def test_deleting_expects_too_and_absence_is_no_error(make):
    async def scenario(store, _):
        assert await store.commit(Delete("k", "x")) == [0]
        await store.commit(Put("k", "x", {}))
        with pytest.raises(StoreConflict):
            await store.commit(Delete("k", "x", 7))
        assert await store.commit(Delete("k", "x", 1)) == [1]
        assert await store.get("k", "x") is None
        assert await store.commit(Put("k", "x", {}, ABSENT)) == [1]

    make(scenario)


def test_a_call_is_applied_whole_or_not_at_all(make):
    async def scenario(store, clock):
        await store.commit(Put("k", "old", {"n": 1}), Append("t", b"first"), Enqueue("q", b"m"))
        (message,) = await store.lease("q", 1, clock.now(), 30)
        with pytest.raises(StoreConflict):
            await store.commit(
                Put("k", "new", {}),
                Put("k", "old", {"n": 2}),
                Delete("k", "old"),
                Append("t", b"second"),
                Append("other", b"x"),
                Enqueue("q", b"n"),
                Acknowledge("q", message.receipt),
                Put("k", "new", {}, ABSENT),
            )
        with pytest.raises(StoreConflict):
            await store.commit(Requeue("q", message.receipt, 0), Put("k", "old", {}, 9))
        assert await store.get("k", "new") is None
        assert await store.get("k", "old") == Record("old", {"n": 1}, 1)
        assert await store.read("t") == [Entry(1, b"first")]
        assert await store.read("other") == []
        assert await store.depth("q") == 1
        assert await store.lease("q", 9, clock.now(), 30) == []
        assert await store.commit(Append("t", b"next"), Acknowledge("q", message.receipt)) == [2, 1]

    make(scenario)


def test_the_mutations_of_a_call_see_one_another(make):
    async def scenario(store, _):
        numbers = await store.commit(Put("k", "x", {}), Put("k", "x", {"n": 2}, 1), Append("t", b""), Append("t", b""), Delete("k", "x", 2))
        assert numbers == [1, 2, 1, 2, 1]
        assert await store.commit() == []

    make(scenario)


def test_a_document_is_kept_as_it_was_when_it_was_put(make):
    async def scenario(store, _):
        document = {"list": [1]}
        pending = asyncio.ensure_future(store.commit(Put("k", "x", document)))
        await asyncio.sleep(0)
        document["list"].append(2)
        await pending
        first = await store.get("k", "x")
        first.value["list"].append(3)
        assert (await store.get("k", "x")).value == {"list": [1]}
        with pytest.raises(TypeError):
            await store.commit(Put("k", "y", {"no": object()}))

    make(scenario)


def test_a_scan_goes_in_byte_order_by_prefix_and_pages(make):
    async def scenario(store, _):
        keys = ["a", "a/1", "a/2", "a/\U0010ffff", "a0", "b", "", "a/\ue000", "a/\uffff", "é", "%", "a%", "a_"]
        await store.commit(*[Put("k", key, {"key": key}) for key in keys], Put("other", "a/3", {}))
        everything = [record.key for record in await store.scan("k")]
        assert everything == sorted(keys, key=lambda key: key.encode())
        assert [record.key for record in await store.scan("k", "a/")] == ["a/1", "a/2", "a/\ue000", "a/\uffff", "a/\U0010ffff"]
        page, seen = await store.scan("k", limit=4), []
        while page:
            seen += [record.key for record in page]
            page = await store.scan("k", after=seen[-1], limit=4)
        assert seen == everything
        assert [record.key for record in await store.scan("k", "a/", after="a/1", limit=1)] == ["a/2"]
        assert await store.scan("k", "zzz") == []
        assert [record.key for record in await store.scan("k", "a%")] == ["a%"]

    make(scenario)


@pytest.mark.parametrize(("prefix", "end"), [("a", "b"), ("a\U0010ffff", "b"), ("\U0010ffff", ""), ("", ""), ("\ud7ff", "\ue000")])
def test_the_end_of_a_prefix(prefix, end):
    assert beyond(prefix) == end


# -- topics


def test_a_topic_is_read_from_a_position(make):
    async def scenario(store, _):
        for number in range(5):
            assert await store.commit(Append("t", b"%d" % number)) == [number + 1]
        assert await store.read("t", after=2, limit=2) == [Entry(3, b"2"), Entry(4, b"3")]
        assert await store.read("t", after=5) == []
        assert await store.read("unknown") == []

    make(scenario)


def test_no_position_is_given_twice_even_after_a_truncation(make):
    async def scenario(store, _):
        await store.commit(Append("t", b"a"), Append("t", b"b"), Append("u", b"c"))
        await store.truncate("t", 1)
        assert await store.read("t") == [Entry(2, b"b")]
        await store.truncate("t", 99)
        assert await store.read("t") == []
        assert await store.commit(Append("t", b"d")) == [3]
        assert await store.read("u") == [Entry(1, b"c")]

    make(scenario)


# -- queues


def test_a_leased_message_is_hidden_until_its_lease_ends(make):
    async def scenario(store, clock):
        start = clock.now()
        await store.commit(Enqueue("q", b"one"))
        clock.advance(1)
        (message,) = await store.lease("q", 10, clock.now(), 30)
        assert (message.body, message.attempt, message.enqueued_at) == (b"one", 1, start)
        assert await store.lease("q", 10, clock.now() + 29.9, 30) == []
        (again,) = await store.lease("q", 10, clock.now() + 30, 30)
        assert (again.body, again.attempt, again.enqueued_at) == (b"one", 2, start)
        assert again.receipt != message.receipt
        assert await store.commit(Acknowledge("q", message.receipt)) == [0]
        assert await store.depth("q") == 1
        assert await store.commit(Acknowledge("q", again.receipt), Acknowledge("q", again.receipt)) == [1, 0]
        assert await store.depth("q") == 0

    make(scenario)


def test_a_late_acknowledgement_counts_while_nobody_else_has_leased(make):
    async def scenario(store, clock):
        await store.commit(Enqueue("q", b"one"))
        (message,) = await store.lease("q", 1, clock.now(), 5)
        clock.advance(60)
        assert await store.commit(Acknowledge("q", message.receipt)) == [1]

    make(scenario)


def test_a_requeued_message_comes_back_when_it_is_due_and_its_receipt_is_spent(make):
    async def scenario(store, clock):
        await store.commit(Enqueue("q", b"one"))
        (message,) = await store.lease("q", 1, clock.now(), 300)
        due = clock.now() + 60
        assert await store.commit(Requeue("q", message.receipt, due), Requeue("q", message.receipt, 0)) == [1, 0]
        assert await store.commit(Acknowledge("q", message.receipt)) == [0]
        assert await store.lease("q", 1, due - 1, 300) == []
        (again,) = await store.lease("q", 1, due, 300)
        assert again.attempt == 2
        assert await store.commit(Requeue("q", again.receipt, 0.0)) == [1]
        assert [held.attempt for held in await store.lease("q", 1, clock.now(), 300)] == [3]

    make(scenario)


def test_messages_come_oldest_first_and_delayed_ones_when_they_are_due(make):
    async def scenario(store, clock):
        now = clock.now()
        await store.commit(Enqueue("q", b"late", now + 10), Enqueue("q", b"a"), Enqueue("q", b"b"), Enqueue("other", b"x"))
        assert [held.body for held in await store.lease("q", 1, now, 100)] == [b"a"]
        assert [held.body for held in await store.lease("q", 9, now, 100)] == [b"b"]
        clock.advance(11)
        await store.commit(Enqueue("q", b"newer"))
        assert [held.body for held in await store.lease("q", 9, clock.now(), 100)] == [b"late", b"newer"]
        assert await store.depth("q") == 4
        assert await store.depth("nothing") == 0

    make(scenario)


def test_receipts_that_are_none_do_nothing(make):
    async def scenario(store, clock):
        await store.commit(Enqueue("q", b"one"))
        (message,) = await store.lease("q", 1, clock.now(), 30)
        for receipt in ("", "x", "1", "1.", ".1", "1.0", "1.2", "-1.1", "9" * 60 + ".1"):
            assert await store.commit(Acknowledge("q", receipt), Requeue("q", receipt, 0)) == [0, 0]
        assert await store.commit(Acknowledge("other", message.receipt)) == [0]
        assert await store.depth("q") == 1

    make(scenario)


def test_a_lease_can_be_extended_while_it_lasts(make):
    async def scenario(store, clock):
        await store.commit(Enqueue("q", b"one"))
        (message,) = await store.lease("q", 1, clock.now(), 10)
        assert message.first_leased_at == clock.now()
        clock.advance(5)
        assert await store.commit(Extend("q", message.receipt, clock.now() + 60)) == [1]
        clock.advance(30)
        assert await store.lease("q", 1, clock.now(), 10) == []
        assert await store.commit(Extend("q", "1.9", 0), Extend("other", message.receipt, 0), Extend("q", "x", 0)) == [0, 0, 0]
        clock.advance(31)
        assert await store.commit(Extend("q", message.receipt, clock.now() + 60)) == [0]
        (again,) = await store.lease("q", 1, clock.now(), 10)
        assert (again.attempt, again.first_leased_at) == (2, message.first_leased_at)
        assert await store.commit(Extend("q", message.receipt, 9e9), Acknowledge("q", again.receipt)) == [0, 1]

    make(scenario)


def test_messages_of_a_group_keep_their_order_and_hold_one_another_back(make):
    async def scenario(store, clock):
        names = [(b"a1", "a"), (b"b1", "b"), (b"a2", "a"), (b"x", ""), (b"a3", "a"), (b"b2", "b"), (b"y", "")]
        await store.commit(*[Enqueue("q", body, 0.0, group) for body, group in names])
        first = await store.lease("q", 1, clock.now(), 30, ordered=True)
        assert [(held.body, held.group) for held in first] == [(b"a1", "a")]
        rest = await store.lease("q", 9, clock.now(), 30, ordered=True)
        assert [held.body for held in rest] == [b"b1", b"x", b"b2", b"y"]
        assert await store.lease("q", 9, clock.now(), 30, ordered=True) == []
        clock.advance(1)
        assert await store.commit(Requeue("q", first[0].receipt, 0), Acknowledge("q", rest[0].receipt)) == [1, 1]
        assert [held.body for held in await store.lease("q", 9, clock.now(), 30, ordered=True)] == [b"a1", b"a2", b"a3"]
        assert await store.lease("q", 9, clock.now() + 28, 30, ordered=True) == []
        assert len(await store.lease("q", 9, clock.now() + 29, 30, ordered=True)) == 3

    make(scenario)


def test_a_delayed_message_holds_back_its_group_and_no_other(make):
    async def scenario(store, clock):
        later = clock.now() + 5
        await store.commit(
            Enqueue("q", b"a1", later, "a"), Enqueue("q", b"a2", 0.0, "a"), Enqueue("q", b"b", 0.0, "b"), Enqueue("r", b"a", 0, "a")
        )
        assert [held.body for held in await store.lease("q", 9, clock.now(), 30, ordered=True)] == [b"b"]
        assert [held.body for held in await store.lease("r", 9, clock.now(), 30, ordered=True)] == [b"a"]
        assert [held.body for held in await store.lease("q", 9, later, 30, ordered=True)] == [b"a1", b"a2"]

    make(scenario)


def test_what_is_on_a_queue_can_be_counted_seen_dropped_and_purged(make):
    async def scenario(store, clock):
        now = clock.now()
        assert await store.counts("q", now) == Counts(0, 0, 0)
        assert await store.due("q") is None
        await store.commit(
            Enqueue("q", b"a"), Enqueue("q", b"b", 0.0, "g"), Enqueue("q", b"c", now + 50), Enqueue("p/1", b"d"), Enqueue("p/2", b"e")
        )
        assert await store.due("q") == now
        (held,) = await store.lease("q", 1, now, 20)
        assert await store.counts("q", now) == Counts(1, 1, 1)
        assert await store.counts("q", now + 30) == Counts(2, 0, 1)
        seen = await store.peek("q")
        assert [(each.body, each.attempt, each.group, each.leased) for each in seen] == [
            (b"a", 1, "", True),
            (b"b", 0, "g", False),
            (b"c", 0, "", False),
        ]
        assert await store.peek("q", 1, seen[0].position) == [seen[1]]
        assert await store.queues() == ["p/1", "p/2", "q"]
        assert await store.queues("p/") == ["p/1", "p/2"]
        assert await store.drop("q", seen[0].position) is True
        assert await store.drop("q", seen[0].position) is False
        assert await store.drop("p/1", seen[1].position) is False
        assert await store.commit(Acknowledge("q", held.receipt)) == [0]
        assert await store.purge("q", 1) == 1
        assert [each.body for each in await store.peek("q")] == [b"c"]
        assert await store.due("q") == now + 50
        assert await store.purge("q") == 1
        assert await store.purge("q") == 0
        assert await store.queues() == ["p/1", "p/2"]

    make(scenario)


def test_a_message_can_be_born_leased(make):
    async def scenario(store, clock):
        now = clock.now()
        (position,) = await store.commit(Enqueue("q", b"mine", leased_until=now + 30))
        assert await store.lease("q", 9, now, 30) == []
        assert await store.counts("q", now) == Counts(0, 1, 0)
        (position,) = await store.commit(Enqueue("q", b"lost", leased_until=now + 10))
        assert await store.commit(Extend("q", leased_receipt(position), now + 20)) == [1]
        (again,) = await store.lease("q", 9, now + 20, 30)
        assert (again.body, again.attempt, again.first_leased_at) == (b"lost", 2, now)
        assert await store.commit(Acknowledge("q", leased_receipt(position))) == [0]
        (position,) = await store.commit(Enqueue("q", b"done", leased_until=now + 10))
        assert await store.commit(Acknowledge("q", leased_receipt(position))) == [1]

    make(scenario)


def test_all_leases_of_a_queue_can_be_ended_at_once(make):
    async def scenario(store, clock):
        now = clock.now()
        await store.commit(Enqueue("q", b"a"), Enqueue("q", b"b", leased_until=now + 99), Enqueue("q", b"c", now + 50), Enqueue("r", b"d"))
        (first,) = await store.lease("q", 1, now, 99)
        await store.lease("r", 1, now, 99)
        clock.advance(1)
        assert await store.release("q") == 2
        assert await store.commit(Acknowledge("q", first.receipt)) == [0]
        assert [(held.body, held.attempt) for held in await store.lease("q", 9, clock.now(), 30)] == [(b"a", 2), (b"b", 2)]
        assert await store.counts("q", clock.now()) == Counts(0, 2, 1)
        assert await store.counts("r", clock.now()) == Counts(0, 1, 0)
        assert await store.release("none") == 0

    make(scenario)


# -- together


def test_calls_that_arrive_together_do_not_harm_one_another(make):
    async def scenario(store, _):
        await store.commit(Put("k", "taken", {}))
        calls = [
            store.commit(Put("k", f"mine-{number}", {"n": number}), Put("k", "taken" if number % 3 == 0 else f"free-{number}", {}, ABSENT))
            for number in range(60)
        ]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        for number, outcome in enumerate(outcomes):
            kept = await store.get("k", f"mine-{number}")
            if number % 3 == 0:
                assert isinstance(outcome, StoreConflict)
                assert kept is None
            else:
                assert outcome == [1, 1]
                assert kept == Record(f"mine-{number}", {"n": number}, 1)

    make(scenario)


def test_concurrent_compare_and_set_loses_no_update(make):
    async def scenario(store, _):
        await store.commit(Put("k", "counter", {"n": 0}))

        async def add():
            while True:
                record = await store.get("k", "counter")
                with contextlib.suppress(StoreConflict):
                    await store.commit(Put("k", "counter", {"n": record.value["n"] + 1}, record.revision))
                    return

        await asyncio.gather(*[add() for _ in range(20)])
        assert (await store.get("k", "counter")).value == {"n": 20}

    make(scenario)


def test_what_is_acknowledged_is_seen_at_once(make):
    async def scenario(store, _):
        for number in range(30):
            await store.commit(Put("k", "x", {"n": number}))
            assert (await store.get("k", "x")).value["n"] == number

    make(scenario)


def test_a_closed_store_says_so(make):
    async def scenario(store, _):
        await store.commit(Put("k", "x", {}))
        await store.close()
        with pytest.raises(StoreUnavailable):
            await store.commit(Put("k", "y", {}))
        with pytest.raises(StoreUnavailable):
            await store.get("k", "x")
        await store.close()

    make(scenario)


# -- random histories

KEYS = st.sampled_from(["a", "a/b", "a/c", "b", "ü", ""])
NAMES = st.sampled_from(["t", "u"])
EXPECTED = st.sampled_from([ANY, ANY, ABSENT, 1, 2])


class StoreMachine(RuleBasedStateMachine):
    """Compares a driver with the plainest possible model after every step."""

    receipts = Bundle("receipts")
    durable = False

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.folder = Path(tempfile.mkdtemp())
        self.store = self.fresh()
        self.run(self.store.open())
        self.documents = {}
        self.heads = {"t": 0, "u": 0}
        self.topics = {"t": [], "u": []}
        self.queue = []  # [body, visible_at, since, order, attempt, receipt]
        self.order = 0

    def fresh(self):
        raise NotImplementedError

    def run(self, coroutine):
        return self.runner.run(coroutine)

    def teardown(self):
        self.run(self.store.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    @rule(
        puts=st.lists(st.tuples(KEYS, st.integers(), EXPECTED), max_size=3),
        drops=st.lists(st.tuples(KEYS, EXPECTED), max_size=2),
        topic=NAMES,
    )
    def commit(self, puts, drops, topic):
        documents = dict(self.documents)
        fails = False
        for key, number, expected in puts:
            revision = documents.get(key, (None, 0))[1]
            fails = fails or expected not in (ANY, revision)
            documents[key] = ({"n": number}, revision + 1)
        for key, expected in drops:
            fails = fails or expected not in (ANY, documents.get(key, (None, 0))[1])
            documents.pop(key, None)
        mutations = [Append(topic, b"entry"), *[Put("k", key, {"n": number}, expected) for key, number, expected in puts]]
        mutations += [Delete("k", key, expected) for key, expected in drops]
        if fails:
            with pytest.raises(StoreConflict):
                self.run(self.store.commit(*mutations))
            return
        self.run(self.store.commit(*mutations))
        self.documents = documents
        self.heads[topic] += 1
        self.topics[topic].append(self.heads[topic])

    @rule(topic=NAMES, through=st.integers(0, 12))
    def truncate(self, topic, through):
        self.run(self.store.truncate(topic, through))
        self.topics[topic] = [position for position in self.topics[topic] if position > through]

    @rule(delay=st.sampled_from([0, 0, 5, 50]), body=st.binary(max_size=3))
    def enqueue(self, delay, body):
        now = self.clock.now()
        self.run(self.store.commit(Enqueue("q", body, now + delay if delay else 0.0)))
        self.order += 1
        self.queue.append([body, now + delay if delay else 0.0, now + delay, self.order, 0, ""])

    @rule(target=receipts, limit=st.integers(1, 3))
    def lease(self, limit):
        now = self.clock.now()
        due = sorted((held for held in self.queue if held[1] <= now), key=lambda held: (held[2], held[3]))[:limit]
        messages = self.run(self.store.lease("q", limit, now, 20))
        assert [(held.body, held.attempt) for held in messages] == [(held[0], held[4] + 1) for held in due]
        for held, message in zip(due, messages, strict=True):
            held[1] = held[2] = now + 20
            held[4], held[5] = held[4] + 1, message.receipt
        return [message.receipt for message in messages]

    @rule(given=receipts, back=st.booleans())
    def settle(self, given, back):
        for receipt in given:
            held = next((held for held in self.queue if held[5] == receipt), None)
            due = self.clock.now() + 3
            mutation = Requeue("q", receipt, due) if back else Acknowledge("q", receipt)
            assert self.run(self.store.commit(mutation)) == [0 if held is None else 1]
            if held is None:
                continue
            if back:
                held[1] = held[2] = due
                held[5] = ""
            else:
                self.queue.remove(held)

    @rule(seconds=st.sampled_from([1, 10, 30]))
    def advance(self, seconds):
        self.clock.advance(seconds)

    @precondition(lambda self: self.durable)
    @rule()
    def reopen(self):
        self.run(self.store.close())
        self.store = self.fresh()
        self.run(self.store.open())

    @invariant()
    def same_as_the_model(self):
        records = self.run(self.store.scan("k"))
        assert {record.key: (record.value, record.revision) for record in records} == self.documents
        for topic, positions in self.topics.items():
            assert [entry.position for entry in self.run(self.store.read(topic))] == positions
        assert self.run(self.store.depth("q")) == len(self.queue)


class MemoryMachine(StoreMachine):
    def fresh(self):
        return MemoryStore(self.clock)


class SqliteMachine(StoreMachine):
    durable = True

    def fresh(self):
        return SqliteStore(self.folder / "store.sqlite", self.clock)


_SETTINGS = settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
TestMemoryHistories = MemoryMachine.TestCase
TestMemoryHistories.settings = _SETTINGS
TestSqliteHistories = SqliteMachine.TestCase
TestSqliteHistories.settings = _SETTINGS


@pytest.fixture
def postgres_history(postgres):
    """The random histories need a server that outlives a test case."""
    PostgresMachine.server = postgres


class PostgresMachine(StoreMachine):
    durable = True
    server = None

    def fresh(self):
        if not hasattr(self, "schema"):
            self.schema = f"history {next(SCHEMAS)}"
        return PostgresStore(self.server.dsn, self.clock, self.schema)


@pytest.mark.usefixtures("postgres_history")
def test_random_histories_on_postgresql():
    run_state_machine_as_test(PostgresMachine, settings=settings(_SETTINGS, max_examples=12))


# -- PostgreSQL alone


def postgres_scenario(postgres, scenario, schema=None):
    async def main():
        store = PostgresStore(postgres.dsn, ManualClock(), schema or f"test {next(SCHEMAS)}")
        await store.open()
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(main())


def test_a_postgresql_that_is_killed_under_load_loses_and_doubles_nothing(postgres):
    """Every call that returned stands exactly once; calls wait while the server recovers."""

    async def scenario(store):
        told = []

        async def append(writer):
            for number in range(40):
                body = b"%d/%d" % (writer, number)
                told.append((body, (await store.commit(Append("t", body), Put("k", f"{writer}", {"n": number})))[0]))

        writers = asyncio.gather(*[append(writer) for writer in range(8)])
        for _ in range(3):
            so_far = len(told)
            while len(told) < so_far + 40:
                await store.get("k", "0")
            await asyncio.to_thread(postgres.stop, signal.SIGQUIT)
            await asyncio.to_thread(postgres.start)
        await writers
        entries = await store.read("t", limit=10_000)
        assert len(told) == len(entries) == 320
        assert sorted(told) == sorted((entry.body, entry.position) for entry in entries)
        assert [record.revision for record in await store.scan("k")] == [40] * 8

    postgres_scenario(postgres, scenario)


def test_a_commit_whose_answer_was_lost_is_not_applied_twice(postgres):
    async def scenario(store):
        engine = store._writer._engine
        transact, losses = engine._transact, []

        def lose_the_answer(connection, *arguments):
            transact(connection, *arguments)
            if not losses:
                losses.append(True)
                connection.close()
                raise psycopg.OperationalError("the connection was lost")

        engine._transact = lose_the_answer
        await store.commit(Put("k", "x", {"n": 1}), Append("t", b"a"))
        calls = [store.commit(Append("t", b"b")), store.commit(Put("k", "x", {}, 9)), store.commit(Put("k", "x", {}, 1))]
        assert losses == [True]
        losses.clear()
        numbers = await asyncio.gather(*calls, return_exceptions=True)
        assert numbers[0] == [2]
        assert isinstance(numbers[1], StoreConflict)
        assert (numbers[1].kind, numbers[1].key, numbers[1].expected, numbers[1].found) == ("k", "x", 9, 1)
        assert numbers[2] == [2]
        assert [entry.body for entry in await store.read("t")] == [b"a", b"b"]

    postgres_scenario(postgres, scenario)


def test_a_schema_has_one_node_at_a_time(postgres, monkeypatch):
    monkeypatch.setattr("lambent.store.postgres_engine._LOCK_PATIENCE", 1)

    async def scenario(store):
        with pytest.raises(StoreInUse):
            await PostgresStore(postgres.dsn, ManualClock(), "one node").open()
        await store.commit(Put("k", "x", {}))

    postgres_scenario(postgres, scenario, "one node")
    monkeypatch.undo()  # the server gives the lock back when it notices that the connection has gone

    async def again(store):
        assert (await store.get("k", "x")).revision == 1

    postgres_scenario(postgres, again, "one node")


def test_a_newer_schema_is_refused_and_a_server_that_is_not_there_told(postgres):
    async def scenario(_):
        pass

    postgres_scenario(postgres, scenario, "newer")
    with psycopg.connect(postgres.dsn) as connection:
        connection.execute("INSERT INTO newer.migrations VALUES (9999, 'from the future', 0)")
    with pytest.raises(SchemaTooNew, match="newer Lambent"):
        postgres_scenario(postgres, scenario, "newer")
    with pytest.raises(StoreUnavailable, match="PostgreSQL"):
        asyncio.run(PostgresStore(f"{postgres.dsn}-nowhere", ManualClock()).open())


def test_a_statement_that_the_server_refuses_harms_nobody_else(postgres):
    async def scenario(store):
        calls = [store.commit(Append("t", b"a")), store.commit(Append(os.urandom(9_000).hex(), b"x")), store.commit(Append("t", b"b"))]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert outcomes[0] == [1]
        assert isinstance(outcomes[1], StoreUnavailable)
        assert outcomes[2] == [2]
        for name in ("\0", "a\0b"):
            with pytest.raises(ValueError, match="NUL"):
                await store.commit(Enqueue(name, b""))

    postgres_scenario(postgres, scenario)


# -- SQLite alone


def sqlite_scenario(tmp_path, scenario):
    async def main():
        store = SqliteStore(tmp_path / "lambent.sqlite", ManualClock())
        await store.open()
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(main())


def test_everything_is_there_after_a_reopen(tmp_path):
    async def write(store):
        await store.commit(Put("k", "x", {"n": 1}), Append("t", b"a"), Enqueue("q", b"m"))
        await store.lease("q", 1, 2e9, 10)

    async def check(store):
        assert await store.get("k", "x") == Record("x", {"n": 1}, 1)
        assert await store.read("t") == [Entry(1, b"a")]
        (message,) = await store.lease("q", 1, 2e9 + 10, 10)
        assert message.attempt == 2

    sqlite_scenario(tmp_path, write)
    sqlite_scenario(tmp_path, check)


def test_calls_that_arrive_together_share_transactions(tmp_path):
    async def scenario(store):
        await asyncio.gather(*[store.commit(Append("t", b"%d" % number)) for number in range(200)])
        assert len(await store.read("t")) == 200
        assert store._writer.groups < 200

    sqlite_scenario(tmp_path, scenario)


def test_closing_finishes_what_was_submitted(tmp_path):
    async def scenario(store):
        calls = [asyncio.ensure_future(store.commit(Append("t", b"x"))) for _ in range(50)]
        await asyncio.sleep(0)
        await store.close()
        assert await asyncio.gather(*calls) == [[number] for number in range(1, 51)]

    sqlite_scenario(tmp_path, scenario)


def test_a_cancelled_caller_leaves_the_others_alone(tmp_path):
    async def scenario(store):
        calls = [asyncio.ensure_future(store.commit(Append("t", b"x"))) for _ in range(10)]
        await asyncio.sleep(0)
        calls[3].cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(outcomes[3], asyncio.CancelledError)
        assert [outcome for outcome in outcomes if not isinstance(outcome, BaseException)] == [[n] for n in range(1, 11) if n != 4]

    sqlite_scenario(tmp_path, scenario)


def test_a_value_that_the_database_refuses_harms_nobody_else(tmp_path):
    async def scenario(store):
        calls = [store.commit(Append("t", b"a")), store.commit(Put("k", "\ud800", {})), store.commit(Append("t", b"b"))]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert outcomes[0] == [1]
        assert isinstance(outcomes[1], UnicodeEncodeError)
        assert outcomes[2] == [2]

    sqlite_scenario(tmp_path, scenario)


def test_a_second_process_is_told_who_has_the_data(tmp_path):
    code = """
        import asyncio, sys
        from pathlib import Path
        from lambent.clock import SystemClock
        from lambent.store.file_lock import StoreInUse
        from lambent.store.sqlite import SqliteStore
        try:
            asyncio.run(SqliteStore(Path(sys.argv[1]), SystemClock()).open())
        except StoreInUse as error:
            print(error)
    """

    async def scenario(store):
        command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "lambent.sqlite")]
        said = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        assert f"is in use by process {os.getpid()}" in said.stdout
        with pytest.raises(StoreInUse):
            await SqliteStore(tmp_path / "lambent.sqlite", ManualClock()).open()

    sqlite_scenario(tmp_path, scenario)


def test_data_of_a_newer_version_is_refused_and_left_alone(tmp_path):
    async def scenario(store):
        await store.commit(Put("k", "x", {}))

    sqlite_scenario(tmp_path, scenario)
    connection = sqlite3.connect(tmp_path / "lambent.sqlite")
    with connection:
        connection.execute("INSERT INTO migrations VALUES (9999, 'from the future', 0)")
    connection.close()
    with pytest.raises(SchemaTooNew, match="newer Lambent"):
        sqlite_scenario(tmp_path, scenario)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "lambent.sqlite").write_bytes(b"certainly no database" * 100)

    async def scenario(_):
        raise AssertionError("it opened")

    with pytest.raises(StoreUnavailable, match="not a database"):
        sqlite_scenario(tmp_path, scenario)


def test_migrations_are_numbered_from_one_without_gaps_and_applied_once(tmp_path):
    for known in (migrations(""), migrations("logs_"), migrations("", "postgres")):
        assert [migration.version for migration in known] == list(range(1, len(known) + 1))
    connection = sqlite3.connect(":memory:", isolation_level=None)
    known = [Migration(1, "one", "CREATE TABLE a (x); -- a comment;\nINSERT INTO a VALUES (';');\n")]
    migrate(connection, "", 5.0, known)
    migrate(connection, "", 6.0, known)
    assert connection.execute("SELECT x FROM a").fetchall() == [(";",)]
    broken = [*known, Migration(2, "two", "CREATE TABLE b (x);\nCREATE TABLE a (x);\n")]
    with pytest.raises(sqlite3.Error):
        migrate(connection, "", 7.0, broken)
    assert connection.execute("SELECT version, applied_at FROM migrations").fetchall() == [(1, 5.0)]
    assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'b'").fetchall() == []
    connection.close()


@contextlib.contextmanager
def no_room(size):
    """No file of this process may grow beyond ``size``: what a full disk is to SQLite."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_room_the_caller_is_told_and_nothing_is_applied(tmp_path):
    async def scenario(store):
        await store.commit(Put("k", "small", {"n": 1}))
        with no_room(600_000):
            with pytest.raises(StoreUnavailable):
                await store.commit(Put("k", "small", {"n": 2}), Append("t", b"x" * 2_000_000))
            small, big = await asyncio.gather(
                store.commit(Put("k", "neighbour", {})), store.commit(Append("t", b"y" * 2_000_000)), return_exceptions=True
            )
            assert small == [1]
            assert isinstance(big, StoreUnavailable)
            assert await store.get("k", "small") == Record("small", {"n": 1}, 1)
        assert await store.commit(Put("k", "small", {"n": 3}), Append("t", b"z" * 2_000_000)) == [2, 1]

    sqlite_scenario(tmp_path, scenario)

    async def check(store):
        assert (await store.get("k", "small")).value == {"n": 3}
        assert [entry.body[:1] for entry in await store.read("t")] == [b"z"]

    sqlite_scenario(tmp_path, check)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB, or a skip where this user may not mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "lambent-test", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def fill(store):
    """Append until the disk is full; how many were acknowledged."""
    for number in range(1_000):
        try:
            await store.commit(Append("t", os.urandom(20_000)))
        except StoreUnavailable:
            return number
    raise AssertionError("the disk never filled")


def test_a_full_disk_and_a_read_only_one_pass(small_disk):
    async def scenario(store):
        acknowledged = await fill(store)
        assert acknowledged > 5
        assert len(await store.read("t", limit=10_000)) == acknowledged
        await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
        assert await store.commit(Append("t", b"room again")) == [acknowledged + 1]

    sqlite_scenario(small_disk, scenario)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreUnavailable, match=r"(?i)read-?only"):
        sqlite_scenario(small_disk, scenario)


def test_the_faults_of_a_store_are_of_the_one_tree():
    for fault in (StoreConflict, StoreUnavailable, StoreInUse, SchemaTooNew):
        assert issubclass(fault, LambentError)
