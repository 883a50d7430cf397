"""The Java runtime client on every virtual machine that this computer has, against a peer that speaks frames.

The peer plays the node; no sandbox is involved. "cold" starts the client with the function's environment, "warm" starts it ahead and tells
it over descriptor 4, as the drivers do.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import time
import zipfile

import java_functions
import pytest

from lambent.runtime_api.frames import Frame, FrameReader, FrameType, encode_invoke
from lambent.runtimes import java_client
from lambent.runtimes.java_machines import machines

HANG_S = 60.0
CHOSEN, FOUND = machines((), os.environ)
MACHINES = list({machine.major: machine for machine in (*CHOSEN, *FOUND)}.values())
COMPILERS = sorted((machine for machine in (*CHOSEN, *FOUND) if machine.compiler), key=lambda machine: machine.major)
FATAL = ["-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:TieredStopAtLevel=1", "-Xmx64m"]

pytestmark = pytest.mark.skipif(not COMPILERS, reason="this machine has no JDK")


def compiled(folder, sources, classpath, release=8):
    for name, text in sources.items():
        path = folder / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "classes").mkdir(exist_ok=True)
    command = [COMPILERS[-1].compiler, "--release", str(release), "-nowarn", "-Xlint:-options", "-cp", classpath, "-d", folder / "classes"]
    subprocess.run([*command, *(folder / "source" / name for name in sources)], check=True)
    return folder / "classes"


def jarred(target, classes, **more):
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as jar:
        for path in classes.rglob("*.class"):
            jar.write(path, path.relative_to(classes))
        for name, content in more.items():
            jar.writestr(name, content)
    return target


@pytest.fixture(scope="session")
def client():
    made = java_client.jar(MACHINES)
    assert not isinstance(made, str), made
    return made


@pytest.fixture(scope="session")
def functions(client, tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("java"), java_functions.SOURCES, str(client))


class Runtime:
    """A started client and the node's side of its channel."""

    def __init__(self, client, machine, mode, handler, task, extra, telemetry=None):
        environment = {
            "LAMBDA_TASK_ROOT": str(task),
            "PATH": "/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "TZ": ":UTC",
            "AWS_LAMBDA_FUNCTION_NAME": "greeter",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/greeter",
            "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
            "_HANDLER": handler,
            **extra,
        }
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(HANG_S)
        self._reader, self._frames = FrameReader(8_000_000), list[Frame]()
        self._token = 0
        told, telling = os.pipe()
        # descriptors 3 and 4 as the drivers give them; the shell only moves them into place
        places = {3: theirs.fileno()} | ({4: told} if mode == "warm" else {}) | ({5: telemetry} if telemetry is not None else {})
        moved = {place: os.dup2(fd, 50 + place) for place, fd in places.items()}
        script = "exec " + " ".join(f"{place}<&{fd} {fd}<&-" for place, fd in moved.items()) + '; exec "$@"'
        program = [machine.executable, *FATAL, "-jar", str(client), *(["--warm"] if mode == "warm" else [])]
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", *program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": ":UTC", "OLD": "gone"} if mode == "warm" else environment,
            cwd=task,
            pass_fds=list(moved.values()),
        )
        for fd in (*moved.values(), told):
            os.close(fd)
        theirs.close()
        if mode == "warm":
            os.write(telling, json.dumps({"env": environment, "handler": handler}).encode())
        os.close(telling)

    def frame(self):
        """The next frame; ``EOFError`` if the process has ended instead."""
        while not self._frames:
            try:
                data = self.channel.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError
            self._frames = self._reader.feed(data)
        return self._frames.pop(0)

    def ready(self):
        frame = self.frame()
        assert frame.type == FrameType.NEXT, frame

    def answer(self, event, **fields):
        """Send an event; the frame that answers it, with the NEXT behind it still to come."""
        self._token += 1
        self.request = f"00000000-0000-4000-8000-{self._token:012d}"
        self.deadline = int(time.time() * 1000) + 60_000
        arn = "arn:aws:lambda:eu-west-1:123456789012:function:greeter:live"
        self.channel.sendall(encode_invoke(self._token, self.request, self.deadline, arn, fields.pop("trace", ""), event, **fields))
        answer = self.frame()
        assert answer.head.split("\n")[:2] == [str(self._token), self.request]
        return answer

    def invoke(self, event, **fields):
        answer = self.answer(event, **fields)
        self.ready()
        return answer

    def raw(self, event):
        answer = self.invoke(event)
        assert answer.type == FrameType.RESPONSE, answer
        assert answer.head.split("\n")[2] == "application/json"
        return answer.body

    def value(self, event):
        return json.loads(self.raw(json.dumps(event).encode()))

    def call(self, do, **event):
        return self.value({"do": do, **event})

    def error(self, event):
        """Error type and payload."""
        answer = self.invoke(json.dumps(event).encode())
        assert answer.type == FrameType.ERROR, answer
        return answer.head.split("\n")[2], json.loads(answer.body)

    def end(self):
        """Wait for the process: its exit status, and what it printed."""
        self.channel.close()
        output, _ = self.process.communicate(timeout=HANG_S)
        return self.process.returncode, output.decode()

    def close(self):
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=HANG_S)


