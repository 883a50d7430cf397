"""From a result, or a fault, to the answer's bytes.

A result is a ``dict`` by the model's member names; ``None`` is the same as absent; ``NULL`` is a written null. Where a member is bound
(status code, headers, payload) comes from the model. A payload blob may be ``bytes``, ``str`` or an async iterator of ``bytes`` chunks;
an event stream is an async iterator of events ``{"PayloadChunk": {"Payload": b"…"}}``. Outputs are not validated (AWS itself answers
values that its enums lack), but a member that the model does not have is our bug and raises ``PlatformFault`` rather than vanish.

Faults (contract 01 §1, §7). rest-json: ``x-amzn-ErrorType`` and ``{"Type":"User","message":…}``, the message's capital and the presence of
``Type`` as modelled; codes that lambda returns without modelling them are in ``_TYPELESS`` and ``_CAPITAL``. json: ``{"__type":…,
"message":…}``. query: ``<ErrorResponse>``. A request that was never routed gets JSON that both JSON dialects can read, unless the fault
knows its service.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from lambent.errors import ClientFault, PlatformFault
from lambent.wire.eventstream import event
from lambent.wire.http import HttpResponse
from lambent.wire.models import Member, Operation, Service, Shape, load_service
from lambent.wire.rest_xml import answer_rest_xml, refuse_rest_xml
from lambent.wire.values import NULL, write_blob, write_text, write_timestamp
from lambent.wire.xml import answer_xml, fault_xml

REQUEST_ID: Final = "x-amzn-RequestId"
_JSON: Final = ("Content-Type", "application/json")
_JSON_1_1: Final = ("Content-Type", "application/x-amz-json-1.1")
_XML: Final = ("Content-Type", "text/xml")
_STREAM: Final = ("Content-Type", "application/vnd.amazon.eventstream")

_TYPELESS: Final = {
    "AccessDeniedException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "RequestTimeTooSkewed",
    "UnknownOperationException",
    "UnrecognizedClientException",
    "ValidationException",
}
"""Unmodelled codes, of AWS's front rather than of the service, whose bodies have no ``Type``."""

_CAPITAL: Final = {"AccessDeniedException", "RequestEntityTooLargeException"}
"""Unmodelled codes whose text stands under ``Message``."""


def serialize(operation: Operation, result: dict[str, Any], request_id: str) -> HttpResponse:
    """The answer of a successful call. Raises ``PlatformFault`` for a result that the model does not allow."""
    if operation.protocol == "rest-xml":
        return answer_rest_xml(operation, result, request_id)
    _refuse_strangers(operation.output.members if operation.output else {}, result, operation.name)
    if operation.protocol == "rest-json":
        return _rest(operation, result, request_id)
    if operation.protocol == "query":
        headers = [(REQUEST_ID, request_id), _XML]
        return HttpResponse(200, headers, answer_xml(operation, result, request_id))
    streamed = next((each for each in operation.out_body if each.shape.eventstream), None)
    if streamed is not None:
        return _json_stream(operation, streamed, result, request_id)
    headers = [(REQUEST_ID, request_id), _json_type(operation.model)]
    return HttpResponse(200, headers, _dump(_structure(operation.output, result)) if operation.output is not None else b"")


def _json_type(service: Service) -> tuple[str, str]:
    return _JSON_1_1 if service.json_version == "1.1" else ("Content-Type", f"application/x-amz-json-{service.json_version}")


# -- rest-json ----------------------------------------------------------------------------------------------------------------------------


def _rest(operation: Operation, result: dict[str, Any], request_id: str) -> HttpResponse:
    status = operation.status
    if operation.out_status is not None:
        status = result.get(operation.out_status.name) or status
    headers = [(REQUEST_ID, request_id)]
    for member, name in operation.out_headers:
        value = result.get(member.name)
        if value is not None:
            headers.append((name, value if type(value) is str else write_text(member.shape, value, "rfc822")))
    payload = operation.out_payload
    if payload is not None:
        return _rest_payload(operation, payload, result.get(payload.name), HttpResponse(status, headers))
    if status == 204:
        return HttpResponse(status, headers)
    headers.append(_JSON)
    return HttpResponse(status, headers, _dump(_structure_of(operation.out_body, result)) if operation.out_body else b"")


def _rest_payload(operation: Operation, payload: Member, value: Any, response: HttpResponse) -> HttpResponse:
    shape = payload.shape
    if shape.eventstream:
        if not any(name.lower() == "content-type" for name, _ in response.headers):
            response.headers.append(_STREAM)
        if value is not None:
            response.body = EventFrames(shape, value)
        return response
    if response.status == 204:
        return response
    response.headers.append(_JSON)
    if value is None:
        return response
    if shape.kind != "blob":
        response.body = _dump(_value(shape, value, operation.name))
    else:
        response.body = value.encode() if isinstance(value, str) else value
    return response


# -- JSON ---------------------------------------------------------------------------------------------------------------------------------


