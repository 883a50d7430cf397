"""Asynchronous invocations: accepted once they are durable, tried until they end, never lost (contract 02 §4).

The way of an event, each arrow one commit:

    accept ──▶ queued or running ──▶ retry, later ──▶ ... ──▶ ended: gone, or a delivery to a destination, or a dead letter

``async_state.py`` decides, ``lanes.py`` carries the work, this file joins them with the front door and the settings of the function. What
an end leaves behind (deliveries to a dead-letter queue and to destinations, or the dead letter that has no other place) is enqueued by
the same commit that takes the event away, so an accepted event is always in exactly one place. A process that dies between a run and its
commit leaves the event leased, and the next process runs it again: at least once, as at AWS.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from lambent.arn import LATEST, FunctionArn
from lambent.clock import Clock
from lambent.errors import ClientFault, PlatformFault
from lambent.invoke import payload as payloads
from lambent.invoke import trace
from lambent.invoke.async_event import DEAD, DELIVERIES, EVENTS, RESPONSE_KEPT, AsyncEvent, DeadLetter, Delivery, decode_event, lane_of
from lambent.invoke.async_state import Condition, End, Outcome, Policy, Progress, Retry, Run, State, step
from lambent.invoke.destination_record import dead_letter_attributes, error_message, record
from lambent.invoke.fittings import StoryRecorder
from lambent.invoke.invocation import Invocation, InvocationResult
from lambent.invoke.lane import Held
from lambent.invoke.lanes import Lanes, Point, Spawn
from lambent.invoke.recursion import Recursion
from lambent.invoke.registry import Registry
from lambent.settings import Settings
from lambent.store.contract import Enqueue, Mutation, Store

LOG = logging.getLogger(__name__)

ConfigOf = Callable[[FunctionArn], Mapping[str, Any] | None]


class Door(Protocol):
    """The one way into the data plane."""

    async def invoke(self, call: Invocation) -> InvocationResult: ...

    async def dry_run(self, call: Invocation) -> None: ...


@dataclass(frozen=True, slots=True)
class Functions:
    """What the control plane knows of functions. ``config`` is the EventInvokeConfig of a qualifier, ``reserved`` the concurrency."""

    registry: Registry
    config: ConfigOf = lambda arn: None
    reserved: Callable[[FunctionArn], int | None] = lambda arn: None
    recursion: Recursion = field(default_factory=Recursion)


class Onward(Protocol):
    """Where results go from here."""

    def expect(self, name: str) -> None: ...


class AsyncQueue:
    """``start`` once all functions are known; ``stop``, then close the pools, then ``drained``."""

    def __init__(
        self,
        store: Store,
        functions: Functions,
        door: Door,
        deliveries: Onward,
        clock: Clock,
        story: StoryRecorder,
        settings: Settings,
        spawn: Spawn,
        at: Point = lambda name: None,
    ) -> None:
        self._functions = functions
        self._door = door
        self._deliveries = deliveries
        self._clock = clock
        self._story = story
        self._most = settings.limits.async_payload
        self._settings = settings.async_events
        self._sampler = trace.Sampler()
        self._at = at
        self.lanes = Lanes(store, clock, spawn, EVENTS, self._carry_out, settings.async_events, lambda moment: at(f"event:{moment}"))

    async def start(self) -> None:
        await self.lanes.start()

    def stop(self) -> None:
        self.lanes.stop()

    async def drained(self) -> None:
        await self.lanes.drained()

    # -- in --------------------------------------------------------------------------------------------------------------------

    async def accept(self, call: Invocation) -> str:
        """Durable when this returns; gives the trace header. Raises ``ClientFault`` (404, 409, 413, 400) and ``StoreUnavailable``."""
        version = self._functions.registry.resolve(call.target)
        payloads.check_size(call.payload, self._most, "Event")
        await self._door.dry_run(call)
        now = self._clock.now()
        decide = partial(self._sampler.decide, version.arn, now) if version.tracing == "Active" else None
        traced = trace.complete(call.trace, now, decide)
        cause = "" if call.cause == call.request_id else call.cause
        event = AsyncEvent(call.request_id, call.target, call.payload, now, traced, cause, call.tenant)
        self._story.record(call.request_id, "event received", call.cause, call.target.name, now)
        await self.lanes.put(lane_of(call.target), event.encode(), event)
        return traced

    # -- one try ---------------------------------------------------------------------------------------------------------------

    async def _carry_out(self, held: Held) -> bool:
        event: AsyncEvent = held.item or decode_event(held.body)
        config = self._functions.config(event.target) or {}
        policy = self._policy(config)
        progress = Progress(event.accepted_at, State.QUEUED, event.invocations, event.failures, event.setbacks)
        progress, verdict = step(progress, Outcome.TAKEN, self._clock.now(), policy)
        outcome = Outcome.TAKEN
        if isinstance(verdict, Run):
            self._at("run:begun")
            outcome, event = await self._try(event)
            if self.lanes.closing and outcome is Outcome.SYSTEM_ERROR:
                return True  # the node ends: still leased, it is tried again by the next
            progress, verdict = step(progress, outcome, self._clock.now(), policy)
            self._at("run:ended")
        event = replace(event, invocations=progress.invocations, failures=progress.failures, setbacks=progress.setbacks)
        if isinstance(verdict, Retry):
            await self._retry(held, event, verdict.at, outcome)
        elif isinstance(verdict, End):
            await self._end(held, event, verdict.condition, config)
        return outcome in (Outcome.THROTTLED, Outcome.SYSTEM_ERROR)

    async def _try(self, event: AsyncEvent) -> tuple[Outcome, AsyncEvent]:
        """Run it, unless that is ruled out."""
        if self._functions.reserved(event.target.unqualified) == 0:
            return Outcome.NO_CONCURRENCY, replace(event, last_code=429, last_message="Rate Exceeded.")
        call = Invocation(
            event.target,
            event.payload,
            event.request_id,
            trace=event.trace,
            tenant=event.tenant,
            cause=event.cause or event.request_id,
            rated=False,
        )
        try:
            result = await self._door.invoke(call)
        except ClientFault as fault:
            return _refusal(fault), replace(event, last_code=fault.status, last_message=fault.message)
        except PlatformFault as fault:
            return Outcome.SYSTEM_ERROR, replace(event, last_code=500, last_message=fault.message)
        if result.function_error is None:
            return Outcome.SUCCEEDED, replace(event, version=result.executed_version, response=result.payload, onward=result.trace)
        response = result.payload if len(result.payload) <= RESPONSE_KEPT else None
        message = error_message(result.payload)
        event = replace(event, version=result.executed_version, response=response, onward=result.trace)
        return Outcome.FUNCTION_ERROR, replace(event, last_code=200, last_message=message)

    def _policy(self, config: Mapping[str, Any]) -> Policy:
        given = self._settings
        retries, age = config.get("MaximumRetryAttempts"), config.get("MaximumEventAgeInSeconds")
        return Policy(
            retries=2 if retries is None else retries,
            age=given.age if age is None else age,
            waits=given.retry_waits,
            backoff_first=given.backoff_first,
            backoff_most=given.backoff_most,
        )

    # -- what comes of it ----------------------------------------------------------------------------------------------------------

    async def _retry(self, held: Held, event: AsyncEvent, at: float, outcome: Outcome) -> None:
        now = self._clock.now()
        self._story.record(event.request_id, "event to be retried", "", f"{outcome.value}; in {at - now:.1f} s", now)
        await self.lanes.finish(held, Enqueue(held.lane.queue, event.encode(), at))
        self.lanes.expect(held.lane.name, at)

    async def _end(self, held: Held, event: AsyncEvent, condition: Condition, config: Mapping[str, Any]) -> None:
        now = self._clock.now()
        name = held.lane.name
        deliveries = self._results(event, condition, config, now)
        mutations: list[Mutation] = [Enqueue(DELIVERIES + name, each.encode()) for each in deliveries]
        if not deliveries and condition is not Condition.SUCCESS:
            letter = DeadLetter(replace(event, response=None), condition.value, event.last_message, now)
            mutations.append(Enqueue(DEAD + name, letter.encode()))
            LOG.warning("%s: event %s is dropped: %s", event.target, event.request_id, condition.value)
        self._story.record(event.request_id, "event ended", "", condition.value, now)
        await self.lanes.finish(held, *mutations)
        if deliveries:
            self._deliveries.expect(name)

    def _results(self, event: AsyncEvent, condition: Condition, config: Mapping[str, Any], now: float) -> list[Delivery]:
        """Who is to be told: the destination of the qualifier as invoked, the dead-letter queue of the version that ran."""
        success = condition is Condition.SUCCESS
        side = config.get("DestinationConfig", {}).get("OnSuccess" if success else "OnFailure") or {}
        onward = event.onward or event.trace
        told = []
        if not success and (dead_letters := self._dead_letters(event)):
            attributes = dead_letter_attributes(event)
            told.append(
                Delivery(dead_letters, event.request_id, event.target, event.payload or b"{}", False, now, onward, attributes=attributes)
            )
        if destination := side.get("Destination"):
            body = record(event, condition, now, destination.split(":")[2])
            told.append(Delivery(destination, event.request_id, event.target, body, success, now, onward))
        return told

    def _dead_letters(self, event: AsyncEvent) -> str:
        """The ARN of the dead-letter queue, or ""."""
        qualifier = event.version or event.target.qualifier or LATEST
        try:
            return self._functions.registry.resolve(event.target.qualified(qualifier)).dead_letters
        except ClientFault:
            return ""


def _refusal(fault: ClientFault) -> Outcome:
    if fault.code == "RecursiveInvocationException":
        return Outcome.RECURSION
    if fault.status == 429:
        return Outcome.THROTTLED
    if fault.status == 404:
        return Outcome.GONE
    if fault.status == 409 or fault.status >= 500:
        return Outcome.SYSTEM_ERROR
    return Outcome.REFUSED