@pytest.fixture(params=MACHINES, ids=lambda machine: f"java{machine.major}")
def machine(request):
    return request.param


@pytest.fixture
def start(machine, client, functions):
    started = []

    def begin(handler="demo.Maps", task=functions, mode="cold", telemetry=None, **extra):
        started.append(Runtime(client, machine, mode, handler, task, extra, telemetry))
        return started[-1]

    yield begin
    for each in started:
        each.close()


@pytest.fixture
def maps(start):
    runtime = start()
    runtime.ready()
    return runtime


def form(start, handler):
    runtime = start(f"demo.Forms{handler}")
    runtime.ready()
    return runtime


# -- values -----------------------------------------------------------------------------------------------------------------------------


VALUES = [
    None,
    True,
    0,
    -1,
    2**31 - 1,
    2**31,
    -(2**63),
    2**63,
    10**40,
    1.5,
    1e-7,
    1e300,
    "",
    'text "é" \\ / \b\f\n\r\t\x01 \u2028 😀',
    [],
    {},
    [[1], {"a": [None, {"b": "c"}]}],
    {"z": 1, "a": {"é": 2}},
]


def test_values_come_back_as_they_went(maps):
    for value in VALUES:
        assert maps.call("echo", value=value) == value
    assert maps.call("nothing") is None
    assert list(maps.call("echo", value={"z": 1, "a": 2, "m": 3})) == ["z", "a", "m"]
    assert maps.call("types", value=[1, 2**31, 2**63, 1.5, "x", True, None, [], {}]) == (
        ["Integer", "Long", "BigInteger", "Double", "String", "Boolean", "null", "ArrayList", "LinkedHashMap"]
    )


def test_nulls_in_maps_are_left_out_and_what_json_does_not_know_has_a_form(maps):
    assert maps.call("echo", value={"a": None, "b": [None]}) == {"b": [None]}
    assert maps.call("special") == (
        ["NaN", 1.0, 1e300, "c", "b", "NEW", 1, None, "AQID", 5, [1, 2], "00000000-0000-0000-0000-000000000001"]
    )
    answer = maps.error({"do": "cycle"})[1]
    assert answer["errorMessage"] == "An error occurred during JSON serialization of response"
    assert "nesting depth" in answer["cause"]["errorMessage"]
    half = maps.invoke(b'{"do": "echo", "value": "\\ud800"}')
    assert (half.type, json.loads(half.body)["cause"]["cause"]["errorMessage"]) == (FrameType.ERROR, "Incomplete surrogate pair: 0xd800")


def test_lenient_json_is_read(maps):
    text = b"""{do: 'echo', "value": [007, NaN, "tab\there", "\\q"]} trailing"""
    assert json.loads(maps.raw(text)) == [7, "NaN", "tab\there", "q"]
    for bad, words in (
        (b'{"do" "echo"}', "was expecting ':'"),
        (b'{"do": ech}', "Unexpected character"),
        (b'{"do": "echo"', "end-of-input"),
        (b"[" * 2000, "nesting depth"),
        (b'{"do": 1.2.3}', "Unexpected character"),
        (b"  ", "No content"),
    ):
        answer = maps.invoke(bad)
        payload = json.loads(answer.body)
        assert (answer.type, payload["errorMessage"]) == (FrameType.ERROR, "An error occurred during JSON parsing")
        assert (payload["errorType"], payload["stackTrace"]) == ("java.lang.RuntimeException", [])
        assert payload["cause"]["errorType"] == "java.io.UncheckedIOException"
        assert words in payload["cause"]["cause"]["errorMessage"]


