"""S3's protocol: parameters in path, query, headers and XML; answers in headers and XML, or bytes as they are.

A document from a client may not bring a document type, so that no entity is ever expanded; its size is bounded by whoever read it.
Elements that the model does not know are ignored, as at AWS. A required member that is missing, or a value of the wrong type, is
``MalformedXML`` in a document and ``InvalidArgument`` elsewhere; the constraints of the model, of which S3 has few, are not checked here.
"""

from __future__ import annotations

import html
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from lambent.errors import ClientFault, PlatformFault
from lambent.wire.http import HttpRequest, HttpResponse
from lambent.wire.models import Member, Operation, Shape
from lambent.wire.values import Mistyped, read_text, write_text
from lambent.wire.xml import HEAD, element

_ROOTS = {
    "ListObjects": "ListBucketResult",
    "ListObjectsV2": "ListBucketResult",
    "ListObjectVersions": "ListVersionsResult",
    "ListBuckets": "ListAllMyBucketsResult",
    "ListParts": "ListPartsResult",
    "ListMultipartUploads": "ListMultipartUploadsResult",
    "CreateMultipartUpload": "InitiateMultipartUploadResult",
    "CompleteMultipartUpload": "CompleteMultipartUploadResult",
    "DeleteObjects": "DeleteResult",
    "GetBucketLocation": "LocationConstraint",
    "GetBucketVersioning": "VersioningConfiguration",
    "GetBucketTagging": "Tagging",
    "GetObjectTagging": "Tagging",
    "GetBucketLifecycleConfiguration": "LifecycleConfiguration",
    "GetBucketCors": "CORSConfiguration",
    "GetBucketAcl": "AccessControlPolicy",
    "GetObjectAcl": "AccessControlPolicy",
    "GetObjectAttributes": "GetObjectAttributesResponse",
}
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"


def parse_rest_xml(operation: Operation, request: HttpRequest, path_params: dict[str, str]) -> dict[str, Any]:
    """The parameters of ``request``. A payload that is streamed is the request's stream. Raises ``ClientFault``."""
    params: dict[str, Any] = {member.name: path_params[member.wire] for member in operation.uri_members}
    query = dict(parse_qsl(request.query, keep_blank_values=True, errors="replace"))
    for member in operation.query:
        if member.wire in query and not (member.shape.kind != "string" and query[member.wire] == ""):
            params[member.name] = _argument(member, query[member.wire])
    for member in operation.headers:
        value = request.headers.get(member.wire)
        if value is not None:
            params[member.name] = _argument(member, _utf8(value))
    for member in operation.prefixed:
        prefix = member.wire.lower()
        found = {name.removeprefix(prefix): _utf8(value) for name, value in request.headers.items() if name.startswith(prefix)}
        if found:
            params[member.name] = found
    _read_body(operation, request, params)
    missing = [
        name for name, member in (operation.input.members if operation.input else {}).items() if member.required and name not in params
    ]
    if missing:
        where = "XML" if operation.payload is not None and operation.payload.name in missing else missing[0]
        raise _malformed() if where == "XML" else ClientFault("InvalidArgument", 400, f"Missing required parameter: {where}")
    return params


