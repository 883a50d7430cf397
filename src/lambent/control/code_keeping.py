"""Which code is kept: what functions and layer versions refer to. What they stop to refer to is removed after a while (``code.py``)."""

from __future__ import annotations

from lambent.clock import Clock
from lambent.control.code import GRACE_S, CodeStore
from lambent.control.function_configuration import FunctionRecord
from lambent.control.function_table import FunctionTable
from lambent.control.image_code import ImageCode
from lambent.control.layers import Layers
from lambent.control.preparation import Tasks
from lambent.errors import PlatformFault
from lambent.store.contract import StoreUnavailable


class CodeKeeping:
    """``sweep`` at the start, when all documents are read."""

    def __init__(self, table: FunctionTable, layers: Layers, code: CodeStore, images: ImageCode, tasks: Tasks, clock: Clock) -> None:
        self._table = table
        self._layers = layers
        self._code = code
        self._images = images
        self._tasks = tasks
        self._clock = clock
        self._collecting = False
        layers.removed = self._forget

    async def sweep(self) -> None:
        """Note what a killed process left behind."""
        await self._code.sweep(self._uses, self._copies)
        await self._images.sweep(self._table.uses)

    def let_go(self, before: FunctionRecord | None, after: FunctionRecord | None) -> None:
        """Note the code that a function no longer needs."""
        for sha256 in (set() if before is None else before.codes()) - (set() if after is None else after.codes()):
            (self._images if self._images.knows(sha256) else self._code).unused(sha256)
        for sha256 in (set() if before is None else before.copies()) - (set() if after is None else after.copies()):
            if not self._images.knows(sha256):
                self._code.unused(sha256)
        self.collect_soon()

    def collect_soon(self) -> None:
        """Begin to collect, where there is something and nobody does."""
        if (self._code.pending or self._images.pending) and not self._collecting:
            self._collecting = True
            self._tasks.create_task(self._collect())

    def _forget(self, sha256: str) -> None:
        """A layer version with this content is gone."""
        self._code.unused(sha256)
        self.collect_soon()

    def _uses(self, sha256: str) -> bool:
        """Whether a function or a layer version refers to this content."""
        return self._table.uses(sha256) or self._layers.uses(sha256)

    def _copies(self, sha256: str) -> bool:
        """Whether one of them needs the zip to be kept here."""
        return self._table.copies(sha256) or self._layers.copies(sha256)

    async def _collect(self) -> None:
        """Remove unused code, as long as there is some."""
        try:
            while self._code.pending or self._images.pending:
                await self._clock.sleep(GRACE_S)
                try:
                    await self._code.collect(self._uses, self._copies)
                    await self._images.collect(self._table.uses)
                except (StoreUnavailable, PlatformFault):
                    continue  # the disk may be better in a minute; code that stays too long harms nobody
        finally:
            self._collecting = False