def test_large_events_and_answers(maps):
    for size in (8_000, 8_183, 70_000, 6_000_000):
        assert maps.call("echo", value="é" * (size // 2)) == "é" * (size // 2)
    assert len(maps.call("large", size=6_000_000)) == 6_000_000
    assert maps.call("calls") == 6


ORDER = {
    "note": "field",
    "count": 3,
    "big": 2**40,
    "ratio": 0.25,
    "paid": True,
    "sent": False,
    "mark": "m",
    "color": "GREEN",
    "groups": {"a": [1, 2], "b": []},
    "byColor": {"RED": {"name": "r"}},
    "tags": ["x", "y"],
    "array": [{"name": "a"}, {"name": "b"}],
    "data": "AQID",
    "date": 1700000000123,
    "moment": 1700000000.5,
    "day": [2026, 11, 21],
    "time": [2026, 11, 21, 10, 5],
    "span": 1.5,
    "maybe": "yes",
    "id": "00000000-0000-0000-0000-00000000002a",
    "URL": "http://x",
    "huge": 10**30,
    "anything": {"list": [1, 2.5, "x"]},
    "first": {"name": "one", "price": 1.10},
    "items": [{"name": "two", "price": 20}],
}
SENT = {
    **ORDER,
    "date": "2023-11-14T22:13:20.123Z",
    "moment": "2023-11-14T22:13:20.5Z",
    "day": "2026-11-21",
    "time": "2026-11-21T10:05",
    "span": "PT1.5S",
    "unknown": {"ignored": True},
    "secret": "not set",
    "shared": "not set",
}


def test_beans_go_in_and_out(start):
    forms = form(start, "::order")
    answer = forms.value(SENT)
    assert answer == {**ORDER, "computed": "computed"}
    assert list(answer)[:4] == ["first", "items", "note", "count"]  # ancestors first, in the order of the fields
    exact = forms.raw(b'{"first": {"price": 1.10}, "moment": 1.5, "date": "2023-11-14"}')
    assert b'"price":1.10' in exact
    assert b'"moment":1.500000000' in exact
    assert b'"date":1699920000000' in exact
    assert forms.value({}) == {"count": 0, "ratio": 0.0, "paid": False, "mark": "\x00", "computed": "computed"}


def test_what_nearly_fits_is_made_to_fit(start):
    forms = form(start, "::order")
    answer = forms.value(
        {
            "count": "7",
            "big": 1.9,
            "note": 12,
            "ratio": "0.5",
            "paid": "true",
            "sent": 1,
            "color": "BLUE",
            "tags": "one",
            "first": [{"name": ["n"]}],
            "items": {"name": 1.5},
            "array": "",
            "byColor": {},
            "maybe": None,
            "anything": None,
            "groups": "",
        }
    )
    assert answer["count"] == 7
    assert answer["big"] == 1
    assert (answer["note"], answer["ratio"], answer["paid"], answer["sent"]) == ("12", 0.5, True, True)
    assert "color" not in answer
    assert answer["tags"] == ["one"]
    assert answer["first"] == {"name": "n"}
    assert answer["items"] == [{"name": "1.5"}]
    assert "maybe" not in answer or answer["maybe"] is None
    assert "groups" not in answer
    assert answer["byColor"] == {}


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"count": {}}, 'Cannot deserialize value of type `int` from Object value (through reference chain: demo.Order["count"])'),
        ({"count": "x"}, "not a valid `int` value"),
        ({"count": 2**31}, "Numeric value (2147483648) out of range of int"),
        ({"count": True}, "from Boolean value"),
        ({"first": {"price": []}}, 'demo.Order["first"]->demo.Item["price"]'),
        ({"items": [{"name": {}}]}, "demo.Item"),
        ({"first": 5}, "Cannot deserialize value of type `demo.Item` from Integer value"),
        ({"groups": [1, 2]}, "from Array value"),
        ({"moment": "tomorrow"}, "`java.time.Instant`"),
        ({"id": "x"}, "`java.util.UUID`"),
        ({"data": "%"}, "base64"),
        ({"age": -1}, "negative age"),
    ],
    ids=lambda value: "" if isinstance(value, str) else json.dumps(value)[:20],
)
def test_what_does_not_fit_is_told(start, machine, event, words):
    if machine is not MACHINES[0]:
        pytest.skip("does not depend on the machine")
    error_type, payload = form(start, "::order").error(event)
    assert error_type == "Runtime.UserException"
    assert payload["errorMessage"] == "An error occurred during JSON parsing"
    assert words in payload["cause"]["cause"]["errorMessage"]


