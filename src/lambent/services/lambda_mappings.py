"""AWS Lambda's event source mappings: operation name -> method (contract 01 §6, 04 §1)."""

from __future__ import annotations

from typing import Any

from lambent.control.event_source_mappings import EventSourceMappings
from lambent.wire.call import Call

Params = dict[str, Any]


class LambdaMappings:
    """One method per operation."""

    def __init__(self, mappings: EventSourceMappings) -> None:
        self._mappings = mappings

    async def create_event_source_mapping(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._mappings.create(call, params)

    async def get_event_source_mapping(self, call: Call, params: Params) -> dict[str, Any]:
        return self._mappings.get(call, params)

    async def update_event_source_mapping(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._mappings.update(call, params)

    async def delete_event_source_mapping(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._mappings.delete(call, params)

    async def list_event_source_mappings(self, call: Call, params: Params) -> dict[str, Any]:
        return self._mappings.list_all(call, params)
