"""What the log store promises: lines in, the answers of CloudWatch Logs out, nothing lost and nothing twice."""

import asyncio
import json
import logging
import resource
import sqlite3
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambent.observe.log_database import DAY_MS
from lambent.observe.log_entities import (
    BadToken,
    FilterQuery,
    GroupExists,
    LogGroup,
    NoSuchGroup,
    NoSuchStream,
    StreamExists,
)
from lambent.observe.log_sink import LogStream
from lambent.observe.log_store import FLUSH_AFTER, RETRY_AFTER, LogStore
from lambent.store.contract import StoreUnavailable
from lambent.store.file_lock import StoreInUse
from lambent.testing.clock import ManualClock

NOW = 1_767_225_600_000
GROUP = LogGroup("000000000000", "us-east-1", "/aws/lambda/f")
STREAM = GROUP.stream("2026/01/01/[$LATEST]aaaa")
OTHER = GROUP.stream("2026/01/01/[$LATEST]bbbb")


@pytest.fixture
def logs(tmp_path):
    """Run ``scenario(store, clock)`` on an open log store; run again, it is the same data."""

    def run(scenario, **options):
        async def main():
            clock = ManualClock()
            store = LogStore(tmp_path / "data", clock, **options)
            await store.open()
            try:
                await scenario(store, clock)
            finally:
                await store.close()

        asyncio.run(main())

    return run


def messages(page):
    return [event.message for event in page.events]


def found(page):
    return [(name[-4:], event.message) for name, event in page.events]


# -- lines


def test_a_written_line_can_be_read_at_once(logs):
    async def scenario(store, clock):
        store.write(STREAM, [(NOW, "one\n"), (NOW + 1, "two\n")])
        (first, second) = (await store.get_events(STREAM)).events
        assert (first.timestamp, first.message, first.ingested) == (NOW, "one\n", NOW)
        assert (second.timestamp, second.message) == (NOW + 1, "two\n")
        clock.advance(1)
        store.write(STREAM, [(NOW + 2, "three\n")])
        page = await store.get_events(STREAM)
        assert messages(page) == ["one\n", "two\n", "three\n"]
        assert page.events[2].ingested == NOW + 1_000
        store.write(STREAM, [])
        assert await store.get_events(STREAM) == page

    logs(scenario)


def test_lines_go_to_the_database_by_themselves_after_a_while(logs, tmp_path):
    async def scenario(store, clock):
        store.write(STREAM, [(NOW, "one\n")])
        assert store.health().waiting > 0
        clock.advance(FLUSH_AFTER)
        await asyncio.to_thread(store._writer.submit(threading.get_ident).result)  # the writer is through with what came before
        assert store.health().waiting == 0
        assert clock.pending() == 0  # nothing ticks while nothing is written

    logs(scenario)
    assert [path.name for path in (tmp_path / "data").glob("logs.journal.*")] == []


def test_everything_is_there_after_a_reopen(logs):
    async def write(store, clock):
        store.write(STREAM, [(NOW, "one\n")])
        await store.put_retention(GROUP, 7)
        await store.change_tags(GROUP, {"team": "a"})

    async def check(store, clock):
        (group,) = (await store.describe_groups("000000000000", "us-east-1")).groups
        assert (group.group, group.retention, group.tags, group.created, group.size) == (GROUP, 7, {"team": "a"}, NOW, 30)
        assert messages(await store.get_events(STREAM)) == ["one\n"]
        store.write(STREAM, [(NOW, "two\n")])
        keys = [event.key for event in (await store.get_events(STREAM)).events]
        assert len(set(keys)) == 2

    logs(write)
    logs(check)


def test_many_threads_may_write(logs):
    async def scenario(store, clock):
        def work(name):
            for number in range(200):
                store.write(GROUP.stream(name), [(NOW + number, f"{name} {number}")])

        await asyncio.gather(*[asyncio.to_thread(work, name) for name in "abcd"])
        for name in "abcd":
            assert messages(await store.get_events(GROUP.stream(name))) == [f"{name} {number}" for number in range(200)]

    logs(scenario)


def test_one_process_at_a_time(logs, tmp_path):
    async def scenario(store, clock):
        with pytest.raises(StoreInUse):
            await LogStore(tmp_path / "data", clock).open()

    logs(scenario)


