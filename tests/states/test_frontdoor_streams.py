"""Streams, HTTP runtimes and extensions, from the front door to the (fake) sandbox and back, on a manual clock."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import uvloop
from test_frontdoor import ARN, ID, House, spec_for

from lambent.errors import PlatformFault, SandboxFault
from lambent.function_version import FunctionVersion
from lambent.invoke.frontdoor import FrontDoor
from lambent.invoke.inside import EXTERNAL_SECONDS, INTERNAL_SECONDS
from lambent.invoke.invocation import Invocation
from lambent.invoke.pools import Pools
from lambent.invoke.response_stream import HIGH, InvocationStream
from lambent.runtime_api.frames import FrameType
from lambent.sandbox.driver import Program, SandboxExit, SandboxSpec
from lambent.settings import Limits, Settings
from lambent.testing.fake_runtime_api import FakeApis, FakeRuntimeApi
from lambent.testing.fake_sandbox import FakeInvocation, FakeRuntime, settle

MB = 2**20


class Station(House):
    """A house whose sandboxes may have APIs inside; the handler's name says what else they have."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        settings = settings or Settings()
        self.apis = FakeApis()
        self.pools = Pools(self.registry, self.driver, self.clock, self.logs, self.story, self.spec_for, settings, open_api=self.apis)
        self.door = FrontDoor(self.registry, self.pools, self.assigner, self.clock, settings.limits, self.story)
        self.program: Program | None = None
        self.extensions: tuple[str, ...] = ()

    def spec_for(self, version: FunctionVersion, environment_id: str, log_stream: str) -> SandboxSpec:
        return replace(spec_for(version, environment_id, log_stream), program=self.program, extensions=self.extensions)

    def stream(self, event: bytes = b"{}", **members: object) -> asyncio.Task[InvocationStream]:
        self._count += 1
        call = Invocation(**{"target": ARN, "payload": event, "request_id": ID.format(self._count), **members})  # type: ignore[arg-type]
        return asyncio.get_running_loop().create_task(self.door.invoke_stream(call))

    async def streaming(self, **members: object) -> tuple[InvocationStream, FakeRuntime, FakeInvocation]:
        """A stream that has begun, on a runtime that is the test's."""
        self.deploy("held")
        wanted = self.stream(**members)
        await settle()
        runtime = self.sandbox.runtime
        invocation = runtime.invocations[-1]
        runtime.stream(invocation)
        return await wanted, runtime, invocation

    @property
    def api(self) -> FakeRuntimeApi:
        return self.apis.opened[-1]


def play(story: Callable[[Station], Awaitable[None]], settings: Settings | None = None) -> None:
    async def run() -> None:
        house = Station(settings)
        await story(house)
        closing = asyncio.get_running_loop().create_task(house.pools.close(drain=10.0))
        await settle()
        await house.advance(14.0, step=1.0)
        await closing
        assert house.driver.alive == []
        assert house.pools.environments() == []
        assert house.assigner.in_flight == 0
        assert house.clock.pending() == 0
        assert all(api.closed for api in house.apis.opened)

    uvloop.run(asyncio.wait_for(run(), 30))  # a guard only: nothing here waits for real time


async def all_of(stream: InvocationStream) -> bytes:
    return b"".join([piece async for piece in stream])


def pump(runtime: FakeRuntime, invocation: FakeInvocation, size: int, piece: int = 65_536) -> Callable[[], int]:
    """Write ``size`` bytes in chunks as the socket takes them, then end; gives how many are out."""
    left = [size]

    def more() -> None:
        if not runtime.room():
            runtime.soon(more)
        elif left[0] <= 0:
            runtime.end_stream(invocation)
        else:
            runtime.chunk(invocation, b"x" * min(piece, left[0]))
            left[0] -= piece
            runtime.soon(more)

    more()
    return lambda: size - max(left[0], 0)


