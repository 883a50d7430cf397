"""GetAccountSettings: what this account may use in this Region, and what it uses (contract 01 §6, §8)."""

from __future__ import annotations

from typing import Any

from lambent.control.code_room import CodeRoom
from lambent.control.function_table import FunctionTable
from lambent.settings import Limits
from lambent.wire.call import Call


class Account:
    """Code is measured unzipped, as AWS has counted it since 2026."""

    def __init__(self, table: FunctionTable, room: CodeRoom, limits: Limits) -> None:
        self._table = table
        self._room = room
        self._limits = limits

    def settings(self, call: Call) -> dict[str, Any]:
        count, _ = self._table.usage(call.account, call.region)
        limits = self._limits
        return {
            "AccountLimit": {
                "TotalCodeSize": limits.code_storage,
                "CodeSizeUnzipped": limits.code_unzipped,
                "CodeSizeZipped": limits.zip_direct,
                "ConcurrentExecutions": limits.concurrent_executions,
                # Reserved concurrency does not exist yet, so nothing is taken from what all share.
                "UnreservedConcurrentExecutions": limits.concurrent_executions,
            },
            "AccountUsage": {"TotalCodeSize": self._room.used(call.account, call.region), "FunctionCount": count},
        }
