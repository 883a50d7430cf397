"""What goes into queues and comes out: send, receive, delete, change visibility.

A message is durable before its sender hears of it, and leaves the store only when somebody deletes it, when it has been received too often
(it goes to the dead-letter queue in the same commit that takes it off here) or when its retention ends. A receiver that waits is woken
by the sender, by a delay that ends, or by a lease that ends; an idle queue costs nothing.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from lambent.clock import Clock
from lambent.errors import ClientFault
from lambent.queues import faults
from lambent.queues import messages as wire
from lambent.queues.bell import Bell
from lambent.queues.directory import Directory
from lambent.queues.duplicates import Duplicates, duplicate_key
from lambent.queues.messages import Attributes, Body
from lambent.queues.queue import Queue
from lambent.store.contract import Acknowledge, Counts, Enqueue, Extend, Message, Mutation, Store, StoreConflict

_GLANCE_S = 0.5  # how often an ordered queue that holds back what is due is looked at


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message as its sender gives it."""

    text: str
    sender: str
    delay: int | None = None  # seconds; the queue's own where ``None``
    attributes: Attributes = field(default_factory=dict)
    trace: str = ""
    group: str = ""
    deduplication: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """What its sender is told. ``position`` is 0 where it is not known any more."""

    message_id: str
    position: int


@dataclass(frozen=True, slots=True)
class Received:
    """A message in somebody's hands until its visibility timeout ends."""

    body: Body
    receipt: str  # in the store
    position: int
    attempt: int
    first_received: float  # epoch seconds


