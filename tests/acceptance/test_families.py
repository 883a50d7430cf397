"""What is kept beside functions, as boto3 sees it: policies, settings, URLs, code signing, tags, mappings, in AWS's words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from acceptance_helpers import ECHO, ROLE, RUNTIME, call, refused, settle, zipped
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer

BASE = "arn:aws:lambda:us-east-1:000000000000"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:results"
PUBLISHER = "arn:aws:signer:us-east-1:000000000000:/signing-profiles/p/abcdefghij"
STALE = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def family(server: LocalServer) -> Iterator[Any]:
    """A client; functions ``f`` and ``g`` with version 1 and alias ``live``."""
    api = server.client("lambda")
    server.client("sqs").create_queue(QueueName="results")
    for name in ("f", "g"):
        code = {"ZipFile": zipped({"app.py": ECHO})}
        api.create_function(FunctionName=name, Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Code=code, Publish=True)
        settle(api, name)
        api.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    yield api
    for name in ("f", "g"):
        api.delete_function(FunctionName=name)


def test_statements_of_functions_versions_and_aliases(family: Any) -> None:
    added = json.loads(
        family.add_permission(
            FunctionName="f",
            StatementId="s3",
            Action="lambda:InvokeFunction",
            Principal="s3.amazonaws.com",
            SourceArn="arn:aws:s3:::bucket",
            SourceAccount="111111111111",
        )["Statement"]
    )
    assert added == {
        "Sid": "s3",
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "lambda:InvokeFunction",
        "Resource": f"{BASE}:function:f",
        "Condition": {"StringEquals": {"AWS:SourceAccount": "111111111111"}, "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::bucket"}},
    }
    shown = family.get_policy(FunctionName="f")
    assert json.loads(shown["Policy"]) == {"Version": "2012-10-17", "Id": "default", "Statement": [added]}
    assert shown["RevisionId"] == family.get_function_configuration(FunctionName="f")["RevisionId"]
    for qualifier in ("1", "live"):
        added = family.add_permission(
            FunctionName="f", Qualifier=qualifier, StatementId="q", Action="lambda:InvokeFunction", Principal="111111111111"
        )
        statement = json.loads(added["Statement"])
        assert statement["Resource"] == f"{BASE}:function:f:{qualifier}"
        assert statement["Principal"] == {"AWS": "arn:aws:iam::111111111111:root"}
        assert family.get_policy(FunctionName=f"f:{qualifier}")["Policy"]
    grant = {"FunctionName": "f", "StatementId": "s3", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}
    assert refused("ResourceConflictException", family.add_permission, **grant) == (
        "The statement id (s3) provided already exists. Please provide a new statement id, or remove the existing statement."
    )
    bad = {**grant, "StatementId": "bad", "Principal": "nobody"}
    assert refused("InvalidParameterValueException", family.add_permission, **bad) == (
        "The provided principal was invalid. Please check the principal and try again."
    )
    latest = {**grant, "StatementId": "latest", "Qualifier": "$LATEST"}
    assert refused("InvalidParameterValueException", family.add_permission, **latest) == (
        "We currently do not support adding policies for $LATEST."
    )
    stale = {**grant, "StatementId": "stale", "RevisionId": STALE}
    assert "Call the GetPolicy API" in refused("PreconditionFailedException", family.add_permission, **stale)
    assert refused("ResourceNotFoundException", family.remove_permission, FunctionName="f", StatementId="none") == (
        "Statement none is not found in resource policy."
    )
    family.remove_permission(FunctionName="f", StatementId="s3")
    assert refused("ResourceNotFoundException", family.get_policy, FunctionName="f") == "The resource you requested does not exist."
    assert refused("ResourceNotFoundException", family.remove_permission, FunctionName="f", StatementId="s3") == (
        "No policy is associated with the given resource."
    )
    assert refused("ResourceNotFoundException", family.remove_permission, FunctionName="none", StatementId="s") == (
        f"No policy found for: {BASE}:function:none"
    )


def test_a_policy_as_a_whole(family: Any) -> None:
    arn = f"{BASE}:function:g"
    family.add_permission(FunctionName="g", StatementId="old", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com")
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "new",
                "Effect": "Allow",
                "Principal": {"AWS": "arn:aws:iam::111111111111:root"},
                "Action": "lambda:InvokeFunction",
                "Resource": arn,
            }
        ],
    }
    put = family.put_resource_policy(ResourceArn=arn, Policy=json.dumps(policy))
    assert [each["Sid"] for each in json.loads(put["Policy"])["Statement"]] == ["new"]
    assert (
        family.get_policy(FunctionName="g")["RevisionId"] == put["RevisionId"] == family.get_resource_policy(ResourceArn=arn)["RevisionId"]
    )
    refused("PreconditionFailedException", family.put_resource_policy, ResourceArn=arn, Policy=json.dumps(policy), RevisionId=STALE)
    refused("InvalidParameterValueException", family.put_resource_policy, ResourceArn=arn, Policy="{")
    refused("PreconditionFailedException", family.delete_resource_policy, ResourceArn=arn, RevisionId=STALE)
    family.delete_resource_policy(ResourceArn=arn, RevisionId=put["RevisionId"])
    refused("ResourceNotFoundException", family.get_resource_policy, ResourceArn=arn)
    alias = f"{arn}:live"
    family.put_resource_policy(ResourceArn=alias, Policy=json.dumps(policy).replace(arn, alias))
    assert family.get_policy(FunctionName="g", Qualifier="live")["Policy"]
    family.delete_resource_policy(ResourceArn=alias)


def test_settings_of_asynchronous_invocations(family: Any) -> None:
    put = family.put_function_event_invoke_config(FunctionName="f", MaximumRetryAttempts=1)
    assert put["FunctionArn"] == f"{BASE}:function:f:$LATEST"
    assert put["DestinationConfig"] == {"OnSuccess": {}, "OnFailure": {}}
    updated = family.update_function_event_invoke_config(FunctionName="f", MaximumEventAgeInSeconds=60)
    assert (updated["MaximumRetryAttempts"], updated["MaximumEventAgeInSeconds"]) == (1, 60)
    destination = {"OnFailure": {"Destination": QUEUE}}
    family.put_function_event_invoke_config(FunctionName="f", Qualifier="live", DestinationConfig=destination)
    family.put_function_event_invoke_config(FunctionName="f", Qualifier="1", MaximumRetryAttempts=0)
    listed = [
        each["FunctionArn"].removeprefix(f"{BASE}:function:f:")
        for page in family.get_paginator("list_function_event_invoke_configs").paginate(FunctionName="f", PaginationConfig={"PageSize": 1})
        for each in page["FunctionEventInvokeConfigs"]
    ]
    assert sorted(listed) == ["$LATEST", "1", "live"]
    refuse = family.put_function_event_invoke_config
    assert refused("InvalidParameterValueException", refuse, FunctionName="f") == (
        "You must specify at least one of error handling or destination setting."
    )
    own = {"OnSuccess": {"Destination": f"{BASE}:function:f"}}
    assert refused("InvalidParameterValueException", refuse, FunctionName="f", DestinationConfig=own) == (
        "You can't specify the function as a destination for itself."
    )
    family.delete_function_event_invoke_config(FunctionName="f")
    assert refused("ResourceNotFoundException", family.get_function_event_invoke_config, FunctionName="f") == (
        f"The function {BASE}:function:f:$LATEST doesn't have an EventInvokeConfig"
    )


def test_urls(family: Any) -> None:
    made = family.create_function_url_config(FunctionName="f", AuthType="NONE", Cors={"AllowOrigins": ["*"]})
    assert re.search(r"[a-z0-9]{32}\.lambda-url\.us-east-1\.", made["FunctionUrl"])
    assert "InvokeMode" not in made
    assert family.get_function_url_config(FunctionName="f")["InvokeMode"] == "BUFFERED"
    family.create_function_url_config(FunctionName="f", Qualifier="live", AuthType="AWS_IAM", InvokeMode="RESPONSE_STREAM")
    assert refused("ResourceConflictException", family.create_function_url_config, FunctionName="f", AuthType="NONE") == (
        f"Failed to create function url config for [functionArn = {BASE}:function:f]. "
        "Error message:  FunctionUrlConfig exists for this Lambda function"
    )
    refused("ValidationException", family.create_function_url_config, FunctionName="f", Qualifier="1", AuthType="NONE")
    pages = family.get_paginator("list_function_url_configs").paginate(FunctionName="f", PaginationConfig={"PageSize": 1})
    assert sorted(each["AuthType"] for page in pages for each in page["FunctionUrlConfigs"]) == ["AWS_IAM", "NONE"]
    assert refused("ResourceNotFoundException", family.list_function_url_configs, FunctionName="none") == "Function does not exist"
    updated = family.update_function_url_config(FunctionName="f", AuthType="AWS_IAM")
    assert (updated["FunctionUrl"], updated["AuthType"]) == (made["FunctionUrl"], "AWS_IAM")
    family.delete_function_url_config(FunctionName="f")
    assert refused("ResourceNotFoundException", family.get_function_url_config, FunctionName="f") == (
        "The resource you requested does not exist."
    )
    assert family.create_function_url_config(FunctionName="f", AuthType="NONE")["FunctionUrl"] != made["FunctionUrl"]


def test_code_signing(family: Any) -> None:
    made = family.create_code_signing_config(
        AllowedPublishers={"SigningProfileVersionArns": [PUBLISHER]}, Description="d", Tags={"a": "1"}
    )["CodeSigningConfig"]
    arn = made["CodeSigningConfigArn"]
    assert re.fullmatch(r"csc-[a-z0-9]{17}", made["CodeSigningConfigId"])
    assert made["CodeSigningPolicies"] == {"UntrustedArtifactOnDeployment": "Warn"}
    assert family.list_tags(Resource=arn)["Tags"] == {"a": "1"}
    family.put_function_code_signing_config(FunctionName="g", CodeSigningConfigArn=arn)
    assert family.list_functions_by_code_signing_config(CodeSigningConfigArn=arn)["FunctionArns"] == [f"{BASE}:function:g"]
    assert arn in [each["CodeSigningConfigArn"] for each in family.list_code_signing_configs()["CodeSigningConfigs"]]
    refused("ResourceConflictException", family.delete_code_signing_config, CodeSigningConfigArn=arn)
    # Warn lets unsigned code in, Enforce does not.
    family.update_function_code(FunctionName="g", ZipFile=zipped({"app.py": ECHO + "# 2\n"}))
    settle(family, "g")
    family.update_code_signing_config(CodeSigningConfigArn=arn, CodeSigningPolicies={"UntrustedArtifactOnDeployment": "Enforce"})
    refused("CodeVerificationFailedException", family.update_function_code, FunctionName="g", ZipFile=zipped({"app.py": ECHO + "# 3\n"}))
    none = f"{BASE}:code-signing-config:csc-0123456789abcdef0"
    refused("CodeSigningConfigNotFoundException", family.put_function_code_signing_config, FunctionName="g", CodeSigningConfigArn=none)
    family.delete_function_code_signing_config(FunctionName="g")
    family.delete_code_signing_config(CodeSigningConfigArn=arn)
    refused("ResourceNotFoundException", family.get_code_signing_config, CodeSigningConfigArn=arn)


def test_runtime_management_and_recursion(family: Any) -> None:
    assert family.get_runtime_management_config(FunctionName="f")["UpdateRuntimeOn"] == "Auto"
    family.put_runtime_management_config(FunctionName="f", Qualifier="1", UpdateRuntimeOn="FunctionUpdate")
    assert family.get_runtime_management_config(FunctionName="f", Qualifier="1")["UpdateRuntimeOn"] == "FunctionUpdate"
    assert family.get_runtime_management_config(FunctionName="f")["UpdateRuntimeOn"] == "Auto"
    refused("InvalidParameterValueException", family.put_runtime_management_config, FunctionName="f", UpdateRuntimeOn="Manual")
    assert family.get_function_recursion_config(FunctionName="f")["RecursiveLoop"] == "Terminate"
    assert family.put_function_recursion_config(FunctionName="f", RecursiveLoop="Allow")["RecursiveLoop"] == "Allow"
    assert family.get_function_recursion_config(FunctionName="f")["RecursiveLoop"] == "Allow"
    refused("InvalidParameterValueException", family.get_function_scaling_config, FunctionName="f", Qualifier="1")


@pytest.mark.parametrize(
    "name", ["f:1", "000000000000:function:f:1", "function:f:1", f"{BASE}:function:f:1", f"{BASE}:function:f:live", "f:live"]
)
def test_every_form_of_a_name_in_every_place_that_takes_one(family: Any, name: str) -> None:
    """With a qualifier in the name; where only the function is meant, that is refused or the alias is asked for."""
    qualifier = name.rpartition(":")[2]
    whole = name.rpartition(":")[0]
    assert call(family, name, 7)[0] == 7
    assert call(family, whole, 7, Qualifier=qualifier)[1]["ExecutedVersion"] == "1"
    assert family.get_function(FunctionName=name)["Configuration"]["Version"] == "1"
    assert family.get_function_configuration(FunctionName=whole, Qualifier=qualifier)["FunctionArn"].endswith(f":f:{qualifier}")
    refused("InvalidParameterValueException", family.get_function, FunctionName=name, Qualifier="other")
    family.add_permission(FunctionName=name, StatementId="forms", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com")
    family.remove_permission(FunctionName=whole, Qualifier=qualifier, StatementId="forms")
    family.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=2)
    family.delete_function_event_invoke_config(FunctionName=whole, Qualifier=qualifier)
    refused("InvalidParameterValueException", family.put_function_concurrency, FunctionName=name, ReservedConcurrentExecutions=1)
    for operation in (family.list_versions_by_function, family.list_aliases, family.get_function_recursion_config):
        with pytest.raises(ClientError):
            operation(FunctionName=name)


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("get_function", {}),
        ("invoke", {}),
        ("get_policy", {}),
        ("update_function_configuration", {"Timeout": 1}),
        ("publish_version", {}),
        ("list_aliases", {}),
        ("get_function_event_invoke_config", {}),
        ("get_function_url_config", {}),
        ("put_function_concurrency", {"ReservedConcurrentExecutions": 1}),
        ("get_provisioned_concurrency_config", {"Qualifier": "1"}),
        ("delete_function", {}),
    ],
)
def test_other_accounts_and_regions_are_answered_as_on_aws(family: Any, operation: str, more: dict[str, Any]) -> None:
    elsewhere = "arn:aws:lambda:eu-west-1:000000000000:function:f"
    text = refused("ResourceNotFoundException", getattr(family, operation), FunctionName=elsewhere, **more)
    assert text == "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"
    theirs = "arn:aws:lambda:us-east-1:111111111111:function:f"
    text = refused("AccessDeniedException", getattr(family, operation), FunctionName=theirs, **more)
    assert "is not authorized to perform: lambda:" in text
    assert theirs in text


def test_tags_of_everything_that_has_them(family: Any) -> None:
    mapping = family.create_event_source_mapping(FunctionName="f", EventSourceArn=QUEUE, Enabled=False, Tags={"m": "1"})
    resources = [f"{BASE}:function:f", mapping["EventSourceMappingArn"]]
    for resource in resources:
        family.tag_resource(Resource=resource, Tags={"k": "v"})
        assert family.list_tags(Resource=resource)["Tags"]["k"] == "v"
        assert refused("InvalidParameterValueException", family.tag_resource, Resource=resource, Tags={f"t{n}": "" for n in range(51)}) == (
            "Number of tags exceeds resource tag limit."
        )
        assert refused("InvalidParameterValueException", family.tag_resource, Resource=resource, Tags={}) == (
            "An error occurred and the request cannot be processed."
        )
        family.untag_resource(Resource=resource, TagKeys=["k"])
        assert "k" not in family.list_tags(Resource=resource)["Tags"]
    assert refused("InvalidParameterValueException", family.tag_resource, Resource=f"{BASE}:function:f:1", Tags={"a": "b"}) == (
        "Tags on function aliases and versions are not supported. Please specify a function ARN."
    )
    family.delete_event_source_mapping(UUID=mapping["UUID"])


def test_a_function_goes_with_all_that_is_its_own(family: Any, deploy: Any) -> None:
    deploy("gone", ECHO, Publish=True)
    family.create_alias(FunctionName="gone", Name="live", FunctionVersion="1")
    family.add_permission(FunctionName="gone", StatementId="s", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com")
    family.create_function_url_config(FunctionName="gone", AuthType="NONE")
    family.put_function_event_invoke_config(FunctionName="gone", MaximumRetryAttempts=0)
    family.put_function_concurrency(FunctionName="gone", ReservedConcurrentExecutions=3)
    mapping = family.create_event_source_mapping(FunctionName="gone", EventSourceArn=QUEUE, Enabled=False)["UUID"]
    family.delete_function(FunctionName="gone")
    assert family.get_event_source_mapping(UUID=mapping)["FunctionArn"] == f"{BASE}:function:gone"  # a mapping outlives its function
    for operation in ("get_function", "get_policy", "get_function_url_config", "get_function_event_invoke_config"):
        refused("ResourceNotFoundException", getattr(family, operation), FunctionName="gone")
    deploy("gone", ECHO)
    for operation in ("get_policy", "get_function_url_config", "get_function_event_invoke_config"):
        refused("ResourceNotFoundException", getattr(family, operation), FunctionName="gone")
    assert "ReservedConcurrentExecutions" not in family.get_function_concurrency(FunctionName="gone")
    assert family.list_aliases(FunctionName="gone")["Aliases"] == []
    family.delete_event_source_mapping(UUID=mapping)


def test_markers_go_on_behind_a_restart(server: LocalServer, family: Any) -> None:
    first = family.list_functions(MaxItems=1)
    aliases = family.list_versions_by_function(FunctionName="f", MaxItems=1)
    server.kill()
    server.start()
    second = family.list_functions(MaxItems=1, Marker=first["NextMarker"])
    assert [each["FunctionName"] for each in first["Functions"] + second["Functions"]] == ["f", "g"]
    rest = family.list_versions_by_function(FunctionName="f", Marker=aliases["NextMarker"])
    assert [each["Version"] for each in aliases["Versions"] + rest["Versions"]] == ["$LATEST", "1"]
    refused("InvalidParameterValueException", family.list_functions, Marker="bad")
