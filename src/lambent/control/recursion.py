"""Whether a function that invokes itself in a circle is stopped (contract 01 §6, 02 §5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lambent.arn import FunctionArn
from lambent.control.attachments import attach, attached
from lambent.control.function_configuration import FunctionRecord
from lambent.control.function_names import missing, resolve_function
from lambent.control.function_table import FunctionTable
from lambent.wire.call import Call

Params = Mapping[str, Any]

FAMILY = "recursion"
DEFAULT = "Terminate"


class Recursion:
    def __init__(self, table: FunctionTable) -> None:
        self._table = table

    def allowed(self, arn: FunctionArn) -> bool:
        """Whether this function may go round in circles."""
        record = self._table.get(arn)
        return record is not None and attached(record, FAMILY) == "Allow"

    async def put(self, call: Call, params: Params) -> dict[str, Any]:
        arn = resolve_function(call, "PutFunctionRecursionConfig", params["FunctionName"])

        def mutate(record: FunctionRecord | None) -> FunctionRecord:
            if record is None:
                raise missing(arn)
            return attach(record, FAMILY, "", params["RecursiveLoop"])

        await self._table.change(arn, mutate)
        return {"RecursiveLoop": params["RecursiveLoop"]}

    def get(self, call: Call, params: Params) -> dict[str, Any]:
        arn = resolve_function(call, "GetFunctionRecursionConfig", params["FunctionName"])
        record = self._table.get(arn)
        if record is None:
            raise missing(arn)
        return {"RecursiveLoop": attached(record, FAMILY) or DEFAULT}
