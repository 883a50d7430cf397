# ruff: noqa: E501 (AWS's texts are quoted whole)
"""Broken constraints are told in AWS's grammar (contract 01 §1.1), all at once and in the model's order."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import wire_peer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lambent.errors import ClientFault
from lambent.wire.http import HttpRequest
from lambent.wire.models import SERVICES, Shape, compile_service, load_service
from lambent.wire.parse import parse
from lambent.wire.patterns import compile_pattern
from lambent.wire.validate import NOT_NULL, at_most, validate, validation_fault, violation

LAMBDA = load_service("lambda").operations
CREATE = {"FunctionName": "f", "Role": "arn:aws:iam::123456789012:role/r", "Code": {}}
NAME = (
    "Member must satisfy regular expression pattern: (arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\\d{1}:)?"
    "(\\d{12}:)?(function:)?([a-zA-Z0-9-_]+)(:(\\$LATEST|[a-zA-Z0-9-_]+))?"
)


def refusal(operation: str, params: dict[str, Any], service: str = "lambda") -> ClientFault:
    with pytest.raises(ClientFault) as caught:
        validate(load_service(service).operations[operation], params)
    return caught.value


def message(operation: str, params: dict[str, Any], service: str = "lambda") -> str:
    return refusal(operation, params, service).message


def test_what_is_right_passes():
    validate(LAMBDA["CreateFunction"], CREATE)
    validate(LAMBDA["Invoke"], {"FunctionName": "arn:aws:lambda:us-east-1:123456789012:function:f:$LATEST", "Payload": b"x"})
    validate(LAMBDA["GetAccountSettings"], {})


def test_null():
    fault = refusal("UntagResource", {"Resource": "arn:aws:lambda:us-east-1:123456789012:function:f"})
    assert (fault.code, fault.status) == ("ValidationException", 400)
    assert fault.message == f"1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: {NOT_NULL}"


def test_several_at_once_in_model_order():
    text = message("CreateFunction", {"FunctionName": "a b", "Timeout": 0, "MemorySize": 64, "Code": {}})
    assert text == (
        f"4 validation errors detected: Value 'a b' at 'functionName' failed to satisfy constraint: {NAME}; "
        "Value null at 'role' failed to satisfy constraint: Member must not be null; "
        "Value '0' at 'timeout' failed to satisfy constraint: Member must have value greater than or equal to 1; "
        "Value '64' at 'memorySize' failed to satisfy constraint: Member must have value greater than or equal to 128"
    )


@pytest.mark.parametrize(
    ("operation", "params", "expected"),
    [
        (
            "CreateFunction",
            {**CREATE, "Timeout": 6000},
            "Value '6000' at 'timeout' failed to satisfy constraint: Member must have value less than or equal to 5400",
        ),
        (
            "GetFunction",
            {"FunctionName": "x" * 257},
            f"Value '{'x' * 257}' at 'functionName' failed to satisfy constraint: Member must have length less than or equal to 256",
        ),
        (
            "CreateFunction",
            {**CREATE, "KMSKeyArn": "k"},
            "Value 'k' at 'kMSKeyArn' failed to satisfy constraint: Member must satisfy regular expression pattern: (arn:(aws[a-zA-Z-]*)?:[a-z0-9-.]+:.*)|()",
        ),
        (
            "Invoke",
            {"FunctionName": "f", "InvocationType": "Sync"},
            "Value 'Sync' at 'invocationType' failed to satisfy constraint: Member must satisfy enum value set: [Event, RequestResponse, DryRun]",
        ),
        (
            "CreateFunction",
            {**CREATE, "TracingConfig": {"Mode": "On"}},
            "Value 'On' at 'tracingConfig.mode' failed to satisfy constraint: Member must satisfy enum value set: [Active, PassThrough]",
        ),
        (
            "CreateFunction",
            {**CREATE, "Architectures": ["mips"]},
            "Value '[mips]' at 'architectures' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]",
        ),
        (
            "CreateFunction",
            {**CREATE, "Architectures": [None]},
            "Value '[null]' at 'architectures' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]",
        ),
        (
            "CreateFunction",
            {**CREATE, "Architectures": []},
            "Value '[]' at 'architectures' failed to satisfy constraint: Member must have length greater than or equal to 1",
        ),
        (
            "CreateAlias",
            {"FunctionName": "f", "Name": "a", "FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": {"2": 2.0}}},
            "Value '{2=2.0}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must satisfy constraint: [Member must have value less than or equal to 1.0, Member must have value greater than or equal to 0.0]",
        ),
        (
            "CreateAlias",
            {"FunctionName": "f", "Name": "a", "FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": {"x": 1.0}}},
            "Value '{x=1.0}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 1024, Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: [0-9]+]",
        ),
        ("CreateFunction", {**CREATE, "FileSystemConfigs": [{"Arn": "a", "LocalMountPath": "/mnt/a"}]}, None),
        (
            "CreateFunction",
            {**CREATE, "Environment": {"Variables": {"1": "secret"}}},
            "Value at 'environment.variables' failed to satisfy constraint: Map keys must satisfy constraint: [Member must satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+]",
        ),
        (
            "SendDurableExecutionCallbackSuccess",
            {"CallbackId": "a", "Result": b"x" * 1048577},
            "Value at 'result' failed to satisfy constraint: Member must have length less than or equal to 1048576",
        ),
    ],
)
def test_texts(operation, params, expected):
    text = message(operation, params)
    if expected is None:
        assert text.startswith(
            "1 validation error detected: Value 'a' at 'fileSystemConfigs.1.member.arn' failed to satisfy constraint: Member"
        )
    else:
        assert text == f"1 validation error detected: {expected}"


def test_a_list_of_structures_is_quoted_as_java_prints_it():
    group = {"LogGroupName": "x"}
    text = message(
        "CreateFunction",
        {
            **CREATE,
            "FileSystemConfigs": [{"Arn": "a", "LocalMountPath": "/mnt/a"}] * 6,
            "LoggingConfig": {"LogGroup": group["LogGroupName"]},
        },
    )
    assert "Value '[FileSystemConfig(arn=a, localMountPath=/mnt/a" in text
    assert "at 'fileSystemConfigs' failed to satisfy constraint: Member must have length less than or equal to" in text


def test_a_runtime_is_left_to_control_but_not_in_layers():
    validate(LAMBDA["CreateFunction"], {**CREATE, "Runtime": "cobol"})
    validate(LAMBDA["UpdateFunctionConfiguration"], {"FunctionName": "f", "Runtime": "cobol"})
    text = message("PublishLayerVersion", {"LayerName": "l", "Content": {}, "CompatibleRuntimes": ["cobol"]})
    assert text.startswith(
        "1 validation error detected: Value '[cobol]' at 'compatibleRuntimes' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy enum value set: ["
    )


@pytest.mark.parametrize(
    ("service", "operation", "code"), [("logs", "CreateLogGroup", "InvalidParameterException"), ("sts", "AssumeRole", "ValidationError")]
)
def test_codes_of_other_services(service, operation, code):
    assert refusal(operation, {}, service).code == code


def test_control_speaks_the_same_grammar():
    fault = validation_fault([violation("memorySize", 20000, at_most(10240))])
    assert (
        fault.message
        == "1 validation error detected: Value '20000' at 'memorySize' failed to satisfy constraint: Member must have value less than or equal to 10240"
    )


def test_a_quote_has_an_end():
    assert len(message("GetFunction", {"FunctionName": "x" * 5_000_000})) < 100_000


def test_a_null_among_map_values_is_refused():
    text = message("TagResource", {"Resource": "arn:aws:lambda:us-east-1:123456789012:function:f", "Tags": {"a": None}})
    assert "Value '{a=null}' at 'tags' failed to satisfy constraint: Map value must satisfy constraint: [" in text


def test_recursive_shapes_are_checked_all_the_way_down():
    model = {
        "metadata": {"protocol": "rest-json", "apiVersion": "1"},
        "operations": {"Do": {"name": "Do", "http": {"method": "POST", "requestUri": "/1/do"}, "input": {"shape": "In"}}},
        "shapes": {
            "In": {"type": "structure", "members": {"A": {"shape": "S"}, "In": {"shape": "In"}, "Many": {"shape": "Map"}}},
            "Map": {"type": "map", "key": {"shape": "S"}, "value": {"shape": "In"}},
            "S": {"type": "string", "max": 3},
        },
    }
    operation = compile_service("x", model).operations["Do"]
    with pytest.raises(ClientFault) as caught:
        validate(operation, {"In": {"In": {"A": "long!"}}, "Many": {"k": {"A": "long?"}}})
    assert [text.split("'")[3] for text in caught.value.message.split(": ", 1)[1].split("; ")] == ["in.in.a", "many.k.member.a"]
    deep = b'{"In":' * 600 + b"{}" + b"}" * 600
    with pytest.raises(ClientFault, match="nested too deeply"):
        parse(operation, HttpRequest("POST", "/1/do", "", {}, deep), {})


# -- every constraint of every model, from both sides -------------------------------------------------------------------------------------


@functools.cache
def valid(shape: Shape, seen: tuple[str, ...] = ()) -> st.SearchStrategy[Any]:
    """Values that the constraints of ``shape`` allow."""
    low, high = int(shape.low or 0), shape.high
    most = min(low + 2, int(high)) if high is not None else low + 2
    if shape.kind == "structure":
        members = {
            name: valid(each.shape, (*seen, shape.name)) for name, each in shape.members.items() if each.required or shape.name not in seen
        }
        required = {name: members[name] for name, each in shape.members.items() if each.required}
        return st.fixed_dictionaries(required, optional={name: each for name, each in members.items() if name not in required})
    if shape.kind == "list" and shape.item is not None:
        return st.lists(valid(shape.item, seen), min_size=low, max_size=most)
    if shape.kind == "map" and shape.key is not None and shape.value is not None:
        return st.dictionaries(valid(shape.key, seen), valid(shape.value, seen), min_size=low, max_size=most)
    if shape.kind == "string":
        return _strings(shape, low)
    if shape.kind == "blob":
        return st.binary(min_size=low, max_size=low + 8)
    if shape.kind == "boolean":
        return st.booleans()
    if shape.kind in ("integer", "long"):
        return st.integers(low, int(high) if high is not None else 2**31 - 1)
    return st.floats(low, float(high) if high is not None else 1e9)


def _strings(shape: Shape, low: int) -> st.SearchStrategy[str]:
    if shape.enum:
        return st.sampled_from(shape.enum)
    if shape.pattern is None or low > 40:
        text = st.text("a", min_size=low, max_size=low + 8 if shape.high is None else min(low + 8, int(shape.high)))
        return (
            text if shape.pattern is None else text.filter(lambda value: compile_pattern(shape.pattern or "").fullmatch(value) is not None)
        )
    high = shape.high if shape.high is not None else 10**6
    return st.from_regex(compile_pattern(shape.pattern), fullmatch=True).filter(lambda value: low <= len(value) <= high)


@pytest.mark.parametrize("service", SERVICES)
@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_the_models_allow_passes(service, data):
    operations = [each for each in load_service(service).operations.values() if each.input is not None]
    operation = data.draw(st.sampled_from(operations))
    validate(operation, data.draw(valid(operation.input)))


@pytest.mark.parametrize(("service", "name"), wire_peer.ALL)
def test_every_required_member_is_missed(service, name):
    operation = load_service(service).operations[name]
    members = operation.input.members.values() if operation.input else ()
    required = [member for member in members if member.required]
    if not required:
        validate(operation, {})
        return
    text = message(name, {}, service)
    noun = "error" if len(required) == 1 else "errors"
    wanted = "; ".join(f"Value null at '{member.path}' failed to satisfy constraint: {NOT_NULL}" for member in required)
    assert text == f"{len(required)} validation {noun} detected: {wanted}"
