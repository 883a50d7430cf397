"""The one entrance to the data plane: every kind of caller hands an ``Invocation`` to ``FrontDoor.invoke`` or ``invoke_stream``.

Resolve, check the event, take a permit, submit, wait. Up to the permit everything can be refused and nothing has happened; from
``submit`` on the invocation runs to its end and is answered exactly once, whether or not the caller still waits. The permit goes
back when the answer is there, not when somebody reads it.

The version is resolved again if the caller had to wait for its permit or its check: what runs is what was current when it was
submitted, and a stale version never gets a new environment.
"""

from __future__ import annotations

import asyncio
from functools import partial

from lambent.clock import Clock
from lambent.errors import ClientFault, invalid_parameter
from lambent.function_version import FunctionVersion
from lambent.invoke import payload as payloads
from lambent.invoke import trace
from lambent.invoke.admission import Assigner
from lambent.invoke.fittings import StoryRecorder
from lambent.invoke.invocation import Invocation, InvocationResult
from lambent.invoke.job import Job, Reply
from lambent.invoke.pools import Pools
from lambent.invoke.recursion import Recursion
from lambent.invoke.registry import Registry
from lambent.invoke.response_stream import InvocationStream, Pace
from lambent.settings import Limits


class FrontDoor:
    """Raises ``ClientFault`` (not found, not active, no JSON, too large, throttled) and ``PlatformFault``.

    A fault of the function is a result, no exception.
    """

    def __init__(
        self,
        registry: Registry,
        pools: Pools,
        assigner: Assigner,
        clock: Clock,
        limits: Limits,
        story: StoryRecorder,
        recursion: Recursion | None = None,
    ) -> None:
        self._registry = registry
        self._pools = pools
        self._assigner = assigner
        self._clock = clock
        self._story = story
        self._limit = limits.sync_payload
        self._small = min(payloads.LARGE, self._limit)  # what is looked at on the spot
        self._sampler = trace.Sampler()
        self._recursion = recursion or Recursion()
        self._pace = Pace(limits.stream_burst, limits.stream_rate)

    async def invoke(self, call: Invocation) -> InvocationResult:
        """Run ``call`` and wait for its answer. An empty payload means ``{}``. Cancelling the wait cancels nothing else."""
        answer = Reply(loop=asyncio.get_running_loop())
        await self._submit(call, answer, None)
        return await answer

    async def invoke_stream(self, call: Invocation) -> InvocationStream:
        """Run ``call``; give its response at its first sign. The stream must be read to its end, or abandoned; neither ends the run."""
        answer: asyncio.Future[InvocationResult] = asyncio.get_running_loop().create_future()
        stream = InvocationStream(answer, self._clock, self._pace)
        try:
            await self._submit(call, answer, stream)
            await stream.begun()
        except BaseException:
            stream.abandon()
            raise
        return stream

    async def _submit(self, call: Invocation, answer: asyncio.Future[InvocationResult], stream: InvocationStream | None) -> None:
        version = self._registry.resolve(call.target)
        if version.tenant_isolation is not bool(call.tenant):
            raise _tenant_fault(version)
        event = call.payload
        if event and len(event) <= self._small:
            payloads.check_json(event)
        elif event:
            await self._check(event)
        permit = await self._assigner.acquire(version, call.rated)
        try:
            version = self._registry.resolve(call.target)
            now = self._clock.now()
            self._story.record(call.request_id, "accepted", call.cause, version.arn.name, now)
            decide = partial(self._sampler.decide, version.arn, now) if version.tracing == "Active" else None
            traced = self._recursion.extend(trace.complete(call.trace, now, decide), version.arn)
            if stream is not None:
                stream.executed_version, stream.trace = version.version, traced
            self._pools.submit(Job(call, version, call.payload or b"{}", traced, permit, answer, 0, stream))
        except BaseException:
            permit.release()
            raise

    async def dry_run(self, call: Invocation) -> None:
        """All the checks that ``invoke`` makes, and nothing runs."""
        version = self._registry.resolve(call.target)
        if version.tenant_isolation is not bool(call.tenant):
            raise _tenant_fault(version)
        if call.payload:
            await self._check(call.payload)

    async def _check(self, event: bytes) -> None:
        payloads.check_size(event, self._limit)
        await payloads.check(event)


def _tenant_fault(version: FunctionVersion) -> ClientFault:
    """A tenant is missing, or named where there are none (contract 02 §1)."""
    if version.tenant_isolation:
        return invalid_parameter(
            "The invoked function is enabled with tenancy configuration. Add a valid tenant ID in your request and try again."
        )
    return invalid_parameter("The function is not configured for tenant isolation; a tenant id is not allowed.")
