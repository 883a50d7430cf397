"""Answers and faults that botocore reads back as what was meant."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import wire_peer
from botocore.eventstream import EventStreamBuffer

from lambent.errors import ClientFault, NotImplementedFault, PlatformFault, invalid_parameter, not_found, throttled
from lambent.wire.eventstream import Decoder
from lambent.wire.gateway import Gateway
from lambent.wire.http import HttpRequest, HttpResponse
from lambent.wire.models import load_service
from lambent.wire.values import NULL

GATEWAY = Gateway()
LAMBDA = load_service("lambda").operations
ID = "6f1d6f0c-0000-4000-8000-000000000000"


BUFFERED = [
    (operation.service, operation.name)
    for operation in GATEWAY.operations()
    if operation.protocol != "rest-xml"
    and (operation.output is None or not any(member.shape.eventstream for member in operation.output.members.values()))
]
"""All but S3, which has ``test_wire_s3.py``, and the event streams, which have tests of their own below."""


def headers(response: HttpResponse) -> dict[str, str]:
    assert len({name.lower() for name, _ in response.headers}) == len(response.headers)
    return dict(response.headers)


def document(response: HttpResponse) -> Any:
    assert isinstance(response.body, bytes)
    return json.loads(response.body)


@pytest.mark.parametrize(("service", "name"), BUFFERED)
def test_botocore_reads_every_operations_answer(service, name):
    operation = load_service(service).operations[name]
    about = wire_peer.peer(operation).output_shape
    result = wire_peer.sample(about, full=True, text="ünï ☃ <&>\"'") if about is not None else {}
    for member in operation.out_headers:
        result[member[0].name] = "plain"
    if operation.out_status is not None:
        result[operation.out_status.name] = operation.status
    response = GATEWAY.answer(operation, result, ID)
    assert headers(response)["x-amzn-RequestId"] == ID
    answer = wire_peer.plain(wire_peer.read_answer(operation, response))
    metadata = answer.pop("ResponseMetadata")
    assert metadata["HTTPStatusCode"] == operation.status
    assert metadata["RequestId"] == ID
    assert answer == result


@pytest.mark.parametrize(("service", "name"), BUFFERED)
def test_what_is_absent_is_omitted(service, name):
    operation = load_service(service).operations[name]
    result = dict.fromkeys(operation.output.members) if operation.output else {}
    response = GATEWAY.answer(operation, result, ID)
    assert response.status == operation.status
    assert {each.lower() for each, _ in response.headers} <= {"x-amzn-requestid", "content-type"}
    if operation.protocol == "rest-json" and operation.out_payload is None and operation.out_body and response.status != 204:
        assert response.body == b"{}"


def test_what_aws_writes_as_null():
    nulls = {"FilterCriteria": NULL, "UUID": None}
    assert document(GATEWAY.answer(LAMBDA["GetEventSourceMapping"], nulls, ID)) == {"FilterCriteria": None}
    listed = GATEWAY.answer(LAMBDA["ListEventSourceMappings"], {"EventSourceMappings": [nulls]}, ID)
    assert document(listed) == {"EventSourceMappings": [{"FilterCriteria": None}]}


def test_invoke():
    response = GATEWAY.answer(
        LAMBDA["Invoke"], {"ExecutedVersion": "$LATEST", "FunctionError": "Unhandled", "LogResult": "bG9n", "Payload": b"\x00raw"}, ID
    )
    assert (response.status, response.body) == (200, b"\x00raw")
    assert headers(response) == {
        "x-amzn-RequestId": ID,
        "X-Amz-Executed-Version": "$LATEST",
        "X-Amz-Function-Error": "Unhandled",
        "X-Amz-Log-Result": "bG9n",
        "Content-Type": "application/json",
    }
    assert GATEWAY.answer(LAMBDA["Invoke"], {"StatusCode": 202, "Payload": b""}, ID).status == 202
    dry = GATEWAY.answer(LAMBDA["Invoke"], {"StatusCode": 204, "Payload": b"never"}, ID)
    assert (dry.status, dry.body, headers(dry)) == (204, b"", {"x-amzn-RequestId": ID})
    assert GATEWAY.answer(LAMBDA["Invoke"], {"Payload": "ü"}, ID).body == "ü".encode()


async def gather(body: Any) -> bytes:
    return b"".join([chunk async for chunk in body])


async def stream(*items: Any):
    for item in items:
        yield item


def test_a_streamed_payload_passes_through():
    response = GATEWAY.answer(LAMBDA["Invoke"], {"Payload": stream(b"a", b"b")}, ID)
    assert asyncio.run(gather(response.body)) == b"ab"


def test_response_stream_events():
    events = stream(
        {"PayloadChunk": {"Payload": b"\xffchunk"}}, {"PayloadChunk": {}}, {"InvokeComplete": {"ErrorCode": "E", "LogResult": None}}
    )
    response = GATEWAY.answer(LAMBDA["InvokeWithResponseStream"], {"ExecutedVersion": "1", "EventStream": events}, ID)
    assert headers(response) == {
        "x-amzn-RequestId": ID,
        "X-Amz-Executed-Version": "1",
        "Content-Type": "application/vnd.amazon.eventstream",
    }
    data = asyncio.run(gather(response.body))
    theirs = EventStreamBuffer()
    theirs.add_data(data)
    assert [message.to_response_dict()["status_code"] for message in theirs] == [200, 200, 200]
    octets = {":event-type": "PayloadChunk", ":content-type": "application/octet-stream", ":message-type": "event"}
    assert [(message.headers, message.payload) for message in Decoder().feed(data)] == [
        (octets, b"\xffchunk"),
        (octets, b""),
        ({":event-type": "InvokeComplete", ":content-type": "application/json", ":message-type": "event"}, b'{"ErrorCode":"E"}'),
    ]
    with pytest.raises(PlatformFault, match="has no event Odd"):
        asyncio.run(gather(GATEWAY.answer(LAMBDA["InvokeWithResponseStream"], {"EventStream": stream({"Odd": {}})}, ID).body))


def test_a_stream_over_json_starts_with_the_response():
    operation = load_service("logs").operations["StartLiveTail"]
    response = GATEWAY.answer(operation, {"responseStream": stream({"sessionStart": {"requestId": "r"}})}, ID)
    first, second = Decoder().feed(asyncio.run(gather(response.body)))
    assert (first.headers[":event-type"], first.payload) == ("initial-response", b"{}")
    assert (second.headers[":event-type"], json.loads(second.payload)) == ("sessionStart", {"requestId": "r"})


def test_dates_keep_their_spelling():
    mapping = GATEWAY.answer(LAMBDA["GetEventSourceMapping"], {"LastModified": 1767225600.25, "StartingPositionTimestamp": "as it is"}, ID)
    assert document(mapping) == {"LastModified": 1767225600.25, "StartingPositionTimestamp": "as it is"}
    function = GATEWAY.answer(LAMBDA["GetFunctionConfiguration"], {"LastModified": "2026-11-21T09:00:00.123+0000"}, ID)
    assert document(function) == {"LastModified": "2026-11-21T09:00:00.123+0000"}
    runtime = GATEWAY.answer(load_service("lambda-core").operations["GetNetworkConnector"], {"LastModified": 1767225600.25}, ID)
    assert document(runtime) == {"LastModified": "2026-01-01T00:00:00.250Z"}


def test_a_result_that_the_model_lacks_is_our_bug():
    for service, name in (
        ("lambda", "GetFunction"),
        ("logs", "DescribeLogGroups"),
        ("sts", "GetCallerIdentity"),
        ("lambda", "DeleteAlias"),
    ):
        with pytest.raises(PlatformFault, match="no output member Nonsense"):
            GATEWAY.answer(load_service(service).operations[name], {"Nonsense": 1}, ID)
    with pytest.raises(PlatformFault, match="no output member Nonsense"):
        GATEWAY.answer(LAMBDA["GetFunction"], {"Configuration": {"Nonsense": 1}}, ID)


def test_no_text_breaks_the_encoding():
    response = GATEWAY.answer(LAMBDA["GetFunctionConfiguration"], {"Description": "lone \ud800"}, ID)
    assert document(response) == {"Description": "lone ?"}


# -- faults -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "body"),
    [
        (invalid_parameter("bad"), {"Type": "User", "message": "bad"}),
        (not_found("gone"), {"Type": "User", "Message": "gone"}),
        (
            throttled("ConcurrentInvocationLimitExceeded"),
            {"Reason": "ConcurrentInvocationLimitExceeded", "Type": "User", "message": "Rate Exceeded."},
        ),
        (ClientFault("ServiceException", 500, "oh"), {"Type": "Service", "Message": "oh"}),
        (ClientFault("ValidationException", 400, "v"), {"message": "v"}),
        (ClientFault("AccessDeniedException", 403, "no"), {"Message": "no"}),
        (ClientFault("SerializationException", 400, "s"), {"Type": "User", "message": "s"}),
        (ClientFault("RequestEntityTooLargeException", 413, "big"), {"Type": "User", "Message": "big"}),
        (
            NotImplementedFault("lambda", "X"),
            {"Type": "Service", "message": "Lambent does not implement lambda.X yet; see docs/parity.md."},
        ),
    ],
)
def test_faults_of_lambda(fault, body):
    response = GATEWAY.refuse(LAMBDA["GetFunction"], fault, ID)
    assert (response.status, document(response)) == (fault.status, body)
    assert headers(response) == {"x-amzn-RequestId": ID, "x-amzn-ErrorType": fault.code, "Content-Type": "application/json"}
    answer = wire_peer.read_answer(LAMBDA["GetFunction"], response)
    assert (answer["Error"]["Code"], answer["Error"]["Message"]) == (fault.code, fault.message)
    assert answer["ResponseMetadata"]["RequestId"] == ID


def test_a_members_header_of_a_fault():
    fault = ClientFault("TooManyRequestsException", 429, "slow", {"retryAfterSeconds": 3, "Reason": "CallerRateLimitExceeded"})
    response = GATEWAY.refuse(LAMBDA["Invoke"], fault, ID)
    assert headers(response)["Retry-After"] == "3"
    assert document(response) == {"Reason": "CallerRateLimitExceeded", "Type": "User", "message": "slow"}
    assert wire_peer.read_answer(LAMBDA["Invoke"], response)["retryAfterSeconds"] == "3"


@pytest.mark.parametrize("service", ["lambda", "lambda-core", "lambda-microvms", "lambda-web", "logs", "sts"])
def test_every_modelled_fault_is_read_by_botocore(service):
    model = load_service(service)
    operation = next(iter(model.operations.values()))
    for shape in model.errors.values():
        response = GATEWAY.refuse(operation, ClientFault(shape.code, shape.status, "text <&> ü"), ID)
        answer = wire_peer.read_answer(operation, response)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == shape.status
        assert (answer["Error"]["Code"], answer["Error"]["Message"]) == (shape.code, "text <&> ü")
        assert answer["ResponseMetadata"]["RequestId"] == ID


def test_message_members_are_those_of_the_contract():
    """01 §7, a sample of both spellings."""
    spelled = {code: shape.message for code, shape in load_service("lambda").errors.items()}
    assert {
        code
        for code in ("AliasLimitExceededException", "ResourceConflictException", "PreconditionFailedException")
        if spelled[code] == "Message"
    } == set()
    assert {
        code for code in ("ResourceNotFoundException", "ServiceException", "KMSNotFoundException") if spelled[code] == "message"
    } == set()


def test_a_request_without_operation_gets_an_answer_for_everyone():
    response = GATEWAY.refuse(None, ClientFault("UnknownOperationException", 404, "what?"), ID)
    assert document(response) == {"message": "what?", "__type": "UnknownOperationException"}
    for service in ("lambda", "logs"):
        operation = next(iter(load_service(service).operations.values()))
        assert wire_peer.read_answer(operation, response)["Error"] == {"Code": "UnknownOperationException", "Message": "what?"}


def test_an_unrouted_fault_speaks_its_services_protocol():
    with pytest.raises(ClientFault) as caught:
        GATEWAY.route(HttpRequest("POST", "/", "", {}, b"Action=Nothing"), "sts")
    response = GATEWAY.refuse(None, caught.value, ID)
    assert headers(response)["Content-Type"] == "text/xml"
    answer = wire_peer.read_answer(load_service("sts").operations["GetCallerIdentity"], response)
    assert answer["Error"]["Code"] == "InvalidAction"


def test_xml_is_readable_whatever_it_quotes():
    operation = load_service("sts").operations["GetCallerIdentity"]
    response = GATEWAY.refuse(operation, ClientFault("ValidationError", 400, "a\x00b\x1b]]>&<\ud800"), ID)
    assert wire_peer.read_answer(operation, response)["Error"]["Message"] == "a\ufffdb\ufffd]]>&<\ufffd"


def test_all_operations_are_listed():
    listed = [(operation.service, operation.name) for operation in GATEWAY.operations() if operation.service != "s3"]
    assert listed == wire_peer.ALL
    assert len([name for service, name in listed if service == "lambda"]) >= 91
