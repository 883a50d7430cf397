"""How much code an account keeps in a Region: functions and layer versions together, unzipped (contract 01 §8)."""

from __future__ import annotations

from lambent.control.function_table import FunctionTable
from lambent.control.layer_table import LayerTable
from lambent.errors import ClientFault
from lambent.settings import Limits


class CodeRoom:
    """Counts from the two tables, so that there is nothing to keep in step."""

    def __init__(self, functions: FunctionTable, layers: LayerTable, limits: Limits) -> None:
        self._functions = functions
        self._layers = layers
        self._limits = limits

    def used(self, account: str, region: str) -> int:
        """Bytes of all code, unzipped."""
        return self._functions.usage(account, region)[1] + self._layers.unzipped(account, region)

    def require(self, account: str, region: str, more: int) -> None:
        """Check that ``more`` bytes fit beside what there is. Raises ``CodeStorageExceededException``."""
        if self.used(account, region) + more > self._limits.code_storage:
            raise ClientFault("CodeStorageExceededException", 400, "Code storage limit exceeded.")
