"""The control plane with 10,000 functions stored: what one poll of a waiter and one page of a list cost at the client."""

from __future__ import annotations

import asyncio
import http.client
import time
from dataclasses import replace

from bench.rows import Row, middle, milliseconds
from bench.stage import Stage
from lambent.arn import FunctionArn
from lambent.clock import SystemClock
from lambent.control.function_configuration import FunctionRecord
from lambent.store.contract import Put
from lambent.store.sqlite import SqliteStore
from lambent.testing.local_server import LocalServer

_FUNCTIONS = 10_000
_BATCH = 500
_AUTH = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/lambda/aws4_request, SignedHeaders=host, Signature=0"


def measure(stage: Stage) -> list[Row]:
    asks = 2_000 if stage.plan.rounds > 2 else 500
    with LocalServer() as server:
        Stage(server, stage.plan).deploy("original", memory=128)
        server.stop()
        asyncio.run(_multiply(server))
        begin = time.perf_counter()
        server.start()
        started = time.perf_counter() - begin
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        names = [f"copy-{number * 7919 % _FUNCTIONS:05}" for number in range(asks)]
        one = [_ask(connection, f"/2015-03-31/functions/{name}/configuration") for name in names]
        pages, path = [], "/2015-03-31/functions?MaxItems=50"
        for _ in range(asks // 5):
            pages.append(_ask(connection, path))
        connection.close()
    p50, page = middle(one), middle(pages)
    return [
        Row("10,000 functions: GetFunctionConfiguration p50", "< 1.5 ms", milliseconds(p50), p50 < 0.0015,
            f"p99 {milliseconds(sorted(one)[len(one) * 99 // 100])}; {asks} asked for, one client, keep-alive"),
        Row("10,000 functions: a page of ListFunctions p50", "< 10 ms", milliseconds(page), page < 0.010,
            f"50 functions a page; p99 {milliseconds(sorted(pages)[len(pages) * 99 // 100])}"),
        Row("10,000 functions: lambent up to ready", "", f"{started:.2f} s", None, ""),
    ]  # fmt: skip


def _ask(connection: http.client.HTTPConnection, path: str) -> float:
    begin = time.perf_counter()
    connection.request("GET", path, headers={"Authorization": _AUTH, "X-Amz-Date": "20260101T000000Z"})
    answer = connection.getresponse()
    body = answer.read()
    took = time.perf_counter() - begin
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status} {body[:200]!r}")
    return took


async def _multiply(server: LocalServer) -> None:
    """Write copies of the one function into the store of the stopped server: making 10,000 through the API would take minutes."""
    store = SqliteStore(server.data_dir / "lambent.sqlite", SystemClock())
    await store.open()
    try:
        [found] = await store.scan("function")
        original = FunctionRecord.from_document(found.value)
        for first in range(0, _FUNCTIONS, _BATCH):
            await store.commit(*[_copy(original, f"copy-{number:05}") for number in range(first, first + _BATCH)])
    finally:
        await store.close()


def _copy(original: FunctionRecord, name: str) -> Put:
    arn = FunctionArn(original.arn.region, original.arn.account, name)
    changed = {"FunctionName": name, "FunctionArn": str(arn)}
    serving = original.serving and {**original.serving, **changed}
    record = replace(original, arn=arn, configuration={**original.configuration, **changed}, serving=serving)
    return Put("function", f"{arn.account}/{arn.region}/{name}", record.to_document())
