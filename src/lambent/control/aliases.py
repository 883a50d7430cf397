"""Aliases: made, moved, listed, deleted (contract 01 §4, §6). They belong to the function's record and change in its turn."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from lambent.arn import LATEST, FunctionArn
from lambent.control import page_marker
from lambent.control.alias import Alias
from lambent.control.attachments import detach_all
from lambent.control.function_configuration import FunctionRecord
from lambent.control.function_names import missing, resolve_function
from lambent.control.function_table import FunctionTable
from lambent.errors import conflict, invalid_parameter, not_found, precondition_failed
from lambent.settings import Limits
from lambent.wire.call import Call

Params = Mapping[str, Any]


class Registry(Protocol):
    """Where the data plane looks names up."""

    def point(self, arn: FunctionArn, name: str, version: str, weights: Mapping[str, float]) -> None: ...

    def unpoint(self, arn: FunctionArn, name: str) -> None: ...


class Aliases:
    """CreateAlias, GetAlias, UpdateAlias, DeleteAlias, ListAliases. ``deleted`` is called with the ARN of an alias that has gone."""

    def __init__(self, table: FunctionTable, registry: Registry, limits: Limits) -> None:
        self._table = table
        self._registry = registry
        self._limits = limits
        self.deleted: list[Callable[[FunctionArn], None]] = []

    async def create(self, call: Call, params: Params) -> dict[str, Any]:
        arn = resolve_function(call, "CreateAlias", params["FunctionName"])
        name = params["Name"]

        def make(record: FunctionRecord) -> Alias:
            if name in record.aliases:
                raise conflict(f"Alias already exists: {arn.qualified(name)}")
            weights = _weights(params) or {}
            alias = Alias(name, params["FunctionVersion"], params.get("Description") or "", str(uuid.uuid4()), weights)
            return _checked(record, alias)

        return (await self._put(arn, name, make, arn.qualified(params["FunctionVersion"]))).show(arn)

    async def update(self, call: Call, params: Params) -> dict[str, Any]:
        arn = resolve_function(call, "UpdateAlias", params["FunctionName"])
        name = params["Name"]

        def change(record: FunctionRecord) -> Alias:
            before = record.aliases.get(name)
            if before is None:
                raise not_found(f"Alias not found: {arn.qualified(name)}")
            if params.get("RevisionId") and params["RevisionId"] != before.revision_id:
                raise precondition_failed()
            weights = _weights(params)
            alias = replace(
                before,
                version=params.get("FunctionVersion") or before.version,
                description=before.description if params.get("Description") is None else params["Description"],
                weights=before.weights if weights is None else weights,
                revision_id=str(uuid.uuid4()),
            )
            return _checked(record, alias)

        return (await self._put(arn, name, change, arn)).show(arn)

    def get(self, call: Call, params: Params) -> dict[str, Any]:
        arn = resolve_function(call, "GetAlias", params["FunctionName"])
        alias = self._record(arn).aliases.get(params["Name"])
        if alias is None:
            raise not_found(f"Cannot find alias arn: {arn.qualified(params['Name'])}")
        return alias.show(arn)

    def list_aliases(self, call: Call, params: Params) -> dict[str, Any]:
        """By name, all or those that point at ``FunctionVersion``."""
        arn = resolve_function(call, "ListAliases", params["FunctionName"])
        version = params.get("FunctionVersion")
        after = page_marker.decode("aliases", params["Marker"]) if params.get("Marker") else ""
        aliases = self._record(arn).aliases
        names = [name for name in sorted(aliases) if name > after and (version is None or aliases[name].points_at(version))]
        size = min(params.get("MaxItems") or self._limits.page, self._limits.page)
        answer: dict[str, Any] = {"Aliases": [aliases[name].show(arn) for name in names[:size]]}
        if len(names) > size:
            answer["NextMarker"] = page_marker.encode("aliases", names[size - 1])
        return answer

    async def delete(self, call: Call, params: Params) -> None:
        """One that is not there is no error."""
        arn = resolve_function(call, "DeleteAlias", params["FunctionName"])
        name = params["Name"]

        def mutate(before: FunctionRecord | None) -> FunctionRecord:
            if before is None:
                raise missing(arn)
            if name not in before.aliases:
                return before
            return detach_all(replace(before, aliases={key: alias for key, alias in before.aliases.items() if key != name}), name)

        def applied(before: FunctionRecord | None, after: FunctionRecord | None) -> None:
            del before, after
            self._registry.unpoint(arn, name)
            for hear in self.deleted:
                hear(arn.qualified(name))

        await self._table.change(arn, mutate, applied)

    def _record(self, arn: FunctionArn) -> FunctionRecord:
        record = self._table.get(arn)
        if record is None:
            raise missing(arn)
        return record

    async def _put(self, arn: FunctionArn, name: str, make: Callable[[FunctionRecord], Alias], meant: FunctionArn) -> Alias:
        """``meant`` is what was not found where there is no function."""

        def mutate(before: FunctionRecord | None) -> FunctionRecord:
            if before is None:
                raise missing(meant)
            return replace(before, aliases={**before.aliases, name: make(before)})

        def applied(before: FunctionRecord | None, after: FunctionRecord | None) -> None:
            del before
            if after is not None:
                alias = after.aliases[name]
                self._registry.point(arn, name, alias.version, alias.weights)

        after = await self._table.change(arn, mutate, applied)
        assert after is not None
        return after.aliases[name]


def _weights(params: Params) -> dict[str, float] | None:
    """``None`` where the caller says nothing of routing."""
    routing = params.get("RoutingConfig")
    if routing is None:
        return None
    weights = dict(routing.get("AdditionalVersionWeights") or {})
    if len(weights) > 1:
        raise invalid_parameter("Number of items in AdditionalVersionWeights cannot be greater than 1")
    return weights


def _checked(record: FunctionRecord, alias: Alias) -> Alias:
    for version in (alias.version, *alias.weights):
        if version != LATEST and version not in record.versions:
            raise not_found(f"Function not found: {record.arn.qualified(version)}")
    for version in alias.weights:
        if version == alias.version:
            raise invalid_parameter(
                f"Invalid function version {version}. Function version {version} is already included in routing configuration."
            )
        if LATEST in (alias.version, version):
            raise invalid_parameter("$LATEST is not supported for an alias pointing to more than 1 version")
        _require_alike(record, alias.version, version)
    return alias


def _require_alike(record: FunctionRecord, one: str, other: str) -> None:
    """Two versions behind one alias share role and dead-letter queue."""
    first, second = record.versions[one].configuration, record.versions[other].configuration
    if first["Role"] != second["Role"]:
        raise invalid_parameter("Function versions of an alias's routing configuration must have the same execution role.")
    if first.get("DeadLetterConfig") != second.get("DeadLetterConfig"):
        raise invalid_parameter("Function versions of an alias's routing configuration must have the same dead-letter queue configuration.")
