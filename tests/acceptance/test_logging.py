"""Logging controls as a user meets them: formats, levels, groups, whole records and the tail, over boto3 with real sandboxes."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from acceptance_helpers import ROLE, RUNTIME, call, settle, zipped

FUNCTION = r"""
import json, logging, os, sys, time
print("loading")
log = logging.getLogger()

def handler(event, context):
    do = event.get("do")
    if do == "fail":
        raise ValueError("no\nluck")
    if do == "exit":
        os._exit(3)
    if do == "sleep":
        time.sleep(60)
    if do == "objects":
        when = "2026-11-21T16:00:00.123Z"
        for level in ("trace", "debug", "info", "WARN", "error", "nonsense"):
            print(json.dumps({"level": level, "timestamp": when, "m": level}))
        print(json.dumps({"level": "debug", "m": "no time"}))
        print(json.dumps({"level": "debug", "timestamp": "yesterday", "m": "bad time"}))
        print(json.dumps({"m": "no level"}))
        print("[1, 2]")
        print("{broken")
        print("plain")
    if do == "log":
        print("printed")
        log.debug("debugged")
        log.info("two\nlines")
        log.warning("warned")
        print("half", end="")
        log.error("errored %s", "é" * 3)
        print(" and half")
    if do == "big":
        log.warning("x" * 300_000 + "END")
    if do == "many":
        for number in range(200):
            print("line", number, "ö" * 20)
    return "done"
