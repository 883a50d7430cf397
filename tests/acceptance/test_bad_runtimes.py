"""Runtimes, extensions and layers that misbehave: AWS's error type and text for each, and the next invocation works.

What a `bootstrap` that cannot be executed is told stands in ``test_provided.py``, an extension that crashes at work or never registers in
``test_extensions.py``; the status of every single misuse of the three APIs in ``tests/conformance/test_runtime_api_http.py``. Here it is
what callers get to see.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from acceptance_helpers import ROLE, RUNTIME, call, settle

from lambent.testing.local_server import LocalServer

# What a runtime does with an event is the text of its member "do": one word a step, separated by blanks.
RUNTIME_SOURCE = r"""#!/usr/bin/python3 -IS
import http.client, json, os, socket, sys, time

address = os.environ["AWS_LAMBDA_RUNTIME_API"]
host, port = address.split(":")
api = http.client.HTTPConnection(address)

def ask(method, path, body=None, headers={}):
    api.request(method, "/2018-06-01/runtime/" + path, body, headers)
    answer = api.getresponse()
    return answer, answer.read()

def tell(what, answer, body):
    print(what, answer.status, (body or b"").decode(), flush=True)

def raw(data):
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        print("raw", connection.makefile("rb").readline().decode().strip(), flush=True)

if os.environ.get("BEHAVIOUR") == "never asks":
    time.sleep(600)
if os.environ.get("BEHAVIOUR") == "answers before it asks":
    tell("early", *ask("POST", "invocation/none/response", "{}"))
if os.environ.get("BEHAVIOUR") == "init error":
    error = '{"errorType":"Mine","errorMessage":"no luck"}'
    tell("failed", *ask("POST", "init/error", error, {"Lambda-Runtime-Function-Error-Type": "Runtime.Mine"}))
    sys.exit(1)
while True:
    answer, event = ask("GET", "invocation/next")
    me = "invocation/" + answer.headers["Lambda-Runtime-Aws-Request-Id"]
    for step in (json.loads(event) or {}).get("do", "answer").split():
        if step == "answer":
            ask("POST", me + "/response", event)
        if step == "wrong-id":
            tell(step, *ask("POST", "invocation/00000000-0000-0000-0000-000000000000/response", '"wrong"'))
        if step == "wrong-echo":
            tell(step, *ask("POST", me + "/response", '"wrong"', {"Lambda-Runtime-Invocation-Id": "12345"}))
        if step == "wrong-mode":
            tell(step, *ask("POST", me + "/response", '"wrong"', {"Lambda-Runtime-Function-Response-Mode": "sideways"}))
        if step == "again":
            tell(step, *ask("POST", me + "/response", '"again"'))
        if step == "next":
            tell(step, *ask("GET", "invocation/next"))
        if step == "init-error":
            tell(step, *ask("POST", "init/error", "{}"))
        if step == "nowhere":
            tell(step, *ask("GET", "no/such/thing"))
        if step == "large":
            tell(step, *ask("POST", me + "/response", b'"' + b"x" * 6291600 + b'"'))
        if step == "half":
            raw(("POST /2018-06-01/runtime/%s/response HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf" % me).encode())
        if step == "garbage":
            raw(b"\x16\x03\x01\x02\x00\x01\x00 this is no HTTP\r\n\r\n")
        if step == "endless-head":
            raw(b"GET / HTTP/1.1\r\nX: " + b"x" * 3000000)
        if step == "error":
            ask("POST", me + "/error", "\xff this is no JSON".encode("latin-1"), {"Lambda-Runtime-Function-Error-Type": "all wrong"})
        if step == "exit":
            os._exit(7)
        if step == "hang":
            time.sleep(600)
"""

EXTENSION = """#!/usr/bin/python3 -IS
import http.client, json, os, sys, time

name, behaviour = os.path.basename(__file__), os.environ.get("BEHAVIOUR", "")
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])

def ask(method, path, body=None, **headers):
    api.request(method, "/2020-01-01/extension" + path, body, {key.replace("_", "-"): value for key, value in headers.items()})
    answer = api.getresponse()
    return answer, json.loads(answer.read() or b"null")

def show(what, answer, told):
    print(what, answer.status, told.get("errorType"), flush=True)

