"""Requests find their operations, and only theirs."""

from __future__ import annotations

import pytest
import wire_peer

from lambent.errors import ClientFault
from lambent.wire.http import HttpRequest
from lambent.wire.models import load_service
from lambent.wire.router import Router

ROUTER = Router()


def route(method: str, path: str, query: str = "", scope: str | None = "lambda", headers: dict[str, str] | None = None, body: bytes = b""):
    operation, params = ROUTER.route(HttpRequest(method, path, query, headers or {}, body), scope)
    return operation.service, operation.name, params


@pytest.mark.parametrize(("service", "name"), wire_peer.ALL)
@pytest.mark.parametrize("signed", [True, False])
def test_every_operation_is_found_from_botocores_request(service, name, signed):
    operation = load_service(service).operations[name]
    text = "arn:aws:lambda:us-east-1:123456789012:microvm-image:x" if service == "lambda-microvms" else wire_peer.ODD_TEXT
    about = wire_peer.peer(operation).input_shape
    params = wire_peer.sample(about, full=True, text=text) if about is not None else {}
    request = wire_peer.request_of(operation, params)
    found, path_params = ROUTER.route(request, wire_peer.SCOPE[service] if signed else None)
    assert found is operation
    if operation.protocol == "rest-json":
        expected = {member.wire: params[member.name] for member in operation.uri_members}
        assert path_params == {wire: str(value) for wire, value in expected.items()}


ARN = "arn:aws:lambda:us-east-1:123456789012:function:f"
DURABLE = f"{ARN}:$LATEST/durable-execution/my-run/0000-id"


@pytest.mark.parametrize(
    ("method", "path", "query", "name", "params"),
    [
        ("GET", "/2015-03-31/functions", "", "ListFunctions", {}),
        ("GET", "/2015-03-31/functions/", "", "ListFunctions", {}),
        ("POST", "/2014-11-13/functions/f/invoke-async/", "", "InvokeAsync", {"FunctionName": "f"}),
        ("GET", "/2015-03-31/functions/f", "", "GetFunction", {"FunctionName": "f"}),
        ("GET", "/2015-03-31/functions/f/", "", "GetFunction", {"FunctionName": "f"}),
        ("GET", "/2015-03-31/functions/versions", "", "GetFunction", {"FunctionName": "versions"}),
        ("GET", "/2015-03-31/functions/f%3Aprod", "", "GetFunction", {"FunctionName": "f:prod"}),
        ("GET", f"/2015-03-31/functions/{ARN}/policy", "", "GetPolicy", {"FunctionName": ARN}),
        ("DELETE", "/2015-03-31/functions/f/policy/s", "", "RemovePermission", {"FunctionName": "f", "StatementId": "s"}),
        ("GET", "/2015-03-31/functions/..%2F..%2Fetc", "", "GetFunction", {"FunctionName": "../../etc"}),
        ("GET", "/2015-03-31/functions/..", "", "GetFunction", {"FunctionName": ".."}),
        ("GET", "/2018-10-31/layers", "find=LayerVersion&Arn=x", "GetLayerVersionByArn", {}),
        ("GET", "/2018-10-31/layers", "Arn=x&find=LayerVersion", "GetLayerVersionByArn", {}),
        ("GET", "/2018-10-31/layers", "", "ListLayers", {}),
        ("GET", "/2018-10-31/layers", "find=Other", "ListLayers", {}),
        ("GET", "/2019-09-30/functions/f/provisioned-concurrency", "List=ALL", "ListProvisionedConcurrencyConfigs", {"FunctionName": "f"}),
        ("GET", "/2019-09-30/functions/f/provisioned-concurrency", "Qualifier=1", "GetProvisionedConcurrencyConfig", {"FunctionName": "f"}),
        ("GET", f"/2017-03-31/tags/{ARN}", "", "ListTags", {"Resource": ARN}),
        ("GET", f"/2025-12-01/durable-executions/{DURABLE}", "", "GetDurableExecution", {"DurableExecutionArn": DURABLE}),
        ("GET", f"/2025-12-01/durable-executions/{DURABLE}/state", "", "GetDurableExecutionState", {"DurableExecutionArn": DURABLE}),
        (
            "GET",
            f"/2025-12-01/durable-executions/{DURABLE.replace('/', '%2F')}",
            "",
            "GetDurableExecution",
            {"DurableExecutionArn": DURABLE},
        ),
        (
            "POST",
            "/2025-12-01/durable-execution-callbacks/ab/c+d==/fail",
            "",
            "SendDurableExecutionCallbackFailure",
            {"CallbackId": "ab/c+d=="},
        ),
    ],
)
def test_paths(method, path, query, name, params):
    assert route(method, path, query) == ("lambda", name, params)


