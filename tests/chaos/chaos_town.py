"""What stands on a server under fire: functions that succeed, fail, and do either; queues with mappings; destinations.

Every function notes what it handles in a file of a shared folder that stands for a file system, with one ``write`` to a file opened for
appending. The notes are the truth of the test: they outlive the server, and nothing of it is asked for them.
"""

from __future__ import annotations

import io
import json
import os
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lambent.testing.local_server import LocalServer

RUNTIME = f"python{sys.version_info[0]}.{sys.version_info[1]}"
ROLE = "arn:aws:iam::000000000000:role/test"
ACCESS_POINT = "arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/fsap-00000000000000001"
VISIBILITY_S = 2
TRIES = {"good": 3, "bad": 2, "moody": 3, "doomed": 1}  # how often an event is tried at most, if no server dies

CONFIG = """
[async]
retry_waits = [0.2, 0.4]
backoff_first = 0.1
backoff_most = 1.0
in_flight = 16
per_function = 4

[sandbox]
blanks = 2

[sandbox.file_systems]
"{access_point}" = "{folder}"
"""

SOURCE = """
import json, os, random, time

NAME = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
NOTES = os.open("/mnt/notes/" + NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

def note(what, key, context, count=1, since=0.0):
    os.write(NOTES, (json.dumps([what, key, time.time(), context.aws_request_id, count, since]) + "\\n").encode())

def good(event, context):
    note("done", event["id"], context)
    return event

def bad(event, context):
    note("failed", event["id"], context)
    raise ValueError(event["id"])

def moody(event, context):
    if random.random() < 0.5:
        note("failed", event["id"], context)
        raise ValueError(event["id"])
    note("done", event["id"], context)
    return event

def doomed(event, context):
    return good(event, context) if os.path.exists("/mnt/notes/pardon") else bad(event, context)

def sink(event, context):
    note("done", event["requestPayload"]["id"], context)

def batch(event, context):
    in_order = NAME == "fifo"  # one that fails holds up its group until it is visible again
    if random.random() < (0.005 if in_order else 0.03):
        raise ValueError("the whole batch")
    failed = []
    for record in event["Records"]:
        count = int(record["attributes"]["ApproximateReceiveCount"])
        poison = record["body"].startswith("poison")
        if (failed and in_order) or poison or random.random() < (0.01 if in_order else 0.1):
            failed.append({"itemIdentifier": record["messageId"]})
        else:
            note("done", record["body"], context, count, int(record["attributes"]["ApproximateFirstReceiveTimestamp"]) / 1000)
    return {"batchItemFailures": failed}
"""

EVENT_FUNCTIONS = ("good", "bad", "moody", "doomed")
FUNCTIONS = {**{name: name for name in (*EVENT_FUNCTIONS, "sink")}, "standard": "batch", "fifo": "batch"}
ANSWERS = ("won", "lost", "dead")  # queues that results of events go to
LETTERS = {"standard": "standard-dead", "fifo": "fifo-dead.fifo"}


def code(source: str = SOURCE) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("app.py", source)
    return memory.getvalue()


def settle(api: Any, name: str) -> None:
    """Wait until the function is active and updated."""
    for waiter in ("function_active_v2", "function_updated_v2"):
        api.get_waiter(waiter).wait(FunctionName=name, WaiterConfig={"Delay": 0.02, "MaxAttempts": 3_000})


@dataclass(frozen=True)
class Note:
    """One line that a function has written."""

    what: str  # done or failed
    at: float
    request_id: str
    count: int  # how often the message had been received,
    since: float  # and when first


