"""The Node.js runtime client, on every Node.js that this machine has, against a peer that speaks frames.

The peer plays the node; no sandbox is involved. "program" starts the client for a function, "warm" starts it ahead and tells it later
what it is, as the nursery of the namespaces driver does.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lambent.arn import FunctionArn
from lambent.function_version import FunctionVersion
from lambent.runtime_api.frames import Frame, FrameReader, FrameType, encode_invoke
from lambent.runtimes import nodejs
from lambent.runtimes.catalogue import Catalogue
from lambent.runtimes.environment_variables import Places, environment_variables
from lambent.runtimes.plan import RuntimePlan

PLANS = [plan for plan in Catalogue().installed() if plan.runtime.startswith("nodejs")]
HANG_S = 60.0
STREAM = "2026/11/21/[$LATEST]0123456789abcdef0123456789abcdef"
TRACE = "Root=1-5e1b4151-5ac6c58f3375aa3c39fc2fbd;Parent=3375aa3c39fc2fbd;Sampled=1"

pytestmark = pytest.mark.skipif(not PLANS, reason="this machine has no Node.js")

FUNCTION = """
const fs = require('fs');

const doing = {
  echo: (event) => event,
  nothing: () => undefined,
  describe: (event, context) => ({
    own: JSON.parse(JSON.stringify(context)),
    remaining: context.getRemainingTimeInMillis(),
    trace: process.env._X_AMZN_TRACE_ID === undefined ? null : process.env._X_AMZN_TRACE_ID,
    cwd: process.cwd(), env: { ...process.env }, execArgv: process.execArgv,
    store: awslambda.InvokeStore.getRequestId(),
  }),
  fail: (event) => { const error = new TypeError(event.message); error.code = 'E_CODE'; throw error; },
  throwText: () => { throw 'only text'; },
  throwOdd: () => { throw { toString() { throw new Error('no'); } }; },
  round: () => { const a = {}; a.a = a; return a; },
  big: () => BigInt(1),
  func: () => () => 1,
  large: (event) => 'x'.repeat(event.size),
  measure: (event) => event.text.length,
  sleep: (event) => new Promise((resolve) => setTimeout(() => resolve('slept'), event.ms)),
  never: () => new Promise(() => {}),
  leave: (event) => process.exit(event.code),
  die: () => process.kill(process.pid, 'SIGKILL'),
  reject: () => { Promise.reject(new RangeError('nobody listens')); return new Promise((resolve) => setTimeout(resolve, 60000)); },
  rejectAndAnswer: () => { Promise.reject(new RangeError('nobody listens')); return 'answered'; },
  throwLater: () => new Promise(() => setImmediate(() => { throw new Error('in the air'); })),
  later: () => { setTimeout(() => console.log('between'), 20); return 'now'; },
  log: () => {
    console.log('plain\\ntwo', { a: 1 }, [2]);
    console.error(new Error('shown'));
    console.warn('%s-%d', 'w', 5);
    console.debug('debug');
    console.trace('trace');
    process.stdout.write('raw\\n');
    console.table([{ a: 1 }]);
  },
  logError: () => {
    console.error('it failed:', new TypeError('why'));
    console.info({ deep: { a: [1] } });
    const a = {};
    a.a = a;
    console.log(a);
  },
  flood: (event) => {
    for (let i = 0; i < event.lines; i++) console.log('y'.repeat(1000));
    process.stdout.write('z'.repeat(300000) + '\\n');
  },
};

