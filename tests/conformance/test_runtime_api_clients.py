"""AWS's own runtime clients, and an extension written against the public documentation, over plain HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import textwrap
from pathlib import Path

import pytest
from runtime_api_house import ARN, House, invocation

from lambent.runtime_api.events import Registered
from lambent.runtime_api.frames import FrameType


def run(test):
    return asyncio.run(test())


class Program:
    """A process that finds the APIs of ``house``; ended with the test."""

    def __init__(self, house: House, *argv: str, **environment: str) -> None:
        self._argv = argv
        self._environment = {
            "PATH": os.environ["PATH"],
            "TMPDIR": os.environ.get("TMPDIR", ""),
            "LAMBENT_TEST_SESSION": os.environ.get("LAMBENT_TEST_SESSION", ""),
            "AWS_LAMBDA_RUNTIME_API": house.address,
            "LAMBDA_TASK_ROOT": ".",
            "AWS_LAMBDA_FUNCTION_NAME": "f",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
            "AWS_LAMBDA_LOG_GROUP_NAME": "g",
            "AWS_LAMBDA_LOG_STREAM_NAME": "s",
            **environment,
        }

    async def __aenter__(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            *self._argv,
            env=self._environment,
            cwd=self._environment.get("PWD"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        return self._process

    async def __aexit__(self, *exc) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


async def answer(house: House, token: int, event, **more):
    """Deliver to the runtime that waits, and hear its answer."""
    assert (await house.ears.next()).type == FrameType.NEXT
    assert house.api.invoke(invocation(token, json.dumps(event).encode(), **more), to_runtime=True)
    frame = await house.ears.next()
    assert frame.head.startswith(f"{token}\n{invocation(token).request_id}\n")
    return frame


# -------------------------------------------------------------------------------------------------------------- awslambdaric

PYTHON_HANDLER = """
    import os

    def handler(event, context):
        if event == "raise":
            raise KeyError("no such thing")
        if event == "large":
            return "x" * 5_000_000
        if event == "bytes":
            return b"\\x00\\x01"
        return {
            "event": event,
            "id": context.aws_request_id,
            "arn": context.invoked_function_arn,
            "tenant": context.tenant_id,
            "custom": context.client_context and context.client_context.custom,
            "identity": context.identity.cognito_identity_id,
            "left": context.get_remaining_time_in_millis() > 1000,
            "trace": os.environ.get("_X_AMZN_TRACE_ID"),
        }
