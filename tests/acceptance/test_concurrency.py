"""Reserved and provisioned concurrency as boto3 sees them, with real sandboxes that crash and time out."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from acceptance_helpers import call
from botocore.config import Config
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000")
WHO = """import os
KIND = os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']
def handler(event, context):
    return [KIND, context.log_stream_name]
"""


@pytest.fixture
def one_shot(server: LocalServer) -> Any:
    """A client that takes a 429 for an answer."""
    return server.client("lambda", config=Config(retries={"total_max_attempts": 1}, max_pool_connections=32))


def refusal(awaited: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        awaited()
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def until(condition: Callable[[], Any]) -> Any:
    """Poll what only a server can say."""
    pause = threading.Event()
    for _ in range(1_200):
        found = condition()
        if found:
            return found
        pause.wait(0.05)
    raise AssertionError("it never came true")


def ready(api: Any, name: str, qualifier: str, status: str = "READY") -> dict[str, Any]:
    def look() -> Any:
        found = api.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)
        return found if found["Status"] == status else None

    found: dict[str, Any] = until(look)
    return found


class TestReserved:
    def test_it_is_kept_shown_and_given_back(self, api: Any, deploy: Any) -> None:
        deploy("kept", WHO)
        assert "ReservedConcurrentExecutions" not in api.get_function_concurrency(FunctionName="kept")
        assert api.put_function_concurrency(FunctionName="kept", ReservedConcurrentExecutions=7)["ReservedConcurrentExecutions"] == 7
        assert api.get_function_concurrency(FunctionName="kept")["ReservedConcurrentExecutions"] == 7
        assert api.get_function(FunctionName="kept")["Concurrency"] == {"ReservedConcurrentExecutions": 7}
        assert api.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == 993
        assert api.delete_function_concurrency(FunctionName="kept")["ResponseMetadata"]["HTTPStatusCode"] == 204
        assert "Concurrency" not in api.get_function(FunctionName="kept")
        api.put_function_concurrency(FunctionName="kept", ReservedConcurrentExecutions=900)
        api.delete_function(FunctionName="kept")
        assert api.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == 1000

    def test_refusals(self, api: Any, deploy: Any) -> None:
        deploy("refused", WHO)
        assert refusal(lambda: api.put_function_concurrency(FunctionName="refused", ReservedConcurrentExecutions=901)) == (
            "InvalidParameterValueException",
            "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution "
            "below its minimum value of [100].",
        )
        assert refusal(lambda: api.put_function_concurrency(FunctionName="refused:$LATEST", ReservedConcurrentExecutions=1)) == (
            "InvalidParameterValueException",
            "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. "
            "Please specify either a function name or an unqualified function ARN.",
        )
        code, message = refusal(lambda: api.put_function_concurrency(FunctionName="nobody", ReservedConcurrentExecutions=1))
        assert (code, message.startswith("Function not found: arn:")) == ("ResourceNotFoundException", True)

    def test_none_at_all(self, api: Any, one_shot: Any, deploy: Any) -> None:
        deploy("shut", WHO)
        api.put_function_concurrency(FunctionName="shut", ReservedConcurrentExecutions=0)
        with pytest.raises(ClientError) as caught:
            one_shot.invoke(FunctionName="shut")
        response = caught.value.response
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 429
        assert (response["Reason"], response["Error"]["Message"]) == ("ReservedFunctionConcurrentInvocationLimitExceeded", "Rate Exceeded.")
        api.delete_function_concurrency(FunctionName="shut")
        assert call(api, "shut")[0][0] == "on-demand"


class TestProvisioned:
    def test_environments_are_there_before_traffic(self, api: Any, deploy: Any) -> None:
        deploy("ahead", WHO, Publish=True)
        until(lambda: api.get_function_configuration(FunctionName="ahead", Qualifier="1")["State"] == "Active")
        put = api.put_provisioned_concurrency_config(FunctionName="ahead", Qualifier="1", ProvisionedConcurrentExecutions=2)
        assert put["ResponseMetadata"]["HTTPStatusCode"] == 202
        assert (put["Status"], put["RequestedProvisionedConcurrentExecutions"]) == ("IN_PROGRESS", 2)
        assert put["AllocatedProvisionedConcurrentExecutions"] == 0
        assert STAMP.fullmatch(put["LastModified"])
        found = ready(api, "ahead", "1")
        assert (found["AllocatedProvisionedConcurrentExecutions"], found["AvailableProvisionedConcurrentExecutions"]) == (2, 2)
        payload, answer = call(api, "ahead", Qualifier="1")
        assert payload[0] == "provisioned-concurrency"
        assert answer["ExecutedVersion"] == "1"
        assert call(api, "ahead")[0][0] == "on-demand"  # $LATEST has none
        listed = api.list_provisioned_concurrency_configs(FunctionName="ahead")["ProvisionedConcurrencyConfigs"]
        assert [(each["FunctionArn"].rpartition(":")[2], each["Status"]) for each in listed] == [("1", "READY")]
        assert api.delete_provisioned_concurrency_config(FunctionName="ahead", Qualifier="1")["ResponseMetadata"]["HTTPStatusCode"] == 204
        code, message = refusal(lambda: api.get_provisioned_concurrency_config(FunctionName="ahead", Qualifier="1"))
        assert code == "ProvisionedConcurrencyConfigNotFoundException"
        assert message == "No Provisioned Concurrency Config found for this function"
        assert call(api, "ahead", Qualifier="1")[0][0] == "on-demand"
