"""What a poller may expect of every source of records: the queues in the box, and queues behind another SQS endpoint."""

from __future__ import annotations

import asyncio
import json
import time
import uuid

import pytest

from lambent.clock import SystemClock
from lambent.queues.directory import Directory
from lambent.queues.duplicates import Duplicates
from lambent.queues.mailbox import Mailbox, Outgoing
from lambent.settings import EndpointSettings
from lambent.sources.filters import Filters
from lambent.sources.source import SourceUnavailable
from lambent.sources.sqs_event import PAYLOAD_KEYS
from lambent.sources.sqs_remote import RemoteSqsSource, visibility_of
from lambent.sources.sqs_source import SqsSource
from lambent.store.sqlite import SqliteStore
from lambent.testing.local_server import LocalServer

ALL = Filters()


class Box:
    """The queues in the box."""

    def __init__(self, folder):
        self.store = SqliteStore(folder / "a.sqlite", SystemClock())
        self.name = "q"

    async def open(self, fifo):
        await self.store.open()
        directory = Directory(self.store, SystemClock())
        self.mailbox = Mailbox(self.store, directory, Duplicates(self.store, SystemClock()), SystemClock())
        given = {"VisibilityTimeout": "30", **({"FifoQueue": "true"} if fifo else {})}
        self.queue = await directory.create("000000000000", "us-east-1", "q.fifo" if fifo else "q", given, {})
        return SqsSource(self.queue.arn, directory, self.mailbox), SqsSource(f"{self.queue.arn}-not", directory, self.mailbox)

    async def send(self, *texts):
        fifo = self.queue.is_fifo
        each = [Outgoing(text, "me", group=text[0] if fifo else "", deduplication=text if fifo else "") for text in texts]
        await self.mailbox.send(self.queue, each)

    async def close(self):
        await self.store.close()


class Far:
    """Queues of another server, spoken to with botocore."""

    def __init__(self, server):
        self.server = server
        self.sqs = server.client("sqs")

    async def open(self, fifo):
        name = f"q-{uuid.uuid4().hex}{'.fifo' if fifo else ''}"
        given = {"VisibilityTimeout": "30", **({"FifoQueue": "true"} if fifo else {})}
        self.fifo, self.url = fifo, self.sqs.create_queue(QueueName=name, Attributes=given)["QueueUrl"]
        self.arn = f"arn:aws:sqs:us-east-1:000000000000:{name}"
        self.settings = EndpointSettings(sqs=self.server.endpoint, access_key="test", secret_key="test")
        return [RemoteSqsSource(arn, self.settings, time.monotonic) for arn in (self.arn, f"{self.arn}-not")]

    async def send(self, *texts):
        for text in texts:
            options = {"MessageGroupId": text[0], "MessageDeduplicationId": text} if self.fifo else {}
            await asyncio.to_thread(self.sqs.send_message, QueueUrl=self.url, MessageBody=text, **options)

    async def close(self):
        pass


@pytest.fixture(scope="module")
def far_server():
    with LocalServer() as server:
        yield server


@pytest.fixture(params=["box", "far"])
def house(request, tmp_path):
    return Box(tmp_path) if request.param == "box" else Far(request.getfixturevalue("far_server"))


def check(house, promise, fifo=False):
    async def run():
        source, missing = await house.open(fifo)
        try:
            await promise(source, missing)
        finally:
            await source.close()
            await house.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def bodies(records):
    return [json.loads(record.payload)["body"] for record in records]


def test_takes_what_is_there_and_keeps_it_from_others_until_it_is_given_back(house):
    async def promise(source, missing):
        await house.send("a", "b", "c")
        taken = await source.take(2, ALL)
        rest = await source.take(10, ALL)
        assert taken.visibility == 30
        assert len(taken.records) == 2
        assert sorted(bodies([*taken.records, *rest.records])) == ["a", "b", "c"]
        assert not (await source.take(10, ALL)).records
        await source.give_back(taken.records)
        again = (await source.take(10, ALL)).records
        assert sorted(bodies(again)) == sorted(bodies(taken.records))
        assert {record.id for record in again} == {record.id for record in taken.records}
        counts = {json.loads(record.payload)["attributes"]["ApproximateReceiveCount"] for record in again}
        assert counts == {"2"}
        await source.prolong(again, 0)
        assert len((await source.take(10, ALL)).records) == 2

    check(house, promise)


def test_what_is_acknowledged_does_not_come_again(house):
    async def promise(source, missing):
        await house.send("a", "b")
        first = (await source.take(10, ALL)).records
        await source.acknowledge([record for record in first if bodies([record]) == ["a"]])
        await source.give_back(first)
        assert bodies((await source.take(10, ALL)).records) == ["b"]

    check(house, promise)


def test_marks_what_the_filters_leave_out(house):
    async def promise(source, missing):
        await house.send('{"n": 1}', '{"n": 2}')
        taken = await source.take(10, Filters(['{"body":{"n":[2]}}'], PAYLOAD_KEYS))
        assert {bodies([record])[0]: record.wanted for record in taken.records} == {'{"n": 1}': False, '{"n": 2}': True}
        event = json.loads(source.envelope(taken.records))
        assert sorted(record["body"] for record in event["Records"]) == ['{"n": 1}', '{"n": 2}']

    check(house, promise)


def test_a_wait_ends_with_a_message_and_one_that_is_cancelled_loses_none(house):
    async def promise(source, missing):
        assert not (await source.take(10, ALL)).records
        waiting = asyncio.ensure_future(source.wait())
        await asyncio.sleep(0)
        await house.send("a")
        await waiting
        while not (found := (await source.take(10, ALL)).records):  # it may end for nothing
            await source.wait()
        assert bodies(found) == ["a"]
        await source.acknowledge(found)
        waiting = asyncio.ensure_future(source.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await house.send("b")
        while not (found := (await source.take(10, ALL)).records):
            await source.wait()
        assert bodies(found) == ["b"]

    check(house, promise)


def test_groups_keep_their_order(house):
    async def promise(source, missing):
        await house.send("a1", "a2", "b1")
        first = (await source.take(1, ALL)).records
        assert [(record.group, *bodies([record])) for record in first] == [("a", "a1")]
        assert bodies((await source.take(10, ALL)).records) == ["b1"]
        await source.acknowledge(first)
        assert bodies((await source.take(10, ALL)).records) == ["a2"]

    check(house, promise, fifo=True)


def test_a_queue_that_is_not_there_is_unavailable(house):
    async def promise(source, missing):
        with pytest.raises(SourceUnavailable):
            await missing.take(1, ALL)
        with pytest.raises(SourceUnavailable):
            await missing.wait()
        if isinstance(house, Far):
            assert await visibility_of(house.arn, house.settings) == 30
            assert await visibility_of(f"{house.arn}-not", house.settings) is None
            with pytest.raises(SourceUnavailable):
                await visibility_of(house.arn, EndpointSettings(sqs="http://127.0.0.1:9", access_key="a", secret_key="b"))

    check(house, promise)
