"""Addresses of functions: made, shown, changed, deleted (contract 01 §6).

    http://<32 letters and digits>.lambda-url.<region>.localhost:<port>/

Every name below ``localhost`` leads to this machine without any set-up, so the address works from a browser or a client here. The id is
random, so an address that was deleted never comes back. The document lies in the function's record (``""``: ``$LATEST``).
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from lambent.arn import LATEST, FunctionArn
from lambent.clock import Clock
from lambent.control import page_marker
from lambent.control.attachments import all_attached, attach, attached
from lambent.control.function_configuration import FunctionRecord
from lambent.control.function_names import resolve
from lambent.control.function_table import FunctionTable
from lambent.errors import conflict, invalid_parameter, not_found
from lambent.settings import Limits
from lambent.wire.call import Call
from lambent.wire.validate import validation_fault, violation

Params = Mapping[str, Any]

FAMILY = "url"
ID_LENGTH = 32
METHODS = frozenset({"GET", "PUT", "HEAD", "POST", "PATCH", "DELETE", "*"})

_ALPHABET = string.ascii_lowercase + string.digits
_NO_RESOURCE = "The resource you requested does not exist."
_QUALIFIER = r"((?!^\d+$)^[0-9a-zA-Z-_]+$)"


class FunctionUrls:
    """``load`` once after the functions; ``port`` is the one that the server listens on."""

    def __init__(self, table: FunctionTable, port: int, clock: Clock, limits: Limits) -> None:
        self._table = table
        self._port = port
        self._clock = clock
        self._limits = limits
        self._owners: dict[str, FunctionArn] = {}

    def load(self) -> None:
        """Learn which id leads where."""
        for record in self._table:
            for qualifier, document in all_attached(record, FAMILY).items():
                self._owners[document["id"]] = _qualified(record.arn, qualifier)

    def find(self, url_id: str) -> tuple[FunctionArn, Mapping[str, Any]] | None:
        """The function or alias that this id leads to, and its configuration in the shape of the wire."""
        arn = self._owners.get(url_id)
        record = None if arn is None else self._table.get(arn)
        document = None if arn is None or record is None else attached(record, FAMILY, arn.qualifier or "")
        if arn is None or document is None or document["id"] != url_id:
            return None
        return arn, self._show(arn, document)

    async def create(self, call: Call, params: Params) -> dict[str, Any]:
        arn = self._named(call, "CreateFunctionUrlConfig", params)
        cors = _cors(params.get("Cors"))
        now = _stamp(self._clock.now())
        document = {
            "id": "".join(secrets.choice(_ALPHABET) for _ in range(ID_LENGTH)),
            "AuthType": params["AuthType"],
            "InvokeMode": params.get("InvokeMode") or "BUFFERED",
            "CreationTime": now,
            "LastModifiedTime": now,
            **({"Cors": cors} if cors is not None else {}),
        }

        def mutate(found: FunctionRecord | None) -> FunctionRecord:
            record = _require(found, arn)
            if attached(record, FAMILY, arn.qualifier or "") is not None:
                raise conflict(
                    f"Failed to create function url config for [functionArn = {arn}]. "
                    "Error message:  FunctionUrlConfig exists for this Lambda function"
                )
            if "TenancyConfig" in record.configuration:
                raise invalid_parameter("Function URLs are not supported for functions with tenant isolation.")
            return attach(record, FAMILY, arn.qualifier or "", document)

        await self._table.change(arn, mutate)
        self._owners[document["id"]] = arn
        shown = self._show(arn, document)
        del shown["LastModifiedTime"]
        if not params.get("InvokeMode"):
            del shown["InvokeMode"]
        return shown

    def get(self, call: Call, params: Params) -> dict[str, Any]:
        arn = self._named(call, "GetFunctionUrlConfig", params)
        return self._show(arn, self._existing(self._table.get(arn), arn))

    async def update(self, call: Call, params: Params) -> dict[str, Any]:
        """Cors is replaced whole; InvokeMode is told only if it was given."""
        arn = self._named(call, "UpdateFunctionUrlConfig", params)
        cors = _cors(params.get("Cors"))

        def mutate(found: FunctionRecord | None) -> FunctionRecord:
            record = _require(found, arn)
            before = self._existing(record, arn)
            after = {**before, **{name: params[name] for name in ("AuthType", "InvokeMode") if params.get(name)}}
            if cors is not None:
                after["Cors"] = cors
            after["LastModifiedTime"] = _stamp(self._clock.now())
            return attach(record, FAMILY, arn.qualifier or "", after)

        shown = self._show(arn, self._existing(await self._table.change(arn, mutate), arn))
        if not params.get("InvokeMode"):
            del shown["InvokeMode"]
        return shown

    async def delete(self, call: Call, params: Params) -> None:
        arn = self._named(call, "DeleteFunctionUrlConfig", params)
        gone: list[str] = []

        def mutate(found: FunctionRecord | None) -> FunctionRecord:
            gone[:] = [self._existing(found, arn)["id"]]
            assert found is not None
            return attach(found, FAMILY, arn.qualifier or "", None)

        await self._table.change(arn, mutate)
        for url_id in gone:
            self._owners.pop(url_id, None)

    def list_all(self, call: Call, params: Params) -> dict[str, Any]:
        """Of one function: ``$LATEST`` first, then by alias."""
        arn = resolve(call, "ListFunctionUrlConfigs", params["FunctionName"]).unqualified
        held = sorted(all_attached(_require(self._table.get(arn), arn), FAMILY).items())
        items = ((qualifier, self._show(_qualified(arn, qualifier), document)) for qualifier, document in held)
        page, more = page_marker.page(f"urls/{arn.name}", params, items, self._limits.page)
        return {"FunctionUrlConfigs": page, **more}

    def _named(self, call: Call, action: str, params: Params) -> FunctionArn:
        arn = resolve(call, action, params["FunctionName"], params.get("Qualifier"))
        qualifier = arn.qualifier or ""
        if qualifier.isdigit() or qualifier.startswith("$"):
            raise validation_fault([violation("qualifier", qualifier, f"Member must satisfy regular expression pattern: {_QUALIFIER}")])
        return arn

    def _existing(self, record: FunctionRecord | None, arn: FunctionArn) -> Mapping[str, Any]:
        found = None if record is None else attached(record, FAMILY, arn.qualifier or "")
        if found is None:
            raise not_found(_NO_RESOURCE)
        document: Mapping[str, Any] = found
        return document

    def _show(self, arn: FunctionArn, document: Mapping[str, Any]) -> dict[str, Any]:
        shown = {name: value for name, value in document.items() if name != "id"}
        shown["FunctionUrl"] = f"http://{document['id']}.lambda-url.{arn.region}.localhost:{self._port}/"
        shown["FunctionArn"] = str(arn)
        return shown


def _require(record: FunctionRecord | None, arn: FunctionArn) -> FunctionRecord:
    if record is None or (arn.qualifier not in (None, LATEST) and arn.qualifier not in record.aliases):
        raise not_found("Function does not exist")
    return record


def _qualified(arn: FunctionArn, qualifier: str) -> FunctionArn:
    return arn.qualified(qualifier) if qualifier else arn


def _cors(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What is given of Cors, checked. Raises IPV."""
    if given is None:
        return None
    for method in given.get("AllowMethods") or ():
        if method not in METHODS:
            raise invalid_parameter(
                f"The method {method} in AllowMethods is not supported. Supported methods: {', '.join(sorted(METHODS))}"
            )
    return {name: value for name, value in given.items() if value is not None}


def _stamp(now: float) -> str:
    """``2026-11-21T09:00:00.123456Z``, AWS's form for URLs (contract 01 §1)."""
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