if behaviour == "nonsense":
    show("next", *ask("GET", "/event/next"))
    show("next", *ask("GET", "/event/next", Lambda_Extension_Identifier="00000000-0000-0000-0000-000000000000"))
    show("name", *ask("POST", "/register", json.dumps({"events": ["INVOKE"]})))
    show("body", *ask("POST", "/register", "[", Lambda_Extension_Name=name))
    show("event", *ask("POST", "/register", json.dumps({"events": ["LUNCH"]}), Lambda_Extension_Name=name))
answer, told = ask("POST", "/register", json.dumps({"events": ["INVOKE", "SHUTDOWN"]}), Lambda_Extension_Name=name)
me = answer.headers["Lambda-Extension-Identifier"]
if behaviour == "nonsense":
    show("twice", *ask("POST", "/register", json.dumps({"events": ["INVOKE"]}), Lambda_Extension_Name=name))
while True:
    _, event = ask("GET", "/event/next", Lambda_Extension_Identifier=me)
    if event["eventType"] == "SHUTDOWN":
        sys.exit(0)
    if behaviour == "late":
        show("late", *ask("POST", "/register", json.dumps({"events": ["INVOKE"]}), Lambda_Extension_Name="other"))
    found = ""
    while behaviour == "follow" and not found:
        found = next((word for word in ("go", "leave", "fail") if os.path.exists("/tmp/" + word)), "")
        time.sleep(0.002)
    if found:
        os.remove("/tmp/" + found)
    if found == "leave":
        sys.exit(0)
    if found == "fail":
        ask("POST", "/exit/error", "{}", Lambda_Extension_Identifier=me, Lambda_Extension_Function_Error_Type="Extension.Tired")
        time.sleep(60)
"""

FUNCTION = """
import time

def handler(event, context):
    name = event.get("touch", "")
    if name:
        open("/tmp/" + name, "w").close()
    if name not in ("", "go"):
        time.sleep(9)
    return "done"
"""

Make = Callable[..., str]
Fails = Callable[..., dict[str, str]]


def executables(files: dict[str, str]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3
            entry.external_attr = 0o100755 << 16
            archive.writestr(entry, content)
    return memory.getvalue()


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server with little patience for init."""
    config = tmp_path_factory.mktemp("hasty") / "lambent.toml"
    config.write_text("[sandbox]\ninit_timeout = 1.0\n")
    with LocalServer(config=config) as running:
        yield running


def maker(api: Any) -> Iterator[Make]:
    made: list[str] = []

    def create(name: str, files: dict[str, str], layers: tuple[dict[str, str], ...] = (), **options: Any) -> str:
        options["Layers"] = [
            api.publish_layer_version(LayerName=f"{name}-{number}", Content={"ZipFile": executables(layer)})["LayerVersionArn"]
            for number, layer in enumerate(layers)
        ]
        request = {"Runtime": RUNTIME, "Handler": "app.handler", "Timeout": 10, "MemorySize": 1769, **options}
        api.create_function(FunctionName=name, Role=ROLE, Code={"ZipFile": executables(files)}, **request)
        made.append(name)
        settle(api, name)
        return name

    yield create
    for name in made:
        api.delete_function(FunctionName=name)


@pytest.fixture
def make(api: Any) -> Iterator[Make]:
    yield from maker(api)


@pytest.fixture
def make_hasty(hasty: LocalServer) -> Iterator[Make]:
    yield from maker(hasty.client("lambda"))


def fault(api: Any, name: str, event: object = None) -> tuple[str, str]:
    """The type and the text of an invocation that fails, without its request id."""
    payload, answer = call(api, name, event or {})
    assert answer["FunctionError"] == "Unhandled", payload
    request = answer["ResponseMetadata"]["RequestId"]
    assert set(payload) == {"errorType", "errorMessage"}
    assert payload["errorMessage"].startswith(f"RequestId: {request} ")
    return payload["errorType"], payload["errorMessage"].removeprefix(f"RequestId: {request} ")


def printed(server: LocalServer, name: str) -> str:
    pages = server.client("logs").get_paginator("filter_log_events").paginate(logGroupName=f"/aws/lambda/{name}")
    return "".join(event["message"] for page in pages for event in page["events"])


@pytest.fixture(scope="module")
def rude(server: LocalServer) -> Iterator[str]:
    """One function for all the ways of a custom runtime."""
    maker_ = maker(server.client("lambda"))
    create = next(maker_)
    yield create("rude", {"bootstrap": RUNTIME_SOURCE}, Runtime="provided.al2023", Handler="any")
    next(maker_, None)