class TestStreams:
    def test_pieces_arrive_while_the_function_runs(self):
        async def story(house: Station) -> None:
            stream, runtime, invocation = await house.streaming()
            assert stream.content_type == "text/plain"
            assert stream.executed_version == "$LATEST"
            assert stream.trace.startswith("Root=1-")
            runtime.chunk(invocation, b"one")
            assert await stream.__anext__() == b"one"
            assert house.states() == ["streaming"]
            runtime.chunk(invocation, b"two")
            runtime.chunk(invocation, b"three")
            runtime.end_stream(invocation)
            assert await all_of(stream) == b"twothree"
            assert stream.result.function_error is None
            assert house.states() == ["idle"]

        play(story)

    def test_a_buffered_function_gives_its_answer_and_the_end(self):
        async def story(house: Station) -> None:
            house.deploy("large")
            stream = await house.stream(b"3000000")
            pieces = [len(piece) async for piece in stream]
            assert (sum(pieces), max(pieces)) == (3_000_000, MB)
            assert stream.result.function_error is None

        play(story)

    def test_a_streaming_function_gives_a_buffered_caller_its_whole_answer(self):
        async def story(house: Station) -> None:
            house.deploy("held")
            call = house.call()
            await settle()
            runtime, invocation = house.sandbox.runtime, house.sandbox.runtime.invocations[0]
            runtime.stream(invocation, "text/html")
            runtime.chunk(invocation, b"a" * 10)
            runtime.chunk(invocation, b"b" * 10)
            await settle()
            assert not call.done()
            runtime.end_stream(invocation)
            result = await call
            assert (result.payload, result.content_type, result.function_error) == (b"a" * 10 + b"b" * 10, "text/html", None)

        play(story)

    @pytest.mark.parametrize(("script", "error_type"), [("error", "ValueError"), ("crash", "Runtime.ExitError")])
    def test_a_fault_of_the_function_is_the_end_of_a_stream_without_pieces(self, script, error_type):
        async def story(house: Station) -> None:
            house.deploy(script)
            stream = await house.stream()
            assert await all_of(stream) == b""
            assert (stream.result.function_error, stream.result.error_type) == ("Unhandled", error_type)
            assert json.loads(stream.result.payload)["errorType"] == error_type

        play(story)

    def test_a_fault_of_the_platform_before_the_stream_is_raised(self):
        async def story(house: Station) -> None:
            house.driver.failures.append(SandboxFault("no cgroup"))
            house.deploy("echo")
            with pytest.raises(PlatformFault, match="no cgroup"):
                await house.stream()

        play(story)

    def test_the_deadline_covers_the_whole_stream(self):
        async def story(house: Station) -> None:
            stream, runtime, invocation = await house.streaming(want_log=True)
            runtime.chunk(invocation, b"one")
            await house.advance(3.5)
            assert await all_of(stream) == b"one"
            assert stream.result.error_type == "Sandbox.Timedout"
            assert b"Task timed out after 3.00 seconds" in stream.result.log_tail

        play(story)

    def test_what_a_runtime_said_before_it_died_arrives(self):
        async def story(house: Station) -> None:
            stream, runtime, invocation = await house.streaming()
            runtime.chunk(invocation, b"last words")
            runtime.exit(1)
            assert await all_of(stream) == b"last words"
            assert stream.result.error_type == "Runtime.ExitError"

        play(story)

    def test_the_node_goes_down_in_the_middle(self):
        async def story(house: Station) -> None:
            house.deploy("held", timeout_s=900)
            wanted = house.stream()
            await settle()
            runtime = house.sandbox.runtime
            runtime.stream(runtime.invocations[0])
            stream = await wanted
            closing = asyncio.get_running_loop().create_task(house.pools.close(drain=10.0))
            await settle()
            await house.advance(11.0)
            await closing
            with pytest.raises(PlatformFault, match="shutting down"):
                await all_of(stream)

        play(story)


