"""Streamed responses as a user meets them: boto3, real sandboxes, slow and vanishing clients."""

from __future__ import annotations

import base64
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from acceptance_helpers import ROLE, RUNTIME, settle, zipped
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer
from lambent.wire.eventstream import Decoder, Message

MB = 2**20

SOURCE = '''
import asyncio, json, os, threading, time
import awslambda

def generator(event, context):
    """Goes on when it is told to, so that nothing here depends on time."""
    yield "first,"
    while event.get("wait_for") and not os.path.exists("/tmp/" + event["wait_for"]):
        time.sleep(0.005)
    yield b"second"
    if event.get("fail"):
        raise ValueError("midway")
    if event.get("exit") is not None:
        os._exit(event["exit"])
    if event.get("sleep"):
        time.sleep(event["sleep"])

async def async_generator(event, context):
    for word in ("one ", "two"):
        await asyncio.sleep(0)
        yield word

@awslambda.streamify_response
def writer(event, response_stream, context):
    response_stream = awslambda.HttpResponseStream.from_(response_stream, {"statusCode": 201, "headers": {"x-a": "b"}})
    assert response_stream.write("h\\u00e9llo ") == 6
    response_stream.writelines([b"wor", bytearray(b"ld")])
    return "ignored"

@awslambda.streamify_response
async def async_writer(event, response_stream, context):
    response_stream.content_type = "text/html"
    await asyncio.sleep(0)
    response_stream.write("<p>")
    try:
        response_stream.content_type = "text/plain"
    except ValueError as error:
        response_stream.write(str(error))
    response_stream.end()
    try:
        response_stream.write("late")
    except ValueError as error:
        print(error)

def prelude(event, context):
    yield awslambda.HttpResponseStream.prelude({"statusCode": 404})
    yield "gone"

def early(event, context):
    raise KeyError("early")
    yield ""

def wrong(event, context):
    yield "so far"
    yield {"not": "text"}

def nothing(event, context):
    return
    yield

def plain(event, context):
    return {"plain": True, "pid": os.getpid()}

def bulk(event, context):
    for _ in range(event["mb"]):
        yield b"x" * 1_048_576
    print("all of it is out")

def straggler(event, context):
    """A thread that writes on after the end must not harm the next invocation."""
    stream = awslambda.open_stream()
    stream.write("mine")
    def late():
        time.sleep(0.02)
        try:
            stream.write("not mine")
        except ValueError:
            print("refused")
    threading.Thread(target=late).start()
    return awslambda.finish(stream)
'''


@pytest.fixture(scope="module")
def functions(server: LocalServer) -> Callable[[str], str]:
    api = server.client("lambda")
    made: set[str] = set()

    def function(handler: str, **options: Any) -> str:
        name = "-".join([handler, *map(str, options.values())])
        if name not in made:
            made.add(name)
            code = {"ZipFile": zipped({"app.py": SOURCE})}
            api.create_function(
                FunctionName=name, Runtime=RUNTIME, Role=ROLE, Handler=f"app.{handler}", Code=code, **{"Timeout": 20, **options}
            )
            settle(api, name)
        return name

    return function


def stream(api: Any, name: str, event: object = None, **options: Any) -> tuple[bytes, dict[str, Any]]:
    """Read a stream to its end: all of its pieces, and the InvokeComplete, which must come once and last."""
    answer = api.invoke_with_response_stream(FunctionName=name, Payload=json.dumps(event or {}), **options)
    assert answer["StatusCode"] == 200
    assert answer["ExecutedVersion"] == "$LATEST"
    events = list(answer["EventStream"])
    assert all(set(each) == {"PayloadChunk"} for each in events[:-1])
    assert set(events[-1]) == {"InvokeComplete"}
    return b"".join(each["PayloadChunk"]["Payload"] for each in events[:-1]), events[-1]["InvokeComplete"]


