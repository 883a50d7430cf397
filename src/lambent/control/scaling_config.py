"""How many environments a version on a capacity provider has (contract 01 §6, 06 §4).

Only functions on capacity providers have one. The least number of environments is kept ahead and the greatest bounds how many invocations
run at once, one to an environment (``concurrency.py`` tells those who keep and those who count); without a configuration nothing is kept,
though 3 are shown. Zero for both deactivates a version: it is shown as Deactivated and not invoked until it gets other numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lambent.arn import FunctionArn
from lambent.control.attachments import attach, attached, find, require
from lambent.control.function_configuration import FunctionRecord, show
from lambent.control.function_table import FunctionTable
from lambent.errors import invalid_parameter
from lambent.wire.call import Call

Params = Mapping[str, Any]

FAMILY = "scaling"
DEFAULT = {"MinExecutionEnvironments": 3}


class ScalingConfigs:
    def __init__(self, table: FunctionTable) -> None:
        self._table = table

    async def put(self, call: Call, params: Params) -> dict[str, Any]:
        given = {name: value for name, value in (params.get("FunctionScalingConfig") or {}).items() if value is not None}
        low, high = given.get("MinExecutionEnvironments"), given.get("MaxExecutionEnvironments")
        if (low is None) != (high is None):
            raise invalid_parameter("MinExecutionEnvironments and MaxExecutionEnvironments must be set together.")
        if low is not None and high is not None and (low > high or (low == 0) != (high == 0)):
            raise invalid_parameter(
                "MinExecutionEnvironments must not be greater than MaxExecutionEnvironments, and 0 only if that is 0, too."
            )
        arn, _ = self._find(call, "PutFunctionScalingConfig", params)

        def mutate(found: FunctionRecord | None) -> FunctionRecord:
            record = attach(require(found, arn), FAMILY, arn.qualifier or "", given or None)
            return _activated(record, arn.qualifier or "", high != 0)

        record = require(await self._table.change(arn, mutate, self._table.reloaded), arn)
        return {"FunctionState": show(_version(record, arn))["State"]}

    def get(self, call: Call, params: Params) -> dict[str, Any]:
        arn, record = self._find(call, "GetFunctionScalingConfig", params)
        held = attached(record, FAMILY, arn.qualifier or "") or DEFAULT
        return {"FunctionArn": str(arn), "AppliedFunctionScalingConfig": held, "RequestedFunctionScalingConfig": held}

    def _find(self, call: Call, action: str, params: Params) -> tuple[FunctionArn, FunctionRecord]:
        arn, record = find(self._table, call, action, params["FunctionName"], params["Qualifier"])
        if "CapacityProviderConfig" not in _version(record, arn).configuration:
            raise invalid_parameter("Function scaling configuration isn't supported for Lambda Default functions.")
        return arn, record


def _activated(record: FunctionRecord, name: str, active: bool) -> FunctionRecord:
    """``record`` with this version active or not."""
    version = record.versions[name]
    configuration = {member: value for member, value in version.configuration.items() if member != "_deactivated"}
    if not active:
        configuration["_deactivated"] = True
    serving = configuration if version.serving is not None else None
    return replace(record, versions={**record.versions, name: replace(version, configuration=configuration, serving=serving)})


def _version(record: FunctionRecord, arn: FunctionArn) -> FunctionRecord:
    return record.versions.get(arn.qualifier or "", record)
