"""Writers are killed with SIGKILL, at random and at named points, again and again on the same data.

A writer tells over a pipe what was acknowledged, after it was acknowledged. Whatever was told must be there once, in order, after any
number of deaths; whatever was not told may be there or not, but whole.
"""

import asyncio
import contextlib
import json
import os
import random
import select
import subprocess
import sys
import textwrap

import pytest

from lambent.clock import SystemClock
from lambent.observe.log_blocks import SEQUENCES, decode
from lambent.observe.log_entities import FilterQuery, LogGroup
from lambent.observe.log_journal import replay
from lambent.observe.log_store import LogStore
from lambent.store.blobs import FileBlobs
from lambent.store.sqlite import SqliteStore

GROUP = LogGroup("000000000000", "us-east-1", "/aws/lambda/f")

LOG_WRITER = """
    import asyncio, os, random, signal, sys
    from pathlib import Path
    from lambent.clock import SystemClock
    from lambent.observe.log_sink import LogStream
    from lambent.observe.log_store import LogStore

    folder, run, point, visits = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    left = [visits]

    def at(name):
        if name == point:
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    async def main():
        store = LogStore(folder, SystemClock(), bound=200_000, at=at)
        await store.open()
        dice, number = random.Random(run), 0
        while True:
            stream = LogStream("000000000000", "us-east-1", "/aws/lambda/f", f"stream-{dice.randrange(3)}")
            lines = [f"{run}.{number + offset}" for offset in range(dice.randint(1, 3))]
            number += len(lines)
            store.write(stream, [(1_767_225_600_000 + number, line + " " * dice.choice([0, 10, 3000])) for line in lines])
            os.write(1, "".join(f"{line}\\n" for line in lines).encode())
            if dice.random() < 0.02:
                await store.flush()
            elif dice.random() < 0.1:
                await asyncio.sleep(0)

    asyncio.run(main())
"""

STORE_WRITER = """
    import asyncio, os, sys
    from pathlib import Path
    from lambent.clock import SystemClock
    from lambent.store.contract import Append, Enqueue, Put
    from lambent.store.sqlite import SqliteStore

    folder, run = Path(sys.argv[1]), int(sys.argv[2])

    async def work(store, worker):
        number = 0
        while True:
            name = f"{run}.{worker}.{number}"
            body = name.encode()
            await store.commit(Put("k", name, {"n": name}), Append("t", body), Enqueue("q", body), Put("k", "last", {"n": name}))
            os.write(1, f"{name}\\n".encode())
            number += 1

    async def main():
        store = SqliteStore(folder / "lambent.sqlite", SystemClock())
        await store.open()
        await asyncio.gather(*[work(store, worker) for worker in range(8)])

    asyncio.run(main())
"""

BLOB_WRITER = """
    import asyncio, os, sys
    from pathlib import Path
    from lambent.store.blobs import FileBlobs

    async def main():
        blobs = FileBlobs(Path(sys.argv[1]))
        await blobs.open()
        number = 0
        while True:
            content = f"{sys.argv[2]}.{number}".encode() * 5_000
            os.write(1, f"{await blobs.put(content)}\\n".encode())
            number += 1

    asyncio.run(main())
"""


