"""Extensions and streaming custom runtimes, written against AWS's public documentation, in real sandboxes."""

from __future__ import annotations

import io
import json
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from acceptance_helpers import ROLE, RUNTIME, call, settle

from lambent.testing.local_server import LocalServer

EXTENSION = """#!/usr/bin/python3 -IS
import http.client, json, os, sys, time

name, behaviour = os.path.basename(__file__), os.environ.get("BEHAVIOUR", "")
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])

def ask(method, path, body=None, **headers):
    api.request(method, "/2020-01-01/extension" + path, body, {key.replace("_", "-"): value for key, value in headers.items()})
    answer = api.getresponse()
    return answer, json.loads(answer.read() or b"null")

if behaviour == "leave at once":
    sys.exit(4)
if behaviour == "never register":
    time.sleep(60)
answer, told = ask("POST", "/register", json.dumps({"events": ["INVOKE", "SHUTDOWN"]}), Lambda_Extension_Name=name)
me = answer.headers["Lambda-Extension-Identifier"]
print("registered", json.dumps(told), flush=True)
if behaviour == "init error":
    ask("POST", "/init/error", "{}", Lambda_Extension_Identifier=me, Lambda_Extension_Function_Error_Type="Extension.NoConfig")
    time.sleep(60)
while True:
    _, event = ask("GET", "/event/next", Lambda_Extension_Identifier=me)
    print("heard", json.dumps(event), flush=True)
    if event["eventType"] == "SHUTDOWN":
        print("goodbye", flush=True)
        sys.exit(0)
    if behaviour == "crash in the second":
        behaviour = "crash in this one"
    elif behaviour == "crash in this one":
        while not os.path.exists("/tmp/crash"):  # the function is at work by then
            time.sleep(0.005)
        sys.exit(3)
    if behaviour == "slow in the second":
        behaviour = "slow in this one"
    elif behaviour == "slow in this one":
        time.sleep(60)
"""

FUNCTION = """
import os, signal, sys, threading, http.client, json, time

def handler(event, context):
    for name in event.get("touch", []):
        open("/tmp/" + name, "w").close()
    if event.get("sleep"):
        time.sleep(event["sleep"])
    return "done"

def polite(event, context):
    signal.signal(signal.SIGTERM, lambda *_: (print("terminated", flush=True), sys.exit(0)))
    return "done"
"""

INTERNAL = (
    FUNCTION
    + """
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
api.request("POST", "/2020-01-01/extension/register", json.dumps({"events": ["INVOKE"]}), {"Lambda-Extension-Name": "inner"})
answer = api.getresponse()
answer.read()
me = answer.headers["Lambda-Extension-Identifier"]

def listen():
    while True:
        api.request("GET", "/2020-01-01/extension/event/next", headers={"Lambda-Extension-Identifier": me})
        print("inner heard", json.loads(api.getresponse().read())["eventType"], flush=True)

threading.Thread(target=listen, daemon=True).start()
"""
)

STREAMER = """#!/usr/bin/python3 -IS
import base64, http.client, json, os

api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    answer = api.getresponse()
    event = json.loads(answer.read())
    api.putrequest("POST", "/2018-06-01/runtime/invocation/" + answer.headers["Lambda-Runtime-Aws-Request-Id"] + "/response")
    api.putheader("Lambda-Runtime-Function-Response-Mode", "streaming")
    api.putheader("Transfer-Encoding", "chunked")
    api.putheader("Trailer", "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body")
    api.endheaders()
    for piece in event["pieces"]:
        data = piece["text"].encode() * piece.get("times", 1)
        api.send(b"%x\\r\\n%b\\r\\n" % (len(data), data))
    api.send(b"0\\r\\n")
    if event.get("fail"):
        body = base64.b64encode(json.dumps({"errorType": event["fail"], "errorMessage": "no"}).encode())
        trailer = b"Lambda-Runtime-Function-Error-Type: %b\\r\\nLambda-Runtime-Function-Error-Body: %b\\r\\n"
        api.send(trailer % (event["fail"].encode(), body))
    api.send(b"\\r\\n")
    api.getresponse().read()
"""

