"""Reserved and provisioned concurrency as boto3 sees them, with real sandboxes that crash and time out."""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from acceptance_helpers import ROLE, RUNTIME, call, settle, stop_cleanly, zipped
from botocore.config import Config
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000")
WHO = """import os
KIND = os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']
def handler(event, context):
    return [KIND, context.log_stream_name]
"""
SLOW_WHO = """import os, time
KIND = os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']
def handler(event, context):
    time.sleep(event)
    return [KIND, context.log_stream_name]
"""
CRASHING = """import os
def handler(event, context):
    if event == 'crash':
        os._exit(1)
    return os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']
"""
STORMY = """import os, time
def ran(event):
    print('RAN', event['id'], time.monotonic(), flush=True)
def handler(event, context):
    ran(event)
    do = event['do']
    while do == 'hang':
        time.sleep(0.01)
        ran(event)
    time.sleep(3.0 if do == 'sleep' else 0.01)
    ran(event)
    if do == 'crash':
        os._exit(1)
    if do == 'raise':
        raise ValueError(do)
    return 'slept' if do == 'sleep' else do
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


def throttled(error: ClientError) -> str:
    """The ``Reason`` of a 429; anything else is a failure."""
    response = error.response
    if (response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]) != (429, "TooManyRequestsException"):
        raise error
    if response["Error"]["Message"] != "Rate Exceeded.":
        raise AssertionError(response)
    return str(response["Reason"])


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

    def test_what_is_more_than_provisioned_spills_over(self, api: Any, deploy: Any) -> None:
        deploy("spill", SLOW_WHO, Publish=True)
        api.put_provisioned_concurrency_config(FunctionName="spill", Qualifier="1", ProvisionedConcurrentExecutions=2)
        ready(api, "spill", "1")
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            kinds = [found.result()[0] for found in [pool.submit(call, api, "spill", 1.0, Qualifier="1") for _ in range(3)]]
        assert sorted(kind for kind, _ in kinds) == ["on-demand", "provisioned-concurrency", "provisioned-concurrency"]
        assert len({stream for _, stream in kinds}) == 3

    def test_one_that_dies_is_replaced(self, api: Any, deploy: Any) -> None:
        deploy("phoenix", CRASHING, Publish=True)
        api.put_provisioned_concurrency_config(FunctionName="phoenix", Qualifier="1", ProvisionedConcurrentExecutions=2)
        ready(api, "phoenix", "1")
        for _ in range(3):
            assert "FunctionError" in api.invoke(FunctionName="phoenix", Qualifier="1", Payload=b'"crash"')
        describe = api.get_provisioned_concurrency_config
        until(lambda: describe(FunctionName="phoenix", Qualifier="1")["AvailableProvisionedConcurrentExecutions"] == 2)
        assert call(api, "phoenix", "kind", Qualifier="1")[0] == "provisioned-concurrency"

    def test_what_cannot_be_initialised_fails_and_says_why(self, api: Any, deploy: Any) -> None:
        deploy("broken", "raise RuntimeError('never')\n", Publish=True)
        api.put_provisioned_concurrency_config(FunctionName="broken", Qualifier="1", ProvisionedConcurrentExecutions=1)
        found = ready(api, "broken", "1", "FAILED")
        assert found["StatusReason"] == "FUNCTION_ERROR_INIT_FAILURE"
        assert found["AvailableProvisionedConcurrentExecutions"] == 0

    def test_that_of_an_alias_goes_where_the_alias_goes(self, server: LocalServer, api: Any, deploy: Any) -> None:
        deploy("moved", WHO, Publish=True)
        api.update_function_code(FunctionName="moved", ZipFile=zipped({"app.py": WHO + "# two\n"}), Publish=True)
        settle(api, "moved")
        api.create_alias(FunctionName="moved", Name="live", FunctionVersion="1")
        put = functools.partial(api.put_provisioned_concurrency_config, FunctionName="moved", ProvisionedConcurrentExecutions=2)
        put(Qualifier="live")
        ready(api, "moved", "live")
        assert call(api, "moved:live")[0][0] == "provisioned-concurrency"
        assert refusal(lambda: put(Qualifier="1")) == (
            "ResourceConflictException",
            "Version is pointed by a Provisioned Concurrency alias",
        )
        api.create_alias(FunctionName="moved", Name="other", FunctionVersion="1")
        assert refusal(lambda: put(Qualifier="other")) == (
            "ResourceConflictException",
            "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version",
        )
        api.update_alias(FunctionName="moved", Name="live", FunctionVersion="2")
        ready(api, "moved", "live")
        payload, answer = call(api, "moved:live")
        assert (payload[0], answer["ExecutedVersion"]) == ("provisioned-concurrency", "2")
        assert call(api, "moved:1")[0][0] == "on-demand"
        # Split over two versions it is split by weight.
        api.update_alias(FunctionName="moved", Name="live", RoutingConfig={"AdditionalVersionWeights": {"1": 0.5}})
        ready(api, "moved", "live")
        assert {call(api, "moved", Qualifier=number)[0][0] for number in "12"} == {"provisioned-concurrency"}
        server.kill()
        server.start()
        ready(api, "moved", "live")
        assert {call(api, "moved", Qualifier=number)[0][0] for number in "12"} == {"provisioned-concurrency"}
        api.delete_alias(FunctionName="moved", Name="live")
        assert api.list_provisioned_concurrency_configs(FunctionName="moved")["ProvisionedConcurrencyConfigs"] == []
        until(lambda: call(api, "moved", Qualifier="1")[0][0] == "on-demand")

    def test_refusals(self, api: Any, deploy: Any) -> None:
        deploy("bounded", WHO, Publish=True)
        settle(api, "bounded")
        api.create_alias(FunctionName="bounded", Name="latest", FunctionVersion="$LATEST")
        put = functools.partial(api.put_provisioned_concurrency_config, FunctionName="bounded")
        unpublished = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
        for qualifier in ("$LATEST", "latest"):
            assert refusal(lambda q=qualifier: put(Qualifier=q, ProvisionedConcurrentExecutions=1)) == (
                "InvalidParameterValueException",
                unpublished,
            )
        assert refusal(lambda: api.get_provisioned_concurrency_config(FunctionName="bounded", Qualifier="$LATEST"))[1] == (
            "The function resource provided must be an alias or a published version."
        )
        assert refusal(lambda: put(Qualifier="nope", ProvisionedConcurrentExecutions=1))[1].startswith("Cannot find alias arn: arn:")
        assert refusal(lambda: put(Qualifier="7", ProvisionedConcurrentExecutions=1))[1].startswith("Function not found: arn:")
        assert refusal(lambda: put(Qualifier="1", ProvisionedConcurrentExecutions=1_001))[1] == (
            "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [1000]."
        )
        assert "below its minimum value of [100]" in refusal(lambda: put(Qualifier="1", ProvisionedConcurrentExecutions=901))[1]
        api.put_function_concurrency(FunctionName="bounded", ReservedConcurrentExecutions=2)
        assert refusal(lambda: put(Qualifier="1", ProvisionedConcurrentExecutions=3))[1] == (
            "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"
        )
        put(Qualifier="1", ProvisionedConcurrentExecutions=2)
        assert refusal(lambda: api.put_function_concurrency(FunctionName="bounded", ReservedConcurrentExecutions=1))[1] == (
            " ReservedConcurrentExecutions  1 should not be lower than function's total provisioned concurrency [2]."
        )
        assert api.delete_provisioned_concurrency_config(FunctionName="bounded", Qualifier="1")["ResponseMetadata"]["HTTPStatusCode"] == 204
        api.delete_provisioned_concurrency_config(FunctionName="bounded", Qualifier="1")  # a second time is no error


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """With small limits, each of which must be the one that is met."""
    config = tmp_path_factory.mktemp("small") / "lambent.toml"
    config.write_text(
        "[limits]\nconcurrent_executions = 6\nunreserved_executions = 2\nscaling_environments = 3\nscaling_seconds = 100000.0\n"
        "get_policy_rate = 2\n"
    )
    with LocalServer(config=config) as running:
        yield running
        stop_cleanly(running)


class TestLimits:
    def make(self, api: Any, name: str) -> None:
        code = {"ZipFile": zipped({"app.py": SLOW_WHO})}
        api.create_function(FunctionName=name, Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Code=code)
        settle(api, name)

    def reasons(self, api: Any, names: list[str], pause: float) -> list[str]:
        """Invoke all at once, for ``pause`` seconds each; the ``Reason`` of each 429, "" where it ran."""

        def one(name: str) -> str:
            try:
                assert call(api, name, pause)[0]
            except ClientError as error:
                return throttled(error)
            return ""

        with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
            return sorted(pool.map(one, names))

    def test_environments_that_one_function_may_start(self, small: LocalServer) -> None:
        api = small.client("lambda")
        self.make(api, "growing")
        assert self.reasons(api, ["growing"] * 4, 2.0) == ["", "", "", "FunctionInvocationRateLimitExceeded"]
        assert self.reasons(api, ["growing"] * 3, 0.0) == ["", "", ""]  # those that there are go on

    def test_the_account_and_what_is_reserved_of_it(self, small: LocalServer) -> None:
        api = small.client("lambda")
        for name in ("a", "b", "c", "d"):
            self.make(api, name)
        assert self.reasons(api, ["a", "a", "b", "b", "c", "c", "d"], 2.0) == [""] * 6 + ["ConcurrentInvocationLimitExceeded"]
        assert (
            "below its minimum value of [2]"
            in refusal(lambda: api.put_function_concurrency(FunctionName="a", ReservedConcurrentExecutions=5))[1]
        )
        api.put_function_concurrency(FunctionName="a", ReservedConcurrentExecutions=4)
        assert self.reasons(api, ["b", "b", "c", "a", "a"], 2.0) == ["", "", "", "", "ConcurrentInvocationLimitExceeded"]
        settings = api.get_account_settings()["AccountLimit"]
        assert (settings["ConcurrentExecutions"], settings["UnreservedConcurrentExecutions"]) == (6, 2)
        api.delete_function_concurrency(FunctionName="a")

    def test_requests_a_second_of_what_is_reserved(self, small: LocalServer) -> None:
        api = small.client("lambda")
        self.make(api, "rated")
        api.put_function_concurrency(FunctionName="rated", ReservedConcurrentExecutions=1)
        call(api, "rated", 0.0)
        reasons = [self.reasons(api, ["rated"], 0.0)[0] for _ in range(200)]
        assert reasons.count("") >= 9  # ten requests a second, of which one may be gone
        assert set(reasons) == {"", "ReservedFunctionInvocationRateLimitExceeded"}

    def test_requests_of_a_caller(self, small: LocalServer) -> None:
        api = small.client("lambda", config=Config(retries={"total_max_attempts": 1}))
        found: collections.Counter[str] = collections.Counter()
        for _ in range(40):
            with pytest.raises(ClientError) as caught:
                api.get_policy(FunctionName="nobody")
            found[caught.value.response.get("Reason", "") or caught.value.response["Error"]["Code"]] += 1
        assert set(found) == {"CallerRateLimitExceeded", "ResourceNotFoundException"}
        assert found["ResourceNotFoundException"] >= 2
        assert api.get_account_settings()  # has no limit here


RESERVED = 4
CALLERS = 9
STORM = 40  # invocations of each caller


def test_reserved_concurrency_holds_while_environments_crash_time_out_and_are_replaced(tmp_path: Path) -> None:
    """Never more at once than are reserved, by the handlers' own clocks; never a refusal while fewer run; nothing leaks."""
    config = tmp_path / "lambent.toml"
    config.write_text("[limits]\nrequests_per_concurrency = 0\n")
    with LocalServer(tmp_path / "data", config=config) as server:
        api = server.client("lambda", config=Config(retries={"total_max_attempts": 1}, max_pool_connections=CALLERS + 2))
        code = {"ZipFile": zipped({"app.py": STORMY})}
        api.create_function(FunctionName="storm", Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Code=code, Timeout=1)
        settle(api, "storm")
        api.put_function_concurrency(FunctionName="storm", ReservedConcurrentExecutions=RESERVED)
        storm = Storm(api)
        with concurrent.futures.ThreadPoolExecutor(CALLERS + 1) as pool:
            for done in [pool.submit(storm.replacer), *(pool.submit(storm.caller, number) for number in range(CALLERS))]:
                done.result()
        assert storm.failures > 10, "too calm to tell anything"
        assert storm.reasons == {"ReservedFunctionConcurrentInvocationLimitExceeded"}, "nobody ever came too many"
        for begun, ended in storm.refused:
            assert sum(since <= ended and till >= begun for since, till in storm.accepted) >= RESERVED, "refused though fewer ran"
        # Everything that was reserved can be had, and no more, as if nothing had happened.
        api.update_function_configuration(FunctionName="storm", Timeout=60)
        settle(api, "storm")
        with concurrent.futures.ThreadPoolExecutor(RESERVED) as pool:
            all_of_it = [pool.submit(call, api, "storm", {"do": "sleep", "id": f"last-{n}"}) for n in range(RESERVED)]
            until(lambda: [each["state"] for each in server.page("environments")["environments"]].count("busy") == RESERVED)
            assert storm.is_refused()
            assert [done.result()[0] for done in all_of_it] == ["slept"] * RESERVED
        spans = lived(server)
        assert len(spans) >= len(storm.accepted) + RESERVED
        assert most_at_once(spans) == RESERVED
        stop_cleanly(server)