def test_records(start, machine, client, tmp_path):
    if machine.major < 16 or COMPILERS[-1].major < 16:
        pytest.skip("records came with Java 16")
    task = compiled(tmp_path, java_functions.RECORD, str(client), 16)
    runtime = start("demo.Records::handle", task)
    runtime.ready()
    assert runtime.value({"x": 1, "more": [{"x": 2, "y": 3}], "z": 0}) == {"x": 1, "more": [{"x": 2, "y": 3}]}


def test_aws_event_classes_have_aws_names(start):
    runtime = start("com.amazonaws.services.lambda.runtime.events.SQSEvent::handle")
    runtime.ready()
    event = {"Records": [{"body": "b", "eventSourceARN": "arn:x", "sent": 1.5}]}
    assert runtime.value(event) == event
    runtime = start("com.amazonaws.services.lambda.runtime.events.S3Event::handle")
    runtime.ready()
    event = {"Records": [{"eventName": "ObjectCreated", "awsRegion": "us-east-1"}]}
    assert runtime.value(event) == event


def test_a_serializer_of_the_functions_own(start, client, functions, tmp_path):
    classes = compiled(tmp_path, java_functions.CUSTOM, f"{client}:{functions}")
    service = "META-INF/services/com.amazonaws.services.lambda.runtime.CustomPojoSerializer"
    jarred(tmp_path / "task" / "lib" / "a.jar", functions)
    jarred(tmp_path / "task" / "lib" / "b.jar", classes, **{service: "demo.Shouting\n"})
    runtime = start("demo.Forms::fixed", tmp_path / "task")
    runtime.ready()
    assert runtime.raw(b"hello") == b"JAVA.LANG.STRING HELLO!"


# -- forms of handlers ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "event", "answer"),
    [
        ("::fixed", '"a"', '"a!"'),
        ("::fixed", "5", '"5!"'),
        ("::number", "41", "42"),
        ("::number", "null", "1"),
        ("::boxed", "null", "null"),
        ("::half", "3", "1.5"),
        ("::not", "false", "true"),
        ("::items", '[{"name":"a"},{"name":"b"}]', '[{"name":"b"},{"name":"a"}]'),
        ("::array", '["a","b"]', '["a","b"]'),
        ("::color", '"RED"', '"RED"'),
        ("::nothing", "1", "null"),
        ("::none", "{}", '"none"'),
        ("::contextOnly", "{}", '"greeter"'),
        ("::copy", '{ "as":  "it is" }', '{ "as":  "it is" }'),
        ("::both", "[1 ]", "[1 ]"),
        ("::out", "{}", "raw"),
        ("::in", "{}", ""),
        ("::outContext", "{}", "00000000-0000-4000-8000-000000000001"),
        ("::many", '"a"', '"with context"'),
        ("$Nested", '"a"', '"nested a"'),
        ("$Nested::handleRequest", '"a"', '"nested a"'),
        ("$Concrete", '{"name":"n"}', '["n"]'),
        ("$OfInterface", '"GREEN"', '"GREEN"'),
        ("$Stream", "1  ", "1  "),
        ("::asObject", "{}", None),
    ],
)
def test_forms(start, machine, handler, event, answer):
    if machine is not MACHINES[0]:
        pytest.skip("does not depend on the machine")
    body = form(start, handler).raw(event.encode())
    if answer is None:
        assert json.loads(body)["more"] == "more"
    else:
        assert body.decode() == answer


def test_only_what_the_promised_type_has_is_written(start):
    assert "more" not in form(start, "::asBase").value({})


NO_METHOD = "No public method named {} with appropriate method signature found on class demo.Forms"


