"""The client of every HTTP measurement: keep-alive HTTP/1.1 over raw sockets, in a process of its own.

One connection is driven with a blocking socket, more with uvloop and a bare ``asyncio.Protocol``; neither does more than find the end of an
answer, so what is measured is the server. Started as ``python -m bench.load '<json>'`` with the fields of ``Load``; prints a JSON
``Outcome``. Answers that are not 200, or carry a function error, stop the run.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

TOP = Path(__file__).parent.parent

_AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=test/20261121/us-east-1/lambda/aws4_request, "
    "SignedHeaders=content-type;host;x-amz-date, Signature=" + "0" * 64
)


@dataclass(frozen=True)
class Load:
    """What to send. The run ends after ``requests`` in all, or after ``seconds`` if ``requests`` is 0."""

    port: int
    function: str
    payload: str = "{}"
    connections: int = 1
    requests: int = 0
    seconds: float = 0.0
    kind: str = "RequestResponse"


@dataclass(frozen=True)
class Outcome:
    """``latencies`` in seconds, in order of completion; ``elapsed`` from the first byte sent to the last answer."""

    latencies: list[float]
    elapsed: float
    last: str

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.elapsed


def drive(load: Load) -> Outcome:
    """Run ``load`` in a child process."""
    command = [sys.executable, "-m", "bench.load", json.dumps(asdict(load))]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the load on {load.function} failed:\n{done.stderr}")
    return Outcome(**json.loads(done.stdout))


def request_bytes(load: Load) -> bytes:
    """An Invoke as boto3 sends it, signature length and all."""
    body = load.payload.encode()
    head = (
        f"POST /2015-03-31/functions/{load.function}/invocations HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\n"
        f"Accept-Encoding: identity\r\nContent-Type: application/json\r\nUser-Agent: bench\r\nX-Amz-Date: 20261121T090000Z\r\n"
        f"Authorization: {_AUTHORIZATION}\r\nContent-Length: {len(body)}\r\n{_kind(load)}\r\n"
    )
    return head.encode() + body


def _kind(load: Load) -> str:
    return "" if load.kind == "RequestResponse" else f"X-Amz-Invocation-Type: {load.kind}\r\n"


class AnswerReader:
    """Finds where answers end. ``feed`` gives the body once an answer is whole."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> bytes | None:
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self._buffer[:end].lower()
        at = head.find(b"\r\ncontent-length:")  # not x-amzn-remapped-content-length
        if at < 0:
            raise RuntimeError(f"an answer without a length: {self._buffer[:500]!r}")
        length = int(head[at + 17 :].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length:
            return None
        body = self._buffer[end + 4 : end + 4 + length]
        if not head.startswith((b"http/1.1 200", b"http/1.1 202")) or b"x-amz-function-error" in head:
            raise RuntimeError(f"not a good answer: {self._buffer[:1000]!r}")
        self._buffer = b""
        return body


def one_connection(load: Load) -> Outcome:
    """Requests one after the other."""
    request = request_bytes(load)
    reader = AnswerReader()
    latencies: list[float] = []
    body: bytes | None = b""
    with socket.create_connection(("127.0.0.1", load.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        first = time.perf_counter()
        while len(latencies) < load.requests or (not load.requests and time.perf_counter() - first < load.seconds):
            begin = time.perf_counter()
            connection.sendall(request)
            body = None
            while body is None:
                data = connection.recv(65_536)
                if not data:
                    raise RuntimeError("the server hung up")
                body = reader.feed(data)
            latencies.append(time.perf_counter() - begin)
        elapsed = time.perf_counter() - first
    return Outcome(latencies, elapsed, (body or b"").decode())


class _Connection(asyncio.Protocol):
    """Sends the next request when an answer is whole, until the run is over."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._reader = AnswerReader()
        self._begin = 0.0
        self.transport: Any = None  # uvloop's transports are none of asyncio's classes
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def send(self) -> None:
        self.busy = True
        self._begin = time.perf_counter()
        self.transport.write(self._run.request)

    def data_received(self, data: bytes) -> None:
        try:
            body = self._reader.feed(data)
        except RuntimeError as error:
            self._run.fail(error)
            return
        if body is not None:
            self.busy = False
            self._run.answered(self, time.perf_counter() - self._begin, body)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.busy:
            self._run.fail(exc or RuntimeError("the server hung up"))


class _Run:
    def __init__(self, load: Load) -> None:
        self.load = load
        self.request = request_bytes(load)
        self.latencies: list[float] = []
        self.last = b""
        self._sent = 0
        self._answered = 0
        self._first = 0.0
        self._over = asyncio.get_running_loop().create_future()

    async def go(self) -> Outcome:
        loop = asyncio.get_running_loop()
        made = [await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.load.port) for _ in range(self.load.connections)]
        self._first = time.perf_counter()
        for _, connection in made:
            if self._wants_more():
                self._send(connection)
        await self._over
        elapsed = time.perf_counter() - self._first
        for transport, _ in made:
            transport.close()
        return Outcome(self.latencies, elapsed, self.last.decode())

    def answered(self, connection: _Connection, latency: float, body: bytes) -> None:
        self.latencies.append(latency)
        self.last = body
        self._answered += 1
        if self._wants_more():
            self._send(connection)
        elif self._answered == self._sent and not self._over.done():
            self._over.set_result(None)

    def fail(self, error: BaseException) -> None:
        if not self._over.done():
            self._over.set_exception(error)

    def _send(self, connection: _Connection) -> None:
        self._sent += 1
        connection.send()

    def _wants_more(self) -> bool:
        if self.load.requests:
            return self._sent < self.load.requests
        return time.perf_counter() - self._first < self.load.seconds


async def many_connections(load: Load) -> Outcome:
    """``load.connections`` requests in flight all the time."""
    return await _Run(load).go()


def main() -> None:
    load = Load(**json.loads(sys.argv[1]))
    outcome = one_connection(load) if load.connections == 1 else uvloop.run(many_connections(load))
    json.dump(asdict(outcome), sys.stdout)


if __name__ == "__main__":
    main()