class TestHandlers:
    @pytest.mark.parametrize(
        ("handler", "expected"),
        [
            ("generator", b"first,second"),
            ("async_generator", b"one two"),
            ("writer", b'{"statusCode": 201, "headers": {"x-a": "b"}}' + bytes(8) + "héllo world".encode()),
            ("async_writer", b"<p>the content type cannot be set after the first write"),
            ("prelude", b'{"statusCode": 404}' + bytes(8) + b"gone"),
            ("nothing", b""),
        ],
    )
    def test_every_way_to_stream_and_the_same_buffered(self, api, functions, handler, expected):
        name = functions(handler)
        assert stream(api, name) == (expected, {})
        answer = api.invoke(FunctionName=name, Payload=b"{}")
        assert answer["Payload"].read() == expected
        assert "FunctionError" not in answer

    def test_a_function_that_does_not_stream(self, api, functions):
        body, end = stream(api, functions("plain"))
        assert json.loads(body)["plain"] is True
        assert end == {}

    def test_the_first_piece_arrives_while_the_function_runs(self, server, api, functions):
        name = functions("generator", Timeout=2)
        answer = api.invoke_with_response_stream(FunctionName=name, Payload=b'{"wait_for": "never"}')
        events = iter(answer["EventStream"])
        assert next(events) == {"PayloadChunk": {"Payload": b"first,"}}
        [state] = [each["state"] for each in server.page("environments")["environments"] if each["function"].endswith(f":{name}")]
        assert state == "streaming"
        answer["EventStream"].close()
        api.delete_function(FunctionName=name)  # it would wait for its timeout

    def test_a_thread_that_writes_on_does_no_harm(self, api, functions):
        name = functions("straggler")
        for _ in range(3):
            assert stream(api, name) == (b"mine", {})

    def test_dry_run_and_refusals_before_the_stream(self, api, functions):
        name = functions("plain")
        assert api.invoke_with_response_stream(FunctionName=name, InvocationType="DryRun")["StatusCode"] == 204
        for call, code in (
            ({"FunctionName": "no-such"}, "ResourceNotFoundException"),
            ({"FunctionName": name, "Payload": b"{"}, "InvalidRequestContentException"),
            ({"FunctionName": name, "Payload": b'"' + b"x" * (6 * MB) + b'"'}, "RequestTooLargeException"),
        ):
            with pytest.raises(ClientError) as caught:
                api.invoke_with_response_stream(**call)
            assert caught.value.response["Error"]["Code"] == code

    def test_the_log_comes_with_the_end(self, api, functions):
        _, end = stream(api, functions("plain"), LogType="Tail")
        log = base64.b64decode(end["LogResult"]).decode()
        assert re.fullmatch(r"START RequestId: .*\nEND RequestId: .*\nREPORT RequestId: .*\n", log)


