"""Asynchronous invocations from acceptance to their end, as boto3, the AWS CLI and ``lambent events`` see them (contract 02 §4, §5).

The waits of retries are settings, and short here. SNS and EventBridge are a small HTTP server of the test that speaks as much of them as a
sender hears; SQS, Lambda and S3 are the box's own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.parse
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from acceptance_helpers import ROLE, RUNTIME, call, settle, stop_cleanly, zipped
from aws_cli import aws
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer

GOOD = "def handler(event, context):\n    return {'got': event, 'id': context.aws_request_id}\n"
BAD = "def handler(event, context):\n    raise ValueError('no luck with ' + str(event))\n"
SLOW = "import time\ndef handler(event, context):\n    time.sleep(event)\n    return event\n"
SHORT = "[async]\nretry_waits = [0.2, 0.4]\nbackoff_first = 0.05\nbackoff_most = 0.2\n"


class Neighbours(BaseHTTPRequestHandler):
    """SNS's Publish and EventBridge's PutEvents: notes what it is told."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.headers.get("X-Amz-Target") == "AWSEvents.PutEvents":
            [entry] = json.loads(body)["Entries"]
            self.server.told["events"].append(entry)
            answer, kind = '{"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}', "application/x-amz-json-1.1"
        else:
            self.server.told["sns"].append(dict(urllib.parse.parse_qsl(body)))
            answer = "<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>"
            kind = "text/xml"
        self.server.news.set()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def neighbours():
    with ThreadingHTTPServer(("127.0.0.1", 0), Neighbours) as server:
        server.told, server.news = {"sns": [], "events": []}, threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory, neighbours):
    config = tmp_path_factory.mktemp("async") / "lambent.toml"
    url = f"http://127.0.0.1:{neighbours.server_address[1]}"
    config.write_text(f'{SHORT}[endpoints]\nsns = "{url}"\nevents = "{url}"\naccess_key = "a"\nsecret_key = "b"\n')
    with LocalServer(config=config) as running:
        yield running
        stop_cleanly(running)


@pytest.fixture(scope="module")
def sqs(server):
    return server.client("sqs")


@pytest.fixture
def queue(sqs):
    return Queue(sqs)


class Queue:
    """A new queue of the box."""

    def __init__(self, sqs):
        self.sqs = sqs
        self.url = sqs.create_queue(QueueName=f"q-{uuid.uuid4().hex}")["QueueUrl"]
        self.arn = sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]

    def take(self, number=1):
        """The next ``number`` messages."""
        found = []
        while len(found) < number:
            answer = self.sqs.receive_message(
                QueueUrl=self.url, WaitTimeSeconds=20, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
            )
            assert answer.get("Messages"), "nothing came"
            for message in answer["Messages"]:
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
                found.append(message)
        return found

    def record(self):
        [message] = self.take()
        return json.loads(message["Body"])


def send(api, name, event, **options):
    answer = api.invoke(FunctionName=name, InvocationType="Event", Payload=json.dumps(event), **options)
    assert answer["StatusCode"] == 202
    assert answer["Payload"].read() == b""
    assert "ExecutedVersion" not in answer
    assert "FunctionError" not in answer
    return answer["ResponseMetadata"]["RequestId"]


def to(**sides):
    return {side: {"Destination": arn} for side, arn in sides.items()}


def starts(server, name):
    """Request ids of all runs so far."""
    events = server.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
    return [each["message"].split()[2] for each in events if each["message"].startswith("START ")]


def cli(server, *words):
    command = [sys.executable, "-m", "lambent.cli.main", "events", *words, "--endpoint", server.endpoint]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "300"}).stdout


def until_dead(server, name, number=1):
    while (found := server.page(f"events/{name}"))["counts"]["dead"] < number:
        pass
    return found


