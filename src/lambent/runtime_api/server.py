"""The three APIs of one sandbox, on its listening socket: an implementation of ``events.RuntimeApi``.

What may be said when is decided by pure machines (``session_state``, ``extension_state``, ``telemetry``); requests reach them through the
routes, and what they decide is carried out here: answers go to connections, news to the environment's ``Listener``.

It costs nothing until it is used. A function whose runtime talks frames and that has no extensions pays one watched descriptor; an
invocation of it returns from ``invoke`` at once. For a runtime over HTTP an invocation is one ``send`` to the connection that waits in
``next`` and two reads, the response and the next ``next``, with no task, timer or lock.

Whoever connects is user code, so connections are counted, and so is what they hold together.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

from lambent.clock import Clock, Timer
from lambent.runtime_api.connection import Connection
from lambent.runtime_api.events import Identity, InvokeEvent, Listener, Registered
from lambent.runtime_api.exchange import Desk, Exchange, Headers, not_found
from lambent.runtime_api.extension_routes import Facilities, open_extension, open_facility
from lambent.runtime_api.extension_state import ExtensionSession
from lambent.runtime_api.frames import FrameType
from lambent.runtime_api.http_parser import Head
from lambent.runtime_api.runtime_routes import invocation_head, open_runtime
from lambent.runtime_api.session_state import RuntimeSession, RuntimeState
from lambent.runtime_api.session_words import (
    Answer,
    Delivered,
    InitOver,
    Instruction,
    InvokeAll,
    Lost,
    ShutDown,
    TellFailed,
    TellFrames,
    TellReady,
    TellRegistered,
)
from lambent.runtime_api.telemetry import Outbox, TelemetryHub
from lambent.runtime_api.telemetry_delivery import Courier, OpenSocket

MAX_CONNECTIONS = 256
MAX_HELD = 16 * 2**20  # of requests not understood yet, all connections together
ACCEPTS = 64
ACCEPT_PAUSE = 0.1  # when this process has run out of descriptors
LAST_WORDS = 0.1  # for telemetry, at the end

_NO_FACILITIES = Facilities()
_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class HttpRuntimeApi(Desk):
    """See ``events.RuntimeApi``. Takes over ``listening``, a listening TCP socket, and closes it in ``close``.

    ``external`` are the names of the executables in ``/opt/extensions``. ``open_socket`` gives an unconnected socket inside the sandbox;
    without it there is no telemetry, and extensions are told so. ``concurrency`` is how many invocations the runtime takes at once.
    """

    def __init__(
        self,
        listening: socket.socket,
        identity: Identity,
        listener: Listener,
        clock: Clock,
        response_cap: int,
        external: Collection[str] = (),
        open_socket: Callable[[], Awaitable[socket.socket]] | None = None,
        facilities: Facilities = _NO_FACILITIES,
        *,
        concurrency: int = 1,
    ) -> None:
        self.runtime = RuntimeSession(response_cap, concurrency)
        self.registry = ExtensionSession(identity, frozenset(external), lambda: str(uuid.uuid4()))
        self.hub = TelemetryHub()
        self.response_cap = response_cap
        self.telemetry_supported = open_socket is not None
        self._listener = listener
        self._clock = clock
        self._open_socket: OpenSocket | None = open_socket
        self._facilities = facilities
        self._couriers: dict[int, Courier] = {}  # by the identity of their outbox
        self._connections: dict[int, Connection] = {}
        self._accepted = 0
        self._held: Connection | None = None
        self._closed = False
        self._pause: Timer | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        listening.setblocking(False)
        self._loop.add_reader(listening.fileno(), self._accept)

    # ---------------------------------------------------------------------------------------------- what the environment calls

    @property
    def extensions(self) -> Mapping[str, Registered]:
        return self.registry.extensions

    @property
    def extensions_ready(self) -> bool:
        """Every external extension has registered, and every registered one waits in ``event/next``."""
        return self.registry.all_ready

    @property
    def wants_telemetry(self) -> frozenset[str]:
        return self.hub.types

    def invoke(self, event: InvokeEvent, *, to_runtime: bool) -> bool:
        if to_runtime and not self._hand_over(event):
            return False
        if self.registry.extensions:
            self.carry_out(self.registry.handle(InvokeAll(event)))
        return True

    def _hand_over(self, event: InvokeEvent) -> bool:
        runtime = self.runtime
        if runtime.state is not RuntimeState.READY:
            return False
        head = invocation_head(event)
        while runtime.line:
            caller = runtime.line[0]
            connection = self._connections.get(caller)
            if connection is not None and connection.deliver(head, event.payload):
                runtime.handle(Delivered(caller, event))
                return True
            runtime.handle(Lost(caller))
            if connection is not None:
                connection.close()
        return False

    def end_init(self) -> None:
        self.registry.handle(InitOver())
        self.hub.end_init()

    def pause(self) -> None:
        connection = self._connections.get(self.runtime.streaming_caller)
        if connection is not None:
            self._held = connection
            connection.hold()

    def resume(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.release()

    def shutdown(self, reason: str, deadline_ms: int) -> None:
        for courier in self._couriers.values():
            courier.flush()
        self.carry_out(self.registry.handle(ShutDown(reason, deadline_ms)))

    def publish(self, kind: str, record: Any, time: float, category: str) -> None:
        if self._closed:
            return
        for outbox in self.hub.publish(kind, record, time, category):
            self._couriers[id(outbox)].notice()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        if self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening.fileno())
            self._listening.close()
        for connection in list(self._connections.values()):
            connection.close()
        await self._last_telemetry()

    # --------------------------------------------------------------------------------------------------------- connections

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            try:
                connected, _address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._loop.remove_reader(self._listening.fileno())
                if error.errno in _SCARCE:
                    self._pause = self._clock.call_later(ACCEPT_PAUSE, self._accept_again)
                return
            if len(self._connections) >= MAX_CONNECTIONS:
                connected.close()
                continue
            connected.setblocking(False)
            if connected.family in (socket.AF_INET, socket.AF_INET6):
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._accepted += 1
            self._connections[self._accepted] = Connection(self._accepted, connected, self, self._loop)

    def _accept_again(self) -> None:
        self._pause = None
        if not self._closed:
            self._loop.add_reader(self._listening.fileno(), self._accept)

    def open_exchange(self, caller: int, head: Head) -> Exchange:
        """For connections: what the head of a request begins."""
        return (
            open_runtime(self, caller, head)
            or open_extension(self, caller, head)
            or open_facility(self, caller, head, self._facilities)
            or not_found(self, caller)
        )

    def lost(self, connection: Connection) -> None:
        """For connections: one is closed."""
        del self._connections[connection.number]
        event = Lost(connection.number)
        self.runtime.handle(event)
        self.registry.handle(event)

    def crowded(self) -> bool:
        """For connections: whether they hold too much together."""
        return sum(connection.held_bytes for connection in self._connections.values()) > MAX_HELD

    # -------------------------------------------------------------------------------------------------------- for the routes

    def answer(self, caller: int, status: int, body: bytes, headers: Headers = (), content_type: str = "application/json") -> None:
        connection = self._connections.get(caller)
        if connection is not None:
            connection.answer(status, body, headers, content_type)

    def carry_out(self, instructions: Iterable[Instruction]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Answer):
                self.answer(instruction.caller, instruction.status, instruction.body, instruction.headers)
            elif self._closed:
                continue
            elif isinstance(instruction, TellFrames):
                if instruction.frames[0].type == FrameType.RESPONSE_END:
                    self.resume()  # what comes next is not the response
                self._listener.on_runtime_frames(instruction.frames)
            elif isinstance(instruction, TellReady):
                self._listener.on_extensions_ready()
            elif isinstance(instruction, TellRegistered):
                self._listener.on_registered(instruction.event)
            elif isinstance(instruction, TellFailed):
                self._listener.on_extension_failed(instruction.event)

    def subscribed(self, name: str, types: tuple[str, ...], outbox: Outbox | None, replaced: list[Outbox]) -> None:
        for former in replaced:
            courier = self._couriers.pop(id(former))
            task = self._loop.create_task(courier.close())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        if outbox is None or self._open_socket is None:
            return
        courier = self._couriers[id(outbox)] = Courier(outbox, self._clock, self._open_socket)
        courier.notice()
        if not self._closed:
            self._listener.on_subscribed(name, types, outbox.subscription.api)

    # ------------------------------------------------------------------------------------------------------------- the end

    async def _last_telemetry(self) -> None:
        """What is there goes out if it goes at once."""
        for courier in self._couriers.values():
            courier.flush()
        under_way = [courier.under_way for courier in self._couriers.values() if courier.under_way is not None]
        if under_way:
            limit = self._loop.create_task(self._clock.sleep(LAST_WORDS))
            delivered = self._loop.create_task(_all(under_way))
            await asyncio.wait((limit, delivered), return_when=asyncio.FIRST_COMPLETED)
            limit.cancel()
            await asyncio.gather(*(courier.close() for courier in self._couriers.values()))
            await asyncio.gather(limit, delivered, return_exceptions=True)
        else:
            await asyncio.gather(*(courier.close() for courier in self._couriers.values()))
        self._couriers.clear()
        if self._leaving:
            await asyncio.wait(self._leaving)


async def _all(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)
