"""Functions that rest, on a server that lets them soon."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from acceptance_helpers import ROLE, RUNTIME, stop_cleanly, zipped
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer

NETWORK = {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}


@pytest.fixture(scope="module")
def sleepy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    config = tmp_path_factory.mktemp("sleepy") / "lambent.toml"
    config.write_text("[limits]\nidle_seconds = 2.0\n")
    with LocalServer(config=config) as running:
        yield running
        stop_cleanly(running)


def until(api: Any, state: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while True:
        shown: dict[str, Any] = api.get_function_configuration(FunctionName="sleeper")
        if shown["State"] == state:
            return shown
        assert time.monotonic() < deadline, shown
        time.sleep(0.01)


def test_the_first_invocation_after_a_rest_is_refused_and_wakes_the_function(sleepy: LocalServer) -> None:
    api = sleepy.client("lambda")
    code = {"ZipFile": zipped({"app.py": "def handler(event, context):\n    return event\n"})}
    api.create_function(FunctionName="sleeper", Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Code=code, VpcConfig=NETWORK)
    assert until(api, "Inactive")["StateReasonCode"] == "Idle"
    with pytest.raises(ClientError) as refused:
        api.invoke(FunctionName="sleeper")
    assert refused.value.response["Error"]["Code"] == "ResourceNotReadyException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 502
    until(api, "Active")
    assert json.load(api.invoke(FunctionName="sleeper", Payload="7")["Payload"]) == 7
