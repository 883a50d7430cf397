"""AWS Lambda's code signing configurations: operation name -> method (contract 01 §6)."""

from __future__ import annotations

from typing import Any

from lambent.control.code_signing import CodeSigning
from lambent.wire.call import Call

Params = dict[str, Any]


class LambdaCodeSigning:
    """One method per operation."""

    def __init__(self, signing: CodeSigning) -> None:
        self._signing = signing

    async def create_code_signing_config(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._signing.create(call, params)

    async def get_code_signing_config(self, call: Call, params: Params) -> dict[str, Any]:
        return self._signing.get(call, params)

    async def update_code_signing_config(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._signing.update(call, params)

    async def delete_code_signing_config(self, call: Call, params: Params) -> dict[str, Any]:
        await self._signing.delete(call, params)
        return {}

    async def list_code_signing_configs(self, call: Call, params: Params) -> dict[str, Any]:
        return self._signing.list_all(call, params)

    async def list_functions_by_code_signing_config(self, call: Call, params: Params) -> dict[str, Any]:
        return self._signing.list_functions(call, params)

    async def put_function_code_signing_config(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._signing.put_for(call, params)

    async def get_function_code_signing_config(self, call: Call, params: Params) -> dict[str, Any]:
        return self._signing.get_for(call, params)

    async def delete_function_code_signing_config(self, call: Call, params: Params) -> dict[str, Any]:
        await self._signing.delete_for(call, params)
        return {}