Make = Callable[..., str]


def executables(files: dict[str, str]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3
            entry.external_attr = 0o100755 << 16
            archive.writestr(entry, content)
    return memory.getvalue()


@pytest.fixture
def make(api: Any) -> Iterator[Make]:
    """Create a function with extensions in a layer, and delete it in the end."""
    made: list[str] = []

    def create(name: str, files: dict[str, str] | None = None, extensions: dict[str, str] | None = None, **options: Any) -> str:
        if extensions:
            layer = {f"extensions/{each}": source for each, source in extensions.items()}
            options["Layers"] = [api.publish_layer_version(LayerName=name, Content={"ZipFile": executables(layer)})["LayerVersionArn"]]
        request = {"Runtime": RUNTIME, "Handler": "app.handler", "Timeout": 10, "MemorySize": 1769, **options}
        api.create_function(FunctionName=name, Role=ROLE, Code={"ZipFile": executables(files or {"app.py": FUNCTION})}, **request)
        made.append(name)
        settle(api, name)
        return name

    yield create
    for name in made:
        api.delete_function(FunctionName=name)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def printed(server: LocalServer, name: str) -> str:
    events = server.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
    return "".join(event["message"] for event in events)


def state_of(server: LocalServer, name: str) -> list[str]:
    return [each["state"] for each in server.page("environments")["environments"] if each["function"].endswith(f":{name}")]


class TestLife:
    def test_registration_invocations_and_the_last_words(self, server, api, make):
        name = make("external", extensions={"watcher": EXTENSION})
        for _ in range(2):
            assert call(api, name, {})[0] == "done"
        log = printed(server, name)
        assert '"functionName": "external"' in log
        assert "EXTENSION\tName: watcher\tState: Ready\tEvents: [INVOKE, SHUTDOWN]\n" in log
        assert log.count('heard {"eventType": "INVOKE"') == 2
        assert log.index("EXTENSION") < log.index("START RequestId") < log.index("heard")
        api.update_function_configuration(FunctionName=name, Environment={"Variables": {"NEW": "1"}})
        wait_until(lambda: "goodbye" in printed(server, name))
        assert '"shutdownReason": "spindown"' in printed(server, name)

    def test_the_caller_does_not_wait_for_a_slow_one_but_the_report_does(self, server, api, make):
        slow = {"Variables": {"BEHAVIOUR": "slow in the second"}}
        name = make("slow", {"app.py": FUNCTION}, {"watcher": EXTENSION}, Timeout=3, Environment=slow)
        assert call(api, name, {})[0] == "done"
        wait_until(lambda: state_of(server, name) == ["idle"])
        answer = api.invoke(FunctionName=name, Payload=b"{}")
        assert json.loads(answer["Payload"].read()) == "done"
        assert "lingering" in state_of(server, name)
        wait_until(lambda: "Status: timeout" in printed(server, name))
        assert '"shutdownReason": "timeout"' in printed(server, name) or "lingering" not in state_of(server, name)
        assert call(api, name, {})[0] == "done"

    def test_one_inside_the_runtime_process(self, server, api, make):
        name = make("internal", {"app.py": INTERNAL})
        assert call(api, name, {})[0] == "done"
        assert call(api, name, {})[0] == "done"
        log = printed(server, name)
        assert "EXTENSION\tName: inner\tState: Ready\tEvents: [INVOKE]\n" in log
        assert log.count("inner heard INVOKE") == 2

    def test_the_runtime_hears_of_the_end_where_there_is_an_extension(self, server, api, make):
        name = make("polite", extensions={"watcher": EXTENSION}, Handler="app.polite")
        assert call(api, name, {})[0] == "done"
        api.update_function_configuration(FunctionName=name, Environment={"Variables": {"NEW": "1"}})
        wait_until(lambda: "goodbye" in printed(server, name))
        assert "terminated" in printed(server, name)


class TestFaults:
    def fails(self, api: Any, name: str, event: object = None) -> dict[str, str]:
        payload, answer = call(api, name, event or {})
        assert answer["FunctionError"] == "Unhandled"
        payload["errorMessage"] = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", payload["errorMessage"])
        return payload

    def test_one_that_crashes_at_work(self, server, api, make):
        name = make("crashes", extensions={"watcher": EXTENSION}, Environment={"Variables": {"BEHAVIOUR": "crash in the second"}})
        assert call(api, name, {})[0] == "done"
        payload = self.fails(api, name, {"touch": ["crash"], "sleep": 9})
        assert payload == {"errorType": "Extension.Crash", "errorMessage": "RequestId: ID Error: exit status 3"}
        assert call(api, name, {})[0] == "done"

    @pytest.mark.parametrize(
        ("behaviour", "error_type", "words"),
        [("leave at once", "Extension.Crash", "exit status 4"), ("init error", "Extension.InitError", "Extension.NoConfig")],
    )
    def test_one_that_fails_in_init(self, server, api, make, behaviour, error_type, words):
        name = make("early", extensions={"watcher": EXTENSION}, Environment={"Variables": {"BEHAVIOUR": behaviour}})
        assert self.fails(api, name) == {"errorType": error_type, "errorMessage": f"RequestId: ID Error: {words}"}
        assert f"Error Type: {error_type}" in printed(server, name)

    def test_one_that_is_no_program(self, api, make):
        name = make("broken", extensions={"watcher": "#!/no/such/interpreter\n"})
        payload = self.fails(api, name)
        assert payload["errorType"] == "Extension.LaunchError"
        assert payload["errorMessage"] == "RequestId: ID Error: fork/exec /opt/extensions/watcher: no such file or directory"


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    config = tmp_path_factory.mktemp("hasty") / "lambent.toml"
    config.write_text("[sandbox]\ninit_timeout = 0.5\n")
    with LocalServer(config=config) as running:
        yield running


def test_one_that_never_registers(hasty):
    api = hasty.client("lambda")
    layer = api.publish_layer_version(LayerName="mute", Content={"ZipFile": executables({"extensions/mute": EXTENSION})})
    api.create_function(
        FunctionName="mute",
        Runtime=RUNTIME,
        Role=ROLE,
        Handler="app.handler",
        Code={"ZipFile": executables({"app.py": FUNCTION})},
        Layers=[layer["LayerVersionArn"]],
        Environment={"Variables": {"BEHAVIOUR": "never register"}},
        Timeout=1,
    )
    settle(api, "mute")
    payload, _ = call(api, "mute", {})
    assert payload["errorType"] == "Sandbox.Timedout"
    assert "Phase: init\tStatus: timeout" in printed(hasty, "mute")
    api.update_function_configuration(FunctionName="mute", Environment={"Variables": {}})
    settle(api, "mute")
    assert call(api, "mute", {})[0] == "done"


class TestStreamingCustomRuntime:
    def stream(self, api: Any, name: str, event: object) -> tuple[bytes, dict[str, Any]]:
        *pieces, end = api.invoke_with_response_stream(FunctionName=name, Payload=json.dumps(event))["EventStream"]
        return b"".join(each["PayloadChunk"]["Payload"] for each in pieces), end["InvokeComplete"]

    def test_pieces_errors_and_the_whole_for_a_buffered_caller(self, api, make):
        name = make("streamer", {"bootstrap": STREAMER}, Runtime="provided.al2023")
        event = {"pieces": [{"text": "one "}, {"text": "two"}]}
        assert self.stream(api, name, event) == (b"one two", {})
        assert api.invoke(FunctionName=name, Payload=json.dumps(event))["Payload"].read() == b"one two"
        body, end = self.stream(api, name, {**event, "fail": "Runtime.Odd"})
        assert (body, end["ErrorCode"]) == (b"one two", "Runtime.Odd")
        assert json.loads(end["ErrorDetails"]) == {"errorType": "Runtime.Odd", "errorMessage": "no"}
        megabytes = {"pieces": [{"text": "x", "times": 1_000_000}] * 5}
        assert self.stream(api, name, megabytes) == (b"x" * 5_000_000, {})