"""

Make = Callable[..., str]


@pytest.fixture
def make(api: Any) -> Iterator[Make]:
    made: list[str] = []

    def create(name: str, **options: Any) -> str:
        request = {"Runtime": RUNTIME, "Handler": "app.handler", "Timeout": 10, "MemorySize": 512, **options}
        api.create_function(FunctionName=name, Role=ROLE, Code={"ZipFile": zipped({"app.py": FUNCTION})}, **request)
        made.append(name)
        settle(api, name)
        return name

    yield create
    for name in made:
        api.delete_function(FunctionName=name)


@pytest.fixture
def messages(server: Any) -> Callable[[str], list[str]]:
    """What stands in a log group, in order."""

    def read(group: str) -> list[str]:
        pages = server.client("logs").get_paginator("filter_log_events").paginate(logGroupName=group)
        return [event["message"] for page in pages for event in page["events"]]

    return read


def platform(lines: list[str]) -> list[dict[str, Any]]:
    documents = [json.loads(line) for line in lines if line.startswith('{"time"')]
    for document in documents:
        assert set(document) == {"time", "type", "record"}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", document["time"])
    return documents


def test_a_json_log_of_the_platforms(api, make, messages):
    name = make("json", LoggingConfig={"LogFormat": "JSON"})
    _, answer = call(api, name, {"do": "log"})
    request = answer["ResponseMetadata"]["RequestId"]
    lines = messages(f"/aws/lambda/{name}")
    told = platform(lines)
    assert [each["type"] for each in told] == ["platform.initStart", "platform.start", "platform.report"]
    init, start, report = (each["record"] for each in told)
    assert (init["initializationType"], init["phase"], init["functionName"]) == ("on-demand", "init", name)
    assert init["runtimeVersion"].startswith("python:")
    assert init["runtimeVersionArn"].startswith("arn:aws:lambda:")
    assert init["instanceMaxMemory"] == 512 * 2**20
    assert (start["requestId"], start["version"]) == (request, "$LATEST")
    assert start["tracing"]["type"] == "X-Amzn-Trace-Id"
    assert report["status"] == "success"
    assert set(report["metrics"]) == {"durationMs", "billedDurationMs", "memorySizeMB", "maxMemoryUsedMB", "initDurationMs"}
    assert not [line for line in lines if line.startswith(("START", "END", "REPORT", "INIT_START"))]
    assert lines[0].startswith('{"time"')
    assert lines[1] == "loading\n"
    records = [json.loads(line) for line in lines if '"logger"' in line]
    assert [(record["level"], record["message"]) for record in records] == [
        ("INFO", "two\nlines"),
        ("WARNING", "warned"),
        ("ERROR", "errored ééé"),
    ]
    assert {record["requestId"] for record in records} == {request}
    assert answer["log"] == "".join(lines[2:]), "the tail is the log from start to report"
    assert "half and half\n" in lines


@pytest.mark.parametrize(
    ("level", "types"),
    [
        ("DEBUG", ["initStart", "initRuntimeDone", "initReport", "start", "runtimeDone", "report"]),
        ("INFO", ["initStart", "start", "report"]),
        ("WARN", []),
    ],
)
def test_system_log_levels(api, make, messages, level, types):
    name = make(f"system-{level}", LoggingConfig={"LogFormat": "JSON", "SystemLogLevel": level})
    call(api, name, {})
    told = platform(messages(f"/aws/lambda/{name}"))
    assert [each["type"] for each in told] == ["platform." + kind for kind in types]
    call(api, name, {"do": "exit"})
    failed = platform(messages(f"/aws/lambda/{name}"))[len(told) :]
    wanted = ["platform.fault", "platform.runtimeDone", "platform.report"]
    assert [each["type"] for each in failed] == (wanted if level == "WARN" else ["platform.start", *wanted])
    assert failed[-1]["record"]["status"] == "error"
    assert failed[-1]["record"]["errorType"] == "Runtime.ExitError"
    assert "exit status 3" in failed[-3]["record"]


@pytest.mark.parametrize(
    ("level", "objects"),
    [
        ("TRACE", ["trace", "debug", "info", "WARN", "error", "nonsense", "no time", "bad time", "no level"]),
        ("DEBUG", ["debug", "info", "WARN", "error", "nonsense", "no time", "bad time", "no level"]),
        ("INFO", ["info", "WARN", "error", "nonsense", "no time", "bad time", "no level"]),
        ("WARN", ["WARN", "error"]),
        ("FATAL", []),
    ],
)
def test_application_log_levels_of_printed_objects(api, make, level, objects):
    name = make(f"application-{level}", LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": level})
    _, answer = call(api, name, {"do": "objects"})
    lines = [line for line in answer["log"].splitlines() if not line.startswith('{"time"')]
    assert [json.loads(line)["m"] for line in lines if line.startswith('{"')] == objects
    assert [line for line in lines if not line.startswith('{"')] == (["[1, 2]", "{broken", "plain"] if level in "TRACE DEBUG INFO" else [])


def test_a_text_log_drops_nothing_and_keeps_records_whole(api, make, messages):
    name = make("text")
    call(api, name, {"do": "objects"})
    assert sum('"m"' in line for line in messages(f"/aws/lambda/{name}")) == 9
    _, answer = call(api, name, {"do": "log"})
    request = answer["ResponseMetadata"]["RequestId"]
    call(api, name, {"do": "fail"})
    lines = messages(f"/aws/lambda/{name}")
    head = rf"\[INFO\]\t\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z\t{request}\t"
    logged = [line for line in lines if f"\t{request}\t" in line]
    assert not [line for line in logged if line.startswith("[INFO]")], "the level of Python's root logger is WARNING"
    assert [line.split("\t")[0] for line in logged] == ["[WARNING]", "[ERROR]"]
    assert re.fullmatch(head.replace("INFO", "ERROR") + "errored ééé\n", logged[1])
    failed = next(line for line in lines if line.startswith("[ERROR] ValueError"))
    assert failed.startswith('[ERROR] ValueError: no\nluck\nTraceback (most recent call last):\n\u00a0\u00a0File "/var/task/app.py", line ')
    printed = [line for line in lines if "printed" in line or "warned" in line or "half" in line]
    assert [("printed", "warned", "half").index(word) for line in printed for word in ("printed", "warned", "half") if word in line] == [
        0,
        1,
        2,
    ]


def test_a_record_over_the_limit_is_cut(api, make, messages):
    name = make("big")
    call(api, name, {"do": "big"})
    pieces = [line for line in messages(f"/aws/lambda/{name}") if "xxx" in line]
    assert [len(piece) for piece in pieces[:-1]] == [262_144]
    assert pieces[-1].endswith("xEND\n")


@pytest.mark.parametrize("options", [{}, {"LoggingConfig": {"LogFormat": "JSON"}}], ids=["text", "json"])
def test_the_tail_is_exactly_the_last_four_kilobytes(api, make, messages, options):
    name = make("tail", **options)
    for _ in range(2):
        answer = api.invoke(FunctionName=name, Payload=b'{"do": "many"}', LogType="Tail")
        request = answer["ResponseMetadata"]["RequestId"]
        tail = base64.b64decode(answer["LogResult"])
        whole = "".join(messages(f"/aws/lambda/{name}")).encode()
        assert len(tail) == 4096
        assert whole.endswith(tail)
        assert request.encode() in tail


def test_a_group_of_the_users_own(api, make, messages, server):
    name = make("grouped", LoggingConfig={"LogFormat": "JSON", "LogGroup": "mine"})
    call(api, name, {})
    told = platform(messages("mine"))
    assert [each["type"] for each in told] == ["platform.initStart", "platform.start", "platform.report"]
    (stream,) = server.client("logs").describe_log_streams(logGroupName="mine")["logStreams"]
    assert re.fullmatch(rf"\d{{4}}/\d\d/\d\d/{name}\[\$LATEST\][0-9a-f]{{32}}", stream["logStreamName"])
    assert told[0]["record"]["instanceId"] == stream["logStreamName"]


def test_back_to_text(api, make, messages):
    name = make("back", LoggingConfig={"LogFormat": "JSON", "SystemLogLevel": "WARN"})
    call(api, name, {})
    assert api.update_function_configuration(FunctionName=name, LoggingConfig={"LogFormat": "Text"})["LoggingConfig"] == {
        "LogFormat": "Text",
        "LogGroup": f"/aws/lambda/{name}",
    }
    settle(api, name)
    _, answer = call(api, name, {})
    assert [line.partition(" ")[0] for line in answer["log"].splitlines()] == ["START", "END", "REPORT"]


def test_a_timeout_in_a_json_log(api, make, messages):
    name = make("late", Timeout=1, LoggingConfig={"LogFormat": "JSON"})
    payload, answer = call(api, name, {"do": "sleep"})
    assert payload["errorType"] == "Sandbox.Timedout"
    fault, done, report = platform(answer["log"].splitlines())[-3:]
    assert fault["record"].endswith("Task timed out after 1.00 seconds")
    assert (done["type"], done["record"]["status"]) == ("platform.runtimeDone", "timeout")
    assert (report["type"], report["record"]["status"]) == ("platform.report", "timeout")
    assert report["record"]["metrics"]["durationMs"] >= 1000


def test_an_active_trace_stands_in_the_report(api, make):
    name = make("traced", TracingConfig={"Mode": "Active"})
    payload, answer = call(api, name, {})
    assert payload == "done"
    header = answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-trace-id"]
    root, parent = re.search(r"Root=(1-[0-9a-f-]+);Parent=([0-9a-f]{16});Sampled=1", header).groups()
    assert answer["log"].endswith(f"\t\nXRAY TraceId: {root}\tSegmentId: {parent}\tSampled: true\t\n")


BOOTSTRAP = """#!/usr/bin/python3 -IS
import http.client, json, os, struct, time

