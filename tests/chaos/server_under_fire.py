"""A server that is killed while clients work, and the clients' own record of what was acknowledged.

``Ledger`` is the truth of the test: a line enters it only after the server has answered with success. Whatever may or may not have
happened when the server died (a request without an answer) is in ``unknown``, and either outcome is right.
"""

from __future__ import annotations

import io
import random
import threading
import time
import zipfile
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from lambent.testing.local_server import LocalServer

ROLE = "arn:aws:iam::000000000000:role/test"
SOURCE = "def handler(event, context):\n    print('seen', event)\n    return [{number}, event]\n"


@dataclass
class Ledger:
    """What clients were told. Guarded by ``lock``."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    functions: dict[str, int] = field(default_factory=dict)  # name -> number that its code answers with
    tags: dict[str, str] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    answered: int = 0


def code(number: int) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("app.py", SOURCE.format(number=number))
    return memory.getvalue()


def work(server: LocalServer, ledger: Ledger, worker: int, stop: threading.Event, runtime: str) -> None:
    """Create, tag, update, invoke and log until the server is gone."""
    api, logs = server.client("lambda"), server.client("logs")
    group, stream = "/chaos", f"worker-{worker}-{time.monotonic_ns()}"
    number = worker * 1_000_000
    try:
        with_suppressed_exists(logs.create_log_group, logGroupName=group)
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        while not stop.is_set():
            number += 1
            name = f"f-{stream}-{number}"
            with ledger.lock:
                ledger.unknown.add(name)
            created = api.create_function(
                FunctionName=name, Runtime=runtime, Role=ROLE, Handler="app.handler", Code={"ZipFile": code(number)}
            )
            with ledger.lock:
                ledger.functions[name] = number
            api.tag_resource(Resource=created["FunctionArn"], Tags={"number": str(number)})
            with ledger.lock:
                ledger.tags[name] = str(number)
            api.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.01, "MaxAttempts": 3000})
            answer = api.invoke(FunctionName=name, Payload=b"1")
            assert answer["Payload"].read() == f"[{number}, 1]".encode()
            line = f"line of {name}"
            logs.put_log_events(
                logGroupName=group, logStreamName=stream, logEvents=[{"timestamp": int(time.time() * 1000), "message": line}]
            )
            with ledger.lock:
                ledger.lines.append(line)
                ledger.answered += 1
            api.update_function_configuration(FunctionName=name, Description=line)
            with ledger.lock:
                ledger.descriptions[name] = line
    except (BotoCoreError, ClientError):
        if not stop.is_set():  # else the server is gone, as it should be
            raise


def with_suppressed_exists(call: Any, **parameters: Any) -> None:
    try:
        call(**parameters)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceAlreadyExistsException":
            raise


def check(server: LocalServer, ledger: Ledger) -> None:
    """Everything that was acknowledged is there, and every function answers."""
    api, logs = server.client("lambda"), server.client("logs")
    for name, number in ledger.functions.items():
        api.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.01, "MaxAttempts": 3000})
        configuration = api.get_function_configuration(FunctionName=name)
        assert configuration.get("Description", "") in (ledger.descriptions.get(name, ""), f"line of {name}"), name
        if name in ledger.descriptions:
            assert configuration["Description"] == ledger.descriptions[name]
        tags = api.list_tags(Resource=configuration["FunctionArn"]).get("Tags", {})
        if name in ledger.tags:
            assert tags == {"number": ledger.tags[name]}, name
        answer = api.invoke(FunctionName=name, Payload=b"2")
        assert answer["Payload"].read() == f"[{number}, 2]".encode(), name
    listed = {each["FunctionName"] for page in api.get_paginator("list_functions").paginate() for each in page["Functions"]}
    assert set(ledger.functions) <= listed
    assert listed <= ledger.unknown, "functions that nobody asked for"
    found = [
        event["message"] for page in logs.get_paginator("filter_log_events").paginate(logGroupName="/chaos") for event in page["events"]
    ]
    assert sorted(set(found)) == sorted(found), "a line came twice"
    assert set(ledger.lines) <= set(found)


def pause(seed: random.Random) -> float:
    return seed.uniform(0.2, 1.2)
