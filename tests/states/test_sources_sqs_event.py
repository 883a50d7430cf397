"""Messages of a queue as functions see them."""

from __future__ import annotations

import json

import pytest

from lambent.sources.filters import Filters
from lambent.sources.sqs_event import PAYLOAD_KEYS, to_record

ARN = "arn:aws:sqs:eu-west-1:000000000000:q"
ATTRIBUTES = {"SenderId": 'a"b', "SentTimestamp": "1", "MessageGroupId": "g", "AWSTraceHeader": "Root=1;Sampled=0"}


def message(body="hello", **more):
    return {"MessageId": "id-1", "ReceiptHandle": "h==", "Body": body, "Attributes": ATTRIBUTES, "MD5OfBody": "0" * 32, **more}


@pytest.mark.parametrize("body", ["plain", '{"a": "\\u00e4"}', 'quotes " and \\ and \t\n\r', "ä €", "\u2028\u2029\x7f", "𝄞"])
def test_every_text_survives_the_json_that_is_put_together_by_hand(body):
    shown = json.loads(to_record(message(body), ARN, Filters(), None).payload)
    assert shown == {
        "messageId": "id-1",
        "receiptHandle": "h==",
        "body": body,
        "attributes": ATTRIBUTES,
        "messageAttributes": {},
        "md5OfBody": "0" * 32,
        "eventSource": "aws:sqs",
        "eventSourceARN": ARN,
        "awsRegion": "eu-west-1",
    }


def test_message_attributes_and_their_digest():
    given = {"text": {"DataType": "String", "StringValue": 'ü"'}, "bytes": {"DataType": "Binary.x", "BinaryValue": b"\x00\xff"}}
    shown = json.loads(to_record(message(MessageAttributes=given, MD5OfMessageAttributes="f" * 32), ARN, Filters(), None).payload)
    assert shown["md5OfMessageAttributes"] == "f" * 32
    lists = {"stringListValues": [], "binaryListValues": []}
    assert shown["messageAttributes"] == {
        "text": {"stringValue": 'ü"', **lists, "dataType": "String"},
        "bytes": {"binaryValue": "AP8=", **lists, "dataType": "Binary.x"},
    }


def test_groups_are_for_ordered_queues_and_the_trace_travels():
    record = to_record(message(), f"{ARN}.fifo", Filters(), "receipt")
    assert (record.id, record.group, record.trace, record.receipt, record.wanted) == ("id-1", "g", "Root=1;Sampled=0", "receipt", True)
    assert to_record(message(), ARN, Filters(), None).group == ""


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ('{"body":{"n":[1]}}', True),
        ('{"body":{"n":[2]}}', False),
        ('{"attributes":{"MessageGroupId":["g"]}}', True),
        ('{"messageAttributes":{"k":{"stringValue":["v"]}}}', True),
        ('{"messageAttributes":{"k":{"stringValue":["w"]}}}', False),
        ('{"body":["text"]}', False),
        ('{"eventSource":[{"prefix":"aws:"}]}', True),
    ],
)
def test_filters_see_the_record_with_its_body_as_json(pattern, wanted):
    given = {"k": {"DataType": "String", "StringValue": "v"}}
    record = to_record(message('{"n": 1}', MessageAttributes=given), ARN, Filters([pattern], PAYLOAD_KEYS), None)
    assert record.wanted is wanted
    assert json.loads(record.payload)["body"] == '{"n": 1}'