def run_until_killed(code, arguments, kill_after):
    """Start a writer and read what it tells; kill it after so many bytes, or wait for it to kill itself (``None``)."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        told = b""
        try:
            while kill_after is None or len(told) < kill_after:
                ready, _, _ = select.select([process.stdout], [], [], 60)
                assert ready, "the writer hangs"
                data = os.read(process.stdout.fileno(), 65_536)
                if not data:
                    break
                told += data
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        told += process.stdout.read()
        errors = process.stderr.read().decode()
    assert process.returncode == -9, errors
    return [line for line in told.decode().split("\n")[:-1] if line]


async def kept_lines(folder):
    """Every line of the group, by stream, in order."""
    store = LogStore(folder, SystemClock())
    await store.open()
    lines, token = {}, None
    while True:
        page = await store.filter_events(GROUP, FilterQuery(token=token))
        for name, event in page.events:
            lines.setdefault(name, []).append(event)
        token = page.token
        if token is None:
            break
    await store.close()
    return lines


def check_log(folder, told):
    """``told`` holds every line that was acknowledged so far, of all runs."""
    kept = asyncio.run(kept_lines(folder))
    events = [event for events in kept.values() for event in events]
    messages = [event.message.rstrip() for event in events]
    assert len(set(messages)) == len(messages), "a line came twice"
    missing = set(told) - set(messages)
    assert not missing, f"{len(missing)} acknowledged lines are lost, e.g. {sorted(missing)[:3]}"
    assert len({event.key for event in events}) == len(events), "an event id was given twice"
    for run in {message.split(".")[0] for message in messages}:
        numbers = sorted(int(message.split(".")[1]) for message in messages if message.split(".")[0] == run)
        assert numbers == list(range(len(numbers))), "lines of a run are missing in between"


def crash(folder, run, point, visits, kill_after=None):
    return run_until_killed(LOG_WRITER, [folder, run, point, visits], kill_after)


def test_no_line_is_lost_or_doubled_by_a_kill_at_any_moment(tmp_path):
    told, dice = [], random.Random(4)
    for run in range(8):
        told += crash(tmp_path, run, "nowhere", 1, kill_after=dice.randint(1, 60_000))
        if run % 3 == 2:  # otherwise the next writer's own open is what recovers
            check_log(tmp_path, told)
    check_log(tmp_path, told)


@pytest.mark.parametrize(
    ("point", "visits"),
    [
        ("write:journalled", 1),
        ("write:journalled", 500),
        ("flush:rotated", 1),
        ("flush:rotated", 4),
        ("transaction:applied", 3),
        ("transaction:applied", 6),
        ("flush:committed", 1),
        ("flush:committed", 3),
        ("flush:removed", 1),
        ("flush:removed", 3),
    ],
)
def test_no_line_is_lost_or_doubled_by_a_kill_at_a_named_point(tmp_path, point, visits):
    told = crash(tmp_path, 0, "nowhere", 1, kill_after=5_000)
    told += crash(tmp_path, 1, point, visits)
    check_log(tmp_path, told)


@pytest.mark.parametrize("point", ["transaction:applied", "replay:committed"])
def test_no_line_is_lost_or_doubled_by_a_kill_during_recovery(tmp_path, point):
    told = crash(tmp_path, 0, "nowhere", 1, kill_after=20_000)
    for visits in (1, 2, 1) if point == "transaction:applied" else (1, 1):
        told += crash(tmp_path, visits + len(told), point, visits)
    told += crash(tmp_path, 10**9, "flush:rotated", 1)
    check_log(tmp_path, told)


def test_a_torn_record_at_the_end_of_a_journal_is_left_out(tmp_path):
    """Cut the journal at many lengths: what stands whole before the cut is kept, in order, whatever follows it."""
    told = crash(tmp_path, 0, "write:journalled", 6)
    (journal,) = [path for path in tmp_path.glob("logs.journal.*") if path.stat().st_size]
    data = journal.read_bytes()
    cut_journal = tmp_path / "cut"
    kept_before = 0
    for cut in [*range(0, len(data) - 150, 251), *range(max(len(data) - 150, 0), len(data) + 1)]:
        for tail in (b"", b"\x07garbage", bytes(40)):
            cut_journal.write_bytes(data[:cut] + tail)
            events = [event for _, block in replay(cut_journal) for event in decode(block.data)]
            if not (tail and cut == len(data)):
                assert [event.key % SEQUENCES for event in events] == list(range(1, len(events) + 1))
                assert kept_before <= len(events)
                kept_before = len(events)
    assert kept_before >= len(told) >= 5
    journal.write_bytes(data[:-5])
    kept = asyncio.run(kept_lines(tmp_path))
    lines = {event.message.rstrip() for events in kept.values() for event in events}
    assert lines == {f"0.{number}" for number in range(len(lines))}
    assert kept_before - 3 <= len(lines) < kept_before


def test_the_store_keeps_what_it_acknowledged_and_nothing_by_halves(tmp_path):
    told, dice = [], random.Random(7)

    async def check():
        store = SqliteStore(tmp_path / "lambent.sqlite", SystemClock())
        await store.open()
        documents = {record.key for record in await store.scan("k", limit=1_000_000)} - {"last"}
        entries = [entry.body.decode() for entry in await store.read("t", limit=1_000_000)]
        messages = [message.body.decode() for message in await store.lease("q", 1_000_000, 4e9, 0.0)]
        assert set(told) <= documents
        assert sorted(documents) == sorted(entries) == sorted(messages)
        assert (await store.get("k", "last")).value["n"] == entries[-1]
        await store.close()

    for run in range(4):
        told += run_until_killed(STORE_WRITER, [tmp_path, run], dice.randint(100, 5_000))
        asyncio.run(check())


def test_blobs_are_whole_or_not_there(tmp_path):
    told = []

    async def check():
        blobs = FileBlobs(tmp_path)
        await blobs.open()
        addresses = {address async for address in blobs.addresses()}
        assert set(told) <= addresses
        for address in addresses:
            assert await blobs.get(address)  # raises if the content is not what the address says

    for run in range(3):
        told += run_until_killed(BLOB_WRITER, [tmp_path, run], 65 * (5 + 9 * run))
        asyncio.run(check())
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_names_of_the_points_are_visited(tmp_path):
    """A point that nobody passes would make its test a test of nothing."""
    seen = set()

    async def main():
        for _ in range(2):
            store = LogStore(tmp_path, SystemClock(), at=seen.add)
            await store.open()
            store.write(GROUP.stream("s"), [(1, json.dumps({}))])
            await store.close()

    asyncio.run(main())
    assert seen == {
        "replay:committed",
        "write:journalled",
        "flush:rotated",
        "transaction:applied",
        "flush:committed",
        "flush:removed",
    }