def test_a_closed_store_says_so(logs):
    async def scenario(store, clock):
        store.write(STREAM, [(NOW, "one\n")])
        await store.close()
        with pytest.raises(StoreUnavailable):
            store.write(STREAM, [(NOW, "two\n")])
        with pytest.raises(StoreUnavailable):
            await store.get_events(STREAM)

    logs(scenario)


def test_beyond_its_bound_writing_waits_for_the_database(logs):
    async def scenario(store, clock):
        for number in range(100):
            store.write(STREAM, [(NOW + number, f"{number:03d}" + "x" * 10_000)])
            assert store.health().waiting < 70_000
        assert [message[:3] for message in messages(await store.get_events(STREAM))] == [f"{number:03d}" for number in range(100)]
        assert store.health().dropped == 0

    logs(scenario, bound=50_000)


def test_without_room_lines_wait_in_memory_and_what_must_go_is_told(logs, caplog):
    async def scenario(store, clock):
        store.write(STREAM, [(NOW, "before\n")])
        await store.flush()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, hard))
        try:
            store.write(STREAM, [(NOW + 1, "y" * 20_000)])
            assert store.health().unjournalled == 1
            with pytest.raises(StoreUnavailable):
                await store.get_events(STREAM)
            for number in range(20):
                store.write(STREAM, [(NOW + 2 + number, "z" * 4_000)])
            assert store.health().trouble
            assert store.health().dropped > 0
            assert store.health().waiting < 60_000
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        dropped = store.health().dropped
        clock.advance(RETRY_AFTER)
        await store.flush()
        page = await store.get_events(STREAM)
        kept = messages(page)
        assert kept[0] == "before\n"
        assert kept[1] == "y" * 20_000
        assert len([message for message in kept if message.startswith("z")]) == 20 - dropped
        (notice,) = [json.loads(message) for message in kept if message.startswith("{")]
        assert notice["type"] == "platform.logsDropped"
        assert notice["record"] == {"reason": "The log store had no room", "droppedRecords": dropped, "droppedBytes": 4_000 * dropped}
        assert store.health().trouble == ""

    with caplog.at_level(logging.WARNING):
        logs(scenario, bound=50_000)
    assert any("memory" in record.message for record in caplog.records)
    assert any("kept again" in record.message for record in caplog.records)


def test_a_stream_whose_first_lines_were_refused_is_found_later(logs):
    """SQLite ends a transaction by itself when the disk is full, and the ids of streams that it had made are void."""

    async def scenario(store, clock):
        def full(point):
            if point == "transaction:applied" and not refused:
                refused.append(point)
                store._writing.execute("ROLLBACK")
                raise sqlite3.OperationalError("database or disk is full")

        refused = []
        store._at = full
        store.write(STREAM, [(NOW, "one\n")])
        with pytest.raises(StoreUnavailable, match="full"):
            await store.flush()
        store.write(OTHER, [(NOW, "other\n")])
        assert messages(await store.get_events(STREAM)) == ["one\n"]
        store.write(STREAM, [(NOW, "two\n")])
        assert messages(await store.get_events(STREAM)) == ["one\n", "two\n"]
        assert messages(await store.get_events(OTHER)) == ["other\n"]

    logs(scenario)


def test_who_sends_lines_over_the_api_is_told_that_the_disk_takes_none(logs):
    async def scenario(store, clock):
        await store.create_group(GROUP)
        await store.create_stream(STREAM)
        await store.put_events(STREAM, [(NOW, "before")])
        await store.flush()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            with pytest.raises(StoreUnavailable, match="journal"):
                await store.put_events(STREAM, [(NOW + 1, "refused")])
            assert store.health().waiting == 0
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await store.put_events(STREAM, [(NOW + 2, "after")])
        assert messages(await store.get_events(STREAM)) == ["before", "after"]

    logs(scenario)


# -- groups and streams


def test_groups_come_and_go(logs):
    async def scenario(store, clock):
        await store.create_group(GROUP, tags={"a": "1"})
        with pytest.raises(GroupExists):
            await store.create_group(GROUP)
        await store.create_group(LogGroup("111111111111", "us-east-1", GROUP.name))
        store.write(STREAM, [(NOW, "one\n")])
        await store.delete_group(GROUP)
        with pytest.raises(NoSuchGroup):
            await store.delete_group(GROUP)
        with pytest.raises(NoSuchGroup):
            await store.get_events(STREAM)
        store.write(STREAM, [(NOW, "a new life\n")])
        assert messages(await store.get_events(STREAM)) == ["a new life\n"]
        assert len((await store.describe_groups("111111111111", "us-east-1")).groups) == 1
        assert (await store.describe_groups("000000000000", "eu-west-1")).groups == []

    logs(scenario)