exports.handler = async (event, context) => doing[event.do](event, context);
exports.sync = (event, context) => doing[event.do](event, context);
exports.nested = { very: { deep: async () => 'found' } };
exports.number = 5;
"""


ODDLY_STREAMING = "exports.handler = async () => {}; exports.handler[Symbol.for('aws.lambda.runtime.handler.streaming')] = 'request'"


class Runtime:
    """A started client and the node's side of its channel."""

    def __init__(self, folder: Path, plan: RuntimePlan, mode: str, handler: str, **environment: str) -> None:
        self.task = folder / "task"
        version = FunctionVersion(
            arn=FunctionArn("eu-west-1", "123456789012", "greeter"),
            version="$LATEST",
            runtime=plan.runtime,
            handler=handler,
            code_sha256="",
            code_dir=str(self.task),
            memory_mb=256,
            environment={name: value for name, value in environment.items() if not name.startswith("AWS_LAMBDA_LOG_")},
        )
        self.environment = environment_variables(
            version,
            STREAM,
            places=Places(str(self.task), "/var/runtime"),
            log_format=environment.get("AWS_LAMBDA_LOG_FORMAT", "Text"),
            log_level=environment.get("AWS_LAMBDA_LOG_LEVEL", ""),
            defaults={**plan.environment, "NODE_PATH": str(folder / "modules")},
        )
        self.environment.pop("LD_LIBRARY_PATH")  # names folders of the sandbox
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(HANG_S)
        self._reader, self._frames = FrameReader(8_000_000), list[Frame]()
        self._token = 0
        reading, self._assign = os.pipe()
        command = [plan.prefix + plan.argv[0].removeprefix("/var/lang"), *nodejs.OPTIONS, str(nodejs.CLIENT / "index.cjs")]
        if plan.prefix == "/usr":
            command[0] = plan.argv[0]
        is_warm = mode == "warm"
        descriptors = [theirs.fileno(), reading]
        # The shell puts the two at 3 and 4, wherever they are now.
        script = f'exec 8<&{descriptors[0]} 9<&{descriptors[1]}; exec 3<&8 4<&9 8<&- 9<&-; exec "$@"'
        base = {"NODE_PATH": "/nowhere", "LEFT": "over", **{k: v for k, v in self.environment.items() if k == "NODE_OPTIONS"}}
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", script, "bash", *command, *(["--warm"] if is_warm else [])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.task.parent if is_warm else self.task,
            env=base if is_warm else self.environment,
            pass_fds=descriptors,
        )
        theirs.close()
        os.close(reading)
        if is_warm:
            os.write(self._assign, json.dumps({"env": self.environment, "handler": handler}).encode())
        os.close(self._assign)

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
        frame = self.frame()
        assert frame.type == FrameType.NEXT, frame

    def send(self, event: bytes, **fields: str) -> str:
        self._token += 1
        request = f"00000000-0000-4000-8000-{self._token:012d}"
        deadline = int(time.time() * 1000) + 60_000
        arn = "arn:aws:lambda:eu-west-1:123456789012:function:greeter:live"
        self.channel.sendall(encode_invoke(self._token, request, deadline, arn, fields.pop("trace", ""), event, **fields))
        return f"{self._token}\n{request}"

    def invoke(self, event: bytes, **fields: str) -> Frame:
        """One invocation, from INVOKE to the answer and the NEXT that follows it."""
        who = self.send(event, **fields)
        answer = self.frame()
        assert "\n".join(answer.head.split("\n")[:2]) == who
        self.ready()
        return answer

    def call(self, do: str = "", **event: object) -> Any:
        answer = self.invoke(json.dumps({"do": do, **event}).encode())
        assert answer.type == FrameType.RESPONSE, answer
        assert answer.head.split("\n")[2] == "application/json"
        return json.loads(answer.body)

    def error(self, do: str = "", **event: object) -> dict[str, Any]:
        answer = self.invoke(json.dumps({"do": do, **event}).encode())
        assert answer.type == FrameType.ERROR, answer
        payload: dict[str, Any] = json.loads(answer.body)
        assert answer.head.split("\n")[2] == payload["errorType"]
        return payload

    def failed_init(self) -> dict[str, Any]:
        """The payload of the error that initialisation ended with; the process has ended with 129."""
        frame = self.frame()
        assert frame.type == FrameType.INIT_ERROR
        payload: dict[str, Any] = json.loads(frame.body)
        assert frame.head == payload["errorType"]
        return payload

    def end(self) -> tuple[int, str]:
        """Wait for the process: its exit status, and what it printed."""
        self.channel.close()
        output, _ = self.process.communicate(timeout=HANG_S)
        return self.process.returncode, output.decode()

    def ended(self) -> tuple[int, str]:
        """The process has ended by itself."""
        with pytest.raises(EOFError):
            self.frame()
        output, _ = self.process.communicate(timeout=HANG_S)
        return self.process.returncode, output.decode()

    def close(self) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=HANG_S)


@pytest.fixture(params=PLANS, ids=lambda plan: plan.runtime)
def plan(request: pytest.FixtureRequest) -> RuntimePlan:
    found: RuntimePlan = request.param
    return found


@pytest.fixture
def major(plan: RuntimePlan) -> int:
    return int(plan.version.split(".")[0])


@pytest.fixture
def mode() -> str:
    return "program"


both_modes = pytest.mark.parametrize("mode", ["program", "warm"])


@pytest.fixture
def start(tmp_path: Path, plan: RuntimePlan, mode: str) -> Iterator[Callable[..., Runtime]]:
    """Starts runtimes, and ends them after the test. The function's file is ``FUNCTION``, or ``source``, or what ``files`` says."""
    started: list[Runtime] = []

    def start(
        handler: str = "index.handler",
        source: str = FUNCTION,
        file: str = "index.js",
        files: dict[str, str] | None = None,
        **environment: str,
    ) -> Runtime:
        for name, text in (files or {file: source}).items():
            path = tmp_path / "task" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        started.append(Runtime(tmp_path, plan, mode, handler, **environment))
        return started[-1]

    yield start
    for runtime in started:
        runtime.close()