class Town:
    """The server and everything on it. ``build`` once."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self.notes = folder / "notes"
        self.notes.mkdir(parents=True)
        if os.geteuid() == 0:
            os.chown(self.notes, 1000, 1000)
        config = folder / "lambent.toml"
        config.write_text(CONFIG.format(access_point=ACCESS_POINT, folder=self.notes))
        self.server = LocalServer(folder / "data", config=config, arguments=arguments)
        self.api = self.server.client("lambda")
        self.sqs = self.server.client("sqs")
        self.urls: dict[str, str] = {}
        self.mappings: dict[str, str] = {}  # function -> UUID

    def build(self) -> None:
        for name in (*ANSWERS, "standard-dead"):
            self._queue(name, {})
        self._queue("fifo-dead.fifo", {"FifoQueue": "true"})
        self._queue("standard", {"VisibilityTimeout": str(VISIBILITY_S), **self._redrive("standard-dead")})
        self._queue("fifo.fifo", {"VisibilityTimeout": str(VISIBILITY_S), "FifoQueue": "true", **self._redrive("fifo-dead.fifo")})
        for name, handler in FUNCTIONS.items():
            letters = {"DeadLetterConfig": {"TargetArn": self.arn("dead")}} if name == "bad" else {}
            self.api.create_function(
                FunctionName=name,
                Runtime=RUNTIME,
                Role=ROLE,
                Handler=f"app.{handler}",
                Code={"ZipFile": code()},
                Timeout=VISIBILITY_S,
                FileSystemConfigs=[{"Arn": ACCESS_POINT, "LocalMountPath": "/mnt/notes"}],
                **letters,
            )
        for name in FUNCTIONS:
            settle(self.api, name)
        self._send_results("good", 2, self.arn("won"), self.arn("lost"))
        self._send_results("bad", 1, None, self.arn("lost"))
        self._send_results("moody", 2, "arn:aws:lambda:us-east-1:000000000000:function:sink", self.arn("lost"))
        self._send_results("doomed", 0, None, None)
        self.api.put_function_concurrency(FunctionName="moody", ReservedConcurrentExecutions=2)
        for queue, name in (("standard", "standard"), ("fifo.fifo", "fifo")):
            self.mappings[name] = self.api.create_event_source_mapping(
                EventSourceArn=self.arn(queue),
                FunctionName=name,
                BatchSize=5,
                FunctionResponseTypes=["ReportBatchItemFailures"],
                ScalingConfig={"MaximumConcurrency": 3},
            )["UUID"]

    def arn(self, queue: str) -> str:
        return f"arn:aws:sqs:us-east-1:000000000000:{queue}"

    def _queue(self, name: str, attributes: dict[str, str]) -> None:
        self.urls[name] = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]

    def _redrive(self, name: str) -> dict[str, str]:
        return {"RedrivePolicy": json.dumps({"deadLetterTargetArn": self.arn(name), "maxReceiveCount": 2})}

    def _send_results(self, function: str, retries: int, success: str | None, failure: str | None) -> None:
        sides = {"OnSuccess": success, "OnFailure": failure}
        self.api.put_function_event_invoke_config(
            FunctionName=function,
            MaximumRetryAttempts=retries,
            DestinationConfig={side: {"Destination": arn} for side, arn in sides.items() if arn},
        )

    # -- what came of it ---------------------------------------------------------------------------------------------------------

    def read_notes(self, function: str) -> dict[str, list[Note]]:
        """What the function has written, by key, oldest first."""
        found: dict[str, list[Note]] = {}
        for what, key, *rest in self.read_lines(function):
            found.setdefault(key, []).append(Note(what, *rest))
        return found

    def read_lines(self, function: str) -> Iterator[list[Any]]:
        path = self.notes / function
        for line in path.read_text().splitlines() if path.exists() else []:
            yield json.loads(line)

    def waiting(self) -> dict[str, int]:
        """How much is still to be done, by where it lies; nothing that is 0."""
        found: dict[str, int] = {}
        for name in (*EVENT_FUNCTIONS, "sink"):
            counts = self.server.page(f"events/{name}")["counts"]
            found[name] = sum(counts[kind] for kind in ("queued", "running", "retrying", "delivering"))
        kinds = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed"]
        for queue in ("standard", "fifo.fifo"):
            counts = self.sqs.get_queue_attributes(QueueUrl=self.urls[queue], AttributeNames=kinds)["Attributes"]
            found[f"queue {queue}"] = sum(int(counts[kind]) for kind in kinds)
        return {name: count for name, count in found.items() if count}

    def redrive(self, function: str) -> int:
        """Give the dead events of ``function`` another chance; how many it were."""
        url = f"{self.server.endpoint}/_lambent/events/{function}"
        request = urllib.request.Request(url, method="POST", headers={"X-Lambent-Redrive": "1"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            number: int = json.load(answer)["redriven"]
        return number

    def empty(self, queue: str) -> Iterator[tuple[dict[str, Any], float]]:
        """All messages of a queue, taken off it, with the time at which each was sent."""
        url = self.urls[queue]
        while messages := self.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=600, AttributeNames=["SentTimestamp"]
        ).get("Messages"):
            entries = [{"Id": str(number), "ReceiptHandle": each["ReceiptHandle"]} for number, each in enumerate(messages)]
            assert "Failed" not in self.sqs.delete_message_batch(QueueUrl=url, Entries=entries)
            for each in messages:
                yield each, int(each["Attributes"]["SentTimestamp"]) / 1000
