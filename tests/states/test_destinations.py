"""What destinations and dead-letter queues are told, and what becomes of results that nobody takes (contract 02 §4.1, §4.2, §5)."""

from __future__ import annotations

import asyncio
import itertools
import json
from types import SimpleNamespace

import pytest

from lambent.arn import FunctionArn
from lambent.errors import ClientFault
from lambent.invoke.async_event import DEAD, DELIVERIES, AsyncEvent, DeadLetter, Delivery, decode, decode_dead, decode_event
from lambent.invoke.async_state import Condition
from lambent.invoke.destination_record import dead_letter_attributes, error_message, record, s3_key, sendable_json
from lambent.invoke.destinations import Deliveries
from lambent.invoke.recursion import ENTRIES, MOST, Recursion, digest_of
from lambent.settings import AsyncSettings, Settings
from lambent.store.contract import Enqueue
from lambent.testing.clock import ManualClock
from lambent.testing.memory_store import MemoryStore

ARN = FunctionArn("us-east-1", "000000000000", "f")
NOW = 1_767_225_600.25
TRACE = "Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0"


def event(**members):
    return AsyncEvent(**{"request_id": "id", "target": ARN, "payload": b'{"n":1.10}', "accepted_at": NOW, **members})


def test_events_deliveries_and_dead_letters_come_back_as_they_were():
    whole = event(
        target=ARN.qualified("live"),
        payload=b"two\nlines\n",
        trace='a "quoted" trace',
        cause="c",
        tenant="t",
        invocations=2,
        failures=1,
        setbacks=3,
        last_code=200,
        last_message="ü\n",
        version="7",
        response=b"\xc3\xbc",
        onward="b",
    )
    delivery = Delivery("arn:x", "id", ARN, b"body\nof it", False, NOW, TRACE, {"ErrorCode": ("Number", "200")}, 4)
    assert decode_event(whole.encode()) == whole
    assert decode_event(event().encode()) == event()
    assert decode(delivery.encode()) == delivery
    for letter in (whole, delivery):
        dead = DeadLetter(letter, "reason", "detail\n", NOW)
        assert decode_dead(dead.encode()) == dead


def test_a_record_keeps_event_and_response_digit_by_digit():
    told = record(event(invocations=1, version="3", response=b'{"x": 1e400}'), Condition.SUCCESS, NOW, "sqs")
    assert b'"requestPayload":{"n":1.10}' in told
    assert b'"responsePayload":{"x": 1e400}' in told
    assert json.loads(told)["timestamp"] == "2026-01-01T00:00:00.250Z"


def test_a_response_that_is_no_json_is_told_as_text():
    told = json.loads(record(event(invocations=1, response=b"caf\xe9 \xff"), Condition.RETRIES_EXHAUSTED, NOW, "sqs"))
    assert told["responsePayload"] == "caf\ufffd \ufffd"


@pytest.mark.parametrize(("service", "limit"), [("sns", 262_144), ("events", 262_144), ("sqs", 1_048_576), ("lambda", 1_048_576)])
def test_a_record_over_the_limit_of_its_carrier_loses_both_payloads(service, limit):
    large = event(payload=b'"' + b"x" * limit + b'"', invocations=1, response=b"1")
    told = json.loads(record(large, Condition.SUCCESS, NOW, service))
    assert set(told) == {"version", "timestamp", "requestContext", "responseContext"}
    assert len(json.loads(record(large, Condition.SUCCESS, NOW, "s3"))["requestPayload"]) == limit


def test_attributes_of_a_dead_letter():
    assert dead_letter_attributes(event(last_code=429)) == {"RequestID": ("String", "id"), "ErrorCode": ("Number", "429")}
    message = dead_letter_attributes(event(last_code=200, last_message="é\x00" * 1_000))["ErrorMessage"][1]
    assert len(message.encode()) <= 1_024
    assert set(message) == {"é", "\ufffd"}


def test_the_error_message_is_the_functions_own_or_its_answer():
    assert error_message(b'{"errorMessage": "no", "errorType": "E"}') == "no"
    assert error_message(b'["no"]') == '["no"]'
    assert error_message(b"\xff" * 5_000) == "\ufffd" * 1_024


def test_characters_that_queues_refuse_are_escaped():
    assert sendable_json(b'"a\x7f\xef\xbf\xbf"') == '"a\x7f\\uffff"'


def test_the_key_in_a_bucket():
    assert s3_key("f", NOW, "u") == "aws/lambda/async/f/2026/01/01/2026-01-01T00.00.00-u"


