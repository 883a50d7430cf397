"""A store's whole state: out of one driver and into any other, and up from every schema that an earlier Lambent has left."""

import asyncio
import contextlib
import itertools
import sqlite3

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from lambent.observe.log_store import LogStore
from lambent.store.contract import (
    Acknowledge,
    Append,
    Delete,
    Enqueue,
    Entry,
    Put,
    Record,
    Requeue,
    StoreUnavailable,
    leased_receipt,
)
from lambent.store.export import KeptDocument, KeptEntry, KeptMessage, KeptPosition, KeptTopic, decode, encode, take
from lambent.store.postgres import PostgresStore
from lambent.store.postgres_engine import connect
from lambent.store.schema import SchemaTooNew, migrate, migrations
from lambent.store.sqlite import SqliteStore
from lambent.testing.clock import ManualClock
from lambent.testing.memory_store import MemoryStore

DRIVERS = ["memory", "sqlite", "postgresql"]
SCHEMAS = itertools.count()


@pytest.fixture
def store_of(request, tmp_path):
    """A fresh store of a driver, in an async context that opens and closes it; the same ``place`` is the same store."""

    @contextlib.asynccontextmanager
    async def opened(driver, clock, place=None):
        place = f"place {next(SCHEMAS)}" if place is None else place
        match driver:
            case "memory":
                store = MemoryStore(clock)
            case "sqlite":
                store = SqliteStore(tmp_path / place / "lambent.sqlite", clock)
            case _:
                store = PostgresStore(request.getfixturevalue("postgres").dsn, clock, place)
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    return opened


async def rows_of(store):
    return [row async for batch in store.snapshot() for row in batch]


async def live(store, clock):
    """A past with everything in it: spent positions, leases, delays, groups, deleted documents."""
    await store.commit(*[Put("function", f"f{number}", {"n": number, "odd": "ü\u0000\ud800"}) for number in range(3)])
    await store.commit(Put("function", "f1", {"n": "again"}), Delete("function", "f2"))
    await store.commit(Put("s3-object", "b/ke\u0000y/\u00fc", {"segments": []}))
    await store.commit(Append("told", b"\x00one"), Append("told", b"two"), Append("spent", b"gone"))
    await store.truncate("told", 1)
    await store.truncate("spent", 1)
    await store.commit(Enqueue("q", b"waits"), Enqueue("q", b"\xffdelayed", clock.now() + 60), Enqueue("fifo", b"1", group="g"))
    await store.commit(Enqueue("fifo", b"2", group="g"), Enqueue("born", b"leased", 0.0, "", clock.now() + 30))
    (held,) = await store.lease("q", 1, clock.now(), 20)
    numbers = await store.commit(Enqueue("q", b"done"), Enqueue("q", b"back"))
    clock.advance(1)
    done, back = await store.lease("q", 2, clock.now(), 20)
    await store.commit(Acknowledge("q", done.receipt), Requeue("q", back.receipt, clock.now() + 5))
    return held.receipt, leased_receipt(numbers[1])


@pytest.mark.parametrize("target", DRIVERS)
@pytest.mark.parametrize("source", DRIVERS)
def test_state_moves_between_drivers_whole(store_of, source, target):
    async def main():
        clock = ManualClock()
        async with store_of(source, clock) as old, store_of(target, clock) as new:
            receipt, spent = await live(old, clock)
            rows = await rows_of(old)
            await new.load(decode(encode(rows)))
            assert sorted(await rows_of(new), key=repr) == sorted(rows, key=repr)
            assert await new.get("function", "f1") == Record("f1", {"n": "again"}, 2)
            assert [record.key for record in await new.scan("function")] == ["f0", "f1"]
            assert await new.read("told") == [Entry(2, b"two")]
            # Life goes on where it stood: positions go on, the lease holds, order and delays are kept.
            assert await new.commit(Append("spent", b"x"), Append("told", b"x"), Put("function", "f1", {}, 2)) == [2, 3, 3]
            (position,) = await new.commit(Enqueue("q", b"new"))
            assert position > max(row.position for row in rows if isinstance(row, KeptMessage))
            assert [message.body for message in await new.lease("q", 9, clock.now(), 20)] == [b"new"]
            assert await new.commit(Acknowledge("q", spent)) == [0]
            assert await new.commit(Acknowledge("q", receipt)) == [1]
            clock.advance(60)
            assert [message.body for message in await new.lease("q", 9, clock.now(), 20)] == [b"back", b"new", b"\xffdelayed"]
            assert [message.body for message in await new.lease("fifo", 9, clock.now(), 20, ordered=True)] == [b"1", b"2"]
            (born,) = await new.lease("born", 9, clock.now(), 20)
            assert (born.attempt, born.first_leased_at) == (2, clock.now() - 61)

    asyncio.run(main())


