"""The AWS CLI, unchanged, against a real server: what a user types, and what comes back."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from acceptance_helpers import ECHO, ROLE, RUNTIME, zipped

_CLI = Path(sys.executable).with_name("aws")
_SOURCE = "def handler(event, context):\n    print('cli', event)\n    return {'got': event}\n"


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**kept, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "AWS_PAGER": ""}


@pytest.fixture
def aws(server, tmp_path):
    """Run ``aws …`` and give its JSON (or text, or nothing)."""

    def run(*words: str, fails: bool = False):
        command = [str(_CLI), "--endpoint-url", server.endpoint, "--output", "json", *words]
        done = subprocess.run(command, env=_environment(), cwd=tmp_path, capture_output=True, text=True, check=False)
        assert bool(done.returncode) == fails, done.stderr
        if fails:
            return done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    return run


def _v2() -> str | None:
    """A version 2 of the AWS CLI on this machine; only that one has `logs tail`."""
    found = shutil.which("aws")
    if found is None or Path(found).resolve() == _CLI.resolve():
        return None
    done = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    return found if done.stdout.startswith("aws-cli/2") else None


def test_the_life_of_a_function(aws, tmp_path):
    (tmp_path / "code.zip").write_bytes(zipped({"app.py": _SOURCE}))
    create = ["--runtime", RUNTIME, "--role", ROLE, "--handler", "app.handler", "--zip-file", "fileb://code.zip", "--tags", "a=1"]
    created = aws("lambda", "create-function", "--function-name", "cli", *create)
    assert created["State"] == "Pending"
    aws("lambda", "wait", "function-active-v2", "--function-name", "cli")
    assert aws("lambda", "get-function", "--function-name", "cli")["Configuration"]["State"] == "Active"
    assert "cli" in [entry["FunctionName"] for entry in aws("lambda", "list-functions", "--max-items", "50")["Functions"]]

    invoke = ["--function-name", "cli", "--payload", '{"n": 1}', "--log-type", "Tail", "out.json"]
    answer = aws("lambda", "invoke", *invoke)
    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    assert json.loads((tmp_path / "out.json").read_text()) == {"got": {"n": 1}}
    assert "cli {'n': 1}" in base64.b64decode(answer["LogResult"]).decode()

    (tmp_path / "code.zip").write_bytes(zipped({"app.py": ECHO}))
    aws("lambda", "update-function-code", "--function-name", "cli", "--zip-file", "fileb://code.zip")
    aws("lambda", "wait", "function-updated-v2", "--function-name", "cli")
    aws("lambda", "invoke", "--function-name", "cli", "--payload", '{"n": 2}', "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == {"n": 2}

    changed = aws(
        "lambda", "update-function-configuration", "--function-name", "cli", "--timeout", "9", "--environment", "Variables={AA=b}"
    )
    assert (changed["Timeout"], changed["Environment"]) == (9, {"Variables": {"AA": "b"}})
    aws("lambda", "wait", "function-updated", "--function-name", "cli")

    arn = created["FunctionArn"]
    aws("lambda", "tag-resource", "--resource", arn, "--tags", "b=2")
    assert aws("lambda", "list-tags", "--resource", arn)["Tags"] == {"a": "1", "b": "2"}
    aws("lambda", "untag-resource", "--resource", arn, "--tag-keys", "a")
    assert aws("lambda", "list-tags", "--resource", arn)["Tags"] == {"b": "2"}

    groups = aws("logs", "describe-log-groups", "--log-group-name-prefix", "/aws/lambda/cli")["logGroups"]
    assert [group["logGroupName"] for group in groups] == ["/aws/lambda/cli"]
    found = aws("logs", "filter-log-events", "--log-group-name", "/aws/lambda/cli", "--interleaved", "--filter-pattern", "REPORT")
    assert [event["message"].split(" ")[0] for event in found["events"]] == ["REPORT", "REPORT"]

    aws("lambda", "delete-function", "--function-name", "cli")
    assert "ResourceNotFoundException" in aws("lambda", "get-function", "--function-name", "cli", fails=True)


def test_identity_and_account(aws):
    assert aws("sts", "get-caller-identity")["Account"] == "000000000000"
    assert aws("lambda", "get-account-settings")["AccountLimit"]["CodeSizeUnzipped"] == 262_144_000


def test_what_logs_tail_follow_asks(server, api, logs, deploy):
    """The calls of ``aws logs tail --follow``: filter from the newest timestamp seen on, and drop the events seen already."""
    deploy("followed", _SOURCE)
    seen: list[str] = []
    ids: set[str] = set()
    start = 0
    for number in range(3):
        api.invoke(FunctionName="followed", Payload=json.dumps(number))
        arguments = {"logGroupName": "/aws/lambda/followed", "interleaved": True, "startTime": start}
        for page in logs.get_paginator("filter_log_events").paginate(**arguments):
            for event in page["events"]:
                start = max(start, event["timestamp"])
                if event["eventId"] not in ids:
                    ids.add(event["eventId"])
                    seen.append(event["message"].strip())
    assert [line for line in seen if line.startswith("cli")] == ["cli 0", "cli 1", "cli 2"]
    assert sum(line.startswith("REPORT") for line in seen) == 3


def test_logs_tail_follow(server, api, deploy):
    cli = _v2()
    if cli is None:
        pytest.skip("`aws logs tail` exists in version 2 of the AWS CLI only, which is not on this machine")
    deploy("tailed", _SOURCE)
    api.invoke(FunctionName="tailed", Payload="1")
    command = [cli, "--endpoint-url", server.endpoint, "logs", "tail", "/aws/lambda/tailed", "--follow", "--format", "short"]
    with subprocess.Popen(command, env=_environment(), stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        lines = iter(tail.stdout)
        assert any("cli 1" in line for line in lines)
        api.invoke(FunctionName="tailed", Payload="2")
        assert any("cli 2" in line for line in lines)
        tail.terminate()
