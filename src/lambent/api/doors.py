"""The platform's endpoint, seen from inside a sandbox.

A function's network namespace may hold nothing but its own loopback, and yet ``boto3`` inside a function must reach this platform. The
driver makes a listening socket on the sandbox's ``127.0.0.1`` and hands it out with the sandbox; ``Doors`` is a driver around a driver
that accepts there and serves the connections like any other. So a function reaches the platform's public endpoint, signed like any
caller's requests, and nothing else of the host; a door costs one descriptor and no process, and closes with its sandbox.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

from lambent.sandbox.driver import IsolationReport, Sandbox, SandboxDriver, SandboxSpec

log = logging.getLogger("lambent.api")

_ACCEPTED_AT_ONCE = 8


class Doors:
    """Wraps ``driver``; ``adopt`` serves an accepted connection."""

    def __init__(self, driver: SandboxDriver, adopt: Callable[[socket.socket], Awaitable[None]]) -> None:
        self._driver = driver
        self._adopt = adopt
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def report(self) -> IsolationReport:
        return self._driver.report

    async def open(self) -> None:
        await self._driver.open()

    async def close(self) -> None:
        await self._driver.close()
        for task in self._tasks:
            task.cancel()

    async def prepare(self, runtime: str) -> None:
        await self._driver.prepare(runtime)

    async def start(self, spec: SandboxSpec) -> Sandbox:
        sandbox = await self._driver.start(spec)
        listener: socket.socket | None = getattr(sandbox, "listener", None)
        if listener is not None and not sandbox.exited.done():
            setattr(sandbox, "listener", None)  # noqa: B010  (no member of the contract, and ours from here on)
            self._serve(listener, sandbox)
        return sandbox

    def forget(self, sandbox_id: str) -> None:
        self._driver.forget(sandbox_id)

    def _serve(self, listener: socket.socket, sandbox: Sandbox) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(listener.fileno(), self._accept, listener)

        def close(_: object) -> None:
            loop.remove_reader(listener.fileno())
            listener.close()

        sandbox.exited.add_done_callback(close)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _address = listener.accept()
            except OSError:  # nothing more, or the peer has gone; the loop asks again
                return
            connection.setblocking(False)
            task: asyncio.Task[None] = asyncio.ensure_future(self._adopt(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
