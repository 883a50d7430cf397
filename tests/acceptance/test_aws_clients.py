"""AWS's own runtime clients, shipped in the zip of a function and speaking plain HTTP to the Runtime API of a real sandbox."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from acceptance_helpers import ROLE, call, settle

from lambent.testing.local_server import LocalServer

PYTHON = "/usr/bin/python3"  # seen inside, like all of /usr

PYTHON_FUNCTION = """
import json, logging, os, urllib.request

logging.getLogger().setLevel("INFO")

def handler(event, context):
    if event == "raise":
        raise KeyError("no such thing")
    if event == "exit":
        os._exit(7)
    if event == "log":
        logging.info("two\\nlines")
        print("printed")
    if event == "metadata":
        return metadata()
    return {"event": event, "id": context.aws_request_id, "arn": context.invoked_function_arn,
            "left": context.get_remaining_time_in_millis() > 1000, "trace": os.environ["_X_AMZN_TRACE_ID"].split("=")[0]}

def metadata():
    address = "http://" + os.environ["AWS_LAMBDA_METADATA_API"] + "/2026-01-15/metadata/execution-environment"
    token = os.environ["AWS_LAMBDA_METADATA_TOKEN"]
    request = urllib.request.Request(address, headers={"Authorization": "Bearer " + token})
    with urllib.request.urlopen(request) as answer:
        return [json.load(answer), answer.headers["Cache-Control"], token]
