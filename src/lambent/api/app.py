"""The request path, from socket to service, as one literal list.

    read        the body, bounded; a declared length over the limit is refused before a byte of it is read
    pages       /_lambent/...: health, environments, stories, code downloads (``pages.py``)
    identify    who calls: account, Region, service from the SigV4 scope; verified where the settings ask for it
    route       which operation of which service
    parse       parameters from the model, validated against the model
    dispatch    the service's method of the operation's name, or an honest not-implemented error

Each step either answers, and the path ends, or fills in the ``Exchange`` that travels along. This file is one of the three places where
a broad ``except`` stands: whatever goes wrong with a request ends as an AWS-shaped answer, a fault of ours also in the log with its story.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from lambent.api.pages import Pages
from lambent.errors import ClientFault, NotImplementedFault, PlatformFault
from lambent.iam.credentials import Authenticator
from lambent.settings import Limits
from lambent.store.contract import StoreUnavailable
from lambent.wire.call import Call
from lambent.wire.gateway import Gateway
from lambent.wire.http import HttpRequest, HttpResponse
from lambent.wire.models import Operation

log = logging.getLogger("lambent.api")

Method = Callable[[Call, dict[str, Any]], Awaitable[dict[str, Any]]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(slots=True)
class Exchange:
    """One request on its way; each step fills in its part."""

    request: HttpRequest
    source_ip: str
    base_url: str
    request_id: str
    call: Call | None = None
    service: str | None = None
    operation: Operation | None = None
    params: dict[str, Any] = field(default_factory=dict)
    path_params: dict[str, str] = field(default_factory=dict)


class App:
    """The ASGI application. ``methods`` maps (service, operation name) to the method that does it."""

    def __init__(
        self,
        gateway: Gateway,
        authenticator: Authenticator,
        methods: dict[tuple[str, str], Method],
        pages: Pages,
        limits: Limits,
    ) -> None:
        self._gateway = gateway
        self._authenticator = authenticator
        self._methods = methods
        self._pages = pages
        self._body_limit = limits.request_body
        self.path: tuple[Callable[[Exchange], Awaitable[HttpResponse | None]], ...] = (
            self._serve_pages,
            self._identify,
            self._route,
            self._parse,
            self._dispatch,
        )

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        exchange = _exchange(scope)
        try:
            body = await _read(exchange.request, receive, self._body_limit)
            if body is None:
                return
            exchange.request.body = body
            response = await self._walk(exchange)
        except ClientFault as fault:
            response = self._refuse(exchange, fault)
        except StoreUnavailable as fault:
            log.error("request %s: %s", exchange.request_id, fault)
            response = self._refuse(exchange, ClientFault("ServiceException", 500, f"The store is unavailable: {fault}"))
        except PlatformFault as fault:
            log.error("request %s: %s", exchange.request_id, fault)
            response = self._refuse(exchange, ClientFault("ServiceException", 500, fault.message))
        except Exception:
            log.exception("request %s", exchange.request_id)
            response = self._refuse(exchange, ClientFault("ServiceException", 500, "Lambent failed on this request; see its log."))
        await _answer(response, scope["method"], send)

    async def _walk(self, exchange: Exchange) -> HttpResponse:
        for step in self.path:
            response = await step(exchange)
            if response is not None:
                return response
        raise PlatformFault("the request path ended without an answer")

    async def _serve_pages(self, exchange: Exchange) -> HttpResponse | None:
        if not exchange.request.path.startswith("/_lambent/"):
            return None
        return await self._pages.serve(exchange.request)

    async def _identify(self, exchange: Exchange) -> None:
        identity = self._authenticator.identify(exchange.request)
        exchange.service = identity.service
        exchange.call = Call(
            request_id=exchange.request_id,
            account=identity.account,
            region=identity.region,
            access_key=identity.access_key,
            principal=identity.principal,
            base_url=exchange.base_url,
            source_ip=exchange.source_ip,
            trace=exchange.request.headers.get("x-amzn-trace-id", ""),
        )

    async def _route(self, exchange: Exchange) -> None:
        exchange.operation, exchange.path_params = self._gateway.route(exchange.request, exchange.service)

    async def _parse(self, exchange: Exchange) -> None:
        assert exchange.operation is not None
        exchange.params = self._gateway.parse(exchange.operation, exchange.request, exchange.path_params)

    async def _dispatch(self, exchange: Exchange) -> HttpResponse:
        operation, call = exchange.operation, exchange.call
        assert operation is not None
        assert call is not None
        method = self._methods.get((operation.service, operation.name))
        if method is None:
            raise NotImplementedFault(operation.service, operation.name)
        given = exchange.request.headers.get("x-amzn-requestid")
        if given is not None and operation.name == "Invoke":
            call.request_id = exchange.request_id = _uuid(given)
        result = await method(call, exchange.params)
        extra = result.pop("__headers__", None)
        response = self._gateway.answer(operation, result, exchange.request_id)
        if extra:
            response.headers.extend(extra.items())
        return response

    def _refuse(self, exchange: Exchange, fault: ClientFault) -> HttpResponse:
        return self._gateway.refuse(exchange.operation, fault, exchange.request_id)


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise ClientFault("InvalidRequestContentException", 400, "The request id must be a UUID.") from error


def _exchange(scope: dict[str, Any]) -> Exchange:
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1")
        text = value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    client = scope.get("client")
    host = headers.get("host")
    if host is None:
        server = scope.get("server") or ("127.0.0.1", 0)
        host = f"{server[0]}:{server[1]}"
    request = HttpRequest(
        scope["method"],
        scope["raw_path"].decode("latin-1"),
        scope["query_string"].decode("latin-1"),
        headers,
        b"",
    )
    return Exchange(request, client[0] if client else "", f"{scope['scheme']}://{host}", str(uuid.uuid4()))


async def _read(request: HttpRequest, receive: Receive, limit: int) -> bytes | None:
    """The whole body, or ``None`` where the client went away before it was whole."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    body: bytes = message["body"]
    if not message["more_body"]:
        return body
    parts = [body]
    size = len(body)
    while message["more_body"]:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message["body"])
        size += len(message["body"])
        if size > limit:
            raise _too_large(limit)
    return b"".join(parts)


def _too_large(limit: int) -> ClientFault:
    return ClientFault("RequestEntityTooLargeException", 413, f"Request must be smaller than {limit} bytes")


async def _answer(response: HttpResponse, method: str, send: Send) -> None:
    body = response.body
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    if isinstance(body, bytes):
        if response.status != 204:
            headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body, "more_body": False})
        return
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    async for chunk in body:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
