"""An event on its way to a function that nobody waits for: what is kept of it, and how it lies in the store.

The bytes in the store are one line of JSON, all that is known of the event, and then the event itself as it came. Everything that must
survive ``kill -9`` is in the line: how often it was tried, when it was accepted, what the last try gave. A retry replaces the bytes as a
whole, in the commit that takes the old ones away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lambent.arn import FunctionArn, parse_function

EVENTS = "async/"
DELIVERIES = "destinations/"
DEAD = "dead/"
"""Prefixes of the store's queues: events, results on their way to destinations, and what found no other place. One queue a function."""

_text = json.JSONEncoder(separators=(",", ":")).encode

RESPONSE_KEPT = 262_144
"""Bytes of a failed try's response that an event carries along, for its record at a destination."""


@dataclass(frozen=True, slots=True)
class AsyncEvent:
    """One accepted event. Times are epoch seconds."""

    request_id: str
    target: FunctionArn  # with the qualifier as it was addressed
    payload: bytes
    accepted_at: float
    trace: str = ""
    cause: str = ""  # what it was caused by, for the story
    tenant: str = ""
    invocations: int = 0  # how often it ran
    failures: int = 0  # of them with a function error
    setbacks: int = 0  # throttles and faults of ours since then
    last_code: int = 0  # 200 after a function error, else the status of the refusal; 0 before the first try
    last_message: str = ""
    version: str = ""  # that ran last
    response: bytes | None = None  # of the last run, where it failed
    onward: str = ""  # the trace header of the last run, which counts it: what follows of it carries this one

    def encode(self) -> bytes:
        head: dict[str, Any] = {"id": self.request_id, "to": str(self.target), "at": self.accepted_at}
        for name, key in _SHORT.items():
            if value := getattr(self, name):
                head[key] = value
        if self.response is not None:
            head["response"] = self.response.decode(errors="replace")
        return _text(head).encode() + b"\n" + self.payload


_SHORT = {
    "trace": "trace",
    "cause": "cause",
    "tenant": "tenant",
    "invocations": "n",
    "failures": "failures",
    "setbacks": "setbacks",
    "last_code": "code",
    "last_message": "message",
    "version": "version",
    "onward": "onward",
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """A result on its way to ``destination``. ``body`` is what is sent: the record, or for a dead-letter queue the event itself."""

    destination: str  # ARN
    request_id: str
    function: FunctionArn  # with the qualifier as it was addressed
    body: bytes
    success: bool
    since: float  # epoch seconds
    trace: str = ""
    attributes: Mapping[str, tuple[str, str]] | None = None  # name -> (type, value): of a dead-letter queue's message
    attempts: int = 0

    def encode(self) -> bytes:
        head: dict[str, Any] = {
            "delivery": self.destination,
            "id": self.request_id,
            "to": str(self.function),
            "success": self.success,
            "at": self.since,
        }
        if self.trace:
            head["trace"] = self.trace
        if self.attributes is not None:
            head["attributes"] = self.attributes
        if self.attempts:
            head["attempts"] = self.attempts
        return _text(head).encode() + b"\n" + self.body


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What ended without success and has no other place to be: kept to be looked at, and to be given another chance."""

    letter: AsyncEvent | Delivery
    reason: str
    detail: str
    died_at: float

    def encode(self) -> bytes:
        head = {"reason": self.reason, "detail": self.detail, "at": self.died_at}
        return _text(head).encode() + b"\n" + self.letter.encode()


def decode_event(stored: bytes) -> AsyncEvent:
    event = decode(stored)
    assert isinstance(event, AsyncEvent)
    return event


def decode_delivery(stored: bytes) -> Delivery:
    delivery = decode(stored)
    assert isinstance(delivery, Delivery)
    return delivery


def decode(stored: bytes) -> AsyncEvent | Delivery:
    line, _, body = stored.partition(b"\n")
    head = json.loads(line)
    target = parse_function(head["to"], "", "")
    assert target is not None
    if "delivery" in head:
        attributes = head.get("attributes")
        return Delivery(
            destination=head["delivery"],
            request_id=head["id"],
            function=target,
            body=body,
            success=head["success"],
            since=head["at"],
            trace=head.get("trace", ""),
            attributes=None if attributes is None else {name: (kind, value) for name, (kind, value) in attributes.items()},
            attempts=head.get("attempts", 0),
        )
    response = head.get("response")
    return AsyncEvent(
        head["id"],
        target,
        body,
        head["at"],
        **{name: head[key] for name, key in _SHORT.items() if key in head},
        response=None if response is None else response.encode(),
    )


def decode_dead(stored: bytes) -> DeadLetter:
    line, _, rest = stored.partition(b"\n")
    head = json.loads(line)
    return DeadLetter(decode(rest), head["reason"], head["detail"], head["at"])


def lane_of(target: FunctionArn) -> str:
    """What the queues of a function are named by, behind their prefix: all its versions and aliases share them."""
    return f"{target.account}/{target.region}/{target.name}"