class Post:
    """Deliveries over a store and a clock of ours; ``answers`` is what each attempt gives."""

    def __init__(self, **settings):
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock)
        self.attempts, self.answers, self.accepted = [], [], []
        self.tasks = set()
        directory = SimpleNamespace(by_arn=lambda arn: arn)
        story = SimpleNamespace(record=lambda *_: None)
        recursion = Recursion()
        self.deliveries = Deliveries(self.store, directory, self, self.clock, story, Settings(**settings), self.spawn, recursion=recursion)
        self.deliveries.accept = self.accept

    def spawn(self, coro):
        task = asyncio.get_running_loop().create_task(coro)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def send(self, queue, messages):
        self.attempts.append(self.clock.now())
        return [self.answers.pop(0) if self.answers else None]

    async def accept(self, call):
        self.accepted.append(call)
        return call.trace

    def bring(self, delivery, seconds=0.0):
        """Deliver, for so long; gives the dead letters."""

        async def story():
            await self.store.open()
            await self.store.commit(Enqueue(DELIVERIES + "lane", delivery.encode()))
            await self.deliveries.start()
            for _ in range(int(seconds) + 1):
                for _ in range(20):
                    await asyncio.sleep(0)
                self.clock.advance(1.0)
            self.deliveries.stop()
            left = await self.store.queues(DELIVERIES)
            assert left == []
            return [decode_dead(found.body) for found in await self.store.peek(DEAD + "lane")]

        return asyncio.run(story())


def delivery(destination, trace=TRACE, body=b"{}"):
    return Delivery(destination, "id", ARN, body, True, ManualClock().now(), trace)


def test_what_is_not_taken_is_offered_again_until_it_is_too_old():
    post = Post(async_events=AsyncSettings(backoff_first=1.0, backoff_most=8.0, delivery_age=30.0))
    post.send = _never(post)
    [dead] = post.bring(delivery("arn:aws:sqs:us-east-1:000000000000:q"), 60)
    waits = [round(later - earlier) for earlier, later in itertools.pairwise(post.attempts)]
    assert waits == [1, 2, 4, 8, 8]
    assert (dead.reason, dead.letter.attempts) == ("DestinationDeliveryFailures", 6)
    assert post.deliveries.failed == {"DestinationDeliveryFailures": 1}


def _never(post):
    async def send(queue, messages):
        post.attempts.append(post.clock.now())
        raise ClientFault("Throttling", 400, "not now")

    return send


def test_what_will_never_be_taken_is_dead_at_once():
    post = Post()
    post.answers = [ClientFault("InvalidMessageContents", 400, "bad characters")]
    [dead] = post.bring(delivery("arn:aws:sqs:us-east-1:000000000000:q"))
    assert "bad characters" in dead.detail


@pytest.mark.parametrize(("service", "resource"), [("sns", "t"), ("events", "event-bus/b")])
def test_a_service_without_an_endpoint_is_named_in_the_dead_letter(service, resource):
    [dead] = Post().bring(delivery(f"arn:aws:{service}:us-east-1:000000000000:{resource}"))
    assert dead.reason == "DestinationDeliveryFailures"
    assert f"no endpoint is set for {service}" in dead.detail


def test_a_function_is_told_unless_its_run_would_be_refused():
    target = FunctionArn("us-east-1", "000000000000", "g")
    post = Post()
    assert post.bring(delivery(str(target.qualified("live")), f"{TRACE};Lineage={digest_of(target)}:{MOST - 1}")) == []
    [call] = post.accepted
    assert (call.target, call.cause) == (target.qualified("live"), "id")
    post = Post()
    [dead] = post.bring(delivery(str(target), f"{TRACE};Lineage={digest_of(target)}:{MOST}"))
    assert "recursive loop" in dead.detail
    assert post.accepted == []


def test_lineage_counts_each_function_and_remembers_the_latest():
    recursion, trace = Recursion(), TRACE
    names = [FunctionArn("us-east-1", "000000000000", f"f{number}") for number in range(ENTRIES + 2)]
    for name in names:
        trace = recursion.extend(trace, name)
    assert digest_of(names[0]) not in trace
    assert f"{digest_of(names[-1])}:1" in trace
    for _ in range(MOST - 1):
        trace = recursion.extend(trace, names[-1])
    with pytest.raises(ClientFault) as caught:
        recursion.extend(trace, names[-1])
    assert (caught.value.code, caught.value.status) == ("RecursiveInvocationException", 400)
    assert f"{digest_of(names[-1])}:{MOST + 1}" in Recursion(lambda arn: True).extend(trace, names[-1])


def test_lineage_of_other_makers_is_read_and_garbage_is_not():
    digest = digest_of(ARN)
    with pytest.raises(ClientFault):
        Recursion().extend(f"{TRACE};Lineage=3:{digest}:{MOST}", ARN)
    assert Recursion().extend(f"{TRACE};Lineage=zz|:|{digest}:x;Self=1", ARN) == f"{TRACE};Lineage={digest}:1;Self=1"