class TestErrors:
    def test_before_the_first_byte(self, api, functions):
        body, end = stream(api, functions("early"))
        assert (body, end["ErrorCode"]) == (b"", "KeyError")
        details = json.loads(end["ErrorDetails"])
        assert details["errorMessage"] == "'early'"
        assert [line.splitlines()[0] for line in details["stackTrace"]] == ['  File "/var/task/app.py", line 50, in early']

    def test_in_the_middle(self, api, functions):
        name = functions("generator")
        body, end = stream(api, name, {"fail": True})
        assert (body, end["ErrorCode"]) == (b"first,second", "ValueError")
        assert json.loads(end["ErrorDetails"])["errorMessage"] == "midway"
        assert "/var/runtime" not in end["ErrorDetails"]
        answer = api.invoke(FunctionName=name, Payload=b'{"fail": true}')
        assert answer["FunctionError"] == "Unhandled"
        assert json.loads(answer["Payload"].read())["errorType"] == "ValueError"
        assert stream(api, name) == (b"first,second", {}), "the environment is none the worse"

    def test_something_that_is_no_text(self, api, functions):
        body, end = stream(api, functions("wrong"))
        assert (body, end["ErrorCode"]) == (b"so far", "TypeError")
        assert "made of str or bytes, not dict" in end["ErrorDetails"]

    def test_an_exit(self, api, functions):
        body, end = stream(api, functions("generator"), {"exit": 3})
        assert (body, end["ErrorCode"]) == (b"first,second", "Runtime.ExitError")
        assert json.loads(end["ErrorDetails"])["errorMessage"].endswith("Error: Runtime exited with error: exit status 3")
        assert stream(api, functions("generator")) == (b"first,second", {})

    def test_a_timeout(self, api, functions):
        name = functions("generator", Timeout=1)
        body, end = stream(api, name, {"sleep": 60}, LogType="Tail")
        assert (body, end["ErrorCode"]) == (b"first,second", "Sandbox.Timedout")
        assert json.loads(end["ErrorDetails"])["errorMessage"].endswith("Error: Task timed out after 1.00 seconds")
        assert "Status: timeout" in base64.b64decode(end["LogResult"]).decode()
        assert stream(api, name) == (b"first,second", {})

    def test_too_much_for_a_buffered_answer(self, api, functions):
        name = functions("bulk")
        assert len(api.invoke(FunctionName=name, Payload=b'{"mb": 6}')["Payload"].read()) == 6 * MB
        answer = api.invoke(FunctionName=name, Payload=b'{"mb": 7}')
        assert json.loads(answer["Payload"].read()) == {
            "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
            "errorType": "Function.ResponseSizeTooLarge",
        }
        assert stream(api, name, {"mb": 1}) == (b"x" * MB, {})


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server without a pace, where streams may have 64 MB."""
    config = tmp_path_factory.mktemp("fast") / "lambent.toml"
    config.write_text(f"[limits]\nstream_rate = 0\nstreamed_payload = {64 * MB}\n")
    with LocalServer(config=config) as running:
        yield running


@pytest.fixture(scope="module")
def bulk(fast: LocalServer) -> str:
    api = fast.client("lambda")
    code = {"ZipFile": zipped({"app.py": SOURCE})}
    api.create_function(FunctionName="bulk", Runtime=RUNTIME, Role=ROLE, Handler="app.bulk", Code=code, Timeout=60, MemorySize=1769)
    settle(api, "bulk")
    return "bulk"


class RawStream:
    """A client that reads when it is told to, through a small window."""

    def __init__(self, server: LocalServer, name: str, event: object) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", server.port))
        body = json.dumps(event).encode()
        head = (
            f"POST /2021-11-15/functions/{name}/response-streaming-invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.socket.sendall(head.encode() + body)

    def read_to_the_end(self) -> list[Message]:
        """The messages of the stream. The connection stays open, so the end is the last chunk."""
        data = bytearray()
        while not data.endswith(b"\r\n0\r\n\r\n"):
            piece = self.socket.recv(1 << 20)
            assert piece, "the connection was cut"
            data += piece
        head, _, body = bytes(data).partition(b"\r\n\r\n")
        assert b"content-type: application/vnd.amazon.eventstream" in head.lower()
        assert b"transfer-encoding: chunked" in head
        decoder, messages, at = Decoder(), [], 0
        while at < len(body):
            end = body.index(b"\r\n", at)
            size = int(body[at:end], 16)
            messages += decoder.feed(body[end + 2 : end + 2 + size])
            at = end + 2 + size + 2
        assert decoder.pending == 0
        return messages

    def close(self) -> None:
        self.socket.close()


def state_of(server: LocalServer, name: str) -> str:
    [state] = [each["state"] for each in server.page("environments")["environments"] if each["function"].endswith(f":{name}")]
    return state


def memory_of(server: LocalServer) -> int:
    """Resident bytes of the node process itself."""
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())[1]) * 1024


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def printed(server: LocalServer, name: str) -> int:
    """How often the function has said that all is out."""
    logs = server.client("logs")
    found = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}", filterPattern='"all of it is out"')
    return len(found["events"])


class TestPressure:
    def test_a_slow_client_stops_the_function_and_costs_the_node_nothing(self, fast, bulk):
        stream(fast.client("lambda"), bulk, {"mb": 1})
        before, memory = printed(fast, bulk), memory_of(fast)
        slow = RawStream(fast, bulk, {"mb": 30})
        try:
            wait_until(lambda: state_of(fast, bulk) == "streaming")
            stream(fast.client("lambda"), bulk, {"mb": 1})  # others go on meanwhile; by its end the slow one has long been stuck
            assert printed(fast, bulk) == before + 1
            assert memory_of(fast) - memory < 12 * MB
            messages = slow.read_to_the_end()
        finally:
            slow.close()
        assert sum(len(message.payload) for message in messages[:-1]) == 30 * MB
        assert messages[-1].headers[":event-type"] == "InvokeComplete"
        assert messages[-1].headers[":content-type"] == "application/json"
        assert messages[-1].payload == b"{}"
        assert {message.headers[":event-type"] for message in messages[:-1]} == {"PayloadChunk"}
        assert {message.headers[":content-type"] for message in messages[:-1]} == {"application/octet-stream"}
        assert memory_of(fast) - memory < 12 * MB
        wait_until(lambda: printed(fast, bulk) == before + 2)

    def test_a_client_that_vanishes_ends_nothing(self, fast, bulk):
        stream(fast.client("lambda"), bulk, {"mb": 1})
        before = printed(fast, bulk)
        gone = RawStream(fast, bulk, {"mb": 50})
        assert gone.socket.recv(1000).startswith(b"HTTP/1.1 200")
        gone.close()
        wait_until(lambda: printed(fast, bulk) == before + 1)
        assert stream(fast.client("lambda"), bulk, {"mb": 1}) == (b"x" * MB, {})

    def test_the_longest_stream(self, fast, bulk):
        body, end = stream(fast.client("lambda"), bulk, {"mb": 64})
        assert (len(body), end) == (64 * MB, {})
        body, end = stream(fast.client("lambda"), bulk, {"mb": 65})
        assert (len(body), end["ErrorCode"]) == (64 * MB, "Function.ResponseSizeTooLarge")
        assert json.loads(end["ErrorDetails"])["errorMessage"].endswith(f"({64 * MB} bytes).")

    def test_the_pace_after_the_burst(self, api, functions):
        """6 MB at once, 1 MB at 2 MB a second: no less than that, however quick the machine."""
        name = functions("bulk")
        begin = time.monotonic()
        assert stream(api, name, {"mb": 7}) == (b"x" * (7 * MB), {})
        assert time.monotonic() - begin > 0.4
