"""Results on their way: to dead-letter queues and to the destinations of asynchronous invocations (contract 02 §4.1, §4.2).

A delivery lies in the store until the other side has taken it, so it arrives at least once: a process that dies between the two brings
it again. What is not taken is offered again, with exponential back-off, for ``delivery_age``; then, and at once where no endpoint is set
for that service, it is kept as a dead letter of the function, counted and told in the log.

SQS and S3 are in the box, Lambda is this node itself; SNS, EventBridge and other SQS and S3 services are spoken to over HTTP through
botocore, in threads of their own.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from lambent.arn import parse_function
from lambent.clock import Clock
from lambent.errors import ClientFault, LambentError, PlatformFault
from lambent.invoke.async_event import DEAD, DELIVERIES, DeadLetter, Delivery, decode_delivery
from lambent.invoke.destination_record import s3_key, sendable_json
from lambent.invoke.fittings import StoryRecorder
from lambent.invoke.invocation import Invocation
from lambent.invoke.lane import Held
from lambent.invoke.lanes import Lanes, Point, Spawn
from lambent.invoke.recursion import Recursion
from lambent.queues.directory import Directory
from lambent.queues.mailbox import Mailbox, Outgoing
from lambent.settings import Settings
from lambent.store.contract import Enqueue, Store, StoreUnavailable

LOG = logging.getLogger(__name__)

_THREADS = 4

Send = Callable[[Delivery], Awaitable[None]]
Accept = Callable[[Invocation], Awaitable[str]]


class NotTaken(LambentError):
    """The other side did not take it. ``for_good``: and never will."""

    def __init__(self, message: str, for_good: bool = False) -> None:
        super().__init__(message)
        self.for_good = for_good


class Deliveries:
    """``accept`` invokes a function asynchronously; it is set once there is an ``AsyncQueue``. ``own_url`` is this server's."""

    def __init__(
        self,
        store: Store,
        directory: Directory,
        mailbox: Mailbox,
        clock: Clock,
        story: StoryRecorder,
        settings: Settings,
        spawn: Spawn,
        own_url: str = "",
        own_key: tuple[str, str] = ("", ""),
        at: Point = lambda name: None,
        recursion: Recursion | None = None,
    ) -> None:
        self._recursion = recursion or Recursion()
        self._directory = directory
        self._mailbox = mailbox
        self._clock = clock
        self._story = story
        self._settings = settings
        self._own = own_url, own_key
        self._at = at
        self._threads: ThreadPoolExecutor | None = None
        self._clients: dict[tuple[str, str], Any] = {}
        self._senders: dict[str, Send] = {
            "sqs": self._to_sqs_service if settings.endpoints.sqs else self._to_queue,
            "lambda": self._to_function,
            "sns": self._to_topic,
            "events": self._to_bus,
            "s3": self._to_bucket,
        }
        self.accept: Accept | None = None
        self.failed: Counter[str] = Counter()
        """Deliveries given up, by AWS's name of the metric: ``DeadLetterErrors``, ``DestinationDeliveryFailures``."""
        self.lanes = Lanes(store, clock, spawn, DELIVERIES, self._carry_out, settings.async_events, lambda moment: at(f"delivery:{moment}"))

    def expect(self, name: str) -> None:
        """There is a delivery of that lane in the store."""
        self.lanes.expect(name)

    async def start(self) -> None:
        await self.lanes.start()

    def stop(self) -> None:
        self.lanes.stop()

    async def drained(self) -> None:
        await self.lanes.drained()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    # -- one delivery ----------------------------------------------------------------------------------------------------------

    async def _carry_out(self, held: Held) -> bool:
        delivery: Delivery = held.item or decode_delivery(held.body)
        self._at("delivery:sending")
        try:
            await self._send(delivery)
        except (NotTaken, ClientFault, PlatformFault, StoreUnavailable) as error:
            await self._not_taken(held, delivery, error)
            return False  # one destination's trouble is not that of the function's others
        self._at("delivery:sent")
        await self.lanes.finish(held)
        self._story.record(delivery.request_id, "result delivered", "", delivery.destination, self._clock.now())
        return False

    async def _send(self, delivery: Delivery) -> None:
        service = delivery.destination.split(":")[2] if delivery.destination.count(":") >= 5 else ""
        sender = self._senders.get(service)
        if sender is None:
            raise NotTaken(f"nothing can be sent to {delivery.destination}", for_good=True)
        await sender(delivery)

    async def _not_taken(self, held: Held, delivery: Delivery, error: LambentError) -> None:
        now, settings = self._clock.now(), self._settings.async_events
        after = replace(delivery, attempts=delivery.attempts + 1)
        at = now + min(settings.backoff_first * 2.0 ** min(delivery.attempts, 32), settings.backoff_most)
        for_good = isinstance(error, NotTaken) and error.for_good
        if not for_good and at - delivery.since <= settings.delivery_age:
            self._story.record(delivery.request_id, "result not taken", "", f"{delivery.destination}: {error}", now)
            await self.lanes.finish(held, Enqueue(held.lane.queue, after.encode(), at))
            self.lanes.expect(held.lane.name, at)
            return
        metric = "DestinationDeliveryFailures" if delivery.attributes is None else "DeadLetterErrors"
        self.failed[metric] += 1
        LOG.warning("%s: the result of %s is not delivered (%s): %s", delivery.function, delivery.request_id, metric, error)
        self._story.record(delivery.request_id, "result given up", "", f"{delivery.destination}: {error}", now)
        letter = DeadLetter(after, metric, str(error), now)
        await self.lanes.finish(held, Enqueue(DEAD + held.lane.name, letter.encode()))

    # -- carriers --------------------------------------------------------------------------------------------------------------

    async def _to_queue(self, delivery: Delivery) -> None:
        queue = self._directory.by_arn(delivery.destination)
        if queue is None:
            raise NotTaken(f"there is no queue {delivery.destination}")
        attributes = {name: {"DataType": kind, "StringValue": value} for name, (kind, value) in (delivery.attributes or {}).items()}
        sender = f"lambda:{delivery.function.name}"
        [sent] = await self._mailbox.send(
            queue, [Outgoing(sendable_json(delivery.body), sender, attributes=attributes, trace=delivery.trace)]
        )
        if isinstance(sent, ClientFault):
            raise NotTaken(str(sent), for_good=True)

    async def _to_function(self, delivery: Delivery) -> None:
        target = parse_function(delivery.destination, "", "")
        if target is None or self.accept is None:
            raise NotTaken(f"{delivery.destination} is no function", for_good=True)
        try:
            self._recursion.extend(delivery.trace, target.unqualified)
        except ClientFault as fault:  # its run would be refused, and the result of that brought to the next function, without end
            raise NotTaken(fault.message, for_good=True) from fault
        call = Invocation(target, delivery.body, str(uuid.uuid4()), trace=delivery.trace, cause=delivery.request_id)
        await self.accept(call)

    async def _to_sqs_service(self, delivery: Delivery) -> None:
        parts = delivery.destination.split(":")
        url = f"{self._settings.endpoints.sqs.rstrip('/')}/{parts[4]}/{parts[5]}"
        attributes = {name: {"DataType": kind, "StringValue": value} for name, (kind, value) in (delivery.attributes or {}).items()}
        await self._call(
            delivery, "sqs", "send_message", QueueUrl=url, MessageBody=sendable_json(delivery.body), MessageAttributes=attributes
        )

    async def _to_topic(self, delivery: Delivery) -> None:
        attributes = {name: {"DataType": kind, "StringValue": value} for name, (kind, value) in (delivery.attributes or {}).items()}
        await self._call(
            delivery, "sns", "publish", TopicArn=delivery.destination, Message=sendable_json(delivery.body), MessageAttributes=attributes
        )

    async def _to_bus(self, delivery: Delivery) -> None:
        function = delivery.function.qualified(delivery.function.qualifier or "$LATEST")
        entry = {
            "Source": "lambda",
            "DetailType": f"Lambda Function Invocation Result - {'Success' if delivery.success else 'Failure'}",
            "Resources": [delivery.destination, str(function)],
            "Detail": delivery.body.decode(),
            "EventBusName": delivery.destination,
        }
        answer = await self._call(delivery, "events", "put_events", Entries=[entry])
        if answer.get("FailedEntryCount"):
            raise NotTaken(f"the event bus refused it: {answer.get('Entries')}")

    async def _to_bucket(self, delivery: Delivery) -> None:
        """The key is made of what stays the same, so a second delivery overwrites the first."""
        key = s3_key(delivery.function.name, delivery.since, delivery.request_id)
        await self._call(delivery, "s3", "put_object", Bucket=delivery.destination.split(":")[5], Key=key, Body=delivery.body)

    async def _call(self, delivery: Delivery, service: str, operation: str, **parameters: Any) -> Any:
        """Call another service, in a thread. Raises ``NotTaken``."""
        url = getattr(self._settings.endpoints, service) or (self._own[0] if service == "s3" else "")
        if not url:
            text = f'no endpoint is set for {service}: [endpoints] {service} = "http://..." in the configuration names one'
            raise NotTaken(text, for_good=True)
        region = delivery.destination.split(":")[3] or delivery.function.region
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "destinations")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._speak, service, url, region, operation, parameters)

    def _speak(self, service: str, url: str, region: str, operation: str, parameters: dict[str, Any]) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._client(service, url, region), operation)(**parameters)
        except (BotoCoreError, ClientError) as error:
            raise NotTaken(f"{service} at {url}: {error}") from error

    def _client(self, service: str, url: str, region: str) -> Any:
        """A client of ``service``; two threads may make one each, and one of them is kept."""
        import botocore.session
        from botocore.config import Config

        if (found := self._clients.get((service, region))) is not None:
            return found
        ours = url == self._own[0]
        keys = self._own[1] if ours else (self._settings.endpoints.access_key, self._settings.endpoints.secret_key)
        options: dict[str, Any] = {"aws_access_key_id": keys[0], "aws_secret_access_key": keys[1]} if keys[0] else {}
        config = Config(
            connect_timeout=5,
            read_timeout=30,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
            max_pool_connections=_THREADS,
        )
        client = botocore.session.get_session().create_client(service, region, endpoint_url=url, config=config, **options)
        return self._clients.setdefault((service, region), client)