def test_tags_are_told_apart_by_arn():
    image = "arn:aws:lambda:us-east-1:123456789012:microvm-image:i"
    web = "arn:aws:lambda:us-east-1:123456789012:web-function/w"
    assert route("POST", f"/2017-03-31/tags/{image}") == ("lambda-microvms", "TagResource", {"Resource": image})
    assert route("POST", f"/2017-03-31/tags/{ARN}") == ("lambda", "TagResource", {"Resource": ARN})
    assert route("POST", f"/2025-03-07/tags/{web}")[:2] == ("lambda-web", "TagResource")
    assert route("POST", f"/2025-03-07/tags/{web.replace('/', '%2F')}")[:2] == ("lambda-web", "TagResource")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", ""),
        ("GET", "//"),
        ("GET", "/2015-03-31"),
        ("GET", "//2015-03-31/functions"),
        ("GET", "/2015-03-31/functions/a/b/c/d"),
        ("GET", "/2015-03-31/functions/a/b"),
        ("PATCH", "/2015-03-31/functions/f"),
        ("DELETE", "/2015-03-31/functions/"),
        ("GET", "/2015-03-31/../2015-03-31/functions"),
        ("GET", "2015-03-31/functions"),
        ("get", "/2015-03-31/functions"),
        ("GET", "/2099-01-01/functions"),
    ],
)
def test_unknown_paths_are_refused(method, path):
    with pytest.raises(ClientFault) as caught:
        route(method, path)
    assert (caught.value.code, caught.value.status) == ("UnknownOperationException", 404)


def test_targets_and_actions():
    assert route("POST", "/", scope="logs", headers={"x-amz-target": "Logs_20140328.CreateLogGroup"}) == ("logs", "CreateLogGroup", {})
    assert route("POST", "/", scope=None, headers={"x-amz-target": "Logs_20140328.CreateLogGroup"})[1] == "CreateLogGroup"
    assert route("GET", "/", "Action=GetCallerIdentity&Version=2011-06-15", scope=None)[:2] == ("sts", "GetCallerIdentity")
    form = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    body = b"Action=GetCallerIdentity&Version=2011-06-15"
    assert route("POST", "/", scope=None, headers=form, body=body)[:2] == ("sts", "GetCallerIdentity")


@pytest.mark.parametrize(
    ("scope", "headers", "body", "code"),
    [
        ("logs", {}, b"", "UnknownOperationException"),
        ("logs", {"x-amz-target": "Logs_20140328.Nothing"}, b"", "UnknownOperationException"),
        ("logs", {"x-amz-target": "Other.CreateLogGroup"}, b"", "UnknownOperationException"),
        ("sts", {}, b"Action=Nothing", "InvalidAction"),
        ("sts", {}, b"\xff\xfe=%ff", "MissingAction"),
        ("ec2", {}, b"", "UnknownOperationException"),
        ("", {}, b"", "UnknownOperationException"),
    ],
)
def test_unknown_targets_actions_and_services_are_refused(scope, headers, body, code):
    with pytest.raises(ClientFault) as caught:
        route("POST", "/", scope=scope, headers=headers, body=body)
    assert caught.value.code == code