# -- events and answers ------------------------------------------------------------------------------------------------------------


@both_modes
def test_events_come_back_as_they_went(start):
    runtime = start()
    runtime.ready()
    for value in ({}, {"a": [1, 2.5, None, True, "x"]}, {"é": "日本 \U0001f600 \u2028"}, {"f": -0.5, "n": 10**15}):
        assert runtime.call("echo", **value) == {"do": "echo", **value}
    assert runtime.call("nothing") is None
    assert runtime.end() == (0, "")  # the node is gone: quietly


def test_large_events_and_answers_in_any_pieces(start):
    runtime = start()
    runtime.ready()
    assert runtime.call("measure", text="x" * 6_000_000) == 6_000_000
    assert runtime.call("large", size=6_000_000) == "x" * 6_000_000
    frame = encode_invoke(7, "r", int(time.time() * 1000) + 60_000, "arn", "", b'{"do": "echo", "a": 1}')
    for byte in frame:
        runtime.channel.send(bytes([byte]))
    assert runtime.frame().body == b'{"do":"echo","a":1}'


@both_modes
def test_the_context_tells_all_that_the_frame_and_the_environment_say(start, major):
    runtime = start(GREETING="hi")
    runtime.ready()
    client = {"client": {"installation_id": "i-1"}, "custom": {"k": "v\nw"}}
    fields = {
        "trace": TRACE,
        "tenant": "blue",
        "cognito": json.dumps({"cognitoIdentityId": "id", "cognitoIdentityPoolId": "pool"}),
        "client_context": json.dumps(client, indent=1),  # only the last field may hold line feeds
    }
    told = json.loads(runtime.invoke(b'{"do": "describe"}', **fields).body)
    assert 0 < told["remaining"] <= 60_000
    waits = {"callbackWaitsForEmptyEventLoop": True} if major < 24 else {}
    assert told["own"] == {
        **waits,
        "functionVersion": "$LATEST",
        "functionName": "greeter",
        "memoryLimitInMB": "256",
        "logGroupName": "/aws/lambda/greeter",
        "logStreamName": STREAM,
        "clientContext": client,
        "identity": {"cognitoIdentityId": "id", "cognitoIdentityPoolId": "pool"},
        "invokedFunctionArn": "arn:aws:lambda:eu-west-1:123456789012:function:greeter:live",
        "awsRequestId": "00000000-0000-4000-8000-000000000001",
        "tenantId": "blue",
    }
    assert told["trace"] == TRACE
    assert told["store"] == told["own"]["awsRequestId"]
    assert told["cwd"] == str(runtime.task)
    expected = {**runtime.environment, "_X_AMZN_TRACE_ID": TRACE}
    expected.pop("NODE_OPTIONS", None)  # ours
    assert {name: value for name, value in told["env"].items() if name not in ("_", "OLDPWD")} == expected
    bare = runtime.call("describe")
    assert bare["trace"] is None
    assert not {"clientContext", "identity", "tenantId"} & set(bare["own"])


def test_node_options_of_the_functions_own_stay(start):
    runtime = start(NODE_OPTIONS="--no-warnings")
    runtime.ready()
    assert runtime.call("describe")["env"]["NODE_OPTIONS"] == "--no-warnings"


# -- errors ------------------------------------------------------------------------------------------------------------------------


