"""The APIs inside over real sockets: AWS's routes, headers and texts; connections that break off, send ahead, never read or never end."""

from __future__ import annotations

import asyncio
import base64
import json
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runtime_api_house import ARN, IDENTITY, Ears, House, invocation, until

from lambent.clock import SystemClock
from lambent.runtime_api.connection import AHEAD
from lambent.runtime_api.events import ExtensionFailed, Registered
from lambent.runtime_api.extension_routes import Facilities
from lambent.runtime_api.frames import MAX_CHUNK, Frame, FrameType
from lambent.runtime_api.server import MAX_CONNECTIONS, HttpRuntimeApi

RUNTIME = "/2018-06-01/runtime"
EXTENSION = "/2020-01-01/extension"
NEXT = Frame(FrameType.NEXT, "", b"")


def run(test):
    """Every test is a coroutine function of a house that stands while it runs."""
    return asyncio.run(test())


async def ready(house: House, token: int = 1, payload: bytes = b"{}", **more):
    """A client whose ``next`` has been answered with an invocation."""
    client = await house.connect()
    client.send("GET", f"{RUNTIME}/invocation/next")
    assert await house.ears.next() == NEXT
    assert house.api.invoke(invocation(token, payload, **more), to_runtime=True)
    return client, await client.reply()


def path(token: int = 1, what: str = "response") -> str:
    return f"{RUNTIME}/invocation/{invocation(token).request_id}/{what}"


def head(token: int, last: str) -> str:
    return f"{token}\n{invocation(token).request_id}\n{last}"


# ---------------------------------------------------------------------------------------------------------------- the runtime


def test_the_headers_of_an_invocation():
    async def test():
        async with House() as house:
            more = {"tenant": "blue", "client_context": '{"custom":\r\n {"a": "é"}}', "cognito": '{"cognitoIdentityId":"x"}'}
            client, reply = await ready(house, 7, b'{"a": 1}', **more)
            assert (reply.status, reply.body) == (200, b'{"a": 1}')
            context = reply.headers.pop("lambda-runtime-client-context")
            assert json.loads(context.encode("latin-1")) == {"custom": {"a": "é"}}
            assert reply.headers == {
                "content-type": "application/json",
                "content-length": "8",
                "lambda-runtime-aws-request-id": "00000000-0000-4000-8000-000000000007",
                "lambda-runtime-deadline-ms": "1893456000000",
                "lambda-runtime-invoked-function-arn": ARN,
                "lambda-runtime-trace-id": "Root=1-2-3;Parent=4;Sampled=1",
                "lambda-runtime-cognito-identity": '{"cognitoIdentityId":"x"}',
                "lambda-runtime-aws-tenant-id": "blue",
                "lambda-runtime-invocation-id": "7",
            }
            await client.close()

    run(test)


def test_empty_headers_are_left_out():
    async def test():
        async with House() as house:
            client, reply = await ready(house)
            assert (
                not {"lambda-runtime-client-context", "lambda-runtime-cognito-identity", "lambda-runtime-aws-tenant-id"}
                & reply.headers.keys()
            )
            await client.close()

    run(test)


def test_many_invocations_on_one_connection_and_on_many():
    async def test():
        async with House() as house:
            client = await house.connect()
            for token in range(1, 6):
                client.send("GET", f"{RUNTIME}/invocation/next")
                assert await house.ears.next() == NEXT
                assert house.api.invoke(invocation(token, b"[%d]" % token), to_runtime=True)
                assert (await client.reply()).body == b"[%d]" % token
                speaker = client if token % 2 else await house.connect()
                reply = await speaker.call("POST", path(token), {"Content-Type": "application/json"}, b'"x"')
                assert (reply.status, reply.body) == (202, b'{"status":"OK"}')
                assert await house.ears.next() == Frame(FrameType.RESPONSE, head(token, "application/json"), b'"x"')
                if speaker is not client:
                    await speaker.close()
            await client.close()

    run(test)