def _utf8(value: str) -> str:
    """Headers arrive as Latin-1; SDKs send UTF-8."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return value


def _argument(member: Member, text: str) -> Any:
    item = member.shape.item
    try:
        if item is not None:
            return [read_text(item, each.strip()) for each in text.split(",")]
        return read_text(member.shape, text)
    except Mistyped as error:
        raise ClientFault("InvalidArgument", 400, f"Provided {member.wire} is not valid: {error.message}") from error


def _read_body(operation: Operation, request: HttpRequest, params: dict[str, Any]) -> None:
    payload = operation.payload
    if payload is not None and payload.streaming:
        params[payload.name] = request.stream if request.stream is not None else request.body
    elif payload is not None and payload.shape.kind != "structure":
        if request.body:
            params[payload.name] = request.body.decode("utf-8", "replace") if payload.shape.kind == "string" else request.body
    elif request.body and payload is not None:
        params[payload.name] = _structure(payload.shape, read_document(request.body))
    elif request.body and operation.body:
        root = read_document(request.body)
        params.update(_members({member.name: member for member in operation.body}, root))


def read_document(body: bytes) -> ET.Element:
    """The root element. Raises 400 ``MalformedXML``."""
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body or b"\0" in body:
        raise _malformed()
    try:
        return ET.fromstring(body)
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise _malformed() from error


def _malformed() -> ClientFault:
    text = "The XML you provided was not well-formed or did not validate against our published schema"
    return ClientFault("MalformedXML", 400, text)


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _structure(shape: Shape, element: ET.Element) -> dict[str, Any]:
    values = _members(shape.members, element)
    if any(member.required and name not in values for name, member in shape.members.items()):
        raise _malformed()
    return values


def _members(members: Mapping[str, Member], element: ET.Element) -> dict[str, Any]:
    children: dict[str, list[ET.Element]] = {}
    for child in element:
        children.setdefault(_local(child), []).append(child)
    values: dict[str, Any] = {}
    for name, member in members.items():
        if member.attribute:
            found = element.get(f"{{{_XSI}}}{member.wire.rpartition(':')[2]}")
            if found is not None:
                values[name] = found
            continue
        given = children.get(member.wire)
        if given:
            values[name] = _value(member, given)
    return values


def _value(member: Member, given: list[ET.Element]) -> Any:
    shape = member.shape
    if shape.item is not None:
        item = shape.item
        elements = given if member.flattened else [child for child in given[0] if _local(child) == shape.item_name]
        return [_single(item, each) for each in elements]
    return _single(shape, given[0])


def _single(shape: Shape, element: ET.Element) -> Any:
    if shape.kind == "structure":
        return _structure(shape, element)
    try:
        text = element.text or ""
        return read_text(shape, text if shape.kind == "string" else text.strip())
    except Mistyped as error:
        raise _malformed() from error


# -- answers ------------------------------------------------------------------------------------------------------------------------------


def answer_rest_xml(operation: Operation, result: dict[str, Any], request_id: str) -> HttpResponse:
    """The answer of a successful call. Raises ``PlatformFault`` for a member that the model does not have."""
    known = operation.output.members if operation.output is not None else {}
    if not result.keys() <= known.keys() | {"__status__"}:
        raise PlatformFault(f"{operation.name} has no output member {', '.join(sorted(result.keys() - known.keys()))}")
    headers = [("x-amz-request-id", request_id), ("x-amz-id-2", request_id)]
    for member, name in operation.out_headers:
        value = result.get(member.name)
        if value is not None:
            headers.append((name, _latin(write_text(member.shape, value, "rfc822"))))
    for member in operation.out_prefixed:
        headers += [(f"{member.wire}{name}", _latin(value)) for name, value in (result.get(member.name) or {}).items()]
    status = result.get("__status__") or operation.status
    payload = operation.out_payload
    if payload is not None and (payload.streaming or payload.shape.kind != "structure"):
        body = result.get(payload.name) or b""
        if not payload.streaming:
            headers.append(("Content-Type", "application/json"))
        return HttpResponse(status, headers, body.encode() if isinstance(body, str) else body)
    document = _document(operation, result)
    if document:
        headers.append(("Content-Type", "application/xml"))
    return HttpResponse(status, headers, document)


def _latin(value: str) -> str:
    return value.encode("utf-8").decode("latin-1")


def _document(operation: Operation, result: dict[str, Any]) -> bytes:
    payload = operation.out_payload
    if operation.status == 204 or operation.method == "HEAD":
        return b""
    if payload is not None:
        value = result.get(payload.name)
        if value is None:
            return b""
        inner, root = _write_members(payload.shape, value), payload.wire
    elif operation.out_body and operation.output is not None:
        inner = "".join(_write(each, result[each.name]) for each in operation.out_body if result.get(each.name) is not None)
        root = _ROOTS.get(operation.name, f"{operation.name}Result")
        if operation.name == "GetBucketLocation":  # the one document whose root holds the value itself
            inner = html.escape(result.get("LocationConstraint") or "")
    else:
        return b""
    return f'{HEAD}<{root} xmlns="{NAMESPACE}">{inner}</{root}>'.encode()


def _write_members(shape: Shape, value: Mapping[str, Any]) -> str:
    if not value.keys() <= shape.members.keys():
        raise PlatformFault(f"{shape.name} has no member {', '.join(sorted(value.keys() - shape.members.keys()))}")
    return "".join(
        _write(member, value[name]) for name, member in shape.members.items() if value.get(name) is not None and not member.attribute
    )


def _write(member: Member, value: Any) -> str:
    shape, name = member.shape, member.wire
    if shape.item is not None:
        item = shape.item
        if member.flattened:
            return "".join(_write_single(item, name, each, "") for each in value)
        return f"<{name}>{''.join(_write_single(item, shape.item_name, each, '') for each in value)}</{name}>"
    return _write_single(shape, name, value, member.namespace)


def _write_single(shape: Shape, name: str, value: Any, namespace: str) -> str:
    if shape.kind != "structure":
        return element(name, write_text(shape, value, "iso8601"))
    opening = name
    for each, member in shape.members.items():
        if member.attribute and value.get(each) is not None:
            opening += f' xmlns:xsi="{namespace or _XSI}" {member.wire}="{html.escape(value[each])}"'
    return f"<{opening}>{_write_members(shape, value)}</{name}>"


def refuse_rest_xml(fault: ClientFault, request_id: str, is_head: bool) -> HttpResponse:
    """``<Error>``; none for HEAD, whose answers have no bodies."""
    headers = [("x-amz-request-id", request_id), ("x-amz-id-2", request_id)]
    headers += [(name, str(value)) for name, value in fault.extra.items() if name.islower()]
    if is_head or fault.status == 304:
        return HttpResponse(fault.status, headers)
    headers.append(("Content-Type", "application/xml"))
    inner = element("Code", fault.code) + element("Message", fault.message)
    inner += "".join(element(name, str(value)) for name, value in fault.extra.items() if not name.islower())
    inner += element("RequestId", request_id) + element("HostId", request_id)
    return HttpResponse(fault.status, headers, f"{HEAD}<Error>{inner}</Error>".encode())