def test_groups_are_listed_by_name_in_pages(logs):
    async def scenario(store, clock):
        names = ["/aws/lambda/a", "/aws/lambda/b", "/aws/lambda/ab", "custom/ab", "/aws/lambdb"]
        for name in names:
            await store.create_group(LogGroup("000000000000", "us-east-1", name))

        async def listed(**query):
            return [info.group.name for info in (await store.describe_groups("000000000000", "us-east-1", **query)).groups]

        assert await listed() == sorted(names)
        assert await listed(prefix="/aws/lambda/") == ["/aws/lambda/a", "/aws/lambda/ab", "/aws/lambda/b"]
        assert await listed(pattern="ab") == ["/aws/lambda/ab", "custom/ab"]
        page = await store.describe_groups("000000000000", "us-east-1", limit=3)
        rest = await store.describe_groups("000000000000", "us-east-1", limit=3, token=page.token)
        assert [info.group.name for info in [*page.groups, *rest.groups]] == sorted(names)
        assert rest.token is None
        for token in ("nonsense", "", "W10=", "WzFd"):
            if token:
                with pytest.raises(BadToken):
                    await store.describe_groups("000000000000", "us-east-1", token=token)

    logs(scenario)


def test_tags_are_added_and_removed(logs):
    async def scenario(store, clock):
        await store.create_group(GROUP, tags={"a": "1"})
        assert await store.change_tags(GROUP, {"b": "2"}) == {"a": "1", "b": "2"}
        assert await store.change_tags(GROUP, {"b": "3"}, ["a", "unknown"]) == {"b": "3"}
        assert await store.change_tags(GROUP) == {"b": "3"}
        with pytest.raises(NoSuchGroup):
            await store.change_tags(LogGroup("0", "r", "none"))

    logs(scenario)


def test_streams_come_and_go(logs):
    async def scenario(store, clock):
        with pytest.raises(NoSuchGroup):
            await store.create_stream(STREAM)
        await store.create_group(GROUP)
        await store.create_stream(STREAM)
        with pytest.raises(StreamExists):
            await store.create_stream(STREAM)
        with pytest.raises(NoSuchStream):
            await store.put_events(OTHER, [(NOW, "x")])
        await store.put_events(STREAM, [(NOW, "x")])
        store.write(OTHER, [(NOW, "yy")])
        await store.delete_stream(STREAM)
        with pytest.raises(NoSuchStream):
            await store.delete_stream(STREAM)
        with pytest.raises(NoSuchStream):
            await store.get_events(STREAM)
        assert found(await store.filter_events(GROUP, FilterQuery())) == [("bbbb", "yy")]
        (group,) = (await store.describe_groups("000000000000", "us-east-1")).groups
        assert group.size == 28

    logs(scenario)


def test_streams_are_listed_by_name_and_by_time_in_pages(logs):
    async def scenario(store, clock):
        times = {"c": NOW + 5, "a": NOW + 9, "d": NOW + 5, "b": NOW}
        for name, time in times.items():
            store.write(GROUP.stream(name), [(time, "x"), (time - 5, "earlier")])
        await store.create_stream(GROUP.stream("empty"))

        async def listed(limit, **query):
            names, token = [], None
            while True:
                page = await store.describe_streams(GROUP, limit=limit, token=token, **query)
                names += [info.name for info in page.streams]
                token = page.token
                if token is None:
                    return names

        for limit in (1, 2, 50):
            assert await listed(limit) == ["a", "b", "c", "d", "empty"]
            assert await listed(limit, reverse=True) == ["empty", "d", "c", "b", "a"]
            assert await listed(limit, by_time=True) == ["empty", "b", "c", "d", "a"]
            assert await listed(limit, by_time=True, reverse=True) == ["a", "d", "c", "b", "empty"]
        assert await listed(2, prefix="e") == ["empty"]
        page = await store.describe_streams(GROUP, by_time=True, reverse=True, limit=1)
        (info,) = page.streams
        assert (info.first_event, info.last_event, info.last_ingestion, info.created) == (NOW + 4, NOW + 9, NOW, NOW)
        with pytest.raises(BadToken):
            await store.describe_streams(GROUP, token=page.token + "x" * 3)

    logs(scenario)


# -- the events of a stream


