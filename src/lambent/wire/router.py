"""From a request to the operation that it names.

The SigV4 scope says which service is meant; where a request is unsigned, its looks do (``X-Amz-Target``, a dated path, an ``Action``).
``lambda`` stands for four services on one host and one signing name, told apart by the date at the head of the path; three tag
operations share even that between lambda and lambda-microvms and are told apart by the ARN that they name.

A path is split at its slashes and looked up by (method, date, noun, number of segments, last segment), which leaves one candidate or
two. Only when that fails are the slower patterns tried in which a parameter may hold slashes: durable execution, runtime and layer
ARNs arrive with ``%2F`` from the SDKs, but some proxies decode it on the way. Such a slash is believed only inside a value that the
model's own pattern accepts, so that ``/functions/a/b/c`` stays an unknown path. Nothing is ever normalised: ``..`` is just a name that
no pattern accepts.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, unquote

from lambent.errors import ClientFault
from lambent.wire.http import HttpRequest
from lambent.wire.models import Operation, Service, load_service
from lambent.wire.patterns import accepts
from lambent.wire.s3_router import S3Routes, bucket_of_host
from lambent.wire.sqs_query import query_service

LAMBDA_HOST: Final = ("lambda", "lambda-core", "lambda-microvms", "lambda-web")
"""The services that share ``lambda.<region>.amazonaws.com``, in the order in which they are searched (and loaded)."""

SCOPES: Final = {"lambda": "lambda", "logs": "logs", "sts": "sts", "sqs": "sqs", "s3": "s3"}
"""SigV4 signing names that are answered."""

_LABEL = re.compile(r"\{(\w+)\+?\}")
_MICROVM = ":microvm-image:"
_FORM = "application/x-www-form-urlencoded"


class UnknownOperation(ClientFault):
    """No operation has this name, path or target. ``service`` (if known) decides how the answer is spelled."""

    def __init__(self, message: str, service: str | None = None, code: str = "UnknownOperationException", status: int = 404) -> None:
        super().__init__(code, status, message)
        self.service = service


class _Route:
    """One operation's path, split: which segments are literal and which are parameters."""

    __slots__ = ("greedy", "literals", "operation", "params", "query", "weight")

    def __init__(self, operation: Operation) -> None:
        parts = operation.uri.rstrip("/").split("/")
        labels = [_LABEL.fullmatch(part) for part in parts]
        self.operation = operation
        self.query = operation.literal_query
        self.params = tuple((index, label[1]) for index, label in enumerate(labels) if label)
        self.literals = tuple((index, part) for index, part in enumerate(parts) if index > 2 and not labels[index])
        self.greedy: re.Pattern[str] | None = None
        self.weight = sum(len(part) for _, part in self.literals)

    def takes(self, parts: list[str], query: str) -> bool:
        for index, literal in self.literals:
            if parts[index] != literal:
                return False
        if self.query:
            given = query.split("&")
            return all(literal in given for literal in self.query)
        return True

    def match_greedily(self, path: str) -> dict[str, str] | None:
        """Match with parameters that hold slashes, each of which the model's pattern must accept."""
        if self.greedy is None:
            pieces = _LABEL.split(self.operation.uri.rstrip("/"))
            self.greedy = re.compile("".join(f"(?P<{piece}>.+)" if odd % 2 else re.escape(piece) for odd, piece in enumerate(pieces)))
        match = self.greedy.fullmatch(path)
        if match is None:
            return None
        values = {name: unquote(text) for name, text in match.groupdict().items()}
        for member in self.operation.uri_members:
            value, pattern = values[member.wire], member.shape.pattern
            if "/" in value and not (accepts(pattern, value) if pattern else value.startswith("arn:")):
                return None
        return values


class _RestTable:
    """The routes of one rest-json service."""

    __slots__ = ("_exact", "_loose")

    def __init__(self, service: Service) -> None:
        self._exact: dict[tuple[str, str, str, int, str | None], list[_Route]] = {}
        self._loose: dict[tuple[str, str, str], list[_Route]] = {}
        for operation in service.operations.values():
            parts = operation.uri.rstrip("/").split("/")
            last = None if _LABEL.fullmatch(parts[-1]) else parts[-1]
            route = _Route(operation)
            self._exact.setdefault((operation.method, parts[1], parts[2], len(parts), last), []).append(route)
            if route.params:
                self._loose.setdefault((operation.method, parts[1], parts[2]), []).append(route)
        for routes in self._exact.values():
            routes.sort(key=lambda route: -len(route.query))
        for routes in self._loose.values():
            routes.sort(key=lambda route: -route.weight)

    def find(self, request: HttpRequest, parts: list[str]) -> tuple[Operation, dict[str, str]] | None:
        method, date, noun, count = request.method, parts[1], parts[2], len(parts)
        routes = self._exact.get((method, date, noun, count, parts[-1]))
        found = _choose(routes, parts, request.query) if routes else None
        if found is None:
            routes = self._exact.get((method, date, noun, count, None))
            found = _choose(routes, parts, request.query) if routes else None
        return found if found is not None else self._find_greedily(method, date, noun, "/".join(parts))

    def _find_greedily(self, method: str, date: str, noun: str, path: str) -> tuple[Operation, dict[str, str]] | None:
        for route in self._loose.get((method, date, noun), ()):
            values = route.match_greedily(path)
            if values is not None:
                return route.operation, values
        return None


