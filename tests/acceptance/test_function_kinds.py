"""Functions on capacity providers, with SnapStart, a network, accelerators, durable executions: kept, shown, and effective as told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from acceptance_helpers import ROLE, RUNTIME, call, refused, settle, zipped
from botocore.config import Config
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer

SOURCE = "def handler(event, context):\n    return [%r, context.function_version]\n"


def creation(name: str, mark: str = "one", **more: Any) -> dict[str, Any]:
    return {
        "FunctionName": name,
        "Runtime": RUNTIME,
        "Role": ROLE,
        "Handler": "app.handler",
        "Code": {"ZipFile": zipped({"app.py": SOURCE % mark})},
        **more,
    }


def provider(api: Any, name: str) -> dict[str, Any]:
    """A capacity provider that is Active; gives the CapacityProviderConfig of a function on it."""
    made = api.create_capacity_provider(
        CapacityProviderName=name,
        VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
        PermissionsConfig={"CapacityProviderOperatorRoleArn": ROLE},
    )["CapacityProvider"]
    pause = threading.Event()
    for _ in range(600):
        if api.get_capacity_provider(CapacityProviderName=name)["CapacityProvider"]["State"] == "Active":
            break
        pause.wait(0.02)
    return {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": made["CapacityProviderArn"]}}


def wait_for(api: Any, name: str, state: str, **more: Any) -> dict[str, Any]:
    pause = threading.Event()
    for _ in range(600):
        found: dict[str, Any] = api.get_function_configuration(FunctionName=name, **more)
        if found["State"] == state:
            return found
        pause.wait(0.02)
    raise AssertionError(found)


def wait_until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(600):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError("it never came true")


def test_what_is_published_on_a_capacity_provider_is_invoked(api: Any, server: LocalServer) -> None:
    config = provider(api, "iron")
    made = api.create_function(**creation("managed", MemorySize=2048, CapacityProviderConfig=config))
    assert made["CapacityProviderConfig"] == config
    assert made["LoggingConfig"]["LogFormat"] == "JSON"
    wait_for(api, "managed", "ActiveNonInvocable")
    assert "no published versions" in refused("NoPublishedVersionException", api.invoke, FunctionName="managed")
    assert "ActiveNonInvocable" in refused("ResourceConflictException", api.invoke, FunctionName="managed", Qualifier="$LATEST")

    published = api.publish_version(FunctionName="managed", PublishTo="LATEST_PUBLISHED")
    assert published["Version"] == "$LATEST.PUBLISHED"
    assert published["FunctionArn"] == made["FunctionArn"] + ":$LATEST.PUBLISHED"
    assert (published["State"], published["StateReasonCode"]) == ("Pending", "Creating")
    ready = wait_for(api, "managed", "Active", Qualifier="$LATEST.PUBLISHED")
    assert (ready["LastUpdateStatus"], ready["RevisionId"]) == ("Successful", published["RevisionId"])
    assert call(api, "managed")[0] == ["one", "$LATEST.PUBLISHED"]
    assert call(api, "managed:$LATEST.PUBLISHED")[1]["ExecutedVersion"] == "$LATEST.PUBLISHED"
    assert api.publish_version(FunctionName="managed")["Version"] == "1"
    api.get_waiter("published_version_active").wait(FunctionName="managed", Qualifier="1", WaiterConfig={"Delay": 1})
    # What is published stays as it is until it is published again.
    api.update_function_code(FunctionName="managed", ZipFile=zipped({"app.py": SOURCE % "two"}))
    settle(api, "managed")
    assert call(api, "managed")[0] == ["one", "$LATEST.PUBLISHED"]
    again = api.update_function_code(FunctionName="managed", ZipFile=zipped({"app.py": SOURCE % "three"}), PublishTo="LATEST_PUBLISHED")
    assert (again["Version"], again["State"]) == ("$LATEST.PUBLISHED", "Pending")
    api.get_waiter("published_version_active").wait(FunctionName="managed", Qualifier="$LATEST.PUBLISHED", WaiterConfig={"Delay": 1})
    assert call(api, "managed")[0] == ["three", "$LATEST.PUBLISHED"]
    assert call(api, "managed:1")[0] == ["one", "1"]

    listed = [each["Version"] for each in api.list_versions_by_function(FunctionName="managed")["Versions"]]
    assert listed == ["$LATEST", "1", "$LATEST.PUBLISHED"]
    pages = api.get_paginator("list_versions_by_function").paginate(FunctionName="managed", PaginationConfig={"PageSize": 1})
    assert [each["Version"] for page in pages for each in page["Versions"]] == listed
    users = api.list_function_versions_by_capacity_provider(CapacityProviderName="iron")["FunctionVersions"]
    assert len(users) == 3
    refused("ResourceConflictException", api.delete_capacity_provider, CapacityProviderName="iron")
    api.create_alias(FunctionName="managed", Name="live", FunctionVersion="$LATEST.PUBLISHED")
    assert call(api, "managed:live")[0] == ["three", "$LATEST.PUBLISHED"]

    put = {"FunctionName": "managed", "Qualifier": "1"}
    zero = {"MinExecutionEnvironments": 0, "MaxExecutionEnvironments": 0}
    assert api.put_function_scaling_config(**put, FunctionScalingConfig=zero)["FunctionState"] == "Deactivated"
    assert "Deactivated" in refused("ResourceConflictException", api.invoke, FunctionName="managed:1")
    assert api.get_function_configuration(**put)["State"] == "Deactivated"
    some = {"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 5}
    assert api.put_function_scaling_config(**put, FunctionScalingConfig=some)["FunctionState"] == "Active"
    assert api.get_function_scaling_config(**put)["AppliedFunctionScalingConfig"] == some
    assert call(api, "managed:1")[0] == ["one", "1"]

    server.kill()
    server.start()
    assert call(api, "managed")[0] == ["three", "$LATEST.PUBLISHED"]
    api.delete_alias(FunctionName="managed", Name="live")
    api.delete_function(FunctionName="managed", Qualifier="$LATEST.PUBLISHED")
    refused("NoPublishedVersionException", api.invoke, FunctionName="managed")
    api.delete_function(FunctionName="managed")
    assert api.delete_capacity_provider(CapacityProviderName="iron")["CapacityProvider"]["State"] == "Deleting"


def test_the_least_number_of_environments_is_kept_and_they_know_that_they_are_managed(api: Any, server: LocalServer) -> None:
    source = "import os\ndef handler(event, context):\n    return os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']\n"
    made = creation("knowing", MemorySize=2048, CapacityProviderConfig=provider(api, "known"), Publish=True)
    api.create_function(**{**made, "Code": {"ZipFile": zipped({"app.py": source})}})
    wait_for(api, "knowing", "Active", Qualifier="1")
    least = {"MinExecutionEnvironments": 2, "MaxExecutionEnvironments": 4}
    api.put_function_scaling_config(FunctionName="knowing", Qualifier="1", FunctionScalingConfig=least)

    def environments() -> int:
        found = [each for each in server.page("environments")["environments"] if each["function"].endswith(":knowing")]
        return sum(each["state"] in ("idle", "frozen") for each in found)

    wait_until(lambda: environments() == 2)
    assert call(api, "knowing:1")[0] == "lambda-managed-instances"
    assert environments() == 2
    api.delete_function(FunctionName="knowing")


def test_the_greatest_number_of_environments_bounds_what_runs_at_once(api: Any, server: LocalServer) -> None:
    source = "import time\ndef handler(event, context):\n    time.sleep(event)\n    return context.log_stream_name\n"
    made = creation("bounded", MemorySize=2048, Timeout=30, CapacityProviderConfig=provider(api, "bound"), Publish=True)
    api.create_function(**{**made, "Code": {"ZipFile": zipped({"app.py": source})}})
    wait_for(api, "bounded", "Active", Qualifier="1")
    two = {"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 2}
    api.put_function_scaling_config(FunctionName="bounded", Qualifier="1", FunctionScalingConfig=two)
    once = server.client("lambda", config=Config(retries={"total_max_attempts": 1}, max_pool_connections=8))

    def busy() -> int:
        found = [each for each in server.page("environments")["environments"] if each["function"].endswith(":bounded")]
        return sum(each["state"] == "busy" for each in found)

    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(call, once, "bounded:1", 3) for _ in range(2)]
        wait_until(lambda: busy() == 2)
        with pytest.raises(ClientError) as caught:
            call(once, "bounded:1", 0)
        answers = {each.result()[0] for each in running}
    assert (caught.value.response["Error"]["Code"], caught.value.response["Reason"]) == (
        "TooManyRequestsException",
        "ConcurrentInvocationLimitExceeded",
    )
    assert len(answers) == 2
    assert call(api, "bounded:1", 0)[0] in answers
    api.delete_function(FunctionName="bounded")


def test_what_a_capacity_provider_asks_of_functions(api: Any, deploy: Any) -> None:
    config = provider(api, "picky")

    def why(**more: Any) -> str:
        return refused("InvalidParameterValueException", api.create_function, **creation("asked", CapacityProviderConfig=config, **more))

    assert "at least 2048 MB" in why()
    assert "TenancyConfig" in why(MemorySize=2048, TenancyConfig={"TenantIsolationMode": "PER_TENANT"})
    assert "SnapStart" in why(MemorySize=2048, SnapStart={"ApplyOn": "PublishedVersions"})
    nowhere = {
        "LambdaManagedInstancesCapacityProviderConfig": {
            "CapacityProviderArn": "arn:aws:lambda:us-east-1:000000000000:capacity-provider:nowhere"
        }
    }
    refused("ResourceNotFoundException", api.create_function, **creation("asked", CapacityProviderConfig=nowhere, MemorySize=2048))
    deploy("plain", SOURCE % "plain")
    text = refused("InvalidParameterValueException", api.update_function_configuration, FunctionName="plain", CapacityProviderConfig=config)
    assert text == "CapacityProviderConfig isn't supported for Lambda Default functions."
    refused("InvalidParameterValueException", api.publish_version, FunctionName="plain", PublishTo="LATEST_PUBLISHED")
    refused("InvalidParameterValueException", api.create_function, **creation("asked", AcceleratorConfig={"AcceleratorMemorySize": 16}))
    made = api.create_function(
        **creation("fast", CapacityProviderConfig=config, MemorySize=20_480, AcceleratorConfig={"AcceleratorMemorySize": 16})
    )
    assert (made["MemorySize"], made["AcceleratorConfig"]) == (20_480, {"AcceleratorMemorySize": 16})
    assert api.get_function_configuration(FunctionName="fast")["AcceleratorConfig"] == {"AcceleratorMemorySize": 16}
    api.delete_function(FunctionName="fast")


def test_a_network_is_kept_until_it_is_detached(api: Any, deploy: Any) -> None:
    network = {"SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    deploy("snapped", SOURCE % "s", VpcConfig=network)
    shown = api.get_function_configuration(FunctionName="snapped")
    assert shown["VpcConfig"] == {**network, "VpcId": "", "Ipv6AllowedForDualStack": False}
    assert call(api, "snapped")[0] == ["s", "$LATEST"]
    detached = api.update_function_configuration(FunctionName="snapped", VpcConfig={"SubnetIds": [], "SecurityGroupIds": []})
    assert detached["VpcConfig"]["SubnetIds"] == []
    settle(api, "snapped")
    text = refused(
        "InvalidParameterValueException", api.update_function_configuration, FunctionName="snapped", VpcConfig={"SubnetIds": ["subnet-1"]}
    )
    assert text == "SubnetIds and SecurityIds must coexist or be both empty list."


def test_durable_functions_are_kept_and_not_run_as_something_else(api: Any, deploy: Any) -> None:
    deploy("lasting", SOURCE % "d", DurableConfig={"ExecutionTimeout": 60})
    shown = api.get_function_configuration(FunctionName="lasting")
    assert shown["DurableConfig"] == {"ExecutionTimeout": 60, "RetentionPeriodInDays": 14}
    updated = api.update_function_configuration(FunctionName="lasting", DurableConfig={"RetentionPeriodInDays": 3})
    assert updated["DurableConfig"] == {"ExecutionTimeout": 60, "RetentionPeriodInDays": 3}
    refused("NotImplementedException", api.invoke, FunctionName="lasting", Payload=json.dumps({}))
    deploy("brief", SOURCE % "b")
    refused(
        "InvalidParameterValueException", api.update_function_configuration, FunctionName="brief", DurableConfig={"ExecutionTimeout": 1}
    )
