"""How often and how long asynchronous invocations are tried, and where their results go (contract 01 §6, 02 §4).

One document per qualifier, kept in the function's record; a function without a qualifier is ``$LATEST``. Asynchronous invocations read
it by the qualifier that they were addressed with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lambent.arn import LATEST, FunctionArn
from lambent.clock import Clock
from lambent.control import page_marker
from lambent.control.attachments import all_attached, attach, attached, has_qualifier
from lambent.control.destinations import Destinations
from lambent.control.function_configuration import FunctionRecord
from lambent.control.function_names import resolve
from lambent.control.function_table import FunctionTable
from lambent.errors import ClientFault, invalid_parameter, not_found
from lambent.settings import Limits
from lambent.wire.call import Call

Params = Mapping[str, Any]

FAMILY = "event-invoke"
_SETTINGS = ("MaximumRetryAttempts", "MaximumEventAgeInSeconds")


class EventInvokeConfigs:
    """All changes are durable when the coroutine returns."""

    def __init__(self, table: FunctionTable, destinations: Destinations, clock: Clock, limits: Limits) -> None:
        self._table = table
        self._destinations = destinations
        self._clock = clock
        self._limits = limits

    def of(self, arn: FunctionArn) -> Mapping[str, Any] | None:
        """What is configured for the qualifier of ``arn``, in the shape of the wire; ``None`` for AWS's defaults."""
        record = self._table.get(arn)
        return None if record is None else attached(record, FAMILY, arn.qualifier or LATEST)

    async def put(self, call: Call, params: Params) -> dict[str, Any]:
        """Overwrites all that was configured."""
        if not any(params.get(name) is not None for name in (*_SETTINGS, "DestinationConfig")):
            raise invalid_parameter("You must specify at least one of error handling or destination setting.")
        arn = self._named(call, "PutFunctionEventInvokeConfig", params)
        made = {
            **{name: params[name] for name in _SETTINGS if params.get(name) is not None},
            "DestinationConfig": self._destinations.of_invocations(params.get("DestinationConfig") or {}, arn),
            "LastModified": self._clock.now(),
        }

        def mutate(record: FunctionRecord | None) -> FunctionRecord:
            return attach(_require(record, arn), FAMILY, arn.qualifier or LATEST, made)

        await self._table.change(arn, mutate)
        return _show(arn, made)

    async def update(self, call: Call, params: Params) -> dict[str, Any]:
        """Changes what is given, and leaves the rest alone."""
        if not any(params.get(name) is not None for name in (*_SETTINGS, "DestinationConfig")):
            raise invalid_parameter("You must specify at least one of error handling or destination setting.")
        arn = self._named(call, "UpdateFunctionEventInvokeConfig", params)

        def mutate(found: FunctionRecord | None) -> FunctionRecord:
            record = _require(found, arn)
            before = _existing(record, arn)
            after = {**before, **{name: params[name] for name in _SETTINGS if params.get(name) is not None}}
            if params.get("DestinationConfig") is not None:
                sides = {
                    **before["DestinationConfig"],
                    **{side: given for side, given in params["DestinationConfig"].items() if given is not None},
                }
                after["DestinationConfig"] = self._destinations.of_invocations(sides, arn)
            after["LastModified"] = self._clock.now()
            return attach(record, FAMILY, arn.qualifier or LATEST, after)

        after = await self._table.change(arn, mutate)
        return _show(arn, _existing(after, arn))

    def get(self, call: Call, params: Params) -> dict[str, Any]:
        arn = self._named(call, "GetFunctionEventInvokeConfig", params)
        return _show(arn, _existing(self._table.get(arn), arn))

    async def delete(self, call: Call, params: Params) -> None:
        arn = self._named(call, "DeleteFunctionEventInvokeConfig", params)

        def mutate(record: FunctionRecord | None) -> FunctionRecord:
            _existing(record, arn)
            assert record is not None
            return attach(record, FAMILY, arn.qualifier or LATEST, None)

        await self._table.change(arn, mutate)

    def list_all(self, call: Call, params: Params) -> dict[str, Any]:
        """Of one function, by qualifier."""
        arn = resolve(call, "ListFunctionEventInvokeConfigs", params["FunctionName"]).unqualified
        record = _require(self._table.get(arn), arn)
        held = sorted(all_attached(record, FAMILY).items())
        items = ((qualifier, _show(arn.qualified(qualifier), document)) for qualifier, document in held)
        page, more = page_marker.page(f"event-invoke/{arn.name}", params, items, self._limits.page)
        return {"FunctionEventInvokeConfigs": page, **more}

    def _named(self, call: Call, action: str, params: Params) -> FunctionArn:
        return resolve(call, action, params["FunctionName"], params.get("Qualifier"))


def _require(record: FunctionRecord | None, arn: FunctionArn) -> FunctionRecord:
    if record is None or not has_qualifier(record, arn.qualifier):
        raise not_found("The function doesn't exist.")
    return record


def _existing(record: FunctionRecord | None, arn: FunctionArn) -> Mapping[str, Any]:
    found = None if record is None else attached(record, FAMILY, arn.qualifier or LATEST)
    if found is None:
        raise _missing(arn.qualified(arn.qualifier or LATEST))
    document: Mapping[str, Any] = found
    return document


def _missing(arn: FunctionArn) -> ClientFault:
    return not_found(f"The function {arn} doesn't have an EventInvokeConfig")


def _show(arn: FunctionArn, document: Mapping[str, Any]) -> dict[str, Any]:
    return {"FunctionArn": str(arn.qualified(arn.qualifier or LATEST)), **document}
