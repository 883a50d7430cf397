"""AWS Lambda's smaller configurations of functions: operation name -> method (contract 01 §6)."""

from __future__ import annotations

from typing import Any

from lambent.control.event_invoke_config import EventInvokeConfigs
from lambent.control.function_urls import FunctionUrls
from lambent.wire.call import Call

Params = dict[str, Any]


class LambdaConfigs:
    """Settings of asynchronous invocations and function URLs. One method per operation."""

    def __init__(self, event_invoke: EventInvokeConfigs, urls: FunctionUrls) -> None:
        self._event_invoke = event_invoke
        self._urls = urls

    async def put_function_event_invoke_config(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._event_invoke.put(call, params)

    async def update_function_event_invoke_config(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._event_invoke.update(call, params)

    async def get_function_event_invoke_config(self, call: Call, params: Params) -> dict[str, Any]:
        return self._event_invoke.get(call, params)

    async def delete_function_event_invoke_config(self, call: Call, params: Params) -> dict[str, Any]:
        await self._event_invoke.delete(call, params)
        return {}

    async def list_function_event_invoke_configs(self, call: Call, params: Params) -> dict[str, Any]:
        return self._event_invoke.list_all(call, params)

    async def create_function_url_config(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._urls.create(call, params)

    async def get_function_url_config(self, call: Call, params: Params) -> dict[str, Any]:
        return self._urls.get(call, params)

    async def update_function_url_config(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._urls.update(call, params)

    async def delete_function_url_config(self, call: Call, params: Params) -> dict[str, Any]:
        await self._urls.delete(call, params)
        return {}

    async def list_function_url_configs(self, call: Call, params: Params) -> dict[str, Any]:
        return self._urls.list_all(call, params)
