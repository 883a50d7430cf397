"""What a destination and a dead-letter queue are told of an event, as AWS words it (contract 02 §4.1, §4.2). Pure.

A record holds the event and the response as they are, not parsed and written anew: numbers keep their digits. What is over the limit of
the service that it goes to loses both, and keeps the rest.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

from lambent.arn import LATEST
from lambent.invoke.async_event import AsyncEvent
from lambent.invoke.async_state import Condition

LIMITS = {"sqs": 1_048_576, "sns": 262_144, "events": 262_144, "lambda": 1_048_576, "s3": 2**40}
_ROOM = 4_096  # of an envelope around the record
_ERROR_MESSAGE = 1_024  # bytes of ErrorMessage
_REFUSED = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def record(event: AsyncEvent, condition: Condition, now: float, service: str) -> bytes:
    """The record of how ``event`` ended, for ``service`` (``sqs``, ``sns``, ``lambda``, ``events``, ``s3``)."""
    whole = _render(event, condition, now, with_payloads=True)
    if len(whole) <= LIMITS[service] - _ROOM:
        return whole
    return _render(event, condition, now, with_payloads=False)


def _render(event: AsyncEvent, condition: Condition, now: float, with_payloads: bool) -> bytes:
    context = {
        "requestId": event.request_id,
        "functionArn": str(event.target.qualified(event.target.qualifier or LATEST)),
        "condition": condition.value,
        "approximateInvokeCount": event.invocations,
    }
    members = [("version", '"1.0"'), ("timestamp", _dumps(timestamp(now))), ("requestContext", _dumps(context))]
    if with_payloads:
        members.append(("requestPayload", _embed(event.payload or b"{}")))
    if event.invocations:
        answer: dict[str, object] = {"statusCode": 200, "executedVersion": event.version}
        if condition is not Condition.SUCCESS:
            answer["functionError"] = "Unhandled"
        members.append(("responseContext", _dumps(answer)))
        if with_payloads and event.response is not None:
            members.append(("responsePayload", _embed(event.response)))
    return ("{" + ",".join(f'"{name}":{value}' for name, value in members) + "}").encode()


def dead_letter_attributes(event: AsyncEvent) -> dict[str, tuple[str, str]]:
    """``RequestID``, ``ErrorCode`` and ``ErrorMessage`` of a dead letter: name -> (type, value)."""
    message = sendable(event.last_message).encode()[:_ERROR_MESSAGE].decode(errors="ignore")
    attributes = {"RequestID": ("String", event.request_id), "ErrorCode": ("Number", str(event.last_code or 500))}
    if message:
        attributes["ErrorMessage"] = ("String", message)
    return attributes


def error_message(response: bytes) -> str:
    """``errorMessage`` of a function's failed answer, or the answer itself where it has none; at most 1,024 characters."""
    text = response[:_ERROR_MESSAGE].decode(errors="replace")
    try:
        document = json.loads(response)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and isinstance(document.get("errorMessage"), str):
        text = document["errorMessage"]
    return sendable(text[:_ERROR_MESSAGE])


def sendable(text: str) -> str:
    """``text`` without the characters that SQS refuses."""
    return _REFUSED.sub("\ufffd", text)


def sendable_json(document: bytes) -> str:
    """The JSON text, with characters that SQS refuses written as escapes; they can only stand in its strings."""
    return _REFUSED.sub(lambda match: f"\\u{ord(match[0]):04x}", document.decode())


def timestamp(now: float) -> str:
    """``2026-11-21T09:00:00.123Z``"""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def s3_key(function: str, now: float, unique: str) -> str:
    """Where a record lies in a bucket."""
    moment = datetime.fromtimestamp(now, UTC)
    return f"aws/lambda/async/{function}/{moment:%Y/%m/%d}/{moment:%Y-%m-%dT%H.%M.%S}-{unique}"


def _embed(content: bytes) -> str:
    """``content`` as a JSON value: itself if it is one, else its text as a string."""
    try:
        text = content.decode()
        json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return _dumps(content.decode(errors="replace"))
    return text.strip() or "null"


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