@both_modes
def test_an_exception_becomes_awss_payload_and_the_runtime_goes_on(start):
    runtime = start()
    runtime.ready()
    answer = runtime.invoke(json.dumps({"do": "fail", "message": "no\nluck"}).encode())
    assert answer.type == FrameType.ERROR
    _, _, error_type, cause = answer.head.split("\n", 3)
    payload = json.loads(answer.body)
    trace = payload.pop("trace")
    assert payload == {"errorType": "TypeError", "errorMessage": "no\nluck"}
    assert trace[:2] == ["TypeError: no", "luck"]
    assert f"{runtime.task}/index.js" in trace[2]
    assert error_type == "TypeError"
    told = json.loads(cause)
    assert told["exceptions"][0]["message"] == "no\nluck"
    assert told["working_directory"] == str(runtime.task)
    assert runtime.call("echo", a=1)["a"] == 1
    _, printed = runtime.end()
    line = printed.splitlines()[0]
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z\t00000000-0000-4000-8000-000000000001\tERROR\tInvoke Error \t\{", line)
    shown = json.loads(line.split("\t", 4)[4])
    assert (shown["errorType"], shown["errorMessage"], shown["code"]) == ("TypeError", "no\nluck", "E_CODE")
    assert shown["stack"][0] == "TypeError: no"


@pytest.mark.parametrize(
    ("do", "error_type", "message"),
    [
        ("throwText", "string", "only text"),
        ("throwOdd", "handled", "callback called with Error argument, but there was a problem while retrieving one or more of its"),
        ("round", "Error", "Unable to stringify response body"),
        ("big", "Error", "Unable to stringify response body"),
        ("func", "Error", "Unable to stringify response body"),
        ("never", "Runtime.NodeJsExit", "The Lambda runtime client detected an unexpected Node.js exit code."),
    ],
)
def test_odd_endings(start, do, error_type, message):
    runtime = start()
    runtime.ready()
    payload = runtime.error(do)
    assert payload["errorType"] == error_type
    assert payload["errorMessage"].startswith(message)
    assert isinstance(payload["trace"], list)
    assert runtime.call("echo")["do"] == "echo"


@pytest.mark.parametrize(
    ("do", "status", "error_type", "message"),
    [
        ("reject", 128, "Runtime.UnhandledPromiseRejection", "RangeError: nobody listens"),
        ("throwLater", 129, "Error", "in the air"),
    ],
)
def test_what_nobody_catches_is_told_and_ends_the_process(start, do, status, error_type, message):
    runtime = start()
    runtime.ready()
    runtime.send(json.dumps({"do": do}).encode())
    frame = runtime.frame()
    assert frame.type == FrameType.ERROR
    payload = json.loads(frame.body)
    assert (payload["errorType"], payload["errorMessage"]) == (error_type, message)
    code, printed = runtime.ended()
    assert code == status
    assert ("Unhandled Promise Rejection \t" if status == 128 else "Uncaught Exception \t") in printed


def test_an_answer_that_came_before_a_stray_rejection(start, major):
    runtime = start()
    runtime.ready()
    runtime.send(b'{"do": "rejectAndAnswer"}')
    frame = runtime.frame()  # and no NEXT: the process is about to end
    if major < 24:
        assert (frame.type, frame.body) == (FrameType.RESPONSE, b'"answered"')
    else:
        assert (frame.type, json.loads(frame.body)["errorType"]) == (FrameType.ERROR, "Runtime.UnhandledPromiseRejection")
    assert runtime.ended()[0] == 128


def test_exits_and_signals(start):
    for event, status in ({"do": "leave", "code": 0}, 0), ({"do": "leave", "code": 7}, 7), ({"do": "die"}, -9):
        runtime = start()
        runtime.ready()
        runtime.send(json.dumps(event).encode())
        assert runtime.ended() == (status, "")


# -- handlers ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "files", "error_type", "message"),
    [
        (
            "index.handler",
            {"other.js": ""},
            "Runtime.ImportModuleError",
            "Error: Cannot find module 'index'\nRequire stack:\n- /var/runtime/index.mjs",
        ),
        (
            "index.handler",
            {"index.js": "require('left-pad')"},
            "Runtime.ImportModuleError",
            "Error: Cannot find module 'left-pad'\nRequire stack:\n- ",
        ),
        ("index.missing", {"index.js": FUNCTION}, "Runtime.HandlerNotFound", "index.missing is undefined or not exported"),
        ("index.nested.no.where", {"index.js": FUNCTION}, "Runtime.HandlerNotFound", "index.nested.no.where is undefined or not exported"),
        ("index.number", {"index.js": FUNCTION}, "Runtime.HandlerNotFound", "index.number is not a function"),
        ("index.handler", {"index.js": "exports.handler = async ( =>"}, "Runtime.UserCodeSyntaxError", "SyntaxError: "),
        ("index.handler", {"index.mjs": "export const handler = async ( =>"}, "Runtime.UserCodeSyntaxError", "SyntaxError: "),
        ("index.handler", {"index.mjs": "import 'left-pad'"}, "Error", "Cannot find package 'left-pad' imported from "),
        ("index.handler", {"index.js": "throw new RangeError('at load')"}, "RangeError", "at load"),
        ("index.handler", {"index.mjs": "await Promise.reject(new RangeError('at load'))"}, "RangeError", "at load"),
        ("index", {"index.js": FUNCTION}, "Runtime.MalformedHandlerName", "Bad handler"),
        ("../index.handler", {"index.js": FUNCTION}, "Runtime.MalformedHandlerName", "'../index.handler' is not a valid handler name."),
        (
            "index.handler",
            {"index.js": ODDLY_STREAMING},
            "Runtime.MalformedStreamingHandler",
            "Only response streaming is supported.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
def test_functions_that_cannot_be_loaded(start, handler, files, error_type, message):
    runtime = start(handler, files=files)
    payload = runtime.failed_init()
    assert payload["errorType"] == error_type
    assert payload["errorMessage"].startswith(message)
    assert payload["trace"]
    code, printed = runtime.ended()
    assert code == 129
    assert "\tundefined\tERROR\tUncaught Exception \t{" in printed


def test_initialisation_may_crash_later_or_never_end(start):
    runtime = start(source="setTimeout(() => { throw new Error('late') }, 1); module.exports = {}", handler="index.mjs.x", files=None)
    assert runtime.failed_init()["errorType"] == "Runtime.HandlerNotFound"
    runtime = start(
        "slow.handler",
        "setTimeout(() => { throw new Error('late') }, 5); await new Promise(() => {}); export const handler = 1",
        "slow.mjs",
    )
    assert runtime.failed_init()["errorMessage"] == "late"
    assert runtime.ended()[0] == 129
    runtime = start("endless.handler", "await new Promise(() => {}); export const handler = 1", "endless.mjs")
    assert runtime.ended()[0] == 13


COMMONJS = "exports.handler = async () => [typeof require, __filename]"
MODULE = "const late = await Promise.resolve('awaited');\nexport const handler = async () => [late, import.meta.url]"


@both_modes
@pytest.mark.parametrize(
    ("handler", "files", "told"),
    [
        ("index.handler", {"index.js": COMMONJS}, ["function", "{task}/index.js"]),
        ("index.handler", {"index": COMMONJS, "index.js": "throw 1"}, ["function", "{task}/index"]),
        ("index.handler", {"index.cjs": COMMONJS}, ["function", "{task}/index.cjs"]),
        ("index.handler", {"index.mjs": MODULE, "index.cjs": COMMONJS}, ["awaited", "file://{task}/index.mjs"]),
        ("index.handler", {"index.js": MODULE, "package.json": '{"type": "module"}'}, ["awaited", "file://{task}/index.js"]),
        (
            "src/lib/app.handler",
            {"src/lib/app.js": MODULE, "src/package.json": '{"type": "module"}'},
            ["awaited", "file://{task}/src/lib/app.js"],
        ),
        (
            "src/app.handler",
            {"src/app.js": COMMONJS, "src/package.json": "{}", "package.json": '{"type": "module"}'},
            ["function", "{task}/src/app.js"],
        ),
        ("index.api.get", {"index.js": "exports.api = { get: async () => ['nested', ''] }"}, ["nested", ""]),
        ("index.handler", {"index.mjs": "export default { handler: async () => ['default', ''] }"}, ["default", ""]),
        ("pack.handler", {"node_modules/pack/index.js": COMMONJS}, ["function", "{task}/node_modules/pack/index.js"]),
        ("pack.handler", {"../modules/pack/index.js": COMMONJS}, ["function", "{modules}/pack/index.js"]),
    ],
)
def test_where_handlers_are_found(start, handler, files, told, tmp_path):
    if "../modules/pack/index.js" in files:
        files = {**files, "index.js": "exports.handler = require('pack').handler"}
        handler = "index.handler"
    runtime = start(handler, files=files)
    runtime.ready()
    assert runtime.call() == [text.format(task=runtime.task, modules=tmp_path / "modules") for text in told]


def test_features_that_aws_switches_off_are_off(start, major):
    files = {
        "index.js": "exports.handler = async () => { try { return require('./m.mjs').x } catch (error) { return error.code } }",
        "m.mjs": "export const x = 1",
    }
    runtime = start(files=files)
    runtime.ready()
    assert runtime.call() == ("ERR_REQUIRE_ESM" if major < 24 else 1)


# -- callbacks and the event loop --------------------------------------------------------------------------------------------------

CALLBACKS = """
exports.now = (event, context, callback) => {
  setTimeout(() => console.log('after'), 20);
  callback(null, 'called back');
  callback(null, 'again');
};
exports.impatient = (event, context, callback) => {
  context.callbackWaitsForEmptyEventLoop = false;
  setTimeout(() => console.log('after'), 20);
  callback(null, 'impatient');
};
exports.failing = (event, context, callback) => callback(new TypeError('called'));
exports.text = (event, context, callback) => callback('text');
exports.throwing = (event, context, callback) => { throw new TypeError('thrown'); };
exports.later = (event, context, callback) => { setTimeout(callback, 10, undefined, 'later'); };
exports.silent = (event, context, callback) => { setTimeout(() => console.log('worked'), 10); };
exports.done = (event, context) => { setTimeout(() => console.log('after'), 5000); context.done(null, 'done'); };
exports.succeed = (event, context) => context.succeed({ a: 1 });
exports.fail = (event, context) => context.fail(new RangeError('failed'));
exports.failNothing = (event, context) => context.fail();
"""


@pytest.fixture
def _has_callbacks(major):
    if major >= 24:
        pytest.skip("callbacks ended with Node.js 22")


@pytest.mark.usefixtures("_has_callbacks")
@pytest.mark.parametrize(
    ("name", "answer", "printed"),
    [
        ("now", "called back", "after"),
        ("impatient", "impatient", ""),
        ("later", "later", ""),
        ("silent", None, "worked"),
        ("done", "done", ""),
        ("succeed", {"a": 1}, ""),
    ],
)
def test_callbacks(start, name, answer, printed):
    runtime = start(f"index.{name}", CALLBACKS)
    runtime.ready()
    assert runtime.call() == answer
    code, output = runtime.end()
    assert code == 0
    assert output.rstrip("\n").rpartition("\t")[2] == printed


@pytest.mark.usefixtures("_has_callbacks")
@pytest.mark.parametrize(
    ("name", "error_type", "message"),
    [
        ("failing", "TypeError", "called"),
        ("text", "string", "text"),
        ("throwing", "TypeError", "thrown"),
        ("fail", "RangeError", "failed"),
        ("failNothing", "string", "handled"),
    ],
)
def test_callbacks_that_fail(start, name, error_type, message):
    runtime = start(f"index.{name}", CALLBACKS)
    runtime.ready()
    for _ in range(2):
        payload = runtime.error()
        assert (payload["errorType"], payload["errorMessage"]) == (error_type, message)


def test_callbacks_are_refused_from_node_24_on(start, major):
    runtime = start("index.now", CALLBACKS)
    if major < 24:
        runtime.ready()
        return
    payload = runtime.failed_init()
    assert payload["errorType"] == "Runtime.CallbackHandlerDeprecated"
    assert payload["errorMessage"].startswith(
        "ERROR: AWS Lambda has removed support for callback-based function handlers starting with Node.js 24."
    )


def test_a_plain_function_answers_with_its_value_from_node_24_on(start, major):
    runtime = start("index.sync")
    runtime.ready()
    assert runtime.call("echo") == ({"do": "echo"} if major >= 24 else None)
    assert runtime.call("sleep", ms=1) == "slept"  # a promise is one in any case
    assert runtime.error("fail", message="m")["errorMessage"] == "m"


def test_what_is_left_running_goes_on_while_an_event_is_waited_for(start):
    runtime = start()
    runtime.ready()
    assert runtime.call("later") == "now"
    assert runtime.process.stdout.readline().decode().endswith("INFO\tbetween\n")


# -- logging -----------------------------------------------------------------------------------------------------------------------

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@both_modes
def test_text_records_are_lines(start):
    runtime = start("index.handler", "console.info('at load');" + FUNCTION)
    runtime.ready()
    runtime.call("log")
    _, printed = runtime.end()
    lines = printed.split("\n")
    request = "00000000-0000-4000-8000-000000000001"
    records = [line.split("\t", 3)[1:] for line in lines if re.match(STAMP + "\t", line)]
    assert records[:2] == [["undefined", "INFO", "at load"], [request, "INFO", "plain\rtwo { a: 1 } [ 2 ]"]]
    assert records[2][1:2] == ["ERROR"]
    assert records[2][2].startswith("Error: shown\r    at ")
    assert records[3:6] == [[request, "WARN", "w-5"], [request, "DEBUG", "debug"], [request, "TRACE", "trace"]]
    assert records[6][2].startswith("┌")
    assert "raw" in lines
    assert len(records) == 7


@both_modes
def test_json_records(start):
    runtime = start(AWS_LAMBDA_LOG_FORMAT="JSON", AWS_LAMBDA_LOG_LEVEL="WARN")
    runtime.ready()
    runtime.call("log")
    runtime.invoke(b'{"do": "log"}', tenant="blue")
    runtime.error("fail", message="m")
    _, printed = runtime.end()
    records = [json.loads(line) for line in printed.splitlines() if line != "raw"]
    assert all(re.fullmatch(STAMP, record.pop("timestamp")) for record in records)
    error, warning = records[:2]
    assert (error["level"], error["requestId"]) == ("ERROR", "00000000-0000-4000-8000-000000000001")
    assert (error["message"]["errorType"], error["message"]["errorMessage"]) == ("Error", "shown")
    assert error["message"]["stackTrace"][0] == "Error: shown"
    assert warning == {"level": "WARN", "requestId": "00000000-0000-4000-8000-000000000001", "message": "w-5"}
    assert [record.get("tenantId") for record in records] == [None, None, "blue", "blue", None]
    assert records[4]["message"]["errorType"] == "TypeError"


def test_json_records_of_errors_objects_and_circles(start):
    runtime = start(AWS_LAMBDA_LOG_FORMAT="JSON")
    runtime.ready()
    runtime.call("logError")
    _, printed = runtime.end()
    error, deep, circle = map(json.loads, printed.splitlines())
    assert error["message"].startswith("it failed: TypeError: why\n")
    assert (error["errorType"], error["errorMessage"], error["stackTrace"][0]) == ("TypeError", "why", "TypeError: why")
    assert deep["message"] == {"deep": {"a": [1]}}
    assert circle["message"].startswith("<ref *1> { a: [Circular *1] }")


def test_all_that_was_printed_is_in_the_pipe_before_the_answer(start):
    runtime = start()
    runtime.ready()
    os.set_blocking(runtime.process.stdout.fileno(), False)
    runtime.send(b'{"do": "flood", "lines": 300}')
    printed = b""
    runtime.channel.setblocking(False)
    answer = b""
    give_up = time.monotonic() + HANG_S
    while not answer and time.monotonic() < give_up:
        try:
            answer = runtime.channel.recv(1 << 20)
        except BlockingIOError:
            printed += runtime.process.stdout.read() or b""
    printed += runtime.process.stdout.read() or b""
    assert (printed.count(b"y" * 1000), printed.count(b"z")) == (300, 300_000)


# -- streaming ---------------------------------------------------------------------------------------------------------------------

STREAMS = """
const { pipeline } = require('stream/promises');
const { Readable } = require('stream');
const streamed = (fn, options) => awslambda.streamifyResponse(fn, options);
const tick = () => new Promise((resolve) => setImmediate(resolve));

exports.simple = streamed(async (event, stream, context) => {
  stream.setContentType('text/plain');
  stream.write('one ');
  await tick();
  stream.write(Buffer.from('two '));
  stream.write({ three: 3 });
  stream.end('!');
});
exports.empty = streamed(async (event, stream) => { stream.end(); });
exports.piped = streamed(async (event, stream) => { await pipeline(Readable.from(['a', 'b', 'c']), stream); });
exports.http = streamed(async (event, stream) => {
  stream = awslambda.HttpResponseStream.from(stream, { statusCode: 201, headers: { 'x-y': 'z' } });
  stream.write('body');
  stream.end();
});
exports.early = streamed(async () => { throw new TypeError('early'); });
exports.middle = streamed(async (event, stream) => { stream.write('some'); await tick(); throw new TypeError('middle'); });
exports.late = streamed(async (event, stream) => { stream.write('x'); stream.setContentType('text/html'); });
exports.unfinished = streamed(async (event, stream) => { stream.write('x'); });
exports.destroyed = streamed(async (event, stream) => { stream.write('x'); stream.destroy(); });
exports.plain = streamed((event, stream) => { stream.end('x'); });
exports.valued = streamed(async (event, stream) => { stream.end('x'); return 5; });
exports.crash = streamed(async (event, stream) => {
  stream.write('x');
  setImmediate(() => { throw new Error('crash') });
  await new Promise((resolve) => setTimeout(resolve, 60000));
});
exports.large = streamed(async (event, stream) => {
  let waited = 0;
  for (let i = 0; i < 40; i++) {
    if (!stream.write(Buffer.alloc(262144, i))) { waited++; await new Promise((resolve) => stream.once('drain', resolve)); }
  }
  stream.end(String(waited));
}, { highWaterMark: 1000 });
exports.huge = streamed(async (event, stream) => { stream.end('x'.repeat(3000000)); });
exports.context = streamed(async (event, stream, context) => {
  stream.end(JSON.stringify([event, context.awsRequestId, stream.writableHighWaterMark]));
}, { highWaterMark: 77 });
exports.wait = streamed(async (event, stream) => {
  const busy = setInterval(() => {}, 1000);
  const asked = new Promise((resolve) => process.once('SIGUSR2', resolve));
  stream.write('first');
  await asked;
  clearInterval(busy);
  stream.end('second');
});
exports.lingering = streamed(async (event, stream) => { setTimeout(() => console.log('lingered'), 30); stream.end('x'); });
"""


def stream_of(runtime: Runtime) -> tuple[str, bytes, Frame]:
    """Content type, body and RESPONSE_END of a stream, whose NEXT has come."""
    who = runtime.send(b'{"a":1}')
    begin = runtime.frame()
    assert (begin.type, begin.head.rpartition("\n")[0]) == (FrameType.RESPONSE_START, who)
    body = b""
    while (frame := runtime.frame()).type == FrameType.CHUNK:
        assert frame.head == who.split("\n")[0]
        assert 0 < len(frame.body) <= 1_048_576
        body += frame.body
    assert (frame.type, frame.head.rpartition("\n")[0]) == (FrameType.RESPONSE_END, who)
    runtime.ready()
    return begin.head.rpartition("\n")[2], body, frame


def whole_stream(runtime: Runtime) -> tuple[str, bytes]:
    kind, body, end = stream_of(runtime)
    assert (end.head.rpartition("\n")[2], end.body) == ("", b"")
    return kind, body


@both_modes
@pytest.mark.parametrize(
    ("name", "kind", "body"),
    [
        ("simple", "text/plain", b'one two {"three":3}!'),
        ("empty", "application/octet-stream", b""),
        ("piped", "application/octet-stream", b"abc"),
        (
            "http",
            "application/vnd.awslambda.http-integration-response",
            b'{"statusCode":201,"headers":{"x-y":"z"}}' + bytes(8) + b"body",
        ),
        ("valued", "application/octet-stream", b"x"),
        ("huge", "application/octet-stream", b"x" * 3_000_000),
    ],
)
def test_streams(start, name, kind, body):
    runtime = start(f"index.{name}", STREAMS)
    runtime.ready()
    for _ in range(2):
        assert whole_stream(runtime) == (kind, body)
    _, printed = runtime.end()
    assert ("Streaming handlers ignore return values." in printed) == (name == "valued")


def test_a_stream_knows_its_event_context_and_mark(start):
    runtime = start("index.context", STREAMS)
    runtime.ready()
    assert json.loads(whole_stream(runtime)[1]) == [{"a": 1}, "00000000-0000-4000-8000-000000000001", 77]


def test_the_first_bytes_leave_while_the_function_runs(start):
    runtime = start("index.wait", STREAMS)
    runtime.ready()
    runtime.send(b"{}")
    assert [runtime.frame().type, runtime.frame().body] == [FrameType.RESPONSE_START, b"first"]
    runtime.process.send_signal(12)  # only now does it go on
    assert runtime.frame().body == b"second"
    assert runtime.frame().type == FrameType.RESPONSE_END
    runtime.ready()


def test_a_slow_receiver_holds_the_function_back(start):
    runtime = start("index.large", STREAMS)
    runtime.ready()
    _, body = whole_stream(runtime)
    assert body[: 40 * 262_144] == b"".join(bytes([i]) * 262_144 for i in range(40))
    assert int(body[40 * 262_144 :]) > 0


@pytest.mark.parametrize(
    ("name", "error_type", "message"),
    [
        ("middle", "TypeError", "middle"),
        ("late", "Runtime.InvalidStreamingOperation", "Cannot set content-type, too late."),
        ("unfinished", "Error", "Response stream is not finished."),
        ("destroyed", "Error", "Response stream is not finished."),
    ],
)
def test_streams_that_fail_on_the_way(start, name, error_type, message):
    runtime = start(f"index.{name}", STREAMS)
    runtime.ready()
    for _ in range(2):
        _, body, end = stream_of(runtime)
        assert body in (b"some", b"x")
        payload = json.loads(end.body)
        assert (end.head.rpartition("\n")[2], payload["errorType"], payload["errorMessage"]) == (error_type, error_type, message)


@pytest.mark.parametrize(
    ("name", "error_type", "message"),
    [("early", "TypeError", "early"), ("plain", "Error", "Streaming does not support non-async handlers.")],
)
def test_streams_that_fail_before_the_first_byte(start, name, error_type, message):
    runtime = start(f"index.{name}", STREAMS)
    runtime.ready()
    payload = runtime.error() if name == "early" else json.loads(stream_of(runtime)[2].body)
    assert (payload["errorType"], payload["errorMessage"]) == (error_type, message)


def test_a_crash_within_a_stream(start):
    runtime = start("index.crash", STREAMS)
    runtime.ready()
    runtime.send(b"{}")
    frames = [runtime.frame() for _ in range(3)]
    assert [frame.type for frame in frames] == [FrameType.RESPONSE_START, FrameType.CHUNK, FrameType.RESPONSE_END]
    assert json.loads(frames[2].body)["errorMessage"] == "crash"
    assert runtime.ended()[0] == 129


def test_before_node_24_a_stream_waits_for_the_empty_event_loop(start, major):
    runtime = start("index.lingering", STREAMS)
    runtime.ready()
    assert whole_stream(runtime)[1] == b"x"
    if major < 24:
        assert "lingered" in runtime.end()[1]


def test_no_global_where_it_is_not_wanted(start):
    source = "exports.handler = async () => typeof awslambda"
    runtime = start(source=source)
    runtime.ready()
    assert runtime.call() == "object"
    runtime = start(source=source, AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA="1")
    runtime.ready()
    assert runtime.call() == "undefined"