class TestARuntime:
    @pytest.mark.parametrize(
        ("step", "said"),
        [
            ("wrong-id", 'wrong-id 400 {"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}'),
            ("wrong-echo", 'wrong-echo 400 {"errorMessage":"Invalid request ID","errorType":"InvalidRequestID"}'),
            ("wrong-mode", '"errorType":"InvalidFunctionResponseMode"}'),
            ("init-error", '"errorType":"InvalidStateTransition"}'),
            ("nowhere", "nowhere 404 "),
            ("half", "raw HTTP/1.1 400 Bad Request"),
            ("garbage", "raw HTTP/1.1 400 Bad Request"),
            ("endless-head", "raw HTTP/1.1 431 "),
        ],
    )
    def test_that_recovers_is_forgiven(self, api: Any, rude: str, step: str, said: str) -> None:
        event = {"do": f"{step} answer"}
        payload, answer = call(api, rude, event)
        assert payload == event
        assert "FunctionError" not in answer
        assert said in answer["log"]

    def test_that_answers_twice_is_heard_once(self, server: LocalServer, api: Any, rude: str) -> None:
        event = {"do": "answer again"}
        assert call(api, rude, event)[0] == event
        assert call(api, rude, {})[0] == {}
        assert re.search(r'again 403 .*"errorType":"InvalidStateTransition"', printed(server, rude))

    def test_that_asks_for_more_with_work_in_hand_is_refused(self, api: Any, rude: str) -> None:
        payload, answer = call(api, rude, {"do": "next answer"})
        assert payload == {"do": "next answer"}
        text = "State transition from Running to Ready failed for runtime. Error: State transition is not allowed"
        assert f'next 403 {{"errorMessage":"{text}","errorType":"InvalidStateTransition"}}' in answer["log"]

    @pytest.mark.parametrize("step", ["wrong-id", "garbage", "half", "next"])
    def test_that_gives_up_has_exited(self, api: Any, rude: str, step: str) -> None:
        text = "Error: Runtime exited with error: exit status 7"
        assert fault(api, rude, {"do": f"{step} exit"}) == ("Runtime.ExitError", text)
        assert call(api, rude, {})[0] == {}

    def test_that_answers_too_much(self, api: Any, rude: str) -> None:
        payload, answer = call(api, rude, {"do": "large"})
        assert answer["FunctionError"] == "Unhandled"
        assert list(payload.items()) == [
            ("errorMessage", "Response payload size exceeded maximum allowed payload size (6291556 bytes)."),
            ("errorType", "Function.ResponseSizeTooLarge"),
        ]
        assert "large 413 " in answer["log"]
        assert call(api, rude, {})[0] == {}

    def test_whose_error_is_no_document(self, server: LocalServer, api: Any, rude: str) -> None:
        answer = api.invoke(FunctionName=rude, Payload=b'{"do": "error"}')
        assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
        assert answer["Payload"].read() == b"\xff this is no JSON"  # verbatim, as on AWS
        assert call(api, rude, {})[0] == {}

    def test_that_answers_before_it_asks(self, server: LocalServer, api: Any, make: Make) -> None:
        behaviour = {"Variables": {"BEHAVIOUR": "answers before it asks"}}
        name = make("early", {"bootstrap": RUNTIME_SOURCE}, Runtime="provided.al2023", Handler="any", Environment=behaviour)
        assert call(api, name, {"a": 1})[0] == {"a": 1}
        assert "early 400 " in printed(server, name)

    def test_that_fails_in_init_with_words_of_its_own(self, server: LocalServer, api: Any, make: Make) -> None:
        behaviour = {"Variables": {"BEHAVIOUR": "init error"}}
        name = make("failing", {"bootstrap": RUNTIME_SOURCE}, Runtime="provided.al2023", Handler="any", Environment=behaviour)
        for _ in range(2):
            payload, answer = call(api, name, {})
            assert (answer["FunctionError"], payload) == ("Unhandled", {"errorType": "Mine", "errorMessage": "no luck"})
            assert "\tStatus: error\tError Type: Runtime.Mine\n" in answer["log"]
        assert re.search(
            r"INIT_REPORT Init Duration: \d+\.\d\d ms\tPhase: init\tStatus: error\tError Type: Runtime.Mine\n", printed(server, name)
        )

    def test_that_never_asks(self, hasty: LocalServer, make_hasty: Make) -> None:
        api = hasty.client("lambda")
        environment = {"Variables": {"BEHAVIOUR": "never asks"}}
        files = {"bootstrap": RUNTIME_SOURCE}
        name = make_hasty("mute", files, Runtime="provided.al2023", Handler="any", Timeout=1, Environment=environment)
        assert fault(api, name) == ("Sandbox.Timedout", "Error: Task timed out after 1.00 seconds")
        log = printed(hasty, name)
        first = re.search(r"INIT_REPORT Init Duration: (\d+\.\d\d) ms\tPhase: init\tStatus: timeout\n", log)
        assert first
        assert float(first[1]) >= 1000
        assert re.search(r"INIT_REPORT Init Duration: \d+\.\d\d ms\tPhase: invoke\tStatus: timeout\n", log)
        api.update_function_configuration(FunctionName=name, Environment={"Variables": {}}, Timeout=10)
        settle(api, name)
        assert call(api, name, {"a": 1})[0] == {"a": 1}


