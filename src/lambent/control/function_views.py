"""Functions as callers see them: GetFunction, GetFunctionConfiguration, ListFunctions (contract 01 §6). Reads memory only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lambent.arn import FunctionArn
from lambent.control import page_marker
from lambent.control.attachments import attached
from lambent.control.function_configuration import Configuration, FunctionRecord, code_of, reference_of, show, show_listed
from lambent.control.function_names import missing, resolve
from lambent.control.function_table import FunctionTable
from lambent.control.image_code import is_image, location
from lambent.control.runtime_versions import RuntimeOf, renewed
from lambent.errors import invalid_parameter
from lambent.settings import Limits
from lambent.wire.call import Call

Params = Mapping[str, Any]
Location = Callable[[str, str], str]
"""``(base URL, SHA-256)`` -> where a zip can be fetched for ten minutes."""


class FunctionViews:
    """The reading half of ``Functions``."""

    def __init__(self, table: FunctionTable, location_of: Location, limits: Limits, runtime_of: RuntimeOf = lambda name: None) -> None:
        self._table = table
        self._location = location_of
        self._limits = limits
        self._runtime_of = runtime_of

    def get(self, call: Call, params: Params) -> dict[str, Any]:
        """GetFunction; the zip's URL is good for ten minutes."""
        arn, record = self._find(call, "GetFunction", params)
        answer: dict[str, Any] = {"Configuration": renewed(self._runtime_of, show(record, arn.qualifier))}
        if is_image(record.configuration):
            answer["Code"] = location(record.configuration)
        else:
            answer["Code"] = {"RepositoryType": "S3", "Location": self._location(call.base_url, code_of(record.configuration))}
            reference = reference_of(record.configuration)
            if reference is not None:
                answer["Code"]["ResolvedS3Object"] = reference.shown()
            if "_source_key" in record.configuration:
                answer["Code"]["SourceKMSKeyArn"] = record.configuration["_source_key"]
        if record.tags and arn.qualifier is None:
            answer["Tags"] = dict(record.tags)
        reserved = attached(record, "reserved") if arn.qualifier is None else None
        if reserved is not None:
            answer["Concurrency"] = dict(reserved)
        return answer

    def get_configuration(self, call: Call, params: Params) -> Configuration:
        arn, record = self._find(call, "GetFunctionConfiguration", params)
        return renewed(self._runtime_of, show(record, arn.qualifier))

    def list_functions(self, call: Call, params: Params) -> dict[str, Any]:
        """ListFunctions: by name, at most ``limits.page`` a page."""
        every_version = params.get("FunctionVersion") == "ALL"
        master = params.get("MasterRegion")
        if master is not None and not every_version:
            raise invalid_parameter("MasterRegion filter requires FunctionVersion to be set to ALL.")
        after = page_marker.decode("functions", params["Marker"]) if params.get("Marker") else ""
        if master not in (None, "ALL", call.region):
            return {"Functions": []}  # nothing is replicated here from elsewhere
        size = min(params.get("MaxItems") or self._limits.page, self._limits.page)
        if every_version:
            return self._list_every_version(call, after, size)
        page, more = self._table.page(call.account, call.region, after, size)
        answer: dict[str, Any] = {"Functions": [show_listed(record) for record in page]}
        if more:
            answer["NextMarker"] = page_marker.encode("functions", page[-1].arn.name)
        return answer

    def _list_every_version(self, call: Call, after: str, size: int) -> dict[str, Any]:
        """By name, and ``$LATEST`` before the numbers; a marker is ``name:number`` of the last one shown."""
        name, _, last = after.partition(":")
        found: list[tuple[int, str, FunctionRecord]] = []
        first = self._table.get(FunctionArn(call.region, call.account, name)) if name else None
        if first is not None:
            found += first.listed(int(last or 0))
        page, _ = self._table.page(call.account, call.region, name, size + 1)
        for record in page:
            found += record.listed()
        chosen = found[:size]
        shown = [show_listed(record, version) for _, version, record in chosen]
        answer: dict[str, Any] = {"Functions": shown}
        if len(found) > size:
            answer["NextMarker"] = page_marker.encode("functions", f"{chosen[-1][2].arn.name}:{chosen[-1][0]}")
        return answer

    def _find(self, call: Call, action: str, params: Params) -> tuple[FunctionArn, FunctionRecord]:
        arn = resolve(call, action, params["FunctionName"], params.get("Qualifier"))
        record = self._table.get(arn)
        found = None if record is None else record.at(arn.qualifier)
        if found is None:
            raise missing(arn)
        return arn, found
