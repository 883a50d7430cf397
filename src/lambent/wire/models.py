"""The service models, read from the installed botocore and compiled into what the request path walks.

botocore ships AWS's own description of every operation: its HTTP binding, the shapes of its parameters and results, its constraints
and its errors. Lambent speaks the wire from these files, so a new member of a request is a newer botocore and not a change here. Three
rules follow from a server that must be healthy in a second with a small memory:

* only the files are read; no module of botocore is imported (its session machinery alone weighs more than our whole server);
* a service is loaded at its first use, newest API version, and its JSON is dropped once the graph of ``Shape`` objects stands;
* nothing that only people read (documentation) is kept.

A structure's members stay in the order of the model, which is the order in which validation errors are listed. Member locations that
Lambent does not know raise ``UnknownModel`` when the service is loaded: a model that is half understood would parse wrongly in silence.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lambent.errors import PlatformFault

SERVICES = ("lambda", "lambda-core", "lambda-microvms", "lambda-web", "logs", "sqs", "sts")
"""The services that are spoken in JSON or queries, by the names of their folders in botocore."""

XML_SERVICES = ("s3",)
"""Those that are spoken in rest-xml."""

_TOO_STRICT = {"sqs": ("QueueAttributeName",)}
"""Enumerations that the service itself does not hold its callers to: ReceiveMessage takes names of messages' attributes here, too."""

_LOCATIONS = {"uri", "querystring", "header", "headers", "statusCode"}
_MESSAGES = ("message", "Message")


class UnknownModel(PlatformFault):
    """botocore is missing, lacks a service, or describes it in terms that Lambent does not know."""


class Shape:
    """A type. ``kind`` is botocore's: structure, list, map, string, integer, long, float, double, boolean, blob, timestamp.

    ``low`` and ``high`` bound a length (strings, blobs, lists, maps) or a value (numbers). ``check`` is where ``wire/validate.py``
    keeps what it compiled for this shape.
    """

    __slots__ = (
        "check",
        "enum",
        "eventstream",
        "flattened",
        "high",
        "item",
        "item_name",
        "key",
        "key_name",
        "kind",
        "low",
        "members",
        "name",
        "pattern",
        "sensitive",
        "time_format",
        "value",
        "value_name",
    )

    def __init__(self, name: str, raw: Mapping[str, Any]) -> None:
        self.name = name
        self.kind: str = raw["type"]
        self.low: int | float | None = raw.get("min")
        self.high: int | float | None = raw.get("max")
        self.pattern: str | None = raw.get("pattern")
        self.enum: tuple[str, ...] = tuple(raw.get("enum", ()))
        self.time_format: str | None = raw.get("timestampFormat")
        self.sensitive = bool(raw.get("sensitive"))
        self.eventstream = bool(raw.get("eventstream"))
        self.flattened = bool(raw.get("flattened"))
        self.members: dict[str, Member] = {}
        self.item: Shape | None = None
        self.item_name = "member"
        self.key: Shape | None = None
        self.value: Shape | None = None
        self.key_name: str = raw.get("key", {}).get("locationName", "key")
        self.value_name: str = raw.get("value", {}).get("locationName", "value")
        self.check: Any = None


class Member:
    """A named part of a structure. ``wire`` is its name on the wire (lower case for headers), ``path`` its name in validation errors."""

    __slots__ = (
        "attribute",
        "event_payload",
        "flattened",
        "location",
        "name",
        "namespace",
        "path",
        "required",
        "shape",
        "streaming",
        "wire",
    )

    def __init__(self, name: str, raw: Mapping[str, Any], shape: Shape, required: bool) -> None:
        self.name = name
        self.shape = shape
        self.required = required
        self.location: str | None = raw.get("location")
        self.wire: str = raw.get("locationName", name)
        self.path = name[:1].lower() + name[1:]
        self.event_payload = bool(raw.get("eventpayload"))
        self.streaming = bool(raw.get("streaming"))
        self.flattened = bool(raw.get("flattened")) or shape.flattened
        self.attribute = bool(raw.get("xmlAttribute"))
        self.namespace: str = raw.get("xmlNamespace", {}).get("uri", "")
        if self.location is not None and self.location not in _LOCATIONS:
            raise UnknownModel(f"member {name} of a model is bound to {self.location!r}")


