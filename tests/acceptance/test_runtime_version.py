"""The version of a runtime: what the configuration names, what INIT_START prints and what a function can be held to are one."""

from __future__ import annotations

import re

import botocore.exceptions
import pytest

SOURCE = "def handler(event, context):\n    return 1\n"


def test_one_version_everywhere(server, api, deploy):
    deploy("versioned", SOURCE, Publish=True)
    api.invoke(FunctionName="versioned")
    arn = api.get_function_configuration(FunctionName="versioned")["RuntimeVersionConfig"]["RuntimeVersionArn"]
    assert re.fullmatch(r"arn:aws:lambda:[a-z0-9-]+::runtime:[0-9a-f]{64}", arn)
    assert api.get_function(FunctionName="versioned", Qualifier="1")["Configuration"]["RuntimeVersionConfig"] == {"RuntimeVersionArn": arn}
    lines = server.client("logs").filter_log_events(logGroupName="/aws/lambda/versioned", filterPattern="INIT_START")["events"]
    assert re.fullmatch(rf"INIT_START Runtime Version: python:3\.\d+\.v\d+\tRuntime Version ARN: {arn}\n", lines[0]["message"])
    held = api.put_runtime_management_config(FunctionName="versioned", UpdateRuntimeOn="Manual", RuntimeVersionArn=arn)
    assert held["RuntimeVersionArn"] == arn
    other = arn[:-1] + ("0" if arn[-1] != "0" else "1")
    with pytest.raises(botocore.exceptions.ClientError, match=f"Available: {arn}"):
        api.put_runtime_management_config(FunctionName="versioned", UpdateRuntimeOn="Manual", RuntimeVersionArn=other)
    assert api.get_runtime_management_config(FunctionName="versioned")["RuntimeVersionArn"] == arn
