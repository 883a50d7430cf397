"""Every kind of change that the control plane acknowledges is there after ``kill -9``.

Changes are made in rounds, those of a round all at once, and the server is killed in the moment in which the last one is acknowledged. Then
each is looked for with the operation that shows it. The kinds are held to the table of operations: a new one that changes something and is
not here makes the test fail.
"""

from __future__ import annotations

import concurrent.futures
import json
import sys
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from server_under_fire import ROLE, code

from lambent.services.table import implemented
from lambent.testing.local_server import LocalServer

RUNTIME = f"python{sys.version_info[0]}.{sys.version_info[1]}"
BASE = "arn:aws:lambda:us-east-1:000000000000"
QUEUES = ("q0", "q1")
SQS = "arn:aws:sqs:us-east-1:000000000000:"
NETWORK = {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
PUBLISHER = "arn:aws:signer:us-east-1:000000000000:/signing-profiles/p/abcdefghij"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::111111111111:root"},
            "Action": "lambda:InvokeFunction",
            "Resource": f"{BASE}:function:whole",
        }
    ],
}

COPY = {"S3Bucket": "code", "S3Key": "k"}
REFERENCE = {**COPY, "S3ObjectStorageMode": "REFERENCE"}
KEPT = code(4)  # what lies in the bucket

Check = Callable[[], bool]


