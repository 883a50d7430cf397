"""Reserved concurrency, and the budget that it shares with provisioned concurrency (contract 01 §5.4, §6; 02 §6).

What a function was promised lies in its record (``attachments.py``), so it is deleted with the function. Here are the promises of all
functions, by account and Region, and the two places where they take effect: the assigner and the keeper of provisioned environments. Both
hear of every change of a record in the step in which it becomes visible, whoever made it: an alias that moves takes its environments along.

Promises of different functions draw on one budget, so whoever makes one takes the ``turn``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from lambent.arn import LATEST, FunctionArn
from lambent.control.attachments import all_attached, attach, attached
from lambent.control.function_configuration import FunctionRecord
from lambent.control.function_names import missing, resolve
from lambent.control.function_table import FunctionTable
from lambent.errors import ClientFault, invalid_parameter
from lambent.invoke.admission import Claim
from lambent.invoke.provisioned_state import spread, together
from lambent.settings import Limits
from lambent.wire.call import Call

RESERVED = "reserved"
PROVISIONED = "provisioned"
SCALING = "scaling"  # scaling_config.py

Params = Mapping[str, Any]


class Assigner(Protocol):
    """Where permits come from."""

    def claim(
        self, arn: FunctionArn, reserved: int | None, provisioned: Mapping[str, int], ceilings: Mapping[str, int] | None = None
    ) -> None: ...


class Keeper(Protocol):
    """Who keeps environments."""

    def want(self, arn: FunctionArn, wanted: Mapping[str, int]) -> None: ...


class Concurrency:
    """PutFunctionConcurrency, GetFunctionConcurrency, DeleteFunctionConcurrency. ``load`` after the functions."""

    def __init__(self, table: FunctionTable, assigner: Assigner, keeper: Keeper, limits: Limits) -> None:
        self.turn = asyncio.Lock()
        self._table = table
        self._assigner = assigner
        self._keeper = keeper
        self._limits = limits
        self._claims: dict[tuple[str, str], dict[str, Claim]] = {}
        self._kept: dict[FunctionArn, Mapping[str, int]] = {}
        table.watchers.append(self._follow)

    def load(self) -> None:
        for record in self._table:
            self._follow(None, record)

    async def put(self, call: Call, params: Params) -> dict[str, Any]:
        arn = _whole(call, "PutFunctionConcurrency", params["FunctionName"])
        wanted = params["ReservedConcurrentExecutions"]

        def mutate(before: FunctionRecord | None) -> FunctionRecord:
            if before is None:
                raise _missing(arn)
            claim = claim_of(before)
            provisioned = sum(claim.provisioned.values())
            if wanted < provisioned:
                raise invalid_parameter(
                    f" ReservedConcurrentExecutions  {wanted} should not be lower than function's total provisioned concurrency "
                    f"[{provisioned}]."
                )
            if wanted > claim.total and self.unreserved(arn) + claim.total - wanted < self._limits.unreserved_executions:
                raise self.below_floor("ReservedConcurrentExecutions")
            return attach(before, RESERVED, "", {"ReservedConcurrentExecutions": wanted})

        async with self.turn:
            await self._table.change(arn, mutate)
        return {"ReservedConcurrentExecutions": wanted}

    def get(self, call: Call, params: Params) -> dict[str, Any]:
        arn = _whole(call, "GetFunctionConcurrency", params["FunctionName"])
        record = self._table.get(arn)
        if record is None:
            raise _missing(arn)
        return dict(shown(record) or {})

    async def delete(self, call: Call, params: Params) -> None:
        """Where nothing is reserved this changes nothing."""
        arn = _whole(call, "DeleteFunctionConcurrency", params["FunctionName"])

        def mutate(before: FunctionRecord | None) -> FunctionRecord:
            if before is None:
                raise _missing(arn)
            return before if shown(before) is None else attach(before, RESERVED, "", None)

        async with self.turn:
            await self._table.change(arn, mutate)

    def unreserved(self, arn: FunctionArn) -> int:
        """What nobody has claimed in the account and Region of ``arn``."""
        return self.unreserved_in(arn.account, arn.region)

    def unreserved_in(self, account: str, region: str) -> int:
        claims = self._claims.get((account, region), {})
        return self._limits.concurrent_executions - sum(claim.total for claim in claims.values())

    def below_floor(self, what: str) -> ClientFault:
        floor = self._limits.unreserved_executions
        return invalid_parameter(
            f"Specified {what} for function decreases account's UnreservedConcurrentExecution below its minimum value of [{floor}]."
        )

    def _follow(self, before: FunctionRecord | None, after: FunctionRecord | None) -> None:
        """A record has changed: whatever it promises takes effect."""
        record = after or before
        if record is None:
            return
        arn = record.arn
        claims = self._claims.setdefault((arn.account, arn.region), {})
        claim = Claim() if after is None else claim_of(after)
        kept = {} if after is None else {**claim.provisioned, **scaled(after)}
        if kept != self._kept.get(arn, {}):
            self._keeper.want(arn, kept)
            self._kept[arn] = kept
            if not kept:
                del self._kept[arn]
        if claim == claims.get(arn.name, Claim()):
            return
        if claim == Claim():
            del claims[arn.name]
        else:
            claims[arn.name] = claim
        self._assigner.claim(arn, claim.reserved, claim.provisioned, claim.ceilings)


def shown(record: FunctionRecord) -> Mapping[str, int] | None:
    """What GetFunction shows as Concurrency."""
    found: Mapping[str, int] | None = attached(record, RESERVED)
    return found


def claim_of(record: FunctionRecord) -> Claim:
    """All that a function was promised."""
    reserved = shown(record)
    configured = all_attached(record, PROVISIONED)
    provisioned = together(wanted(record, qualifier, document["Requested"]) for qualifier, document in configured.items())
    return Claim(None if reserved is None else reserved["ReservedConcurrentExecutions"], provisioned, ceilings(record))


def ceilings(record: FunctionRecord) -> dict[str, int]:
    """The most environments of versions on a capacity provider, where their scaling configurations say so."""
    found = all_attached(record, SCALING)
    return {version: held["MaxExecutionEnvironments"] for version, held in found.items() if held.get("MaxExecutionEnvironments")}


def scaled(record: FunctionRecord) -> dict[str, int]:
    """The environments that are kept of versions on a capacity provider: as many as their scaling configurations say at least."""
    found = all_attached(record, SCALING)
    return {version: held["MinExecutionEnvironments"] for version, held in found.items() if held.get("MinExecutionEnvironments")}


def wanted(record: FunctionRecord, qualifier: str, count: int) -> dict[str, int]:
    """The versions that a configuration of provisioned concurrency at ``qualifier`` means, and how many environments of each."""
    alias = record.aliases.get(qualifier)
    found = {qualifier: count} if alias is None else spread(count, alias.version, alias.weights)
    return {version: number for version, number in found.items() if version in record.versions}


def _missing(arn: FunctionArn) -> ClientFault:
    """These operations name ``$LATEST`` where the function is not there."""
    return missing(arn.qualified(LATEST))


def _whole(call: Call, action: str, text: str) -> FunctionArn:
    arn = resolve(call, action, text)
    if arn.qualifier is not None:
        raise invalid_parameter(
            "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
            "Please specify either a function name or an unqualified function ARN."
        )
    return arn
