"""Requests that botocore writes are read back as what was meant; what has the wrong type is refused in AWS's words."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
import wire_peer
from hypothesis import given
from hypothesis import strategies as st

from lambent.errors import ClientFault
from lambent.wire.http import HttpRequest
from lambent.wire.models import compile_service, load_service
from lambent.wire.parse import parse
from lambent.wire.router import Router
from lambent.wire.values import Mistyped, read_timestamp

ROUTER = Router()
LAMBDA = load_service("lambda").operations


@pytest.mark.parametrize(("service", "name"), wire_peer.ALL)
@pytest.mark.parametrize("full", [True, False], ids=["full", "minimal"])
def test_every_operation_reads_back_what_botocore_wrote(service, name, full):
    operation = load_service(service).operations[name]
    about = wire_peer.peer(operation).input_shape
    for text in ("x", 'ünï ☃ "quoted" \\ +&=/%41'):
        if any(member.shape.kind == "string" for member in operation.headers) and text != "x":
            continue  # headers carry ASCII
        params = wire_peer.sample(about, full=full, text=text) if about is not None else {}
        request = wire_peer.request_of(operation, params)
        _, path_params = ROUTER.route(request, wire_peer.SCOPE[service])
        if operation.payload is not None and operation.payload.shape.kind == "structure":
            params.setdefault(operation.payload.name, {})  # botocore writes an absent payload as an empty document
        if operation.protocol == "query":
            params = {name: value for name, value in params.items() if value != {}}  # which forms cannot express
        assert parse(operation, request, path_params) == params


def body(operation: str, document: object) -> dict[str, object]:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    about = LAMBDA[operation]
    return parse(about, HttpRequest(about.method, about.uri, "", {}, data), {member.wire: "f" for member in about.uri_members})


def test_unknown_members_are_ignored_and_null_is_absent():
    assert body("CreateFunction", {"FunctionName": "f", "Nonsense": [1], "Description": None}) == {"FunctionName": "f"}
    assert body("CreateFunction", {"Tags": {"a": None}, "Layers": [None]}) == {"Tags": {"a": None}, "Layers": [None]}


@pytest.mark.parametrize("data", [b"", b"  \n"])
def test_no_body_is_an_empty_document(data):
    assert body("CreateFunction", data) == {}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"Timeout": "x"}, "STRING_VALUE can not be converted to an Integer"),
        ({"Timeout": True}, "TRUE_VALUE can not be converted to an Integer"),
        ({"Timeout": 1.5}, "NUMBER_VALUE can not be converted to an Integer"),
        ({"Timeout": 2**31}, "NUMBER_VALUE can not be converted to an Integer"),
        ({"Timeout": 1e400}, "Infinity is not JSON"),
        ({"Publish": "true"}, "STRING_VALUE can not be converted to a Boolean"),
        ({"Publish": 0}, "NUMBER_VALUE can not be converted to a Boolean"),
        ({"Handler": 5}, "NUMBER_VALUE can not be converted to a String"),
        ({"Handler": False}, "FALSE_VALUE can not be converted to a String"),
        ({"Handler": {}}, "Start of structure or map found where not expected."),
        ({"Handler": []}, "Start of list found where not expected"),
        ({"Layers": {}}, "Start of structure or map found where not expected."),
        ({"Layers": "x"}, "Expected list or null"),
        ({"Tags": []}, "Start of list found where not expected"),
        ({"Tags": "x"}, "Expected map or null"),
        ({"Code": []}, "Start of list found where not expected"),
        ({"Code": "x"}, "Expected structure or null"),
        ({"Code": {"ZipFile": "not base64!"}}, "Invalid base64 in a blob"),
        ({"Code": {"ZipFile": "YQ"}}, "Invalid base64 in a blob"),
        ({"Code": {"ZipFile": "ü"}}, "Invalid base64 in a blob"),
        ({"Code": {"ZipFile": 5}}, "NUMBER_VALUE can not be converted to a Blob"),
        ([], "Start of list found where not expected"),
        ("text", "Expected structure or null"),
        (b'{"Handler": NaN}', "NaN is not JSON"),
        (b'{"Timeout": 1e999}', "NUMBER_VALUE can not be converted to an Integer"),
        (b'{"Handler": "\\ud800"}', "Could not parse request body into json: unpaired surrogate in a string"),
        (b'{"Handler": "\xff"}', "Could not parse request body into json: Invalid UTF-8 byte 0xff"),
    ],
)
def test_wrong_types(document, message):
    with pytest.raises(ClientFault) as caught:
        body("CreateFunction", document)
    assert (caught.value.code, caught.value.status, caught.value.message) == ("SerializationException", 400, message)


@pytest.mark.parametrize("data", [b"{", b'{"a":', b"\xff", b"[" * 100_000, b'{"Timeout":' + b"9" * 10_000 + b"}", b"{'a':1}", b"\x00"])
def test_broken_documents(data):
    with pytest.raises(ClientFault) as caught:
        body("CreateFunction", data)
    assert caught.value.code == "SerializationException"


def test_paired_surrogates_are_text():
    assert body("CreateFunction", b'{"Handler": "\\ud83d\\ude00"}') == {"Handler": "😀"}


def test_integral_floats_and_wrapped_base64_are_taken():
    wrapped = base64.encodebytes(b"z" * 200).decode()
    assert body("CreateFunction", {"Timeout": 3.0, "Code": {"ZipFile": wrapped}}) == {"Timeout": 3, "Code": {"ZipFile": b"z" * 200}}


def test_a_payload_is_the_body_itself():
    invoke = LAMBDA["Invoke"]
    for data in (b"{broken", b"\xff\x00", b"5"):
        assert parse(invoke, HttpRequest("POST", "/", "", {}, data), {"FunctionName": "f"}) == {"FunctionName": "f", "Payload": data}
    headers = {"x-amz-invocation-type": "Event", "x-amz-client-context": "e30=", "x-amz-log-type": ""}
    assert parse(invoke, HttpRequest("POST", "/", "Qualifier=v1&Qualifier=v2", headers, b""), {"FunctionName": "f"}) == {
        "FunctionName": "f",
        "Qualifier": "v1",
        "InvocationType": "Event",
        "ClientContext": "e30=",
    }


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("MaxItems=5&Marker=a%20b+c%2Bd", {"MaxItems": 5, "Marker": "a b c+d"}),
        ("Marker=", {"Marker": ""}),
        ("Statuses=RUNNING&Statuses=FAILED&ReverseOrder=TRUE", {"Statuses": ["RUNNING", "FAILED"], "ReverseOrder": True}),
        ("StartedAfter=2026-01-01T00:00:00Z&StartedBefore=1767225600.5", {"StartedAfter": 1767225600.0, "StartedBefore": 1767225600.5}),
        ("X-Amz-Signature=x&&=&unknown", {}),
    ],
)
def test_queries(query, params):
    operation = LAMBDA["ListDurableExecutionsByFunction"]
    assert parse(operation, HttpRequest("GET", "/", query, {}, b""), {"FunctionName": "f"}) == {"FunctionName": "f", **params}


@pytest.mark.parametrize(
    "query", ["MaxItems=x", "MaxItems=", "MaxItems=1.5", "MaxItems=99999999999", "MaxItems=١", "ReverseOrder=1", "StartedAfter=x"]
)
def test_queries_of_wrong_type(query):
    with pytest.raises(ClientFault) as caught:
        parse(LAMBDA["ListDurableExecutionsByFunction"], HttpRequest("GET", "/", query, {}, b""), {"FunctionName": "f"})
    assert caught.value.code == "SerializationException"


def test_a_map_in_the_query_takes_what_is_left():
    model = {
        "metadata": {"protocol": "rest-json", "apiVersion": "1"},
        "operations": {"Do": {"name": "Do", "http": {"method": "GET", "requestUri": "/1/do"}, "input": {"shape": "In"}}},
        "shapes": {
            "In": {
                "type": "structure",
                "members": {
                    "A": {"shape": "S", "location": "querystring", "locationName": "a"},
                    "Rest": {"shape": "M", "location": "querystring"},
                },
            },
            "M": {"type": "map", "key": {"shape": "S"}, "value": {"shape": "S"}},
            "S": {"type": "string"},
        },
    }
    operation = compile_service("x", model).operations["Do"]
    assert parse(operation, HttpRequest("GET", "/1/do", "a=1&b=2", {}, b""), {}) == {"A": "1", "Rest": {"b": "2"}}


@pytest.mark.parametrize(
    ("given_", "seconds"),
    [(0, 0.0), ("1.5", 1.5), ("1970-01-01T00:00:01Z", 1.0), ("1970-01-01T01:00:01+01:00", 1.0), ("Thu, 01 Jan 1970 00:00:09 GMT", 9.0)],
)
def test_timestamps_in_every_spelling(given_, seconds):
    assert read_timestamp(given_) == seconds


@given(st.one_of(st.text(), st.floats(), st.booleans(), st.none(), st.integers()))
def test_any_timestamp_is_a_number_or_refused(value):
    with contextlib.suppress(Mistyped):
        assert abs(read_timestamp(value)) < 1e15


@pytest.mark.parametrize("data", [b"PolicyArns.member=x", b"Tags.member.1=x", b"DurationSeconds=x", b"Tags.member.x.Key=1", b"." * 500])
def test_odd_forms_are_refused_or_read_without_failing(data):
    operation = load_service("sts").operations["AssumeRole"]
    with contextlib.suppress(Mistyped):
        assert isinstance(parse(operation, HttpRequest("POST", "/", "", {}, data), {}), dict)
