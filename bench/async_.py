"""Asynchronous invocations: events accepted, how soon they start, and what a million of them in the queue costs.

Accepted events are durable, so the rate stands beside what SQLite commits for sixteen writers on the same disk in the same run. The
million is made through the store, with the server down; it belongs to a function that never answers, on a server of its own.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import tempfile
import time
import uuid
from pathlib import Path

from bench.load import AnswerReader, Load, drive, request_bytes
from bench.rows import Row, megabytes, middle, milliseconds, percentile
from bench.stage import Stage, memory_of
from lambent.arn import FunctionArn
from lambent.clock import SystemClock
from lambent.invoke.async_event import EVENTS, AsyncEvent, lane_of
from lambent.store.contract import Enqueue
from lambent.store.sqlite import SqliteStore
from lambent.testing.local_server import LocalServer

_CLIENTS = 16
_PAYLOAD = '{"name": "bench"}'
_STUCK = '{"sleep": 55}'
_PER_COMMIT = 1_000


def measure(stage: Stage) -> list[Row]:
    return [_accepted(stage), _started(stage), *_million(stage)]


def _event(name: str, payload: str) -> AsyncEvent:
    target = FunctionArn("us-east-1", "000000000000", name)
    return AsyncEvent(str(uuid.uuid4()), target, payload.encode(), time.time(), f"Root=1-{0:08x}-{0:024x};Parent={0:016x};Sampled=0")


def _commits(seconds: float, writers: int = _CLIENTS) -> float:
    """Events a second that SQLite alone makes durable for so many writers, one event a commit."""

    async def run(folder: Path) -> float:
        store = SqliteStore(folder / "lambent.sqlite", SystemClock())
        await store.open()
        body = _event("f", _PAYLOAD).encode()
        begin = time.perf_counter()

        async def write() -> int:
            count = 0
            while time.perf_counter() - begin < seconds:
                await store.commit(Enqueue("q", body))
                count += 1
            return count

        counts = await asyncio.gather(*[write() for _ in range(writers)])
        elapsed = time.perf_counter() - begin
        await store.close()
        return sum(counts) / elapsed

    folder = Path(tempfile.mkdtemp(prefix="lambent-bench-"))
    try:
        return asyncio.run(run(folder))
    finally:
        shutil.rmtree(folder)


def _accepted(stage: Stage) -> Row:
    stage.deploy("async-hello")
    stage.warm("async-hello", 4)
    rates, commits = [], []
    for _ in range(stage.plan.rounds):
        commits.append(_commits(stage.plan.seconds / 2))
        load = Load(stage.server.port, "async-hello", _PAYLOAD, _CLIENTS, 0, stage.plan.seconds, "Event")
        rates.append(drive(load).per_second)
        _wait_until_empty(stage.server, "async-hello")
    rate, base = middle(rates), middle(commits)
    return Row(
        f"events accepted, {_CLIENTS} clients",
        ">= 5,000/s",
        f"{rate:,.0f}/s = {rate / base:.2f} x",
        rate >= 5_000,
        f"SQLite alone commits {base:,.0f}/s for as many writers; every event also ran, in part meanwhile",
    )


def _wait_until_empty(server: LocalServer, name: str) -> None:
    while sum(server.page(f"events/{name}")["counts"].values()):
        time.sleep(0.2)


def _started(stage: Stage) -> Row:
    """Over one bare connection, since a whole SDK takes as long to speak as the server to start the function."""
    stage.deploy("async-delays", "handler.delays")
    api = stage.api
    api.invoke(FunctionName="async-delays", Payload=b"{}")
    reader = AnswerReader()
    with socket.create_connection(("127.0.0.1", stage.server.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(stage.plan.requests // 5):
            load = Load(stage.server.port, "async-delays", json.dumps({"sent": time.time()}), kind="Event")
            connection.sendall(request_bytes(load))
            while reader.feed(connection.recv(65_536)) is None:
                pass
            time.sleep(0.005)
    _wait_until_empty(stage.server, "async-delays")
    delays = json.loads(api.invoke(FunctionName="async-delays", Payload=b"{}")["Payload"].read())
    commit = 1 / _commits(stage.plan.seconds / 2, 1)
    half = percentile(delays, 50)
    return Row(
        "event sent to handler started, idle: p50",
        "< 5 ms",
        f"{milliseconds(half)} = {half / commit:.1f} x",
        half < 0.005,
        f"p99 {milliseconds(percentile(delays, 99))}; SQLite alone takes {milliseconds(commit)} to commit one event",
    )


def _million(stage: Stage) -> list[Row]:
    count = 100_000 if stage.plan.quick else 1_000_000
    with LocalServer() as server:
        own = Stage(server, stage.plan)
        own.deploy("stuck")
        empty, bare = _accept_while_stuck(own)
        server.stop()
        asyncio.run(_fill(server.data_dir, count))
        begin = time.perf_counter()
        server.start()
        start = time.perf_counter() - begin
        full, loaded = _accept_while_stuck(own)
        server.kill()  # what is stuck would hold up an orderly end
    ratio = full / empty
    return [
        Row(
            f"events accepted with {count:,} queued",
            ">= 0.8 x with none",
            f"{full:,.0f}/s = {ratio:.2f} x",
            ratio >= 0.8,
            f"{empty:,.0f}/s with none; the server started in {start:.1f} s",
        ),
        Row(f"memory with {count:,} queued", "<= 200 MB more", f"{megabytes(loaded - bare)} more", loaded - bare <= 200 * 2**20),
    ]


def _accept_while_stuck(stage: Stage) -> tuple[float, int]:
    """Events a second that are accepted for a function that is busy for long, and the node's memory after them."""
    drive(Load(stage.server.port, "stuck", _STUCK, _CLIENTS, 64, 0.0, "Event"))
    rates = [
        drive(Load(stage.server.port, "stuck", _STUCK, _CLIENTS, 0, stage.plan.seconds, "Event")).per_second
        for _ in range(stage.plan.rounds)
    ]
    return middle(rates), memory_of(stage.server.pid).get("Rss", 0)


async def _fill(folder: Path, count: int) -> None:
    store = SqliteStore(folder / "lambent.sqlite", SystemClock())
    await store.open()
    event = _event("stuck", _STUCK)
    queue, body = EVENTS + lane_of(event.target), event.encode()
    for _ in range(count // _PER_COMMIT):
        await store.commit(*[Enqueue(queue, body) for _ in range(_PER_COMMIT)])
    await store.close()
