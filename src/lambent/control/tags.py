"""Tags (contract 01 §6): of functions, kept with them and shown by GetFunction, and of the other resources that can have some."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from lambent.arn import FunctionArn, parse_function
from lambent.control.function_configuration import FunctionRecord
from lambent.control.function_names import denied, missing, require_own
from lambent.control.function_rules import Rules
from lambent.control.function_state import Operation
from lambent.control.function_table import FunctionTable
from lambent.errors import NotImplementedFault, invalid_parameter, not_found
from lambent.wire.call import Call

Params = Mapping[str, Any]
Change = Callable[[Mapping[str, str]], Mapping[str, str]]


class Tagged(Protocol):
    """A family of resources with tags, found by the last part of their ARN. Raises ``ClientFault`` for one that is not there."""

    def tags_of(self, call: Call, name: str) -> Mapping[str, str]: ...

    async def set_tags(self, call: Call, name: str, change: Change) -> None: ...


class Tags:
    """``families`` by what stands in their ARNs, e.g. ``event-source-mapping``. Tagging gives a function a new RevisionId."""

    def __init__(self, table: FunctionTable, rules: Rules, families: Mapping[str, Tagged] | None = None) -> None:
        self._table = table
        self._rules = rules
        self._families = families or {}

    async def tag(self, call: Call, params: Params) -> None:
        resource, given = params["Resource"], params["Tags"]
        family = self._family(call, "TagResource", resource)
        if not given:
            raise invalid_parameter("An error occurred and the request cannot be processed.")

        def change(before: Mapping[str, str]) -> Mapping[str, str]:
            tags = {**before, **given}
            self._rules.tags(tags)
            return tags

        if family is not None:
            await family.set_tags(call, _name(resource), change)
        else:
            await self._change(_function(call, "TagResource", resource), change, Operation.TAG)

    async def untag(self, call: Call, params: Params) -> None:
        """Keys that are not there are no error."""
        resource = params["Resource"]
        family = self._family(call, "UntagResource", resource)

        def change(before: Mapping[str, str]) -> Mapping[str, str]:
            return {key: value for key, value in before.items() if key not in params["TagKeys"]}

        if family is not None:
            await family.set_tags(call, _name(resource), change)
        else:
            await self._change(_function(call, "UntagResource", resource), change, None)

    def list_tags(self, call: Call, params: Params) -> dict[str, str]:
        family = self._family(call, "ListTags", params["Resource"])
        if family is not None:
            return dict(family.tags_of(call, _name(params["Resource"])))
        arn = _function(call, "ListTags", params["Resource"])
        record = self._table.get(arn)
        if record is None:
            raise missing(arn)
        return dict(record.tags)

    async def _change(self, arn: FunctionArn, change: Change, operation: Operation | None) -> None:
        def mutate(before: FunctionRecord | None) -> FunctionRecord:
            if before is None:
                raise missing(arn)
            refusal = None if operation is None else before.state.refuse(operation, str(arn))
            if refusal is not None:
                raise refusal
            return replace(before, tags=dict(change(before.tags)), revision_id=str(uuid.uuid4()))

        await self._table.change(arn, mutate)

    def _family(self, call: Call, action: str, resource: str) -> Tagged | None:
        """Who keeps the tags of ``resource``; ``None`` for functions, which are kept here."""
        if ":function:" in resource:
            return None
        parts = (resource.split(":") + [""] * 6)[:6]
        family = self._families.get(parts[5])
        if family is None:
            raise NotImplementedFault("lambda", f"{action} for {parts[5] or 'unknown'} resources")
        if parts[3] != call.region:
            raise not_found("The resource you requested does not exist.")
        if parts[4] != call.account:
            raise denied(call, action, resource)
        return family


def _name(resource: str) -> str:
    return resource.rpartition(":")[2]


def _function(call: Call, action: str, resource: str) -> FunctionArn:
    """The function that a taggable ARN names."""
    arn = parse_function(resource, call.region, call.account)
    if arn is None:
        raise missing(FunctionArn(call.region, call.account, _name(resource)))
    require_own(call, action, arn)
    if arn.qualifier is not None:
        raise invalid_parameter("Tags on function aliases and versions are not supported. Please specify a function ARN.")
    return arn
