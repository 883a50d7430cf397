"""Event source mappings for SQS as boto3 sees them: batches, filters, failures, order, throttles, states, restarts, other endpoints."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter

import pytest
from acceptance_helpers import ROLE, RUNTIME, settle, zipped
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer

QUICK = {"VisibilityTimeout": "2"}

# What a message asks of the function: fail once, fail always, be named, answer in some way. All that it saw comes out of a queue.
SOURCE = """
import json, os, time, boto3

sqs = boto3.client("sqs")

def handler(event, context):
    begun = time.time()
    bodies = [json.loads(record["body"]) for record in event["Records"]]
    counts = [int(record["attributes"]["ApproximateReceiveCount"]) for record in event["Records"]]
    seen = {"bodies": bodies, "counts": counts, "version": context.function_version, "begun": begun, "records": event["Records"]}
    sqs.send_message(QueueUrl=os.environ["SEEN"], MessageBody=json.dumps(seen))
    failures = []
    for record, body, count in zip(event["Records"], bodies, counts):
        if body.get("sleep"):
            time.sleep(body["sleep"])
        if count <= body.get("raises", 0):
            raise ValueError("as asked")
        if "answer" in body and count == 1:
            return body["answer"]
        if failures and "fifo" in record["eventSourceARN"]:
            failures.append({"itemIdentifier": record["messageId"]})
        elif count <= body.get("fails", 0):
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}
"""


class Bench:
    """A function, what it has seen, and queues for it."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.api, self.sqs = server.client("lambda"), server.client("sqs")
        self.seen_url = self.sqs.create_queue(QueueName=f"seen-{name}")["QueueUrl"]
        self.mappings = []

    def deploy(self, **options):
        self.api.create_function(
            FunctionName=self.name,
            Runtime=RUNTIME,
            Role=ROLE,
            Handler="app.handler",
            Code={"ZipFile": zipped({"app.py": SOURCE})},
            Environment={"Variables": {"SEEN": self.seen_url}},
            **{"Timeout": 2, "MemorySize": 512, **options},
        )
        settle(self.api, self.name)

    def queue(self, fifo=False, dead_after=0, **attributes):
        name = f"{self.name}-{uuid.uuid4().hex[:8]}{'.fifo' if fifo else ''}"
        given = {**QUICK, **attributes}
        if fifo:
            given |= {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
        dead = ""
        if dead_after:
            dead, dead_arn = self.queue(fifo)
            given["RedrivePolicy"] = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": dead_after})
        url = self.sqs.create_queue(QueueName=name, Attributes=given)["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        return (url, arn, dead) if dead_after else (url, arn)

    def map(self, arn, function=None, wait=True, **options):
        made = self.api.create_event_source_mapping(EventSourceArn=arn, FunctionName=function or self.name, **options)
        self.mappings.append(made["UUID"])
        assert made["State"] == ("Creating" if options.get("Enabled", True) else "Disabled")
        return self.until(made["UUID"], "Enabled") if wait and options.get("Enabled", True) else made

    def state(self, mapping):
        return self.api.get_event_source_mapping(UUID=mapping)["State"]

    def until(self, mapping, state):
        while True:
            found = self.api.get_event_source_mapping(UUID=mapping)
            if found["State"] == state:
                return found
            assert found["State"] in {"Creating", "Enabling", "Disabling", "Updating"}
            time.sleep(0.01)

    def gone(self, mapping):
        while True:
            try:
                assert self.state(mapping) == "Deleting"
            except self.api.exceptions.ResourceNotFoundException:
                return
            time.sleep(0.01)

    def remove(self, mapping):
        """As soon as its state allows, if it is still there."""
        while True:
            try:
                self.api.delete_event_source_mapping(UUID=mapping)
            except self.api.exceptions.ResourceInUseException:
                time.sleep(0.01)
            except self.api.exceptions.ResourceNotFoundException:
                return
            else:
                self.gone(mapping)
                return

    def send(self, url, *bodies, **options):
        for body in bodies:
            text = body if isinstance(body, str) else json.dumps(body)
            self.sqs.send_message(QueueUrl=url, MessageBody=text, **options)

    def next(self):
        """What the function says of its next batch."""
        while True:
            found = self.sqs.receive_message(QueueUrl=self.seen_url, WaitTimeSeconds=20).get("Messages", [])
            if found:
                self.sqs.delete_message(QueueUrl=self.seen_url, ReceiptHandle=found[0]["ReceiptHandle"])
                return json.loads(found[0]["Body"])

    def received(self, url):
        """The next message of a queue that has no mapping."""
        return self.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20, AttributeNames=["All"])["Messages"][0]

    def left(self, url):
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed"]
        return [int(value) for value in self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values()]

    def empty(self, url):
        while sum(self.left(url)):
            time.sleep(0.01)


@pytest.fixture(scope="module")
def house(server):
    made = Bench(server, "mapped")
    made.deploy()
    return made


@pytest.fixture
def bench(house):
    yield house
    for mapping in house.mappings:
        house.remove(mapping)
    house.mappings.clear()
    while house.left(house.seen_url)[0]:
        house.next()


def refused(code, call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] == code, caught.value.response
    return caught.value.response["Error"]["Message"]


def test_a_message_comes_as_lambda_shows_it_and_is_deleted(bench):
    url, arn = bench.queue()
    made = bench.map(arn, BatchSize=5)
    assert (made["BatchSize"], made["MaximumBatchingWindowInSeconds"], made["StateTransitionReason"]) == (5, 0, "USER_INITIATED")
    assert made["EventSourceMappingArn"].endswith(f":event-source-mapping:{made['UUID']}")
    assert "LastProcessingResult" not in made
    attributes = {
        "text": {"DataType": "String", "StringValue": "ü"},
        "bytes": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    sent = bench.sqs.send_message(QueueUrl=url, MessageBody='{"hällo": 1}', MessageAttributes=attributes)
    (record,) = bench.next()["records"]
    facts = record.pop("attributes")
    assert record.pop("receiptHandle")
    assert record == {
        "messageId": sent["MessageId"],
        "body": '{"hällo": 1}',
        "messageAttributes": {
            "text": {"stringValue": "ü", "stringListValues": [], "binaryListValues": [], "dataType": "String"},
            "bytes": {"binaryValue": "AP8=", "stringListValues": [], "binaryListValues": [], "dataType": "Binary"},
        },
        "md5OfBody": sent["MD5OfMessageBody"],
        "md5OfMessageAttributes": sent["MD5OfMessageAttributes"],
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
        "awsRegion": "us-east-1",
    }
    assert set(facts) == {"SenderId", "SentTimestamp", "ApproximateReceiveCount", "ApproximateFirstReceiveTimestamp"}
    bench.empty(url)


def test_a_window_fills_batches_and_filters_leave_out_what_does_not_match(bench):
    url, arn = bench.queue()
    patterns = ['{"body":{"kind":["order"],"total":[{"numeric":[">",10]}]}}', '{"messageAttributes":{"vip":{"stringValue":["yes"]}}}']
    criteria = {"Filters": [{"Pattern": pattern} for pattern in patterns]}
    made = bench.map(arn, Enabled=False, BatchSize=20, MaximumBatchingWindowInSeconds=1, FilterCriteria=criteria)
    assert made["FilterCriteria"] == criteria
    bench.send(url, *[{"kind": "order", "total": number} for number in (5, 11, 12)], {"kind": "offer", "total": 99}, "plain text")
    bench.send(url, {"n": 1}, MessageAttributes={"vip": {"DataType": "String", "StringValue": "yes"}})
    assert bench.api.update_event_source_mapping(UUID=made["UUID"], Enabled=True)["State"] == "Enabling"
    assert bench.next()["bodies"] == [{"kind": "order", "total": 11}, {"kind": "order", "total": 12}, {"n": 1}]
    bench.empty(url)
    bench.until(made["UUID"], "Enabled")
    assert bench.api.update_event_source_mapping(UUID=made["UUID"], FilterCriteria={})["State"] == "Updating"
    assert "FilterCriteria" not in bench.until(made["UUID"], "Enabled")
    bench.send(url, {"kind": "offer"})
    assert bench.next()["bodies"] == [{"kind": "offer"}]


def test_only_what_the_function_names_comes_again(bench):
    url, arn = bench.queue()
    made = bench.map(arn, Enabled=False, FunctionResponseTypes=["ReportBatchItemFailures"])
    bench.send(url, {"n": 1}, {"n": 2, "fails": 1}, {"n": 3})
    bench.api.update_event_source_mapping(UUID=made["UUID"], Enabled=True)
    first = bench.next()
    assert ([body["n"] for body in first["bodies"]], first["counts"]) == ([1, 2, 3], [1, 1, 1])
    again = bench.next()
    assert (again["bodies"], again["counts"]) == ([{"n": 2, "fails": 1}], [2])
    bench.empty(url)


def test_answers_that_say_nothing_are_success_and_malformed_ones_fail_the_batch(bench):
    malformed = [
        {"batchItemFailures": [{"itemIdentifier": "no such message"}]},
        {"batchItemFailures": [{"itemIdentifier": ""}]},
        {"batchItemFailures": [{"itemIdentifier": None}]},
        {"batchItemFailures": [{"itemId": "x"}]},
        {"batchItemFailures": "x"},
        "nonsense",
    ]
    nothing = [{"batchItemFailures": []}, {"batchItemFailures": None}, {}, None, ""]
    url, arn = bench.queue()
    bench.map(arn, wait=False, BatchSize=1, FunctionResponseTypes=["ReportBatchItemFailures"])
    bench.send(url, *[{"answer": answer} for answer in malformed + nothing])
    seen = [bench.next() for _ in range(2 * len(malformed) + len(nothing))]
    bench.empty(url)
    times = Counter(json.dumps(each["bodies"][0]["answer"]) for each in seen)
    assert times == {**{json.dumps(answer): 2 for answer in malformed}, **{json.dumps(answer): 1 for answer in nothing}}
    assert bench.left(bench.seen_url)[0] == 0


def test_without_report_batch_item_failures_the_answer_is_ignored_and_errors_end_in_the_dead_letter_queue(bench):
    url, arn, dead = bench.queue(dead_after=2)
    bench.map(arn, wait=False, BatchSize=1)
    bench.send(url, {"answer": {"batchItemFailures": [{"itemIdentifier": "x"}]}}, {"raises": 9})
    seen = sorted((bench.next() for _ in range(3)), key=lambda each: ("raises" in each["bodies"][0], each["counts"]))
    assert [each["counts"] for each in seen] == [[1], [1], [2]]
    letter = bench.received(dead)
    assert json.loads(letter["Body"]) == {"raises": 9}
    assert letter["Attributes"]["DeadLetterQueueSourceArn"] == arn
    bench.empty(url)


def test_groups_of_a_fifo_queue_keep_their_order_under_failure(bench):
    url, arn = bench.queue(fifo=True)
    made = bench.map(arn, Enabled=False, FunctionResponseTypes=["ReportBatchItemFailures"])
    for number in range(4):
        bench.send(url, {"g": "a", "n": number, "fails": int(number == 1)}, MessageGroupId="a")
    bench.api.update_event_source_mapping(UUID=made["UUID"], Enabled=True)
    first, second = bench.next(), bench.next()
    assert [body["n"] for body in first["bodies"]] == [0, 1, 2, 3]
    assert ([body["n"] for body in second["bodies"]], second["counts"]) == ([1, 2, 3], [2, 2, 2])
    assert {"MessageGroupId", "SequenceNumber", "MessageDeduplicationId"} <= set(first["records"][0]["attributes"])
    bench.send(url, {"g": "b", "n": 4, "raises": 1}, MessageGroupId="b")
    assert bench.next()["counts"] == [1]
    bench.send(url, {"g": "b", "n": 5}, MessageGroupId="b")  # waits for the one before it
    bench.send(url, {"g": "c", "n": 6}, MessageGroupId="c")  # does not
    rest = [
        (body["n"], count) for batch in (bench.next(), bench.next()) for body, count in zip(batch["bodies"], batch["counts"], strict=True)
    ]
    assert rest == [(6, 1), (4, 2), (5, 1)]
    bench.empty(url)


def test_throttled_messages_wait_and_are_not_counted(bench):
    url, arn, dead = bench.queue(dead_after=1)
    bench.map(arn, BatchSize=1)
    bench.api.put_function_concurrency(FunctionName=bench.name, ReservedConcurrentExecutions=0)
    try:
        bench.send(url, {"n": 1}, {"n": 2})
        deadline = time.monotonic() + 2.5  # longer than the visibility timeout
        while time.monotonic() < deadline:
            assert bench.left(dead) == [0, 0, 0]
            time.sleep(0.2)
        assert sum(bench.left(url)) == 2
    finally:
        bench.api.delete_function_concurrency(FunctionName=bench.name)
    seen = [bench.next(), bench.next()]
    assert sorted(each["bodies"][0]["n"] for each in seen) == [1, 2]
    assert [each["counts"] for each in seen] == [[1], [1]]
    bench.empty(url)
    assert bench.left(dead) == [0, 0, 0]


def test_no_more_batches_than_the_maximum_concurrency(bench):
    url, arn = bench.queue(VisibilityTimeout="30")
    made = bench.map(arn, Enabled=False, BatchSize=1, ScalingConfig={"MaximumConcurrency": 2})
    assert made["ScalingConfig"] == {"MaximumConcurrency": 2}
    bench.send(url, *[{"n": number, "sleep": 0.3} for number in range(6)])
    bench.api.update_event_source_mapping(UUID=made["UUID"], Enabled=True)
    begun = sorted(bench.next()["begun"] for _ in range(6))
    for first, third in zip(begun, begun[2:], strict=False):  # which cannot begin before one of the two before it has ended
        assert third >= first + 0.3
    bench.empty(url)


def test_disabled_updated_deleted(bench):
    url, arn = bench.queue()
    made = bench.map(arn, wait=False)
    mapping = made["UUID"]
    assert "in use" in refused("ResourceInUseException", bench.api.update_event_source_mapping, UUID=mapping, BatchSize=2)
    assert "in use" in refused("ResourceInUseException", bench.api.delete_event_source_mapping, UUID=mapping)
    bench.until(mapping, "Enabled")
    bench.send(url, {"n": 1, "sleep": 0.5})
    assert bench.next()["bodies"][0]["n"] == 1
    assert bench.api.update_event_source_mapping(UUID=mapping, Enabled=False)["State"] == "Disabling"
    bench.until(mapping, "Disabled")
    assert bench.left(url) == [0, 0, 0]  # what ran was finished first
    bench.send(url, {"n": 2})
    assert bench.api.update_event_source_mapping(UUID=mapping, BatchSize=3)["State"] == "Updating"
    assert bench.until(mapping, "Disabled")["BatchSize"] == 3
    assert bench.left(url) == [1, 0, 0]
    assert bench.api.update_event_source_mapping(UUID=mapping, Enabled=True)["State"] == "Enabling"
    assert bench.next()["bodies"] == [{"n": 2}]
    bench.until(mapping, "Enabled")
    listed = bench.api.list_event_source_mappings(EventSourceArn=arn)["EventSourceMappings"]
    assert [each["UUID"] for each in listed] == [mapping]
    assert bench.api.delete_event_source_mapping(UUID=mapping)["State"] == "Deleting"
    bench.gone(mapping)
    bench.send(url, {"n": 3})
    assert bench.left(url) == [1, 0, 0]


def test_a_version_and_an_alias_as_targets(bench):
    version = bench.api.publish_version(FunctionName=bench.name)["Version"]
    bench.api.create_alias(FunctionName=bench.name, Name="live", FunctionVersion=version)
    url, arn = bench.queue()
    made = bench.map(arn, f"{bench.name}:live")
    assert made["FunctionArn"].endswith(f":{bench.name}:live")
    bench.send(url, {"n": 1})
    assert bench.next()["version"] == version
    assert bench.api.update_event_source_mapping(UUID=made["UUID"], FunctionName=bench.name)["FunctionArn"].endswith(f":{bench.name}")
    bench.until(made["UUID"], "Enabled")
    bench.send(url, {"n": 2})
    assert bench.next()["version"] == "$LATEST"


def test_what_cannot_be_mapped_is_refused_in_aws_words(bench):
    def create(**options):
        return refused("InvalidParameterValueException", bench.api.create_event_source_mapping, **options)

    _, arn = bench.queue()
    assert create(FunctionName="nobody", EventSourceArn=arn) == "Function does not exist"
    text = create(FunctionName=bench.name, EventSourceArn=f"{arn}-not")
    assert "SQS Error Code: AWS.SimpleQueueService.NonExistentQueue." in text
    _, hasty = bench.queue(VisibilityTimeout="1")
    text = create(FunctionName=bench.name, EventSourceArn=hasty)
    assert text == "Queue visibility timeout: 1 seconds is less than Function timeout: 2 seconds"
    text = create(FunctionName=bench.name, EventSourceArn=arn, BatchSize=11)
    assert text == "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
    for pattern in ("no json", '{"body":"scalar"}', '{"body":[{"wildcard":"*"}]}'):
        criteria = {"Filters": [{"Pattern": pattern}]}
        assert create(FunctionName=bench.name, EventSourceArn=arn, FilterCriteria=criteria) == "Invalid filter pattern definition."
    provisioned = {"ProvisionedPollerConfig": {"MinimumPollers": 3, "MaximumPollers": 5}, "MetricsConfig": {"Metrics": ["EventCount"]}}
    made = bench.map(arn, Enabled=False, **provisioned)
    assert {name: made[name] for name in provisioned} == provisioned
    text = refused(
        "ResourceConflictException", bench.api.create_event_source_mapping, FunctionName=bench.name, EventSourceArn=arn, Enabled=False
    )
    assert text == (
        f'An event source mapping with SQS arn (" {arn} ") and function (" {bench.name} ") already exists. '
        f"Please update or delete the existing mapping with UUID {made['UUID']}"
    )


def test_messages_sent_from_many_sides_are_each_handled_once(bench):
    url, arn = bench.queue(VisibilityTimeout="30")
    bench.map(arn)
    entries = [[{"Id": str(n), "MessageBody": json.dumps({"n": start + n})} for n in range(10)] for start in range(0, 300, 10)]

    def send(part):
        sqs = bench.server.client("sqs")
        for batch in part:
            assert len(sqs.send_message_batch(QueueUrl=url, Entries=batch)["Successful"]) == 10

    threads = [threading.Thread(target=send, args=(entries[number::3],)) for number in range(3)]
    for thread in threads:
        thread.start()
    numbers: list[int] = []
    while len(numbers) < 300:
        numbers += [body["n"] for body in bench.next()["bodies"]]
    for thread in threads:
        thread.join()
    bench.empty(url)
    assert sorted(numbers) == list(range(300))


def test_another_endpoint_is_a_setting(bench, tmp_path):
    config = tmp_path / "lambent.toml"
    config.write_text(f'[endpoints]\nsqs = "{bench.server.endpoint}"\naccess_key = "test"\nsecret_key = "test"\n')
    url, arn = bench.queue()
    _, hasty = bench.queue(VisibilityTimeout="1")
    with LocalServer(tmp_path / "data", config) as server:
        far = Bench(server, "far")
        far.deploy()
        for given, words in ((f"{arn}-not", "NonExistentQueue"), (hasty, "Queue visibility timeout: 1 seconds")):
            create = far.api.create_event_source_mapping
            assert words in refused("InvalidParameterValueException", create, FunctionName="far", EventSourceArn=given)
        far.map(arn)
        bench.send(url, {"n": 1, "raises": 1})
        assert [far.next()["counts"] for _ in range(2)] == [[1], [2]]
        bench.empty(url)
        assert server.stop() == 0


def test_a_mapping_survives_kill_with_what_was_sent(bench):
    url, arn = bench.queue()
    made = bench.map(arn)
    bench.send(url, {"n": 1, "sleep": 1.5})
    assert bench.next()["counts"] == [1]
    bench.server.kill()  # while it runs
    bench.server.start()
    again = bench.next()  # when its visibility timeout is over
    assert (again["bodies"][0]["n"], again["counts"]) == (1, [2])
    bench.empty(url)
    found = bench.api.get_event_source_mapping(UUID=made["UUID"])
    assert {**found, "ResponseMetadata": 0} == {**made, "ResponseMetadata": 0}