def test_a_stream_is_read_from_either_end(logs):
    async def scenario(store, clock):
        store.write(STREAM, [(NOW + number, str(number)) for number in range(10)])
        assert messages(await store.get_events(STREAM, limit=3)) == ["7", "8", "9"]
        assert messages(await store.get_events(STREAM, limit=3, from_head=True)) == ["0", "1", "2"]
        page = await store.get_events(STREAM, limit=3)
        page = await store.get_events(STREAM, limit=3, token=page.backward)
        assert messages(page) == ["4", "5", "6"]
        assert messages(await store.get_events(STREAM, limit=3, token=page.forward)) == ["7", "8", "9"]
        assert messages(await store.get_events(STREAM, start=NOW + 4, end=NOW + 6)) == ["4", "5"]

    logs(scenario)


def test_at_the_end_the_token_stays_the_same_and_later_lines_follow_it(logs):
    async def scenario(store, clock):
        store.write(STREAM, [(NOW, "one"), (NOW, "two")])
        page = await store.get_events(STREAM, from_head=True)
        for _ in range(2):
            end = await store.get_events(STREAM, from_head=True, token=page.forward)
            assert (end.events, end.forward) == ([], page.forward)
        assert messages(await store.get_events(STREAM, token=end.backward)) == ["one", "two"]
        store.write(STREAM, [(NOW, "three")])
        assert messages(await store.get_events(STREAM, from_head=True, token=page.forward)) == ["three"]
        start = await store.get_events(STREAM, token=page.backward)
        assert (start.events, start.backward) == ([], page.backward)
        assert messages(await store.get_events(STREAM, token=start.forward, from_head=True)) == ["one", "two", "three"]
        with pytest.raises(BadToken):
            await store.get_events(STREAM, token="f/12/s")

    logs(scenario)


def test_an_empty_stream_has_tokens_too(logs):
    async def scenario(store, clock):
        await store.create_group(GROUP)
        await store.create_stream(STREAM)
        page = await store.get_events(STREAM, from_head=True)
        assert page.events == []
        again = await store.get_events(STREAM, token=page.forward)
        assert (again.events, again.forward) == ([], page.forward)
        store.write(STREAM, [(NOW, "one")])
        assert messages(await store.get_events(STREAM, token=page.forward)) == ["one"]

    logs(scenario)


def test_a_page_holds_a_megabyte(logs):
    async def scenario(store, clock):
        for number in range(5):
            store.write(STREAM, [(NOW + number, f"{number}" + "x" * 400_000)])
        seen, token = [], None
        while True:
            page = await store.get_events(STREAM, from_head=True, token=token)
            if page.forward == token:
                break
            seen.append([message[0] for message in messages(page)])
            token = page.forward
        assert seen == [["0", "1"], ["2", "3"], ["4"]]
        assert [message[0] for message in messages(await store.get_events(STREAM))] == ["3", "4"]
        store.write(OTHER, [(NOW, "y" * 2_000_000)])
        assert len((await store.get_events(OTHER)).events) == 1

    logs(scenario)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 300_000), min_size=1, max_size=6), min_size=1, max_size=8),
    st.integers(1, 5),
    st.booleans(),
    st.integers(0, 150_000),
)
def test_paging_gives_every_event_once_in_order(tmp_path_factory, writes, limit, forward, start):
    """Whatever the timestamps, however the lines were flushed, and in both directions."""

    async def main():
        store = LogStore(tmp_path_factory.mktemp("logs"), ManualClock())
        await store.open()
        expected = []
        for write, stamps in enumerate(writes):
            store.write(STREAM if write % 2 else OTHER, [(NOW + stamp, f"{write}.{line}") for line, stamp in enumerate(stamps)])
            expected += [(stamp, write, line) for line, stamp in enumerate(stamps) if stamp >= start]
            if write % 3 == 0:
                await store.flush()
        expected = [f"{write}.{line}" for _, write, line in sorted(expected)]
        seen, token = [], None
        while True:
            page = await store.filter_events(GROUP, FilterQuery(start=NOW + start, limit=limit, token=token, from_head=forward))
            assert len(page.events) <= limit
            seen += [event.message for _, event in page.events]
            token = page.token
            if token is None:
                break
        assert seen == (expected if forward else expected[::-1])
        mine = [message for message in expected if int(message.split(".")[0]) % 2 == 0]
        seen, token = [], None
        while True:
            page = await store.get_events(OTHER, start=NOW + start, limit=limit, token=token, from_head=forward)
            if token == (page.forward if forward else page.backward):
                break
            seen = [*seen, *messages(page)] if forward else [*messages(page), *seen]
            token = page.forward if forward else page.backward
        assert seen == mine
        await store.close()

    asyncio.run(main())


