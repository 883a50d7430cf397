"""All functions, in memory and in the store at once.

Reads come from memory, so that ten thousand functions cost a waiter's poll nothing. Writes go through ``change``: it applies a pure
function to the record as it stands, commits the result with compare-and-set, and only then shows it. Within this process a lock per
function orders the writers; should another process have written first, the commit's conflict makes ``change`` read what is there now and
apply the function again, so no update is ever lost.

``applied`` hooks run in the same step in which memory changes, before any other task can look: whoever reads a function as Active finds
it in the data plane too. ``watchers`` hear of every change of every function, in the same step, behind the hook. A change that has begun
is finished even if its caller goes away, for otherwise the store could hold what memory does not know.
"""

from __future__ import annotations

import asyncio
import bisect
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from lambent.arn import FunctionArn
from lambent.control.function_configuration import FunctionRecord
from lambent.control.function_kinds import on_provider
from lambent.errors import PlatformFault
from lambent.store.contract import ABSENT, Delete, Mutation, Put, Store, StoreConflict
from lambent.turns import Turns

KIND = "function"
VERSION_KIND = "function-version"
ATTEMPTS = 100

Mutate = Callable[[FunctionRecord | None], FunctionRecord | None]
Applied = Callable[[FunctionRecord | None, FunctionRecord | None], None]


@dataclass(slots=True)
class _Scope:
    """The functions of one account and Region: their names in order, and the bytes of their unzipped code."""

    names: list[str] = field(default_factory=list)
    unzipped: int = 0


class FunctionTable:
    """``load`` first."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reloaded: Applied = lambda before, after: None
        self.watchers: list[Applied] = []
        self._records: dict[str, tuple[FunctionRecord, int]] = {}
        self._scopes: dict[tuple[str, str], _Scope] = {}
        self._codes: Counter[str] = Counter()
        self._copies: Counter[str] = Counter()  # of these, zips that are kept here
        self._turns = Turns()

    async def load(self) -> None:
        """Read every function from the store."""
        after = ""
        while page := await self._store.scan(KIND, "", after):
            for record in page:
                self._show(record.key, (await self._with_versions(record.key, FunctionRecord.from_document(record.value)), record.revision))
            after = page[-1].key

    async def _with_versions(self, key: str, record: FunctionRecord) -> FunctionRecord:
        """A function read from the store, with its versions, which have documents of their own."""
        if not record.last_version and not on_provider(record.configuration):
            return record  # it cannot have any
        versions: dict[str, FunctionRecord] = {}
        after = ""
        while page := await self._store.scan(VERSION_KIND, f"{key}/", after):
            for found in page:
                versions[found.key.rpartition("/")[2].lstrip("0")] = FunctionRecord.from_document(found.value)
            after = page[-1].key
        return replace(record, versions=versions)

    def get(self, arn: FunctionArn) -> FunctionRecord | None:
        found = self._records.get(key_of(arn))
        return None if found is None else found[0]

    def __iter__(self) -> Iterator[FunctionRecord]:
        return (record for record, _ in list(self._records.values()))

    def page(self, account: str, region: str, after: str, limit: int) -> tuple[list[FunctionRecord], bool]:
        """Up to ``limit`` functions whose names sort behind ``after``, and whether there are more."""
        names = self._scope(account, region).names
        start = bisect.bisect_right(names, after)
        chosen = names[start : start + limit]
        return [self._records[f"{account}/{region}/{name}"][0] for name in chosen], start + limit < len(names)

    def usage(self, account: str, region: str) -> tuple[int, int]:
        """How many functions there are, and the bytes of their unzipped code."""
        scope = self._scope(account, region)
        return len(scope.names), scope.unzipped

    def uses(self, sha256: str) -> bool:
        """Whether any function refers to this code."""
        return self._codes[sha256] > 0

    def copies(self, sha256: str) -> bool:
        """Whether any function needs the zip of this code to be kept here."""
        return self._copies[sha256] > 0

    async def change(self, arn: FunctionArn, mutate: Mutate, applied: Applied | None = None) -> FunctionRecord | None:
        """Replace the function by what ``mutate`` makes of it, durably; gives the new record.

        ``mutate`` gets the record as it stands (``None``: there is none) and gives the one to store (``None``: delete it, the same
        object: leave it). It may be called again after a conflict and may refuse by raising. ``applied`` gets both, and so does
        ``reloaded`` for what another process wrote.
        """
        return await asyncio.shield(asyncio.ensure_future(self._change_in_turn(key_of(arn), mutate, applied)))

    async def _change_in_turn(self, key: str, mutate: Mutate, applied: Applied | None) -> FunctionRecord | None:
        async with self._turns(key):
            return await self._change(key, mutate, applied)

    async def _change(self, key: str, mutate: Mutate, applied: Applied | None) -> FunctionRecord | None:
        for _ in range(ATTEMPTS):
            before, revision = self._records.get(key, (None, ABSENT))
            after = mutate(before)
            if after is before:
                return after
            try:
                if after is None:
                    await self._store.commit(Delete(KIND, key, revision), *_version_changes(key, before, None))
                else:
                    mutations = _version_changes(key, before, after)
                    [revision, *_] = await self._store.commit(Put(KIND, key, after.to_document(), revision), *mutations)
            except StoreConflict:
                found = await self._store.get(KIND, key)
                there = None
                if found is not None:
                    there = (await self._with_versions(key, FunctionRecord.from_document(found.value)), found.revision)
                self._show(key, there)
                self.reloaded(before, None if there is None else there[0])
                self._tell(before, None if there is None else there[0])
                continue
            self._show(key, None if after is None else (after, revision))
            if applied is not None:
                applied(before, after)
            self._tell(before, after)
            return after
        raise PlatformFault(f"function {key}: {ATTEMPTS} commits in a row met a newer revision")

    def _tell(self, before: FunctionRecord | None, after: FunctionRecord | None) -> None:
        for watch in self.watchers:
            watch(before, after)

    def _show(self, key: str, entry: tuple[FunctionRecord, int] | None) -> None:
        account, region, name = key.split("/")
        scope = self._scope(account, region)
        before = self._records.pop(key, None)
        if before is not None:
            scope.unzipped -= before[0].stored
            self._codes.subtract(before[0].codes())
            self._copies.subtract(before[0].copies())
        if entry is not None:
            self._records[key] = entry
            scope.unzipped += entry[0].stored
            self._codes.update(entry[0].codes())
            self._copies.update(entry[0].copies())
        if (before is None) != (entry is None):
            if entry is None:
                del scope.names[bisect.bisect_left(scope.names, name)]
            else:
                bisect.insort(scope.names, name)
        if before is not None:
            for sha256 in before[0].codes():
                if self._codes[sha256] <= 0:
                    del self._codes[sha256]
                if self._copies[sha256] <= 0:
                    del self._copies[sha256]

    def _scope(self, account: str, region: str) -> _Scope:
        return self._scopes.setdefault((account, region), _Scope())


def key_of(arn: FunctionArn) -> str:
    return f"{arn.account}/{arn.region}/{arn.name}"


def _version_changes(key: str, before: FunctionRecord | None, after: FunctionRecord | None) -> list[Mutation]:
    """What makes the versions in the store those of ``after``. The function's own expectation guards them all."""
    old = before.versions if before is not None else {}
    new = after.versions if after is not None else {}
    changes: list[Mutation] = [
        Put(VERSION_KIND, f"{key}/{number:0>10}", version.to_document())
        for number, version in new.items()
        if version is not old.get(number)
    ]
    return changes + [Delete(VERSION_KIND, f"{key}/{number:0>10}") for number in old if number not in new]
