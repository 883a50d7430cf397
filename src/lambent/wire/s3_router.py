"""From an S3 request to the operation that it names.

S3 has one path for a hundred operations: what tells them apart is the method, whether there is a key behind the bucket, names in the
query (``?versioning``) and the presence of required parameters (``uploadId`` makes a PUT of an object one of a part,
``x-amz-copy-source`` makes it a copy). All of that stands in the model, so the table is read off it: of the operations that a request
satisfies, the one that asks for most is meant.

A bucket is the first part of the path or the first part of the host's name (``bucket.s3.example``, ``bucket.localhost``).
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import parse_qsl, unquote

from lambent.errors import ClientFault
from lambent.wire.http import HttpRequest
from lambent.wire.models import Operation, Service

_BUCKET_HOST = re.compile(r"(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}?[a-z0-9])\.(?:s3[.-].*|s3|localhost)")
_DEPRECATED = {"GetBucketLifecycle", "PutBucketLifecycle", "GetBucketNotification", "PutBucketNotification"}
_OTHER_PLACES = {"WriteGetObjectResponse", "CreateSession", "ListDirectoryBuckets"}


class S3Routes:
    """The routes of S3."""

    def __init__(self, service: Service) -> None:
        self._routes: dict[tuple[str, int], list[_Route]] = {}
        for operation in service.operations.values():
            if operation.name not in _DEPRECATED | _OTHER_PLACES:
                depth = operation.uri.count("{")
                self._routes.setdefault((operation.method, depth), []).append(_Route(operation))
        for routes in self._routes.values():
            routes.sort(key=lambda route: -route.weight)

    def find(self, request: HttpRequest) -> tuple[Operation, dict[str, str]]:
        """The operation and ``Bucket`` and ``Key``. Raises 405 ``MethodNotAllowed``."""
        places = address(request)
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        for route in self._routes.get((request.method, len(places)), ()):
            if route.takes(query, request.headers):
                return route.operation, places
        raise S3Refusal("MethodNotAllowed", 405, "The specified method is not allowed against this resource.")


class _Route:
    __slots__ = ("_headers", "_literals", "_query", "operation", "weight")

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self._literals = [literal.partition("=") for literal in operation.literal_query]
        self._query = [member.wire for member in operation.query if member.required]
        self._headers = [member.wire for member in operation.headers if member.required and member.wire == "x-amz-copy-source"]
        self.weight = len(self._literals) + len(self._query) + len(self._headers)

    def takes(self, query: dict[str, str], headers: dict[str, str]) -> bool:
        if not all(name in query and (not equals or query[name] == value) for name, equals, value in self._literals):
            return False
        return all(name in query for name in self._query) and all(name in headers for name in self._headers)


class S3Refusal(ClientFault):
    """A refusal that knows how it is spelled although nothing was routed."""

    service = "s3"


def address(request: HttpRequest) -> dict[str, str]:
    """``{}``, ``{"Bucket": …}`` or ``{"Bucket": …, "Key": …}``, decoded. Raises 400 ``InvalidURI``."""
    bucket = bucket_of_host(request.headers.get("host", ""))
    path = request.path.removeprefix("/")
    if not bucket:
        bucket, _, path = path.partition("/")
    try:
        bucket, key = unquote(bucket, errors="strict"), unquote(path, errors="strict")
    except UnicodeDecodeError as error:
        raise S3Refusal("InvalidURI", 400, "Couldn't parse the specified URI.") from error
    if not bucket:
        return {}
    return {"Bucket": bucket, "Key": key} if key else {"Bucket": bucket}


def bucket_of_host(host: str) -> str:
    """The bucket in front of an S3 host name, ``""`` where there is none."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    match = _BUCKET_HOST.fullmatch(name.lower())
    if match is None:
        return ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return match["bucket"]
    return ""
