"""When a function's runtime is updated (contract 01 §6): kept for ``$LATEST`` and for each version.

A machine has one version of each runtime, the interpreter that was found on it, so a function can be held to that one and to no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lambent.arn import LATEST, FunctionArn
from lambent.control.attachments import attach, attached, find, require
from lambent.control.function_configuration import FunctionRecord
from lambent.control.function_table import FunctionTable
from lambent.control.runtime_versions import RuntimeOf, renewed
from lambent.errors import invalid_parameter
from lambent.wire.call import Call
from lambent.wire.values import NULL

Params = Mapping[str, Any]

FAMILY = "runtime-management"


class RuntimeManagement:
    def __init__(self, table: FunctionTable, runtime_of: RuntimeOf = lambda name: None) -> None:
        self._table = table
        self._runtime_of = runtime_of

    async def put(self, call: Call, params: Params) -> dict[str, Any]:
        arn, record = self._find(call, "PutRuntimeManagementConfig", params)
        mode, version = params["UpdateRuntimeOn"], params.get("RuntimeVersionArn")
        if mode != "Manual" and version:
            raise invalid_parameter("RuntimeVersionArn can only be specified when UpdateRuntimeOn is Manual.")
        if mode == "Manual" and not version:
            raise invalid_parameter("RuntimeVersionArn must be specified when UpdateRuntimeOn is Manual.")
        held = renewed(self._runtime_of, record.versions.get(arn.qualifier or "", record).configuration).get("RuntimeVersionConfig")
        if held is None:
            raise invalid_parameter("Runtime management is not supported for functions created with container images.")
        if version and version != held["RuntimeVersionArn"]:
            raise invalid_parameter(f"The runtime version {version} is not available. Available: {held['RuntimeVersionArn']}")
        document = {"UpdateRuntimeOn": mode, **({"RuntimeVersionArn": version} if version else {})}

        def mutate(found: FunctionRecord | None) -> FunctionRecord:
            return attach(require(found, arn), FAMILY, arn.qualifier or LATEST, document)

        await self._table.change(arn, mutate)
        return {**document, "FunctionArn": str(arn)}

    def get(self, call: Call, params: Params) -> dict[str, Any]:
        arn, record = self._find(call, "GetRuntimeManagementConfig", params)
        document = attached(record, FAMILY, arn.qualifier or LATEST) or {"UpdateRuntimeOn": "Auto"}
        return {"RuntimeVersionArn": NULL, **document, "FunctionArn": str(arn)}

    def _find(self, call: Call, action: str, params: Params) -> tuple[FunctionArn, FunctionRecord]:
        arn, record = find(self._table, call, action, params["FunctionName"], params.get("Qualifier"))
        if arn.qualifier in record.aliases:
            raise invalid_parameter("Runtime management is not supported for aliases. Specify $LATEST or a version.")
        return arn, record
