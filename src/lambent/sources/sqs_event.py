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


_quoted = json.encoder.encode_basestring  # in C, and leaves what is no ASCII as it is


def to_record(message: Mapping[str, Any], arn: str, filters: Filters, receipt: Any) -> Record:
    """``message`` is in the shape of ReceiveMessage with all its attributes; ``receipt`` is the source's own handle on it.

    The JSON is put together by hand: an encoder would take as long as all the rest of a message's way through the node.
    """
    attributes: Mapping[str, str] = message["Attributes"]
    body: str = message["Body"]
    given = message.get("MessageAttributes")
    own = {name: _attribute(value) for name, value in given.items()} if given else {}
    shown = json.dumps(own, separators=(",", ":"), ensure_ascii=False) if own else "{}"
    told = ",".join([f"{_quoted(name)}:{_quoted(value)}" for name, value in attributes.items()])
    digest = message.get("MD5OfMessageAttributes")
    also = f',"md5OfMessageAttributes":{_quoted(digest)}' if digest else ""
    text = (
        f'{{"messageId":{_quoted(message["MessageId"])},"receiptHandle":{_quoted(message["ReceiptHandle"])},"body":{_quoted(body)},'
        f'"attributes":{{{told}}},"messageAttributes":{shown},'
        f'"md5OfBody":{_quoted(message["MD5OfBody"])}{also},'
        f'"eventSource":"aws:sqs","eventSourceARN":{_quoted(arn)},"awsRegion":{_quoted(arn.split(":")[3])}}}'
    )
    return Record(
        id=message["MessageId"],
        receipt=receipt,
        payload=text.encode(),
        group=attributes.get("MessageGroupId", "") if arn.endswith(".fifo") else "",
        trace=attributes.get("AWSTraceHeader", ""),
        wanted=not filters or filters.match({**json.loads(text), "body": as_payload(body)}),
    )


def _attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if value.get("BinaryValue") is not None:
        shown["binaryValue"] = base64.b64encode(value["BinaryValue"]).decode()
    else:
        shown["stringValue"] = value.get("StringValue")
    return {**shown, "stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}
