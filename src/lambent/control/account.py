"""GetAccountSettings: what this account may use in this Region, and what it uses (contract 01 §6, §8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lambent.control.code_room import CodeRoom
from lambent.control.function_table import FunctionTable
from lambent.settings import Limits
from lambent.wire.call import Call


class Account:
    """Code is measured unzipped, as AWS has counted it since 2026. ``unreserved``: what nobody has claimed, by account and Region."""

    def __init__(self, table: FunctionTable, room: CodeRoom, limits: Limits, unreserved: Callable[[str, str], int]) -> None:
        self._table = table
        self._room = room
        self._limits = limits
        self._unreserved = unreserved

    def settings(self, call: Call) -> dict[str, Any]:
        count, _ = self._table.usage(call.account, call.region)
        limits = self._limits
        return {
            "AccountLimit": {
                "TotalCodeSize": limits.code_storage,
                "CodeSizeUnzipped": limits.code_unzipped,
                "CodeSizeZipped": limits.zip_direct,
                "ConcurrentExecutions": limits.concurrent_executions,
                "UnreservedConcurrentExecutions": self._unreserved(call.account, call.region),
            },
            "AccountUsage": {"TotalCodeSize": self._room.used(call.account, call.region), "FunctionCount": count},
        }
