"""Event source mappings for SQS: how soon a message reaches its handler, how many of a backlog do in a second, and what idle ones cost.

The backlog is made through the store, with a server of its own down, and drained into warm functions in batches of ten. What SQLite alone
leases and deletes of messages like these, in steps of the same size and on the same disk in the same run, stands beside it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from bench.rows import Row, middle, milliseconds, percentile
from bench.stage import Stage
from lambent.clock import SystemClock
from lambent.queues.directory import Directory
from lambent.queues.messages import Body
from lambent.store.contract import Acknowledge, Enqueue
from lambent.store.sqlite import SqliteStore
from lambent.testing.local_server import LocalServer

_BATCH = 10
_ENVIRONMENTS = 5  # as many batches at once as a mapping begins with
_STEP = _BATCH * _ENVIRONMENTS
_PER_COMMIT = 1_000
_IDLE = 20
_IDLE_S = 5.0
_TEXT = '{"name": "bench", "of": "a message of the usual size, about a hundred bytes long, as they come and go here"}'


def measure(stage: Stage) -> list[Row]:
    return [_delay(stage), _drained(stage), _idle(stage)]


def _delay(stage: Stage) -> Row:
    stage.deploy("mapping-delays", "handler.delays_of_messages", timeout=20)
    api, sqs = stage.api, stage.server.client("sqs")
    url = sqs.create_queue(QueueName="mapping-delays")["QueueUrl"]
    mapping = _map(api, "mapping-delays", _arn(sqs, url), True)
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"sent": 0}))
    _wait_until_empty(sqs, url)
    api.invoke(FunctionName="mapping-delays", Payload=b"{}")["Payload"].read()
    for _ in range(stage.plan.requests // 10):
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"sent": time.time()}))
        _wait_until_empty(sqs, url)
    delays = json.loads(api.invoke(FunctionName="mapping-delays", Payload=b"{}")["Payload"].read())
    api.delete_event_source_mapping(UUID=mapping)
    return Row(
        "message sent to handler started, idle: p50",
        "< 5 ms",
        milliseconds(percentile(delays, 50)),
        percentile(delays, 50) < 0.005,
        f"p99 {milliseconds(percentile(delays, 99))}; {len(delays)} messages, from before the client sends, with boto3; "
        f"SQLite alone commits one such message in {milliseconds(_commit())}, which is on the way once",
    )


def _commit() -> float:
    """Seconds that SQLite takes to make one message durable, at the median."""

    async def run(folder: Path) -> float:
        store = SqliteStore(folder / "lambent.sqlite", SystemClock())
        await store.open()
        samples = []
        for _ in range(100):
            body = Body(str(uuid.uuid4()), _TEXT, "000000000000", 0).encode()
            begin = time.perf_counter()
            await store.commit(Enqueue("q", body))
            samples.append(time.perf_counter() - begin)
            await asyncio.sleep(0.01)
        await store.close()
        return percentile(samples, 50)

    return _in_a_folder(run)


def _drained(stage: Stage) -> Row:
    count = 20_000 if stage.plan.quick else 60_000
    rates, stored = [], []
    with LocalServer() as server:
        own = Stage(server, stage.plan)
        own.deploy("mapped", timeout=20)
        for number in range(2 if stage.plan.quick else 3):
            stored.append(_stored(count // 4))
            rates.append(_drain(own, f"mapped-{number}", count))
        environments = own.environments("mapped")
    rate, base = middle(rates), middle(stored)
    return Row(
        f"messages through a mapping, batches of {_BATCH}",
        ">= 8,000/s",
        f"{rate:,.0f}/s = {rate / base:.2f} x",
        rate >= 8_000,
        f"SQLite alone leases and deletes {base:,.0f}/s, {_STEP} at a time; {count:,} messages, {environments} environments",
    )


def _idle(stage: Stage) -> Row:
    """The node's CPU time while nothing comes: without mappings, and with some."""
    with LocalServer() as server:
        own = Stage(server, stage.plan)
        own.deploy("idle", timeout=20)
        bare = _cpu(server.pid)
        sqs = server.client("sqs")
        for number in range(_IDLE):
            _map(own.api, "idle", _arn(sqs, sqs.create_queue(QueueName=f"idle-{number}")["QueueUrl"]), True)
        busy = _cpu(server.pid)
    return Row(
        f"CPU time of the node with {_IDLE} idle mappings",
        "no more than without",
        f"{busy * 1000:.1f} ms/s",
        busy <= bare + 0.002,
        f"{bare * 1000:.1f} ms/s without; the kernel counts in steps of 10 ms, over {_IDLE_S:.0f} s",
    )


