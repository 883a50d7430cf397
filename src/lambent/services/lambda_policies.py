"""AWS Lambda's policies: operation name -> method (contract 01 §6)."""

from __future__ import annotations

from typing import Any

from lambent.control.policies import Policies
from lambent.wire.call import Call

Params = dict[str, Any]


class LambdaPolicies:
    """One method per operation."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies

    async def add_permission(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._policies.add(call, params)

    async def remove_permission(self, call: Call, params: Params) -> dict[str, Any]:
        await self._policies.remove(call, params)
        return {}

    async def get_policy(self, call: Call, params: Params) -> dict[str, Any]:
        return self._policies.get(call, params)

    async def put_resource_policy(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._policies.put_whole(call, params)

    async def get_resource_policy(self, call: Call, params: Params) -> dict[str, Any]:
        return self._policies.get_whole(call, params)

    async def delete_resource_policy(self, call: Call, params: Params) -> dict[str, Any]:
        await self._policies.delete_whole(call, params)
        return {}