@pytest.mark.parametrize("driver", DRIVERS)
def test_no_position_is_given_twice_across_a_move(store_of, driver):
    async def main():
        clock = ManualClock()
        async with store_of(driver, clock) as old, store_of(driver, clock) as new, store_of(driver, clock) as empty:
            await old.commit(Enqueue("q", b"a"), Enqueue("q", b"b"))
            assert await old.purge("q") == 2
            await new.load(await rows_of(old))
            assert await new.commit(Enqueue("q", b"c")) == [3]
            assert await rows_of(empty) == []
            await empty.load([])
            assert await empty.commit(Enqueue("q", b"first")) == [1]

    asyncio.run(main())


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_snapshot_is_of_one_moment_and_keeps_nobody_waiting(store_of, driver):
    async def main():
        clock = ManualClock()
        async with store_of(driver, clock) as store:
            big = {"text": "x" * 40_000}
            await store.commit(*[Put("k", f"{number:03}", big) for number in range(40)], Enqueue("q", b"m"), Append("t", b"e"))
            batches = store.snapshot()
            rows = await anext(batches)
            assert 1 <= len(rows) < 40  # there is more than one
            await store.commit(*[Delete("k", f"{number:03}") for number in range(40)], Put("k", "late", {}), Append("t", b"late"))
            (message,) = await store.lease("q", 1, clock.now(), 5)
            await store.commit(Acknowledge("q", message.receipt), Enqueue("q", b"late"))
            rows += [row async for batch in batches for row in batch]
            assert [row.key for row in rows if isinstance(row, KeptDocument)] == [f"{number:03}" for number in range(40)]
            assert [row.body for row in rows if isinstance(row, KeptMessage | KeptEntry)] == [b"e", b"m"]
            assert [row[:-1] for row in rows if isinstance(row, KeptTopic)] == [("t",)]
            assert len(await store.scan("k")) == 1

    asyncio.run(main())


@pytest.mark.parametrize("driver", ["sqlite", "postgresql"])
def test_whoever_leaves_a_snapshot_early_leaves_nothing_behind(store_of, driver):
    async def main():
        async with store_of(driver, ManualClock()) as store:
            await store.commit(*[Put("k", f"{number:03}", {"text": "x" * 40_000}) for number in range(40)])
            for _ in range(3):
                batches = store.snapshot()
                await anext(batches)
                await batches.aclose()

            async def reader():
                return [batch async for batch in store.snapshot()]

            tasks = [asyncio.create_task(reader()) for _ in range(3)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
            await store.commit(Put("k", "on", {}))

    asyncio.run(main())


@pytest.mark.parametrize("driver", DRIVERS)
def test_rows_that_contradict_one_another_are_refused(store_of, driver):
    async def main():
        for rows in (
            [KeptDocument("k", "a", 1, "{}"), KeptDocument("k", "a", 2, "{}")],
            [KeptEntry("t", 1, b""), KeptEntry("t", 1, b"x")],
        ):
            async with store_of(driver, ManualClock()) as store:
                with pytest.raises(ValueError, match=r"(?i)unique|two rows"):
                    await store.load(rows)
        store = store_of(driver, ManualClock())
        async with store as opened:
            pass
        with pytest.raises(StoreUnavailable):
            await rows_of(opened)

    asyncio.run(main())


# -- rows as lines

texts = st.text(st.characters(exclude_categories=["Cs"]))
counts = st.integers(0, 2**63 - 1)
smalls = st.integers(0, 2**31 - 1)
times = st.floats(allow_nan=False)
values = st.dictionaries(st.text(), st.integers() | st.text(), max_size=3)
rows = st.one_of(
    st.builds(lambda kind, key, revision, value: KeptDocument(kind, key, revision, _dump(value)), texts, texts, counts, values),
    st.builds(KeptTopic, texts, counts),
    st.builds(KeptEntry, texts, counts, st.binary()),
    st.builds(KeptMessage, counts, texts, st.binary(), times, times, times, smalls, smalls, texts, times),
    st.builds(KeptPosition, counts),
)


def _dump(value):
    import json

    return json.dumps(value, separators=(",", ":"))


@given(st.lists(rows))
def test_rows_come_back_from_lines(given_rows):
    assert decode(encode(given_rows)) == given_rows


@given(st.lists(rows, max_size=30))
def test_batches_hold_every_row_once(given_rows):
    iterator = iter(given_rows)
    found = []
    while batch := take(iterator):
        found += batch
    assert found == given_rows


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"{}",
        b"7",
        b"x",
        b'["d"]',
        b'["z", 1]',
        b'["d", "k", "a", 1, "[]"]',
        b'["d", "k", "a", 1, "no json"]',
        b'["d", "k", "a", 1, {"not": "text"}]',
        b'["d", "k", "a", -1, "{}"]',
        b'["d", "k", "\\ud800", 1, "{}"]',
        b'["d", 5, "a", 1, "{}"]',
        b'["d", "k", "a", true, "{}"]',
        b'["d", "k", "a", 1, "{}", "more"]',
        b'["e", "t", 1, "no base64!"]',
        b'["e", "t", 1, 7]',
        b'["e", "t", 9223372036854775808, ""]',
        b'["m", 1, "q", "", NaN, 0, 0, 0, 0, "", 0]',
        b'["m", 1, "q", "", 0, 0, 0, 2147483648, 0, "", 0]',
        b'["p", "1"]',
        b"[" * 100_000,
    ],
)
def test_lines_that_are_no_rows_are_refused(line):
    with pytest.raises(ValueError, match="no row of a store"):
        decode(line)


