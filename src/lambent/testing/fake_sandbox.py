"""Sandboxes without processes: real sockets and pipes, and runtimes that are a few lines of Python in the same loop.

``FakeDriver`` keeps the driver contract, so whatever is built on it can be tested without root, fork or time. What a runtime does
is its *script*, chosen by the function's handler from ``SCRIPTS`` or from what the test adds. A script is a pair of plain
functions, ``init(runtime)`` and ``invoke(runtime, invocation)``, which say what the runtime does through the methods of
``FakeRuntime``; delays go by the clock that the driver was given.

``idle`` and ``held`` leave everything to the test: ``driver.sandboxes[-1].runtime`` is the runtime to speak through.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lambent.clock import Clock, Timer
from lambent.errors import SandboxFault
from lambent.runtime_api.frames import HEADER, FrameType, encode
from lambent.sandbox.driver import IsolationReport, SandboxExit, SandboxSpec
from lambent.sandbox.extension_exits import ExtensionExits


@dataclass(frozen=True, slots=True)
class FakeInvocation:
    """An INVOKE frame as the runtime sees it."""

    token: int
    request_id: str
    deadline_ms: int
    arn: str
    trace: str
    tenant: str
    cognito: str
    client_context: str
    event: bytes


class FakeRuntime:
    """The runtime's end of a sandbox: what a script can say and do."""

    def __init__(self, sandbox: FakeSandbox, peer: socket.socket, stdout: int, script: Script, clock: Clock) -> None:
        self.sandbox = sandbox
        self.invocations: list[FakeInvocation] = []
        self._peer = peer
        self._stdout = stdout
        self._script = script
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._closed = False
        self._unsent = 0
        self._timers: list[Timer] = []

    def begin(self) -> None:
        """The process is there: initialise."""
        if not self._closed:
            self._loop.add_reader(self._peer.fileno(), self._readable)
            self._script.init(self)

    def next(self) -> None:
        self.send(encode(FrameType.NEXT))

    def respond(self, invocation: FakeInvocation, body: bytes, content_type: str = "application/json") -> None:
        """Answer, and ask for the next in the same write, as the real client does."""
        head = f"{invocation.token}\n{invocation.request_id}\n{content_type}"
        self.send(encode(FrameType.RESPONSE, head, body) + encode(FrameType.NEXT))

    def error(self, invocation: FakeInvocation, error_type: str, body: bytes) -> None:
        head = f"{invocation.token}\n{invocation.request_id}\n{error_type}\n"
        self.send(encode(FrameType.ERROR, head, body) + encode(FrameType.NEXT))

    def stream(self, invocation: FakeInvocation, content_type: str = "text/plain") -> None:
        """Begin a response in chunks."""
        self.send(encode(FrameType.RESPONSE_START, f"{invocation.token}\n{invocation.request_id}\n{content_type}"))

    def chunk(self, invocation: FakeInvocation, data: bytes) -> None:
        self.send(encode(FrameType.CHUNK, str(invocation.token), data))

    def end_stream(self, invocation: FakeInvocation, error_type: str = "", body: bytes = b"") -> None:
        """End it, and ask for the next in the same write."""
        head = f"{invocation.token}\n{invocation.request_id}\n{error_type}"
        self.send(encode(FrameType.RESPONSE_END, head, body) + encode(FrameType.NEXT))

    def init_error(self, error_type: str, body: bytes) -> None:
        self.send(encode(FrameType.INIT_ERROR, error_type, body))

    def send(self, data: bytes) -> None:
        """Any bytes at all. What does not fit the socket goes out as it empties."""
        if self._closed:
            return
        try:
            sent = self._peer.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return
        self._unsent = len(data) - sent
        if self._unsent:
            self._loop.call_soon(self.send, data[sent:])

    def room(self) -> bool:
        """Whether all that was sent has left; only then may more follow."""
        return not self._unsent

    def print(self, text: str) -> int:
        """Write to stdout; gives how many bytes the pipe took."""
        try:
            return 0 if self._closed else os.write(self._stdout, text.encode())
        except BlockingIOError:
            return 0

    def later(self, delay: float, action: Callable[[], object]) -> None:
        self._timers.append(self._clock.call_later(delay, action))

    def soon(self, action: Callable[[], object]) -> None:
        """At the next turn of the loop."""
        self._loop.call_soon(lambda: None if self._closed else action())

    def exit(self, code: int | None = 0, signal: int | None = None, out_of_memory: bool = False) -> None:
        """The process ends."""
        self.close()
        self.sandbox.end(SandboxExit(code if signal is None else None, signal, out_of_memory))

    def hang_up(self) -> None:
        """Close the socket and live on."""
        self._loop.remove_reader(self._peer.fileno())
        self._peer.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            for timer in self._timers:
                timer.cancel()
            self._loop.remove_reader(self._peer.fileno())
            self._peer.close()
            os.close(self._stdout)

    def _readable(self) -> None:
        try:
            data = self._peer.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._peer.fileno())
            return
        self._received += data
        while len(self._received) >= HEADER.size and not self._closed:
            _, head_length, body_length = HEADER.unpack_from(self._received)
            end = HEADER.size + head_length + body_length
            if len(self._received) < end:
                return
            head = self._received[HEADER.size : HEADER.size + head_length].decode()
            body = bytes(self._received[HEADER.size + head_length : end])
            del self._received[:end]
            token, request_id, deadline, arn, trace, tenant, cognito, context = head.split("\n", 7)
            invocation = FakeInvocation(int(token), request_id, int(deadline), arn, trace, tenant, cognito, context, body)
            self.invocations.append(invocation)
            self._script.invoke(self, invocation)