def test_an_error_with_type_and_cause():
    async def test():
        async with House() as house:
            client, _ = await ready(house)
            cause = '{"working_directory":"/var/task","exceptions":[],"paths":["ä"]}'
            headers = {"Lambda-Runtime-Function-Error-Type": "Function.X", "Lambda-Runtime-Function-XRay-Error-Cause": cause}
            client.writer.write(
                f"POST {path(1, 'error')} HTTP/1.1\r\n".encode()
                + "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
                + b'Content-Length: 20\r\n\r\n{"errorMessage":"x"}'
            )
            assert (await client.reply()).status == 202
            assert await house.ears.next() == Frame(FrameType.ERROR, head(1, f"Function.X\n{cause}"), b'{"errorMessage":"x"}')
            await client.close()

    run(test)


@pytest.mark.parametrize(
    ("body", "seen", "cause"),
    [
        (
            {"errorMessage": "m", "errorType": "T", "stackTrace": ["a"], "errorCause": {"paths": []}},
            {"errorMessage": "m", "errorType": "T", "stackTrace": ["a"]},
            '{"paths":[]}',
        ),
        ([1], "Invalid error body", ""),
    ],
)
def test_an_error_document_that_holds_its_cause(body, seen, cause):
    async def test():
        async with House() as house:
            client, _ = await ready(house)
            headers = {"Content-Type": "application/vnd.aws.lambda.error.cause+json", "Lambda-Runtime-Function-Error-Type": "Function.X"}
            await client.call("POST", path(1, "error"), headers, json.dumps(body).encode())
            frame = await house.ears.next()
            assert (frame.head, json.loads(frame.body)) == (head(1, f"Function.X\n{cause}"), seen)
            await client.close()

    run(test)


@pytest.mark.parametrize("cause", ["not json", "[1]", "x" * (1024 * 1024 + 1)])
def test_a_cause_that_is_none_is_dropped_and_the_error_stands(cause):
    async def test():
        async with House() as house:
            client, _ = await ready(house)
            headers = {"Lambda-Runtime-Function-Error-Type": "Function.X", "Lambda-Runtime-Function-XRay-Error-Cause": cause}
            assert (await client.call("POST", path(1, "error"), headers, b"{}")).status == 202
            assert await house.ears.next() == Frame(FrameType.ERROR, head(1, "Function.X\n"), b"{}")
            await client.close()

    run(test)


@pytest.mark.parametrize(("body", "error_type"), [(b'{"errorType":"A\\n B"}', "A B"), (b'{"errorType":1}', ""), (b"[]", ""), (b"{", "")])
def test_an_error_without_a_type_in_its_head_has_that_of_its_document(body, error_type):
    async def test():
        async with House() as house:
            client, _ = await ready(house)
            assert (await client.call("POST", path(1, "error"), {}, body)).status == 202
            assert await house.ears.next() == Frame(FrameType.ERROR, head(1, f"{error_type}\n"), body)
            await client.close()

    run(test)


def test_init_error_before_the_first_next_only():
    async def test():
        async with House() as house:
            reply = await house.call("POST", f"{RUNTIME}/init/error", {"Lambda-Runtime-Function-Error-Type": "Runtime.Import"}, b'{"a":1}')
            assert (reply.status, reply.json) == (202, {"status": "OK"})
            assert await house.ears.next() == Frame(FrameType.INIT_ERROR, "Runtime.Import", b'{"a":1}')
            again = await house.call("POST", f"{RUNTIME}/init/error", {}, b"{}")
            assert (again.status, again.error) == (403, "InvalidStateTransition")
            late = await house.call("GET", f"{RUNTIME}/invocation/next")
            assert (late.status, late.error) == (403, "InvalidStateTransition")
            assert house.ears.news == []

    run(test)


def test_refusals_word_for_word():
    async def test():
        async with House() as house:
            client, _ = await ready(house)
            wrong = await client.call("POST", f"{RUNTIME}/invocation/nobody/response", {}, b"x")
            assert (wrong.status, wrong.body) == (400, b'{"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}')
            wrong = await client.call("POST", path(), {"Lambda-Runtime-Invocation-Id": "2"}, b"x")
            assert (wrong.status, wrong.error) == (400, "InvalidRequestID")
            odd = await client.call("POST", path(), {"Lambda-Runtime-Function-Response-Mode": "odd"}, b"x")
            assert (odd.status, odd.error) == (400, "InvalidFunctionResponseMode")
            turn = await client.call("GET", f"{RUNTIME}/invocation/next")
            assert (turn.status, turn.error) == (403, "InvalidStateTransition")
            assert (await client.call("POST", path(), {}, b"x")).status == 202
            second = await client.call("POST", path(1, "error"), {}, b"x")
            assert (second.status, second.error) == (403, "InvalidStateTransition")
            await house.ears.next()
            assert house.ears.news == []
            await client.close()

    run(test)