# -- the events of a group


def test_a_group_is_filtered_across_its_streams(logs):
    async def scenario(store, clock):
        store.write(STREAM, [(NOW, "START a"), (NOW + 2, "ERROR a"), (NOW + 4, "END a")])
        store.write(OTHER, [(NOW + 1, "START b"), (NOW + 3, "ERROR b")])

        async def filtered(**query):
            return found(await store.filter_events(GROUP, FilterQuery(**query)))

        assert await filtered() == [
            ("aaaa", "START a"),
            ("bbbb", "START b"),
            ("aaaa", "ERROR a"),
            ("bbbb", "ERROR b"),
            ("aaaa", "END a"),
        ]
        assert await filtered(pattern="ERROR") == [("aaaa", "ERROR a"), ("bbbb", "ERROR b")]
        assert await filtered(streams=(OTHER.name,)) == [("bbbb", "START b"), ("bbbb", "ERROR b")]
        assert await filtered(streams=(OTHER.name, STREAM.name), pattern="-START", start=NOW + 3) == [
            ("bbbb", "ERROR b"),
            ("aaaa", "END a"),
        ]
        assert await filtered(prefix="2026/01/01/[$LATEST]a", end=NOW + 2) == [("aaaa", "START a"), ("aaaa", "ERROR a")]
        assert await filtered(prefix="2027") == []
        assert await filtered(start=10**30) == []
        with pytest.raises(NoSuchStream):
            await filtered(streams=("unknown", STREAM.name))
        with pytest.raises(NoSuchGroup):
            await store.filter_events(LogGroup("000000000000", "us-east-1", "none"), FilterQuery())
        with pytest.raises(BadToken):
            await filtered(token="x")
        everything = (await store.filter_events(GROUP, FilterQuery())).events
        assert len({event.key for _, event in everything}) == 5
        assert (await store.filter_events(GROUP, FilterQuery())).events == everything

    logs(scenario)


def test_a_filter_that_finds_little_gives_early_pages_and_loses_nothing(logs, monkeypatch):
    monkeypatch.setattr("lambent.observe.log_query.SCAN_BYTES", 2_000)

    async def scenario(store, clock):
        store.write(STREAM, [(NOW + number, "needle" if number in (3, 97) else "hay") for number in range(100)])
        seen, pages, token = [], 0, None
        while True:
            page = await store.filter_events(GROUP, FilterQuery(pattern="needle", token=token))
            seen += [event.timestamp - NOW for _, event in page.events]
            pages, token = pages + 1, page.token
            if token is None:
                break
        assert seen == [3, 97]
        assert pages == 2

    logs(scenario)


def test_retention_hides_at_once_and_purges_later(logs):
    async def scenario(store, clock):
        store.write(STREAM, [(NOW - 3 * DAY_MS, "old")])
        store.write(STREAM, [(NOW - DAY_MS + 1_000, "young")])
        await store.flush()
        with pytest.raises(NoSuchGroup):
            await store.put_retention(LogGroup("000000000000", "us-east-1", "none"), 1)
        await store.put_retention(GROUP, 1)
        assert messages(await store.get_events(STREAM)) == ["young"]
        assert found(await store.filter_events(GROUP, FilterQuery())) == [("aaaa", "young")]
        await store.delete_retention(GROUP)
        assert messages(await store.get_events(STREAM)) == ["old", "young"]
        await store.put_retention(GROUP, 1)
        assert await store.purge(clock.now()) == 1
        assert await store.purge(clock.now()) == 0
        await store.delete_retention(GROUP)
        assert messages(await store.get_events(STREAM)) == ["young"]
        (group,) = (await store.describe_groups("000000000000", "us-east-1")).groups
        assert group.size == 31
        await store.put_retention(GROUP, 1)
        clock.advance(2)
        assert messages(await store.get_events(STREAM)) == []

    logs(scenario)


def test_streams_of_other_accounts_and_regions_are_others(logs):
    async def scenario(store, clock):
        abroad = LogStream(STREAM.account, "eu-west-1", STREAM.group, STREAM.name)
        store.write(STREAM, [(NOW, "here")])
        store.write(abroad, [(NOW, "there")])
        assert messages(await store.get_events(STREAM)) == ["here"]
        assert messages(await store.get_events(abroad)) == ["there"]

    logs(scenario)
