"""The Python runtime client, on every interpreter that this machine has, against a peer that speaks frames.

The peer plays the node; no sandbox is involved. "program" runs the client as a program of its own (the process driver), "zygote" forks
a child from an interpreter that has preloaded (the namespaces driver).
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from lambent.arn import FunctionArn
from lambent.function_version import FunctionVersion
from lambent.runtime_api import python_client
from lambent.runtime_api.frames import Frame, FrameReader, FrameType, encode_invoke
from lambent.runtimes.catalogue import Catalogue
from lambent.runtimes.environment_variables import Places, environment_variables
from lambent.runtimes.interpreter import Interpreter
from lambent.runtimes.packages import has_sdk, runtime_packages

INTERPRETERS = list({each.executable: each for each in (*Catalogue().interpreters(), *Catalogue(["/usr/bin"]).interpreters())}.values())
HANG_S = 60.0
STREAM = "2026/11/21/[$LATEST]0123456789abcdef0123456789abcdef"

ZYGOTE = """
import array, ctypes, json, os, socket, sys
sys.path.insert(0, sys.argv[1])
import lambent_runtime_client as client
client.preload()
control = socket.socket(fileno=int(sys.argv[2]))
while True:
    data, ancillary, _, _ = control.recvmsg(1 << 18, 64)
    if not data:
        break
    order = json.loads(data)
    if "wait" in order:
        status = os.waitpid(order["wait"], 0)[1]
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        control.send(str(code).encode())
        continue
    descriptors = array.array("i", b"".join(raw for _, _, raw in ancillary))
    pid = ctypes.PyDLL(None).fork()  # as zygotes do (sandbox/kernel.py)
    if not pid:
        control.close()
        channel, output = descriptors
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        os.set_inheritable(channel, True)
        client.run(channel, order["handler"], order["environment"])
    for descriptor in descriptors:
        os.close(descriptor)
    control.send(str(pid).encode())
"""

FUNCTION = """
import decimal, json, logging, os, signal, sys, threading

def handler(event, context):
    return globals()[event.pop("do")](event, context)

def echo(event, context):
    return event

def nothing(event, context):
    pass

def describe(event, context):
    client, identity = context.client_context, context.identity
    return {
        "request": context.aws_request_id, "arn": context.invoked_function_arn, "tenant": context.tenant_id,
        "name": context.function_name, "version": context.function_version, "memory": context.memory_limit_in_mb,
        "group": context.log_group_name, "stream": context.log_stream_name,
        "remaining": context.get_remaining_time_in_millis(),
        "client": client and {"id": client.client.installation_id, "custom": client.custom, "env": client.env},
        "identity": [identity.cognito_identity_id, identity.cognito_identity_pool_id],
        "trace": os.environ.get("_X_AMZN_TRACE_ID"),
    }

def fail(event, context):
    raise ValueError(event["message"])

def unmarshallable(event, context):
    return {"set": {1}}

def raw(event, context):
    return bytes(range(256))

def large(event, context):
    return "x" * event["size"]

def measure(event, context):
    return len(event["text"])

def numbers(event, context):
    return [decimal.Decimal("1.10"), float("nan"), 1e300, decimal.Decimal("NaN")]

def leave(event, context):
    sys.exit(event["code"])

def vanish(event, context):
    os._exit(event["code"])

def die(event, context):
    os.kill(os.getpid(), signal.SIGKILL)

def talk(event, context):
    print("to stdout")
    print("to stderr", file=sys.stderr)
    logging.getLogger().warning("careful %s", "now")
    logging.getLogger("mine").error({"answer": 42})

def place(event, context):
    return {"path": sys.path, "cwd": os.getcwd(), "argv": sys.argv, "main_thread": threading.active_count(), "environ": dict(os.environ)}

def interrupted(event, context):
    heard = []
    signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.01)  # again and again: the first may come before the pause
    signal.pause()
    signal.setitimer(signal.ITIMER_REAL, 0)
    return heard[:1]