def _choose(routes: list[_Route], parts: list[str], query: str) -> tuple[Operation, dict[str, str]] | None:
    for route in routes:
        if route.takes(parts, query):
            return route.operation, {name: unquote(part) if "%" in (part := parts[index]) else part for index, name in route.params}
    return None


class Router:
    """Routes for every service; each service's model is loaded when a request first needs it (lambda's at once)."""

    def __init__(self) -> None:
        self._tables: list[_RestTable] = [_RestTable(load_service(LAMBDA_HOST[0]))]
        self._s3: S3Routes | None = None

    def route(self, request: HttpRequest, service_scope: str | None) -> tuple[Operation, dict[str, str]]:
        """The operation and its decoded path parameters, by label. ``service_scope`` is the SigV4 signing name, if there is one.

        Raises ``UnknownOperation``.
        """
        service = _guess(request) if service_scope is None else SCOPES.get(service_scope)
        if service == "lambda":
            return self._route_path(request)
        if service == "s3":
            if self._s3 is None:
                self._s3 = S3Routes(load_service("s3"))
            return self._s3.find(request)
        if service is None:
            raise UnknownOperation(f"Lambent does not answer the service {service_scope!r}")
        if service == "sts":
            return _route_action(request, load_service(service)), {}
        if service == "sqs" and "x-amz-target" not in request.headers:
            return _route_action(request, query_service()), {}
        return _route_target(request, load_service(service)), {}

    def _route_path(self, request: HttpRequest) -> tuple[Operation, dict[str, str]]:
        parts = request.path.split("/")
        if parts[-1] == "" and len(parts) > 2:
            parts.pop()
        if len(parts) < 3 or parts[0] != "":
            raise UnknownOperation(
                f"Unable to determine service/operation name to be authorized for {request.method} {request.path}", "lambda"
            )
        for index in range(len(LAMBDA_HOST)):
            if index == len(self._tables):
                self._tables.append(_RestTable(load_service(LAMBDA_HOST[index])))
            found = self._tables[index].find(request, parts)
            if found is not None:
                return self._by_arn(*found) if parts[2] == "tags" else found
        raise UnknownOperation(f"Unable to determine service/operation name to be authorized for {request.method} {request.path}", "lambda")

    @staticmethod
    def _by_arn(operation: Operation, values: dict[str, str]) -> tuple[Operation, dict[str, str]]:
        """The tag operations of a MicroVM image belong to lambda-microvms."""
        if operation.service == "lambda" and any(_MICROVM in value for value in values.values()):
            return load_service("lambda-microvms").operations[operation.name], values
        return operation, values


def is_s3(request: HttpRequest) -> bool:
    """Whether a request is S3's by its looks alone: by the scope of its signature, or by a bucket in its host."""
    if "/s3/aws4_request" in request.headers.get("authorization", "") or bucket_of_host(request.headers.get("host", "")):
        return True
    query = request.query
    return "%2Fs3%2Faws4_request" in query or "/s3/aws4_request" in query or "AWSAccessKeyId=" in query


def _guess(request: HttpRequest) -> str:
    if "x-amz-target" in request.headers:
        return "sqs" if request.headers["x-amz-target"].startswith("AmazonSQS.") else "logs"
    if bucket_of_host(request.headers.get("host", "")):
        return "s3"
    bare = request.path in ("", "/")
    if bare and (request.headers.get("content-type", "").startswith(_FORM) or "Action=" in request.query):
        return "sts"
    if request.headers.get("content-type", "").startswith(_FORM):
        return "sqs"
    return "lambda"


def _route_target(request: HttpRequest, service: Service) -> Operation:
    target = request.headers.get("x-amz-target", "")
    prefix, _, name = target.partition(".")
    operation = service.operations.get(name) if prefix == service.target_prefix else None
    if operation is None:
        raise UnknownOperation(f"Unknown X-Amz-Target {target!r}", service.name)
    return operation


def _route_action(request: HttpRequest, service: Service) -> Operation:
    """The ``Action`` of a query-protocol request, from its body or its query string."""
    name = action_of(request)
    if name is None:
        raise UnknownOperation("Missing Action", service.name, "MissingAction", 400)
    operation = service.operations.get(name)
    if operation is None:
        text = f"Could not find operation {name} for version {service.api_version}"
        raise UnknownOperation(text, service.name, "InvalidAction", 400)
    return operation


def action_of(request: HttpRequest) -> str | None:
    for key, value in form_of(request):
        if key == "Action":
            return value
    return None


def form_of(request: HttpRequest) -> list[tuple[str, str]]:
    """The fields of a query-protocol request, body before query string."""
    body = request.body.decode("utf-8", "replace") if request.method == "POST" else ""
    return parse_qsl(body, keep_blank_values=True) + parse_qsl(request.query, keep_blank_values=True)
