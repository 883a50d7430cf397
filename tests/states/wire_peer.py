"""botocore as the peer of the wire tests: it writes requests and reads answers, and walks its models for samples."""

from __future__ import annotations

import functools
import io
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import botocore.awsrequest
import botocore.loaders
import botocore.model
import botocore.parsers
import botocore.serialize

from lambent.wire.http import HttpRequest, HttpResponse
from lambent.wire.models import SERVICES, Operation, load_service

SCOPE = {
    "lambda": "lambda",
    "lambda-core": "lambda",
    "lambda-microvms": "lambda",
    "lambda-web": "lambda",
    "logs": "logs",
    "sts": "sts",
    "sqs": "sqs",
}
MOMENT = 1_790_000_000.0
ODD_TEXT = "arn:aws:lambda:us-east-1:123456789012:runtime/a b/version/ü+%2F&=?"
ALL = [(service, name) for service in SERVICES for name in load_service(service).operations]


@functools.cache
def model(service: str) -> botocore.model.ServiceModel:
    return botocore.model.ServiceModel(botocore.loaders.Loader().load_service_model(service, "service-2"), service)


def peer(operation: Operation) -> botocore.model.OperationModel:
    return model(operation.service).operation_model(operation.name)


def sample(shape: Any, *, full: bool, text: str = "x", seen: tuple[str, ...] = ()) -> Any:
    """A value of ``shape``: every member, or only the required ones."""
    kind = shape.type_name
    if kind == "structure":
        members = shape.members.items()
        if getattr(shape, "is_tagged_union", False):
            members = list(members)[:1]
        wanted = {
            name: member
            for name, member in members
            if (full or name in shape.required_members or getattr(shape, "is_tagged_union", False)) and member.name not in seen
        }
        return {name: sample(member, full=full, text=text, seen=(*seen, shape.name)) for name, member in wanted.items()}
    if kind == "list":
        return [sample(shape.member, full=full, text=text, seen=(*seen, shape.name)) for _ in range(2)]
    if kind == "map":
        return {sample(shape.key, full=full, text=text, seen=seen): sample(shape.value, full=full, text=text, seen=(*seen, shape.name))}
    if kind == "string":
        return shape.enum[0] if shape.enum else text
    scalars: dict[str, Any] = {
        "blob": b"\x00\xffblob",
        "timestamp": MOMENT,
        "boolean": True,
        "integer": 7,
        "long": 2**40,
        "float": 0.5,
        "double": 0.5,
    }
    return scalars[kind]


def request_of(operation: Operation, params: dict[str, Any]) -> HttpRequest:
    """``params`` as botocore puts them on the wire."""
    about = peer(operation)
    serializer = botocore.serialize.create_serializer(about.service_model.resolved_protocol, include_validation=False)
    parts = serializer.serialize_to_request(params, about)
    botocore.awsrequest.prepare_request_dict(parts, "http://127.0.0.1:4566", context={})
    prepared = botocore.awsrequest.create_request_object(parts).prepare()
    return received(prepared)


def received(prepared: Any) -> HttpRequest:
    """A request of botocore as a server of ours sees it."""
    url = urlsplit(prepared.url)
    headers = {str(name).lower(): _text(value) for name, value in prepared.headers.items()}
    headers.setdefault("host", url.netloc)
    body = prepared.body or b""
    data = body.encode() if isinstance(body, str) else body if isinstance(body, bytes | bytearray) else body.read()
    return HttpRequest(prepared.method, url.path, url.query, headers, bytes(data))


def read_answer(operation: Operation, response: HttpResponse) -> dict[str, Any]:
    """What botocore reads out of an answer or an error."""
    about = peer(operation)
    parser = botocore.parsers.create_parser(about.service_model.resolved_protocol)
    headers = botocore.awsrequest.HeadersDict(dict(response.headers))
    assert isinstance(response.body, bytes)
    streams = about.has_streaming_output and response.status < 300
    body = io.BytesIO(response.body) if streams else response.body
    parts = {"headers": headers, "status_code": response.status, "body": body, "context": {"operation_name": operation.name}}
    answer: dict[str, Any] = parser.parse(parts, about.output_shape)
    if streams and operation.out_payload is not None:
        answer[operation.out_payload.name] = answer[operation.out_payload.name].read()
    if response.status >= 300 and "Error" in answer:
        shape = about.service_model.shape_for_error_code(answer["Error"].get("Code", ""))
        if shape is not None:
            answer.update(parser.parse(parts, shape))
    return answer


def plain(value: Any) -> Any:
    """Dates as epoch seconds, so that both sides compare."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).timestamp()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