def alarm_later(event, context):
    signal.signal(signal.SIGALRM, lambda *_: print("alarm between invocations"))
    signal.setitimer(signal.ITIMER_REAL, 0.05)

def close_own(event, context):
    os.closerange(3, 64)
"""


class Zygote:
    """An interpreter that has preloaded, and forks."""

    def __init__(self, runtime_dir: Path, interpreter: Interpreter) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(HANG_S)
        command = [interpreter.executable, "-c", ZYGOTE, str(runtime_dir), str(theirs.fileno())]
        base = {"LANG": "C.UTF-8", "TZ": "America/New_York"}
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=base, pass_fds=[theirs.fileno()])
        theirs.close()

    def ask(self, order: object, *descriptors: int) -> int:
        socket.send_fds(self.control, [json.dumps(order).encode()], descriptors)
        return int(self.control.recv(100))

    def close(self) -> None:
        self.control.close()
        assert self._process.wait(HANG_S) == 0


class Forked:
    """A child of a zygote, with as much of ``Popen`` as is needed."""

    def __init__(self, zygote: Zygote, channel: int, handler: str, environment: dict[str, str]) -> None:
        reading, writing = os.pipe()
        self._zygote = zygote
        self.pid = zygote.ask({"handler": handler, "environment": environment}, channel, writing)
        os.close(writing)
        self.stdout = open(reading, "rb")  # noqa: SIM115  (closed by communicate)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[bytes, None]:
        output = b""
        if not self.stdout.closed:
            assert select.select([self.stdout], [], [], timeout)[0]
            output = self.stdout.read()
            self.stdout.close()
            self.returncode = self._zygote.ask({"wait": self.pid})
        return output, None


class Houses:
    """The folder that stands for /var/runtime and the zygote of each interpreter."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._zygotes: dict[str, Zygote] = {}

    def runtime_dir(self, interpreter: Interpreter) -> Path:
        folder = self._folder / interpreter.executable.replace("/", "-").strip("-")
        if not folder.exists():
            assemble(folder, interpreter)
        return folder

    def zygote(self, interpreter: Interpreter) -> Zygote:
        if interpreter.executable not in self._zygotes:
            self._zygotes[interpreter.executable] = Zygote(self.runtime_dir(interpreter), interpreter)
        return self._zygotes[interpreter.executable]

    def close(self) -> None:
        for zygote in self._zygotes.values():
            zygote.close()


class Runtime:
    """A started runtime client and the node's side of its channel."""

    def __init__(self, folder: Path, houses: Houses, interpreter: Interpreter, mode: str, handler: str, **environment: str) -> None:
        self.task, self.runtime_dir = folder / "task", houses.runtime_dir(interpreter)
        version = FunctionVersion(
            arn=FunctionArn("eu-west-1", "123456789012", "greeter"),
            version="$LATEST",
            runtime=interpreter.runtime,
            handler=handler,
            code_sha256="",
            code_dir=str(self.task),
            memory_mb=256,
            environment={name: value for name, value in environment.items() if not name.startswith("AWS_LAMBDA_LOG_")},
        )
        places = Places(str(self.task), str(self.runtime_dir))
        self.environment = environment_variables(
            version,
            STREAM,
            places=places,
            log_format=environment.get("AWS_LAMBDA_LOG_FORMAT", "Text"),
            log_level=environment.get("AWS_LAMBDA_LOG_LEVEL", ""),
        )
        self.environment.pop("LD_LIBRARY_PATH")  # names folders of the sandbox
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(HANG_S)
        self._reader, self._frames = FrameReader(8_000_000), list[Frame]()
        fd = theirs.fileno()
        self.process: subprocess.Popen[bytes] | Forked
        if mode == "program":
            client = str(self.runtime_dir / "lambent_runtime_client.py")
            command = [interpreter.executable, client, "--channel-fd", str(fd), "--handler", handler]
            pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            self.process = subprocess.Popen(command, env=self.environment, pass_fds=[fd], **pipes)
        else:
            self.process = Forked(houses.zygote(interpreter), fd, handler, self.environment)
        theirs.close()
        self._token = 0

    def frame(self) -> Frame:
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

    def ready(self) -> None:
        assert self.frame().type == FrameType.NEXT

    def invoke(self, event: bytes, **fields: str) -> Frame:
        """One invocation, from INVOKE to the answer and the NEXT that follows it."""
        self._token += 1
        request = f"00000000-0000-4000-8000-{self._token:012d}"
        deadline = int(time.time() * 1000) + 60_000
        arn = "arn:aws:lambda:eu-west-1:123456789012:function:greeter:live"
        self.channel.sendall(encode_invoke(self._token, request, deadline, arn, fields.pop("trace", ""), event, **fields))
        answer = self.frame()
        assert answer.head.split("\n")[:2] == [str(self._token), request]
        self.ready()
        return answer

    def call(self, do: str, **event: object) -> object:
        """Invoke a function of ``FUNCTION``; give its decoded answer."""
        answer = self.invoke(json.dumps({"do": do, **event}).encode())
        assert answer.type == FrameType.RESPONSE, answer
        assert answer.head.split("\n")[2] == "application/json"
        return json.loads(answer.body)

    def end(self) -> tuple[int, str]:
        """Wait for the process: its exit status, and what it printed and the test has not read."""
        self.channel.close()
        output, _ = self.process.communicate(timeout=HANG_S)
        return self.process.returncode, output.decode()

    def close(self) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=HANG_S)


