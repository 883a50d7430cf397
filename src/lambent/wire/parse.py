"""From a request to the operation's parameters: names of the model to Python values.

One reader per protocol. Strings, numbers and booleans are Python's own; blobs are ``bytes``, timestamps ``float`` epoch seconds, lists and
maps ``list`` and ``dict``. As at AWS, members that the model does not know are ignored, ``null`` is the same as absent (but is kept inside
lists and maps, where ``wire/validate.py`` refuses it), and a value of the wrong JSON type is a ``SerializationException``. A blob payload
is the body itself and is not read at all: that a function's event is JSON is the front door's business.

What JSON allows in Python but not on this wire is refused here, so that nothing behind this door meets it: NaN and infinities, lone
surrogates (which no store can encode), nesting without end, numbers beyond their type.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from lambent.wire.http import HttpRequest
from lambent.wire.models import Member, Operation, Shape
from lambent.wire.rest_xml import parse_rest_xml
from lambent.wire.router import form_of
from lambent.wire.values import FLOATS, INTEGERS, Mistyped, cannot, read_blob, read_text, read_timestamp

_STRUCTURE_UNEXPECTED = "Start of structure or map found where not expected."
_LIST_UNEXPECTED = "Start of list found where not expected"
_ABSENT: dict[str, Any] = {}


def parse(operation: Operation, request: HttpRequest, path_params: dict[str, str]) -> dict[str, Any]:
    """The parameters of ``request``, unchecked against constraints. Raises ``ClientFault`` (``SerializationException``)."""
    if operation.protocol == "rest-xml":
        return parse_rest_xml(operation, request, path_params)
    try:
        if operation.protocol == "rest-json":
            return _parse_rest(operation, request, path_params)
        if operation.input is None:
            return {}
        if operation.protocol == "json":
            return _structure(operation.input.members, _read_json(request.body))
        params = _Form(form_of(request)).structure(operation.input, "")
        if "QueueUrl" in operation.input.members and request.path.strip("/"):
            params.setdefault("QueueUrl", request.path)  # older clients of SQS post to the queue itself
        return params
    except RecursionError as error:
        raise Mistyped("nested too deeply") from error


def _parse_rest(operation: Operation, request: HttpRequest, path_params: dict[str, str]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for member in operation.uri_members:
        text = path_params[member.wire]
        params[member.name] = text if member.shape.kind == "string" else read_text(member.shape, text)
    if operation.query and request.query:
        _parse_query(operation, request.query, params)
    headers = request.headers
    for member in operation.headers:
        value = headers.get(member.wire)
        if value:
            params[member.name] = value if member.shape.kind == "string" else read_text(member.shape, value)
    payload = operation.payload
    if payload is not None:
        if request.body:
            params[payload.name] = request.body if payload.shape.kind == "blob" else _value(payload.shape, _read_json(request.body))
    elif operation.body:
        params.update(_structure({each.name: each for each in operation.body}, _read_json(request.body)))
    return params


def _parse_query(operation: Operation, query: str, params: dict[str, Any]) -> None:
    given: dict[str, list[str]] = {}
    for key, value in parse_qsl(query, keep_blank_values=True, errors="replace"):
        given.setdefault(key, []).append(value)
    named = {member.wire for member in operation.query}
    for member in operation.query:
        shape = member.shape
        if shape.kind == "map" and shape.value is not None:
            rest = {key: read_text(shape.value, values[0]) for key, values in given.items() if key not in named}
            if rest:
                params[member.name] = rest
        elif member.wire in given:
            values = given[member.wire]
            if shape.item is not None:
                params[member.name] = [read_text(shape.item, each) for each in values]
            else:
                params[member.name] = read_text(shape, values[0])


# -- JSON ---------------------------------------------------------------------------------------------------------------------------------


def _refuse_constant(text: str) -> NoReturn:
    raise Mistyped(f"{text} is not JSON")


def _read_json(body: bytes) -> Any:
    """The document, or an empty one where there is no body."""
    if not body or body.isspace():
        return _ABSENT
    try:
        document = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
        if b"\\ud" in body or b"\\uD" in body:
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise Mistyped(f"Could not parse request body into json: {_reason(error)}") from error
    return document


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "unpaired surrogate in a string"
    if isinstance(error, UnicodeDecodeError):
        return f"Invalid UTF-8 byte 0x{error.object[error.start]:02x}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _structure(members: dict[str, Member], document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise Mistyped(_LIST_UNEXPECTED if isinstance(document, list) else "Expected structure or null")
    params = {}
    for name, member in members.items():
        value = document.get(member.wire)
        if value is not None:
            params[name] = _value(member.shape, value)
    return params


def _value(shape: Shape, value: Any) -> Any:
    kind = shape.kind
    if value is None:
        return None
    if kind == "string":
        if isinstance(value, str):
            return value
    elif kind == "structure":
        return _structure(shape.members, value)
    elif kind == "list":
        return _list(shape, value)
    elif kind == "map":
        return _map(shape, value)
    if isinstance(value, dict):
        raise Mistyped(_STRUCTURE_UNEXPECTED)
    if isinstance(value, list):
        raise Mistyped(_LIST_UNEXPECTED)
    return _scalar(kind, value)


def _list(shape: Shape, value: Any) -> list[Any]:
    item = shape.item
    if isinstance(value, dict):
        raise Mistyped(_STRUCTURE_UNEXPECTED)
    if not isinstance(value, list) or item is None:
        raise Mistyped("Expected list or null")
    return [_value(item, each) for each in value]


def _map(shape: Shape, value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        raise Mistyped(_LIST_UNEXPECTED)
    if not isinstance(value, dict) or shape.value is None:
        raise Mistyped("Expected map or null")
    inner = shape.value
    return {key: _value(inner, each) for key, each in value.items()}


def _scalar(kind: str, value: Any) -> Any:
    if kind == "boolean" and isinstance(value, bool):
        return value
    if isinstance(value, bool):
        raise cannot("TRUE_VALUE" if value else "FALSE_VALUE", kind)
    if kind in INTEGERS and isinstance(value, int | float):
        low, high = INTEGERS[kind]
        if low <= value <= high and value == int(value):
            return int(value)
    elif kind in FLOATS and isinstance(value, int | float):
        if abs(value) <= 1.7976931348623157e308 and math.isfinite(value):
            return float(value)
    elif kind == "timestamp":
        return read_timestamp(value)
    elif kind == "blob" and isinstance(value, str):
        return read_blob(value)
    raise cannot("STRING_VALUE" if isinstance(value, str) else "NUMBER_VALUE", kind)


# -- query protocol -----------------------------------------------------------------------------------------------------------------------

_INDEX = re.compile(r"\d{1,6}")


class _Form:
    """Form fields as a tree: ``Tags.member.2.Key=k`` is ``{"Tags": {"member": {"2": {"Key": "k"}}}}``, kept flat, found by prefix."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields: dict[str, str] = {}
        self._children: dict[str, dict[str, None]] = {}
        for key, value in fields:
            if key.count(".") > 32:
                raise Mistyped("nested too deeply")
            self._fields.setdefault(key, value)
            parent, _, child = key.rpartition(".")
            while child:
                self._children.setdefault(parent, {})[child] = None
                parent, _, child = parent.rpartition(".")

    def structure(self, shape: Shape, prefix: str) -> dict[str, Any]:
        params = {}
        for name, member in shape.members.items():
            where = f"{prefix}.{member.wire}" if prefix else member.wire
            if where in self._fields or where in self._children:
                params[name] = self._read(member.shape, where)
        return params

    def _read(self, shape: Shape, where: str) -> Any:
        if shape.kind == "structure":
            return self.structure(shape, where)
        if shape.item is not None:
            base = where if shape.flattened else f"{where}.member"
            item = shape.item
            return [self._read(item, f"{base}.{index}") for index in self._indices(base)]
        if shape.key is not None and shape.value is not None:
            base = where if shape.flattened else f"{where}.entry"
            return {
                read_text(shape.key, self._text(f"{base}.{index}.{shape.key_name}")): self._read(
                    shape.value, f"{base}.{index}.{shape.value_name}"
                )
                for index in self._indices(base)
            }
        return read_text(shape, self._text(where))

    def _indices(self, base: str) -> list[str]:
        return sorted((each for each in self._children.get(base, ()) if _INDEX.fullmatch(each)), key=int)

    def _text(self, where: str) -> str:
        text = self._fields.get(where)
        if text is None:
            raise Mistyped(f"Expected a value at {where}")
        return text
