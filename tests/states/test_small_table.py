"""Families of few documents: what survives, who wins, and what waits its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from control_house import Disk, TinyStore

from lambent.control.small_table import SmallTable
from lambent.errors import conflict
from lambent.store.contract import Put, StoreUnavailable


def put(value: int) -> Any:
    return lambda before: {"n": value}


def increment(before: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return {"n": (before or {"n": 0})["n"] + 1}


def test_what_was_acknowledged_is_there_again():
    async def story() -> None:
        disk = Disk()
        table = SmallTable(TinyStore(disk), "k")
        for name in "cab":
            await table.change(f"x/{name}", put(1))
        await table.change("x/a", lambda before: None)
        again = SmallTable(TinyStore(disk), "k")
        await again.load()
        assert list(again.items("x/")) == [("x/b", {"n": 1}), ("x/c", {"n": 1})]
        assert list(again.items("y")) == []

    asyncio.run(story())


def test_pages():
    async def story() -> None:
        table = SmallTable(TinyStore(Disk()), "k")
        for name in "abcd":
            await table.change(f"x/{name}", put(ord(name)))
        await table.change("y/a", put(0))
        page, more = table.page("x/", "", 3)
        assert ([key for key, _ in page], more) == (["x/a", "x/b", "x/c"], True)
        page, more = table.page("x/", "x/c", 3)
        assert ([key for key, _ in page], more) == (["x/d"], False)
        page, more = table.page("x/", "", 3, lambda document: document["n"] % 2 == 0)
        assert ([key for key, _ in page], more) == (["x/b", "x/d"], False)

    asyncio.run(story())


def test_no_increment_is_lost_even_to_another_process():
    async def story() -> None:
        disk = Disk()
        one, other = SmallTable(TinyStore(disk), "k"), SmallTable(TinyStore(disk), "k")
        await asyncio.gather(*(table.change("a", increment) for _ in range(20) for table in (one, other)))
        last = await one.change("a", increment)
        assert last == {"n": 41} == one.get("a")

    asyncio.run(story())


def test_a_refusal_and_a_lost_store_change_nothing():
    async def story() -> None:
        store = TinyStore(Disk())
        table = SmallTable(store, "k")
        seen: list[tuple[Any, Any]] = []
        table.changed = lambda key, before, after: seen.append((before, after))
        await table.change("a", put(1))

        def refuse(before: Mapping[str, Any] | None) -> Mapping[str, Any]:
            raise conflict("no")

        with pytest.raises(Exception, match="no"):
            await table.change("a", refuse)
        store.unavailable = True
        with pytest.raises(StoreUnavailable):
            await table.change("a", put(2))
        store.unavailable = False
        assert table.get("a") == {"n": 1}
        assert await table.change("a", lambda before: before) == {"n": 1}
        assert seen == [(None, {"n": 1})]

    asyncio.run(story())


def test_a_change_outlives_its_caller():
    async def story() -> None:
        store = TinyStore(Disk())
        store.lag = lambda: 5
        table = SmallTable(store, "k")
        caller = asyncio.create_task(table.change("a", put(1)))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        for _ in range(20):
            await asyncio.sleep(0)
        assert table.get("a") == {"n": 1}

    asyncio.run(story())


def test_what_another_process_wrote_is_shown():
    async def story() -> None:
        disk = Disk()
        store = TinyStore(disk)
        table = SmallTable(store, "k")
        await table.change("a", put(1))
        await store.commit(Put("k", "a", {"n": 10}))
        assert await table.change("a", increment) == {"n": 11}

    asyncio.run(story())