@pytest.mark.parametrize(
    ("handler", "payload", "printed"),
    [
        ("no.such.Class", {"errorMessage": "Class not found: no.such.Class", "errorType": "java.lang.ClassNotFoundException"}, ""),
        ("no.Such::method", {"errorMessage": "Class not found: no.Such", "errorType": "java.lang.ClassNotFoundException"}, ""),
        ("demo.Forms::", {"errorMessage": "Invalid handler: `demo.Forms::'"}, ""),
        ("::x", {"errorMessage": "Invalid handler: `::x'"}, ""),
        ("demo.Forms", {"errorMessage": "Class does not implement an appropriate handler interface: demo.Forms"}, ""),
        ("demo.Forms::absent", {"errorMessage": NO_METHOD.format("absent")}, ""),
        ("demo.Forms::hidden", {"errorMessage": NO_METHOD.format("hidden")}, ""),
        ("demo.Forms::unfit", {"errorMessage": NO_METHOD.format("unfit")}, "Ignoring two-argument overload because second"),
        ("demo.Forms::tooMany", {"errorMessage": NO_METHOD.format("tooMany")}, "too many parameters: Expected at most 3, got 4"),
        ("demo.Forms::three", {"errorMessage": NO_METHOD.format("three")}, "Ignoring three-argument overload"),
        (
            "demo.Forms$Inner",
            {
                "errorMessage": "Class demo.Forms$Inner cannot be instantiated because it is a non-static inner class",
                "errorType": "java.lang.Exception",
            },
            "",
        ),
        (
            "demo.Forms$NoConstructor",
            {"errorMessage": "Class demo.Forms$NoConstructor has no public zero-argument constructor", "errorType": "java.lang.Exception"},
            "java.lang.NoSuchMethodException",
        ),
        (
            "demo.Forms$Raw",
            {"errorMessage": "Class demo.Forms$Raw does not implement RequestHandler with concrete type parameters"},
            "",
        ),
        (
            "demo.Forms$Unbound",
            {
                "errorMessage": "Class demo.Forms$Unbound does not implement RequestHandler with concrete type parameters: "
                "parameter T has no upper bound."
            },
            "",
        ),
    ],
)
def test_handlers_that_cannot_be(start, machine, handler, payload, printed):
    if machine is not MACHINES[0]:
        pytest.skip("does not depend on the machine")
    runtime = start(handler)
    runtime.ready()
    for _ in range(2):  # every invocation is told, and the environment lives on
        assert runtime.error({}) == ("Runtime.BadFunctionCode", payload)
    status, output = runtime.end()
    assert status == 0
    assert output.count(payload["errorMessage"]) >= 2
    assert printed in output


@pytest.mark.parametrize(
    ("handler", "payload"),
    [
        (
            "demo.Forms$BadStatic",
            {"errorMessage": "Error loading class demo.Forms$BadStatic", "errorType": "java.lang.ExceptionInInitializerError"},
        ),
        ("demo.Forms$BadConstructor", {"errorMessage": "not today", "errorType": "java.lang.IllegalStateException"}),
        ("demo.Forms$BadConstructor::handleRequest", {"errorMessage": "not today", "errorType": "java.lang.IllegalStateException"}),
    ],
)
def test_classes_that_fail_to_load_are_init_errors(start, handler, payload):
    runtime = start(handler)
    frame = runtime.frame()
    assert (frame.type, frame.head, json.loads(frame.body)) == (FrameType.INIT_ERROR, "Runtime.BadFunctionCode", payload)
    status, output = runtime.end()
    assert status == 1
    assert output.startswith(f"{payload['errorMessage']}: {payload['errorType']}\n")
    assert "at demo.Forms$Bad" in output
    assert "lambent" not in output


# -- errors and ends ---------------------------------------------------------------------------------------------------------------------


def test_exceptions(maps):
    answer = maps.invoke(b'{"do": "fail", "message": "broken"}')
    assert answer.type == FrameType.ERROR
    error_type, cause = answer.head.split("\n", 3)[2:]
    payload = json.loads(answer.body)
    assert error_type == "Runtime.UserException"
    assert list(payload) == ["errorMessage", "errorType", "stackTrace", "cause"]
    assert (payload["errorMessage"], payload["errorType"]) == ("broken", "java.lang.IllegalStateException")
    assert payload["stackTrace"][0].startswith("demo.Maps.handleRequest(Maps.java:")
    assert not any("lambent" in line for line in payload["stackTrace"])
    assert (payload["cause"]["errorMessage"], payload["cause"]["errorType"]) == ("inner", "java.lang.RuntimeException")
    assert payload["cause"]["cause"]["errorType"] == "java.lang.Error"
    document = json.loads(cause)
    assert document["exceptions"][0]["message"] == "broken"
    assert document["exceptions"][0]["stack"][0]["label"] == "handleRequest"
    assert document["paths"] == ["Maps.java"]
    silent = maps.error({"do": "silent"})[1]
    assert silent["errorMessage"] == silent["errorType"] == "java.lang.UnsupportedOperationException"
    assert maps.call("echo", value=1) == 1
    _, output = maps.end()
    assert output.startswith("broken: java.lang.IllegalStateException\njava.lang.IllegalStateException: broken\n\tat demo.Maps.")
    assert "Caused by: java.lang.RuntimeException: inner" in output
    assert "lambent" not in output