"""

NODE_FUNCTION = """
exports.handler = async (event, context) => {
  if (event === "raise") throw new TypeError("no such thing");
  console.log("two\\nlines");
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


def bundle(files: dict[str, bytes]) -> bytes:
    """A zip file; ``bootstrap`` is executable."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3
            entry.external_attr = (0o100755 if name == "bootstrap" else 0o100644) << 16
            archive.writestr(entry, content)
    return memory.getvalue()


def tree(folder: Path, prefix: str) -> dict[str, bytes]:
    return {f"{prefix}/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def create(api: Any) -> Iterator[Any]:
    made: list[str] = []

    def make(name: str, files: dict[str, bytes], handler: str, **options: Any) -> str:
        request = {"Runtime": "provided.al2023", "MemorySize": 1769, "Timeout": 10, **options}
        api.create_function(FunctionName=name, Role=ROLE, Handler=handler, Code={"ZipFile": bundle(files)}, **request)
        made.append(name)
        settle(api, name)
        return name

    yield make
    for name in made:
        api.delete_function(FunctionName=name)


def messages(server: LocalServer, name: str) -> list[str]:
    pages = server.client("logs").get_paginator("filter_log_events").paginate(logGroupName=f"/aws/lambda/{name}")
    return [event["message"] for page in pages for event in page["events"]]


# -------------------------------------------------------------------------------------------------------------- awslambdaric


def python_lacks() -> str:
    """Why a function cannot ship this machine's ``awslambdaric``."""
    if importlib.util.find_spec("runtime_client") is None:
        return "awslambdaric was installed without its compiled client"
    if not os.path.exists(PYTHON):
        return f"there is no {PYTHON}"
    version = subprocess.run([PYTHON, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True, check=True).stdout
    return "" if version.strip() == str(sys.version_info[:2]) else f"{PYTHON} is not the Python that awslambdaric was compiled for"


def python_files(source: str) -> dict[str, bytes]:
    files = {"bootstrap": f'#!/bin/sh\nexec {PYTHON} -m awslambdaric "$_HANDLER"\n'.encode(), "app.py": source.encode()}
    for name in ("awslambdaric", "runtime_client", "simplejson", "snapshot_restore_py"):
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin
        origin = Path(found.origin)
        files |= tree(origin.parent, name) if found.submodule_search_locations else {origin.name: origin.read_bytes()}
    return files


needs_python = pytest.mark.skipif(bool(python_lacks()), reason=python_lacks())


@needs_python
def test_awslambdaric_as_a_bootstrap(server: LocalServer, api: Any, create: Any) -> None:
    name = create("ric-python", python_files(PYTHON_FUNCTION), "app.handler", Environment={"Variables": {"PYTHONPATH": "/var/task"}})
    for event in ({"é": [1, None]}, "text"):
        told, answer = call(api, name, event)
        request = answer["ResponseMetadata"]["RequestId"]
        arn = f"arn:aws:lambda:us-east-1:000000000000:function:{name}"
        assert told == {"event": event, "id": request, "arn": arn, "left": True, "trace": "Root"}
    payload, answer = call(api, name, "raise")
    assert answer["FunctionError"] == "Unhandled"
    assert (payload["errorType"], payload["errorMessage"], payload["requestId"]) == (
        "KeyError",
        "'no such thing'",
        answer["ResponseMetadata"]["RequestId"],
    )
    call(api, name, "log")
    lines = messages(server, name)
    assert len([line for line in lines if re.fullmatch(r"\[INFO\]\t\S+Z\t\S+\ttwo\nlines\n?", line)]) == 1  # a record stays whole
    assert "printed\n" in lines
    payload, answer = call(api, name, "exit")
    request = answer["ResponseMetadata"]["RequestId"]
    text = f"RequestId: {request} Error: Runtime exited with error: exit status 7"
    assert payload == {"errorType": "Runtime.ExitError", "errorMessage": text}
    assert call(api, name, 1)[0]["event"] == 1


@needs_python
def test_metadata_of_the_environment(api: Any, create: Any) -> None:
    name = create("metadata", python_files(PYTHON_FUNCTION), "app.handler", Environment={"Variables": {"PYTHONPATH": "/var/task"}})
    told, caching, token = call(api, name, "metadata")[0]
    assert told == {"AvailabilityZoneID": "use1-az1"}
    assert caching == "private, max-age=43200, immutable"
    assert call(api, name, "metadata")[0][2] == token
    call(api, name, "exit")
    assert call(api, name, "metadata")[0][2] != token  # what was in one process is of no use in the next


@needs_python
def test_awslambdaric_reports_that_init_failed(api: Any, create: Any) -> None:
    name = create("ric-broken", python_files("import nowhere_to_be_found"), "app.handler")
    for _ in range(2):
        payload, answer = call(api, name)
        assert answer["FunctionError"] == "Unhandled"
        assert payload["errorType"] == "Runtime.ImportModuleError"
        assert payload["errorMessage"] == "Unable to import module 'app': No module named 'nowhere_to_be_found'"
    files = python_files(PYTHON_FUNCTION)
    api.update_function_code(FunctionName=name, ZipFile=bundle(files))
    settle(api, name)
    assert call(api, name, 2)[0]["event"] == 2


# ------------------------------------------------------------------------------------------------------------- aws-lambda-ric


def node_client() -> Path | None:
    """Where ``npm`` has installed AWS's client, compiled part and all, on this machine, if it has."""
    places = os.environ.get("NODE_PATH", "").split(os.pathsep)
    node = shutil.which("node")
    if node is not None:
        places.append(str(Path(node).resolve().parent.parent / "lib" / "node_modules"))
    found = (Path(place) / "aws-lambda-ric" for place in places if place)
    return next((path for path in found if list(path.rglob("*.node"))), None) if node is not None else None


def node_lacks() -> str:
    if node_client() is None:
        return "aws-lambda-ric is not installed for node (npm install -g, or NODE_PATH)"
    return "" if (shutil.which("node") or "").startswith("/usr/") else "node does not lie below /usr, which is what a sandbox sees"


def node_files() -> dict[str, bytes]:
    client = node_client()
    assert client is not None
    program = next(path for path in ("bin/index.mjs", "index.mjs") if (client / path).exists())
    bootstrap = f'#!/bin/sh\nexec {shutil.which("node")} node_modules/aws-lambda-ric/{program} "$_HANDLER"\n'
    parts = {name: data for name, data in tree(client, "node_modules/aws-lambda-ric").items() if "/deps/" not in name}
    return {"bootstrap": bootstrap.encode(), "app.js": NODE_FUNCTION.encode(), **parts}


needs_node = pytest.mark.skipif(bool(node_lacks()), reason=node_lacks())


@needs_node
def test_aws_lambda_ric_as_a_bootstrap(server: LocalServer, api: Any, create: Any) -> None:
    name = create("ric-node", node_files(), "app.handler")
    for event in ({"é": [1, None]}, "text"):
        told, answer = call(api, name, event)
        arn = f"arn:aws:lambda:us-east-1:000000000000:function:{name}"
        assert told == {"event": event, "id": answer["ResponseMetadata"]["RequestId"], "arn": arn, "left": True}
    payload, answer = call(api, name, "raise")
    assert answer["FunctionError"] == "Unhandled"
    assert (payload["errorType"], payload["errorMessage"]) == ("TypeError", "no such thing")
    whole = [line for line in messages(server, name) if re.fullmatch(r"\S+Z\t\S+\tINFO\ttwo\nlines\n?", line)]
    assert len(whole) == 2
    assert call(api, name, 1)[0]["event"] == 1


@needs_node
def test_aws_lambda_ric_streams(api: Any, create: Any) -> None:
    name = create("ric-streams", node_files(), "app.streaming")
    for event in ("fine", "raise"):
        *pieces, end = api.invoke_with_response_stream(FunctionName=name, Payload=json.dumps(event))["EventStream"]
        assert b"".join(each["PayloadChunk"]["Payload"] for each in pieces) == b"one two"
        complete = end["InvokeComplete"]
        assert ("ErrorCode" in complete) is (event == "raise")
        if event == "raise":
            assert json.loads(complete["ErrorDetails"])["errorMessage"] == "late"