@dataclass(frozen=True, slots=True)
class Script:
    """What a runtime does at init and with each invocation."""

    init: Callable[[FakeRuntime], object]
    invoke: Callable[[FakeRuntime, FakeInvocation], object]


class FakeSandbox(ExtensionExits):
    """Keeps the promises of ``lambent.sandbox.driver.Sandbox``, with everything that a driver may leave out."""

    def __init__(self, spec: SandboxSpec, script: Script, clock: Clock) -> None:
        super().__init__()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.logs, stdout = os.pipe()
        os.set_blocking(self.logs, False)
        os.set_blocking(stdout, False)
        self.id = spec.sandbox_id
        self.spec = spec
        self.channel = ours
        self.exited: asyncio.Future[SandboxExit] = asyncio.get_running_loop().create_future()
        self.runtime = FakeRuntime(self, theirs, stdout, script, clock)
        self.extension_logs = -1
        self.extension_output = -1  # the other end
        if spec.extensions:
            self.extension_logs, self.extension_output = os.pipe()
            os.set_blocking(self.extension_logs, False)
        self.held = spec.hold
        self.frozen = False
        self.freezes = 0
        self.killed = False
        self.memory = 36 * 2**20
        self.api_listener: socket.socket | None = None
        self.terminated = False
        if spec.extensions or spec.program is not None:
            self.api_listener = socket.create_server(("127.0.0.1", 0))
            self.api_address: tuple[str, int] = self.api_listener.getsockname()

    def terminate(self) -> None:
        """SIGTERM to the runtime, which ends of it."""
        self.terminated = True
        self.runtime.exit(None, 15)

    def freeze(self) -> None:
        if not self.killed and not self.frozen:
            self.frozen = True
            self.freezes += 1

    def thaw(self) -> None:
        self.frozen = False

    def release(self) -> None:
        if self.held:
            self.held = False
            asyncio.get_running_loop().call_soon(self.runtime.begin)

    async def open_socket(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        return made

    def memory_peak(self) -> int:
        return self.memory

    def end(self, how: SandboxExit) -> None:
        if not self.exited.done():
            self.exited.set_result(how)

    async def kill(self) -> None:
        self.killed = True
        self.runtime.close()
        if self.extension_output >= 0:
            os.close(self.extension_output)
            self.extension_output = -1
        self.end(SandboxExit(None, 9))


class FakeDriver:
    """``failures`` holds faults that the next calls of ``start`` raise, one each; ``gate``, if set, is awaited by every start."""

    def __init__(self, clock: Clock, scripts: Mapping[str, Script] | None = None) -> None:
        self.report = IsolationReport("fake", "tests want no processes")
        self.sandboxes: list[FakeSandbox] = []
        self.failures: list[SandboxFault] = []
        self.forgotten: list[str] = []  # ids
        self.gate: asyncio.Event | None = None
        self._clock = clock
        self._scripts = {**SCRIPTS, **(scripts or {})}

    @property
    def alive(self) -> list[FakeSandbox]:
        return [sandbox for sandbox in self.sandboxes if not sandbox.killed]

    async def open(self) -> None: ...

    async def close(self) -> None:
        for sandbox in self.alive:
            await sandbox.kill()

    async def prepare(self, runtime: str) -> None: ...

    def forget(self, sandbox_id: str) -> None:
        self.forgotten.append(sandbox_id)

    async def start(self, spec: SandboxSpec) -> FakeSandbox:
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        sandbox = FakeSandbox(spec, self._scripts[spec.handler], self._clock)
        self.sandboxes.append(sandbox)
        if not spec.hold:
            asyncio.get_running_loop().call_soon(sandbox.runtime.begin)
        return sandbox


# ----------------------------------------------------------------------------------------------------------------- the scripts


def _payload(error_type: str, message: str, request_id: str = "") -> bytes:
    return json.dumps({"errorMessage": message, "errorType": error_type, "requestId": request_id, "stackTrace": []}).encode()


def _init(runtime: FakeRuntime) -> None:
    runtime.next()


def _nothing(*_: object) -> None:
    return None


def _echo(runtime: FakeRuntime, invocation: FakeInvocation) -> None:
    runtime.respond(invocation, invocation.event)


def _chatty(runtime: FakeRuntime, invocation: FakeInvocation) -> None:
    runtime.print("hello\nworld\n")
    runtime.respond(invocation, invocation.event)


def _error(runtime: FakeRuntime, invocation: FakeInvocation) -> None:
    runtime.error(invocation, "ValueError", _payload("ValueError", "no", invocation.request_id))


def _slow(runtime: FakeRuntime, invocation: FakeInvocation) -> None:
    """The event is how many seconds to take."""
    runtime.later(float(invocation.event), lambda: runtime.respond(invocation, b'"slept"'))


def _flood(runtime: FakeRuntime, invocation: FakeInvocation) -> None:
    """Print without end, as fast as the pipe takes it, and never answer."""
    runtime.print("x" * 99 + "\n")
    for _ in range(200):
        if not runtime.print(("y" * 99 + "\n") * 40):
            break
    runtime.soon(lambda: _flood(runtime, invocation))


def _twice(runtime: FakeRuntime, invocation: FakeInvocation) -> None:
    runtime.respond(invocation, b'"first"')
    runtime.respond(invocation, b'"second"')


def _forge(runtime: FakeRuntime, invocation: FakeInvocation) -> None:
    head = f"{invocation.token}\nsomebody-elses-request\napplication/json"
    runtime.send(encode(FrameType.RESPONSE, head, b'"forged"') + encode(FrameType.NEXT))


def _garbage(runtime: FakeRuntime, invocation: FakeInvocation) -> None:
    runtime.send(b"\xff" * 64)


def _last_words(runtime: FakeRuntime, invocation: FakeInvocation) -> None:
    runtime.print("bye\n")
    runtime.respond(invocation, b'"done"')
    runtime.exit(0)


def _init_error(runtime: FakeRuntime) -> None:
    runtime.print("[ERROR] Runtime.ImportModuleError\n")
    runtime.init_error(
        "Runtime.ImportModuleError", _payload("Runtime.ImportModuleError", "Unable to import module 'm': No module named 'x'")
    )
    runtime.soon(lambda: runtime.exit(1))


SCRIPTS: dict[str, Script] = {
    "echo": Script(_init, _echo),
    "chatty": Script(_init, _chatty),
    "error": Script(_init, _error),
    "slow": Script(_init, _slow),
    "held": Script(_init, _nothing),
    "idle": Script(_nothing, _nothing),
    "crash": Script(_init, lambda runtime, _: runtime.exit(1)),
    "oom": Script(_init, lambda runtime, _: runtime.exit(signal=9, out_of_memory=True)),
    "flood": Script(_init, _flood),
    "twice": Script(_init, _twice),
    "forge": Script(_init, _forge),
    "garbage": Script(_init, _garbage),
    "hang_up": Script(_init, lambda runtime, _: runtime.hang_up()),
    "last_words": Script(_init, _last_words),
    "large": Script(_init, lambda runtime, invocation: runtime.respond(invocation, b"x" * int(invocation.event))),
    "init_error": Script(_init_error, _nothing),
    "init_crash": Script(lambda runtime: runtime.exit(3), _nothing),
    "init_slow": Script(lambda runtime: runtime.later(12.0, runtime.next), _echo),
}


async def settle(turns: int = 40) -> None:
    """Let the loop turn until what is under way between sockets, pipes and callbacks has arrived. No time passes on a manual clock."""
    for _ in range(turns):
        await asyncio.sleep(0)