def assemble(folder: Path, interpreter: Interpreter) -> None:
    """What a driver mounts at /var/runtime, as links."""
    folder.mkdir(exist_ok=True)
    for name, path in runtime_packages(interpreter):
        if not (folder / name).exists():
            (folder / name).symlink_to(path)
    shutil.copy(python_client.__file__, folder / "lambent_runtime_client.py")


@pytest.fixture(params=INTERPRETERS, ids=lambda each: f"{each.runtime}-{'system' if each.is_system else 'found'}")
def interpreter(request):
    return request.param


@pytest.fixture
def mode():
    return "program"


both_modes = pytest.mark.parametrize("mode", ["program", "zygote"])


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    found = Houses(tmp_path_factory.mktemp("houses"))
    yield found
    found.close()


@pytest.fixture
def start(tmp_path, houses, interpreter, mode):
    """Starts runtimes, and ends them after the test. The function's file is ``FUNCTION``, or ``source``."""
    started: list[Runtime] = []

    def start(handler: str = "function.handler", source: str = FUNCTION, file: str = "function.py", **environment: str) -> Runtime:
        path = tmp_path / "task" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        started.append(Runtime(tmp_path, houses, interpreter, mode, handler, **environment))
        return started[-1]

    yield start
    for runtime in started:
        runtime.close()


@both_modes
def test_events_come_back_as_they_went(start):
    runtime = start()
    runtime.ready()
    for value in ({}, {"a": [1, 2.5, None, True, "x"]}, {"é": "日本 \U0001f600 \u2028"}, {"n": 10**30, "f": -0.0}):
        assert runtime.call("echo", **value) == value
    assert runtime.call("nothing") is None
    runtime.channel.close()
    assert runtime.end() == (0, "")  # the node is gone: quietly


@both_modes
def test_non_ascii_is_escaped_before_python_3_12_only(start, interpreter):
    runtime = start()
    runtime.ready()
    body = runtime.invoke(json.dumps({"do": "echo", "é": "日"}).encode()).body
    assert body == ('{"é": "日"}'.encode() if interpreter.version >= (3, 12, 0) else rb'{"\u00e9": "\u65e5"}')


def test_numbers_that_json_does_not_have(start):
    runtime = start()
    runtime.ready()
    assert runtime.invoke(b'{"do": "numbers"}').body == b"[1.10, NaN, 1e+300, NaN]"


