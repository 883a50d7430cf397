"""The Telemetry API as an extension meets it: the set, the order and the members of events, over HTTP and TCP, in real sandboxes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from acceptance_helpers import RUNTIME, call
from test_extensions import Make, make, wait_until  # noqa: F401

EXTENSION = """#!/usr/bin/python3 -IS
import http.client, http.server, json, os, socket, sys, threading, time

name, api_of, protocol, types = os.path.basename(__file__), os.environ["API"], os.environ["PROTOCOL"], os.environ["TYPES"].split()

def keep(events):
    while os.path.exists("/tmp/hold"):
        time.sleep(0.002)
    with open("/tmp/events", "a") as file:
        file.writelines(json.dumps(event) + "\\n" for event in events)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        keep(json.loads(body))
    def log_message(self, *_):
        pass

def lines(listening):
    while True:
        for line in listening.accept()[0].makefile("rb"):
            keep([json.loads(line)])

if protocol == "HTTP":
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    destination = {"protocol": "HTTP", "URI": "http://sandbox.localdomain:8080/x"}
else:
    listening = socket.create_server(("0.0.0.0", 8080))
    threading.Thread(target=lines, args=(listening,), daemon=True).start()
    destination = {"protocol": "TCP", "port": 8080}
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])

def ask(method, path, body=None, **headers):
    api.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
    answer = api.getresponse()
    return answer, answer.read()

answer, _ = ask("POST", "/2020-01-01/extension/register", json.dumps({"events": ["INVOKE"]}), Lambda_Extension_Name=name)
me = answer.headers["Lambda-Extension-Identifier"]
path, schema = ("/2022-07-01/telemetry", "2022-12-13") if api_of == "telemetry" else ("/2020-08-15/logs", "2021-03-18")
wish = {"schemaVersion": schema, "types": types, "buffering": {"timeoutMs": 25, "maxItems": 1000, "maxBytes": 262144},
        "destination": destination}
answer, said = ask("PUT", path, json.dumps(wish), Lambda_Extension_Identifier=me)
print("subscribed", answer.status, said.decode(), flush=True)
while True:
    ask("GET", "/2020-01-01/extension/event/next", Lambda_Extension_Identifier=me)
    print("told", flush=True)
"""

FUNCTION = r"""
import json, os
print("loading")
def handler(event, context):
    if event.get("do") == "read":
        return open("/tmp/events").read() if os.path.exists("/tmp/events") else ""
    if event.get("do") == "flood":
        open("/tmp/hold", "w").close()
        for number in range(event["lines"]):
            print("flood", number)
        return None
    if event.get("do") == "release":
        return os.remove("/tmp/hold")
    print(json.dumps({"level": "INFO", "hello": "world"}))
    if event.get("do") == "fail":
        raise ValueError("no")
    return "x" * 1000