@pytest.mark.parametrize("declared", [True, False])
def test_a_response_over_the_cap_is_refused_and_told(declared):
    async def test():
        async with House(cap=1000) as house:
            client, _ = await ready(house)
            if declared:
                client.send("POST", path(), {}, b"x" * 1001)
            else:
                client.write(
                    f"POST {path()} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n"
                )
            reply = await client.reply()
            assert (reply.status, reply.json) == (
                413,
                {"errorMessage": "Exceeded maximum allowed payload size (1000 bytes).", "errorType": "RequestEntityTooLarge"},
            )
            assert await house.ears.next() == Frame(FrameType.RESPONSE, head(1, ""), b"", 1001)
            client.send("GET", f"{RUNTIME}/invocation/next")
            assert await house.ears.next() == NEXT
            await client.close()

    run(test)


def test_a_response_of_exactly_the_cap_is_taken():
    async def test():
        async with House(cap=1000) as house:
            client, _ = await ready(house)
            assert (await client.call("POST", path(), {}, b"x" * 1000)).status == 202
            assert (await house.ears.next()).body == b"x" * 1000
            await client.close()

    run(test)


def test_a_response_without_end_is_cut_off():
    async def test():
        async with House(cap=1000) as house:
            client, _ = await ready(house)
            client.write(f"POST {path()} HTTP/1.1\r\nContent-Length: {10**12}\r\n\r\n".encode())

            async def pour():
                while True:
                    client.write(bytes(1 << 20))
                    await client.writer.drain()

            pouring = asyncio.create_task(pour())
            frame = await house.ears.next()
            assert (frame.type, frame.body) == (FrameType.RESPONSE, b"")
            assert frame.oversize > 1000
            reply = await client.reply()
            assert (reply.status, reply.headers["connection"]) == (413, "close")
            with pytest.raises(ConnectionError):
                await pouring
            await client.close()

    run(test)