def _dump(document: Any) -> bytes:
    """Compact UTF-8; a lone surrogate, which UTF-8 cannot carry, becomes ``?``."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def _structure(shape: Shape, result: Mapping[str, Any]) -> dict[str, Any]:
    _refuse_strangers(shape.members, result, shape.name)
    return _structure_of(tuple(shape.members.values()), result)


def _structure_of(members: tuple[Member, ...], result: Mapping[str, Any]) -> dict[str, Any]:
    document = {}
    for member in members:
        value = result.get(member.name)
        if value is not None:
            document[member.wire] = _value(member.shape, value, member.name)
    return document


def _refuse_strangers(members: Mapping[str, Member], result: Mapping[str, Any], where: str) -> None:
    if not result.keys() <= members.keys():
        raise PlatformFault(f"{where} has no output member {', '.join(sorted(result.keys() - members.keys()))}")


def _value(shape: Shape, value: Any, where: str) -> Any:
    kind = shape.kind
    if value is None or value is NULL:
        return None
    if kind == "structure":
        return _structure(shape, value)
    if kind == "list" and shape.item is not None:
        item = shape.item
        return [_value(item, each, where) for each in value]
    if kind == "map" and shape.value is not None:
        inner = shape.value
        return {name: _value(inner, each, where) for name, each in value.items()}
    if kind == "timestamp":
        return write_timestamp(value, shape.time_format or "unixTimestamp")
    if kind == "blob":
        return write_blob(value.encode() if isinstance(value, str) else value)
    return value


# -- event streams ------------------------------------------------------------------------------------------------------------------------


class EventFrames:
    """The frames of an event stream, one per event. ``close`` tells the source, if it wants to know, that nobody reads on."""

    def __init__(self, shape: Shape, events: AsyncIterator[Mapping[str, Any]]) -> None:
        self._shape = shape
        self._events = events

    def __aiter__(self) -> EventFrames:
        return self

    async def __anext__(self) -> bytes:
        event = await self._events.__anext__()
        [(name, body)] = event.items()
        member = self._shape.members.get(name)
        if member is None:
            raise PlatformFault(f"{self._shape.name} has no event {name}")
        return _frame(member, body)

    def close(self) -> None:
        close = getattr(self._events, "close", None)
        if close is not None:
            close()


def _frame(member: Member, body: Mapping[str, Any]) -> bytes:
    for name, part in member.shape.members.items():
        if part.event_payload and part.shape.kind == "blob":
            return event(member.wire, "application/octet-stream", body.get(name) or b"")
    return event(member.wire, "application/json", _dump(_structure(member.shape, body)))


def _json_stream(operation: Operation, streamed: Member, result: dict[str, Any], request_id: str) -> HttpResponse:
    """Under the json protocol the other members of the result travel as the stream's first event."""
    rest = _structure_of(tuple(each for each in operation.out_body if each is not streamed), result)

    async def frames() -> AsyncIterator[bytes]:
        yield event("initial-response", "application/x-amz-json-1.1", _dump(rest))
        async for frame in EventFrames(streamed.shape, result[streamed.name]):
            yield frame

    return HttpResponse(200, [(REQUEST_ID, request_id), _STREAM], frames())


# -- faults -------------------------------------------------------------------------------------------------------------------------------


def refuse(operation: Operation | None, fault: ClientFault, request_id: str) -> HttpResponse:
    """The answer of a refused call; without an operation, the fault's own ``service`` (if it has one) says in which protocol."""
    name = getattr(fault, "service", None)
    service = operation.model if operation is not None else load_service(name) if name is not None else None
    extra = dict(fault.extra)
    older: str = extra.pop("__query_code__", fault.code)  # what the code is called in the query protocol
    if service is not None and service.protocol == "rest-xml":
        return refuse_rest_xml(fault, request_id, operation is not None and operation.method == "HEAD")
    headers = [(REQUEST_ID, request_id)]
    if service is not None and service.protocol == "query":
        headers.append(_XML)
        return HttpResponse(fault.status, headers, fault_xml(service.namespace, older, fault.message, fault.status < 500, request_id))
    headers.append(("x-amzn-ErrorType", fault.code))
    if service is not None and service.protocol == "json":
        headers.append(_json_type(service))
        if "__query_code__" in fault.extra:
            headers.append(("x-amzn-query-error", f"{older};{'Sender' if fault.status < 500 else 'Receiver'}"))
        return HttpResponse(fault.status, headers, _dump({"__type": fault.code, "message": fault.message, **extra}))
    headers.append(_JSON)
    body = _rest_fault(service, fault, headers)
    if service is None:
        body["__type"] = fault.code
    return HttpResponse(fault.status, headers, _dump(body))


def _rest_fault(service: Service | None, fault: ClientFault, headers: list[tuple[str, str]]) -> dict[str, Any]:
    """The body; header members of ``extra`` go to ``headers``."""
    shape = service.errors.get(fault.code) if service is not None else None
    extra = dict(fault.extra)
    if shape is None:
        typed, message = fault.code not in _TYPELESS, "Message" if fault.code in _CAPITAL else "message"
    else:
        typed, message = shape.has_type, shape.message
        for member, header in shape.headers.items():
            if member in extra:
                headers.append((header, str(extra.pop(member))))
    body = extra
    if typed:
        body["Type"] = "User" if fault.status < 500 else "Service"
    body[message] = fault.message
    return body
