"""An SQS message as a function sees it: contract 04 §7. Pure.

The members start with a small letter here and with a capital in SQS's own API, which is what comes in.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from lambent.sources.filters import Filters, as_payload
from lambent.sources.record import Record

PAYLOAD_KEYS = ("body",)


def to_record(message: Mapping[str, Any], arn: str, filters: Filters, receipt: Any) -> Record:
    """``message`` is in the shape of ReceiveMessage with all its attributes; ``receipt`` is the source's own handle on it."""
    attributes: Mapping[str, str] = message["Attributes"]
    shown: dict[str, Any] = {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": attributes,
        "messageAttributes": {name: _attribute(value) for name, value in (message.get("MessageAttributes") or {}).items()},
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
        "awsRegion": arn.split(":")[3],
    }
    if message.get("MD5OfMessageAttributes"):
        shown["md5OfMessageAttributes"] = message["MD5OfMessageAttributes"]
    wanted = not filters or filters.match({**shown, "body": as_payload(message["Body"])})
    return Record(
        id=message["MessageId"],
        receipt=receipt,
        payload=json.dumps(shown, separators=(",", ":"), ensure_ascii=False).encode(),
        group=attributes.get("MessageGroupId", "") if arn.endswith(".fifo") else "",
        trace=attributes.get("AWSTraceHeader", ""),
        wanted=wanted,
    )


def _attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if value.get("BinaryValue") is not None:
        shown["binaryValue"] = base64.b64encode(value["BinaryValue"]).decode()
    else:
        shown["stringValue"] = value.get("StringValue")
    return {**shown, "stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}