def test_expect_100_continue():
    async def test():
        async with House() as house:
            client, _ = await ready(house)
            client.write(f"POST {path()} HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n".encode())
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.write(b"{}")
            assert (await client.reply()).status == 202
            client.write(b"POST /nowhere HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            assert (await client.reply()).status == 404
            await client.close()

    run(test)


def test_ping_and_what_is_not_there():
    async def test():
        async with House() as house:
            assert (await house.call("GET", "/2018-06-01/ping")).body == b"pong"
            for lost in ("/", f"{RUNTIME}/restore/next", f"{RUNTIME}/invocation/x/answer", "/2021-04-23/credentials"):
                assert (await house.call("GET", lost)).status == 404
            assert (await house.call("POST", f"{RUNTIME}/restore/error")).status == 404
            for method, there in (("POST", f"{RUNTIME}/invocation/next"), ("GET", path()), ("GET", f"{EXTENSION}/register")):
                assert (await house.call(method, there)).status == 405
            assert (await house.call("GET", "/2026-01-15/metadata/execution-environment")).status == 404

    run(test)


def test_metadata_is_guarded():
    async def test():
        async with House(facilities=Facilities(metadata_token="secret", zone_id="use1-az4")) as house:
            there = "/2026-01-15/metadata/execution-environment"
            for authorization in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
                assert (await house.call("GET", there, authorization)).status == 401
            right = {"Authorization": "Bearer secret"}
            reply = await house.call("GET", there, right)
            assert (reply.status, reply.body) == (200, b'{"AvailabilityZoneID":"use1-az4"}')
            assert reply.headers["cache-control"] == "private, max-age=43200, immutable"
            assert (await house.call("POST", there, right)).status == 405

    run(test)


def test_credentials_where_they_are_given():
    async def test():
        document = {"AccessKeyId": "a", "SecretAccessKey": "s", "Token": "t", "Expiration": "2030-01-01T00:00:00Z"}
        facilities = Facilities(credentials=lambda token: document if token == "right" else None)
        async with House(facilities=facilities) as house:
            assert (await house.call("GET", "/2021-04-23/credentials", {"Authorization": "wrong"})).status == 404
            assert (await house.call("GET", "/2021-04-23/credentials", {"Authorization": "right"})).json == document

    run(test)


# ---------------------------------------------------------------------------------------------------------------- streaming


def start_stream(client, more: str = "") -> None:
    client.write(
        f"POST {path()} HTTP/1.1\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n{more}Transfer-Encoding: chunked\r\n"
        "Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n".encode()
    )


def test_a_stream_is_passed_on_as_it_comes():
    async def test():
        async with House() as house:
            client, _ = await ready(house)
            start_stream(client, "Content-Type: text/html\r\n")
            assert await house.ears.next() == Frame(FrameType.RESPONSE_START, head(1, "text/html"), b"")
            for piece in (b"one", b"two"):
                client.write(b"3\r\n" + piece + b"\r\n")
                assert await house.ears.next() == Frame(FrameType.CHUNK, "1", piece)
            early = await house.connect()
            early.send("GET", f"{RUNTIME}/invocation/next")
            client.write(b"0\r\n\r\n")
            assert (await client.reply()).status == 202
            assert await house.ears.next() == Frame(FrameType.RESPONSE_END, head(1, ""), b"")
            assert await house.ears.next() == NEXT
            assert house.api.invoke(invocation(2), to_runtime=True)
            assert (await early.reply()).status == 200
            await client.close()
            await early.close()

    run(test)


def test_an_error_in_the_middle_of_a_stream():
    async def test():
        async with House() as house:
            client, _ = await ready(house)
            start_stream(client)
            body = b'{"errorMessage":"late"}'
            client.write(b"1\r\nx\r\n0\r\nLambda-Runtime-Function-Error-Type: Function.Late\r\n")
            client.write(b"Lambda-Runtime-Function-Error-Body: " + base64.b64encode(body) + b"\r\n\r\n")
            assert (await client.reply()).status == 202
            assert (await house.ears.next()).head == head(1, "application/octet-stream")
            assert await house.ears.next() == Frame(FrameType.CHUNK, "1", b"x")
            assert await house.ears.next() == Frame(FrameType.RESPONSE_END, head(1, "Function.Late"), body)
            await client.close()

    run(test)


def test_a_stream_that_breaks_off_ends_with_an_error():
    async def test():
        async with House() as house:
            client, _ = await ready(house)
            start_stream(client)
            client.write(b"5\r\nab")
            await house.ears.next()
            assert await house.ears.next() == Frame(FrameType.CHUNK, "1", b"ab")
            client.writer.write_eof()
            reply = await client.reply()
            assert (reply.status, reply.error) == (400, "TruncatedHTTPRequest")
            end = await house.ears.next()
            assert (end.type, end.head) == (FrameType.RESPONSE_END, head(1, "Runtime.TruncatedResponse"))
            await client.close()

    run(test)


def test_a_buffered_response_that_breaks_off_may_be_sent_again():
    async def test():
        async with House() as house:
            client, _ = await ready(house)
            client.write(f"POST {path()} HTTP/1.1\r\nContent-Length: 5\r\n\r\nab".encode())
            client.writer.write_eof()
            reply = await client.reply()
            assert (reply.status, reply.json) == (
                400,
                {"errorMessage": "HTTP request detected as truncated", "errorType": "TruncatedHTTPRequest"},
            )
            assert (await house.call("POST", path(), {}, b"abcde")).status == 202
            assert (await house.ears.next()).body == b"abcde"
            await client.close()

    run(test)


def test_a_paused_stream_blocks_its_writer_and_goes_on():
    async def test():
        async with House() as house:
            client, _ = await ready(house)
            start_stream(client)
            await house.ears.next()
            house.api.pause()
            sent = 0
            piece = b"10000\r\n" + bytes(0x10000) + b"\r\n"
            raw = client.writer.get_extra_info("socket")
            stuck = 0
            while stuck < 20:  # until neither kernel buffer takes more
                if client.writer.transport.get_write_buffer_size() == 0:
                    client.write(piece)
                    sent += 0x10000
                    stuck = 0
                else:
                    stuck += 1
                await asyncio.sleep(0)
            assert raw is not None
            assert house.ears.news == []
            house.api.resume()
            client.write(b"0\r\n\r\n")
            received = 0
            while (frame := await house.ears.next()).type == FrameType.CHUNK:
                assert len(frame.body) <= MAX_CHUNK
                received += len(frame.body)
            assert (frame.type, received) == (FrameType.RESPONSE_END, sent)
            assert (await client.reply()).status == 202
            await client.close()

    run(test)


def test_a_pause_does_not_outlive_its_stream():
    async def test():
        async with House() as house:
            house.ears.on_runtime_frames = pausing(house)
            client, _ = await ready(house)
            start_stream(client)
            client.write(b"1\r\nx\r\n0\r\n\r\n")
            client.send("GET", f"{RUNTIME}/invocation/next")
            assert [(await house.ears.next()).type for _ in range(4)] == [
                FrameType.RESPONSE_START,
                FrameType.CHUNK,
                FrameType.RESPONSE_END,
                FrameType.NEXT,
            ]
            await client.close()

    def pausing(house):
        def hear(frames):
            if frames[0].type == FrameType.CHUNK:
                house.api.pause()
            Ears.on_runtime_frames(house.ears, frames)

        return hear

    run(test)


def test_ten_thousand_tiny_chunks_arrive_whole_even_if_the_writer_stops_listening():
    async def test():
        async with House() as house:
            client, _ = await ready(house)
            start_stream(client)
            client.write(b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n")
            client.writer.write_eof()
            await house.ears.next()
            received = b""
            while (frame := await house.ears.next()).type == FrameType.CHUNK:
                received += frame.body
            assert (frame.head, len(received)) == (head(1, ""), 10_000)
            await client.close()

    run(test)


# -------------------------------------------------------------------------------------------------------------- connections


def test_a_runtime_that_is_gone_is_noticed_before_anything_is_sent():
    async def test():
        async with House() as house:
            client = await house.connect()
            client.send("GET", f"{RUNTIME}/invocation/next")
            assert await house.ears.next() == NEXT
            dying = client.writer.get_extra_info("socket").dup()
            dying.shutdown(socket.SHUT_RDWR)  # the kernel knows at once; the loop has not looked yet
            dying.close()
            assert not house.api.invoke(invocation(), to_runtime=True)
            await client.close()

    run(test)


def test_of_two_that_wait_one_may_die():
    async def test():
        async with House() as house:
            first, second = await house.connect(), await house.connect()
            first.send("GET", f"{RUNTIME}/invocation/next")
            assert await house.ears.next() == NEXT
            second.send("GET", f"{RUNTIME}/invocation/next")
            await until(lambda: len(house.api.runtime.line) == 2)
            await first.close()
            assert house.api.invoke(invocation(), to_runtime=True)
            assert (await second.reply()).status == 200
            assert house.ears.news == []
            await second.close()

    run(test)


def test_nobody_waits_nothing_is_delivered():
    async def test():
        async with House() as house:
            assert not house.api.invoke(invocation(), to_runtime=True)
            assert house.api.invoke(invocation(), to_runtime=False)

    run(test)


def test_requests_sent_ahead_are_answered_in_order():
    async def test():
        async with House() as house:
            client = await house.connect()
            client.write(
                b"GET /ping HTTP/1.1\r\n\r\nGET /nowhere HTTP/1.1\r\n\r\n" + f"GET {RUNTIME}/invocation/next HTTP/1.1\r\n\r\n".encode()
            )
            client.send("POST", path(), {}, b"done")
            client.send("GET", "/ping")
            assert [(await client.reply()).status for _ in range(2)] == [200, 404]
            assert await house.ears.next() == NEXT
            assert house.api.invoke(invocation(), to_runtime=True)
            assert [(await client.reply()).status for _ in range(3)] == [200, 202, 200]
            assert (await house.ears.next()).body == b"done"
            await client.close()

    run(test)


def test_one_that_sends_ahead_without_end_is_not_read_without_end():
    async def test():
        async with House() as house:
            client = await house.connect()
            client.send("GET", f"{RUNTIME}/invocation/next")
            assert await house.ears.next() == NEXT
            ping = b"GET /ping HTTP/1.1\r\n\r\n"
            client.write(ping * 200_000)
            for _ in range(2_000):
                await asyncio.sleep(0)
            (connection,) = house.api._connections.values()
            assert connection.held_bytes <= AHEAD + 262_144
            assert house.api.invoke(invocation(), to_runtime=True)
            assert (await client.reply()).status == 200
            for _ in range(200):
                assert (await client.reply()).body == b"pong"
            client.writer.transport.abort()

    run(test)


def test_one_that_never_reads_its_answers_is_not_answered_without_end():
    async def test():
        async with House() as house:
            client = await house.connect()
            client.writer.transport.pause_reading()
            client.write(b"GET /ping HTTP/1.1\r\n\r\n" * 300_000)
            for _ in range(3_000):
                await asyncio.sleep(0)
            (connection,) = house.api._connections.values()
            assert len(connection._backlog) < 100_000
            client.writer.transport.abort()

    run(test)


def test_large_invocations_go_out_as_the_runtime_reads():
    async def test():
        async with House() as house:
            payload = b'"' + b"x" * (6 * 2**20) + b'"'
            client, reply = await ready(house, 1, payload)
            assert reply.body == payload
            assert (await client.call("POST", path(), {}, payload[:-100])).status == 202
            assert (await house.ears.next()).body == payload[:-100]
            await client.close()

    run(test)


@pytest.mark.parametrize(("version", "header"), [("1.0", ""), ("1.1", "Connection: close\r\n")])
def test_connections_that_end_with_their_answer(version, header):
    async def test():
        async with House() as house:
            client = await house.connect()
            client.write(f"GET {RUNTIME}/invocation/next HTTP/{version}\r\n{header}\r\n".encode())
            assert await house.ears.next() == NEXT
            assert house.api.invoke(invocation(), to_runtime=True)
            reply = await client.reply()
            assert (reply.status, reply.headers["connection"], await client.reader.read()) == (200, "close", b"")
            await client.close()
            assert (await house.call("POST", path(), {}, b"x")).status == 202

    run(test)


def test_more_connections_than_there_is_room_for():
    async def test():
        async with House() as house:
            clients = [await house.connect() for _ in range(MAX_CONNECTIONS)]
            assert (await clients[-1].call("GET", "/ping")).status == 200
            refused = await house.connect()
            assert await refused.reader.read() == b""
            await clients[0].close()
            await until(lambda: len(house.api._connections) < MAX_CONNECTIONS)
            assert (await house.call("GET", "/ping")).status == 200
            for client in [*clients, refused]:
                await client.close()

    run(test)


def test_heads_that_never_end_do_not_fill_the_node():
    async def test():
        async with House() as house:
            clients = [await house.connect() for _ in range(24)]
            for client in clients:
                client.write(b"GET /ping HTTP/1.1\r\nx: " + b"x" * 1_000_000)
            most = 0
            for _ in range(3_000):
                most = max(most, sum(connection.held_bytes for connection in house.api._connections.values()))
                await asyncio.sleep(0)
            assert most <= 17 * 2**20
            assert len(house.api._connections) < 24
            for client in clients:
                client.writer.transport.abort()

    run(test)


def test_garbage_is_answered_and_hung_up_on():
    async def test():
        async with House() as house:
            client = await house.connect()
            client.write(b"\x16\x03\x01 hello there\r\n\r\n" + b"more" * 100_000)
            reply = await client.reply()
            assert (reply.status, reply.error) == (400, "InvalidRequestFormat")
            assert await client.reader.read() == b""
            await client.close()
            assert (await house.call("GET", "/ping")).status == 200
            assert house.ears.news == []

    run(test)


def test_close_ends_everything_and_tells_nobody():
    async def test():
        async with House() as house:
            client, _ = await ready(house)
            start_stream(client)
            await house.ears.next()
            waiting = await house.connect()
            waiting.send("GET", f"{RUNTIME}/invocation/next")
            await house.call("GET", "/ping")
            await house.api.close()
            await house.api.close()
            assert house.ears.news == []
            for one in (client, waiting):
                assert await one.reader.read() == b""
                await one.close()
            with pytest.raises(ConnectionRefusedError):
                await house.connect()

    run(test)


def test_a_listener_may_end_it_all_from_within():
    async def test():
        async with House() as house:
            closing = []
            house.ears.on_runtime_frames = lambda frames: closing.append(asyncio.ensure_future(house.api.close()))
            client = await house.connect()
            client.write(f"GET {RUNTIME}/invocation/next HTTP/1.1\r\n\r\n".encode() * 3)
            assert await client.reader.read() == b""
            await closing[0]
            await client.close()

    run(test)


def test_an_api_that_nobody_uses_watches_one_descriptor():
    async def test():
        listening = socket.create_server(("127.0.0.1", 0))
        loop = asyncio.get_running_loop()
        before = len(loop._selector.get_map())
        api = HttpRuntimeApi(listening, IDENTITY, Ears(), SystemClock(), 1000)
        assert len(loop._selector.get_map()) == before + 1
        assert api.invoke(invocation(), to_runtime=False)
        assert len(asyncio.all_tasks()) == 1
        await api.close()
        assert len(loop._selector.get_map()) == before

    run(test)


# --------------------------------------------------------------------------------------------------------------- extensions


def test_an_extension_through_its_life():
    async def test():
        async with House(external=("ext.sh",)) as house:
            headers = {"Lambda-Extension-Name": "ext.sh", "Lambda-Extension-Accept-Feature": "other, accountId"}
            client = await house.connect()
            reply = await client.call("POST", f"{EXTENSION}/register", headers, b'{"events":["INVOKE","SHUTDOWN"]}')
            assert (reply.status, reply.json) == (
                200,
                {"functionName": "f", "functionVersion": "$LATEST", "handler": "app.handler", "accountId": "123456789012"},
            )
            me = {"Lambda-Extension-Identifier": reply.headers["lambda-extension-identifier"]}
            registered = Registered("ext.sh", me["Lambda-Extension-Identifier"], ("INVOKE", "SHUTDOWN"), True)
            assert await house.ears.next() == registered
            assert dict(house.api.extensions) == {"ext.sh": registered}
            assert not house.api.extensions_ready
            client.send("GET", f"{EXTENSION}/event/next", me)
            assert await house.ears.next() == "ready"
            assert house.api.extensions_ready
            house.api.end_init()
            late = await house.call("POST", f"{EXTENSION}/register", {"Lambda-Extension-Name": "late"}, b"{}")
            assert (late.status, late.error) == (403, "Extension.RegistrationClosed")
            house.api.invoke(invocation(), to_runtime=False)
            event = await client.reply()
            assert event.json["eventType"] == "INVOKE"
            assert len(event.headers["lambda-extension-event-identifier"]) == 36
            client.send("GET", f"{EXTENSION}/event/next", me)
            assert await house.ears.next() == "ready"
            house.api.shutdown("failure", 123)
            assert (await client.reply()).json == {"eventType": "SHUTDOWN", "shutdownReason": "failure", "deadlineMs": 123}
            await client.close()

    run(test)


def test_errors_of_extensions_are_told():
    async def test():
        async with House(external=("a",)) as house:
            reply = await house.call("POST", f"{EXTENSION}/register", {"Lambda-Extension-Name": "a"}, b'{"events":["INVOKE"]}')
            me = {"Lambda-Extension-Identifier": reply.headers["lambda-extension-identifier"]}
            await house.ears.next()
            missing = await house.call("POST", f"{EXTENSION}/init/error", me)
            assert (missing.status, missing.error) == (403, "Extension.MissingHeader")
            failed = await house.call(
                "POST", f"{EXTENSION}/exit/error", {**me, "Lambda-Extension-Function-Error-Type": "Extension.X"}, b"{}"
            )
            assert (failed.status, failed.body) == (202, b'{"status":"OK"}')
            assert await house.ears.next() == ExtensionFailed("a", "exit", "Extension.X")

    run(test)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"events":"INVOKE"}', b'{"events":[1]}', b'{"configurationKeys":["a"]}', b"x" * 70_000, b"[" * 60_000]
)
def test_registrations_that_are_no_registrations(body):
    async def test():
        async with House() as house:
            reply = await house.call("POST", f"{EXTENSION}/register", {"Lambda-Extension-Name": "a"}, body)
            if len(body) > 65_536:  # too long to be read: nothing was asked for
                assert reply.status == 200
            else:
                assert (reply.status, reply.error) == (403, "InvalidRequestFormat")

    run(test)