class TestAnExtension:
    def test_that_talks_nonsense_and_then_sense(self, server: LocalServer, api: Any, make: Make) -> None:
        environment = {"Variables": {"BEHAVIOUR": "nonsense"}}
        name = make("nonsense", {"app.py": FUNCTION}, ({"extensions/odd": EXTENSION},), Environment=environment)
        assert call(api, name, {})[0] == "done"
        said = [line for line in printed(server, name).splitlines() if re.match(r"(next|name|body|event|twice) \d+ ", line)]
        assert said == [
            "next 403 Extension.MissingExtensionIdentifier",
            "next 403 Extension.UnknownExtensionIdentifier",
            "name 403 Extension.InvalidExtensionName",
            "body 403 InvalidRequestFormat",
            "event 403 Extension.InvalidEventType",
            "twice 403 Extension.InvalidExtensionState",
        ]

    def test_that_comes_after_init(self, server: LocalServer, api: Any, make: Make) -> None:
        name = make("latecomer", {"app.py": FUNCTION}, ({"extensions/odd": EXTENSION},), Environment={"Variables": {"BEHAVIOUR": "late"}})
        assert call(api, name, {})[0] == "done"
        assert call(api, name, {})[0] == "done"
        for _ in range(300):  # the caller has its answer before the extension is through
            lines = printed(server, name)
            if lines.count("late ") == 2:
                break
        assert lines.count("late 403 Extension.RegistrationClosed\n") == 2

    @pytest.mark.parametrize(
        ("file", "kind", "text"),
        [("leave", "Extension.Crash", "Error: exit code 0"), ("fail", "Extension.ExitError", "Error: Extension.Tired")],
    )
    def test_that_ends_at_work(self, api: Any, make: Make, file: str, kind: str, text: str) -> None:
        layers = ({"extensions/odd": EXTENSION},)
        name = make("ending", {"app.py": FUNCTION}, layers, Environment={"Variables": {"BEHAVIOUR": "follow"}})
        assert call(api, name, {"touch": "go"})[0] == "done"
        payload, answer = call(api, name, {"touch": file})
        request = answer["ResponseMetadata"]["RequestId"]
        assert payload == {"errorType": kind, "errorMessage": f"RequestId: {request} {text}"}
        assert f"\tStatus: error\tError Type: {kind}\n" in answer["log"]
        assert call(api, name, {"touch": "go"})[0] == "done"

    def test_too_many(self, server: LocalServer, api: Any, make: Make) -> None:
        name = make("crowd", {"app.py": FUNCTION}, ({f"extensions/e{number:02}": EXTENSION for number in range(11)},))
        assert fault(api, name) == ("Extension.LaunchError", "Error: ErrTooManyExtensions")
        assert "EXTENSION\tName: e10\tState: LaunchError\tEvents: []\tError Type: TooManyExtensions\n" in printed(server, name)
        ten = api.publish_layer_version(
            LayerName="ten", Content={"ZipFile": executables({f"extensions/e{number}": EXTENSION for number in range(10)})}
        )
        api.update_function_configuration(FunctionName=name, Layers=[ten["LayerVersionArn"]])
        settle(api, name)
        assert call(api, name, {})[0] == "done"
        assert printed(server, name).count("State: Ready\tEvents: [INVOKE, SHUTDOWN]\n") == 10

    def test_that_cannot_be_executed_beside_one_that_can(self, server: LocalServer, api: Any, make: Make) -> None:
        layers = ({"extensions/good": EXTENSION, "extensions/none": "#!/no/such/interpreter\n"},)
        name = make("halfway", {"app.py": FUNCTION}, layers)
        text = "Error: fork/exec /opt/extensions/none: no such file or directory"
        assert fault(api, name) == ("Extension.LaunchError", text)
        assert "EXTENSION\tName: none\tState: LaunchError\tEvents: []\tError Type: UnknownError\n" in printed(server, name)
        api.update_function_configuration(FunctionName=name, Layers=[])
        settle(api, name)
        assert call(api, name, {})[0] == "done"


