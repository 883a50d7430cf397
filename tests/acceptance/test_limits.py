"""Limits are settings, and each is the one that is met: what a server with small ones refuses, and what it lets in just below."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from acceptance_helpers import ROLE, RUNTIME, refused, settle, stop_cleanly, zipped

from lambent.testing.local_server import LocalServer

QUEUE = "arn:aws:sqs:us-east-1:000000000000:q"
SOURCE = "def handler(event, context):\n    return 'x' * event\n"
LIMITS = {
    "sync_payload": 1_000,
    "async_payload": 500,
    "response_payload": 2_000,
    "zip_direct": 6_000,
    "code_unzipped": 5_000,
    "environment": 1_024,
    "memory_min_mb": 130,
    "memory_max_mb": 300,
    "timeout_max_s": 20,
    "ephemeral_min_mb": 520,
    "ephemeral_max_mb": 600,
    "tags": 3,
    "layers": 1,
    "policy": 600,
    "code_storage": 9_000,
    "page": 2,
    "filters": 1,
    "capacity_providers": 1,
    "capacity_provider_versions": 1,
}


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    config: Path = tmp_path_factory.mktemp("tight") / "lambent.toml"
    config.write_text("[limits]\n" + "".join(f"{name} = {value}\n" for name, value in LIMITS.items()))
    with LocalServer(config=config) as running:
        running.client("sqs").create_queue(QueueName="q")
        yield running
        stop_cleanly(running)


@pytest.fixture
def api(tight: LocalServer) -> Iterator[Any]:
    """A client; what a test leaves is removed."""
    client = tight.client("lambda")
    yield client
    while functions := client.list_functions()["Functions"]:
        for each in functions:
            client.delete_function(FunctionName=each["FunctionName"])


def creation(name: str = "f", source: str = SOURCE, **more: Any) -> dict[str, Any]:
    code = {"ZipFile": zipped({"app.py": source})}
    base = {"FunctionName": name, "Runtime": RUNTIME, "Role": ROLE, "Handler": "app.handler", "Code": code}
    return {**base, "MemorySize": 256, "Timeout": 10, "EphemeralStorage": {"Size": 520}, **more}


@pytest.mark.parametrize(
    ("params", "code", "text"),
    [
        (
            {"MemorySize": 129},
            "ValidationException",
            "'memorySize' failed to satisfy constraint: Member must have value greater than or equal to 130",
        ),
        ({"MemorySize": 301}, "ValidationException", "Member must have value less than or equal to 300"),
        ({"Timeout": 21}, "ValidationException", "'timeout' failed to satisfy constraint: Member must have value less than or equal to 20"),
        ({"EphemeralStorage": {"Size": 519}}, "ValidationException", "Member must have value greater than or equal to 520"),
        ({"EphemeralStorage": {"Size": 601}}, "ValidationException", "Member must have value less than or equal to 600"),
        (
            {"Environment": {"Variables": {"KEY": "v" * 1_024}}},
            "InvalidParameterValueException",
            "exceeded the 1KB limit. String measured: {",
        ),
        ({"Tags": {f"t{n}": "" for n in range(4)}}, "InvalidParameterValueException", "Number of tags exceeds resource tag limit."),
    ],
)
def test_configurations(api: Any, params: dict[str, Any], code: str, text: str) -> None:
    assert text in refused(code, api.create_function, **creation(**params))


def test_the_largest_configuration_that_is_let_in(api: Any) -> None:
    variables = {"KEY": "v" * (1_024 - len('{"KEY":""}'))}
    tags = {f"t{n}": "" for n in range(3)}
    most = {"MemorySize": 300, "Timeout": 20, "EphemeralStorage": {"Size": 600}, "Environment": {"Variables": variables}, "Tags": tags}
    assert api.create_function(**creation(**most))["MemorySize"] == 300


def test_code(api: Any) -> None:
    noise = "# " + os.urandom(3_000).hex()
    text = refused("RequestEntityTooLargeException", api.create_function, **creation(source=SOURCE + noise))
    assert text == "Zipped size must be smaller than 6000 bytes"
    text = refused("InvalidParameterValueException", api.create_function, **creation(source=SOURCE + "#" * 5_000))
    assert text == "Unzipped size must be smaller than 5000 bytes"
    api.create_function(**creation("one", SOURCE + "#" * 4_800))
    refused("CodeStorageExceededException", api.create_function, **creation("two", SOURCE + "#" * 4_700))
    api.create_function(**creation("two", SOURCE))


def test_layers(api: Any) -> None:
    versions = [
        api.publish_layer_version(LayerName=f"l{n}", Content={"ZipFile": zipped({f"{n}.txt": "n"})})["LayerVersionArn"] for n in range(2)
    ]
    assert refused("InvalidParameterValueException", api.create_function, **creation(Layers=versions)) == (
        "Cannot reference more than 1 layers."
    )
    api.create_function(**creation(Layers=versions[:1]))
    for number in range(2):
        api.delete_layer_version(LayerName=f"l{number}", VersionNumber=1)


def test_payloads(api: Any) -> None:
    api.create_function(**creation())
    settle(api, "f")
    event = b'"' + b"e" * 998 + b'"'
    assert api.invoke(FunctionName="f", Payload=event).get("FunctionError")  # let in; the function cannot use it
    text = refused("RequestTooLargeException", api.invoke, FunctionName="f", Payload=event + b" ")
    assert text == "1001 byte payload is too large for the RequestResponse invocation type (limit 1000 bytes)"
    assert api.invoke(FunctionName="f", Payload=b"1", InvocationType="Event")["StatusCode"] == 202
    text = refused("RequestTooLargeException", api.invoke, FunctionName="f", Payload=b" " * 500 + b"1", InvocationType="Event")
    assert text == "501 byte payload is too large for the Event invocation type (limit 500 bytes)"
    assert "FunctionError" not in api.invoke(FunctionName="f", Payload=b"1998")
    answer = api.invoke(FunctionName="f", Payload=b"1999")
    assert b"exceeded maximum allowed payload size (2000 bytes)" in answer["Payload"].read()


def test_policies(api: Any) -> None:
    api.create_function(**creation())
    grant = {"FunctionName": "f", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}
    api.add_permission(**grant, StatementId="one")
    refused("PolicyLengthExceededException", api.add_permission, **grant, StatementId="two" * 30, SourceArn="arn:aws:s3:::" + "b" * 500)
    api.add_permission(**grant, StatementId="two")


def test_pages(api: Any) -> None:
    for name in ("a", "b", "c"):
        api.create_function(**creation(name))
    page = api.list_functions(MaxItems=50)
    assert [each["FunctionName"] for each in page["Functions"]] == ["a", "b"]
    assert [each["FunctionName"] for each in api.list_functions(Marker=page["NextMarker"])["Functions"]] == ["c"]


def test_filters_of_mappings(api: Any) -> None:
    api.create_function(**creation())
    two = {"Filters": [{"Pattern": "{}"}, {"Pattern": '{"body":[1]}'}]}
    refused("InvalidParameterValueException", api.create_event_source_mapping, FunctionName="f", EventSourceArn=QUEUE, FilterCriteria=two)
    one = {"Filters": two["Filters"][:1]}
    made = api.create_event_source_mapping(FunctionName="f", EventSourceArn=QUEUE, FilterCriteria=one, Enabled=False)
    api.delete_event_source_mapping(UUID=made["UUID"])


def test_capacity_providers_and_the_versions_on_them(api: Any) -> None:
    provider = {
        "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": []},
        "PermissionsConfig": {"CapacityProviderOperatorRoleArn": ROLE},
    }
    made = api.create_capacity_provider(CapacityProviderName="one", **provider)["CapacityProvider"]
    refused("CapacityProviderLimitExceededException", api.create_capacity_provider, CapacityProviderName="two", **provider)
    while api.get_capacity_provider(CapacityProviderName="one")["CapacityProvider"]["State"] != "Active":
        pass
    config = {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": made["CapacityProviderArn"]}}
    api.create_function(**creation(MemorySize=2_048, CapacityProviderConfig=config, Publish=True))
    api.get_waiter("published_version_active").wait(FunctionName="f", Qualifier="1", WaiterConfig={"Delay": 1})
    api.update_function_configuration(FunctionName="f", Description="changed")
    api.get_waiter("function_updated_v2").wait(FunctionName="f", WaiterConfig={"Delay": 0.02, "MaxAttempts": 3_000})
    refused("FunctionVersionsPerCapacityProviderLimitExceededException", api.publish_version, FunctionName="f")