# --------------------------------------------------------------------------------------------------------------------- fuzz

paths = st.sampled_from(
    [
        f"{RUNTIME}/invocation/next",
        path(1),
        path(2),
        path(1, "error"),
        f"{RUNTIME}/init/error",
        f"{RUNTIME}/invocation//",
        f"{EXTENSION}/register",
        f"{EXTENSION}/event/next",
        f"{EXTENSION}/init/error",
        f"{EXTENSION}/exit/error",
        "/2022-07-01/telemetry",
        "/2020-08-15/logs",
        "/ping",
        "/",
    ]
)
fuzz_headers = st.fixed_dictionaries(
    {},
    optional={
        "Lambda-Extension-Name": st.sampled_from(["a", "b", "é"]),
        "Lambda-Extension-Identifier": st.sampled_from(["mine", "x", "00000000-0000-0000-0000-000000000000"]),
        "Lambda-Extension-Function-Error-Type": st.just("Extension.X"),
        "Lambda-Runtime-Function-Response-Mode": st.sampled_from(["streaming", "odd"]),
        "Lambda-Runtime-Function-Error-Type": st.just("Function.X"),
        "Lambda-Runtime-Invocation-Id": st.sampled_from(["1", "2"]),
        "Content-Type": st.sampled_from(["application/vnd.aws.lambda.error.cause+json", "text/plain"]),
        "Connection": st.just("close"),
    },
)
bodies = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b'{"events":["INVOKE"]}', b'{"events":["SHUTDOWN"]}', b"{}", b"x" * 2_000]),
    st.just(b'{"schemaVersion":"2022-12-13","types":["function"],"destination":{"protocol":"TCP","port":1}}'),
)
requests = st.lists(st.tuples(st.sampled_from(["GET", "POST", "PUT"]), paths, fuzz_headers, bodies, st.booleans()), max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(requests, st.lists(st.sampled_from(["invoke", "end_init", "pause", "resume", "publish"]), max_size=4))
def test_whatever_is_asked_nothing_breaks(asked, done):
    """No answer is a 5xx, the loop sees no exception, and the API still works afterwards."""

    async def test():
        broken: list = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: broken.append(context))
        async with House(cap=1000, external=("a",)) as house:
            clients = []
            identifier = "mine"
            for number, (method, target, headers, body, torn) in enumerate(asked):
                client = await house.connect()
                clients.append(client)
                if headers.get("Lambda-Extension-Identifier") == "mine":
                    headers = {**headers, "Lambda-Extension-Identifier": identifier}
                client.send(method, target, headers, body)
                if torn:
                    client.write(b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nContent-Length: 9\r\n\r\nx")
                    client.writer.write_eof()
                try:
                    reply = await asyncio.wait_for(client.reply(), 0.01)
                except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
                    pass
                else:
                    assert reply.status < 500
                    identifier = reply.headers.get("lambda-extension-identifier", identifier)
                if number < len(done):
                    act(house, done[number])
            assert (await house.call("GET", "/ping")).status == 200
            for client in clients:
                client.writer.transport.abort()
        assert broken == []

    def act(house, what):
        if what == "invoke":
            house.api.invoke(invocation(), to_runtime=bool(house.api.runtime.line))
        elif what == "publish":
            house.api.publish("function", "line", 0.0, "function")
        else:
            getattr(house.api, what)()

    run(test)