def test_the_context_tells_all_that_the_frame_and_the_environment_say(start):
    runtime = start()
    runtime.ready()
    client = {"client": {"installation_id": "i-1"}, "custom": {"k": "v\nw"}, "env": {"locale": "de"}}
    answer = runtime.invoke(
        b'{"do": "describe"}',
        trace="Root=1-5e1b4151-5ac6c58f3375aa3c39fc2fbd;Parent=3375aa3c39fc2fbd;Sampled=1",
        tenant="blue",
        cognito=json.dumps({"cognitoIdentityId": "id", "cognitoIdentityPoolId": "pool"}),
        client_context=json.dumps(client, indent=1),  # only the last field may hold line feeds
    )
    told = json.loads(answer.body)
    assert 0 < told.pop("remaining") <= 60_000
    assert told == {
        "request": "00000000-0000-4000-8000-000000000001",
        "arn": "arn:aws:lambda:eu-west-1:123456789012:function:greeter:live",
        "tenant": "blue",
        "name": "greeter",
        "version": "$LATEST",
        "memory": "256",
        "group": "/aws/lambda/greeter",
        "stream": STREAM,
        "client": {"id": "i-1", "custom": {"k": "v\nw"}, "env": {"locale": "de"}},
        "identity": ["id", "pool"],
        "trace": "Root=1-5e1b4151-5ac6c58f3375aa3c39fc2fbd;Parent=3375aa3c39fc2fbd;Sampled=1",
    }
    bare = runtime.call("describe")
    assert isinstance(bare, dict)
    assert (bare["trace"], bare["tenant"], bare["client"], bare["identity"]) == (None, None, None, [None, None])


@both_modes
def test_an_exception_becomes_awss_payload_and_the_runtime_goes_on(start):
    runtime = start()
    runtime.ready()
    answer = runtime.invoke(json.dumps({"do": "fail", "message": "no\nluck"}).encode())
    assert answer.type == FrameType.ERROR
    _, request, error_type, cause = answer.head.split("\n", 3)
    payload = json.loads(answer.body)
    trace = payload.pop("stackTrace")
    assert payload == {"errorMessage": "no\nluck", "errorType": "ValueError", "requestId": request}
    assert trace[0].startswith(f'  File "{runtime.task}/function.py", line 5, in handler\n    return globals()')
    assert "bootstrap.py" not in "".join(trace)
    assert error_type == "ValueError"
    assert json.loads(cause)["exceptions"][0]["message"] == "no\nluck"
    assert runtime.call("echo", a=1) == {"a": 1}
    _, printed = runtime.end()
    assert printed.startswith("[ERROR] ValueError: no\nluck\rTraceback (most recent call last):\r\u00a0\u00a0File")


def test_answers_that_cannot_be_marshalled(start):
    runtime = start()
    runtime.ready()
    answer = runtime.invoke(b'{"do": "unmarshallable"}')
    payload = json.loads(answer.body)
    assert answer.head.split("\n")[2] == payload["errorType"] == "Runtime.MarshalError"
    assert payload["errorMessage"] == "Unable to marshal response: Object of type set is not JSON serializable"


@pytest.mark.parametrize("event", [b"", b"{", b"[NaN]", b'"\xff"'])
def test_events_that_cannot_be_unmarshalled(start, event):
    runtime = start()
    runtime.ready()
    answer = runtime.invoke(event)
    payload = json.loads(answer.body)
    assert payload["errorType"] == "Runtime.UnmarshalError"
    assert payload["errorMessage"].startswith("Unable to unmarshal input: ")


def test_bytes_leave_as_they_are(start):
    runtime = start()
    runtime.ready()
    answer = runtime.invoke(b'{"do": "raw"}')
    assert (answer.head.split("\n")[2], answer.body) == ("application/unknown", bytes(range(256)))


