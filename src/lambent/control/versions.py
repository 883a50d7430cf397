"""Published versions: frozen copies of ``$LATEST`` under numbers that only grow (contract 01 §4, §6).

A version is a ``FunctionRecord`` of its own inside the function's record; its documents lie beside the function's in the store and are
written in the same commit. It is published either alone (``PublishVersion``: what is shown is prepared already, so it is Active at once;
for SnapStart and capacity providers AWS has it Pending first, and so it is here, for a moment) or together with a change (``Publish`` on
create or update: it is Pending under the change's fence and becomes Active with it).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lambent.arn import LATEST_PUBLISHED, FunctionArn
from lambent.control import page_marker
from lambent.control.function_configuration import Configuration, FunctionRecord, show, show_listed
from lambent.control.function_kinds import begins_pending, on_provider, only_on_provider
from lambent.control.function_names import missing, resolve_function
from lambent.control.function_state import Operation
from lambent.control.function_table import FunctionTable
from lambent.control.functions import Functions
from lambent.control.published import publish
from lambent.errors import invalid_parameter, precondition_failed
from lambent.settings import Limits
from lambent.wire.call import Call

Params = Mapping[str, Any]


class Versions:
    """PublishVersion and ListVersionsByFunction."""

    def __init__(self, table: FunctionTable, functions: Functions, limits: Limits) -> None:
        self._table = table
        self._functions = functions
        self._limits = limits

    async def publish(self, call: Call, params: Params) -> Configuration:
        arn = resolve_function(call, "PublishVersion", params["FunctionName"])
        name = LATEST_PUBLISHED if params.get("PublishTo") else None
        number = fence = ""

        def mutate(before: FunctionRecord | None) -> FunctionRecord:
            nonlocal number, fence
            record = self._checked(before, arn, params)
            if name is not None and not on_provider(record.configuration):
                raise only_on_provider("PublishTo")
            fence = call.request_id if begins_pending(record.configuration) else ""
            after, number = publish(record, params.get("Description"), fence, name)
            if after is record:
                fence = ""
                return record
            self._functions.admit_version(after)
            return replace(after, revision_id=str(uuid.uuid4()))

        after = await self._table.change(arn, mutate, self._functions.versions_changed)
        assert after is not None
        if fence:
            self._functions.end_waiting(arn, number, fence)
        return show(after.versions[number], number)

    def _checked(self, before: FunctionRecord | None, arn: FunctionArn, params: Params) -> FunctionRecord:
        if before is None:
            raise missing(arn)
        refusal = before.state.refuse(Operation.PUBLISH_VERSION, str(arn))
        if refusal is not None:
            raise refusal
        if params.get("RevisionId") and params["RevisionId"] != before.revision_id:
            raise precondition_failed()
        given, current = params.get("CodeSha256"), before.configuration["CodeSha256"]
        if given and given != current:
            raise invalid_parameter(
                f"CodeSHA256 ({given}) is different from current CodeSHA256 in $LATEST ({current}). "
                "Please try again with the CodeSHA256 in $LATEST."
            )
        return before

    def list_versions(self, call: Call, params: Params) -> dict[str, Any]:
        """``$LATEST`` first, then ascending, then ``$LATEST.PUBLISHED``."""
        arn = resolve_function(call, "ListVersionsByFunction", params["FunctionName"])
        record = self._table.get(arn)
        if record is None:
            raise missing(arn)
        listed = record.listed(int(page_marker.decode("versions", params["Marker"])) if params.get("Marker") else -1)
        size = min(params.get("MaxItems") or self._limits.page, self._limits.page)
        page = listed[:size]
        answer: dict[str, Any] = {"Versions": [show_listed(version, name) for _, name, version in page]}
        if len(listed) > size:
            answer["NextMarker"] = page_marker.encode("versions", str(page[-1][0]))
        return answer