"""


class Watched:
    """A function with the extension, and what the extension has heard."""

    def __init__(self, api: Any, name: str) -> None:
        self.api = api
        self.name = name

    def events(self) -> list[dict[str, Any]]:
        text, _ = call(self.api, self.name, {"do": "read"})
        return [json.loads(line) for line in text.splitlines()]

    def until(self, kind: str, request_id: str = "") -> list[dict[str, Any]]:
        """Ask until an event of that kind (and of that request) has arrived."""
        found: list[dict[str, Any]] = []

        def arrived() -> bool:
            found[:] = self.events()
            return any(each["type"] == kind and (not request_id or each["record"]["requestId"] == request_id) for each in found)

        wait_until(arrived)
        return found


@pytest.fixture
def watched(api: Any, make: Make) -> Iterator[Any]:  # noqa: F811
    def create(
        name: str, api_of: str = "telemetry", protocol: str = "HTTP", types: str = "platform function extension", **options: Any
    ) -> Watched:
        variables = {"API": api_of, "PROTOCOL": protocol, "TYPES": types}
        return Watched(
            api, make(name, {"app.py": FUNCTION}, {"watcher": EXTENSION}, Environment={"Variables": variables}, Runtime=RUNTIME, **options)
        )

    return create


def of_request(events: list[dict[str, Any]], request_id: str) -> dict[str, Any]:
    return {
        each["type"]: each["record"]
        for each in events
        if isinstance(each["record"], dict) and each["record"].get("requestId") == request_id
    }


@pytest.mark.parametrize("protocol", ["HTTP", "TCP"])
def test_everything_in_its_order(server, api, watched, protocol):
    function = watched(f"all-{protocol.lower()}", protocol=protocol)
    payload, answer = call(api, function.name, {})
    assert len(payload) == 1000
    request = answer["ResponseMetadata"]["RequestId"]
    events = function.until("platform.report", request)
    for each in events:
        assert set(each) == {"time", "type", "record"}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", each["time"])
    kinds = [each["type"] for each in events]
    report = next(i for i, each in enumerate(events) if each["type"] == "platform.report")
    told = [kind for kind in kinds[: report + 1] if kind.startswith("platform.")]
    assert told == [
        "platform.initStart",
        "platform.telemetrySubscription",
        "platform.initRuntimeDone",
        "platform.extension",
        "platform.initReport",
        "platform.start",
        "platform.runtimeDone",
        "platform.report",
    ]
    assert [each["record"] for each in events[: report + 1] if each["type"] == "function"] == [
        "loading\n",
        '{"level": "INFO", "hello": "world"}\n',
    ]
    assert "subscribed 200 OK\n" in [each["record"].replace('"', "") for each in events if each["type"] == "extension"]
    assert "told\n" in [each["record"] for each in events if each["type"] == "extension"]
    records = {each["type"]: each["record"] for each in events[: report + 1] if each["type"].startswith("platform.")}
    assert (records["platform.initStart"]["phase"], records["platform.initStart"]["functionName"]) == ("init", function.name)
    assert records["platform.initRuntimeDone"] == {"initializationType": "on-demand", "phase": "init", "status": "success"}
    assert records["platform.telemetrySubscription"] == {
        "name": "watcher",
        "state": "Subscribed",
        "types": ["platform", "function", "extension"],
    }
    assert records["platform.extension"] == {"name": "watcher", "state": "Ready", "events": ["INVOKE"]}
    assert records["platform.initReport"]["metrics"]["durationMs"] > 0
    trace = answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-trace-id"]
    assert records["platform.start"]["tracing"]["value"] == trace
    done, final = records["platform.runtimeDone"], records["platform.report"]
    assert (done["requestId"], done["status"], done["metrics"]["producedBytes"]) == (request, "success", 1002)
    assert [span["name"] for span in done["spans"]] == ["responseLatency", "responseDuration", "runtimeOverhead"]
    assert sum(span["durationMs"] for span in done["spans"]) == pytest.approx(done["metrics"]["durationMs"], abs=0.01)
    assert (final["requestId"], final["status"], final["metrics"]["memorySizeMB"]) == (request, "success", 1769)
    assert final["metrics"]["initDurationMs"] == records["platform.initReport"]["metrics"]["durationMs"]
    overhead = [span["durationMs"] for span in final.get("spans", ()) if span["name"] == "extensionOverhead"]
    assert final["metrics"]["durationMs"] == pytest.approx(done["metrics"]["durationMs"] + sum(overhead), abs=0.01)
    assert "TELEMETRY\tName: watcher\tState: Subscribed\tTypes: [Platform, Function, Extension]\n" in printed_lines(server, function.name)


def printed_lines(server: Any, name: str) -> list[str]:
    return [event["message"] for event in server.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]]


def test_an_exception_is_an_error_for_telemetry(api, watched):
    function = watched("failing", types="platform")
    _, answer = call(api, function.name, {"do": "fail"})
    request = answer["ResponseMetadata"]["RequestId"]
    assert "Status:" not in answer["log"]
    events = function.until("platform.report", request)
    mine = of_request(events, request)
    assert (mine["platform.runtimeDone"]["status"], mine["platform.runtimeDone"]["errorType"]) == ("error", "Runtime.Unknown")
    assert (mine["platform.report"]["status"], mine["platform.report"]["errorType"]) == ("error", "Runtime.Unknown")
    assert {each["type"].partition(".")[0] for each in events} == {"platform"}


def test_json_lines_are_objects_whatever_the_log_keeps(server, api, watched):
    levels = {"LogFormat": "JSON", "SystemLogLevel": "WARN", "ApplicationLogLevel": "FATAL"}
    function = watched("objects", types="platform function", LoggingConfig=levels)
    _, answer = call(api, function.name, {})
    request = answer["ResponseMetadata"]["RequestId"]
    events = function.until("platform.report", request)
    assert [each["record"] for each in events if each["type"] == "function"][:2] == ["loading\n", {"level": "INFO", "hello": "world"}]
    assert "platform.start" in of_request(events, request)
    lines = printed_lines(server, function.name)
    assert not [line for line in lines if line.startswith("{") or line == "loading\n"]


def test_the_logs_api(server, api, watched):
    function = watched("legacy", api_of="logs", protocol="TCP", types="platform function")
    _, answer = call(api, function.name, {})
    request = answer["ResponseMetadata"]["RequestId"]
    events = function.until("platform.report", request)
    report = [each["type"] for each in events].index("platform.report")
    assert [each["type"] for each in events[: report + 1] if each["type"] != "function"] == [
        "platform.logsSubscription",
        "platform.extension",
        "platform.start",
        "platform.runtimeDone",
        "platform.end",
        "platform.report",
    ]
    printed = [each["record"] for each in events[: report + 1] if each["type"] == "function"]
    assert printed == ["loading\n", '{"level": "INFO", "hello": "world"}\n']
    assert set(of_request(events, request)["platform.report"]) == {"requestId", "metrics", "tracing"}
    assert "LOGS\tName: watcher\tState: Subscribed\tTypes: [Platform, Function]\n" in printed_lines(server, function.name)


INTERNAL = r"""
import http.client, json, os, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
print("before the API is asked for anything")
heard = []

