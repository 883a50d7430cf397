"""The request path, from socket to service, as one literal list.

    pages       /_lambent/...: health, environments, stories, code downloads (``pages.py``)
    identify    who calls: account, Region, service from the SigV4 scope; verified where the settings ask for it
    recall      an invocation like the one before: its operation and parameters are known (``wire/recent.py``)
    route       which operation of which service
    collect     the body, where it was not collected before
    parse       parameters from the model, validated against the model
    dispatch    the service's method of the operation's name, or an honest not-implemented error

Each step either answers, and the path ends, or fills in the ``Exchange`` that travels along. This file is one of the three places where
a broad ``except`` stands: whatever goes wrong with a request ends as an AWS-shaped answer, a fault of ours also in the log with its story.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from lambent.api.pages import Pages
from lambent.errors import ClientFault, NotImplementedFault, PlatformFault
from lambent.iam.credentials import Authenticator
from lambent.store.contract import StoreUnavailable
from lambent.wire.body import BodyStream
from lambent.wire.call import Call
from lambent.wire.gateway import Gateway
from lambent.wire.http import HttpRequest, HttpResponse
from lambent.wire.models import Operation

log = logging.getLogger("lambent.api")

DOCUMENT_MOST = 4 * 2**20  # bytes of a body that is a document although its request looked like an upload

_VARIANT = {f"{number:x}": "89ab"[number & 3] for number in range(16)}

Method = Callable[[Call, dict[str, Any]], Awaitable[dict[str, Any]]]

Step = Awaitable[HttpResponse | None] | None
"""What a step gives: nothing, or what is to be waited for, which may be the answer."""


@dataclass(slots=True)
class Exchange:
    """One request on its way; each step fills in its part."""

    request: HttpRequest
    source_ip: str
    request_id: str
    call: Call | None = None
    service: str | None = None
    operation: Operation | None = None
    params: dict[str, Any] | None = None
    path_params: dict[str, str] = field(default_factory=dict)


_CALLER_NAMES_REQUEST = frozenset({"Invoke", "InvokeWithResponseStream"})
"""Operations whose request id may come with the request: it is the one that the function sees."""


class App:
    """``methods`` maps (service, operation name) to the method that does it; ``host`` is ours where a caller does not say theirs."""

    def __init__(
        self,
        gateway: Gateway,
        authenticator: Authenticator,
        methods: dict[tuple[str, str], Method],
        pages: Pages,
        host: str,
    ) -> None:
        self._gateway = gateway
        self._authenticator = authenticator
        self._methods = methods
        self._pages = pages
        self._host = host
        self.path: tuple[Callable[[Exchange], Step], ...] = (
            self._serve_pages,
            self._identify,
            self._recall,
            self._route,
            self._collect,
            self._parse,
            self._dispatch,
        )

    async def handle(self, request: HttpRequest, source_ip: str) -> HttpResponse:
        """Answer one request. Raises nothing."""
        exchange = Exchange(request, source_ip, _new_id())
        try:
            for step in self.path:
                answering = step(exchange)
                if answering is not None and (response := await answering) is not None:
                    return response
            raise PlatformFault("the request path ended without an answer")
        except ClientFault as fault:
            return self._refuse(exchange, fault)
        except StoreUnavailable as fault:
            log.error("request %s: %s", exchange.request_id, fault)
            return self._refuse(exchange, ClientFault("ServiceException", 500, f"The store is unavailable: {fault}"))
        except PlatformFault as fault:
            log.error("request %s: %s", exchange.request_id, fault)
            return self._refuse(exchange, fault.answer or ClientFault("ServiceException", 500, fault.message))
        except Exception:
            log.exception("request %s", exchange.request_id)
            return self._refuse(exchange, ClientFault("ServiceException", 500, "Lambent failed on this request; see its log."))

    def _serve_pages(self, exchange: Exchange) -> Step:
        if not exchange.request.path.startswith("/_lambent/"):
            return None
        return self._pages.serve(exchange.request, exchange.source_ip)

    def _identify(self, exchange: Exchange) -> None:
        identity = self._authenticator.identify(exchange.request)
        exchange.service = identity.service
        exchange.call = Call(
            request_id=exchange.request_id,
            account=identity.account,
            region=identity.region,
            access_key=identity.access_key,
            principal=identity.principal,
            base_url=f"http://{exchange.request.headers.get('host', self._host)}",
            source_ip=exchange.source_ip,
            trace=exchange.request.headers.get("x-amzn-trace-id", ""),
            content_type=exchange.request.headers.get("content-type", ""),
        )

    def _recall(self, exchange: Exchange) -> Step:
        """What is known from before needs no more steps."""
        known = self._gateway.known(exchange.request, exchange.service)
        if known is None:
            return None
        exchange.operation, exchange.params = known
        return self._dispatch(exchange)

    def _route(self, exchange: Exchange) -> None:
        exchange.operation, exchange.path_params = self._gateway.route(exchange.request, exchange.service)

    def _collect(self, exchange: Exchange) -> Step:
        """A body that is read as it comes is collected after all, unless the operation reads it itself."""
        stream, operation = exchange.request.stream, exchange.operation
        if stream is not None and operation is not None and not (operation.payload is not None and operation.payload.streaming):
            return self._read(exchange.request, stream)
        return None

    async def _read(self, request: HttpRequest, stream: BodyStream) -> None:
        request.body = await stream.read(DOCUMENT_MOST)
        request.stream = None

    def _parse(self, exchange: Exchange) -> None:
        assert exchange.operation is not None
        exchange.params = self._gateway.parse(exchange.operation, exchange.request, exchange.path_params)
        self._gateway.learn(exchange.request, exchange.service, exchange.operation, exchange.params)

    async def _dispatch(self, exchange: Exchange) -> HttpResponse:
        operation, call, params = exchange.operation, exchange.call, exchange.params
        assert operation is not None
        assert call is not None
        assert params is not None
        method = self._methods.get((operation.service, operation.name))
        if method is None:
            raise NotImplementedFault(operation.service, operation.name)
        given = exchange.request.headers.get("x-amzn-requestid")
        if given is not None and operation.name in _CALLER_NAMES_REQUEST:
            call.request_id = exchange.request_id = _uuid(given)
        result = await method(call, params)
        extra = result.pop("__headers__", None)
        response = self._gateway.answer(operation, result, exchange.request_id)
        if extra:
            response.headers.extend(extra.items())
        return response

    def _refuse(self, exchange: Exchange, fault: ClientFault) -> HttpResponse:
        return self._gateway.refuse(exchange.operation, fault, exchange.request_id)


def _new_id() -> str:
    """A random UUID (version 4), as text."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise ClientFault("InvalidRequestContentException", 400, "The request id must be a UUID.") from error