class TestALayer:
    """Layers that clash: the later one wins name by name, and what it spoils is the function's error, not the platform's."""

    def test_a_file_where_another_has_a_folder(self, api: Any, make: Make) -> None:
        source = "import os\ndef handler(event, context):\n    return [sorted(os.listdir('/opt')), os.path.isfile('/opt/python')]\n"
        name = make("clash", {"app.py": source}, ({"python/helper.py": "WORD = 1\n", "a": "1"}, {"python": "no folder", "b": "2"}))
        assert call(api, name, {})[0] == [["a", "b", "python"], True]

    def test_one_that_takes_the_place_of_a_module(self, api: Any, make: Make) -> None:
        source = "import helper\ndef handler(event, context):\n    return helper.WORD\n"
        good, bad = {"python/helper.py": "WORD = 'first'\n"}, {"python/helper.py": "WORD = (\n"}
        name = make("spoilt", {"app.py": source}, (good, bad))
        for _ in range(2):
            payload, answer = call(api, name, {})
            assert answer["FunctionError"] == "Unhandled"
            assert payload["errorType"] == "Runtime.UserCodeSyntaxError"
            assert payload["errorMessage"].startswith("Syntax error in module 'app': '(' was never closed (helper.py, line 1)")
        arn = api.get_function_configuration(FunctionName=name)["Layers"][0]["Arn"]
        api.update_function_configuration(FunctionName=name, Layers=[arn])
        settle(api, name)
        assert call(api, name, {})[0] == "first"

    def test_one_that_takes_the_place_of_the_runtimes_own_modules(self, api: Any, make: Make) -> None:
        source = "import json\ndef handler(event, context):\n    return json.dumps(event)\n"
        name = make(
            "shadow", {"app.py": source}, ({"python/json.py": "raise RuntimeError('shadowed')\n", "python/awslambdaric.py": "1/0\n"},)
        )
        assert json.loads(call(api, name, {"a": 1})[0]) == {"a": 1}

    def test_two_runtimes_and_the_later_is_no_program(self, api: Any, make: Make) -> None:
        layers = ({"bootstrap": RUNTIME_SOURCE}, {"bootstrap": "#!/no/such/interpreter\n"})
        name = make("runtimes", {"data": ""}, layers, Runtime="provided.al2023", Handler="any")
        text = "Error: fork/exec /opt/bootstrap: no such file or directory"
        assert fault(api, name) == ("Runtime.InvalidEntrypoint", text)
        first, second = (layer["Arn"] for layer in api.get_function_configuration(FunctionName=name)["Layers"])
        api.update_function_configuration(FunctionName=name, Layers=[second, first])
        settle(api, name)
        assert call(api, name, {"a": 1})[0] == {"a": 1}


def test_garbage_from_inside_a_function_ends_nothing(api: Any, deploy: Any) -> None:
    source = """
import os, socket

def handler(event, context):
    host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
    said = []
    negative = b"POST /2020-01-01/extension/register HTTP/1.1\\r\\nContent-Length: -1\\r\\n\\r\\n"
    for data in (b"\\x00\\xff\\r\\n\\r\\n", b"GET / HTTP/9.9\\r\\n\\r\\n", negative):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            said.append(connection.makefile("rb").readline().split()[1].decode())
    return said
"""
    deploy("scribbler", source)
    for _ in range(2):
        assert call(api, "scribbler", {})[0] == ["400", "505", "400"]