class TestBrakes:
    def test_a_caller_that_does_not_read_stops_the_function_and_not_for_ever(self):
        async def story(house: Station) -> None:
            stream, runtime, invocation = await house.streaming()
            written = pump(runtime, invocation, 5 * MB)
            await settle(400)
            stuck = written()
            assert stuck < 5 * MB / 2
            assert stream._held <= HIGH + 262_144
            await settle(400)
            assert written() == stuck
            assert len(await all_of(stream)) == 5 * MB
            assert stream.result.function_error is None
            await settle()
            assert house.states() == ["idle"]

        play(story)

    def test_after_the_burst_bytes_come_at_the_rate(self):
        async def story(house: Station) -> None:
            stream, runtime, invocation = await house.streaming()
            total = 0

            async def read() -> None:
                nonlocal total
                async for piece in stream:
                    total += len(piece)

            reader = asyncio.get_running_loop().create_task(read())
            pump(runtime, invocation, 4 * MB)
            await settle(1000)
            assert MB <= total <= 1.2 * MB
            before = total
            for _ in range(10):
                house.clock.advance(0.1)
                await settle(200)
            assert 0.7 * MB <= total - before <= 1.3 * MB
            for _ in range(19):
                house.clock.advance(0.1)
                await settle(200)
            assert total < 4 * MB
            for _ in range(5):
                house.clock.advance(0.1)
                await settle(200)
            assert total == 4 * MB
            await reader
            assert stream.result.function_error is None

        play(story, Settings(limits=Limits(stream_burst=MB, stream_rate=MB)))

    def test_without_a_rate_nothing_waits(self):
        async def story(house: Station) -> None:
            stream, runtime, invocation = await house.streaming()
            pump(runtime, invocation, 9 * MB)
            assert len(await all_of(stream)) == 9 * MB

        play(story, Settings(limits=Limits(stream_burst=0, stream_rate=0)))

    def test_a_caller_that_leaves_stops_nothing(self):
        async def story(house: Station) -> None:
            stream, runtime, invocation = await house.streaming()
            written = pump(runtime, invocation, 5 * MB)
            await settle(400)
            assert written() < 5 * MB
            stream.abandon()
            await settle(2000)
            assert written() == 5 * MB
            assert house.states() == ["idle"]
            assert stream._held == 0

        play(story, Settings(limits=Limits(stream_burst=MB)))

    def test_nor_one_that_leaves_before_the_first_sign(self):
        async def story(house: Station) -> None:
            house.deploy("held")
            wanted = house.stream()
            await settle()
            wanted.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await wanted
            runtime = house.sandbox.runtime
            runtime.stream(runtime.invocations[0])
            pump(runtime, runtime.invocations[0], MB)
            await settle(400)
            assert house.states() == ["idle"]

        play(story)

    def test_the_longest_stream(self):
        async def story(house: Station) -> None:
            stream, runtime, invocation = await house.streaming()
            pump(runtime, invocation, 2 * MB)
            assert len(await all_of(stream)) == MB
            assert stream.result.error_type == "Function.ResponseSizeTooLarge"
            await settle(400)
            assert house.states() == ["idle"]

        play(story, Settings(limits=Limits(streamed_payload=MB)))