def test_an_exception_of_a_method_is_shown_without_the_call(start):
    payload = form(start, "::fails").error("why")[1]
    assert payload["errorType"] == "java.lang.IllegalArgumentException"
    assert payload["stackTrace"][0].startswith("demo.Forms.fails(Forms.java:")
    assert not any("lambent" in line for line in payload["stackTrace"])


@pytest.mark.parametrize(("do", "error"), [("deep", "java.lang.StackOverflowError"), ("hoard", "java.lang.OutOfMemoryError")])
def test_a_virtual_machine_in_trouble_answers_and_ends(maps, do, error):
    answer = maps.answer(json.dumps({"do": do}).encode())
    payload = json.loads(answer.body)
    assert (answer.type, payload["errorType"]) == (FrameType.ERROR, error)
    assert payload["errorMessage"] == ("Java heap space" if do == "hoard" else error)
    with pytest.raises(EOFError):
        maps.frame()
    assert maps.end()[0] == 0


@pytest.mark.parametrize("do", ["exit", "halt"])
def test_functions_that_leave(maps, do):
    with pytest.raises(EOFError):
        maps.answer(json.dumps({"do": do, "code": 7}).encode())
    assert maps.end()[0] == 7


def test_an_interruption_does_not_outlive_its_invocation(maps):
    assert maps.call("interrupt") is True
    assert maps.call("interrupted") is False


# -- context and environment ---------------------------------------------------------------------------------------------------------------


def test_context(maps):
    said = json.loads(maps.raw(b'{"do": "describe"}'))
    assert 50_000 < said.pop("remaining") <= 60_000
    assert said == {
        "request": maps.request,
        "arn": "arn:aws:lambda:eu-west-1:123456789012:function:greeter:live",
        "name": "greeter",
        "version": "$LATEST",
        "memory": 256,
        "group": "/aws/lambda/greeter",
        "stream": "stream",
        "tenant": "null",
        "trace": ["null", "none", "null"],
        "identity": "none",
        "client": "none",
    }
    answer = maps.invoke(
        b'{"do": "describe"}',
        trace="Root=1-2-3;Sampled=1",
        tenant="blue",
        cognito='{"cognitoIdentityId": "who", "cognitoIdentityPoolId": "where"}',
        client_context=json.dumps(
            {
                "client": {
                    "installation_id": "i",
                    "app_title": "t",
                    "app_version_name": "n",
                    "app_version_code": "c",
                    "app_package_name": "p",
                },
                "custom": {"a": "b", "n": 1},
                "env": {"locale": "x"},
            }
        ),
    )
    said = json.loads(answer.body)
    assert said["trace"] == ["Root=1-2-3;Sampled=1"] * 3
    assert (said["tenant"], said["identity"]) == ("blue", "who where")
    assert said["client"] == ["i", "t", "n", "c", "p", {"a": "b", "n": "1"}, {"locale": "x"}]
    assert maps.call("describe")["trace"] == ["null", "none", "null"]  # none of it stays


@pytest.mark.parametrize("mode", ["cold", "warm"])
def test_environment(start, mode):
    runtime = start(mode=mode, MINE="é value", TZ="America/New_York")
    runtime.ready()
    seen = runtime.call("env")
    assert seen["MINE"] == "é value"
    assert seen["_HANDLER"] == "demo.Maps"
    assert seen["AWS_LAMBDA_FUNCTION_NAME"] == "greeter"
    assert "OLD" not in seen
    assert "_LAMBENT_REHEARSAL" not in seen
    assert runtime.call("child", name="MINE") == "é value"
    assert runtime.call("zone") == "America/New_York en_US UTF-8"
    assert runtime.call("loader") is True
    assert runtime.call("describe")["name"] == "greeter"