class Changes:
    """What was changed, and how one sees it. ``api`` is a boto3 client; names that AWS chose are kept in ``known``."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.known: dict[str, str] = {}
        self.made: set[str] = set()
        self.checks: dict[str, Check] = {}

    def round(self, changes: list[tuple[str, dict[str, Any], Check]]) -> None:
        """Make all of them at once; return when the last one is acknowledged."""
        with concurrent.futures.ThreadPoolExecutor(len(changes)) as pool:
            for done in [pool.submit(self._make, *change) for change in changes]:
                done.result()

    def _make(self, operation: str, params: dict[str, Any], check: Check) -> None:
        method = next(name for name, of in self.api.meta.method_to_api_mapping.items() if of == operation)
        answer = getattr(self.api, method)(**params)
        self.made.add(operation)
        self.checks[f"{operation} {params}"] = check
        for name in ("UUID", "CodeSigningConfig"):
            if name in answer:
                found = answer[name]
                self.known[operation] = found if isinstance(found, str) else found["CodeSigningConfigArn"]

    def gone(self, operation: str, **params: Any) -> Check:
        """That what ``operation`` showed is not there any more."""

        def check() -> bool:
            with pytest.raises(ClientError) as caught:
                getattr(self.api, operation)(**params)
            return bool(caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404)

        return check

    def shows(self, operation: str, member: str, value: Any, **params: Any) -> Check:
        """That ``operation`` shows ``value`` at the path ``member`` now."""

        def check() -> bool:
            found: Any = getattr(self.api, operation)(**params)
            for step in member.split("."):
                found = found.get(step) if isinstance(found, dict) else found
            return bool(found == value)

        return check


def test_every_kind_of_change_survives(tmp_path):
    server = LocalServer(tmp_path / "data")
    server.start()
    try:
        for queue in QUEUES:
            server.client("sqs").create_queue(QueueName=queue)
        _fill_bucket(server.client("s3"))
        changes = Changes(server.client("lambda"))
        for rounds in (_made, _configured, _changed, _taken_away, _deleted):
            changes.checks = {}
            changes.round(rounds(changes))
            server.kill()
            server.start()
            for what, check in changes.checks.items():
                assert check(), what
            _wait_for_quiet(changes)
        kinds = {name for name in implemented()["lambda"] if not name.startswith(("Get", "List", "Invoke"))}
        assert kinds - changes.made == set(), "kinds of changes that nobody made"
        assert server.stop() == 0
    finally:
        server.kill()


def _wait_for_quiet(changes: Changes) -> None:
    """The next round needs functions, mappings and providers that nothing is under way with."""
    api, pause = changes.api, threading.Event()
    for _ in range(600):
        states = [each["State"] for each in api.list_event_source_mappings()["EventSourceMappings"]]
        states += [each["State"] for each in api.list_capacity_providers()["CapacityProviders"]]
        for function in api.list_functions()["Functions"]:
            shown = api.get_function_configuration(FunctionName=function["FunctionName"])
            states += [shown["State"], shown.get("LastUpdateStatus", "")]
        if not {"Creating", "Updating", "Enabling", "Disabling", "Deleting", "Pending", "InProgress"} & set(states):
            return
        pause.wait(0.05)
    raise AssertionError(states)


def _function(name: str, **more: Any) -> dict[str, Any]:
    return {"FunctionName": name, "Runtime": RUNTIME, "Role": ROLE, "Handler": "app.handler", "Code": {"ZipFile": code(1)}, **more}


def _made(made: Changes) -> list[tuple[str, dict[str, Any], Check]]:
    provider = {"CapacityProviderName": "cp", "VpcConfig": NETWORK, "PermissionsConfig": {"CapacityProviderOperatorRoleArn": ROLE}}
    names = ("whole", "plain", "doomed", "mapped")
    return [
        *(
            (
                "CreateFunction",
                _function(name, Publish=True),
                made.shows("get_function", "Configuration.Version", "1", FunctionName=f"{name}:1"),
            )
            for name in names
        ),
        (
            "PublishLayerVersion",
            {"LayerName": "layer", "Content": {"ZipFile": code(2)}},
            made.shows("get_layer_version", "Version", 1, LayerName="layer", VersionNumber=1),
        ),
        (
            "PublishLayerVersion",
            {"LayerName": "doomed", "Content": {"ZipFile": code(3)}},
            made.shows("get_layer_version", "Version", 1, LayerName="doomed", VersionNumber=1),
        ),
        (
            "CreateCodeSigningConfig",
            {"AllowedPublishers": {"SigningProfileVersionArns": [PUBLISHER]}},
            lambda: made.api.get_code_signing_config(CodeSigningConfigArn=made.known["CreateCodeSigningConfig"]) != {},
        ),
        ("CreateCapacityProvider", provider, lambda: made.api.get_capacity_provider(CapacityProviderName="cp") != {}),
        *_left_in_buckets(made),
    ]


def _fill_bucket(s3: Any) -> None:
    s3.create_bucket(Bucket="code")
    s3.put_bucket_versioning(Bucket="code", VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket="code", Key="k", Body=KEPT)


def _left_in_buckets(made: Changes) -> list[tuple[str, dict[str, Any], Check]]:
    """Code by reference, of which the server keeps no copy."""
    resolved = "ResolvedS3Object.S3Key"
    layer = made.shows("get_layer_version", f"Content.{resolved}", "k", LayerName="referring", VersionNumber=1)
    return [
        ("PublishLayerVersion", {"LayerName": "referring", "Content": REFERENCE}, layer),
        *(
            ("CreateFunction", _function(name, Code=place), made.shows("get_function", f"Code.{resolved}", key, FunctionName=name))
            for name, place, key in (("referring", REFERENCE, "k"), ("copied", COPY, None))
        ),
    ]


def _switched(made: Changes) -> list[tuple[str, dict[str, Any], Check]]:
    """The two ways of keeping code, exchanged."""
    return [
        (
            "UpdateFunctionCode",
            {"FunctionName": "referring", **COPY},
            lambda: _downloads(made, "referring") and "ResolvedS3Object" not in made.api.get_function(FunctionName="referring")["Code"],
        ),
        (
            "UpdateFunctionCode",
            {"FunctionName": "copied", **REFERENCE},
            lambda: _downloads(made, "copied") and "ResolvedS3Object" in made.api.get_function(FunctionName="copied")["Code"],
        ),
    ]


def _downloads(made: Changes, name: str) -> bool:
    with urllib.request.urlopen(made.api.get_function(FunctionName=name)["Code"]["Location"]) as answer:
        return bool(answer.read() == KEPT)


def _configured(made: Changes) -> list[tuple[str, dict[str, Any], Check]]:
    whole = {"FunctionName": "whole"}
    layer = {"LayerName": "layer", "VersionNumber": 1}
    statement = {"StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}
    config = {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": f"{BASE}:capacity-provider:cp"}}
    signing = made.known["CreateCodeSigningConfig"]
    mapping = {"FunctionName": "mapped", "EventSourceArn": SQS + "q0", "BatchSize": 3}
    return [
        ("CreateFunction", _function("iron", MemorySize=2048, CapacityProviderConfig=config, Publish=True), _there(made, "iron:1")),
        (
            "CreateAlias",
            {**whole, "Name": "live", "FunctionVersion": "1"},
            made.shows("get_alias", "FunctionVersion", "1", **whole, Name="live"),
        ),
        (
            "CreateAlias",
            {"FunctionName": "plain", "Name": "other", "FunctionVersion": "1"},
            made.shows("get_alias", "FunctionVersion", "1", FunctionName="plain", Name="other"),
        ),
        (
            "AddPermission",
            {"FunctionName": "plain", **statement},
            lambda: '"Sid":"s"' in made.api.get_policy(FunctionName="plain")["Policy"],
        ),
        (
            "AddLayerVersionPermission",
            {**layer, "StatementId": "s", "Action": "lambda:GetLayerVersion", "Principal": "*"},
            lambda: '"Sid":"s"' in made.api.get_layer_version_policy(**layer)["Policy"],
        ),
        (
            "PutResourcePolicy",
            {"ResourceArn": f"{BASE}:function:whole", "Policy": json.dumps(POLICY)},
            lambda: "111111111111" in made.api.get_resource_policy(ResourceArn=f"{BASE}:function:whole")["Policy"],
        ),
        (
            "PutFunctionConcurrency",
            {**whole, "ReservedConcurrentExecutions": 7},
            made.shows("get_function_concurrency", "ReservedConcurrentExecutions", 7, **whole),
        ),
        (
            "PutProvisionedConcurrencyConfig",
            {"FunctionName": "plain", "Qualifier": "1", "ProvisionedConcurrentExecutions": 1},
            made.shows(
                "get_provisioned_concurrency_config", "RequestedProvisionedConcurrentExecutions", 1, FunctionName="plain", Qualifier="1"
            ),
        ),
        (
            "PutFunctionEventInvokeConfig",
            {**whole, "MaximumRetryAttempts": 1},
            made.shows("get_function_event_invoke_config", "MaximumRetryAttempts", 1, **whole),
        ),
        (
            "PutFunctionRecursionConfig",
            {**whole, "RecursiveLoop": "Allow"},
            made.shows("get_function_recursion_config", "RecursiveLoop", "Allow", **whole),
        ),
        (
            "PutRuntimeManagementConfig",
            {**whole, "UpdateRuntimeOn": "FunctionUpdate"},
            made.shows("get_runtime_management_config", "UpdateRuntimeOn", "FunctionUpdate", **whole),
        ),
        ("CreateFunctionUrlConfig", {**whole, "AuthType": "NONE"}, made.shows("get_function_url_config", "AuthType", "NONE", **whole)),
        (
            "PutFunctionCodeSigningConfig",
            {"FunctionName": "doomed", "CodeSigningConfigArn": signing},
            made.shows("get_function_code_signing_config", "CodeSigningConfigArn", signing, FunctionName="doomed"),
        ),
        (
            "TagResource",
            {"Resource": f"{BASE}:function:plain", "Tags": {"a": "1", "b": "2"}},
            made.shows("list_tags", "Tags", {"a": "1", "b": "2"}, Resource=f"{BASE}:function:plain"),
        ),
        ("CreateEventSourceMapping", mapping, lambda: made.api.get_event_source_mapping(UUID=made.known["CreateEventSourceMapping"]) != {}),
    ]


def _there(made: Changes, name: str) -> Check:
    return lambda: bool(made.api.get_function(FunctionName=name))


def _changed(made: Changes) -> list[tuple[str, dict[str, Any], Check]]:
    whole = {"FunctionName": "whole"}
    before = made.api.get_function_configuration(FunctionName="plain")["CodeSha256"]
    signing = {"CodeSigningConfigArn": made.known["CreateCodeSigningConfig"]}
    uuid = made.known["CreateEventSourceMapping"]
    scale = {"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 2}
    iron = {"FunctionName": "iron", "Qualifier": "1"}
    return [
        ("UpdateFunctionCode", {"FunctionName": "plain", "ZipFile": code(9)}, lambda: _sha(made, "plain") != before),
        (
            "UpdateFunctionConfiguration",
            {**whole, "Description": "changed"},
            made.shows("get_function_configuration", "Description", "changed", **whole),
        ),
        ("PublishVersion", {"FunctionName": "mapped", "Description": "again"}, _there(made, "mapped:1")),
        (
            "UpdateAlias",
            {**whole, "Name": "live", "Description": "moved"},
            made.shows("get_alias", "Description", "moved", **whole, Name="live"),
        ),
        (
            "UpdateFunctionEventInvokeConfig",
            {**whole, "MaximumEventAgeInSeconds": 99},
            made.shows("get_function_event_invoke_config", "MaximumEventAgeInSeconds", 99, **whole),
        ),
        (
            "UpdateFunctionUrlConfig",
            {**whole, "AuthType": "AWS_IAM"},
            made.shows("get_function_url_config", "AuthType", "AWS_IAM", **whole),
        ),
        (
            "UpdateCodeSigningConfig",
            {**signing, "Description": "changed"},
            made.shows("get_code_signing_config", "CodeSigningConfig.Description", "changed", **signing),
        ),
        (
            "UpdateCapacityProvider",
            {"CapacityProviderName": "cp", "CapacityProviderScalingConfig": {"MaxVCpuCount": 9}},
            made.shows(
                "get_capacity_provider", "CapacityProvider.CapacityProviderScalingConfig.MaxVCpuCount", 9, CapacityProviderName="cp"
            ),
        ),
        (
            "PutFunctionScalingConfig",
            {**iron, "FunctionScalingConfig": scale},
            made.shows("get_function_scaling_config", "RequestedFunctionScalingConfig", scale, **iron),
        ),
        ("UpdateEventSourceMapping", {"UUID": uuid, "BatchSize": 5}, made.shows("get_event_source_mapping", "BatchSize", 5, UUID=uuid)),
        (
            "UntagResource",
            {"Resource": f"{BASE}:function:doomed", "TagKeys": ["never"]},
            made.shows("list_tags", "Tags", {}, Resource=f"{BASE}:function:doomed"),
        ),
        *_switched(made),
    ]


def _sha(made: Changes, name: str) -> str:
    return str(made.api.get_function_configuration(FunctionName=name)["CodeSha256"])


def _taken_away(made: Changes) -> list[tuple[str, dict[str, Any], Check]]:
    whole, plain = {"FunctionName": "whole"}, {"FunctionName": "plain"}
    version = {"LayerName": "layer", "VersionNumber": 1}
    arn = f"{BASE}:function:whole"
    return [
        ("DeleteAlias", {**whole, "Name": "live"}, made.gone("get_alias", **whole, Name="live")),
        ("RemovePermission", {**plain, "StatementId": "s"}, made.gone("get_policy", **plain)),
        ("RemoveLayerVersionPermission", {**version, "StatementId": "s"}, made.gone("get_layer_version_policy", **version)),
        ("DeleteResourcePolicy", {"ResourceArn": arn}, made.gone("get_resource_policy", ResourceArn=arn)),
        ("DeleteFunctionConcurrency", whole, made.shows("get_function_concurrency", "ReservedConcurrentExecutions", None, **whole)),
        (
            "DeleteProvisionedConcurrencyConfig",
            {**plain, "Qualifier": "1"},
            made.gone("get_provisioned_concurrency_config", **plain, Qualifier="1"),
        ),
        ("DeleteFunctionEventInvokeConfig", whole, made.gone("get_function_event_invoke_config", **whole)),
        ("DeleteFunctionUrlConfig", whole, made.gone("get_function_url_config", **whole)),
        (
            "DeleteFunctionCodeSigningConfig",
            {"FunctionName": "doomed"},
            made.shows("get_function_code_signing_config", "CodeSigningConfigArn", "", FunctionName="doomed"),
        ),
        (
            "UntagResource",
            {"Resource": f"{BASE}:function:plain", "TagKeys": ["a"]},
            made.shows("list_tags", "Tags", {"b": "2"}, Resource=f"{BASE}:function:plain"),
        ),
        (
            "DeleteLayerVersion",
            {"LayerName": "doomed", "VersionNumber": 1},
            made.gone("get_layer_version", LayerName="doomed", VersionNumber=1),
        ),
        ("DeleteFunction", {"FunctionName": "iron"}, made.gone("get_function", FunctionName="iron")),
        (
            "DeleteEventSourceMapping",
            {"UUID": made.known["CreateEventSourceMapping"]},
            lambda: _going(made, made.known["CreateEventSourceMapping"]),
        ),
        ("PublishLayerVersion", {"LayerName": "layer", "Content": {"ZipFile": KEPT}}, lambda: _newest(made) == 2),
    ]


def _going(made: Changes, uuid: str) -> bool:
    """Deleting, or gone already."""
    try:
        return bool(made.api.get_event_source_mapping(UUID=uuid)["State"] == "Deleting")
    except made.api.exceptions.ResourceNotFoundException:
        return True


def _newest(made: Changes) -> int:
    return int(made.api.list_layer_versions(LayerName="layer")["LayerVersions"][0]["Version"])


def _deleted(made: Changes) -> list[tuple[str, dict[str, Any], Check]]:
    signing = {"CodeSigningConfigArn": made.known["CreateCodeSigningConfig"]}
    return [
        ("DeleteCodeSigningConfig", signing, made.gone("get_code_signing_config", **signing)),
        ("DeleteFunction", {"FunctionName": "doomed"}, made.gone("get_function", FunctionName="doomed", Qualifier="1")),
        ("DeleteFunction", {"FunctionName": "whole", "Qualifier": "1"}, made.gone("get_function", FunctionName="whole", Qualifier="1")),
        ("DeleteCapacityProvider", {"CapacityProviderName": "cp"}, lambda: _leaving(made)),
    ]


def _leaving(made: Changes) -> bool:
    try:
        shown = made.api.get_capacity_provider(CapacityProviderName="cp")["CapacityProvider"]
    except made.api.exceptions.ResourceNotFoundException:
        return True
    return bool(shown["State"] == "Deleting")