class TestRuntimesOverHttp:
    def test_an_invocation(self):
        async def story(house: Station) -> None:
            house.program = Program(("/var/task/bootstrap",), transport="http")
            house.deploy("idle", tenant_isolation=True)
            call = house.call(b'{"n": 1}', tenant="t", client_context='{"a":1}')
            await settle()
            api = house.api
            assert (api.identity.function_name, api.identity.handler, api.identity.account_id) == ("f", "idle", "000000000000")
            api.next()
            (event,) = api.invocations
            assert (event.payload, event.tenant, event.client_context, api.to_runtime) == (b'{"n": 1}', "t", '{"a":1}', [True])
            assert event.invoked_arn == str(ARN)
            assert api.init_over
            api.respond(event, b"[1]")
            api.next()
            assert (await call).payload == b"[1]"
            assert house.states() == ["idle"]

        play(story)

    def test_a_stream_and_its_brakes(self):
        async def story(house: Station) -> None:
            house.program = Program(("/var/task/bootstrap",), transport="http")
            house.deploy("idle")
            wanted = house.stream()
            await settle()
            api = house.api
            api.next()
            token, request_id = api.invocations[0].token, api.invocations[0].request_id
            api.say(FrameType.RESPONSE_START, f"{token}\n{request_id}\n")
            stream = await wanted
            api.say(FrameType.CHUNK, str(token), bytes(HIGH + 1))
            assert api.paused
            assert len(await stream.__anext__()) == HIGH + 1
            assert not api.paused
            api.say(FrameType.RESPONSE_END, f"{token}\n{request_id}\nRuntime.Odd", b"{}")
            api.next()
            assert await all_of(stream) == b""
            assert stream.result.error_type == "Runtime.Odd"

        play(story)

    def test_a_runtime_that_hangs_up_while_idle_is_replaced(self):
        async def story(house: Station) -> None:
            house.program = Program(("/var/task/bootstrap",), transport="http")
            house.deploy("idle")
            first = house.call()
            await settle()
            house.api.next()
            house.api.respond(house.api.invocations[0], b"1")
            house.api.next()
            await first
            house.api.deaf = True
            second = house.call()
            await settle()
            assert len(house.driver.sandboxes) == 2
            house.api.next()
            house.api.respond(house.api.invocations[0], b"2")
            house.api.next()
            assert (await second).payload == b"2"

        play(story)

    def test_one_with_a_channel_has_no_business_there(self):
        async def story(house: Station) -> None:
            house.extensions = ("/opt/extensions/one",)
            house.deploy("held")
            call = house.call()
            await settle()
            house.api.register("one", "SHUTDOWN")
            house.api.ready()
            await settle()
            house.api.respond(house.api.invocations[0], b"forged")
            result = await call
            assert result.error_type == "Runtime.Unknown"
            house.sandbox.on_extension_exit("one", SandboxExit(0, None))

        play(story)