@pytest.fixture(scope="module")
def placed(client, tmp_path_factory):
    """The same classes three times, each saying where it is."""
    folder = tmp_path_factory.mktemp("placed")
    sources = {name: {path: text % name for path, text in java_functions.PLACED.items()} for name in ("task", "b", "a")}
    return {name: compiled(folder / name, source, str(client)) for name, source in sources.items()}


@pytest.mark.parametrize("mode", ["cold", "warm"])
def test_classes_of_the_function_come_before_its_jars(start, placed, functions, tmp_path, mode):
    task = tmp_path / "task"
    (task / "place").mkdir(parents=True)
    shutil.copy(placed["task"] / "place" / "Where.class", task / "place" / "Where.class")
    for name in ("a", "b"):
        jarred(task / "lib" / f"{name}.jar", placed[name])
    jarred(task / "lib" / "z.jar", functions)
    runtime = start(task=task, mode=mode)
    runtime.ready()
    assert runtime.call("class", name="place.Where") == "task"
    (task / "place" / "Where.class").unlink()
    runtime = start(task=task, mode=mode)
    runtime.ready()
    assert runtime.call("class", name="place.Where") == "a"


def test_a_warm_machine_that_is_never_used_ends(machine, client):
    script = 'exec 4</dev/null; exec "$@"'
    command = ["bash", "-c", script, "bash", machine.executable, *FATAL, "-jar", str(client), "--warm"]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=HANG_S, check=False).returncode == 0


# -- logs ----------------------------------------------------------------------------------------------------------------------------------


def test_what_is_printed_and_logged_as_text(start):
    runtime = start(mode="warm")
    runtime.ready()
    runtime.call("print")
    runtime.call("log")
    runtime.call("globally")
    _, output = runtime.end()
    assert output == 'out line é\nerr\nplain\nbytes\n[INFO] two\nlines\n[DEBUG] hidden?\nnull\n[FATAL] "grave"\nglobal\n'


def test_what_is_logged_as_json(start):
    runtime = start(AWS_LAMBDA_LOG_FORMAT="JSON", AWS_LAMBDA_LOG_LEVEL="INFO")
    runtime.ready()
    runtime.call("log")
    runtime.error({"do": "fail", "message": "broken"})
    lines = runtime.end()[1].splitlines()
    assert lines.pop(1) == "bytes"
    records = [json.loads(line) for line in lines]
    assert [(record["message"], record["level"]) for record in records[:-1]] == (
        [("plain", "UNDEFINED"), ("two\nlines", "INFO"), (None, "UNDEFINED"), ('"grave"\n', "FATAL")]
    )
    assert list(records[0]) == ["timestamp", "message", "level", "AWSRequestId"]
    assert records[0]["AWSRequestId"] == "00000000-0000-4000-8000-000000000001"
    assert records[-1]["AWSRequestId"] == "00000000-0000-4000-8000-000000000002"
    assert records[-1]["level"] == "ERROR"
    assert records[-1]["message"].startswith("broken: java.lang.IllegalStateException\n")
    assert all(time.strptime(record["timestamp"], "%Y-%m-%dT%H:%M:%S." + record["timestamp"][20:23] + "Z") for record in records)


def test_records_in_frames(start):
    reading, writing = os.pipe()
    runtime = start(telemetry=writing, _LAMBDA_TELEMETRY_LOG_FD="5")
    os.close(writing)
    runtime.ready()
    runtime.call("log")
    assert runtime.end()[1] == ""
    with open(reading, "rb") as pipe:
        data = pipe.read()
    records = []
    while data:
        kind, length, micros = struct.unpack(">IIQ", data[:16])
        records.append((kind, data[16 : 16 + length]))
        assert abs(micros / 1e6 - time.time()) < HANG_S
        data = data[16 + length :]
    assert records == [
        (0xA55A0003, b"plain"),
        (0xA55A0003, b"bytes"),
        (0xA55A000F, b"[INFO] two\nlines"),
        (0xA55A000B, b"[DEBUG] hidden?"),
        (0xA55A0003, b"null"),
        (0xA55A001B, b'[FATAL] "grave"\n'),
    ]
