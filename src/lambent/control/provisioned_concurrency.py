"""Provisioned concurrency of versions and aliases, as AWS configures and shows it (contract 01 §5.4, §6; 06 §2).

A configuration is durable; how it stands is not, but is asked of those who keep the environments. The promise counts from the moment it is
made, against the function's reserved concurrency or the account's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from lambent.arn import LATEST, FunctionArn
from lambent.clock import Clock
from lambent.control import page_marker
from lambent.control.attachments import all_attached, attach, attached, find, require
from lambent.control.concurrency import PROVISIONED, Concurrency, claim_of, wanted
from lambent.control.function_configuration import FunctionRecord, timestamp
from lambent.control.function_kinds import on_provider
from lambent.control.function_names import missing, resolve, resolve_function
from lambent.control.function_table import FunctionTable
from lambent.errors import ClientFault, conflict, invalid_parameter
from lambent.invoke.provisioned_state import Kept, Standing, standing
from lambent.settings import Limits
from lambent.wire.call import Call

Params = Mapping[str, Any]


class Keeper(Protocol):
    """Who keeps environments."""

    def kept(self, arn: FunctionArn, version: str) -> Kept: ...

    def again(self, arn: FunctionArn, version: str) -> None: ...


class ProvisionedConcurrency:
    """Put-, Get- and DeleteProvisionedConcurrencyConfig, ListProvisionedConcurrencyConfigs."""

    def __init__(self, table: FunctionTable, concurrency: Concurrency, keeper: Keeper, clock: Clock, limits: Limits) -> None:
        self._table = table
        self._concurrency = concurrency
        self._keeper = keeper
        self._clock = clock
        self._limits = limits

    async def put(self, call: Call, params: Params) -> dict[str, Any]:
        arn = resolve(call, "PutProvisionedConcurrencyConfig", params["FunctionName"], params["Qualifier"])
        if arn.qualifier == LATEST:
            raise _unpublished()
        qualifier, count = str(arn.qualifier), params["ProvisionedConcurrentExecutions"]
        modified = timestamp(self._clock.now())

        def mutate(before: FunctionRecord | None) -> FunctionRecord:
            record = require(before, arn)
            _require_kind(record, qualifier, count)
            _require_apart(record, qualifier)
            self._require_budget(record, qualifier, count)
            return attach(record, PROVISIONED, qualifier, {"Requested": count, "LastModified": modified})

        async with self._concurrency.turn:
            after = await self._table.change(arn.unqualified, mutate)
        assert after is not None
        for version in wanted(after, qualifier, count):
            self._keeper.again(arn.unqualified, version)
        return _show(Standing(count, 0, 0, "IN_PROGRESS"), modified)

    def get(self, call: Call, params: Params) -> dict[str, Any]:
        arn, record = self._find(call, "GetProvisionedConcurrencyConfig", params)
        document = attached(record, PROVISIONED, str(arn.qualifier))
        if document is None:
            raise ClientFault(
                "ProvisionedConcurrencyConfigNotFoundException", 404, "No Provisioned Concurrency Config found for this function"
            )
        return self._describe(record, str(arn.qualifier), document)

    async def delete(self, call: Call, params: Params) -> None:
        """Where nothing is configured this changes nothing."""
        arn, _ = self._find(call, "DeleteProvisionedConcurrencyConfig", params)

        def mutate(before: FunctionRecord | None) -> FunctionRecord:
            record = require(before, arn)
            held = attached(record, PROVISIONED, str(arn.qualifier))
            return record if held is None else attach(record, PROVISIONED, str(arn.qualifier), None)

        async with self._concurrency.turn:
            await self._table.change(arn.unqualified, mutate)

    def list_configs(self, call: Call, params: Params) -> dict[str, Any]:
        """By qualifier."""
        arn = resolve_function(call, "ListProvisionedConcurrencyConfigs", params["FunctionName"])
        record = self._table.get(arn)
        if record is None:
            raise missing(arn)
        after = page_marker.decode("provisioned", params["Marker"]) if params.get("Marker") else ""
        configured = all_attached(record, PROVISIONED)
        names = [name for name in sorted(configured) if name > after]
        size = min(params.get("MaxItems") or self._limits.page, self._limits.page)
        shown = [{"FunctionArn": str(arn.qualified(name)), **self._describe(record, name, configured[name])} for name in names[:size]]
        answer: dict[str, Any] = {"ProvisionedConcurrencyConfigs": shown}
        if len(names) > size:
            answer["NextMarker"] = page_marker.encode("provisioned", names[size - 1])
        return answer

    def _find(self, call: Call, action: str, params: Params) -> tuple[FunctionArn, FunctionRecord]:
        arn = resolve(call, action, params["FunctionName"], params["Qualifier"])
        if arn.qualifier == LATEST:
            raise invalid_parameter("The function resource provided must be an alias or a published version.")
        return find(self._table, call, action, params["FunctionName"], params["Qualifier"])

    def _describe(self, record: FunctionRecord, qualifier: str, document: Mapping[str, Any]) -> dict[str, Any]:
        count = document["Requested"]
        versions = wanted(record, qualifier, count)
        kept = {version: self._keeper.kept(record.arn, version) for version in versions}
        found = standing(versions, kept)
        return _show(Standing(count, found.allocated, found.available, found.status, found.reason), document["LastModified"])

    def _require_budget(self, record: FunctionRecord, qualifier: str, count: int) -> None:
        claim = claim_of(record)
        document = attached(record, PROVISIONED, qualifier)
        more = count - (0 if document is None else document["Requested"])
        if claim.reserved is not None:
            if sum(claim.provisioned.values()) + more > claim.reserved:
                raise invalid_parameter(
                    "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"
                )
            return
        unreserved = self._concurrency.unreserved(record.arn)
        if more > unreserved:
            raise invalid_parameter(
                f"Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [{unreserved}]."
            )
        if more > 0 and unreserved - more < self._limits.unreserved_executions:
            raise self._concurrency.below_floor("ConcurrentExecutions")


def _require_apart(record: FunctionRecord, qualifier: str) -> None:
    """A version is provisioned once: by itself or by one alias that points at it."""
    configured = all_attached(record, PROVISIONED)
    alias = record.aliases.get(qualifier)
    if alias is None:
        if any(name in record.aliases and record.aliases[name].points_at(qualifier) for name in configured):
            raise conflict("Version is pointed by a Provisioned Concurrency alias")
        return
    if alias.version == LATEST:
        raise _unpublished()
    taken = {version for name in configured if name != qualifier for version in wanted(record, name, configured[name]["Requested"])}
    if alias.version in taken or any(version in taken for version in alias.weights):
        raise conflict("Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version")


def _require_kind(record: FunctionRecord, qualifier: str, count: int) -> None:
    """Some kinds of functions do without (contract 06 §2, §5)."""
    for version in wanted(record, qualifier, count):
        document = record.versions[version].configuration
        if on_provider(document):
            raise invalid_parameter("Provisioned Concurrency is not supported for functions on a capacity provider.")
        if document["SnapStart"]["ApplyOn"] != "None":
            raise invalid_parameter("Provisioned Concurrency is not supported for SnapStart enabled functions.")
        if "TenancyConfig" in document:
            raise invalid_parameter("Provisioned Concurrency is not supported for functions with TenancyConfig.")


def _unpublished() -> ClientFault:
    return invalid_parameter("Provisioned Concurrency Configs cannot be applied to unpublished function versions.")


def _show(found: Standing, modified: str) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "RequestedProvisionedConcurrentExecutions": found.requested,
        "AvailableProvisionedConcurrentExecutions": found.available,
        "AllocatedProvisionedConcurrentExecutions": found.allocated,
        "Status": found.status,
        "LastModified": modified,
    }
    if found.reason:
        shown["StatusReason"] = found.reason
    return shown
