"""A store that tells of its commits, so that tests can end the process before, in the middle of, and after each kind of them.

The names are ``commit:<kinds of mutations>:<moment>``. ``asked``: nothing has been handed to the writer. ``under way``: its thread works on
it, and nobody knows how far it has come. ``made``: durable, and whoever asked has not been told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from lambent.store.contract import Mutation, Store

KINDS = ("put", "enqueue", "enqueue+put", "acknowledge", "acknowledge+enqueue", "delete")
"""Those that mixed work is sure to make: control plane, events and messages in, messages done, events done, what is deleted."""

STORE_POINTS = tuple(f"commit:{kinds}:{moment}" for kinds in KINDS for moment in ("asked", "under way", "made"))


class PointedStore:
    """``store`` in all respects, but that ``at`` is told of commits."""

    def __init__(self, store: Store, at: Callable[[str], None]) -> None:
        self._store = store
        self._at = at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, *mutations: Mutation) -> list[int]:
        kinds = "+".join(sorted({type(each).__name__.lower() for each in mutations}))
        self._at(f"commit:{kinds}:asked")
        asyncio.get_running_loop().call_soon(self._at, f"commit:{kinds}:under way")
        numbers = await self._store.commit(*mutations)
        self._at(f"commit:{kinds}:made")
        return numbers