# -- up from every earlier schema


SQLITE_VERSIONS = [migration.version for migration in migrations("")]
POSTGRES_VERSIONS = [migration.version for migration in migrations("", "postgres")]
LOG_VERSIONS = [migration.version for migration in migrations("logs_")]


async def check_old_content(store, clock):
    """What ``fill_*`` below has put into an old store is all there, and the store works."""
    assert await store.get("function", "f") == Record("f", {"n": 1}, 4)
    assert await store.read("told") == [Entry(7, b"seven")]
    assert await store.commit(Append("told", b"eight"), Put("function", "f", {"n": 2}, 4)) == [8, 5]
    assert await store.commit(Acknowledge("q", "3.2")) == [1]  # leased under the old schema
    messages = await store.lease("q", 9, clock.now(), 20)
    assert [(message.body, message.attempt, message.group) for message in messages] == [(b"waits", 1, "")]
    (position,) = await store.commit(Enqueue("q", b"new", group="g"))
    assert position == 11
    assert [peek.body for peek in await store.peek("q")] == [b"waits", b"new"]


def test_a_sqlite_store_of_every_earlier_schema_opens_with_its_content(store_of, tmp_path):
    for version in SQLITE_VERSIONS:
        folder = tmp_path / f"schema {version}"
        folder.mkdir()
        connection = sqlite3.connect(folder / "lambent.sqlite", isolation_level=None)
        migrate(connection, "", 1.0, [migration for migration in migrations("") if migration.version <= version])
        fill(connection.execute, "?", blob=bytes)
        connection.execute("UPDATE sqlite_sequence SET seq = 10 WHERE name = 'messages'")
        connection.close()

        async def main(place=folder.name):
            clock = ManualClock()
            async with store_of("sqlite", clock, place) as store:
                await check_old_content(store, clock)

        asyncio.run(main())
        with contextlib.closing(sqlite3.connect(folder / "lambent.sqlite")) as connection:
            applied = connection.execute("SELECT version, applied_at = 1.0 FROM migrations ORDER BY version").fetchall()
        assert applied == [(number, int(number <= version)) for number in SQLITE_VERSIONS]