class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        heard.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass

server = HTTPServer(("0.0.0.0", 8081), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])

def ask(method, path, body, headers):
    api.request(method, path, json.dumps(body), headers)
    answer = api.getresponse()
    answer.read()
    return answer

registered = ask("POST", "/2020-01-01/extension/register", {"events": []}, {"Lambda-Extension-Name": "inner"})
me = registered.headers["Lambda-Extension-Identifier"]
wish = {"schemaVersion": "2022-12-13", "types": ["platform", "function"], "buffering": {"timeoutMs": 25},
        "destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain:8081"}}
assert ask("PUT", "/2022-07-01/telemetry", wish, {"Lambda-Extension-Identifier": me}).status == 200
def wait():
    other = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    other.request("GET", "/2020-01-01/extension/event/next", headers={"Lambda-Extension-Identifier": me})
    other.getresponse()
threading.Thread(target=wait, daemon=True).start()

def handler(event, context):
    return "".join(json.dumps(each) + "\n" for each in heard)
"""


def test_one_inside_the_runtime_process_hears_of_what_was_before_it(api, make):  # noqa: F811
    function = Watched(api, make("inside", {"app.py": INTERNAL}))
    _, answer = call(api, function.name, {"do": "read"})
    events = function.until("platform.report", answer["ResponseMetadata"]["RequestId"])
    assert [each["type"] for each in events][:8] == [
        "platform.initStart",
        "function",
        "platform.telemetrySubscription",
        "platform.initRuntimeDone",
        "platform.extension",
        "platform.initReport",
        "platform.start",
        "platform.runtimeDone",
    ]
    assert events[1]["record"] == "before the API is asked for anything\n"


def test_what_extensions_print_stands_in_the_log_and_its_tail(api, watched):
    function = watched("printing", types="platform")
    call(api, function.name, {})
    _, answer = call(api, function.name, {})
    lines = answer["log"].splitlines()
    assert lines[0].startswith("START RequestId: ")
    assert lines[-1].startswith("REPORT RequestId: ")
    assert sorted(lines[1:-2]) == ["told", '{"level": "INFO", "hello": "world"}']


def test_one_that_falls_behind_is_told_how_much_it_has_missed(api, watched):
    """A batch that it sits on and one that waits are kept for it, whatever it does; nothing of it slows the function down."""
    function = watched("behind", types="function")
    lines = 5_000
    call(api, function.name, {"do": "flood", "lines": lines})
    call(api, function.name, {"do": "release"})
    events = function.until("platform.logsDropped")
    wait_until(lambda: not _missing(function, lines))
    (dropped, *_) = (each["record"] for each in events if each["type"] == "platform.logsDropped")
    assert set(dropped) == {"reason", "droppedRecords", "droppedBytes"}
    assert 0 < dropped["droppedRecords"] < lines
    assert dropped["droppedBytes"] > 10 * dropped["droppedRecords"]


def _missing(function: Watched, lines: int) -> int:
    """How many lines of the flood were neither delivered nor told of as dropped."""
    events = function.events()
    arrived = sum(1 for each in events if each["type"] == "function" and each["record"].startswith("flood"))
    return lines - arrived - sum(each["record"]["droppedRecords"] for each in events if each["type"] == "platform.logsDropped")