class Mailbox:
    """The messages of all queues."""

    def __init__(self, store: Store, directory: Directory, duplicates: Duplicates, clock: Clock) -> None:
        self._store = store
        self._directory = directory
        self._duplicates = duplicates
        self._clock = clock
        self.bell = Bell(clock)
        self.at: Callable[[str], None] = lambda name: None  # told the names of points on the way, for tests that end the process there

    # -- in --------------------------------------------------------------------------------------------------------------------

    async def send(self, queue: Queue, outgoing: Sequence[Outgoing]) -> list[Sent | ClientFault]:
        """Durable when this returns. An entry that is refused harms no other."""
        results: list[Sent | ClientFault | None] = [None] * len(outgoing)
        accepted: list[tuple[int, Outgoing, Body, str]] = []
        claimed: dict[str, str] = {}
        for index, given in enumerate(outgoing):
            try:
                each = self._checked(queue, given)
            except ClientFault as fault:
                results[index] = fault
                continue
            key = duplicate_key(queue, each.group, each.deduplication) if queue.is_fifo else ""
            known = self._duplicates.seen(key) if key else None
            if known is not None or key in claimed:
                results[index] = Sent(known.message_id, known.position) if known is not None else Sent(claimed[key], 0)
                continue
            body = self._body(each)
            if key:
                claimed[key] = body.message_id
            accepted.append((index, each, body, key))
        if accepted:
            for index, sent in await self._commit(queue, accepted):
                results[index] = sent
        if queue.is_fifo:
            await self._duplicates.forget_old()
        return [result for result in results if result is not None]

    def _checked(self, queue: Queue, each: Outgoing) -> Outgoing:
        wire.check(each.text, each.attributes, queue.number("MaximumMessageSize"))
        if each.delay is not None and not 0 <= each.delay <= 900:
            text = f"Value {each.delay} for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900."
            raise faults.invalid_value(text)
        if each.group:
            wire.check_group("MessageGroupId", each.group)
        if not queue.is_fifo:
            if each.deduplication:
                text = "The request includes a parameter that is not valid for this queue type."
                raise faults.invalid_value(f"Value {each.deduplication} for parameter MessageDeduplicationId is invalid. Reason: {text}")
            return each
        if each.delay is not None:
            text = "The request include parameter that is not valid for this queue type."
            raise faults.invalid_value(f"Value {each.delay} for parameter DelaySeconds is invalid. Reason: {text}")
        if not each.group:
            raise faults.missing("The request must contain the parameter MessageGroupId.")
        if each.deduplication:
            wire.check_group("MessageDeduplicationId", each.deduplication)
            return each
        if queue.attribute("ContentBasedDeduplication") != "true":
            text = "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"
            raise faults.invalid_value(text)
        return replace(each, deduplication=hashlib.sha256(each.text.encode()).hexdigest())

    def _body(self, each: Outgoing) -> Body:
        sent = int(self._clock.now() * 1000)
        return Body(str(uuid.uuid4()), each.text, each.sender, sent, each.attributes, each.trace, each.group, each.deduplication)

    async def _commit(self, queue: Queue, accepted: Sequence[tuple[int, Outgoing, Body, str]]) -> list[tuple[int, Sent]]:
        mutations: list[Mutation] = []
        now = self._clock.now()
        for _, each, body, key in accepted:
            delay = queue.number("DelaySeconds") if each.delay is None else each.delay
            group = each.group if queue.is_fifo else ""
            mutations.append(Enqueue(queue.store_name, body.encode(), now + delay if delay else 0.0, group))
            if key:
                mutations.append(self._duplicates.claim(key, body.message_id))
        try:
            numbers = await self._store.commit(*mutations)
        except StoreConflict:
            return await self._commit_one_by_one(queue, accepted)
        self.at("send:committed")
        positions = numbers[::2] if queue.is_fifo else numbers
        for (_, _, body, key), position in zip(accepted, positions, strict=True):
            if key:
                self._duplicates.accepted(key, body.message_id, position)
        self.bell.ring(queue.store_name, len(accepted))
        return [(index, Sent(body.message_id, position)) for (index, _, body, _), position in zip(accepted, positions, strict=True)]

    async def _commit_one_by_one(self, queue: Queue, accepted: Sequence[tuple[int, Outgoing, Body, str]]) -> list[tuple[int, Sent]]:
        """Somebody else has just sent a message with the same deduplication id."""
        results: list[tuple[int, Sent]] = []
        for entry in accepted:
            index, _, body, key = entry
            known = self._duplicates.seen(key)
            if known is not None:
                results.append((index, Sent(known.message_id, known.position)))
            elif len(accepted) > 1:
                results += await self._commit(queue, [entry])
            else:  # the other is committed but has not been told yet
                results.append((index, Sent(await self._duplicates.look_up(key) or body.message_id, 0)))
        return results

    # -- out -------------------------------------------------------------------------------------------------------------------

    async def receive(self, queue: Queue, limit: int, visibility: float, wait: float) -> list[Received]:
        """Up to ``limit`` messages, hidden from others for ``visibility`` seconds; waits up to ``wait`` seconds for the first."""
        end = self._clock.monotonic() + wait
        while True:
            since = self.bell.count(queue.store_name)
            received = await self._take(queue, limit, visibility)
            left = end - self._clock.monotonic()
            if received or left <= 0:
                return received
            current = self._directory.current(queue)
            if current is None:
                raise faults.no_such_queue()
            queue = current
            await self.bell.wait(queue.store_name, min(left, await self._until_due(queue)), since)

    async def ready(self, queue: Queue, since: int) -> None:
        """Until there may be something to receive that was not there when ``bell.count`` gave ``since``. Raises ``ClientFault``."""
        current = self._directory.current(queue)
        if current is None:
            raise faults.no_such_queue()
        await self.bell.wait(queue.store_name, await self._until_due(current), since)

    async def _until_due(self, queue: Queue) -> float:
        """Seconds until it is worth looking again though nobody rings."""
        due = await self._store.due(queue.store_name)
        if due is None:
            return float("inf")
        return max(due - self._clock.now(), _GLANCE_S if queue.is_fifo else 0.001)

    async def _take(self, queue: Queue, limit: int, visibility: float) -> list[Received]:
        """One lease. Messages that are too old or were received too often are dealt with on the way, and others taken for them."""
        while True:
            now = self._clock.now()
            held = await self._store.lease(queue.store_name, limit, now, visibility, ordered=queue.is_fifo)
            received: list[Received] = []
            settled: list[Mutation] = []
            for message in held:
                self._sort(queue, message, now, received, settled)
            if settled:
                await self._store.commit(*settled)
                self.at("dead:committed")
                for mutation in settled:
                    if isinstance(mutation, Enqueue):
                        self.bell.ring(mutation.queue)
            if received or not held:
                return received

    def _sort(self, queue: Queue, message: Message, now: float, received: list[Received], settled: list[Mutation]) -> None:
        body = wire.decode(message.body)
        if body.sent_ms / 1000 + queue.number("MessageRetentionPeriod") <= now:
            settled.append(Acknowledge(queue.store_name, message.receipt))
            return
        redrive = queue.redrive
        target = self._directory.by_arn(redrive.target) if redrive is not None and message.attempt > redrive.after else None
        if target is not None:
            dead = replace(body, source=queue.arn)
            settled += [Acknowledge(queue.store_name, message.receipt), Enqueue(target.store_name, dead.encode(), 0.0, message.group)]
            return
        position = int(message.receipt.partition(".")[0])
        received.append(Received(body, message.receipt, position, message.attempt, message.first_leased_at))

    async def counts(self, queue: Queue) -> Counts:
        """How many may be received, are in flight, are delayed."""
        return await self._store.counts(queue.store_name, self._clock.now())

    async def delete(self, queue: Queue, receipts: Sequence[str]) -> None:
        """Durable when this returns. A receipt that is not the latest does nothing, as at AWS."""
        await self._store.commit(*[Acknowledge(queue.store_name, receipt) for receipt in receipts])
        if queue.is_fifo:
            self.bell.ring(queue.store_name)  # the next of its group may be had now

    async def change_visibility(self, queue: Queue, receipts: Sequence[tuple[str, float]]) -> list[bool]:
        """Let each lease end ``seconds`` from now; which of them still lasted."""
        now = self._clock.now()
        changes = [Extend(queue.store_name, receipt, now + seconds) for receipt, seconds in receipts]
        held = [bool(number) for number in await self._store.commit(*changes)]
        if any(seconds == 0 for _, seconds in receipts):
            self.bell.ring(queue.store_name, len(receipts))
        return held
