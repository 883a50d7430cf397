"""AWS Lambda: versions and aliases."""

from __future__ import annotations

from typing import Any

from lambent.control.aliases import Aliases
from lambent.control.versions import Versions
from lambent.wire.call import Call

Params = dict[str, Any]


class LambdaVersions:
    """One method per operation."""

    def __init__(self, versions: Versions, aliases: Aliases) -> None:
        self._versions = versions
        self._aliases = aliases

    async def publish_version(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._versions.publish(call, params)

    async def list_versions_by_function(self, call: Call, params: Params) -> dict[str, Any]:
        return self._versions.list_versions(call, params)

    async def create_alias(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._aliases.create(call, params)

    async def get_alias(self, call: Call, params: Params) -> dict[str, Any]:
        return self._aliases.get(call, params)

    async def update_alias(self, call: Call, params: Params) -> dict[str, Any]:
        return await self._aliases.update(call, params)

    async def delete_alias(self, call: Call, params: Params) -> dict[str, Any]:
        await self._aliases.delete(call, params)
        return {}

    async def list_aliases(self, call: Call, params: Params) -> dict[str, Any]:
        return self._aliases.list_aliases(call, params)