def test_large_payloads_both_ways(start):
    runtime = start()
    runtime.ready()
    for size in (65_500, 65_536, 6_291_456, 7_000_000):  # around the buffer, the cap, and over it: refusing is the node's part
        assert runtime.call("measure", text="é" * (size // 6)) == size // 6
        answer = runtime.invoke(json.dumps({"do": "large", "size": size}).encode())
        assert len(answer.body) == size + 2


INIT_ERRORS = {
    "import": (
        "function.handler",
        "import absent_module",
        "Runtime.ImportModuleError",
        "Unable to import module 'function': No module named",
    ),
    "missing file": ("other.handler", "", "Runtime.ImportModuleError", "Unable to import module 'other': No module named 'other'"),
    "missing handler": ("function.absent", "", "Runtime.HandlerNotFound", "Handler 'absent' missing on module 'function'"),
    "syntax": ("function.handler", "def broken(:\n", "Runtime.UserCodeSyntaxError", "Syntax error in module 'function': invalid syntax"),
    "malformed": ("handler", "", "Runtime.MalformedHandlerName", "Bad handler 'handler': not enough values to unpack (expected 2, got 1)"),
    "built-in": ("sys.exit", "", "Runtime.BuiltInModuleConflict", "Cannot use built-in module sys as a handler module"),
    "exception": ("function.handler", "1 / 0", "ZeroDivisionError", "division by zero"),
}


@pytest.mark.parametrize("case", INIT_ERRORS)
def test_errors_of_initialisation(start, case):
    handler, source, error_type, message = INIT_ERRORS[case]
    runtime = start(handler, source)
    frame = runtime.frame()
    payload = json.loads(frame.body)
    assert (frame.type, frame.head, payload["errorType"]) == (FrameType.INIT_ERROR, error_type, error_type)
    assert payload["errorMessage"].startswith(message)
    assert payload["requestId"] == ""
    status, printed = runtime.end()
    assert status == 1
    assert "LAMBDA_WARNING: Unhandled exception." in printed
    assert f"[ERROR] {error_type}: {message}" in printed


def test_handlers_in_packages(start):
    runtime = start("pkg/sub/module.run", "def run(event, context): return [__name__, event]", "pkg/sub/module.py")
    runtime.ready()
    assert json.loads(runtime.invoke(b"{}").body) == ["pkg.sub.module", {}]


@both_modes
@pytest.mark.parametrize(
    ("do", "code", "status"), [("leave", 3, 3), ("leave", 0, 0), ("leave", None, 0), ("leave", "words", 1), ("vanish", 7, 7)]
)
def test_a_handler_may_end_the_process(start, do, code, status):
    runtime = start()
    runtime.ready()
    with pytest.raises(EOFError):
        runtime.invoke(json.dumps({"do": do, "code": code}).encode())
    ended, printed = runtime.end()
    assert ended == status
    assert printed == ("words\n" if code == "words" else "")


@both_modes
def test_a_killed_runtime_is_just_gone(start, mode):
    runtime = start()
    runtime.ready()
    with pytest.raises(EOFError):
        runtime.invoke(b'{"do": "die"}')
    assert runtime.end()[0] == (-signal.SIGKILL if mode == "program" else 128 + signal.SIGKILL)


@both_modes
def test_leaving_during_initialisation_runs_what_was_registered(start):
    runtime = start(source="import atexit, sys\natexit.register(print, 'bye')\nsys.exit(4)\n")
    with pytest.raises(EOFError):
        runtime.frame()
    assert runtime.end() == (4, "bye\n")


def test_text_logs(start):
    runtime = start()
    runtime.ready()
    runtime.call("talk")
    _, printed = runtime.end()
    lines = printed.splitlines()
    assert lines[:2] == ["to stdout", "to stderr"]
    level, stamp, request, message = lines[2].split("\t")
    assert (level, request, message) == ("[WARNING]", "00000000-0000-4000-8000-000000000001", "careful now")
    assert time.strptime(stamp[:-5], "%Y-%m-%dT%H:%M:%S")
    assert (stamp[-5], stamp[-1]) == (".", "Z")
    assert lines[3].split("\t")[3] == "{'answer': 42}"


@both_modes
def test_json_logs(start):
    runtime = start(AWS_LAMBDA_LOG_FORMAT="JSON", AWS_LAMBDA_LOG_LEVEL="ERROR")
    runtime.ready()
    runtime.call("talk")
    runtime.invoke(json.dumps({"do": "fail", "message": "é"}).encode())
    _, printed = runtime.end()
    lines = printed.splitlines()
    assert lines[:2] == ["to stdout", "to stderr"]
    logged, failed = (json.loads(line) for line in lines[2:])  # the warning is below the level
    assert logged.pop("timestamp").endswith("Z")
    assert logged == {
        "level": "ERROR",
        "message": {"answer": 42},
        "logger": "mine",
        "requestId": "00000000-0000-4000-8000-000000000001",
    }
    assert (failed["level"], failed["errorType"], failed["errorMessage"]) == ("ERROR", "ValueError", "é")


@both_modes
def test_the_process_looks_as_on_aws(start, interpreter):
    runtime = start(GREETING="hällo")
    runtime.ready()
    place = runtime.call("place")
    assert isinstance(place, dict)
    task, runtime_dir = str(runtime.task), str(runtime.runtime_dir)
    minor = interpreter.version[1]
    assert place["path"][:4] == [task, f"/opt/python/lib/python3.{minor}/site-packages", "/opt/python", runtime_dir]
    assert not [entry for entry in place["path"] if entry.endswith("-packages") and not entry.startswith("/opt/")]
    assert (place["cwd"], place["argv"], place["main_thread"]) == (task, [f"{runtime_dir}/bootstrap.py"], 1)
    expected = {**runtime.environment, "GREETING": "hällo"}
    assert {name: place["environ"].get(name) for name in expected} == expected
    assert set(place["environ"]) - set(expected) <= {"LC_CTYPE"}  # an interpreter that starts in the C locale adds it


def test_a_python_path_of_the_users_replaces_the_layers(start, tmp_path):
    extra = tmp_path / "extra"
    extra.mkdir()
    runtime = start(PYTHONPATH=str(extra))
    runtime.ready()
    place = runtime.call("place")
    assert isinstance(place, dict)
    assert place["path"][:3] == [str(runtime.task), str(runtime.runtime_dir), str(extra)]


@both_modes
def test_time_is_that_of_the_functions_zone(start):
    source = "import time\ndef handler(event, context): return [time.strftime('%Z'), time.localtime(0).tm_hour]"
    runtime = start(source=source, TZ="Asia/Tokyo")
    runtime.ready()
    assert json.loads(runtime.invoke(b"{}").body) == ["JST", 9]
    runtime = start(source=source)
    runtime.ready()
    assert json.loads(runtime.invoke(b"{}").body) == ["UTC", 0]


def test_signals_reach_the_function_and_between_invocations(start):
    runtime = start()
    runtime.ready()
    assert runtime.call("interrupted") == [1]
    assert runtime.call("alarm_later") is None
    line = runtime.process.stdout.readline()  # type: ignore[union-attr]
    assert line == b"alarm between invocations\n"
    assert runtime.call("echo", still="here") == {"still": "here"}


@both_modes
def test_the_functions_own_modules_come_before_preloaded_ones(start, tmp_path):
    task = tmp_path / "task"
    task.mkdir()
    (task / "csv.py").write_text("mine = True\n")
    (task / "six.py").write_text("mine = True\n")
    (task / "email").mkdir()  # no __init__: gives way to the standard library's
    (task / "extra").mkdir()
    (task / "extra" / "found_by_path_file.py").write_text("mine = True\n")
    (task / "more.pth").write_text("extra\n")
    source = """
        import csv, six, email.message, found_by_path_file
        def handler(event, context):
            return [csv.mine, six.mine, email.message.__file__, found_by_path_file.mine]
    """
    runtime = start(source=source)
    runtime.ready()
    csv, six, email, path_file = json.loads(runtime.invoke(b"{}").body)
    assert (csv, six, path_file) == (True, True, True)
    assert not email.startswith(str(task))


LOOKS = """
    import importlib, inspect, pickle, pkgutil, sys
    from importlib.machinery import SourceFileLoader
    WORD = "é"

    def handler(event, context):
        module = sys.modules[__name__]
        spec = module.__spec__
        seen = {
            "file": __file__, "cached": module.__cached__, "package": __package__, "name": [__name__, spec.name, module.__loader__.name],
            "spec": [spec.origin, spec.has_location, spec.cached, spec.parent, spec.submodule_search_locations],
            "loader": [isinstance(module.__loader__, SourceFileLoader), module.__loader__ is spec.loader],
            "source": inspect.getsource(handler).lstrip()[:11],
            "path": list(getattr(module, "__path__", [])), "again": importlib.reload(module) is module,
            "finders": [str(each) for each in sys.meta_path if "HandlerFinder" in str(each)], "word": WORD,
        }
        seen["other"] = importlib.import_module("other").x
        return seen
"""


@both_modes
def test_the_module_of_the_handler_looks_as_if_it_had_been_searched_for(start, tmp_path):
    """With a folder of cached bytecode beside it, the import system searches for it; without, it is known."""
    task = tmp_path / "task"
    task.mkdir()
    (task / "other.py").write_text("x = 1\n")
    seen = []
    for beside in ("__pycache__", "unrelated"):
        (task / beside).mkdir()
        runtime = start(source=LOOKS)
        runtime.ready()
        seen.append(json.loads(runtime.invoke(b"{}").body))
        shutil.rmtree(task / "__pycache__", ignore_errors=True)
    assert seen[0] == seen[1]
    assert (seen[0]["file"], seen[0]["again"], seen[0]["word"]) == (str(task / "function.py"), True, "é")


@both_modes
def test_what_goes_before_a_file_goes_before_it(start, tmp_path):
    task = tmp_path / "task"
    (task / "function").mkdir(parents=True)
    (task / "function" / "__init__.py").write_text("def handler(event, context):\n    return 'the package'\n")
    runtime = start(source="def handler(event, context):\n    return 'the file'\n")
    runtime.ready()
    assert runtime.invoke(b"{}").body == b'"the package"'
    (task / "function" / "__init__.py").unlink()  # a namespace package gives way
    runtime = start(source="def handler(event, context):\n    return 'the file'\n")
    runtime.ready()
    assert runtime.invoke(b"{}").body == b'"the file"'


@both_modes
def test_the_source_of_the_handler_may_be_in_any_encoding(start, tmp_path):
    task = tmp_path / "task"
    task.mkdir()
    for number, (line, encoding) in enumerate((("", "utf-8-sig"), ("# -*- coding: latin-1 -*-\n", "latin-1"))):
        (task / f"word{number}.py").write_bytes(f"{line}WORD = 'é'\r\ndef handler(event, context):\r\n    return WORD\r\n".encode(encoding))
        runtime = start(handler=f"word{number}.handler")
        runtime.ready()
        assert json.loads(runtime.invoke(b"{}").body) == "é"


BRINGS_ITS_OWN = """
    import sys
    sys.path.insert(0, "vendor")
    from botocore.config import word
    import boto3, botocore.config, six, urllib3.util
    def handler(event, context):
        return [word, boto3.word, botocore.config.word, urllib3.__file__ == urllib3.util.__file__.replace("util/", "")]
"""


@both_modes
def test_an_sdk_on_a_path_that_the_function_sets_itself(start, interpreter, tmp_path):
    if not has_sdk(interpreter):
        pytest.skip(f"no boto3 for {interpreter.runtime}: python -m lambent.runtimes.prepare has not run")
    vendor = tmp_path / "task" / "vendor"
    for name, word in (("boto3/__init__", "mine"), ("botocore/__init__", "mine"), ("botocore/config", "mine too")):
        (vendor / name).parent.mkdir(parents=True, exist_ok=True)
        (vendor / f"{name}.py").write_text(f"word = {word!r}\n")
    runtime = start(source=BRINGS_ITS_OWN)
    runtime.ready()
    assert json.loads(runtime.invoke(b"{}").body) == ["mine too", "mine", "mine too", True]


ASKED_FOR = """
    import importlib, importlib.metadata, importlib.util, pickle, sys
    before = [name for name in sys.modules if name.partition(".")[0] in ("boto3", "botocore", "six")]
    sys.path.append("/nowhere")
    is_there = importlib.util.find_spec("boto3") is not None
    from botocore.config import Config
    import botocore.session, boto3, six.moves.urllib.parse as parse
    from boto3.dynamodb.types import TypeSerializer
    def handler(event, context):
        specs = [sys.modules[name].__spec__ for name in ("boto3", "botocore.config", "boto3.dynamodb.types")]
        assert pickle.loads(pickle.dumps(Config)) is Config
        assert importlib.reload(sys.modules["botocore.config"]).Config is not Config
        return {
            "before": before, "there": is_there, "quoted": parse.quote(" "), "typed": TypeSerializer().serialize("a"),
            "version": importlib.metadata.version("boto3") == boto3.__version__,
            "specs": [[spec.name, type(spec.loader).__name__, spec.loader_state] for spec in specs],
            "package": boto3.__spec__.submodule_search_locations == boto3.__path__,
            "same": boto3.session.botocore.session is botocore.session,
        }
"""


@both_modes
def test_the_sdk_comes_back_for_whoever_imports_it(start, interpreter):
    if not has_sdk(interpreter):
        pytest.skip(f"no boto3 for {interpreter.runtime}: python -m lambent.runtimes.prepare has not run")
    runtime = start(source=ASKED_FOR, PYTHONWARNINGS="ignore")
    runtime.ready()
    seen = json.loads(runtime.invoke(b"{}").body)
    assert seen["specs"] == [[name, "SourceFileLoader", None] for name in ("boto3", "botocore.config", "boto3.dynamodb.types")]
    assert (seen["before"], seen["there"], seen["quoted"], seen["typed"]) == ([], True, "%20", {"S": "a"})
    assert (seen["version"], seen["package"], seen["same"]) == (True, True, True)


@both_modes
def test_the_sdk_is_there(start, interpreter):
    if not has_sdk(interpreter):
        pytest.skip(f"no boto3 for {interpreter.runtime}: python -m lambent.runtimes.prepare has not run")
    source = """
        import boto3
        client = boto3.client("sts")
        def handler(event, context):
            return [client.meta.endpoint_url, client.meta.region_name, boto3.__file__]
    """
    runtime = start(source=source, AWS_ENDPOINT_URL="http://127.0.0.1:4566", PYTHONWARNINGS="ignore")
    runtime.ready()
    endpoint, region, file = json.loads(runtime.invoke(b"{}").body)
    assert (endpoint, region) == ("http://127.0.0.1:4566", "eu-west-1")
    assert file.startswith(str(runtime.runtime_dir))


def test_a_function_that_closes_our_descriptor_ends_its_own_process_only(start):
    runtime = start()
    runtime.ready()
    with pytest.raises(EOFError):
        runtime.invoke(b'{"do": "close_own"}')
    status, printed = runtime.end()
    assert status == 1
    assert "Bad file descriptor" in printed


@both_modes
def test_programs_that_the_function_starts_do_not_inherit_the_channel(start):
    source = """
        import subprocess
        def handler(event, context):
            listing = subprocess.run(["ls", "-l", "/proc/self/fd"], close_fds=False, stdout=subprocess.PIPE, check=True).stdout.decode()
            return [listing.count(" -> "), "socket:" in listing]
    """
    runtime = start(source=source)
    runtime.ready()
    assert json.loads(runtime.invoke(b"{}").body) == [4, False]  # the standard three, and the folder that ls reads


def test_an_overridden_marshaller_is_used(start):
    source = """
        from awslambdaric.lambda_runtime_client import LambdaRuntimeClient
        class Mine:
            def unmarshal_request(self, request, content_type="application/json"):
                return [type(request).__name__, content_type]
            def marshal_response(self, response):
                return repr(response), "text/x\\ny"
        LambdaRuntimeClient.marshaller = Mine()
        def handler(event, context):
            return event
    """
    runtime = start(source=source)
    runtime.ready()
    answer = runtime.invoke(b"{}")
    assert answer.body == b"['bytes', 'application/json']"
    assert answer.head.split("\n")[2:] == ["text/x y"]  # a line feed would end the field


def test_this_suite_ran_on_something():
    assert any(each.version[:2] == sys.version_info[:2] for each in INTERPRETERS)