"""


def python_program(house: House, folder: Path, source: str, handler: str = "app.handler", **environment: str) -> Program:
    (folder / "app.py").write_text(textwrap.dedent(source))
    return Program(house, sys.executable, "-m", "awslambdaric", handler, PYTHONPATH=str(folder), PYTHONUNBUFFERED="1", **environment)


def test_awslambdaric_over_plain_http(tmp_path):
    pytest.importorskip("runtime_client", reason="awslambdaric was installed without its compiled client")

    async def test():
        async with House() as house, python_program(house, tmp_path, PYTHON_HANDLER):
            context = json.dumps({"custom": {"a": "é\n"}}, indent=1)
            frame = await answer(house, 1, {"k": [1]}, tenant="blue", client_context=context, cognito='{"cognitoIdentityId":"who"}')
            assert frame.type == FrameType.RESPONSE
            assert frame.head.endswith("\napplication/json")
            assert json.loads(frame.body) == {
                "event": {"k": [1]},
                "id": invocation(1).request_id,
                "arn": ARN,
                "tenant": "blue",
                "custom": {"a": "é\n"},
                "identity": "who",
                "left": True,
                "trace": "Root=1-2-3;Parent=4;Sampled=1",
            }
            assert json.loads((await answer(house, 2, "large")).body) == "x" * 5_000_000
            frame = await answer(house, 3, "bytes")
            assert (frame.head.rpartition("\n")[2], frame.body) == ("application/unknown", b"\x00\x01")

    run(test)


def test_awslambdaric_reports_errors(tmp_path):
    pytest.importorskip("runtime_client", reason="awslambdaric was installed without its compiled client")

    async def test():
        async with House() as house, python_program(house, tmp_path, PYTHON_HANDLER):
            frame = await answer(house, 1, "raise")
            assert frame.type == FrameType.ERROR
            _, _, error_type, cause = frame.head.split("\n", 3)
            assert error_type == "KeyError"
            assert json.loads(cause)["exceptions"][0]["type"] == "KeyError"
            error = json.loads(frame.body)
            assert (error["errorMessage"], error["errorType"]) == ("'no such thing'", "KeyError")
            assert (await answer(house, 2, "fine")).type == FrameType.RESPONSE

    run(test)


def test_awslambdaric_meets_the_cap(tmp_path):
    pytest.importorskip("runtime_client", reason="awslambdaric was installed without its compiled client")

    async def test():
        async with House(cap=1_000_000) as house, python_program(house, tmp_path, PYTHON_HANDLER) as process:
            frame = await answer(house, 1, "large")
            assert (frame.body, frame.oversize) == (b"", 5_000_002)
            output, _ = await process.communicate()
            assert b"413" in output or process.returncode == 1  # what it does then is its own affair

    run(test)


@pytest.mark.parametrize(
    ("source", "handler", "error_type"),
    [("import nowhere_to_be_found", "app.handler", "Runtime.ImportModuleError"), ("", "app.handler", "Runtime.HandlerNotFound")],
)
def test_awslambdaric_reports_that_init_failed(tmp_path, source, handler, error_type):
    async def test():
        async with House() as house, python_program(house, tmp_path, source, handler) as process:
            frame = await house.ears.next()
            assert (frame.type, frame.head) == (FrameType.INIT_ERROR, error_type)
            assert json.loads(frame.body)["errorType"] == error_type
            await process.communicate()
            assert process.returncode == 1
            assert house.ears.news == []

    run(test)


# ------------------------------------------------------------------------------------------------------------- aws-lambda-ric

NODE_HANDLER = """
    exports.handler = async (event, context) => {
      if (event === "raise") throw new TypeError("no such thing");
      return { event, id: context.awsRequestId, arn: context.invokedFunctionArn, left: context.getRemainingTimeInMillis() > 1000 };
    };
    exports.streaming = awslambda.streamifyResponse(async (event, stream) => {
      stream.setContentType("text/plain");
      stream.write("one ");
      await new Promise((resolve) => setTimeout(resolve, 5));
      stream.write("two");
      if (event === "raise") throw new TypeError("late");
      stream.end();
    });
"""


def node_client() -> Path | None:
    """AWS's client as a program, where ``npm`` has installed it and its compiled part on this machine."""
    node = shutil.which("node")
    places = os.environ.get("NODE_PATH", "").split(os.pathsep)
    if node is not None:
        places.append(str(Path(node).resolve().parent.parent / "lib" / "node_modules"))
    found = (Path(place) / "aws-lambda-ric" for place in places if place)
    built = (path for path in found if list(path.rglob("*.node")))
    programs = (path / inner / "index.mjs" for path in built for inner in ("bin", "dist", "."))
    return next((path for path in programs if path.exists()), None) if node is not None else None


needs_node_client = pytest.mark.skipif(
    node_client() is None, reason="aws-lambda-ric is not installed for node (npm install -g, or NODE_PATH)"
)


def node_program(house: House, folder: Path, handler: str) -> Program:
    (folder / "app.js").write_text(textwrap.dedent(NODE_HANDLER))
    client = node_client()
    assert client is not None
    return Program(
        house,
        shutil.which("node") or "",
        str(client),
        handler,
        LAMBDA_TASK_ROOT=str(folder),
        PWD=str(folder),
        _HANDLER=handler,
        HOME=str(folder),
    )


@needs_node_client
def test_aws_lambda_ric(tmp_path):
    async def test():
        async with House() as house, node_program(house, tmp_path, "app.handler"):
            frame = await answer(house, 1, {"k": 1})
            assert json.loads(frame.body) == {"event": {"k": 1}, "id": invocation(1).request_id, "arn": ARN, "left": True}
            frame = await answer(house, 2, "raise")
            assert frame.type == FrameType.ERROR
            assert json.loads(frame.body)["errorType"] == "TypeError"
            assert (await answer(house, 3, "again")).type == FrameType.RESPONSE

    run(test)


@needs_node_client
def test_aws_lambda_ric_streams(tmp_path):
    async def test():
        async with House() as house, node_program(house, tmp_path, "app.streaming"):
            for token, event in ((1, "fine"), (2, "raise")):
                frame = await answer(house, token, event)
                assert frame.type == FrameType.RESPONSE_START
                assert frame.head.endswith("\ntext/plain")
                body = b""
                while (frame := await house.ears.next()).type == FrameType.CHUNK:
                    body += frame.body
                assert (frame.type, body) == (FrameType.RESPONSE_END, b"one two")
                error_type = frame.head.rpartition("\n")[2]
                assert bool(error_type) is (event == "raise")
                if error_type:
                    assert json.loads(frame.body)["errorMessage"] == "late"

    run(test)


