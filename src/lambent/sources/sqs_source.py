"""The queues in the box as a source. The bell of the mailbox ends the wait, so an idle queue costs nothing."""

from __future__ import annotations

from collections.abc import Sequence

from lambent.queues import messages
from lambent.queues.directory import Directory
from lambent.queues.facts import system_attributes
from lambent.queues.mailbox import Mailbox, Received
from lambent.queues.queue import Queue
from lambent.sources.filters import Filters
from lambent.sources.record import Record
from lambent.sources.source import SourceUnavailable, Taken, records_envelope
from lambent.sources.sqs_event import to_record


class SqsSource:
    """The queue ``arn``, looked up anew for every take, so that changed attributes hold at once."""

    def __init__(self, arn: str, directory: Directory, mailbox: Mailbox) -> None:
        self._arn = arn
        self._directory = directory
        self._mailbox = mailbox
        self._since = 0

    async def take(self, limit: int, filters: Filters) -> Taken:
        queue = self._queue()
        visibility = queue.number("VisibilityTimeout")
        self._since = self._mailbox.bell.count(queue.store_name)
        received = await self._mailbox.receive(queue, limit, visibility, 0)
        return Taken([self._record(queue, each, filters) for each in received], visibility)

    async def wait(self) -> None:
        await self._mailbox.ready(self._queue(), self._since)

    async def acknowledge(self, records: Sequence[Record]) -> None:
        for queue, receipts in _by_queue(records):
            await self._mailbox.delete(queue, receipts)

    async def give_back(self, records: Sequence[Record]) -> None:
        await self.prolong(records, 0.0)

    async def prolong(self, records: Sequence[Record], seconds: float) -> None:
        for queue, receipts in _by_queue(records):
            await self._mailbox.change_visibility(queue, [(receipt, seconds) for receipt in receipts])

    def envelope(self, records: Sequence[Record]) -> bytes:
        return records_envelope(records)

    async def close(self) -> None:
        pass

    def _queue(self) -> Queue:
        queue = self._directory.by_arn(self._arn)
        if queue is None:
            raise SourceUnavailable(f"there is no queue {self._arn}")
        return queue

    def _record(self, queue: Queue, received: Received, filters: Filters) -> Record:
        body = received.body
        message = {
            "MessageId": body.message_id,
            "ReceiptHandle": messages.receipt_handle(queue.uid, received.receipt, body.message_id),
            "Body": body.text,
            "Attributes": system_attributes(queue, received),
            "MessageAttributes": body.attributes,
            "MD5OfBody": messages.md5_of(body.text),
            "MD5OfMessageAttributes": messages.md5_of_attributes(body.attributes),
        }
        return to_record(message, queue.arn, filters, (queue, received.receipt))


def _by_queue(records: Sequence[Record]) -> list[tuple[Queue, list[str]]]:
    """Receipts by queue: a queue that was deleted and made again is another one."""
    found: dict[str, tuple[Queue, list[str]]] = {}
    for record in records:
        queue, receipt = record.receipt
        found.setdefault(queue.uid, (queue, []))[1].append(receipt)
    return list(found.values())
