"""AWS Lambda's capacity providers and what concerns the running of functions as a whole: operation name -> method (contract 01 §6)."""

from __future__ import annotations

from typing import Any

from lambent.control.capacity_providers import CapacityProviders
from lambent.control.recursion import Recursion
from lambent.control.runtime_management import RuntimeManagement
from lambent.control.scaling_config import ScalingConfigs
from lambent.wire.call import Call

Params = dict[str, Any]


class LambdaCapacity:
    """One method per operation."""

    def __init__(self, providers: CapacityProviders, scaling: ScalingConfigs, runtime: RuntimeManagement, recursion: Recursion) -> None:
        self._providers = providers
        self._scaling = scaling
        self._runtime = runtime
        self._recursion = recursion

    async def create_capacity_provider(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._providers.create(call, params)

    async def get_capacity_provider(self, call: Call, params: Params) -> dict[str, Any]:
        return self._providers.get(call, params)

    async def update_capacity_provider(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._providers.update(call, params)

    async def delete_capacity_provider(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._providers.delete(call, params)

    async def list_capacity_providers(self, call: Call, params: Params) -> dict[str, Any]:
        return self._providers.list_all(call, params)

    async def list_function_versions_by_capacity_provider(self, call: Call, params: Params) -> dict[str, Any]:
        return self._providers.list_versions(call, params)

    async def put_function_scaling_config(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._scaling.put(call, params)

    async def get_function_scaling_config(self, call: Call, params: Params) -> dict[str, Any]:
        return self._scaling.get(call, params)

    async def put_runtime_management_config(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._runtime.put(call, params)

    async def get_runtime_management_config(self, call: Call, params: Params) -> dict[str, Any]:
        return self._runtime.get(call, params)

    async def put_function_recursion_config(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._recursion.put(call, params)

    async def get_function_recursion_config(self, call: Call, params: Params) -> dict[str, Any]:
        return self._recursion.get(call, params)