class Storm:
    """Callers that never wait for each other; what they saw, in their own monotonic time."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self.accepted: list[tuple[float, float]] = []
        self.refused: list[tuple[float, float]] = []
        self.reasons: set[str] = set()
        self.failures = 0

    def caller(self, number: int) -> None:
        seed = random.Random(number)
        for turn in range(STORM):
            do = seed.choices(["work", "crash", "raise", "hang"], [20, 4, 3, 1])[0]
            begun = time.monotonic()
            try:
                answer = self._api.invoke(FunctionName="storm", Payload=json.dumps({"do": do, "id": f"{number}-{turn}"}))
            except ClientError as error:
                self.reasons.add(throttled(error))
                self.refused.append((begun, time.monotonic()))
                continue
            answer["Payload"].read()
            self.accepted.append((begun, time.monotonic()))
            assert ("FunctionError" in answer) == (do != "work")
            self.failures += do != "work"

    def replacer(self) -> None:
        """New code makes every environment stale, again and again."""
        for number in range(5):
            self._api.update_function_code(FunctionName="storm", ZipFile=zipped({"app.py": f"{STORMY}# {number}\n"}))
            settle(self._api, "storm")

    def is_refused(self) -> bool:
        try:
            self._api.invoke(FunctionName="storm", Payload=json.dumps({"do": "work", "id": "probe"}))
        except ClientError as error:
            self.reasons.add(throttled(error))
            return True
        return False


def lived(server: LocalServer) -> list[tuple[float, float]]:
    """From when to when each invocation surely ran, as the handlers wrote it down; their clock is the machine's."""
    seen: dict[str, list[float]] = collections.defaultdict(list)
    pages = server.client("logs").get_paginator("filter_log_events").paginate(logGroupName="/aws/lambda/storm")
    for page in pages:
        for event in page["events"]:
            found = re.fullmatch(r"RAN (\S+) (\S+)", event["message"].strip())
            if found:
                seen[found[1]].append(float(found[2]))
    return [(min(times), max(times)) for times in seen.values()]


def most_at_once(spans: list[tuple[float, float]]) -> int:
    steps = sorted([(since, 1) for since, _ in spans] + [(till, -1) for _, till in spans])
    running = most = 0
    for _, step in steps:
        running += step
        most = max(most, running)
    return most
