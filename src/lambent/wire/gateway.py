"""Everything of ``wire/`` behind one door: a request in, an operation and its parameters out; a result or a fault in, an answer out.

    request ──route──▶ operation + path parameters ──parse──▶ validated parameters ──(a service)──▶ result ──answer──▶ response
                │                                     │                                 │
                └────────────────────── ClientFault ──┴─────────────────────────────────┴──────────refuse──▶ response

Pure: no clock, no I/O beyond reading a model at its first use.
"""

from __future__ import annotations

from typing import Any

from lambent.errors import ClientFault
from lambent.wire.http import HttpRequest, HttpResponse
from lambent.wire.models import SERVICES, XML_SERVICES, Operation, load_service
from lambent.wire.parse import parse
from lambent.wire.recent import Recent
from lambent.wire.router import Router
from lambent.wire.serialize import refuse, serialize
from lambent.wire.validate import validate


class Gateway:
    """The wire of all services. Only lambda's model is loaded at once."""

    def __init__(self) -> None:
        self._router = Router()
        self.route = self._router.route
        """``route(request, service_scope) -> (operation, path parameters)``; raises ``ClientFault``. See ``Router.route``."""

        self._recent = Recent()
        self.known = self._recent.find
        """``known(request, service_scope) -> (operation, validated parameters)``, or ``None`` where it must be worked out."""

        self.learn = self._recent.learn

        self.answer = serialize
        """``answer(operation, result, request_id) -> response``. See ``wire/serialize.py`` for what a result may hold."""

    def parse(self, operation: Operation, request: HttpRequest, path_params: dict[str, str]) -> dict[str, Any]:
        """The validated parameters by the model's names. Raises ``ClientFault``: wrong types and broken constraints."""
        params = parse(operation, request, path_params)
        if operation.protocol != "rest-xml":  # S3 words its refusals itself
            validate(operation, params)
        return params

    def refuse(self, operation: Operation | None, fault: ClientFault, request_id: str) -> HttpResponse:
        """``operation`` is ``None`` where the request was refused before it was routed."""
        return refuse(operation, fault, request_id)

    def operations(self) -> tuple[Operation, ...]:
        """Every modelled operation of every service. Loads all models: for documents and tests, not for the server."""
        return tuple(operation for name in (*SERVICES, *XML_SERVICES) for operation in load_service(name).operations.values())
