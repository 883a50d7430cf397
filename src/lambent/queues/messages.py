"""A message as it lies in the store, and the checks and digests that SQS makes of it. Pure.

The body in the store is one line of JSON (what is known of the message) and then the message's text as it came. Digests are SQS's own: the
MD5 of the text, and the MD5 over the sorted attributes, each part preceded by its length (as AWS's SDKs verify it).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lambent.errors import ClientFault
from lambent.queues import faults

Attributes = Mapping[str, Mapping[str, Any]]
"""Name -> ``{"DataType", "StringValue" | "BinaryValue" (bytes)}``."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_TYPE = re.compile(r"(String|Number|Binary)(\..{1,248})?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SEQUENCE = 18_849_496_460_467_696_128
_GROUP = re.compile(r"[A-Za-z0-9!-/:-@\[-`{-~]{1,128}")


@dataclass(frozen=True, slots=True)
class Body:
    """What is stored of a message beside what the store itself counts."""

    message_id: str
    text: str
    sender: str
    sent_ms: int
    attributes: Attributes = field(default_factory=dict)
    trace: str = ""  # AWSTraceHeader
    group: str = ""
    deduplication: str = ""
    source: str = ""  # ARN of the queue whose dead letter it is

    def encode(self) -> bytes:
        head: dict[str, Any] = {"id": self.message_id, "from": self.sender, "at": self.sent_ms}
        if self.attributes:
            head["attributes"] = {name: _packed(value) for name, value in self.attributes.items()}
        for name in ("trace", "group", "deduplication", "source"):
            if getattr(self, name):
                head[name] = getattr(self, name)
        return json.dumps(head, separators=(",", ":")).encode() + b"\n" + self.text.encode()


def decode(stored: bytes) -> Body:
    line, _, text = stored.partition(b"\n")
    head = json.loads(line)
    attributes = {name: _unpacked(value) for name, value in head.get("attributes", {}).items()}
    rest = {name: head.get(name, "") for name in ("trace", "group", "deduplication", "source")}
    return Body(head["id"], text.decode(), head["from"], head["at"], attributes, **rest)


def _packed(value: Mapping[str, Any]) -> list[str]:
    if "BinaryValue" in value:
        return [value["DataType"], base64.b64encode(value["BinaryValue"]).decode(), "b"]
    return [value["DataType"], value["StringValue"]]


def _unpacked(value: Sequence[str]) -> dict[str, Any]:
    if len(value) == 3:
        return {"DataType": value[0], "BinaryValue": base64.b64decode(value[1])}
    return {"DataType": value[0], "StringValue": value[1]}


def sequence_number(position: int) -> str:
    """20 digits that grow within a queue."""
    return str(_SEQUENCE + position * 256)


def receipt_handle(uid: str, receipt: str, message_id: str) -> str:
    return base64.b64encode(f"{uid} {receipt} {message_id}".encode()).decode()


def read_handle(handle: str, uid: str) -> tuple[str, str]:
    """(receipt in the store, message id). Raises ``ClientFault``."""
    try:
        parts = base64.b64decode(handle, validate=True).decode().split(" ")
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise faults.bad_receipt(handle) from error
    if len(parts) != 3:
        raise faults.bad_receipt(handle)
    if parts[0] != uid:
        raise faults.invalid_value(
            f"Value {handle} for parameter ReceiptHandle is invalid. Reason: The receipt handle is of another queue."
        )
    return parts[1], parts[2]


def md5_of(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def md5_of_attributes(attributes: Attributes) -> str:
    """``""`` where there are none."""
    if not attributes:
        return ""
    digest = hashlib.md5(usedforsecurity=False)
    for name in sorted(attributes):
        value = attributes[name]
        binary = "BinaryValue" in value
        for part in (name.encode(), value["DataType"].encode()):
            digest.update(struct.pack("!I", len(part)) + part)
        content = value["BinaryValue"] if binary else value["StringValue"].encode()
        digest.update((b"\2" if binary else b"\1") + struct.pack("!I", len(content)) + content)
    return digest.hexdigest()


def size_of(text: str, attributes: Attributes) -> int:
    total = len(text.encode())
    for name, value in attributes.items():
        content = value["BinaryValue"] if "BinaryValue" in value else value["StringValue"].encode()
        total += len(name.encode()) + len(value["DataType"].encode()) + len(content)
    return total


def check(text: str, attributes: Attributes, limit: int) -> None:
    """Raises ``ClientFault`` unless SQS takes a message like this."""
    if not text:
        raise faults.missing("The request must contain the parameter MessageBody.")
    if _FORBIDDEN.search(text):
        raise faults.fault(
            "InvalidMessageContents",
            "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | "
            "#xE000 to #xFFFD | #x10000 to #x10FFFF",
        )
    if len(attributes) > 10:
        raise faults.invalid_value(f"Number of message attributes [{len(attributes)}] exceeds the allowed maximum [10].")
    for name, value in attributes.items():
        _check_attribute(name, value)
    if size_of(text, attributes) > limit:
        raise faults.invalid_value(f"One or more parameters are invalid. Reason: Message must be shorter than {limit} bytes.")


def _check_attribute(name: str, value: Mapping[str, Any]) -> None:
    if (
        not _NAME.fullmatch(name)
        or name.startswith(".")
        or name.endswith(".")
        or ".." in name
        or name.lower().startswith(("aws.", "amazon."))
    ):
        raise faults.invalid_value(f"Message (user) attribute name '{name}' is invalid.")
    kind = value.get("DataType", "")
    if not _TYPE.fullmatch(kind):
        text = "has an invalid message attribute type, the set of supported type prefixes is Binary, Number, and String."
        raise faults.invalid_value(f"The message attribute '{name}' {text}")
    member = "BinaryValue" if kind.startswith("Binary") else "StringValue"
    content = value.get(member)
    if not content:
        raise faults.invalid_value(
            f"The message attribute '{name}' must contain non-empty message attribute value for message attribute type '{kind}'."
        )
    if kind.startswith("Number") and not _NUMBER.fullmatch(content):
        raise faults.invalid_value(f"Can't cast the value of message attribute '{name}' to a number.")


def check_group(name: str, value: str) -> None:
    """``MessageGroupId`` and ``MessageDeduplicationId``. Raises ``ClientFault``."""
    if not _GROUP.fullmatch(value):
        text = f"{name} can only include alphanumeric and punctuation characters. 1 to 128 in length"
        raise faults.invalid_value(f"Value {value} for parameter {name} is invalid. Reason: {text}.")


def selected(attributes: Attributes, names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Those of ``attributes`` that a receiver asked for: names, ``All``, ``.*``, ``prefix.*``."""
    if not names:
        return {}
    if {"All", ".*"} & set(names):
        return dict(attributes)
    prefixes = tuple(name[:-1] for name in names if name.endswith(".*"))
    return {name: value for name, value in attributes.items() if name in names or (prefixes and name.startswith(prefixes))}


def as_failure(entry_id: str, error: ClientFault) -> dict[str, Any]:
    """An entry of ``Failed`` of a batch answer."""
    return {"Id": entry_id, "SenderFault": error.status < 500, "Code": error.code, "Message": error.message}