class TestExtensions:
    async def ready(self, house: Station, *events: str, handler: str = "echo") -> FakeRuntimeApi:
        house.extensions = ("/opt/extensions/one",)
        house.deploy(handler)
        call = house.call(b"0")
        await settle()
        api = house.api
        assert not api.init_over
        api.register("one", *events)
        api.ready()
        await settle()
        assert api.init_over
        if "INVOKE" in events:
            assert (await call).payload == b"0"
            assert house.states() == ["lingering"]
            api.ready()
        await house.advance(0.01)
        await call
        assert house.states() == ["idle"]
        return api

    def test_the_caller_does_not_wait_for_them_and_the_report_does(self):
        async def story(house: Station) -> None:
            api = await self.ready(house, "INVOKE", "SHUTDOWN")
            assert "EXTENSION\tName: one\tState: Ready\tEvents: [INVOKE, SHUTDOWN]\n" in house.logs.text()
            quick, slow = house.call(b"1"), house.call(b"2", want_log=True)
            await settle()
            assert (await quick).payload == b"1"
            assert (api.invocations[-1].payload, api.to_runtime) == (b"1", [False, False])
            other = house.api
            other.register("one", "INVOKE")
            other.ready()
            await settle()
            assert not slow.done()  # it wants the log, so it waits for the report
            house.clock.advance(0.5)
            other.ready()
            result = await slow
            assert b"Duration: 500.00 ms" in result.log_tail
            api.ready()
            await settle()

        play(story)

    @pytest.mark.parametrize(("code", "words"), [(0, "exit code 0"), (3, "exit status 3")])
    def test_one_that_ends_takes_the_environment_with_it(self, code, words):
        async def story(house: Station) -> None:
            await self.ready(house, "SHUTDOWN", handler="slow")
            call = house.call(b"2")
            await settle()
            house.sandbox.on_extension_exit("one", SandboxExit(code, None))
            result = await call
            assert json.loads(result.payload)["errorMessage"].endswith(f"Error: {words}")
            assert result.error_type == "Extension.Crash"

        play(story)

    @pytest.mark.parametrize(
        ("code", "words", "short"), [(127, "no such file or directory", "UnknownError"), (126, "permission denied", "PermissionDenied")]
    )
    def test_one_that_cannot_be_started(self, code, words, short):
        async def story(house: Station) -> None:
            house.extensions = ("/opt/extensions/one",)
            house.deploy("echo")
            call = house.call()
            await settle()
            house.sandbox.on_extension_exit("one", SandboxExit(code, None))
            await settle()
            house.sandbox.on_extension_exit("one", SandboxExit(code, None))  # the second attempt
            result = await call
            assert result.error_type == "Extension.LaunchError"
            assert json.loads(result.payload)["errorMessage"].endswith(f"fork/exec /opt/extensions/one: {words}")
            assert f"EXTENSION\tName: one\tState: LaunchError\tEvents: []\tError Type: {short}\n" in house.logs.text()

        play(story)

    def test_more_than_ten(self):
        async def story(house: Station) -> None:
            house.extensions = tuple(f"/opt/extensions/e{number:02}" for number in range(11))
            house.deploy("echo")
            result = await house.call()
            assert result.error_type == "Extension.LaunchError"
            assert json.loads(result.payload)["errorMessage"].endswith(" Error: ErrTooManyExtensions")
            assert "EXTENSION\tName: e10\tState: LaunchError\tEvents: []\tError Type: TooManyExtensions\n" in house.logs.text()

        play(story)

    def test_one_that_never_registers_uses_up_the_init_and_then_the_functions_time(self):
        async def story(house: Station) -> None:
            house.extensions = ("/opt/extensions/one",)
            house.deploy("echo")
            call = house.call()
            await settle()
            assert house.states() == ["settling"]
            await house.advance(10.5)
            assert house.states() == ["resettling"]
            await house.advance(3.5)
            assert (await call).error_type == "Sandbox.Timedout"

        play(story)

    def test_shutdown_gives_the_runtime_a_part_and_then_tells_them(self):
        async def story(house: Station) -> None:
            api = await self.ready(house, "SHUTDOWN")
            sandbox, at = house.sandbox, house.clock.now()
            house.deploy("echo", code_sha256="cd")  # the old one is not wanted any more
            await settle()
            assert sandbox.terminated
            assert api.shutdowns == [("spindown", int((at + EXTERNAL_SECONDS) * 1000))]
            assert not sandbox.killed  # the extension is still busy
            sandbox.on_extension_exit("one", SandboxExit(0, None))
            await settle()
            assert sandbox.killed
            assert api.closed

        play(story)

    def test_and_does_not_wait_for_ever(self):
        async def story(house: Station) -> None:
            api = await self.ready(house, "SHUTDOWN")
            sandbox = house.sandbox
            sandbox.terminate = lambda: None  # it ignores the signal
            house.deploy("echo", code_sha256="cd")
            await settle()
            assert api.shutdowns == []
            await house.advance(0.7, step=0.1)
            assert len(api.shutdowns) == 1
            assert not sandbox.killed
            await house.advance(1.4, step=0.1)
            assert sandbox.killed

        play(story)

    def test_internal_ones_get_less(self):
        async def story(house: Station) -> None:
            house.program = Program(("x",))
            house.deploy("idle")
            house.call()
            await settle()
            sandbox = house.sandbox
            assert house.apis.opened == []
            _, writer = await asyncio.open_connection(*sandbox.api_address)
            await settle()
            assert len(house.apis.opened) == 1, "the first connection opens the API"
            writer.close()
            house.api.register("inner", "INVOKE")
            house.api.ready()
            sandbox.terminate = lambda: None
            house.deploy("echo", code_sha256="cd")
            sandbox.runtime.next()
            await settle()
            sandbox.runtime.respond(sandbox.runtime.invocations[0], b"1")
            await settle()
            house.api.ready()
            await house.advance(INTERNAL_SECONDS - 0.1, step=0.1)
            assert not sandbox.killed
            await house.advance(0.2, step=0.1)
            assert sandbox.killed

        play(story)