def record(level, text):
    data = text.encode()
    kind = 0xA55A0003 | level << 2
    os.write(int(os.environ["_LAMBDA_TELEMETRY_LOG_FD"]), struct.pack(">IIQ", kind, len(data), time.time_ns() // 1000) + data)

api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    answer = api.getresponse()
    answer.read()
    record(2, "low")
    os.write(1, b"printed\\n")
    record(5, "high\\nand on")
    os.system("echo a program was here")
    api.request("POST", "/2018-06-01/runtime/invocation/" + answer.headers["Lambda-Runtime-Aws-Request-Id"] + "/response", b'"done"')
    api.getresponse().read()
"""


@pytest.mark.parametrize(("options", "low"), [({}, ["low\n"]), ({"LoggingConfig": {"LogFormat": "JSON"}}, [])], ids=["text", "json"])
def test_a_custom_runtime_writes_frames(api, messages, options, low):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        entry = zipfile.ZipInfo("bootstrap")
        entry.create_system, entry.external_attr = 3, 0o100755 << 16
        archive.writestr(entry, BOOTSTRAP)
    name = f"framed-{len(low)}"
    api.create_function(
        FunctionName=name, Runtime="provided.al2023", Role=ROLE, Handler="none", Code={"ZipFile": memory.getvalue()}, Timeout=10, **options
    )
    try:
        settle(api, name)
        assert call(api, name, {})[0] == "done"
        lines = [
            line for line in messages(f"/aws/lambda/{name}") if not line.startswith(('{"time"', "START", "END", "REPORT", "INIT_START"))
        ]
        assert lines == [*low, "printed\n", "high\nand on\n", "a program was here\n"]
    finally:
        api.delete_function(FunctionName=name)
