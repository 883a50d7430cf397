"""One at a time per name, with nothing kept for names that nobody asks for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Gate:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: int = 0


class Turns:
    """``async with turns(name)``."""

    def __init__(self) -> None:
        self._gates: dict[str, _Gate] = {}

    @property
    def taken(self) -> bool:
        """Whether anybody is at it, or waits."""
        return bool(self._gates)

    @contextlib.asynccontextmanager
    async def __call__(self, name: str) -> AsyncIterator[None]:
        gate = self._gates.setdefault(name, _Gate())
        gate.wanted += 1
        try:
            async with gate.lock:
                yield
        finally:
            gate.wanted -= 1
            if not gate.wanted:
                del self._gates[name]
