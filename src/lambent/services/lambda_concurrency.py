"""AWS Lambda: reserved and provisioned concurrency."""

from __future__ import annotations

from typing import Any

from lambent.control.concurrency import Concurrency
from lambent.control.provisioned_concurrency import ProvisionedConcurrency
from lambent.wire.call import Call

Params = dict[str, Any]


class LambdaConcurrency:
    """One method per operation."""

    def __init__(self, concurrency: Concurrency, provisioned: ProvisionedConcurrency) -> None:
        self._concurrency = concurrency
        self._provisioned = provisioned

    async def put_function_concurrency(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._concurrency.put(call, params)

    async def get_function_concurrency(self, call: Call, params: Params) -> dict[str, Any]:
        return self._concurrency.get(call, params)

    async def delete_function_concurrency(self, call: Call, params: Params) -> dict[str, Any]:
        await self._concurrency.delete(call, params)
        return {}

    async def put_provisioned_concurrency_config(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._provisioned.put(call, params)

    async def get_provisioned_concurrency_config(self, call: Call, params: Params) -> dict[str, Any]:
        return self._provisioned.get(call, params)

    async def delete_provisioned_concurrency_config(self, call: Call, params: Params) -> dict[str, Any]:
        await self._provisioned.delete(call, params)
        return {}

    async def list_provisioned_concurrency_configs(self, call: Call, params: Params) -> dict[str, Any]:
        return self._provisioned.list_configs(call, params)