class ErrorShape:
    """A modelled exception: what ``wire/serialize.py`` needs to write it. ``headers`` maps member to header name."""

    __slots__ = ("code", "has_type", "headers", "message", "status")

    def __init__(self, name: str, raw: Mapping[str, Any]) -> None:
        about = raw.get("error", {})
        members = raw.get("members", {})
        self.code: str = about.get("code", name)
        self.status: int = about.get("httpStatusCode", 500 if raw.get("fault") else 400)
        self.has_type = "Type" in members
        self.message = next((each for each in _MESSAGES if each in members), "message")
        self.headers = {each: bound["locationName"] for each, bound in members.items() if bound.get("location") == "header"}


class Operation:
    """One operation, its bindings sorted by where on the wire they stand."""

    __slots__ = (
        "body",
        "error_codes",
        "headers",
        "input",
        "literal_query",
        "method",
        "model",
        "name",
        "out_body",
        "out_headers",
        "out_payload",
        "out_prefixed",
        "out_status",
        "output",
        "payload",
        "prefixed",
        "protocol",
        "query",
        "result_wrapper",
        "service",
        "status",
        "uri",
        "uri_members",
    )

    def __init__(self, service: Service, raw: Mapping[str, Any], shapes: _Shapes) -> None:
        http = raw.get("http", {})
        self.model = service
        self.service = service.name
        self.protocol = service.protocol
        self.name: str = raw["name"]
        self.method: str = http.get("method", "POST")
        self.uri, _, literal = http.get("requestUri", "/").partition("?")
        self.literal_query: tuple[str, ...] = tuple(literal.split("&")) if literal else ()
        self.status: int = http.get("responseCode", 200)
        self.error_codes: tuple[str, ...] = tuple(shapes.error_code(each["shape"]) for each in raw.get("errors", ()))
        self._bind_input(raw.get("input"), shapes)
        self._bind_output(raw.get("output"), shapes)

    def _bind_input(self, raw: Mapping[str, Any] | None, shapes: _Shapes) -> None:
        self.input = shapes.get(raw["shape"]) if raw else None
        members = tuple(self.input.members.values()) if self.input else ()
        payload = shapes.raw[raw["shape"]].get("payload") if raw else None
        self.payload = self.input.members[payload] if self.input and payload else None
        self.uri_members = tuple(each for each in members if each.location == "uri")
        self.query = tuple(each for each in members if each.location == "querystring")
        self.headers = tuple(each for each in members if each.location == "header")
        self.prefixed = tuple(each for each in members if each.location == "headers")
        self.body = tuple(each for each in members if each.location is None and each is not self.payload)

    def _bind_output(self, raw: Mapping[str, Any] | None, shapes: _Shapes) -> None:
        self.output = shapes.get(raw["shape"]) if raw else None
        self.result_wrapper: str | None = raw.get("resultWrapper") if raw else None
        members = tuple(self.output.members.values()) if self.output else ()
        payload = shapes.raw[raw["shape"]].get("payload") if raw else None
        self.out_payload = self.output.members[payload] if self.output and payload else None
        self.out_status = next((each for each in members if each.location == "statusCode"), None)
        self.out_headers = tuple(
            (each, shapes.header_name(raw["shape"], each.name)) for each in members if each.location == "header" and raw
        )
        self.out_prefixed = tuple(each for each in members if each.location == "headers")
        self.out_body = tuple(each for each in members if each.location is None and each is not self.out_payload)

    def __repr__(self) -> str:
        return f"<{self.service}.{self.name}>"


