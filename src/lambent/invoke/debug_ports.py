"""Ports on this machine's loopback that lead into execution environments, for debuggers.

A sandbox has a network of its own, so an editor cannot reach the debugger that listens inside. A *debug port* can: whoever connects to it
is connected to the given port inside the function's newest environment, at any time, whatever the environment is doing. While the
connection lives that environment, and no other, is neither stopped by a deadline nor frozen.

Ports are leases: who wants one asks again every few seconds (``lambent dev`` does), and what is not asked for any more closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lambent.arn import FunctionArn
from lambent.clock import Clock, Timer
from lambent.errors import ClientFault, PlatformFault
from lambent.sandbox.driver import Sandbox

LEASE_S = 30.0
_WAIT_S = 60.0  # for an environment to begin, or for the debugger inside to listen
_LOOK_S = 0.05
_CHUNK = 65_536


class Holdable(Protocol):
    """An environment, as a debugger sees it."""

    def hold(self) -> Sandbox | None:
        """Time stands still for it until ``release``. Gives its sandbox, if it has one."""
        ...

    def release(self) -> None: ...


@dataclass(slots=True)
class _Port:
    server: asyncio.Server
    number: int
    lease: Timer


class DebugPorts:
    """``newest`` gives a function's newest environment, if it has any. ``close`` once, before the environments go."""

    def __init__(self, newest: Callable[[FunctionArn], Holdable | None], clock: Clock) -> None:
        self._newest = newest
        self._clock = clock
        self._ports: dict[tuple[FunctionArn, int], _Port] = {}
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self, function: FunctionArn, inside: int, port: int) -> int:
        """Lead ``127.0.0.1:port`` (0: any) to port ``inside`` of ``function``, or renew the lease. Gives the port's number.

        Raises ``ClientFault`` (409) where the port is taken.
        """
        key = (function, inside)
        present = self._ports.get(key)
        if present is not None:
            present.lease.cancel()
            present.lease = self._clock.call_later(LEASE_S, lambda: self._drop(key))
            return present.number
        try:
            server = await asyncio.start_server(lambda reader, writer: self._connected(key, reader, writer), "127.0.0.1", port)
        except OSError as error:
            raise ClientFault("ResourceConflictException", 409, f"Port {port} cannot be opened: {error.strerror}.") from error
        number: int = server.sockets[0].getsockname()[1]
        self._ports[key] = _Port(server, number, self._clock.call_later(LEASE_S, lambda: self._drop(key)))
        return number

    async def close(self) -> None:
        """Close every port and end every connection."""
        for key in list(self._ports):
            self._drop(key)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _drop(self, key: tuple[FunctionArn, int]) -> None:
        port = self._ports.pop(key)
        port.lease.cancel()
        port.server.close()

    async def _connected(self, key: tuple[FunctionArn, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, PlatformFault, TimeoutError):
                await self._join(*key, reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _join(self, function: FunctionArn, inside: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        give_up = self._clock.monotonic() + _WAIT_S
        while (environment := self._newest(function)) is None:
            if self._clock.monotonic() > give_up or reader.at_eof():
                return
            await self._clock.sleep(_LOOK_S)
        sandbox = environment.hold()
        try:
            if sandbox is not None:
                sandbox.thaw()
            connection = await self._reach(sandbox, inside, give_up)
            there_reader, there_writer = await asyncio.open_connection(sock=connection)
            copies = [asyncio.create_task(_copy(reader, there_writer)), asyncio.create_task(_copy(there_reader, writer))]
            try:
                await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for copy in copies:
                    copy.cancel()
                await asyncio.gather(*copies, return_exceptions=True)
                there_writer.close()
        finally:
            environment.release()

    async def _reach(self, sandbox: object | None, inside: int, give_up: float) -> socket.socket:
        """A connected socket. The debugger inside may need a moment to listen. Raises ``PlatformFault`` and ``OSError``."""
        open_socket = getattr(sandbox, "open_socket", None)
        if open_socket is None:
            raise PlatformFault("There is no network inside to attach to")
        while True:
            connection: socket.socket = await open_socket()
            try:
                await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", inside))
            except BaseException as error:
                connection.close()
                if not isinstance(error, ConnectionRefusedError) or self._clock.monotonic() > give_up:
                    raise
            else:
                return connection
            await self._clock.sleep(_LOOK_S)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
