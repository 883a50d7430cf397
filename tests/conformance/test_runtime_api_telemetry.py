"""Telemetry to real receivers over HTTP and TCP: batches, retries, a receiver that is slow, refuses, hangs up or never was."""

from __future__ import annotations

import asyncio
import json

import pytest
from runtime_api_house import House, until

from lambent.runtime_api.telemetry_delivery import ATTEMPTS
from lambent.testing.clock import ManualClock

TELEMETRY, LOGS = "/2022-07-01/telemetry", "/2020-08-15/logs"


def run(test):
    return asyncio.run(test())


class Receiver:
    """A subscriber. ``answers`` are what it says to the batches that come, in order; the last one stands for all that follow."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers) or [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
        self.heads: list[str] = []
        self.batches: asyncio.Queue = asyncio.Queue()
        self.connections = 0
        self.gate: asyncio.Event | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Receiver:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**22)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                length = int(head.lower().partition("content-length:")[2].partition("\r\n")[0])
                batch = json.loads(await reader.readexactly(length))
                if self.gate is not None:
                    await self.gate.wait()
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                self.batches.put_nowait((batch, answer))
                if not answer:
                    writer.transport.abort()
                    return
                writer.write(answer)
                if b"close" in answer:
                    writer.close()
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def batch(self) -> list:
        return (await self.batches.get())[0]


async def registered(house: House, name: str = "a") -> dict[str, str]:
    reply = await house.call("POST", "/2020-01-01/extension/register", {"Lambda-Extension-Name": name}, b'{"events":["INVOKE"]}')
    await house.ears.next()
    return {"Lambda-Extension-Identifier": reply.headers["lambda-extension-identifier"]}


def wish(port: int, types=("platform", "function"), protocol: str = "HTTP", **more) -> bytes:
    destination = {"protocol": "HTTP", "URI": f"http://sandbox.localdomain:{port}/in"}
    if protocol == "TCP":
        destination = {"protocol": "TCP", "port": port}
    return json.dumps({"schemaVersion": "2022-12-13", "types": types, "destination": destination, **more}).encode()


async def subscribe(house: House, port: int, **more) -> None:
    me = await registered(house)
    reply = await house.call("PUT", TELEMETRY, me, wish(port, **more))
    assert (reply.status, reply.body) == (200, b'"OK"')
    await house.ears.next()


def test_a_batch_over_http():
    async def test():
        clock = ManualClock()
        async with Receiver() as receiver, House(clock=clock) as house:
            house.api.publish("platform.initStart", {"phase": "init"}, 0.0, "platform")
            me = await registered(house)
            reply = await house.call("PUT", TELEMETRY, me, wish(receiver.port))
            assert (reply.status, reply.body) == (200, b'"OK"')
            assert await house.ears.next() == ("a", ("platform", "function"))
            assert house.api.wants_telemetry == {"platform", "function"}
            house.api.publish("function", "hello", 1.5, "function")
            house.api.publish("extension", "not for you", 1.5, "extension")
            clock.advance(1.0)
            assert await receiver.batch() == [
                {"time": "1970-01-01T00:00:00.000Z", "type": "platform.initStart", "record": {"phase": "init"}},
                {"time": "1970-01-01T00:00:01.500Z", "type": "function", "record": "hello"},
            ]
            first, *headers = receiver.heads[0].split("\r\n")
            assert first == "POST /in HTTP/1.1"
            assert {"Content-Type: application/json", f"Host: sandbox.localdomain:{receiver.port}"} <= set(headers)

    run(test)


def test_batches_follow_one_another_over_one_connection():
    async def test():
        clock = ManualClock()
        async with Receiver() as receiver, House(clock=clock) as house:
            await subscribe(house, receiver.port)
            (courier,) = house.api._couriers.values()
            for number in range(3):
                house.api.publish("function", f"{number}", 0.0, "function")
                clock.advance(1.0)
                assert [event["record"] for event in await receiver.batch()] == [f"{number}"]
                await until(lambda: courier.under_way is None)
            assert receiver.connections == 1

    run(test)


def test_a_full_batch_does_not_wait():
    async def test():
        async with Receiver() as receiver, House(clock=ManualClock()) as house:
            await subscribe(house, receiver.port, buffering={"maxItems": 1000})
            for number in range(1000):
                house.api.publish("function", f"{number}", 0.0, "function")
            assert len(await receiver.batch()) == 1000

    run(test)


def test_lines_over_tcp():
    async def test():
        clock = ManualClock()
        lines: asyncio.Queue = asyncio.Queue()

        async def serve(reader, writer):
            while line := await reader.readline():
                lines.put_nowait(json.loads(line))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with House(clock=clock) as house:
            await subscribe(house, server.sockets[0].getsockname()[1], protocol="TCP")
            for number in range(3):
                house.api.publish("function", f"line {number}", 0.0, "function")
            clock.advance(1.0)
            assert [(await lines.get())["record"] for _ in range(3)] == ["line 0", "line 1", "line 2"]
            house.api.publish("function", "more", 0.0, "function")
            (courier,) = house.api._couriers.values()
            await until(lambda: courier.under_way is None)
            clock.advance(1.0)
            assert (await lines.get())["record"] == "more"
        server.close()

    run(test)


@pytest.mark.parametrize(
    "refusal",
    [b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", b"", b"what?\r\n\r\n", b"HTTP/1.1 503 No\r\nConnection: close\r\n\r\nsorry"],
)
def test_a_batch_that_is_not_taken_comes_again(refusal):
    async def test():
        clock = ManualClock()
        async with Receiver(refusal, refusal, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n") as receiver:
            async with House(clock=clock) as house:
                await subscribe(house, receiver.port)
                house.api.publish("function", "again", 0.0, "function")
                clock.advance(1.0)
                for _ in range(2):
                    assert [event["record"] for event in await receiver.batch()] == ["again"]
                    await until(clock.pending)
                    clock.advance(1.0)
                assert [event["record"] for event in await receiver.batch()] == ["again"]
                (courier,) = house.api._couriers.values()
                await until(lambda: courier.under_way is None)
                assert courier.outbox.empty

    run(test)


def test_a_receiver_that_closes_between_batches_is_called_anew():
    async def test():
        clock = ManualClock()
        async with Receiver(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfine") as receiver, House(clock=clock) as house:
            await subscribe(house, receiver.port)
            (courier,) = house.api._couriers.values()
            for number in range(2):
                house.api.publish("function", f"{number}", 0.0, "function")
                clock.advance(1.0)
                assert [event["record"] for event in await receiver.batch()] == [f"{number}"]
                await until(lambda: courier.under_way is None)
            assert receiver.connections == 2

    run(test)


def test_a_receiver_that_never_was_loses_its_events_and_is_told_how_many():
    async def test():
        clock = ManualClock()
        async with Receiver() as receiver, House(clock=clock) as house:
            port = receiver.port
            receiver._server.close()
            await receiver._server.wait_closed()
            await subscribe(house, port)
            house.api.publish("function", "lost", 0.0, "function")
            house.api.publish("function", "lost too", 0.0, "function")
            clock.advance(1.0)
            (courier,) = house.api._couriers.values()
            for _ in range(ATTEMPTS - 1):
                assert courier.under_way is not None
                await until(clock.pending)
                clock.advance(5.0)
            await until(lambda: courier.under_way is None)
            receiver._server = await asyncio.start_server(receiver._serve, "127.0.0.1", port)
            clock.advance(5.0)
            (dropped,) = await receiver.batch()
            assert (dropped["type"], dropped["record"]["droppedRecords"]) == ("platform.logsDropped", 2)

    run(test)


def test_a_slow_receiver_costs_bounded_memory_and_is_told_what_it_missed():
    async def test():
        clock = ManualClock()
        async with Receiver() as receiver, House(clock=clock) as house:
            receiver.gate = asyncio.Event()
            await subscribe(house, receiver.port, buffering={"maxItems": 1000})
            for _ in range(5000):
                house.api.publish("function", "x" * 100, 0.0, "function")
                await asyncio.sleep(0)
            (courier,) = house.api._couriers.values()
            assert len(courier.outbox.taken) == 1000
            assert len(courier.outbox._waiting) == 1000
            receiver.gate.set()
            assert len(await receiver.batch()) == 1000
            second = await receiver.batch()
            assert (second[0]["type"], second[0]["record"]["droppedRecords"], len(second)) == ("platform.logsDropped", 3000, 1001)

    run(test)


def test_an_answer_without_end_is_not_read_without_end():
    async def test():
        clock = ManualClock()
        async with Receiver(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000) as receiver, House(clock=clock) as house:
            await subscribe(house, receiver.port)
            house.api.publish("function", "1", 0.0, "function")
            clock.advance(1.0)
            await receiver.batch()
            (courier,) = house.api._couriers.values()
            await until(lambda: courier.under_way is None)
            assert courier.outbox.empty

    run(test)


def test_shutdown_and_close_send_what_is_left():
    async def test():
        clock = ManualClock()
        async with Receiver() as receiver, House(clock=clock) as house:
            await subscribe(house, receiver.port)
            house.api.publish("function", "before shutdown", 0.0, "function")
            house.api.shutdown("spindown", 1)
            assert (await receiver.batch())[0]["record"] == "before shutdown"
            (courier,) = house.api._couriers.values()
            await until(lambda: courier.under_way is None)
            house.api.publish("function", "last", 0.0, "function")
            await house.api.close()
            assert (await receiver.batch())[0]["record"] == "last"
            assert clock.pending() == 0

    run(test)


def test_close_does_not_wait_for_a_receiver_that_hangs():
    async def test():
        clock = ManualClock()
        async with Receiver() as receiver, House(clock=clock) as house:
            receiver.gate = asyncio.Event()
            await subscribe(house, receiver.port)
            house.api.publish("function", "x", 0.0, "function")
            (courier,) = house.api._couriers.values()
            closing = asyncio.create_task(house.api.close())
            await until(lambda: receiver.heads)  # it has asked, and will not be answered
            clock.advance(0.1)
            await closing
            assert courier.under_way is None
            assert clock.pending() == 0
            receiver.gate.set()
            await receiver.batch()

    run(test)


def test_the_logs_api():
    async def test():
        clock = ManualClock()
        async with Receiver() as receiver, House(clock=clock) as house:
            me = await registered(house)
            body = {
                "types": ["platform"],
                "destination": {"protocol": "HTTP", "URI": f"http://sandbox:{receiver.port}/logs", "method": "PUT"},
            }
            reply = await house.call("PUT", LOGS, me, json.dumps(body).encode())
            assert (reply.status, reply.body) == (200, b'"OK"')
            house.api.publish("platform.report", {"requestId": "1", "status": "success", "metrics": {"durationMs": 2}}, 0.0, "platform")
            clock.advance(1.0)
            assert [event["type"] for event in await receiver.batch()] == ["platform.end", "platform.report"]
            assert receiver.heads[0].startswith("PUT /logs HTTP/1.1\r\n")
            other = await house.call("PUT", TELEMETRY, me, wish(receiver.port))
            assert (other.status, other.error) == (400, "ValidationError")

    run(test)


def test_a_later_subscription_takes_the_place_of_an_earlier_one():
    async def test():
        clock = ManualClock()
        async with Receiver() as first, Receiver() as second, House(clock=clock) as house:
            me = await registered(house)
            for receiver in (first, first, second):
                assert (await house.call("PUT", TELEMETRY, me, wish(receiver.port))).status == 200
            house.api.publish("function", "x", 0.0, "function")
            clock.advance(1.0)
            assert len(await second.batch()) == 1
            assert first.batches.empty()
            assert len(house.api._couriers) == 1
            assert len(house.ears.news) == 2

    run(test)


def test_refused_subscriptions():
    async def test():
        async with House() as house:
            for api in (TELEMETRY, LOGS):
                assert (await house.call("PUT", api, {}, b"{}")).error == "Extension.MissingExtensionIdentifier"
                assert (
                    await house.call("PUT", api, {"Lambda-Extension-Identifier": "me"}, b"{}")
                ).error == "Extension.InvalidExtensionIdentifier"
                nobody = {"Lambda-Extension-Identifier": "00000000-0000-0000-0000-000000000000"}
                assert (await house.call("PUT", api, nobody, b"{}")).error == "Extension.UnknownExtensionIdentifier"
            me = await registered(house)
            wrong = await house.call("PUT", TELEMETRY, me, wish(9001))
            assert (wrong.status, wrong.json) == (400, {"errorType": "ValidationError", "errorMessage": "port 9001 is reserved"})
            house.api.end_init()
            late = await house.call("PUT", TELEMETRY, me, wish(8080))
            assert (late.status, late.error) == (403, "Telemetry.SubscriptionClosed")
            assert (await house.call("PUT", LOGS, me, wish(8080))).error == "Logs.SubscriptionClosed"
            assert house.api.wants_telemetry == frozenset()

    run(test)


def test_where_there_is_no_telemetry():
    async def test():
        async with House(telemetry=False) as house:
            me = await registered(house)
            reply = await house.call("PUT", TELEMETRY, me, wish(8080))
            assert (reply.status, reply.json) == (
                202,
                {"errorMessage": "Telemetry API is not supported", "errorType": "Telemetry.NotSupported"},
            )
            assert (await house.call("PUT", LOGS, me, wish(8080))).error == "Logs.NotSupported"

    run(test)
