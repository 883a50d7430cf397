"""A sandbox's three APIs on a loopback port, with an environment that writes down what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from lambent.clock import SystemClock
from lambent.runtime_api.events import ExtensionFailed, Identity, InvokeEvent, Registered
from lambent.runtime_api.frames import Frame
from lambent.runtime_api.server import HttpRuntimeApi

IDENTITY = Identity("f", "$LATEST", "app.handler", "123456789012")
ARN = "arn:aws:lambda:us-east-1:123456789012:function:f"
CAP = 6 * 2**20 + 100


def invocation(token: int = 1, payload: bytes = b"{}", **more) -> InvokeEvent:
    request_id = f"00000000-0000-4000-8000-{token:012d}"
    return InvokeEvent(token, request_id, 1_893_456_000_000, ARN, "Root=1-2-3;Parent=4;Sampled=1", payload, **more)


@dataclass
class Ears:
    """A ``Listener``: every piece of news, in order, and somebody to wake."""

    news: list = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    def _note(self, item) -> None:
        self.news.append(item)
        self.heard.set()

    def on_runtime_frames(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._note(frame)

    def on_registered(self, event: Registered) -> None:
        self._note(event)

    def on_extensions_ready(self) -> None:
        self._note("ready")

    def on_extension_failed(self, event: ExtensionFailed) -> None:
        self._note(event)

    def on_subscribed(self, name: str, types: tuple[str, ...], api: str) -> None:
        self._note((name, types))

    async def next(self):
        """The news that comes next, taken off the list."""
        while not self.news:
            self.heard.clear()
            await self.heard.wait()
        return self.news.pop(0)


async def open_socket() -> socket.socket:
    fresh = socket.socket()
    fresh.setblocking(False)
    return fresh


class House:
    """``async with House() as house``: the APIs at ``house.address``, news in ``house.ears``."""

    def __init__(self, cap: int = CAP, external: tuple[str, ...] = (), telemetry: bool = True, clock=None, **more) -> None:
        self._made_with = (cap, external, telemetry, clock, more)

    async def __aenter__(self) -> House:
        cap, external, telemetry, clock, more = self._made_with
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.ears = Ears()
        self.api = HttpRuntimeApi(
            listening, IDENTITY, self.ears, clock or SystemClock(), cap, external, open_socket if telemetry else None, **more
        )
        return self

    async def __aexit__(self, *exc) -> None:
        await self.api.close()

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)
        return Client(reader, writer)

    async def call(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Reply:
        """One request on a connection of its own."""
        client = await self.connect()
        try:
            client.send(method, path, headers, body)
            return await client.reply()
        finally:
            await client.close()


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return self.json["errorType"]


class Client:
    """A raw HTTP client that believes nothing, either."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def send(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in (headers or {}).items())]
        if body or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(body)}")
        self.write("\r\n".join([*lines, "", ""]).encode() + body)

    async def call(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Reply:
        self.send(method, path, headers, body)
        return await self.reply()

    async def reply(self) -> Reply:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Reply(int(head[0].split(" ")[1]), headers, body)

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def until(happened: Callable[[], bool]) -> None:
    """Let the loop turn until something that nobody tells of has happened."""
    for _ in range(1_000_000):
        if happened():
            return
        await asyncio.sleep(0)
    raise AssertionError("it has not happened")
