"""Streams: how long a byte takes from the function's write to the client, by a clock that both share, and how fast many go.

The function writes the time at which it writes; CLOCK_MONOTONIC is one clock for all processes of a machine, sandboxes included.
"""

from __future__ import annotations

import json
import re
import socket
import time
from dataclasses import dataclass

from bench.load import Load, request_bytes
from bench.rows import Row, megabytes, middle, milliseconds, percentile
from bench.stage import FULL_CPU_MB, Stage

_MARK = re.compile(rb"at (\d+\.\d+)\n")
_END = b"\r\n0\r\n\r\n"
_BULK = 6 * 2**20  # what goes out unthrottled


@dataclass(frozen=True)
class Stream:
    """Seconds from write to arrival of each mark, in order; ``elapsed`` from the request to the last byte; ``size`` on the wire."""

    delays: list[float]
    elapsed: float
    size: int


class Client:
    """One keep-alive connection, and nothing done with what arrives before the time is taken."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = port

    def stream(self, function: str, event: dict[str, object]) -> Stream:
        old = f"/2015-03-31/functions/{function}/invocations".encode()
        new = f"/2021-11-15/functions/{function}/response-streaming-invocations".encode()
        begin = time.monotonic()
        self._socket.sendall(request_bytes(Load(self._port, function, json.dumps(event))).replace(old, new, 1))
        delays: list[float] = []
        size, tail = 0, b""
        while not tail.endswith(_END):
            data = self._socket.recv(1 << 20)
            at = time.monotonic()
            if not data:
                raise RuntimeError("the server hung up")
            if not size and not data.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"not a good answer: {data[:200]!r}")
            delays += [at - float(mark) for mark in _MARK.findall(data)] if len(data) < 10_000 else []
            size += len(data)
            tail = (tail + data)[-1_000:]
        if b"ErrorCode" in tail:
            raise RuntimeError(f"the function failed: {tail!r}")
        return Stream(delays, time.monotonic() - begin, size)

    def close(self) -> None:
        self._socket.close()


def measure(stage: Stage) -> list[Row]:
    stage.deploy("stream", handler="handler.stream", memory=FULL_CPU_MB)
    client = Client(stage.server.port)
    try:
        return [*_first_bytes(stage, client), _bulk(stage, client)]
    finally:
        client.close()


def _first_bytes(stage: Stage, client: Client) -> list[Row]:
    rounds = 60 if stage.plan.quick else 300
    for _ in range(10):
        client.stream("stream", {"chunks": 1})
    streams = [client.stream("stream", {"chunks": 4, "pause": 0.002}) for _ in range(rounds)]
    firsts = [stream.delays[0] for stream in streams]
    later = [delay for stream in streams for delay in stream.delays[1:]]
    median = percentile(firsts, 50)
    return [
        Row(
            "first streamed byte, from the function's write to the client: p50",
            "< 2 ms",
            milliseconds(median),
            median < 0.002,
            f"p99 {milliseconds(percentile(firsts, 99))}; later chunks p50 {milliseconds(percentile(later, 50))}, "
            f"p99 {milliseconds(percentile(later, 99))}; {rounds} streams of 4 chunks, one connection, function of {FULL_CPU_MB} MB",
        )
    ]


def _bulk(stage: Stage, client: Client) -> Row:
    size = _BULK - 65_536
    runs = [client.stream("stream", {"bulk": size}) for _ in range(stage.plan.rounds)]
    rate = middle([run.size / run.elapsed for run in runs])
    return Row("streamed response before the throttle", "", f"{megabytes(rate)}/s", None, f"{megabytes(size)} in pieces of 64 kB")
