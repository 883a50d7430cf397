"""Queues of any other SQS endpoint as a source: AWS, ElasticMQ, another Lambent. ``[endpoints] sqs`` in the configuration names it.

botocore signs and speaks, in threads of its own: one that waits (a long poll of 20 seconds, as AWS's pollers do) and one per request
beside it. The threads are daemons, so a long poll does not hold up the end of the node. What a long poll brings is handed out by the next
``take``; what it brings after its wait was cancelled is given back.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lambent.settings import EndpointSettings
from lambent.sources.filters import Filters
from lambent.sources.record import Record
from lambent.sources.source import SourceDenied, SourceUnavailable, Taken, records_envelope
from lambent.sources.sqs_event import to_record

T = TypeVar("T")

LONG_POLL_S = 20
_CALL = 10  # messages of one request
_AT_ONCE = 10  # requests at a time
_VISIBILITY_S = 60.0  # how long the queue's visibility timeout is believed without asking


_MISSING = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "AWS.SimpleQueueService.AccessDenied"})


async def visibility_of(arn: str, settings: EndpointSettings) -> int | None:
    """The visibility timeout of a queue, in seconds; ``None`` where there is no such queue. Raises ``SourceUnavailable``."""
    source = RemoteSqsSource(arn, settings, lambda: 0.0)
    try:
        return int(await source.visibility())
    except SourceUnavailable as error:
        code = _code(error)
        if code in _MISSING:
            return None
        if code in _DENIED:
            raise SourceDenied(str(error)) from error
        raise


def _code(error: SourceUnavailable) -> str:
    """What the endpoint calls it; "" where it has not answered."""
    answer = getattr(error.__cause__, "response", None)
    return str(answer["Error"].get("Code", "")) if isinstance(answer, dict) and "Error" in answer else ""


class RemoteSqsSource:
    """The queue ``arn`` behind ``settings.sqs``."""

    def __init__(self, arn: str, settings: EndpointSettings, now: Callable[[], float]) -> None:
        self._arn = arn
        self._settings = settings
        self._now = now
        self._client_lock = threading.Lock()
        self._client: Any = None
        self._url = ""
        self._visibility = 0.0
        self._visibility_until = 0.0
        self._buffer: list[dict[str, Any]] = []
        self._abandoned: set[asyncio.Task[None]] = set()

    async def take(self, limit: int, filters: Filters) -> Taken:
        await self._prepare()
        found, self._buffer = self._buffer[:limit], self._buffer[limit:]
        calls = min(-(-(limit - len(found)) // _CALL), _AT_ONCE)
        if calls > 0:
            answers = await asyncio.gather(
                *(self._receive(min(_CALL, limit - len(found) - _CALL * number), 0) for number in range(calls)), return_exceptions=True
            )
            arrived = [message for answer in answers if isinstance(answer, list) for message in answer]
            failures = [answer for answer in answers if isinstance(answer, BaseException)]
            if failures and not arrived and not found:
                raise failures[0]
            found += arrived
        return Taken([to_record(each, self._arn, filters, each["ReceiptHandle"]) for each in found], self._visibility)

    async def wait(self) -> None:
        if self._buffer:
            return
        await self._prepare()
        poll = asyncio.ensure_future(self._receive(_CALL, LONG_POLL_S))
        try:
            while not self._buffer:
                self._buffer = await asyncio.shield(poll)
                poll = asyncio.ensure_future(self._receive(_CALL, LONG_POLL_S)) if not self._buffer else poll
        except asyncio.CancelledError:
            task = asyncio.ensure_future(self._give_back_late(poll))
            self._abandoned.add(task)
            task.add_done_callback(self._abandoned.discard)
            raise

    async def acknowledge(self, records: Sequence[Record]) -> None:
        await self._in_batches("delete_message_batch", records, {})

    async def give_back(self, records: Sequence[Record]) -> None:
        await self.prolong(records, 0)

    async def prolong(self, records: Sequence[Record], seconds: float) -> None:
        await self._in_batches("change_message_visibility_batch", records, {"VisibilityTimeout": int(seconds)})

    def envelope(self, records: Sequence[Record]) -> bytes:
        return records_envelope(records)

    async def close(self) -> None:
        """Give back what a long poll brought and nobody took."""
        left, self._buffer = self._buffer, []
        await self._release(left)
        for task in list(self._abandoned):
            task.cancel()

    async def _give_back_late(self, poll: asyncio.Future[list[dict[str, Any]]]) -> None:
        try:
            await self._release(await poll)
        except SourceUnavailable:
            return  # their visibility timeout brings them back

    async def _release(self, messages: Sequence[dict[str, Any]]) -> None:
        if messages:
            await self.give_back([Record(each["MessageId"], each["ReceiptHandle"], b"") for each in messages])

    async def visibility(self) -> float:
        """The queue's visibility timeout, in seconds. Raises ``SourceUnavailable``."""
        await self._prepare()
        return self._visibility

    async def _prepare(self) -> None:
        """Know the queue's address and its visibility timeout."""
        if not self._url:
            _, _, _, _, account, name = self._arn.split(":", 5)
            self._url = (await self._call("get_queue_url", QueueName=name, QueueOwnerAWSAccountId=account))["QueueUrl"]
        if self._now() >= self._visibility_until:
            answer = await self._call("get_queue_attributes", QueueUrl=self._url, AttributeNames=["VisibilityTimeout"])
            self._visibility = float(answer.get("Attributes", {}).get("VisibilityTimeout", 30))
            self._visibility_until = self._now() + _VISIBILITY_S

    async def _receive(self, limit: int, wait: int) -> list[dict[str, Any]]:
        answer = await self._call(
            "receive_message",
            QueueUrl=self._url,
            MaxNumberOfMessages=limit,
            WaitTimeSeconds=wait,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        messages: list[dict[str, Any]] = answer.get("Messages") or []
        return messages

    async def _in_batches(self, operation: str, records: Sequence[Record], options: dict[str, Any]) -> None:
        for start in range(0, len(records), _CALL * _AT_ONCE):
            some = records[start : start + _CALL * _AT_ONCE]
            batches = [some[first : first + _CALL] for first in range(0, len(some), _CALL)]
            entries = [
                [{"Id": str(number), "ReceiptHandle": each.receipt, **options} for number, each in enumerate(batch)] for batch in batches
            ]
            await asyncio.gather(*(self._call(operation, QueueUrl=self._url, Entries=each) for each in entries))

    async def _call(self, operation: str, **parameters: Any) -> Any:
        """Raises ``SourceUnavailable``."""

        def speak() -> Any:
            from botocore.exceptions import BotoCoreError, ClientError

            try:
                return getattr(self._connected(), operation)(**parameters)
            except (BotoCoreError, ClientError) as error:
                raise SourceUnavailable(f"{self._settings.sqs}: {error}") from error

        return await _in_thread(speak)

    def _connected(self) -> Any:
        with self._client_lock:
            if self._client is None:
                import botocore.session
                from botocore.config import Config

                keys = self._settings
                options = {"aws_access_key_id": keys.access_key, "aws_secret_access_key": keys.secret_key} if keys.access_key else {}
                config = Config(
                    connect_timeout=5,
                    read_timeout=LONG_POLL_S + 15,
                    retries={"total_max_attempts": 2},
                    max_pool_connections=2 * _AT_ONCE + 1,
                )
                region = self._arn.split(":")[3]
                session = botocore.session.get_session()
                self._client = session.create_client("sqs", region, endpoint_url=self._settings.sqs, config=config, **options)
            return self._client


async def _in_thread(call: Callable[[], T]) -> T:
    """Like ``asyncio.to_thread``, in a daemon thread of its own."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        value: T | None = None
        failure: BaseException | None = None
        try:
            value = call()
        except BaseException as error:  # it is raised where it is awaited
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=run, name="sqs", daemon=True).start()
    return await future