def test_a_postgresql_store_of_every_earlier_schema_opens_with_its_content(store_of, postgres):
    for version in POSTGRES_VERSIONS:
        schema = f"old {version}"
        with contextlib.closing(connect(postgres.dsn, schema)) as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
            connection.execute(
                "CREATE TABLE migrations (version integer PRIMARY KEY, name text NOT NULL, applied_at double precision NOT NULL)"
            )
            for migration in migrations("", "postgres")[:version]:
                connection.execute(migration.script.encode())
                connection.execute("INSERT INTO migrations VALUES (%s, %s, 1)", (migration.version, migration.name))
            fill(connection.execute, "%s", blob=bytes)
            connection.execute("SELECT setval(pg_get_serial_sequence('messages', 'position'), 10)")

        async def main(place=schema):
            clock = ManualClock()
            async with store_of("postgresql", clock, place) as store:
                await check_old_content(store, clock)

        asyncio.run(main())


def fill(execute, mark, blob):
    """Content for the tables of the first schema; what later ones add must have values of its own accord."""
    override = "" if mark == "?" else "OVERRIDING SYSTEM VALUE "
    text = str if mark == "?" else str.encode

    def insert(table, columns, *row):
        execute(f"INSERT INTO {table} ({columns}) {override if table == 'messages' else ''}VALUES ({', '.join([mark] * len(row))})", row)

    insert("documents", "kind, key, revision, value", "function", text("f"), 4, text('{"n":1}'))
    insert("topics", "topic, head", "told", 7)
    insert("entries", "topic, position, body", "told", 7, blob(b"seven"))
    columns = "position, queue, body, enqueued_at, visible_at, since, attempt, lease"
    insert("messages", columns, 2, "q", blob(b"waits"), 1.0, 0.0, 1.0, 0, 0)
    insert("messages", columns, 3, "q", blob(b"held"), 1.0, 2.0**40, 2.0**40, 2, 2)


def test_a_log_store_of_every_earlier_schema_opens_with_its_content(tmp_path):
    for version in LOG_VERSIONS:
        folder = tmp_path / f"logs {version}"
        folder.mkdir()
        connection = sqlite3.connect(folder / "logs.sqlite", isolation_level=None)
        migrate(connection, "logs_", 1.0, [migration for migration in migrations("logs_") if migration.version <= version])
        connection.execute("INSERT INTO log_groups (account, region, name, created) VALUES ('000000000000', 'us-east-1', '/old', 5)")
        connection.execute("INSERT INTO log_streams (group_id, name, created) VALUES (1, 'stream', 6)")
        connection.close()

        async def main(place=folder):
            store = LogStore(place, ManualClock())
            await store.open()
            try:
                await store.flush()
            finally:
                await store.close()
            with contextlib.closing(sqlite3.connect(place / "logs.sqlite")) as connection:
                assert connection.execute("SELECT name, created FROM log_groups").fetchall() == [("/old", 5)]
                assert connection.execute("SELECT name, created FROM log_streams").fetchall() == [("stream", 6)]

        asyncio.run(main())


def test_a_newer_log_store_is_refused_and_left_alone(tmp_path):
    connection = sqlite3.connect(tmp_path / "logs.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    migrate(connection, "logs_", 1.0)
    connection.execute("INSERT INTO migrations VALUES (9999, 'from the future', 0)")
    connection.close()
    before = (tmp_path / "logs.sqlite").read_bytes()
    with pytest.raises(SchemaTooNew, match="schema 9999"):
        asyncio.run(LogStore(tmp_path, ManualClock()).open())
    assert (tmp_path / "logs.sqlite").read_bytes() == before


def test_a_migration_of_postgresql_that_fails_leaves_the_schema_as_it_was(store_of, postgres, monkeypatch):
    from lambent.store import postgres_engine
    from lambent.store.schema import Migration

    async def put(place):
        async with store_of("postgresql", ManualClock(), place) as store:
            return await store.commit(Put("k", "x", {}))

    assert asyncio.run(put("half")) == [1]
    known = migrations("", "postgres")
    broken = Migration(len(known) + 1, "broken", "CREATE TABLE more (x integer); CREATE TABLE documents (x integer);")
    monkeypatch.setattr(postgres_engine, "migrations", lambda *_: [*known, broken])
    with pytest.raises(StoreUnavailable, match="documents"):
        asyncio.run(put("half"))
    monkeypatch.undo()
    assert asyncio.run(put("half")) == [2]
    with psycopg.connect(postgres.dsn) as connection:
        assert connection.execute("SELECT to_regclass('half.more')").fetchone() == (None,)
