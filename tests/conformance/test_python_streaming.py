"""Streaming by the Python runtime client, on every interpreter that this machine has: the frames, one by one."""

from __future__ import annotations

import json
import time

import pytest
from test_python_client import Runtime, houses, interpreter, mode, start  # noqa: F401  (fixtures)

from lambent.runtime_api import python_client
from lambent.runtime_api.frames import MAX_CHUNK, Frame, FrameType, encode_invoke

REQUEST = "00000000-0000-4000-8000-000000000001"
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:greeter"

STREAMS = '''
import asyncio, threading
import awslambda

def handler(event, context):
    """A generator for every way of streaming would hide the others, so this one picks."""
    return globals()[event["do"]](event, context)

def generator(event, context):
    yield "one"
    yield b"two"
    if event.get("fail"):
        raise ValueError("midway")

async def async_generator(event, context):
    await asyncio.sleep(0)
    yield bytearray(b"one")
    yield memoryview(b"two")

@awslambda.streamify_response
def writer(event, stream, context):
    stream.set_content_type("text/html\\nx")
    with stream:
        stream.write("one")
        stream.write("")
        stream.end("two")
    try:
        stream.write("late")
    except ValueError as error:
        print(error)

@awslambda.streamify_response
async def async_writer(event, stream, context):
    await asyncio.sleep(0)
    stream.writelines(["one", "two"])

def large(event, context):
    yield b"x" * event["size"]

def early(event, context):
    raise ValueError("early")
    yield

def empty(event, context):
    return iter(()) if event.get("iterator") else (nothing for nothing in ())

def exits(event, context):
    yield "one"
    raise SystemExit(7)

def plain(event, context):
    return "plain"
'''


def frames(runtime: Runtime, token: int = 1, **event: object) -> list[Frame]:
    """Invoke; give everything up to the NEXT that ends it."""
    deadline = int(time.time() * 1000) + 60_000
    runtime.channel.sendall(encode_invoke(token, REQUEST, deadline, ARN, "", json.dumps(event).encode()))
    found = [runtime.frame()]
    while found[-1].type != FrameType.NEXT:
        found.append(runtime.frame())
    return found[:-1]


@pytest.fixture
def runtime(start):  # noqa: F811
    runtime = start(source=STREAMS)
    runtime.ready()
    return runtime


@pytest.mark.parametrize(
    ("do", "content_type"),
    [
        ("generator", "application/octet-stream"),
        ("async_generator", "application/octet-stream"),
        ("writer", "text/html x"),
        ("async_writer", "application/octet-stream"),
    ],
)
def test_every_way_to_stream(runtime, do, content_type):
    for token in (1, 2):
        assert frames(runtime, token, do=do) == [
            Frame(FrameType.RESPONSE_START, f"{token}\n{REQUEST}\n{content_type}", b""),
            Frame(FrameType.CHUNK, f"{token}", b"one"),
            Frame(FrameType.CHUNK, f"{token}", b"two"),
            Frame(FrameType.RESPONSE_END, f"{token}\n{REQUEST}\n", b""),
        ]
    answer = frames(runtime, 3, do="plain")
    assert answer == [Frame(FrameType.RESPONSE, f"3\n{REQUEST}\napplication/json", b'"plain"')]


def test_a_large_write_goes_out_in_pieces(runtime):
    *_, last, end = found = frames(runtime, do="large", size=2 * MAX_CHUNK + 7)
    assert [frame.type for frame in found] == [FrameType.RESPONSE_START, *[FrameType.CHUNK] * 3, FrameType.RESPONSE_END]
    assert len(last.body) == 7
    assert sum(len(frame.body) for frame in found) == 2 * MAX_CHUNK + 7
    assert end.head == f"1\n{REQUEST}\n"


def test_an_error_before_the_first_byte_is_an_ordinary_one(runtime):
    [error] = frames(runtime, do="early")
    assert (error.type, error.head.split("\n")[2]) == (FrameType.ERROR, "ValueError")


def test_an_error_in_the_middle_ends_the_stream_and_shows_the_functions_own_lines(runtime):
    *_, last, end = frames(runtime, do="generator", fail=True)
    assert (last.body, end.type, end.head) == (b"two", FrameType.RESPONSE_END, f"1\n{REQUEST}\nValueError")
    payload = json.loads(end.body)
    assert (payload["errorMessage"], payload["requestId"]) == ("midway", REQUEST)
    assert ["function.py" in line for line in payload["stackTrace"]] == [True]
    assert frames(runtime, 2, do="generator")[-1].head == f"2\n{REQUEST}\n"


def test_a_stream_of_nothing_is_an_empty_answer(runtime):
    found = frames(runtime, do="empty")
    assert [(frame.type, frame.body) for frame in found] == [(FrameType.RESPONSE_START, b""), (FrameType.RESPONSE_END, b"")]
    [error] = frames(runtime, 2, do="empty", iterator=True)  # no generator: AWS's error for what is no JSON
    assert error.head.split("\n")[2] == "Runtime.MarshalError"


def test_an_exit_in_the_middle_ends_the_process(runtime):
    with pytest.raises(EOFError):
        frames(runtime, do="exits")
    assert runtime.end()[0] == 7


def test_a_function_may_bring_a_module_of_that_name(start, tmp_path):  # noqa: F811
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "awslambda.py").write_text("mine = True\n")
    runtime = start(source="import awslambda\n\ndef handler(event, context):\n    return awslambda.mine\n")
    runtime.ready()
    assert frames(runtime)[0].body == b"true"


def test_both_ends_speak_of_the_same_types():
    ours = [python_client._RESPONSE_START, python_client._CHUNK, python_client._RESPONSE_END]
    assert ours == [FrameType.RESPONSE_START, FrameType.CHUNK, FrameType.RESPONSE_END]
    assert python_client._CHUNK_MOST == MAX_CHUNK
