"""All of asynchronous invocation in one place to hold: the queue of events, the deliveries, and the desk at which people look at both."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from lambent.arn import FunctionArn
from lambent.clock import Clock
from lambent.invoke.async_event import (
    DEAD,
    DELIVERIES,
    EVENTS,
    AsyncEvent,
    DeadLetter,
    Delivery,
    decode_dead,
    decode_delivery,
    decode_event,
    lane_of,
)
from lambent.invoke.async_queue import AsyncQueue, Door, Functions
from lambent.invoke.destination_record import timestamp
from lambent.invoke.destinations import Deliveries
from lambent.invoke.fittings import StoryRecorder
from lambent.invoke.invocation import Invocation
from lambent.invoke.lanes import Point, Spawn
from lambent.queues.directory import Directory
from lambent.queues.mailbox import Mailbox
from lambent.settings import Settings
from lambent.store.contract import Acknowledge, Enqueue, Mutation, Peek, Requeue, Store

_SHOWN = 50  # of each kind
_SHOWN_BYTES = 200  # of an event
_REDRIVEN = 100  # in one commit
_REDRIVE_S = 60.0
_DAY = 86_400.0

ASYNC_POINTS = (
    "event:accepting",  # checked, not durable: may be lost, since nobody was told
    "event:accepted",  # durable, and nobody was told
    "event:leased",
    "run:begun",
    "run:ended",  # the function has answered; a death here runs it again
    "event:finishing",
    "event:finished",  # gone, to be retried, or turned into deliveries or a dead letter
    "event:released",  # at the start of the next process, once for each function with events
    "delivery:leased",
    "delivery:sending",
    "delivery:sent",  # the other side has it; a death here sends it again
    "delivery:finishing",
    "delivery:finished",
    "delivery:released",
    "redrive:leased",
    "redrive:committed",
)
"""The named points of the way of an event, in its order: what ``at`` is told. Tests end the process at each."""


class AsyncHouse:
    """``start`` once all functions are known; at the end ``stop``, then close the pools, then ``drained``."""

    def __init__(
        self,
        store: Store,
        functions: Functions,
        door: Door,
        directory: Directory,
        mailbox: Mailbox,
        clock: Clock,
        story: StoryRecorder,
        settings: Settings,
        spawn: Spawn,
        own_url: str = "",
        own_key: tuple[str, str] = ("", ""),
        at: Point = lambda name: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._story = story
        self._days = settings.async_events.dead_days
        self._at = at
        self._redriving = asyncio.Lock()
        self.deliveries = Deliveries(store, directory, mailbox, clock, story, settings, spawn, own_url, own_key, at, functions.recursion)
        self.queue = AsyncQueue(store, functions, door, self.deliveries, clock, story, settings, spawn, at)
        self.deliveries.accept = self.queue.accept

    async def start(self) -> None:
        """Take up what an earlier process left."""
        await self.deliveries.start()
        await self.queue.start()

    def stop(self) -> None:
        """Begin nothing new."""
        self.queue.stop()
        self.deliveries.stop()

    async def drained(self) -> None:
        """Until all that runs has ended."""
        await self.queue.drained()
        await self.deliveries.drained()

    async def accept(self, call: Invocation) -> str:
        """See ``AsyncQueue.accept``."""
        return await self.queue.accept(call)

    # -- the desk --------------------------------------------------------------------------------------------------------------

    async def show(self, function: FunctionArn) -> dict[str, Any]:
        """What is queued, running, to be retried, on its way to a destination, and dead; the oldest of each."""
        name, now = lane_of(function), self._clock.now()
        counts = await self._store.counts(EVENTS + name, now)
        events = [_show_event(each, now) for each in await self._store.peek(EVENTS + name, _SHOWN)]
        deliveries = [_show_delivery(each) for each in await self._store.peek(DELIVERIES + name, _SHOWN)]
        dead = [_show_dead(each) for each in await self._store.peek(DEAD + name, _SHOWN)]
        return {
            "function": str(function.unqualified),
            "counts": {
                "queued": counts.visible,
                "running": counts.leased,
                "retrying": counts.delayed,
                "delivering": await self._store.depth(DELIVERIES + name),
                "dead": await self._store.depth(DEAD + name),
            },
            "failedDeliveries": dict(self.deliveries.failed),
            "events": [*events, *deliveries, *dead],
        }

    async def redrive(self, function: FunctionArn, request_ids: Sequence[str] = ()) -> int:
        """Give dead letters (all, or those of ``request_ids``) another chance, as if they had just come. How many it were."""
        name = lane_of(function)
        async with self._redriving:  # one at a time: whoever came second might find the lease of the first at its end
            try:
                return await self._redrive(name, set(request_ids))
            finally:  # even a commit that failed for us may have been made
                self.queue.lanes.expect(name)
                self.deliveries.expect(name)

    async def _redrive(self, name: str, wanted: set[str]) -> int:
        kept: list[str] = []  # leased, and not wanted
        moved = 0
        while letters := await self._store.lease(DEAD + name, _REDRIVEN, self._clock.now(), _REDRIVE_S):
            self._at("redrive:leased")
            mutations: list[Mutation] = []
            for message in letters:
                letter = decode_dead(message.body).letter
                if wanted and letter.request_id not in wanted:
                    kept.append(message.receipt)
                    continue
                again = self._afresh(letter)
                queue = (EVENTS if isinstance(again, AsyncEvent) else DELIVERIES) + name
                mutations += [Acknowledge(DEAD + name, message.receipt), Enqueue(queue, again.encode())]
                self._story.record(letter.request_id, "event redriven", "", "", self._clock.now())
            await self._store.commit(*mutations)
            self._at("redrive:committed")
            moved += len(mutations) // 2
        await self._store.commit(*[Requeue(DEAD + name, receipt, 0.0) for receipt in kept])
        return moved

    def _afresh(self, letter: AsyncEvent | Delivery) -> AsyncEvent | Delivery:
        now = self._clock.now()
        if isinstance(letter, AsyncEvent):
            return AsyncEvent(letter.request_id, letter.target, letter.payload, now, letter.trace, letter.cause, letter.tenant)
        return Delivery(
            letter.destination, letter.request_id, letter.function, letter.body, letter.success, now, letter.trace, letter.attributes
        )

    async def expire(self) -> int:
        """Forget dead letters that have been kept long enough; how many it were."""
        gone = 0
        oldest = self._clock.now() - self._days * _DAY
        for queue in await self._store.queues(DEAD):
            while (first := await self._store.peek(queue, 1)) and first[0].enqueued_at < oldest:
                gone += await self._store.drop(queue, first[0].position)
        return gone


def _show_event(found: Peek, now: float) -> dict[str, Any]:
    event = decode_event(found.body)
    state = "running" if found.leased else "retrying" if found.visible_at > now else "queued"
    return {
        **_event(event),
        "state": state,
        "nextAt": timestamp(found.visible_at) if state == "retrying" else None,
        "detail": event.last_message,
    }


def _event(event: AsyncEvent) -> dict[str, Any]:
    return {
        "requestId": event.request_id,
        "target": str(event.target),
        "acceptedAt": timestamp(event.accepted_at),
        "invocations": event.invocations,
        "event": event.payload[:_SHOWN_BYTES].decode(errors="replace"),
    }


def _show_delivery(found: Peek) -> dict[str, Any]:
    delivery = decode_delivery(found.body)
    return {
        **_delivery(delivery),
        "state": "delivering",
        "nextAt": timestamp(found.visible_at) if delivery.attempts else None,
        "detail": "",
    }


def _delivery(delivery: Delivery) -> dict[str, Any]:
    return {
        "requestId": delivery.request_id,
        "target": delivery.destination,
        "acceptedAt": timestamp(delivery.since),
        "invocations": delivery.attempts,
        "event": delivery.body[:_SHOWN_BYTES].decode(errors="replace"),
    }


def _show_dead(found: Peek) -> dict[str, Any]:
    dead: DeadLetter = decode_dead(found.body)
    known = _event(dead.letter) if isinstance(dead.letter, AsyncEvent) else _delivery(dead.letter)
    return {**known, "state": "dead", "nextAt": None, "detail": f"{dead.reason}: {dead.detail}" if dead.detail else dead.reason}
