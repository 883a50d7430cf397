"""The data plane from the front door to the (fake) sandbox and back, on a manual clock."""

from __future__ import annotations

import asyncio
import gc
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import uvloop

from lambent.arn import FunctionArn
from lambent.errors import ClientFault, PlatformFault, SandboxFault
from lambent.function_version import FunctionVersion
from lambent.invoke import log_pump, payload, trace
from lambent.invoke.admission import LocalAssigner
from lambent.invoke.frontdoor import FrontDoor
from lambent.invoke.invocation import Invocation, InvocationResult
from lambent.invoke.pools import Pools
from lambent.invoke.registry import Registry
from lambent.observe.story import Story
from lambent.runtime_api.frames import FrameType, encode
from lambent.sandbox.driver import SandboxExit, SandboxSpec
from lambent.settings import Limits, Settings
from lambent.testing.clock import ManualClock
from lambent.testing.fake_logs import FakeLogs
from lambent.testing.fake_sandbox import FakeDriver, FakeSandbox, settle

ARN = FunctionArn("us-east-1", "000000000000", "f")
ID = "11111111-2222-4333-8444-{:012d}"


class House:
    """A data plane on fakes."""

    def __init__(self, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        self.clock = ManualClock()
        self.driver = FakeDriver(self.clock)
        self.logs = FakeLogs()
        self.story = Story()
        self.registry = Registry()
        self.pools = Pools(self.registry, self.driver, self.clock, self.logs, self.story, spec_for, settings)
        self.assigner = LocalAssigner(settings.limits.concurrent_executions)
        self.door = FrontDoor(self.registry, self.pools, self.assigner, self.clock, settings.limits, self.story)
        self._count = 0

    def deploy(self, handler: str, **changes: object) -> None:
        """A function whose runtime follows the script called ``handler``."""
        self.registry.put(replace(FunctionVersion(ARN, "$LATEST", "python3.12", handler, "ab", "/code"), **changes))

    def call(self, event: bytes = b"{}", **members: object) -> asyncio.Task[InvocationResult]:
        self._count += 1
        call = Invocation(**{"target": ARN, "payload": event, "request_id": ID.format(self._count), **members})  # type: ignore[arg-type]
        return asyncio.get_running_loop().create_task(self.door.invoke(call))

    async def advance(self, seconds: float, step: float = 0.5) -> None:
        """Time goes on, and the loop turns with it."""
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            await settle()

    @property
    def sandbox(self) -> FakeSandbox:
        return self.driver.sandboxes[-1]

    def states(self) -> list[str]:
        return sorted(info.state for info in self.pools.environments())


def spec_for(version: FunctionVersion, environment_id: str, log_stream: str) -> SandboxSpec:
    environment = {"AWS_LAMBDA_LOG_STREAM_NAME": log_stream}
    return SandboxSpec(
        environment_id, version.runtime, version.handler, version.code_dir, version.memory_mb, version.ephemeral_mb, environment
    )


def play(story: Callable[[House], Awaitable[None]], settings: Settings | None = None) -> None:
    """Run ``story`` in a house, close it, and see that nothing is left behind."""

    async def run() -> None:
        house = House(settings)
        await story(house)
        closing = asyncio.get_running_loop().create_task(house.pools.close(drain=10.0))
        await settle()
        await house.advance(11.0, step=11.0)
        await closing
        assert house.driver.alive == []
        assert house.pools.environments() == []
        assert house.assigner.in_flight == 0
        assert house.clock.pending() == 0

    uvloop.run(asyncio.wait_for(run(), 30))  # a guard only: nothing here waits for real time
    gc.collect()


def error_of(result: InvocationResult) -> dict[str, str]:
    assert result.function_error == "Unhandled"
    return json.loads(result.payload)


class TestWarmAndCold:
    def test_a_cold_and_a_warm_invocation(self):
        async def story(house: House) -> None:
            house.deploy("echo")
            first = await house.call(b'{"n": 1}')
            second = await house.call(b'{"n": 2}')
            assert (first.payload, second.payload) == (b'{"n": 1}', b'{"n": 2}')
            assert first.function_error is None
            assert first.executed_version == "$LATEST"
            assert len(house.driver.sandboxes) == 1
            (info,) = house.pools.environments()
            assert (info.state, info.invocations, info.function, info.version) == ("idle", 2, str(ARN), "$LATEST")
            assert info.memory_bytes == 36 * 2**20

        play(story)

    def test_what_the_runtime_sees(self):
        async def story(house: House) -> None:
            house.deploy("echo", version="7", timeout_s=5, tenant_isolation=True)
            target = ARN.qualified("7")
            result = await house.call(b"", target=target, client_context='{"a":\n1}', tenant="t1", trace="Root=1-00000001-" + "a" * 24)
            (seen,) = house.sandbox.runtime.invocations
            assert (seen.event, seen.arn, seen.tenant, seen.client_context) == (b"{}", str(target), "t1", '{"a":\n1}')
            assert seen.request_id == ID.format(1)
            assert seen.deadline_ms == int((house.clock.now() + 5) * 1000)
            assert seen.trace == result.trace
            assert result.trace.startswith("Root=1-00000001-" + "a" * 24 + ";Parent=")
            assert re.search(r";Sampled=0;Lineage=[0-9a-f]{8}:1$", result.trace)
            assert result.executed_version == "7"

        play(story)

    def test_tenants_never_share_an_environment(self):
        async def story(house: House) -> None:
            house.deploy("echo", tenant_isolation=True)
            await house.call(tenant="a")
            await house.call(tenant="b")
            await house.call(tenant="a")
            assert len(house.driver.sandboxes) == 2

        play(story)

    def test_concurrent_invocations_get_one_environment_each_and_the_newest_is_used_first(self):
        async def story(house: House) -> None:
            house.deploy("held")
            calls = [house.call() for _ in range(3)]
            await settle()
            assert len(house.driver.sandboxes) == 3
            for sandbox, call in zip(house.driver.sandboxes, calls, strict=True):
                house.clock.advance(0.01)
                sandbox.runtime.respond(sandbox.runtime.invocations[0], b"1")
                await call
            again = house.call()
            await settle()
            newest = house.driver.sandboxes[2].runtime
            assert len(newest.invocations) == 2
            newest.respond(newest.invocations[1], b"2")
            assert (await again).payload == b"2"

        play(story)

    def test_a_large_event_and_a_large_answer(self):
        async def story(house: House) -> None:
            house.deploy("echo")
            event = json.dumps({"x": "y" * 5_000_000}).encode()
            assert (await house.call(event)).payload == event

        play(story)

    def test_a_caller_that_goes_away_cancels_nothing(self):
        async def story(house: House) -> None:
            house.deploy("slow")
            call = house.call(b"2")
            await settle()
            call.cancel()
            await settle()
            assert house.assigner.in_flight == 1
            assert house.states() == ["busy"]
            await house.advance(2.5)
            assert house.assigner.in_flight == 0
            assert "END RequestId" in house.logs.text()
            assert house.states() in (["idle"], ["frozen"])

        play(story)


class TestIdling:
    def test_idle_environments_freeze_late_and_thaw_on_lease(self):
        async def story(house: House) -> None:
            house.deploy("echo")
            await house.call()
            await house.advance(0.04, step=0.04)
            assert house.states() == ["idle"]
            await house.advance(0.07, step=0.07)
            assert house.states() == ["frozen"]
            assert house.sandbox.frozen
            await house.call()
            assert not house.sandbox.frozen
            assert house.sandbox.freezes == 1

        play(story)

    def test_and_are_reaped_in_the_end(self):
        async def story(house: House) -> None:
            house.deploy("echo")
            await house.call()
            await house.advance(660.0, step=10.0)
            assert house.pools.environments() == []
            assert house.sandbox.killed
            await house.call()
            assert len(house.driver.sandboxes) == 2

        play(story)

    def test_a_new_version_replaces_what_is_idle_at_once_and_what_is_busy_when_it_ends(self):
        async def story(house: House) -> None:
            house.deploy("held")
            old = [house.call(), house.call()]
            await settle()
            busy, idle = house.driver.sandboxes
            idle.runtime.respond(idle.runtime.invocations[0], b'"old"')
            await old[1]
            house.deploy("echo", code_sha256="cd")
            await settle()
            assert idle.killed
            assert not busy.killed
            assert (await house.call(b'"new"')).payload == b'"new"'
            busy.runtime.respond(busy.runtime.invocations[0], b'"old"')
            assert (await old[0]).payload == b'"old"'
            await settle()
            assert busy.killed

        play(story)

    def test_a_change_that_is_undone_makes_new_environments(self):
        async def story(house: House) -> None:
            house.deploy("held")
            call = house.call()
            await settle()
            house.deploy("echo")
            house.deploy("held")
            again = house.call()
            await settle()
            assert len(house.driver.sandboxes) == 2
            for sandbox in house.driver.sandboxes:
                sandbox.runtime.respond(sandbox.runtime.invocations[0], b"1")
            await call
            await again

        play(story)


class TestFaultsOfTheFunction:
    def test_an_exception(self):
        async def story(house: House) -> None:
            house.deploy("error")
            result = await house.call()
            assert error_of(result)["errorType"] == "ValueError"
            assert "Status:" not in house.logs.text()
            await house.call()
            assert len(house.driver.sandboxes) == 1

        play(story)

    def test_timeout(self):
        async def story(house: House) -> None:
            house.deploy("slow", timeout_s=3)
            call = house.call(b"60")
            await settle()
            await house.advance(3.5)
            result = await call
            assert result.payload == (
                b'{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: '
                + ID.format(1).encode()
                + b' Error: Task timed out after 3.00 seconds"}'
            )
            text = house.logs.text()
            assert f"2026-01-01T00:00:03.000Z {ID.format(1)} Task timed out after 3.00 seconds\n\n" in text
            assert "Duration: 3000.00 ms\tBilled Duration: 3000 ms" in text
            assert text.endswith("\tStatus: timeout\n")
            await settle()
            assert house.sandbox.killed
            again = house.call(b"1")
            await settle()
            await house.advance(1.5)
            assert (await again).payload == b'"slept"'

        play(story)

    @pytest.mark.parametrize(
        ("script", "error_type", "words"),
        [
            ("crash", "Runtime.ExitError", "Runtime exited with error: exit status 1"),
            ("oom", "Runtime.OutOfMemory", "Runtime exited with error: signal: killed"),
            ("forge", "Runtime.Unknown", "an answer to an invocation that it was not given"),
            ("garbage", "Runtime.Unknown", "frame type 255"),
        ],
    )
    def test_death_and_violation_cost_the_environment(self, script, error_type, words):
        async def story(house: House) -> None:
            house.deploy(script)
            error = error_of(await house.call())
            assert error["errorType"] == error_type
            assert error["errorMessage"].startswith(f"RequestId: {ID.format(1)} Error: ")
            assert words in error["errorMessage"]
            assert f"\tStatus: error\tError Type: {error_type}\n" in house.logs.text()
            await settle()
            assert house.driver.alive == []
            house.deploy("echo")
            assert (await house.call(b"1")).payload == b"1"

        play(story)

    def test_a_closed_channel_of_a_living_process(self):
        async def story(house: House) -> None:
            house.deploy("hang_up")
            call = house.call()
            await settle()
            assert not call.done()
            await house.advance(1.5)
            assert "closed its channel" in error_of(await call)["errorMessage"]

        play(story)

    def test_the_second_of_two_answers_is_refused(self):
        async def story(house: House) -> None:
            house.deploy("twice")
            assert (await house.call()).payload == b'"first"'
            await settle()
            assert house.sandbox.killed
            assert (await house.call()).payload == b'"first"'
            assert len(house.driver.sandboxes) == 2

        play(story)

    def test_a_late_answer_never_reaches_the_next_caller(self):
        async def story(house: House) -> None:
            house.deploy("held")
            first = house.call()
            await settle()
            runtime = house.sandbox.runtime
            runtime.respond(runtime.invocations[0], b'"mine"')
            assert (await first).payload == b'"mine"'
            second = house.call()
            await settle()
            runtime.send(encode(FrameType.RESPONSE, f"1\n{ID.format(1)}\n", b'"stale"') + encode(FrameType.NEXT))
            assert "an invocation that is over" in error_of(await second)["errorMessage"]

        play(story)

    def test_an_answer_before_the_exit_stands(self):
        async def story(house: House) -> None:
            house.deploy("last_words")
            result = await house.call(want_log=True)
            assert (result.payload, result.function_error) == (b'"done"', None)
            assert b"bye\n" in result.log_tail
            await settle()
            assert house.driver.alive == []

        play(story)

    def test_a_response_over_the_cap(self):
        async def story(house: House) -> None:
            house.deploy("large")
            assert error_of(await house.call(b"6291557"))["errorType"] == "Function.ResponseSizeTooLarge"
            assert len((await house.call(b"6291556")).payload) == 6_291_556
            assert len(house.driver.sandboxes) == 1

        play(story)


class TestInit:
    def test_a_failing_init_runs_again_inside_the_invocation_and_its_error_is_the_answer(self):
        async def story(house: House) -> None:
            house.deploy("init_error")
            result = await house.call(want_log=True)
            assert error_of(result)["errorType"] == "Runtime.ImportModuleError"
            assert len(house.driver.sandboxes) == 2
            assert {sandbox.id for sandbox in house.driver.sandboxes} == {house.sandbox.id}
            reports = [line for line in house.logs.text().splitlines() if line.startswith("INIT_REPORT")]
            ending = "Status: error\tError Type: Runtime.ImportModuleError"
            assert [line.split("\t", 1)[1] for line in reports] == [f"Phase: init\t{ending}", f"Phase: invoke\t{ending}"]
            assert result.log_tail.startswith(b"START RequestId: ")
            assert b"[ERROR] Runtime.ImportModuleError\n" in result.log_tail

        play(story)

    def test_a_crash_in_init(self):
        async def story(house: House) -> None:
            house.deploy("init_crash")
            assert "exit status 3" in error_of(await house.call())["errorMessage"]

        play(story)

    def test_an_init_that_takes_too_long_gets_the_functions_time(self):
        async def story(house: House) -> None:
            house.deploy("init_slow", timeout_s=15)
            call = house.call(b"1")
            await settle()
            await house.advance(10.0)
            assert "INIT_REPORT Init Duration: 10000.00 ms\tPhase: init\tStatus: timeout\n" in house.logs.text()
            assert not call.done()
            await house.advance(13.0)
            result = await call
            assert result.payload == b"1"
            assert result.billed_ms >= 12_000
            assert "Init Duration: " not in house.logs.text().partition("REPORT RequestId")[2]

        play(story)

    def test_or_not_enough_of_it(self):
        async def story(house: House) -> None:
            house.deploy("init_slow", timeout_s=3)
            call = house.call(b"1")
            await settle()
            await house.advance(14.0)
            assert "Task timed out after 3.00 seconds" in error_of(await call)["errorMessage"]
            assert "Phase: invoke\tStatus: timeout\n" in house.logs.text()

        play(story)

    def test_a_driver_that_cannot_is_our_fault_with_a_story(self):
        async def story(house: House) -> None:
            house.deploy("echo")
            house.driver.failures.append(SandboxFault("no cgroup to be had", "the story"))
            with pytest.raises(PlatformFault, match="no cgroup to be had") as caught:
                await house.call()
            assert caught.value.story == "the story"
            assert (await house.call(b"1")).payload == b"1"

        play(story)

    def test_death_while_idle_is_nobodys_error(self):
        """The end of the process and the next invocation race: the hand-over fails, so the job goes to a fresh environment."""

        async def story(house: House) -> None:
            house.deploy("echo")
            await house.call()
            house.sandbox.runtime.close()  # the kernel has closed the socket; the news of the exit is still on its way
            assert (await house.call(b"2")).payload == b"2"
            assert len(house.driver.sandboxes) == 2

        play(story)


class TestLogs:
    def test_the_lines_of_an_invocation_in_order(self):
        async def story(house: House) -> None:
            house.deploy("chatty", memory_mb=256)
            result = await house.call(want_log=True)
            (stream,) = house.logs.streams
            (info,) = house.pools.environments()
            assert (stream.group, stream.name) == ("/aws/lambda/f", f"2026/01/01/[$LATEST]{info.id}")
            assert info.log_stream == stream.name == house.sandbox.spec.environment["AWS_LAMBDA_LOG_STREAM_NAME"]
            request = ID.format(1)
            expected = [
                f"START RequestId: {request} Version: $LATEST\n",
                "hello\n",
                "world\n",
                f"END RequestId: {request}\n",
                f"REPORT RequestId: {request}\tDuration: 0.00 ms\tBilled Duration: 0 ms\tMemory Size: 256 MB\tMax Memory Used: 36 MB"
                "\tInit Duration: 0.00 ms\t\n",
            ]
            lines = [line for _, line in house.logs.streams[stream]]
            assert lines[0].startswith("INIT_START Runtime Version: python:3.12\tRuntime Version ARN: arn:aws:lambda:us-east-1::runtime:")
            assert lines[1:] == expected
            assert result.log_tail == "".join(expected).encode()

        play(story)

    def test_init_is_billed_and_reported_once(self):
        async def story(house: House) -> None:
            house.deploy("idle")
            call = house.call()
            await settle()
            runtime = house.sandbox.runtime
            await house.advance(0.25, step=0.25)
            runtime.next()
            await settle()
            await house.advance(0.125, step=0.125)
            runtime.respond(runtime.invocations[0], b"1")
            result = await call
            assert result.billed_ms == 375
            assert result.spans == {"duration_ms": pytest.approx(125.0), "init_ms": pytest.approx(250.0)}
            assert "Duration: 125.00 ms\tBilled Duration: 375 ms" in house.logs.text()
            assert "Init Duration: 250.00 ms" in house.logs.text()

        play(story)

    def test_a_long_invocation_shows_its_start_before_it_ends(self):
        async def story(house: House) -> None:
            house.deploy("held", timeout_s=900)
            call = house.call()
            await settle()
            assert "START" not in house.logs.text().replace("INIT_START", "")
            await house.advance(0.2, step=0.2)
            assert "START RequestId" in house.logs.text()
            runtime = house.sandbox.runtime
            runtime.respond(runtime.invocations[0], b"1")
            await call

        play(story)

    def test_a_warm_silent_invocation_is_one_write(self):
        async def story(house: House) -> None:
            house.deploy("echo")
            await house.call()
            before = house.logs.writes
            await house.call()
            assert house.logs.writes == before + 1

        play(story)

    def test_endless_output_is_read_no_faster_than_its_rate_and_ends_with_the_timeout(self):
        async def story(house: House) -> None:
            house.deploy("flood", timeout_s=3)
            call = house.call(want_log=True)
            await settle(3_000)
            burst = len(house.logs.text())
            assert burst <= log_pump.BURST + 2 * log_pump.CHUNK
            await settle(500)
            assert len(house.logs.text()) == burst  # the pipe is full, and the function blocks
            await house.advance(3.5)
            result = await call
            assert error_of(result)["errorType"] == "Sandbox.Timedout"
            assert len(result.log_tail) == 4_096
            assert "\tStatus: timeout\n" in result.log_tail.decode()
            assert len(house.logs.text()) <= log_pump.BURST + 4 * log_pump.RATE

        play(story)

    def test_a_custom_group_names_the_function_in_the_stream(self):
        async def story(house: House) -> None:
            house.deploy("echo", log_group="/mine")
            await house.call()
            (stream,) = house.logs.streams
            assert stream.group == "/mine"
            assert stream.name.startswith("2026/01/01/f[$LATEST]")

        play(story)


class TestRefusals:
    def refused(self, house: House, event: bytes) -> Awaitable[ClientFault]:
        async def look() -> ClientFault:
            with pytest.raises(ClientFault) as caught:
                await house.call(event)
            return caught.value

        return look()

    @pytest.mark.parametrize(
        "event",
        [
            b"{",
            b"nope",
            b'{"a":1}}',
            b'"\x87"',
            b"NaN",
            b"[1,Infinity]",
            b" ",
            b"[" * 60_000,
            b'{"a":' * 50_000,
            b'["\xff"' + b" " * 70_000 + b"]",
        ],
    )
    def test_what_is_no_json(self, event):
        async def story(house: House) -> None:
            house.deploy("echo")
            fault = await self.refused(house, event)
            assert (fault.code, fault.status) == ("InvalidRequestContentException", 400)
            assert fault.message.startswith("Could not parse request body into json: Could not parse payload into json: ")
            assert house.driver.sandboxes == []

        play(story)

    @pytest.mark.parametrize(
        "event", [b"null", b" [1, 2.5e3] ", b'"\xc3\xa4"', b"9" * 5_000, b"[" + b"9" * 70_000 + b"]", b'"' + b"x" * 70_000 + b'"']
    )
    def test_what_is(self, event):
        payload.check_json(event)

    @pytest.mark.parametrize(
        ("isolated", "tenant", "message"),
        [
            (
                True,
                "",
                "The invoked function is enabled with tenancy configuration. Add a valid tenant ID in your request and try again.",
            ),
            (False, "t", "The function is not configured for tenant isolation; a tenant id is not allowed."),
        ],
    )
    def test_tenants_belong_to_functions_that_isolate_them(self, isolated, tenant, message):
        async def story(house: House) -> None:
            house.deploy("echo", tenant_isolation=isolated)
            for refused in (house.call(tenant=tenant), house.door.dry_run(Invocation(ARN, b"{}", ID.format(99), tenant=tenant))):
                with pytest.raises(ClientFault, match="InvalidParameterValueException") as caught:
                    await refused
                assert caught.value.message == message
            assert house.driver.sandboxes == []

        play(story)

    def test_too_large(self):
        async def story(house: House) -> None:
            house.deploy("echo")
            fault = await self.refused(house, b'"' + b"x" * 6_291_456 + b'"')
            assert (fault.code, fault.status) == ("RequestTooLargeException", 413)
            assert fault.message == ("6291458 byte payload is too large for the RequestResponse invocation type (limit 6291456 bytes)")

        play(story)

    def test_throttled_at_the_accounts_limit(self):
        async def story(house: House) -> None:
            house.deploy("held")
            calls = [house.call(), house.call()]
            await settle()
            fault = await self.refused(house, b"{}")
            assert (fault.code, fault.status, fault.message) == ("TooManyRequestsException", 429, "Rate Exceeded.")
            assert fault.extra == {"Reason": "ConcurrentInvocationLimitExceeded"}
            for sandbox, call in zip(house.driver.sandboxes, calls, strict=True):
                sandbox.runtime.respond(sandbox.runtime.invocations[0], b"1")
                await call
            house.deploy("echo")
            await house.call()

        play(story, Settings(limits=Limits(concurrent_executions=2)))

    def test_throttled_at_the_functions_own_limit(self):
        async def story(house: House) -> None:
            house.deploy("echo")
            house.assigner.reserve(ARN, 0)
            fault = await self.refused(house, b"{}")
            assert fault.extra == {"Reason": "ReservedFunctionConcurrentInvocationLimitExceeded"}
            house.assigner.reserve(ARN, None)
            await house.call()

        play(story)

    def test_dry_run_checks_and_runs_nothing(self):
        async def story(house: House) -> None:
            house.deploy("echo")
            await house.door.dry_run(Invocation(ARN, b"{}", ID.format(1)))
            with pytest.raises(ClientFault, match="Could not parse"):
                await house.door.dry_run(Invocation(ARN, b"{", ID.format(2)))
            with pytest.raises(ClientFault, match=r"Function not found: .*:g:\$LATEST"):
                await house.door.dry_run(Invocation(replace(ARN, name="g"), b"{}", ID.format(3)))
            assert house.driver.sandboxes == []

        play(story)


class TestClosing:
    def test_running_invocations_end_and_nothing_new_begins(self):
        async def story(house: House) -> None:
            house.deploy("slow", timeout_s=60)
            call = house.call(b"4")
            await settle()
            closing = asyncio.get_running_loop().create_task(house.pools.close(drain=10.0))
            await settle()
            with pytest.raises(PlatformFault, match="shutting down"):
                await house.call()
            assert not closing.done()
            await house.advance(4.5)
            assert (await call).payload == b'"slept"'
            await closing
            assert house.driver.alive == []

        play(story)

    def test_but_not_for_ever(self):
        async def story(house: House) -> None:
            house.deploy("held", timeout_s=900)
            running = house.call()
            await settle()
            house.driver.gate = asyncio.Event()
            waiting = house.call()
            await settle()
            closing = asyncio.get_running_loop().create_task(house.pools.close(drain=10.0))
            await settle()
            await house.advance(10.5)
            for call in (running, waiting):
                with pytest.raises(PlatformFault, match="shutting down"):
                    await call
            house.driver.gate.set()  # a sandbox that comes up after all that is killed too
            await closing

        play(story)

    def test_nor_for_a_driver_that_hangs(self):
        async def story(house: House) -> None:
            house.deploy("echo")
            house.driver.gate = asyncio.Event()  # never set
            call = house.call()
            await settle()
            closing = asyncio.get_running_loop().create_task(house.pools.close(drain=10.0))
            await settle()
            await house.advance(16.0)
            await closing
            with pytest.raises(PlatformFault, match="shutting down"):
                await call

        play(story)


class TestStories:
    def test_an_environment_and_an_invocation_can_be_told(self):
        async def story(house: House) -> None:
            house.deploy("crash")
            await house.call(cause="message-1")
            (entry,) = [entry for entry in house.story.tell(ID.format(1)) if entry.event == "accepted"]
            assert entry.cause == "message-1"
            told = [entry.event for entry in house.story.tell(ID.format(1))]
            assert told == ["accepted", "assigned", "error"]
            environment = house.story.tell(ID.format(1))[1].cause
            assert environment == house.sandbox.id
            assert [entry.event for entry in house.story.tell(environment)] == ["starting", "initialized", "busy", "reset"]
            assert house.story.tell(environment)[0].cause == ID.format(1)

        play(story)


class TestTrace:
    @pytest.mark.parametrize(
        "header",
        ["", "Root=nonsense", "Parent=zz;Sampled=7", "a;b;c", ";;;", "Root=1-00000001-" + "a" * 24 + "\nX: y", "Lineage=\x00"],
    )
    def test_whatever_comes_a_whole_header_goes_on(self, header):
        assert trace._WHOLE.fullmatch(trace.complete(header, 1_767_225_600.0))

    def test_what_is_whole_is_kept(self):
        header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=a87bd80c:1"
        assert trace.complete(header, 0.0) == header


def test_an_exit_in_the_middle_of_an_init_retry_answers_the_job():
    async def story(house: House) -> None:
        house.deploy("idle")
        call = house.call()
        await settle()
        house.sandbox.runtime.exit(2)
        await settle()
        house.sandbox.end(SandboxExit(5, None))
        assert "exit status 5" in error_of(await call)["errorMessage"]

    play(story)
