"""Documents of one kind, in memory and in the store at once: for families of which there are few and which change seldom.

Reads come from memory. ``change`` applies a pure function to the document as it stands, commits the result with compare-and-set and only
then shows it; writers of one key take turns, and one that another process overtook reads again and applies the function once more. A
change that has begun is finished even if its caller goes away, for otherwise the store could hold what memory does not know.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from lambent.errors import PlatformFault
from lambent.store.contract import ABSENT, Delete, Put, Store, StoreConflict

ATTEMPTS = 100

Document = Mapping[str, Any]
Mutate = Callable[[Document | None], Document | None]
Changed = Callable[[str, Document | None, Document | None], None]


class SmallTable:
    """``load`` first. ``changed`` is told the key and the document before and after, in the step in which memory changes."""

    def __init__(self, store: Store, kind: str) -> None:
        self._store = store
        self._kind = kind
        self._documents: dict[str, tuple[Document, int]] = {}
        self._keys: list[str] = []
        self._turns: dict[str, tuple[asyncio.Lock, list[None]]] = {}
        self.changed: Changed = lambda key, before, after: None

    async def load(self) -> None:
        """Read every document from the store."""
        after = ""
        while page := await self._store.scan(self._kind, "", after):
            for record in page:
                self._show(record.key, (record.value, record.revision))
            after = page[-1].key

    def get(self, key: str) -> Document | None:
        found = self._documents.get(key)
        return None if found is None else found[0]

    def items(self, prefix: str = "") -> Iterator[tuple[str, Document]]:
        """All whose key starts with ``prefix``, in the order of their keys."""
        start = bisect.bisect_left(self._keys, prefix)
        for key in self._keys[start:]:
            if not key.startswith(prefix):
                return
            yield key, self._documents[key][0]

    def page(
        self, prefix: str, after: str, limit: int, wanted: Callable[[Document], bool] = lambda document: True
    ) -> tuple[list[tuple[str, Document]], bool]:
        """Up to ``limit`` wanted documents whose keys start with ``prefix`` and sort behind ``after``, and whether there are more."""
        found: list[tuple[str, Document]] = []
        for key in self._keys[bisect.bisect_right(self._keys, max(prefix, after)) :]:
            if not key.startswith(prefix):
                break
            document = self._documents[key][0]
            if not wanted(document):
                continue
            if len(found) == limit:
                return found, True
            found.append((key, document))
        return found, False

    @contextlib.asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Hold a turn of that name, for what must not happen twice at once: a check of several documents and the change that follows."""
        lock, waiting = self._turns.setdefault(name, (asyncio.Lock(), []))
        waiting.append(None)
        try:
            async with lock:
                yield
        finally:
            waiting.pop()
            if not waiting:
                del self._turns[name]

    async def change(self, key: str, mutate: Mutate) -> Document | None:
        """Replace the document at ``key`` by what ``mutate`` makes of it, durably; gives the new one.

        ``mutate`` gets ``None`` where there is none, and gives ``None`` to delete, or the same object to leave things alone. It may be
        called again after a conflict and may refuse by raising.
        """
        return await asyncio.shield(asyncio.ensure_future(self._in_turn(key, mutate)))

    async def _in_turn(self, key: str, mutate: Mutate) -> Document | None:
        async with self.turn(key):
            return await self._change(key, mutate)

    async def _change(self, key: str, mutate: Mutate) -> Document | None:
        for _ in range(ATTEMPTS):
            before, revision = self._documents.get(key, (None, ABSENT))
            after = mutate(before)
            if after is before:
                return after
            try:
                if after is None:
                    await self._store.commit(Delete(self._kind, key, revision))
                else:
                    [revision] = await self._store.commit(Put(self._kind, key, dict(after), revision))
            except StoreConflict:
                found = await self._store.get(self._kind, key)
                self._show(key, None if found is None else (found.value, found.revision))
                continue
            self._show(key, None if after is None else (after, revision))
            return after
        raise PlatformFault(f"{self._kind} {key}: {ATTEMPTS} commits in a row met a newer revision")

    def _show(self, key: str, entry: tuple[Document, int] | None) -> None:
        before = self._documents.pop(key, None)
        if entry is not None:
            self._documents[key] = entry
            if before is None:
                bisect.insort(self._keys, key)
        elif before is not None:
            del self._keys[bisect.bisect_left(self._keys, key)]
        self.changed(key, None if before is None else before[0], None if entry is None else entry[0])
