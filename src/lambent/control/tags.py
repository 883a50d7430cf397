"""Tags of functions (contract 01 §6): kept with the function, shown by GetFunction and ListTags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lambent.arn import FunctionArn, parse_function
from lambent.control.function_configuration import FunctionRecord
from lambent.control.function_names import missing, require_own
from lambent.control.function_rules import Rules
from lambent.control.function_state import Operation
from lambent.control.function_table import FunctionTable
from lambent.errors import NotImplementedFault, invalid_parameter
from lambent.wire.call import Call

Params = Mapping[str, Any]


class Tags:
    """Tagging changes neither RevisionId nor LastModified."""

    def __init__(self, table: FunctionTable, rules: Rules) -> None:
        self._table = table
        self._rules = rules

    async def tag(self, call: Call, params: Params) -> None:
        arn = _function(call, "TagResource", params["Resource"])
        if not params["Tags"]:
            raise invalid_parameter("An error occurred and the request cannot be processed.")

        def mutate(before: FunctionRecord | None) -> FunctionRecord:
            if before is None:
                raise missing(arn)
            refusal = before.state.refuse(Operation.TAG, str(arn))
            if refusal is not None:
                raise refusal
            tags = {**before.tags, **params["Tags"]}
            self._rules.tags(tags)
            return replace(before, tags=tags)

        await self._table.change(arn, mutate)

    async def untag(self, call: Call, params: Params) -> None:
        """Keys that are not there are no error."""
        arn = _function(call, "UntagResource", params["Resource"])

        def mutate(before: FunctionRecord | None) -> FunctionRecord:
            if before is None:
                raise missing(arn)
            return replace(before, tags={key: value for key, value in before.tags.items() if key not in params["TagKeys"]})

        await self._table.change(arn, mutate)

    def list_tags(self, call: Call, params: Params) -> dict[str, str]:
        arn = _function(call, "ListTags", params["Resource"])
        record = self._table.get(arn)
        if record is None:
            raise missing(arn)
        return dict(record.tags)


def _function(call: Call, action: str, resource: str) -> FunctionArn:
    """The function that a taggable ARN names; other resources cannot exist yet."""
    arn = parse_function(resource, call.region, call.account) if ":function:" in resource else None
    if arn is None:
        kind = (resource.split(":") + [""] * 6)[5] or "unknown"
        raise NotImplementedFault("lambda", f"{action} for {kind} resources")
    require_own(call, action, arn)
    if arn.qualifier is not None:
        raise invalid_parameter("Tags on function aliases and versions are not supported. Please specify a function ARN.")
    return arn
