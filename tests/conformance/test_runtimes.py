"""One suite for all runtimes: what AWS promises of each of them, against one real server with boto3 (contract 03 §5 to §8, 02 §2.1).

Three functions per runtime: one in good health, one behind a wrapper, and one that does not load. Tests of one runtime share them, so each
leaves the function able to answer; that the next invocation works is part of what is tested.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from runtime_families import RUBIES, Sample, compiled, layer, samples, stand_in, zipped

from lambent.testing.image_kit import Image, folder, program
from lambent.testing.image_kit import layer as image_layer
from lambent.testing.local_server import LocalServer

ROLE = "arn:aws:iam::000000000000:role/test"
SHOWN = [
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_EXECUTION_ENV",
    "AWS_XRAY_CONTEXT_MISSING",
    "LAMBDA_TASK_ROOT",
    "LAMBDA_RUNTIME_DIR",
    "TZ",
    "_HANDLER",
    "MINE",
    "WRAPPED",
]
MEMORY = 256

Invoke = Callable[..., tuple[Any, dict[str, Any]]]


def _parameter(sample: Sample) -> Any:
    return pytest.param(sample, id=sample.name, marks=[pytest.mark.skip(reason=sample.lacks)] if sample.lacks else [])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    layouts = tmp_path_factory.mktemp("layouts")
    interpreters = [f"{stand_in()}={RUBIES[0].executable}"] if stand_in() else []
    config = tmp_path_factory.mktemp("config") / "lambent.toml"
    sandbox = f"interpreters = {json.dumps(interpreters)}\nmb_per_vcpu = 0\ninit_timeout = 60.0\nblanks = 1"  # none of it is about speed
    config.write_text(f"[sandbox]\n{sandbox}\n[images]\nfolders = [{json.dumps(str(layouts))}]\n")
    if not any(sample.is_image and sample.lacks for sample in samples()):
        content = image_layer({"bin/runtime": program(compiled()), "work": folder(), "tmp": folder(0o1777)})
        Image([content], ["/bin/runtime"], [], "/work", ["PATH=/bin"]).write(layouts / "sample", "v1")
    with LocalServer(config=config) as running:
        yield running


@pytest.fixture(scope="module")
def api(server: LocalServer) -> Any:
    return server.client("lambda")


@pytest.fixture(scope="module")
def layer_arn(api: Any) -> str:
    arn: str = api.publish_layer_version(LayerName="sample", Content={"ZipFile": layer()})["LayerVersionArn"]
    return arn


@pytest.fixture(scope="module", params=[_parameter(sample) for sample in samples()])
def sample(request: pytest.FixtureRequest, server: LocalServer) -> Sample:
    found: Sample = request.param
    if found.is_image and server.health()["isolation"]["driver"] != "namespaces":
        pytest.skip("images need the namespaces driver")
    return found


@pytest.fixture(autouse=True)
def _once(request: pytest.FixtureRequest, sample: Sample) -> None:
    """A name beside another for the same program is told once that it works."""
    if sample.like and not request.node.name.startswith("test_an_event_comes_back"):
        pytest.skip(f"the program behind {sample.name} is that of {sample.like}")


@pytest.fixture(scope="module")
def deploy(api: Any, sample: Sample, layer_arn: str) -> Iterator[Callable[..., str]]:
    made: list[str] = []

    def create(kind: str, **variables: str) -> str:
        name = f"{kind}-{sample.name.replace('.', '_')}"
        shared = {
            "FunctionName": name,
            "Role": ROLE,
            "MemorySize": MEMORY,
            "Timeout": 20,
            "Environment": {"Variables": {"SHOWN": json.dumps(SHOWN), **variables}},
        }
        if sample.is_image:
            api.create_function(**shared, PackageType="Image", Code={"ImageUri": "oci:sample:v1"})
        else:
            code = {"ZipFile": zipped(sample.build())}
            api.create_function(**shared, Runtime=sample.runtime, Handler=sample.handler, Code=code, Layers=[layer_arn])
        made.append(name)
        settle(api, name)
        return name

    yield create
    for name in made:
        api.delete_function(FunctionName=name)


@pytest.fixture(scope="module")
def usual(deploy: Callable[..., str]) -> str:
    return deploy("usual", MINE="yes, mine")


@pytest.fixture(scope="module")
def invoke(api: Any) -> Invoke:
    """Gives the payload and the whole answer, with the tail of the log under ``log`` and the request id under ``id``."""

    def call(name: str, event: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        answer = api.invoke(FunctionName=name, Payload=json.dumps(event, ensure_ascii=False).encode(), LogType="Tail", **options)
        answer["log"] = base64.b64decode(answer["LogResult"]).decode(errors="replace")
        answer["id"] = answer["ResponseMetadata"]["RequestId"]
        return json.loads(answer["Payload"].read()), answer

    return call


def settle(api: Any, name: str) -> None:
    for waiter in ("function_active_v2", "function_updated_v2"):
        api.get_waiter(waiter).wait(FunctionName=name, WaiterConfig={"Delay": 0.02, "MaxAttempts": 3_000})


def platform_fault(answer: dict[str, Any], kind: str, text: str) -> dict[str, str]:
    return {"errorType": kind, "errorMessage": f"RequestId: {answer['id']} Error: {text}"}


EVENTS = [{"a": [1, -2.5, None, True, {"b": ""}]}, {"é": "日本語 🎉 \u2028 \u0007"}, {}]


@pytest.mark.parametrize("event", EVENTS, ids=["plain", "unicode", "empty"])
def test_an_event_comes_back(invoke: Invoke, usual: str, event: object) -> None:
    payload, answer = invoke(usual, event)
    assert payload == event
    assert "FunctionError" not in answer
    assert answer["ExecutedVersion"] == "$LATEST"


def test_five_megabytes_come_back(invoke: Invoke, usual: str) -> None:
    event = {"large": "x" * 5_000_000}
    assert invoke(usual, event)[0] == event


def test_an_environment_is_used_again(invoke: Invoke, usual: str) -> None:
    first, _ = invoke(usual, {"do": "count"})
    second, answer = invoke(usual, {"do": "count"})
    assert second == first + 1
    assert "Init Duration" not in answer["log"]


def test_tmp_is_kept_between_invocations(invoke: Invoke, usual: str) -> None:
    invoke(usual, {"do": "keep"})
    assert invoke(usual, {"do": "kept"})[0] is True


def test_an_exception_is_a_payload_of_the_familys_shape(invoke: Invoke, usual: str, sample: Sample) -> None:
    for _ in range(2):
        payload, answer = invoke(usual, {"do": "fail"})
        assert answer["FunctionError"] == "Unhandled"
        assert (answer["StatusCode"], payload["errorType"], payload["errorMessage"]) == (200, sample.fails, "oh dear")
        assert set(payload) == sample.keys
        assert payload.get("requestId", answer["id"]) == answer["id"]
        assert re.search(rf"REPORT RequestId: {answer['id']}\t(?!.*Status:)", answer["log"])
    assert invoke(usual, {})[0] == {}


def test_what_the_function_is_told_of_its_invocation(invoke: Invoke, usual: str) -> None:
    client = base64.b64encode(b'{"custom":{"k":"v"},"env":{},"client":{}}').decode()
    told, answer = invoke(usual, {"do": "context"}, Qualifier="$LATEST", ClientContext=client)
    assert 15_000 < told.pop("left") <= 20_000
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=[01].*", told.pop("trace"))
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", told.pop("stream"))
    assert told == {
        "id": answer["id"],
        "arn": f"arn:aws:lambda:us-east-1:000000000000:function:{usual}:$LATEST",
        "name": usual,
        "version": "$LATEST",
        "memory": MEMORY,
        "group": f"/aws/lambda/{usual}",
        "client": {"k": "v"},
    }
    plain, _ = invoke(usual, {"do": "context"})
    assert plain.get("client") is None  # Java's serialiser leaves null members out
    assert plain["arn"].endswith(f":function:{usual}")


def test_environment_variables(invoke: Invoke, usual: str, sample: Sample) -> None:
    told, _ = invoke(usual, {"do": "env"})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        assert told.pop(name)
    assert told.pop("AWS_LAMBDA_LOG_STREAM_NAME").startswith("20")
    expected = {
        "AWS_LAMBDA_FUNCTION_NAME": usual,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEMORY),
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{usual}",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
        "AWS_EXECUTION_ENV": None if sample.is_custom else f"AWS_Lambda_{sample.runtime}",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "LAMBDA_TASK_ROOT": "/var/task",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "TZ": ":UTC",
        "_HANDLER": sample.handler,
        "MINE": "yes, mine",
        "WRAPPED": None,
    }
    if sample.is_image:
        del expected["_HANDLER"]  # what CMD says, and here it says nothing
        del told["_HANDLER"]
    assert told == {name: value for name, value in expected.items() if value is not None or name in told}


def test_layers_are_found(invoke: Invoke, usual: str, sample: Sample) -> None:
    if sample.is_image:
        pytest.skip("functions of images have no layers")
    assert invoke(usual, {"do": "layer"})[0] == ["from /opt", "from the search path"]


def test_lines_reach_the_log_in_order(server: LocalServer, invoke: Invoke, usual: str, sample: Sample) -> None:
    _, answer = invoke(usual, {"do": "log"})
    group = f"/aws/lambda/{usual}"
    logs = server.client("logs")
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
    messages = [event["message"] for page in pages for event in page["events"]]
    assert sample.is_image or messages[0].startswith("INIT_START Runtime Version: ")
    start = messages.index(f"START RequestId: {answer['id']} Version: $LATEST\n")
    said = [re.sub(r"^.*(line \w+)$", r"\1", message.rstrip("\n")) for message in messages[start + 1 : start + 5]]
    assert said == ["line one", "line two", "line three", f"END RequestId: {answer['id']}"]
    assert messages[start + 5].startswith(f"REPORT RequestId: {answer['id']}\tDuration: ")
    assert answer["log"] == "".join(messages[start : start + 6])


ENDS = [
    ({"do": "exit", "code": 0}, "Runtime.ExitError", "Runtime exited without providing a reason"),
    ({"do": "exit", "code": 3}, "Runtime.ExitError", "Runtime exited with error: exit status 3"),
    ({"do": "kill"}, "Runtime.ExitError", "Runtime exited with error: signal: killed"),
]


@pytest.mark.parametrize(("event", "kind", "text"), ENDS, ids=["exit-0", "exit-3", "killed"])
def test_the_end_of_the_runtime_is_told_and_survived(invoke: Invoke, usual: str, event: object, kind: str, text: str) -> None:
    payload, answer = invoke(usual, event)
    assert answer["FunctionError"] == "Unhandled"
    assert payload == platform_fault(answer, kind, text)
    assert f"RequestId: {answer['id']} Error: {text}\n{kind}\n" in answer["log"]
    assert f"\tStatus: error\tError Type: {kind}" in answer["log"]
    assert invoke(usual, {"next": "works"})[0] == {"next": "works"}


def test_memory_without_end(invoke: Invoke, usual: str, sample: Sample, server: LocalServer) -> None:
    if "cgroups" not in server.health()["isolation"]["facts"] or server.health()["isolation"]["driver"] != "namespaces":
        pytest.skip("no cgroups limit memory here")
    payload, answer = invoke(usual, {"do": "memory"})
    assert answer["FunctionError"] == "Unhandled"
    if sample.no_memory == "Runtime.OutOfMemory":
        assert payload == platform_fault(answer, sample.no_memory, "Runtime exited with error: signal: killed")
    else:
        assert payload["errorType"] == sample.no_memory
    assert invoke(usual, {"next": "works"})[0] == {"next": "works"}


def test_a_wrapper_starts_the_runtime(invoke: Invoke, deploy: Callable[..., str], sample: Sample) -> None:
    wrapped = deploy("wrapped", AWS_LAMBDA_EXEC_WRAPPER="/opt/wrapper")
    told, _ = invoke(wrapped, {"do": "env"})
    if sample.is_custom:
        assert told.get("WRAPPED") is None  # custom runtimes start themselves
    else:
        assert told["WRAPPED"]
        assert invoke(wrapped, {"é": 1})[0] == {"é": 1}


def test_what_does_not_load(invoke: Invoke, deploy: Callable[..., str], sample: Sample) -> None:
    broken = deploy("broken", FAIL_INIT="1")
    for _ in range(2):
        payload, answer = invoke(broken, {})
        assert answer["FunctionError"] == "Unhandled"
        assert (payload["errorType"], payload["errorMessage"]) == (sample.breaks, "closed today")
        assert set(payload) == sample.init_keys
        assert payload.get("requestId", "") == ""
        assert re.search(rf"REPORT RequestId: {answer['id']}\t.*\tStatus: error\tError Type: ", answer["log"])


def test_too_slow(api: Any, invoke: Invoke, usual: str, sample: Sample) -> None:
    """The last test of a runtime: it changes the function."""
    api.update_function_configuration(FunctionName=usual, Timeout=sample.timeout)
    settle(api, usual)
    invoke(usual, {"do": "keep"})
    payload, answer = invoke(usual, {"do": "sleep"})
    text = f"Task timed out after {sample.timeout}.00 seconds"
    assert payload == platform_fault(answer, "Sandbox.Timedout", text)
    assert f"{answer['id']} {text}\n\n" in answer["log"]
    assert "\tStatus: timeout" in answer["log"]
    assert invoke(usual, {"do": "kept"})[0] is True  # the environment was reset, and its /tmp is what stays
    payload, answer = invoke(usual, {"do": "count"})
    assert payload == 2