def test_a_result_goes_to_its_destination_with_the_whole_record(api, deploy, queue):
    made = deploy("succeeds", GOOD)
    api.put_function_event_invoke_config(FunctionName="succeeds", DestinationConfig=to(OnSuccess=queue.arn))
    answer = api.invoke(FunctionName="succeeds", InvocationType="Event", Payload=b'{"big": 12345678901234567890}')
    headers, identity = answer["ResponseMetadata"]["HTTPHeaders"], answer["ResponseMetadata"]["RequestId"]
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0", headers["x-amzn-trace-id"])
    [message] = queue.take()
    record = json.loads(message["Body"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("timestamp"))
    assert record == {
        "version": "1.0",
        "requestContext": {
            "requestId": identity,
            "functionArn": made["FunctionArn"] + ":$LATEST",
            "condition": "Success",
            "approximateInvokeCount": 1,
        },
        "requestPayload": {"big": 12345678901234567890},
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
        "responsePayload": {"got": {"big": 12345678901234567890}, "id": identity},
    }
    traced = message["Attributes"]["AWSTraceHeader"]
    assert traced.startswith(headers["x-amzn-trace-id"] + ";Lineage=")  # the run is counted in what follows of it


def test_errors_are_retried_twice_and_end_in_dead_letter_queue_and_destination(api, deploy, server, sqs, queue):
    letters = Queue(sqs)
    deploy("fails", BAD, DeadLetterConfig={"TargetArn": letters.arn})
    api.put_function_event_invoke_config(FunctionName="fails", DestinationConfig=to(OnFailure=queue.arn))
    identity = send(api, "fails", {"n": 1})
    record = queue.record()
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["requestContext"]["approximateInvokeCount"] == 3
    assert record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
    assert record["responsePayload"]["errorType"] == "ValueError"
    [letter] = letters.take()
    assert json.loads(letter["Body"]) == {"n": 1}
    assert {name: (value["DataType"], value["StringValue"]) for name, value in letter["MessageAttributes"].items()} == {
        "RequestID": ("String", identity),
        "ErrorCode": ("Number", "200"),
        "ErrorMessage": ("String", "no luck with {'n': 1}"),
    }
    assert starts(server, "fails") == [identity] * 3
    reported = server.page(f"story/{identity}")
    assert "event to be retried" in json.dumps(reported)


def test_as_few_retries_as_configured(api, deploy, server, queue):
    deploy("fails-once", BAD)
    api.put_function_event_invoke_config(FunctionName="fails-once", MaximumRetryAttempts=0, DestinationConfig=to(OnFailure=queue.arn))
    identity = send(api, "fails-once", 1)
    assert queue.record()["requestContext"]["approximateInvokeCount"] == 1
    assert starts(server, "fails-once") == [identity]


def test_a_function_is_told_and_its_result_goes_on(api, deploy, queue):
    deploy("first", GOOD)
    second = deploy("second", GOOD)["FunctionArn"]
    api.put_function_event_invoke_config(FunctionName="first", DestinationConfig=to(OnSuccess=second))
    api.put_function_event_invoke_config(FunctionName="second", DestinationConfig=to(OnSuccess=queue.arn))
    identity = send(api, "first", "hello")
    record = queue.record()
    assert record["requestContext"]["functionArn"] == second + ":$LATEST"
    assert record["requestContext"]["requestId"] != identity
    told = record["requestPayload"]
    assert told["requestContext"]["requestId"] == identity
    assert told["responsePayload"] == {"got": "hello", "id": identity}


def test_topics_and_event_buses_are_told_at_their_endpoints(api, deploy, neighbours):
    topic, bus = "arn:aws:sns:us-east-1:000000000000:topic", "arn:aws:events:us-east-1:000000000000:event-bus/bus"
    arn = deploy("both-ways", "def handler(event, context):\n    return 1 / event\n")["FunctionArn"]
    api.put_function_event_invoke_config(
        FunctionName="both-ways", MaximumRetryAttempts=0, DestinationConfig=to(OnSuccess=topic, OnFailure=bus)
    )
    identities = [send(api, "both-ways", 2), send(api, "both-ways", 0)]
    while not (neighbours.told["sns"] and neighbours.told["events"]):
        assert neighbours.news.wait(60)
        neighbours.news.clear()
    [published], [entry] = neighbours.told["sns"], neighbours.told["events"]
    assert (published["Action"], published["TopicArn"]) == ("Publish", topic)
    assert json.loads(published["Message"])["requestContext"]["requestId"] == identities[0]
    assert json.loads(published["Message"])["responsePayload"] == 0.5
    assert (entry["Source"], entry["DetailType"]) == ("lambda", "Lambda Function Invocation Result - Failure")
    assert (entry["EventBusName"], entry["Resources"]) == (bus, [bus, arn + ":$LATEST"])
    assert json.loads(entry["Detail"])["requestContext"]["requestId"] == identities[1]


def test_a_bucket_of_the_box_keeps_failures(api, deploy, server):
    s3 = server.client("s3")
    s3.create_bucket(Bucket="failures")
    deploy("to-bucket", BAD)
    api.put_function_event_invoke_config(
        FunctionName="to-bucket", MaximumRetryAttempts=0, DestinationConfig=to(OnFailure="arn:aws:s3:::failures")
    )
    identity = send(api, "to-bucket", [1])
    while not (found := s3.list_objects_v2(Bucket="failures").get("Contents")):
        pass
    [key] = [each["Key"] for each in found]
    pattern = r"aws/lambda/async/to-bucket/\d{4}/\d\d/\d\d/\d{4}-\d\d-\d\dT\d\d\.\d\d\.\d\d-[0-9a-f-]{36}"
    assert re.fullmatch(pattern, key)
    assert json.load(s3.get_object(Bucket="failures", Key=key)["Body"])["requestContext"]["requestId"] == identity


def test_without_concurrency_an_event_is_accepted_and_ends_unrun(api, deploy, sqs, queue):
    letters = Queue(sqs)
    deploy("barred", GOOD, DeadLetterConfig={"TargetArn": letters.arn})
    api.put_function_concurrency(FunctionName="barred", ReservedConcurrentExecutions=0)
    api.put_function_event_invoke_config(FunctionName="barred", DestinationConfig=to(OnFailure=queue.arn))
    send(api, "barred", 1)
    record = queue.record()
    assert record["requestContext"]["condition"] == "ZeroReservedConcurrency"
    assert record["requestContext"]["approximateInvokeCount"] == 0
    assert not {"responseContext", "responsePayload"} & set(record)
    [letter] = letters.take()
    assert letter["MessageAttributes"]["ErrorCode"]["StringValue"] == "429"


def test_throttles_are_waited_out_and_do_not_count(api, deploy, queue):
    deploy("one-by-one", SLOW)
    api.put_function_concurrency(FunctionName="one-by-one", ReservedConcurrentExecutions=1)
    api.put_function_event_invoke_config(FunctionName="one-by-one", DestinationConfig=to(OnSuccess=queue.arn))
    sent = {send(api, "one-by-one", 0.3) for _ in range(4)}
    contexts = [json.loads(message["Body"])["requestContext"] for message in queue.take(4)]
    assert {context["requestId"] for context in contexts} == sent
    assert {context["approximateInvokeCount"] for context in contexts} == {1}


def test_settings_and_version_are_those_of_the_qualifier(api, deploy, sqs, queue):
    other = Queue(sqs)
    deploy("versioned", GOOD)
    version = api.publish_version(FunctionName="versioned")["Version"]
    arn = api.create_alias(FunctionName="versioned", Name="live", FunctionVersion=version)["AliasArn"]
    api.put_function_event_invoke_config(FunctionName="versioned", Qualifier="live", DestinationConfig=to(OnSuccess=queue.arn))
    api.put_function_event_invoke_config(FunctionName="versioned", DestinationConfig=to(OnSuccess=other.arn))
    send(api, "versioned", 1, Qualifier="live")
    record = queue.record()
    assert record["requestContext"]["functionArn"] == arn
    assert record["responseContext"]["executedVersion"] == version
    send(api, "versioned", 2)
    assert other.record()["responseContext"]["executedVersion"] == "$LATEST"


def test_the_tenant_reaches_the_function(api, deploy, queue):
    source = "def handler(event, context):\n    return context.tenant_id\n"
    deploy("tenants", source, TenancyConfig={"TenantIsolationMode": "PER_TENANT"})
    api.put_function_event_invoke_config(FunctionName="tenants", DestinationConfig=to(OnSuccess=queue.arn))
    send(api, "tenants", 1, TenantId="blue")
    assert queue.record()["responsePayload"] == "blue"
    with pytest.raises(api.exceptions.InvalidParameterValueException):
        api.invoke(FunctionName="tenants", InvocationType="Event", Payload=b"1")


def test_what_cannot_run_is_refused_at_once(api, deploy):
    deploy("strict", GOOD)
    for name, payload, code in (
        ("strict", b'"' + b"x" * 1_048_575 + b'"', "RequestTooLargeException"),
        ("strict", b"no json", "InvalidRequestContentException"),
        ("nobody", b"1", "ResourceNotFoundException"),
    ):
        with pytest.raises(ClientError) as caught:
            api.invoke(FunctionName=name, InvocationType="Event", Payload=payload)
        assert caught.value.response["Error"]["Code"] == code
    assert api.invoke(FunctionName="strict", InvocationType="Event", Payload=b'"' + b"x" * 1_048_574 + b'"')["StatusCode"] == 202


def test_events_of_a_function_that_is_deleted_are_kept_as_dead(api, deploy, server):
    deploy("brief", SLOW)
    api.put_function_concurrency(FunctionName="brief", ReservedConcurrentExecutions=1)
    send(api, "brief", 1.5)
    while not server.page("events/brief")["counts"]["running"]:
        pass
    waiting = send(api, "brief", 0)
    while not server.page("events/brief")["counts"]["retrying"]:
        pass
    api.delete_function(FunctionName="brief")
    dead = {}
    while waiting not in dead:  # the one that ran when the function went may be there before it
        dead = {each["requestId"]: each for each in until_dead(server, "brief")["events"] if each["state"] == "dead"}
    assert dead[waiting]["detail"].startswith("FunctionNotFound")


def test_lambent_events_lists_and_redrives(api, deploy, server, queue):
    deploy("repaired", BAD)
    first, second = send(api, "repaired", 1), send(api, "repaired", 2)
    until_dead(server, "repaired", 2)
    shown = cli(server, "repaired")
    for identity, number in ((first, 1), (second, 2)):
        [line] = [line for line in shown.splitlines() if identity in line]
        assert re.search(rf"\tdead\t.*\t3\t.*\tRetriesExhausted: no luck with {number}\t{number}", line)
    api.update_function_code(FunctionName="repaired", ZipFile=zipped({"app.py": GOOD}))
    settle(api, "repaired")
    api.put_function_event_invoke_config(FunctionName="repaired", DestinationConfig=to(OnSuccess=queue.arn))
    assert cli(server, "repaired", "--redrive", "--id", second) == "1 event redriven\n"
    assert queue.record()["responsePayload"] == {"got": 2, "id": second}
    assert [each["requestId"] for each in json.loads(cli(server, "repaired", "--json"))["events"] if each["state"] == "dead"] == [first]
    assert json.loads(cli(server, "repaired", "--redrive", "--json")) == {"redriven": 1}
    assert queue.record()["requestContext"]["requestId"] == first
    while any(server.page("events/repaired")["counts"].values()):
        pass
    assert cli(server, "repaired") == ""


def test_a_loop_through_destinations_is_stopped(api, deploy, server, sqs):
    letters = Queue(sqs)
    ping = deploy("ping", "def handler(event, context):\n    return 1\n", DeadLetterConfig={"TargetArn": letters.arn})["FunctionArn"]
    pong = deploy("pong", "def handler(event, context):\n    return 1\n")["FunctionArn"]
    api.put_function_event_invoke_config(FunctionName="ping", DestinationConfig=to(OnSuccess=pong, OnFailure=pong))
    api.put_function_event_invoke_config(FunctionName="pong", DestinationConfig=to(OnSuccess=ping, OnFailure=ping))
    send(api, "ping", 0)
    dead = [each for name in ("ping", "pong") for each in _ended(server, name)]
    assert len(starts(server, "ping")) + len(starts(server, "pong")) == 32
    assert any("recursive loop" in each["detail"] for each in dead)


def _ended(server, name):
    """What is dead, once nothing of ping and pong is on its way."""
    while True:
        pages = [server.page(f"events/{each}") for each in ("ping", "pong")]
        moving = sum(sum(page["counts"].values()) - page["counts"]["dead"] for page in pages)
        if not moving and any(page["counts"]["dead"] for page in pages):
            return [each for each in server.page(f"events/{name}")["events"] if each["state"] == "dead"]


def test_a_caller_in_a_loop_is_refused_unless_loops_are_allowed(api, deploy):
    deploy("looping", GOOD)
    first = api.invoke(FunctionName="looping", Payload=b"1")["ResponseMetadata"]["HTTPHeaders"]["x-amzn-trace-id"]
    head, _, count = first.rpartition(":")
    assert count == "1"
    api.meta.events.register("before-send.lambda.Invoke", lambda request, **_: request.headers.update(traced))
    traced = {"X-Amzn-Trace-Id": f"{head}:15"}
    assert call(api, "looping", 1)[1]["StatusCode"] == 200
    traced = {"X-Amzn-Trace-Id": f"{head}:16"}
    with pytest.raises(api.exceptions.RecursiveInvocationException) as caught:
        api.invoke(FunctionName="looping", Payload=b"1")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    api.put_function_recursion_config(FunctionName="looping", RecursiveLoop="Allow")
    assert call(api, "looping", 1)[1]["StatusCode"] == 200


def test_the_aws_cli_sends_events(api, deploy, server, queue, tmp_path):
    deploy("by-cli", GOOD)
    api.put_function_event_invoke_config(FunctionName="by-cli", DestinationConfig=to(OnSuccess=queue.arn))
    words = ("lambda", "invoke", "--function-name", "by-cli", "--invocation-type", "Event", "--payload", '{"by": "invoke"}', "out.json")
    assert json.loads(aws(server.endpoint, tmp_path, *words)) == {"StatusCode": 202}
    assert Path(tmp_path, "out.json").read_bytes() == b""
    assert queue.record()["requestPayload"] == {"by": "invoke"}
    Path(tmp_path, "event.json").write_text('{"by": "invoke-async"}')
    words = ("lambda", "invoke-async", "--function-name", "by-cli", "--invoke-args", "event.json")
    assert json.loads(aws(server.endpoint, tmp_path, *words)) == {"Status": 202}
    assert queue.record()["requestPayload"] == {"by": "invoke-async"}


@pytest.mark.parametrize("end", ["SIGTERM", "kill -9"])
def test_the_queue_outlives_the_server(tmp_path, end):
    config = tmp_path / "lambent.toml"
    config.write_text("[async]\nbackoff_first = 0.05\nbackoff_most = 0.2\n")  # and AWS's waits between retries
    with LocalServer(tmp_path / "data", config=config) as server:
        api, queue = server.client("lambda"), Queue(server.client("sqs"))
        source = "import time\ndef handler(event, context):\n    time.sleep(0.05)\n    return 1 / event\n"
        api.create_function(
            FunctionName="kept", Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Code={"ZipFile": zipped({"app.py": source})}
        )
        settle(api, "kept")
        api.put_function_concurrency(FunctionName="kept", ReservedConcurrentExecutions=2)
        api.put_function_event_invoke_config(
            FunctionName="kept", MaximumEventAgeInSeconds=60, DestinationConfig=to(OnSuccess=queue.arn, OnFailure=queue.arn)
        )
        sent = [send(api, "kept", number) for number in range(30)]
        if end == "SIGTERM":
            stop_cleanly(server)
        else:
            server.kill()
        server.start()
        found = {}
        while len(found) < len(sent):
            for message in queue.take():
                context = json.loads(message["Body"])["requestContext"]
                found[context["requestId"]] = context["condition"]
        # the retry of what failed would be a minute later, when it is too old: it ends after its first run
        assert found == {identity: "Success" if number else "EventAgeExceeded" for number, identity in enumerate(sent)}
        stop_cleanly(server)
