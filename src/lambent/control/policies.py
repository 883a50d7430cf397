"""Policies of functions, versions and aliases: who else may use them (contract 01 §6, 04 §8).

Each qualifier has a policy of its own, kept in the function's record. Changing one gives what it belongs to (the function, the version, the
alias) a new RevisionId in the same commit, and GetPolicy shows that RevisionId; so a caller who read it can tell whether anything changed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lambent.arn import LATEST, FunctionArn
from lambent.control.attachments import attach, attached, has_qualifier, require
from lambent.control.function_configuration import FunctionRecord
from lambent.control.function_names import resolve
from lambent.control.function_table import FunctionTable
from lambent.control.policy_statements import Policy, compact, parse, require_length, statement, with_statement, without_statement
from lambent.errors import invalid_parameter, not_found, precondition_failed
from lambent.settings import Limits
from lambent.wire.call import Call

Params = Mapping[str, Any]

FAMILY = "policy"
_NO_RESOURCE = "The resource you requested does not exist."


class Policies:
    """All changes are durable when the coroutine returns."""

    def __init__(self, table: FunctionTable, limits: Limits) -> None:
        self._table = table
        self._limits = limits

    def of(self, arn: FunctionArn) -> Policy | None:
        """The policy of exactly this function, version or alias, for whoever decides what callers may do."""
        record = self._table.get(arn)
        return None if record is None else attached(record, FAMILY, arn.qualifier or "")

    async def add(self, call: Call, params: Params) -> dict[str, Any]:
        arn = resolve(call, "AddPermission", params["FunctionName"], params.get("Qualifier"))
        require(self._table.get(arn), arn)
        _require_no_latest(arn)
        made = statement(params, str(arn), arn.partition)

        def change(policy: Policy | None) -> Policy:
            after = with_statement(policy, made)
            require_length(after, self._limits.policy)
            return after

        await self._change(arn, params, change)
        return {"Statement": compact(made)}

    async def remove(self, call: Call, params: Params) -> None:
        arn = resolve(call, "RemovePermission", params["FunctionName"], params.get("Qualifier"))
        if self._table.get(arn) is None:
            raise not_found(f"No policy found for: {arn.unqualified}")
        await self._change(_plain(arn), params, lambda policy: without_statement(policy, params["StatementId"]))

    def get(self, call: Call, params: Params) -> dict[str, Any]:
        """Of a qualifier that does not exist, AWS says no more than of one without a policy."""
        arn = resolve(call, "GetPolicy", params["FunctionName"], params.get("Qualifier"))
        return _show(require(self._table.get(arn), arn.unqualified), _plain(arn))

    async def put_whole(self, call: Call, params: Params) -> dict[str, Any]:
        """PutResourcePolicy: replaces the statements of AddPermission, too."""
        arn = _of_resource(call, "PutResourcePolicy", params["ResourceArn"])
        require(self._table.get(arn), arn)
        _require_no_latest(arn)
        policy = parse(params["Policy"], str(arn))
        require_length(policy, self._limits.policy)
        return _show(await self._change(arn, params, lambda before: policy), arn)

    def get_whole(self, call: Call, params: Params) -> dict[str, Any]:
        arn = _of_resource(call, "GetResourcePolicy", params["ResourceArn"])
        return _show(require(self._table.get(arn), arn), _plain(arn))

    async def delete_whole(self, call: Call, params: Params) -> None:
        arn = _of_resource(call, "DeleteResourcePolicy", params["ResourceArn"])
        require(self._table.get(arn), arn)

        def change(policy: Policy | None) -> None:
            if policy is None:
                raise not_found(_NO_RESOURCE)

        await self._change(_plain(arn), params, change)

    async def _change(self, arn: FunctionArn, params: Params, change: Callable[[Policy | None], Policy | None]) -> FunctionRecord:
        qualifier = arn.qualifier or ""

        def mutate(found: FunctionRecord | None) -> FunctionRecord:
            record = require(found, arn)
            if params.get("RevisionId") and params["RevisionId"] != revision_of(record, qualifier):
                raise precondition_failed("GetPolicy")
            return with_revision(
                attach(record, FAMILY, qualifier, change(attached(record, FAMILY, qualifier))), qualifier, str(uuid.uuid4())
            )

        after = await self._table.change(arn, mutate)
        assert after is not None
        return after


def revision_of(record: FunctionRecord, qualifier: str) -> str:
    """The RevisionId of the function (``""``), or of a version or alias that exists."""
    if not qualifier:
        return record.revision_id
    held = record.aliases.get(qualifier) or record.versions[qualifier]
    return held.revision_id


def with_revision(record: FunctionRecord, qualifier: str, revision: str) -> FunctionRecord:
    if not qualifier:
        return replace(record, revision_id=revision)
    alias = record.aliases.get(qualifier)
    if alias is not None:
        return replace(record, aliases={**record.aliases, qualifier: replace(alias, revision_id=revision)})
    return replace(record, versions={**record.versions, qualifier: replace(record.versions[qualifier], revision_id=revision)})


def _show(record: FunctionRecord, arn: FunctionArn) -> dict[str, Any]:
    qualifier = arn.qualifier or ""
    policy = attached(record, FAMILY, qualifier) if has_qualifier(record, arn.qualifier) else None
    if policy is None:
        raise not_found(_NO_RESOURCE)
    return {"Policy": compact(policy), "RevisionId": revision_of(record, qualifier)}


def _plain(arn: FunctionArn) -> FunctionArn:
    """``$LATEST`` has no policy of its own."""
    return arn.unqualified if arn.qualifier == LATEST else arn


def _require_no_latest(arn: FunctionArn) -> None:
    if arn.qualifier == LATEST:
        raise invalid_parameter("We currently do not support adding policies for $LATEST.")


def _of_resource(call: Call, action: str, text: str) -> FunctionArn:
    if ":function:" not in text:
        raise not_found(_NO_RESOURCE)  # runtimes of one's own cannot exist yet
    return resolve(call, action, text)
