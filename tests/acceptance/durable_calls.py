"""Every kind of call that makes something durable, and the callers' own record of what they were told."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from acceptance_helpers import ROLE, RUNTIME, call, settle, zipped
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer

_SOURCE = "def handler(event, context):\n    print('line', event)\n    return [%d, event]\n"


@dataclass
class Told:
    """What clients were told: acknowledged or refused."""

    done: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in CALLS})
    refused: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in CALLS})


class Clients:
    """Every kind of call that makes something durable, each with a number of its own."""

    def __init__(self, server: LocalServer) -> None:
        self.api, self.sqs, self.s3, self.logs = (server.client(name) for name in ("lambda", "sqs", "s3", "logs"))
        self.told = Told()
        self._numbers = itertools.count(1)

    def prepare(self) -> None:
        for name in ("runs", "later"):
            code = {"ZipFile": zipped({"app.py": _SOURCE % 0})}
            self.api.create_function(FunctionName=name, Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Code=code)
            settle(self.api, name)
        self.url = self.sqs.create_queue(QueueName="q")["QueueUrl"]
        self.s3.create_bucket(Bucket="disk")
        self.logs.create_log_group(logGroupName="/g")
        self.logs.create_log_stream(logGroupName="/g", logStreamName="s")
        assert call(self.api, "runs", "first")[0] == [0, "first"]
        for name in CALLS:
            self.turn(name)
        assert not any(self.told.refused.values())

    def turn(self, name: str) -> bool:
        """One call; whether it was acknowledged. A refusal is AWS-shaped and says whose fault it is."""
        number = next(self._numbers)
        try:
            CALLS[name](self, number)
        except ClientError as error:
            told_as_on_aws(error)
            self.told.refused[name].append(number)
            return False
        self.told.done[name].append(number)
        return True

    def send(self, number: int) -> None:
        self.sqs.send_message(QueueUrl=self.url, MessageBody=f"{number} " + "x" * 100_000)

    def put(self, number: int) -> None:
        self.s3.put_object(Bucket="disk", Key=str(number), Body=b"%d " % number * 20_000)

    def event(self, number: int) -> None:
        self.api.invoke(FunctionName="later", InvocationType="Event", Payload=json.dumps(f"{number} " + "x" * 100_000))

    def code(self, number: int) -> None:
        files: dict[str, str | bytes] = {"app.py": _SOURCE % number, "noise": os.urandom(100_000)}
        self.api.create_function(
            FunctionName=f"f{number}", Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Code={"ZipFile": zipped(files)}
        )

    def tag(self, number: int) -> None:
        arn = self.api.get_function_configuration(FunctionName="runs")["FunctionArn"]
        self.api.tag_resource(Resource=arn, Tags={f"n{number % 10}": f"{number} " + "x" * 200})

    def line(self, number: int) -> None:
        event = {"timestamp": int(time.time() * 1000), "message": f"{number} " + os.urandom(50_000).hex()}
        self.logs.put_log_events(logGroupName="/g", logStreamName="s", logEvents=[event])

    def check(self) -> None:
        """What was acknowledged is there, what was refused is not."""
        done, refused = self.told.done, self.told.refused
        found = []
        while messages := self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, VisibilityTimeout=600).get("Messages"):
            found += [int(message["Body"].split()[0]) for message in messages]
        assert sorted(found) == done["send"]
        keys = {int(item["Key"]) for item in self.s3.list_objects_v2(Bucket="disk").get("Contents", [])}
        assert keys == set(done["put"])
        for number in done["put"]:
            assert self.s3.get_object(Bucket="disk", Key=str(number))["Body"].read() == b"%d " % number * 20_000
        functions = {item["FunctionName"] for page in self.api.get_paginator("list_functions").paginate() for item in page["Functions"]}
        assert functions == {"runs", "later", *(f"f{number}" for number in done["code"])}
        for number in done["code"]:
            settle(self.api, f"f{number}")
            assert call(self.api, f"f{number}", 1)[0] == [number, 1]
        wanted = {str(number) for number in done["event"]}
        wait(lambda: wanted <= self.handled())
        assert not {str(number) for number in refused["event"]} & self.handled()
        pages = self.logs.get_paginator("filter_log_events").paginate(logGroupName="/g")
        lines = [int(event["message"].split()[0]) for page in pages for event in page["events"]]
        assert sorted(lines) == done["line"]
        arn = self.api.get_function_configuration(FunctionName="runs")["FunctionArn"]
        tags = self.api.list_tags(Resource=arn)["Tags"]
        for digit in range(10):
            acknowledged = [number for number in done["tag"] if number % 10 == digit]
            assert not acknowledged or tags[f"n{digit}"].split()[0] == str(acknowledged[-1])

    def handled(self) -> set[str]:
        try:
            pages = self.logs.get_paginator("filter_log_events").paginate(logGroupName="/aws/lambda/later", filterPattern='"line"')
            return {event["message"].split()[1] for page in pages for event in page["events"]}
        except self.logs.exceptions.ResourceNotFoundException:
            return set()


def told_as_on_aws(error: ClientError) -> None:
    """Whose fault it is, in the shape of the service that was called."""
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500, error.response
    assert error.response["Error"]["Code"] in {"ServiceException", "InternalError", "InternalFailure", "ServiceUnavailableException"}
    assert error.response["Error"]["Message"]


CALLS: dict[str, Callable[[Clients, int], None]] = {
    "send": Clients.send,
    "put": Clients.put,
    "event": Clients.event,
    "code": Clients.code,
    "tag": Clients.tag,
    "line": Clients.line,
}


def quick(folder: Path) -> Path:
    """A configuration of which events that met an outage come again soon after it."""
    file = folder / "quick.toml"
    file.write_text("[async]\nbackoff_first = 0.1\nbackoff_most = 1.0\n")
    return file


def wait(done: Callable[[], bool]) -> None:
    never = threading.Event()
    while not done():
        never.wait(0.02)