# ----------------------------------------------------------------------------------------------------------------- extension

EXTENSION = '''
    """An external extension as the documentation has it: register, subscribe, then ask for events until SHUTDOWN."""
    import json, os, sys, threading, urllib.error, urllib.request
    from http.server import BaseHTTPRequestHandler, HTTPServer

    base = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}"
    received = []

    def call(method, path, headers, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(base + path, data, {"Content-Type": "application/json", **headers}, method=method)
        with urllib.request.urlopen(request) as response:
            return response.headers, json.loads(response.read())

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            received.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    name = {"Lambda-Extension-Name": os.path.basename(sys.argv[0])}
    headers, document = call("POST", "/2020-01-01/extension/register", name, {"events": ["INVOKE", "SHUTDOWN"]})
    me = {"Lambda-Extension-Identifier": headers["Lambda-Extension-Identifier"]}
    wish = {
        "schemaVersion": "2022-12-13",
        "types": ["platform", "function"],
        "buffering": {"maxItems": 1000, "maxBytes": 262144, "timeoutMs": 25},
        "destination": {"protocol": "HTTP", "URI": f"http://sandbox.localdomain:{server.server_port}"},
    }
    call("PUT", "/2022-07-01/telemetry", me, wish)
    try:
        call("PUT", "/2022-07-01/telemetry", me, {"types": []})
    except urllib.error.HTTPError as error:
        print(json.dumps([error.code, json.load(error)["errorType"]]), flush=True)
    while True:
        _, event = call("GET", "/2020-01-01/extension/event/next", me)
        print(json.dumps(event), flush=True)
        if event["eventType"] == "SHUTDOWN":
            print(json.dumps(received), flush=True)
            break
'''


def test_an_extension_written_against_the_documentation(tmp_path):
    async def test():
        (tmp_path / "watcher.py").write_text(textwrap.dedent(EXTENSION))
        async with House(external=("watcher.py",)) as house:
            house.api.publish("platform.initStart", {"phase": "init"}, 0.0, "platform")
            async with Program(house, sys.executable, str(tmp_path / "watcher.py")) as process:
                registered = await house.ears.next()
                assert isinstance(registered, Registered)
                assert (registered.name, registered.external, registered.events) == ("watcher.py", True, ("INVOKE", "SHUTDOWN"))
                assert await house.ears.next() == ("watcher.py", ("platform", "function"))
                assert await house.ears.next() == "ready"
                house.api.end_init()
                for token in (1, 2):
                    house.api.publish("function", f"line {token}", 0.0, "function")
                    assert house.api.invoke(invocation(token), to_runtime=False)
                    assert await house.ears.next() == "ready"
                (courier,) = house.api._couriers.values()
                courier.flush()
                while courier.under_way is not None:
                    await asyncio.wait([courier.under_way])
                house.api.shutdown("spindown", 5)
                output, _ = await process.communicate()
                refused, first, second, shutdown, received = map(json.loads, output.decode().splitlines())
                assert refused == [400, "ValidationError"]
                assert [first["requestId"], second["requestId"]] == [invocation(1).request_id, invocation(2).request_id]
                assert shutdown == {"eventType": "SHUTDOWN", "shutdownReason": "spindown", "deadlineMs": 5}
                assert [event["record"] for event in received] == [{"phase": "init"}, "line 1", "line 2"]
                assert process.returncode == 0

    run(test)


CURL_BOOTSTRAP = """#!/bin/sh
set -eu
while true; do
  HEADERS="$(mktemp)"
  EVENT=$(curl -sS -LD "$HEADERS" "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next")
  ID=$(grep -Fi Lambda-Runtime-Aws-Request-Id "$HEADERS" | tr -d '[:space:]' | cut -d: -f2)
  rm "$HEADERS"
  curl -sS "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/$ID/response" -d "got $EVENT"
done
"""


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_a_shell_script_with_curl(tmp_path):
    """The custom runtime of the documentation: a new connection for every request."""

    async def test():
        script = tmp_path / "bootstrap"
        script.write_text(CURL_BOOTSTRAP)
        async with House() as house, Program(house, "/bin/sh", str(script), TMPDIR=str(tmp_path)):
            for token in range(1, 4):
                assert (await answer(house, token, token)).body == b"got %d" % token

    run(test)
