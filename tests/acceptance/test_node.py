"""Node.js functions, as their authors meet them: boto3, a real server, real sandboxes."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from acceptance_helpers import ROLE, call, settle, zipped

from lambent.runtimes.catalogue import Catalogue
from lambent.runtimes.plan import RuntimePlan
from lambent.testing.local_server import LocalServer

PLANS = [plan for plan in Catalogue().installed() if plan.runtime.startswith("nodejs")]
WRAPPER = b'#!/bin/sh\nset -eo pipefail\nexport GREETING=wrapped\nexec "$@"\n'

pytestmark = pytest.mark.skipif(not PLANS, reason="this machine has no Node.js")

Create = Callable[..., str]

FUNCTION = """
const fs = require('fs');
let count = 0;
console.log('loading');
const doing = {
  echo: (event) => event,
  count: () => ++count,
  context: (event, context) => ({ ...context, remaining: context.getRemainingTimeInMillis(), env: process.env, cwd: process.cwd() }),
  fail: (event) => { throw new TypeError(event.message); },
  reject: () => { Promise.reject(new RangeError('stray')); return new Promise((resolve) => setTimeout(resolve, 60000)); },
  exit: (event) => process.exit(event.code),
  kill: () => process.kill(process.pid, 'SIGKILL'),
  sleep: (event) => new Promise((resolve) => setTimeout(resolve, event.ms)),
  log: () => { console.log('one\\ntwo', { a: 1 }); console.warn('careful'); },
  eat: () => { const all = []; for (;;) all.push(Buffer.alloc(10000000, 1)); },
  large: () => 'x'.repeat(7 * 1024 * 1024),
  write: () => { fs.writeFileSync('/tmp/kept', 'kept'); return fs.readFileSync('/tmp/kept', 'utf8'); },
  readonly: () => { fs.writeFileSync('/var/task/x', 'x'); },
  fetch: async () => (await import('http')).Agent.name,
};
exports.handler = async (event, context) => doing[event.do](event, context);
exports.old = (event, context, callback) => { setTimeout(() => callback(null, 'called back'), 5); };
"""


@pytest.fixture(scope="module", params=PLANS, ids=lambda plan: plan.runtime)
def plan(request: pytest.FixtureRequest) -> RuntimePlan:
    found: RuntimePlan = request.param
    return found


@pytest.fixture(scope="module")
def create(server, plan) -> Iterator[Create]:
    """Create a function of ``files`` (or ``FUNCTION``) and wait until it is active; deleted at the end of the module."""
    api = server.client("lambda")
    created = []

    def make(name: str, files: dict[str, str | bytes] | str = FUNCTION, handler: str = "index.handler", **options: Any) -> str:
        content = zipped({"index.js": files} if isinstance(files, str) else files)
        request = {
            "Runtime": plan.runtime,
            "Role": ROLE,
            "Handler": handler,
            "Code": {"ZipFile": content},
            "MemorySize": 512,
            "Timeout": 20,
        }
        name = f"{name}-{plan.runtime.replace('.', '')}"
        api.create_function(FunctionName=name, **{**request, **options})
        created.append(name)
        settle(api, name)
        return name

    yield make
    for name in created:
        api.delete_function(FunctionName=name)


@pytest.fixture(scope="module")
def usual(create) -> str:
    """One function for tests that leave its environment as it was."""
    name: str = create("usual", Environment={"Variables": {"GREETING": "hi"}})
    return name


def test_events_come_back_and_the_environment_is_kept(api, usual):
    payload, answer = call(api, usual, {"do": "echo", "é": [1, None, "日"]})
    assert payload == {"do": "echo", "é": [1, None, "日"]}
    assert "FunctionError" not in answer
    first, _ = call(api, usual, {"do": "count"})
    assert call(api, usual, {"do": "count"})[0] == first + 1
    assert call(api, usual, {"do": "write"})[0] == "kept"


def test_the_context_and_the_environment_are_awss(api, usual, plan):
    told, answer = call(api, usual, {"do": "context"})
    assert told["functionName"] == usual
    assert (told["functionVersion"], told["memoryLimitInMB"], told["cwd"]) == ("$LATEST", "512", "/var/task")
    assert told["awsRequestId"] == answer["ResponseMetadata"]["RequestId"]
    assert told["invokedFunctionArn"].endswith(f":function:{usual}")
    assert 15_000 < told["remaining"] <= 20_000
    env = told["env"]
    major = plan.version.split(".")[0]
    assert env["GREETING"] == "hi"
    assert env["AWS_EXECUTION_ENV"] == f"AWS_Lambda_{plan.runtime}"
    assert env["NODE_PATH"].startswith(f"/opt/nodejs/node{major}/node_modules:/opt/nodejs/node_modules:/var/runtime/node_modules")
    assert env["_X_AMZN_TRACE_ID"].startswith("Root=1-")
    assert env["_HANDLER"] == "index.handler"
    assert not {"NODE_OPTIONS", "PYTHONPATH"} & set(env)


def test_log_lines_are_those_of_aws(api, logs, usual, plan):
    _, answer = call(api, usual, {"do": "log"})
    request = answer["ResponseMetadata"]["RequestId"]
    lines = answer["log"].splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    at = next(i for i, line in enumerate(answer["log"].split("\n")) if "one" in line)
    whole = answer["log"].split("\n")
    assert re.fullmatch(rf"{stamp}\t{request}\tINFO\tone", whole[at])
    assert whole[at + 1] == "two { a: 1 }"
    assert re.fullmatch(rf"{stamp}\t{request}\tWARN\tcareful", whole[at + 2])
    assert lines[-1].startswith(f"REPORT RequestId: {request}\tDuration: ")
    events = logs.filter_log_events(logGroupName=f"/aws/lambda/{usual}")["events"]
    messages = [event["message"] for event in events]
    major, minor = plan.version.split(".")[:2]
    assert messages[0].startswith(f"INIT_START Runtime Version: nodejs:{major}.v{minor}\tRuntime Version ARN: arn:aws:lambda:")
    assert re.fullmatch(rf"{stamp}\tundefined\tINFO\tloading\n", messages[1])
    assert sum("one" in message and message.endswith("two { a: 1 }\n") for message in messages) == 1, "records stay whole"


def test_json_records_are_filtered_by_their_level(api, create, logs):
    name = create("json", LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "WARN", "SystemLogLevel": "INFO"})
    _, answer = call(api, name, {"do": "log"})
    own = [json.loads(line) for line in answer["log"].splitlines() if '"level"' in line]
    assert [(record["level"], record["message"], record["requestId"]) for record in own] == [
        ("WARN", "careful", answer["ResponseMetadata"]["RequestId"])
    ]


def test_an_exception_is_a_payload(api, usual):
    payload, answer = call(api, usual, {"do": "fail", "message": "no luck"})
    assert answer["FunctionError"] == "Unhandled"
    assert (payload["errorType"], payload["errorMessage"]) == ("TypeError", "no luck")
    assert payload["trace"][0] == "TypeError: no luck"
    assert "/var/task/index.js:" in payload["trace"][1]
    assert set(payload) == {"errorType", "errorMessage", "trace"}
    assert "\tERROR\tInvoke Error \t{" in answer["log"]


@pytest.mark.parametrize(
    ("event", "error_type", "message"),
    [
        ({"do": "exit", "code": 7}, "Runtime.ExitError", "RequestId: {id} Error: Runtime exited with error: exit status 7"),
        ({"do": "exit", "code": 0}, "Runtime.ExitError", "RequestId: {id} Error: Runtime exited without providing a reason"),
        ({"do": "kill"}, "Runtime.ExitError", "RequestId: {id} Error: Runtime exited with error: signal: killed"),
        ({"do": "reject"}, "Runtime.UnhandledPromiseRejection", "RangeError: stray"),
        ({"do": "large"}, "Function.ResponseSizeTooLarge", "Response payload size exceeded maximum allowed payload size (6291556 bytes)."),
        ({"do": "readonly"}, "Error", "EROFS: read-only file system, open '/var/task/x'"),
    ],
    ids=lambda value: value["do"] + str(value.get("code", "")) if isinstance(value, dict) else "",
)
def test_bad_ends_and_the_next_invocation(api, usual, event, error_type, message):
    payload, answer = call(api, usual, event)
    request = answer["ResponseMetadata"]["RequestId"]
    assert (payload["errorType"], payload["errorMessage"]) == (error_type, message.format(id=request))
    assert answer["FunctionError"] == "Unhandled"
    assert call(api, usual, {"do": "echo"})[0] == {"do": "echo"}


def test_a_function_that_eats_memory_is_killed(api, create):
    name = create("hungry", MemorySize=128)
    payload, answer = call(api, name, {"do": "eat"})
    assert answer["FunctionError"] == "Unhandled"
    assert payload["errorType"] in ("Runtime.OutOfMemory", "Runtime.ExitError")
    assert "Runtime exited with error: signal: " in payload["errorMessage"]
    assert call(api, name, {"do": "echo"})[0] == {"do": "echo"}


GARBAGE = """
const live = [];
exports.handler = async (event) => {
  while (live.length < 100) live.push(new Array(12500).fill(0).map((_, i) => i + 0.5));
  let kept = [];
  for (let round = 0; round < 4000; round++) {
    kept.push(new Array(500).fill(0).map((_, i) => ({ i, text: 'x' + i })));
    if (kept.length > 400) kept = kept.slice(200);
  }
  return kept.length;
};
"""


def test_garbage_is_collected_before_it_fills_the_memory(plan, tmp_path):
    """20 MB live, some 200 MB pass: the heap must know that this machine is the function's, however large the host's."""
    (tmp_path / "lambent.toml").write_text("[sandbox]\nmb_per_vcpu = 0\n")  # so little memory buys little of a processor
    with LocalServer(config=tmp_path / "lambent.toml") as server:
        api = server.client("lambda")
        for name, variables in (("waiting", {}), ("fresh", {"NODE_OPTIONS": "--no-warnings"})):
            request = {"Role": ROLE, "Handler": "index.handler", "MemorySize": 128, "Timeout": 60, "Environment": {"Variables": variables}}
            api.create_function(FunctionName=name, Runtime=plan.runtime, Code={"ZipFile": zipped({"index.js": GARBAGE})}, **request)
            settle(api, name)
            payload, answer = call(api, name)
            assert "FunctionError" not in answer, payload
            assert 200 <= payload <= 400


def test_a_timeout(api, create):
    name = create("slow", Timeout=1)
    payload, answer = call(api, name, {"do": "sleep", "ms": 60_000})
    request = answer["ResponseMetadata"]["RequestId"]
    assert payload == {"errorType": "Sandbox.Timedout", "errorMessage": f"RequestId: {request} Error: Task timed out after 1.00 seconds"}
    assert call(api, name, {"do": "echo"})[0] == {"do": "echo"}


@pytest.mark.parametrize(
    ("files", "handler", "error_type", "message"),
    [
        ("exports.x = 1", "index.handler", "Runtime.HandlerNotFound", "index.handler is undefined or not exported"),
        (
            "require('nowhere')",
            "index.handler",
            "Runtime.ImportModuleError",
            "Error: Cannot find module 'nowhere'\nRequire stack:\n- /var/task/index.js\n",
        ),
        ("this is no code", "index.handler", "Runtime.UserCodeSyntaxError", "SyntaxError: "),
        ("throw new RangeError('at load')", "index.handler", "RangeError", "at load"),
        ("process.exit(3)", "index.handler", "Runtime.ExitError", "RequestId: "),
    ],
)
def test_functions_that_do_not_initialise(api, create, files, handler, error_type, message):
    name = create(f"broken{abs(hash(files)) % 1_000_000}", files, handler)
    for _ in range(2):
        payload, answer = call(api, name)
        assert answer["FunctionError"] == "Unhandled"
        assert payload["errorType"] == error_type
        assert payload["errorMessage"].startswith(message)
    api.update_function_code(FunctionName=name, ZipFile=zipped({"index.js": FUNCTION}))
    settle(api, name)
    api.update_function_configuration(FunctionName=name, Handler="index.handler")
    settle(api, name)
    assert call(api, name, {"do": "echo"})[0] == {"do": "echo"}


def test_modules_with_top_level_await(api, create):
    source = """
    import { readFile } from 'fs/promises';
    const text = await readFile('./data.txt', 'utf8');
    export const handler = async () => text;
    """
    assert call(api, create("esm", {"index.mjs": source, "data.txt": "read"}))[0] == "read"
    files = {"src/app.js": "export const handler = async () => import.meta.url", "package.json": '{"type": "module"}'}
    assert call(api, create("package", files, "src/app.handler"))[0] == "file:///var/task/src/app.js"


def test_callback_handlers_by_version(api, create, plan):
    payload, answer = call(api, create("old", FUNCTION, "index.old"))
    if int(plan.version.split(".")[0]) < 24:
        assert payload == "called back"
    else:
        assert payload["errorType"] == "Runtime.CallbackHandlerDeprecated"
        assert answer["FunctionError"] == "Unhandled"


def test_node_options_are_heard(api, create):
    source = "exports.handler = async () => [process.execArgv, process.env.NODE_OPTIONS, require('v8').getHeapStatistics().heap_size_limit]"
    name = create("options", source, Environment={"Variables": {"NODE_OPTIONS": "--no-warnings --title=mine"}})
    arguments, options, limit = call(api, name)[0]
    assert options == "--no-warnings --title=mine"
    assert "--expose-gc" in arguments
    assert limit < 1024 * 2**20  # the memory of the function, not that of the machine


def hooks_modules(plan: RuntimePlan) -> bool:
    return tuple(map(int, plan.version.split("."))) >= (22, 15, 0)


def test_a_layer_brings_modules_and_a_wrapper(api, create, plan):
    major = plan.version.split(".")[0]
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        files = {
            f"nodejs/node{major}/node_modules/ours/index.js": b"module.exports = 'versioned'",
            "nodejs/node_modules/all/index.js": b"module.exports = 'all'",
        }
        for name, content in {**files, "wrapper": WRAPPER}.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, (0o100755 if name == "wrapper" else 0o100644) << 16
            archive.writestr(entry, content)
    layer = api.publish_layer_version(LayerName=f"modules-{major}", Content={"ZipFile": memory.getvalue()})["LayerVersionArn"]
    source = "exports.handler = async () => [require('ours'), require('all'), process.env.GREETING]"
    plain = create("layered", source, Layers=[layer])
    assert call(api, plain)[0] == ["versioned", "all", None]
    esm = "import all from 'all'; export const handler = async () => [all, await import('ours').then((m) => m.default, (e) => e.code)];"
    versioned = "versioned" if hooks_modules(plan) else "ERR_MODULE_NOT_FOUND"
    assert call(api, create("layered-esm", {"index.mjs": esm}, Layers=[layer]))[0] == ["all", versioned]
    wrapped = create("wrapped", source, Layers=[layer], Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrapper"}})
    assert call(api, wrapped)[0] == ["versioned", "all", "wrapped"]


STREAMS = """
const http = require('http');
const scope = '000000000000/20260101/us-east-1/lambda/aws4_request';
const headers = { Authorization: `AWS4-HMAC-SHA256 Credential=${scope}, SignedHeaders=host, Signature=0` };
const tags = (arn) => new Promise((resolve, reject) => {
  const url = `${process.env.AWS_ENDPOINT_URL}/2017-03-31/tags/${encodeURIComponent(arn)}`;
  http.get(url, { headers }, (answer) => {
    let text = '';
    answer.on('data', (data) => { text += data; }).on('end', () => resolve(text));
  }).on('error', reject);
});
exports.handler = awslambda.streamifyResponse(async (event, stream) => {
  if (event.http) stream = awslambda.HttpResponseStream.from(stream, { statusCode: 202 });
  if (event.early) throw new TypeError('early');
  stream.write('first ');
  while (event.arn && !(await tags(event.arn)).includes('"go"')) await new Promise((resolve) => setTimeout(resolve, 10));
  if (event.middle) throw new TypeError('middle');
  stream.write('second');
  stream.end();
});
"""


def _streamed(api: Any, name: str, **event: Any) -> tuple[bytes, dict[str, Any]]:
    answer = api.invoke_with_response_stream(FunctionName=name, Payload=json.dumps(event))
    body, complete = b"", {}
    for part in answer["EventStream"]:
        assert complete == {}
        if "PayloadChunk" in part:
            body += part["PayloadChunk"]["Payload"]
        else:
            complete = {"complete": True, **part["InvokeComplete"]}
    return body, complete


def test_streams(api, create):
    name = create("stream", STREAMS)
    assert _streamed(api, name) == (b"first second", {"complete": True})
    assert _streamed(api, name, http=True)[0] == b'{"statusCode":202}' + bytes(8) + b"first second"
    body, complete = _streamed(api, name, middle=True)
    assert body == b"first "
    assert complete["ErrorCode"]
    assert json.loads(complete["ErrorDetails"])["errorMessage"] == "middle"
    body, complete = _streamed(api, name, early=True)
    assert complete["ErrorCode"]
    assert json.loads(complete["ErrorDetails"])["errorMessage"] == "early"
    assert api.invoke(FunctionName=name, Payload=b"{}")["Payload"].read() == b"first second"


def test_the_first_byte_comes_while_the_function_runs(api, create):
    name = create("early-byte", STREAMS)
    arn = api.get_function(FunctionName=name)["Configuration"]["FunctionArn"]
    stream = iter(api.invoke_with_response_stream(FunctionName=name, Payload=json.dumps({"arn": arn}))["EventStream"])
    assert next(stream)["PayloadChunk"]["Payload"] == b"first "
    api.tag_resource(Resource=arn, Tags={"go": "on"})  # only now does the function go on
    assert next(stream)["PayloadChunk"]["Payload"] == b"second"
    assert "InvokeComplete" in next(stream)


def test_many_at_once(api, server, create):
    name = create("crowd", "exports.handler = async (event) => { await new Promise((r) => setTimeout(r, 50)); return event.n; }")
    clients = [server.client("lambda") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: call(clients[n % 4], name, {"n": n})[0], range(24)))
    assert answers == list(range(24))


def test_packages_of_the_runtimes_own(plan, tmp_path):
    module = tmp_path / "packages" / "nodejs" / "node_modules" / "@aws-sdk" / "client-none"
    module.mkdir(parents=True)
    (module / "index.js").write_text("exports.where = __filename;")
    (tmp_path / "lambent.toml").write_text(f"[sandbox]\npackages = ['{tmp_path / 'packages'}']\n")
    with LocalServer(config=tmp_path / "lambent.toml") as server:
        api = server.client("lambda")
        files = {
            "cjs.js": "exports.handler = async () => require('@aws-sdk/client-none').where",
            "esm.mjs": "import { where } from '@aws-sdk/client-none'; export const handler = async () => where;",
        }
        for name in ("cjs", "esm"):
            code = {"ZipFile": zipped(files)}
            api.create_function(FunctionName=name, Runtime=plan.runtime, Role=ROLE, Handler=f"{name}.handler", Code=code, MemorySize=512)
            settle(api, name)
            assert call(api, name)[0] == "/var/runtime/node_modules/@aws-sdk/client-none/index.js"
