"""What SnapStart, networks, capacity providers and durable executions let be combined."""

from __future__ import annotations

from typing import Any

import pytest

from lambent.control.function_kinds import check_create, check_update, members
from lambent.errors import ClientFault

SNAP = {"SnapStart": {"ApplyOn": "PublishedVersions"}}
PROVIDER = {
    "CapacityProviderConfig": {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": "arn:cp"}},
    "MemorySize": 2048,
}


@pytest.mark.parametrize("runtime", ["java11", "java17", "java21.al2023", "python3.12", "python3.13", "dotnet8"])
def test_runtimes_with_snap_start(runtime: str) -> None:
    check_create({"Runtime": runtime, **SNAP})


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"Runtime": "python3.11", **SNAP}, "python3.11 is not supported for SnapStart enabled functions."),
        ({"Runtime": "java8.al2", **SNAP}, "java8.al2 is not supported for SnapStart enabled functions."),
        ({"Runtime": "nodejs22.x", **SNAP}, "nodejs22.x is not supported for SnapStart enabled functions."),
        ({"Runtime": "provided.al2023", **SNAP}, "provided.al2023 is not supported"),
        (SNAP, "ContainerImage is not supported"),
        ({"Runtime": "python3.12", **SNAP, "EphemeralStorage": {"Size": 513}}, "ephemeral storage"),
        ({"Runtime": "python3.12", **SNAP, "FileSystemConfigs": [{}]}, "FileSystemConfigs"),
        ({"VpcConfig": {"SecurityGroupIds": ["sg-1"]}}, "must coexist"),
        ({"AcceleratorConfig": {"AcceleratorMemorySize": 1}}, "AcceleratorConfig isn't supported for Lambda Default functions."),
        ({"PublishTo": "LATEST_PUBLISHED"}, "PublishTo isn't supported for Lambda Default functions."),
        ({**PROVIDER, "MemorySize": 2047}, "2048 MB"),
        ({**PROVIDER, "LoggingConfig": {"LogFormat": "Text"}}, "LogFormat Text"),
        ({**PROVIDER, "AcceleratorConfig": {"AcceleratorMemorySize": 0}}, "at least 1"),
    ],
)
def test_creation_that_is_refused(params: dict[str, Any], text: str) -> None:
    with pytest.raises(ClientFault) as caught:
        check_create(params)
    assert caught.value.code == "InvalidParameterValueException"
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("before", "params", "text"),
    [
        ({}, PROVIDER, "isn't supported for Lambda Default functions."),
        ({}, {"DurableConfig": {"ExecutionTimeout": 1}}, "DurableConfig"),
        ({"Runtime": "python3.12", **SNAP}, {"Runtime": "python3.11"}, "python3.11 is not supported"),
        ({"Runtime": "python3.12", **SNAP}, {"EphemeralStorage": {"Size": 1024}}, "ephemeral storage"),
        (PROVIDER, {"MemorySize": 1024}, "2048 MB"),
        (PROVIDER, SNAP, "SnapStart"),
    ],
)
def test_change_that_is_refused(before: dict[str, Any], params: dict[str, Any], text: str) -> None:
    with pytest.raises(ClientFault) as caught:
        check_update(before, params)
    assert text in caught.value.message
    check_update(before, {"Description": "of no account"})


def test_no_snapshot_is_claimed_that_is_not_taken() -> None:
    assert members({}, SNAP) == {"SnapStart": {"ApplyOn": "PublishedVersions", "OptimizationStatus": "Off"}}


def test_members_of_nested_documents_are_merged_where_aws_merges_them() -> None:
    before = members({}, {"DurableConfig": {"ExecutionTimeout": 9, "KMSKeyArn": "arn:key"}})
    assert before["DurableConfig"] == {"ExecutionTimeout": 9, "RetentionPeriodInDays": 14, "KMSKeyArn": "arn:key"}
    after = members(before, {"DurableConfig": {"RetentionPeriodInDays": 2, "KMSKeyArn": ""}})
    assert after["DurableConfig"] == {"ExecutionTimeout": 9, "RetentionPeriodInDays": 2}