class Service:
    """One service: its protocol, its operations by name and its errors by code."""

    __slots__ = ("api_version", "errors", "json_version", "name", "namespace", "operations", "protocol", "target_prefix")

    def __init__(self, name: str, model: Mapping[str, Any]) -> None:
        about = model["metadata"]
        self.name = name
        self.protocol: str = about["protocol"]
        self.api_version: str = about["apiVersion"]
        self.target_prefix: str = about.get("targetPrefix", "")
        self.namespace: str = about.get("xmlNamespace", "")
        self.json_version: str = about.get("jsonVersion", "1.1")
        if self.protocol not in {"rest-json", "rest-xml", "json", "query"}:
            raise UnknownModel(f"{name} speaks {self.protocol!r}")
        shapes = _Shapes(model["shapes"])
        self.operations = {each: Operation(self, raw, shapes) for each, raw in model["operations"].items()}
        if self.protocol != "rest-xml":
            for operation in self.operations.values():
                for member in (*operation.prefixed, *operation.out_prefixed):
                    raise UnknownModel(f"member {member.name} of a model is bound to 'headers'")
        errors = (ErrorShape(each, raw) for each, raw in model["shapes"].items() if raw.get("exception"))
        self.errors = {each.code: each for each in errors}

    def __repr__(self) -> str:
        return f"<{self.name} {self.api_version}>"


class _Shapes:
    """Builds each ``Shape`` once; a shape is known before its parts are, so recursive models terminate."""

    def __init__(self, raw: Mapping[str, Mapping[str, Any]]) -> None:
        self.raw = raw
        self._built: dict[str, Shape] = {}

    def get(self, name: str) -> Shape:
        shape = self._built.get(name)
        if shape is not None:
            return shape
        raw = self.raw[name]
        shape = self._built[name] = Shape(name, raw)
        required = frozenset(raw.get("required", ()))
        for each, member in raw.get("members", {}).items():
            shape.members[each] = self._member(each, member, each in required)
        if shape.kind == "list":
            shape.item = self.get(raw["member"]["shape"])
            shape.item_name = raw["member"].get("locationName", "member")
        elif shape.kind == "map":
            shape.key, shape.value = self.get(raw["key"]["shape"]), self.get(raw["value"]["shape"])
        return shape

    def _member(self, name: str, raw: Mapping[str, Any], required: bool) -> Member:
        member = Member(name, raw, self.get(raw["shape"]), required)
        if member.location == "header":
            member.wire = member.wire.lower()
        return member

    def header_name(self, structure: str, member: str) -> str:
        """The header in the model's own capitals, for answers."""
        name: str = self.raw[structure]["members"][member]["locationName"]
        return name

    def error_code(self, name: str) -> str:
        code: str = self.raw[name].get("error", {}).get("code", name)
        return code


def compile_service(name: str, model: Mapping[str, Any]) -> Service:
    """Compile a parsed ``service-2.json``. Raises ``UnknownModel``."""
    for shape in _TOO_STRICT.get(name, ()):
        model["shapes"][shape].pop("enum", None)
    return Service(name, model)


def read_model(name: str) -> dict[str, Any]:
    """The newest ``service-2.json`` of ``name`` as it is. Raises ``OSError``, ``ValueError``, ``UnknownModel``."""
    model: dict[str, Any] = json.loads(gzip.decompress(_newest(name).read_bytes()))
    return model


@functools.cache
def load_service(name: str) -> Service:
    """The newest model of ``name`` (one of ``SERVICES``), compiled; the same object each time. Raises ``UnknownModel``."""
    try:
        return compile_service(name, read_model(name))
    except (OSError, ValueError, KeyError) as error:
        raise UnknownModel(f"botocore's model of {name} cannot be read: {error!r}") from error


def _newest(name: str) -> Path:
    found = importlib.util.find_spec("botocore")
    if found is None or not found.submodule_search_locations:
        raise UnknownModel("botocore is not installed")
    folder = Path(found.submodule_search_locations[0]) / "data" / name
    versions = sorted(each for each in folder.iterdir() if (each / "service-2.json.gz").is_file())
    if not versions:
        raise UnknownModel(f"botocore has no model of {name}")
    return versions[-1] / "service-2.json.gz"
