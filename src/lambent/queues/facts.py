"""What SQS knows of a message that somebody holds, in the names of the wire."""

from __future__ import annotations

from lambent.queues import messages
from lambent.queues.mailbox import Received
from lambent.queues.queue import Queue


def system_attributes(queue: Queue, received: Received) -> dict[str, str]:
    """What SQS knows of a message; values are text."""
    body = received.body
    facts = {
        "SenderId": body.sender,
        "SentTimestamp": str(body.sent_ms),
        "ApproximateReceiveCount": str(received.attempt),
        "ApproximateFirstReceiveTimestamp": str(int(received.first_received * 1000)),
    }
    if queue.is_fifo:
        facts["SequenceNumber"] = messages.sequence_number(received.position)
    optional = {
        "MessageGroupId": body.group,
        "MessageDeduplicationId": body.deduplication,
        "AWSTraceHeader": body.trace,
        "DeadLetterQueueSourceArn": body.source,
    }
    return {**facts, **{name: value for name, value in optional.items() if value}}
