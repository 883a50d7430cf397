"""The queue service as boto3, the query protocol and the AWS CLI see it."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.parse
import urllib.request
import uuid

import pytest
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer


@pytest.fixture(scope="module")
def sqs(server):
    return server.client("sqs")


@pytest.fixture
def queue(sqs):
    return sqs.create_queue(QueueName=f"q-{uuid.uuid4().hex}")["QueueUrl"]


def arn_of(sqs, url):
    return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def refused(code, call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] == code, caught.value.response
    return caught.value.response["Error"]["Message"]


def bodies(sqs, url, **options):
    return [m["Body"] for m in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, **options).get("Messages", [])]


def test_a_message_goes_in_and_comes_out_with_everything(sqs, queue):
    attributes = {
        "text": {"DataType": "String", "StringValue": "ü"},
        "number": {"DataType": "Number.int", "StringValue": "-1.5e3"},
        "bytes": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    trace = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-00000000-000000000000000000000000"}}
    sent = sqs.send_message(QueueUrl=queue, MessageBody="hällo\n", MessageAttributes=attributes, MessageSystemAttributes=trace)
    (message,) = sqs.receive_message(QueueUrl=queue, MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"])["Messages"]
    assert message["MessageId"] == sent["MessageId"]
    assert (message["Body"], message["MD5OfBody"]) == ("hällo\n", sent["MD5OfMessageBody"])
    assert message["MessageAttributes"] == attributes
    assert message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    facts = message["Attributes"]
    assert facts["AWSTraceHeader"] == trace["AWSTraceHeader"]["StringValue"]
    assert facts["ApproximateReceiveCount"] == "1"
    assert int(facts["ApproximateFirstReceiveTimestamp"]) >= int(facts["SentTimestamp"])
    sqs.change_message_visibility(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    (again,) = sqs.receive_message(QueueUrl=queue, AttributeNames=["ApproximateReceiveCount"], MessageAttributeNames=["t*", "num.*"])[
        "Messages"
    ]
    assert again["Attributes"] == {"ApproximateReceiveCount": "2"}
    assert "MessageAttributes" not in again
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])  # a spent receipt does nothing
    counted = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed"]
    assert list(sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=counted)["Attributes"].values()) == ["0", "1", "0"]
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=again["ReceiptHandle"])
    assert list(sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=counted)["Attributes"].values()) == ["0", "0", "0"]
    refused(
        "AWS.SimpleQueueService.MessageNotInflight",
        sqs.change_message_visibility,
        QueueUrl=queue,
        ReceiptHandle=again["ReceiptHandle"],
        VisibilityTimeout=5,
    )


def test_a_receiver_waits_for_a_message_and_a_delay(sqs, queue, server):
    got = []
    waiter = threading.Thread(target=lambda: got.extend(bodies(server.client("sqs"), queue, WaitTimeSeconds=20)))
    waiter.start()
    sqs.send_message(QueueUrl=queue, MessageBody="now", DelaySeconds=1)
    assert bodies(sqs, queue) == []
    waiter.join(20)
    assert got == ["now"]


def test_batches_tell_of_each_entry(sqs, queue):
    entries = [{"Id": str(n), "MessageBody": str(n)} for n in range(9)] + [{"Id": "bad", "MessageBody": "x", "DelaySeconds": 901}]
    told = sqs.send_message_batch(QueueUrl=queue, Entries=entries)
    assert [each["Id"] for each in told["Successful"]] == [str(n) for n in range(9)]
    assert [(each["Id"], each["SenderFault"]) for each in told["Failed"]] == [("bad", True)]
    messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    assert sorted(message["Body"] for message in messages) == [str(n) for n in range(9)]
    handles = [{"Id": f"d{n}", "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
    changed = sqs.change_message_visibility_batch(
        QueueUrl=queue,
        Entries=[{**handle, "VisibilityTimeout": 100} for handle in handles[:2]]
        + [{"Id": "x", "ReceiptHandle": "x", "VisibilityTimeout": 1}],
    )
    assert (len(changed["Successful"]), [each["Code"] for each in changed["Failed"]]) == (2, ["ReceiptHandleIsInvalid"])
    assert len(sqs.delete_message_batch(QueueUrl=queue, Entries=handles)["Successful"]) == 9
    refused("AWS.SimpleQueueService.EmptyBatchRequest", sqs.delete_message_batch, QueueUrl=queue, Entries=[])
    refused(
        "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
        sqs.send_message_batch,
        QueueUrl=queue,
        Entries=[*entries, {"Id": "z", "MessageBody": "z"}],
    )
    refused("AWS.SimpleQueueService.BatchEntryIdsNotDistinct", sqs.send_message_batch, QueueUrl=queue, Entries=[entries[0], entries[0]])
    big = [{"Id": str(n), "MessageBody": "x" * 600_000} for n in range(2)]
    refused("AWS.SimpleQueueService.BatchRequestTooLong", sqs.send_message_batch, QueueUrl=queue, Entries=big)


def test_a_fifo_queue_keeps_order_in_groups_and_drops_duplicates(sqs):
    name = f"f-{uuid.uuid4().hex}.fifo"
    url = sqs.create_queue(QueueName=name, Attributes={"FifoQueue": "true", "ContentBasedDeduplication": "true"})["QueueUrl"]
    first = sqs.send_message(QueueUrl=url, MessageBody="a1", MessageGroupId="a")
    again = sqs.send_message(QueueUrl=url, MessageBody="a1", MessageGroupId="a")
    assert (again["MessageId"], again["SequenceNumber"]) == (first["MessageId"], first["SequenceNumber"])
    for body, group in (("a2", "a"), ("b1", "b"), ("a3", "a")):
        sqs.send_message(QueueUrl=url, MessageBody=body, MessageGroupId=group)
    sqs.send_message(QueueUrl=url, MessageBody="other", MessageGroupId="b", MessageDeduplicationId="own")
    (one,) = sqs.receive_message(QueueUrl=url, AttributeNames=["All"])["Messages"]
    assert (one["Body"], one["Attributes"]["MessageGroupId"], one["Attributes"]["SequenceNumber"]) == ("a1", "a", first["SequenceNumber"])
    assert bodies(sqs, url) == ["b1", "other"]
    assert bodies(sqs, url) == []
    sqs.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
    assert bodies(sqs, url) == ["a2", "a3"]
    refused("MissingParameter", sqs.send_message, QueueUrl=url, MessageBody="x")
    refused("InvalidParameterValue", sqs.send_message, QueueUrl=url, MessageBody="x", MessageGroupId="a", DelaySeconds=1)
    refused("InvalidParameterValue", sqs.create_queue, QueueName=f"g-{uuid.uuid4().hex}.fifo")


def test_what_is_received_too_often_goes_to_the_dead_letters_and_back(sqs, queue):
    dead = sqs.create_queue(QueueName=f"dead-{uuid.uuid4().hex}")["QueueUrl"]
    policy = json.dumps({"deadLetterTargetArn": arn_of(sqs, dead), "maxReceiveCount": 2})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedrivePolicy": policy, "VisibilityTimeout": "0"})
    sqs.send_message(QueueUrl=queue, MessageBody="cursed")
    assert [bodies(sqs, queue) for _ in range(3)] == [["cursed"], ["cursed"], []]
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [queue]
    (letter,) = sqs.receive_message(QueueUrl=dead, AttributeNames=["All"], VisibilityTimeout=0)["Messages"]
    assert letter["Attributes"]["DeadLetterQueueSourceArn"] == arn_of(sqs, queue)
    sqs.start_message_move_task(SourceArn=arn_of(sqs, dead))
    assert bodies(sqs, queue, WaitTimeSeconds=20) == ["cursed"]
    (task,) = sqs.list_message_move_tasks(SourceArn=arn_of(sqs, dead))["Results"]
    assert task["ApproximateNumberOfMessagesToMove"] == 1
    refused("ResourceNotFoundException", sqs.start_message_move_task, SourceArn="arn:aws:sqs:us-east-1:000000000000:none")
    missing = json.dumps({"deadLetterTargetArn": "arn:aws:sqs:us-east-1:000000000000:none", "maxReceiveCount": 2})
    assert "does not exist" in refused(
        "InvalidParameterValue", sqs.set_queue_attributes, QueueUrl=queue, Attributes={"RedrivePolicy": missing}
    )


def test_queues_are_made_found_listed_tagged_purged_and_deleted(sqs):
    name = f"life-{uuid.uuid4().hex}"
    url = sqs.create_queue(QueueName=name, Attributes={"DelaySeconds": "0"}, tags={"a": "1"})["QueueUrl"]
    assert sqs.create_queue(QueueName=name)["QueueUrl"] == url
    refused("QueueAlreadyExists", sqs.create_queue, QueueName=name, Attributes={"DelaySeconds": "5"})
    assert sqs.get_queue_url(QueueName=name)["QueueUrl"] == url
    more = [sqs.create_queue(QueueName=f"{name}-{n}")["QueueUrl"] for n in range(3)]
    assert sqs.list_queues(QueueNamePrefix=name)["QueueUrls"] == [url, *more]
    pages = list(sqs.get_paginator("list_queues").paginate(QueueNamePrefix=name, PaginationConfig={"PageSize": 3}))
    assert [len(page["QueueUrls"]) for page in pages] == [3, 1]
    sqs.tag_queue(QueueUrl=url, Tags={"b": "2"})
    sqs.untag_queue(QueueUrl=url, TagKeys=["a"])
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"b": "2"}
    sqs.add_permission(QueueUrl=url, Label="l", AWSAccountIds=["123456789012"], Actions=["SendMessage"])
    policy = json.loads(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]["Policy"])
    assert policy["Statement"][0]["Principal"] == {"AWS": "arn:aws:iam::123456789012:root"}
    sqs.remove_permission(QueueUrl=url, Label="l")
    assert "Policy" not in sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    sqs.send_message(QueueUrl=url, MessageBody="gone")
    sqs.purge_queue(QueueUrl=url)
    assert bodies(sqs, url) == []
    refused("AWS.SimpleQueueService.PurgeQueueInProgress", sqs.purge_queue, QueueUrl=url)
    sqs.send_message(QueueUrl=url, MessageBody="of the old queue")
    sqs.delete_queue(QueueUrl=url)
    refused("AWS.SimpleQueueService.NonExistentQueue", sqs.send_message, QueueUrl=url, MessageBody="x")
    assert bodies(sqs, sqs.create_queue(QueueName=name)["QueueUrl"]) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"MessageBody": "\x00"},
        {"MessageBody": "x" * 1_048_577},
        {"MessageBody": "x", "DelaySeconds": -1},
        {"MessageBody": "x", "MessageAttributes": {"aws.x": {"DataType": "String", "StringValue": "x"}}},
        {"MessageBody": "x", "MessageAttributes": {"x": {"DataType": "Bad", "StringValue": "x"}}},
        {"MessageBody": "x", "MessageAttributes": {"x": {"DataType": "Number", "StringValue": "x"}}},
        {"MessageBody": "x", "MessageAttributes": {str(n): {"DataType": "String", "StringValue": "x"} for n in range(11)}},
    ],
)
def test_bad_messages_are_refused(sqs, queue, arguments):
    with pytest.raises(ClientError) as caught:
        sqs.send_message(QueueUrl=queue, **arguments)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


@pytest.mark.parametrize(
    "attributes",
    [
        {"VisibilityTimeout": "43201"},
        {"MaximumMessageSize": "1"},
        {"Nothing": "1"},
        {"FifoQueue": "true"},
        {"Policy": "{"},
        {"RedrivePolicy": '{"maxReceiveCount": 1}'},
        {"RedrivePolicy": '{"maxReceiveCount": 0, "deadLetterTargetArn": "x"}'},
        {"RedriveAllowPolicy": '{"redrivePermission": "some"}'},
    ],
)
def test_bad_attributes_are_refused(sqs, queue, attributes):
    with pytest.raises(ClientError) as caught:
        sqs.set_queue_attributes(QueueUrl=queue, Attributes=attributes)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_the_query_protocol_is_spoken_too(sqs, queue):
    def ask(**fields):
        with urllib.request.urlopen(queue, urllib.parse.urlencode(fields).encode(), timeout=30) as answer:
            return answer.read().decode()

    batch = {"SendMessageBatchRequestEntry.1.Id": "a", "SendMessageBatchRequestEntry.1.MessageBody": "one & two"}
    batch |= {
        "SendMessageBatchRequestEntry.1.MessageAttribute.1.Name": "n",
        "SendMessageBatchRequestEntry.1.MessageAttribute.1.Value.DataType": "Number",
        "SendMessageBatchRequestEntry.1.MessageAttribute.1.Value.StringValue": "4",
    }
    assert "<SendMessageBatchResultEntry><Id>a</Id>" in ask(Action="SendMessageBatch", **batch)
    received = ask(Action="ReceiveMessage", **{"MessageAttributeName.1": "n", "AttributeName.1": "All"})
    assert "<Body>one &amp; two</Body><Attribute><Name>" in received
    assert (
        "<MessageAttribute><Name>n</Name><Value><StringValue>4</StringValue><DataType>Number</DataType></Value></MessageAttribute>"
        in received
    )
    ask(Action="SetQueueAttributes", **{"Attribute.1.Name": "DelaySeconds", "Attribute.1.Value": "7"})
    assert sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["DelaySeconds"])["Attributes"] == {"DelaySeconds": "7"}
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(Action="DeleteMessage", ReceiptHandle="x")
    assert "<Code>ReceiptHandleIsInvalid</Code>" in caught.value.read().decode()


def test_messages_queues_and_duplicates_survive_kill_9(tmp_path):
    with LocalServer(tmp_path / "data") as server:
        sqs = server.client("sqs")
        url = sqs.create_queue(QueueName="kept", Attributes={"VisibilityTimeout": "600"})["QueueUrl"]
        fifo = sqs.create_queue(QueueName="kept.fifo", Attributes={"FifoQueue": "true", "ContentBasedDeduplication": "true"})["QueueUrl"]
        sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": str(n), "MessageBody": str(n)} for n in range(10)])
        first = sqs.send_message(QueueUrl=fifo, MessageBody="x", MessageGroupId="g")["MessageId"]
        held = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=3)["Messages"]
        sqs.delete_message(QueueUrl=url, ReceiptHandle=held[0]["ReceiptHandle"])
        server.kill()
        server.start()
        assert sorted(bodies(sqs, url)) == [str(n) for n in range(3, 10)]
        sqs.delete_message(QueueUrl=url, ReceiptHandle=held[1]["ReceiptHandle"])  # leases and receipts outlive the process, too
        counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessagesNotVisible"])["Attributes"]
        assert counts == {"ApproximateNumberOfMessagesNotVisible": "8"}
        assert sqs.send_message(QueueUrl=fifo, MessageBody="x", MessageGroupId="g")["MessageId"] == first
        assert server.stop() == 0