def _cpu(pid: int) -> float:
    """Seconds of CPU time that a process uses in a second."""

    def used() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    time.sleep(1.0)  # what came before is over
    before = used()
    time.sleep(_IDLE_S)
    return (used() - before) / _IDLE_S


def _drain(stage: Stage, name: str, count: int) -> float:
    """Messages a second, once the mapping runs; the last few per cent do not count."""
    server = stage.server
    sqs = server.client("sqs")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = _arn(sqs, url)
    mapping = _map(stage.api, "mapped", arn, False)
    server.stop()
    asyncio.run(_fill(server.data_dir, arn, count))
    server.start()
    stage.warm("mapped", _ENVIRONMENTS)
    stage.api.update_event_source_mapping(UUID=mapping, Enabled=True)
    seen: list[tuple[float, int]] = []
    while not seen or seen[-1][1]:
        seen.append((time.perf_counter(), _left(sqs, url)))
        time.sleep(0.25)  # counting costs the store something
    running = [(at, left) for at, left in seen if count * 0.05 < left < count * 0.98]
    (begin, first), (end, last) = running[0], running[-1]
    stage.api.delete_event_source_mapping(UUID=mapping)
    return (first - last) / (end - begin)


def _stored(count: int) -> float:
    """Messages a second that SQLite alone leases and deletes, the next lease under way while the last are deleted."""

    async def run(folder: Path) -> float:
        store = SqliteStore(folder / "lambent.sqlite", SystemClock())
        await store.open()
        await _enqueue(store, "q", count)
        begin = time.perf_counter()
        deleting: asyncio.Future[Any] | None = None
        while messages := await store.lease("q", _STEP, time.time(), 30.0):
            if deleting is not None:
                await deleting
            deleting = asyncio.ensure_future(store.commit(*[Acknowledge("q", each.receipt) for each in messages]))
        if deleting is not None:
            await deleting
        elapsed = time.perf_counter() - begin
        await store.close()
        return count / elapsed

    return _in_a_folder(run)


def _in_a_folder(run: Callable[[Path], Coroutine[Any, Any, float]]) -> float:
    folder = Path(tempfile.mkdtemp(prefix="lambent-bench-"))
    try:
        return asyncio.run(run(folder))
    finally:
        shutil.rmtree(folder)


async def _fill(folder: Path, arn: str, count: int) -> None:
    store = SqliteStore(folder / "lambent.sqlite", SystemClock())
    await store.open()
    queues = Directory(store, SystemClock())
    await queues.load()
    queue = queues.by_arn(arn)
    assert queue is not None
    await _enqueue(store, queue.store_name, count)
    await store.close()


async def _enqueue(store: SqliteStore, queue: str, count: int) -> None:
    for _ in range(count // _PER_COMMIT):
        bodies = [Body(str(uuid.uuid4()), _TEXT, "000000000000", int(time.time() * 1000)) for _ in range(_PER_COMMIT)]
        await store.commit(*[Enqueue(queue, body.encode()) for body in bodies])


def _map(api: Any, function: str, arn: str, enabled: bool) -> str:
    made = api.create_event_source_mapping(FunctionName=function, EventSourceArn=arn, Enabled=enabled, BatchSize=_BATCH)
    while api.get_event_source_mapping(UUID=made["UUID"])["State"] == "Creating":
        time.sleep(0.02)
    return str(made["UUID"])


def _arn(sqs: Any, url: str) -> str:
    return str(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"])


def _left(sqs: Any, url: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    return sum(int(value) for value in sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values())


def _wait_until_empty(sqs: Any, url: str) -> None:
    while _left(sqs, url):
        time.sleep(0.02)
