"""What the control plane says of what is missing, stale or in the way, operation by operation, as AWS was recorded to say it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from acceptance_helpers import ECHO, ROLE, RUNTIME, refused, settle, zipped

from lambent.testing.local_server import LocalServer

LAMBDA = "arn:aws:lambda:us-east-1:000000000000"
BASE = f"{LAMBDA}:function"
NOT_FOUND = "ResourceNotFoundException"
NO_RESOURCE = "The resource you requested does not exist."


@pytest.fixture(scope="module")
def words(server: LocalServer) -> Iterator[Any]:
    """A client; the function ``f`` with version 1 and alias ``live``."""
    api = server.client("lambda")
    server.client("sqs").create_queue(QueueName="words")
    code = {"ZipFile": zipped({"app.py": ECHO})}
    api.create_function(FunctionName="f", Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Code=code, Publish=True)
    settle(api, "f")
    api.create_alias(FunctionName="f", Name="live", FunctionVersion="1")
    yield api
    api.delete_function(FunctionName="f")


@pytest.mark.parametrize(
    ("name", "qualifier", "text"),
    [
        ("nobody", "none", f"Cannot find alias arn: {BASE}:nobody:none"),
        ("nobody", "1", f"Function not found: {BASE}:nobody:1"),
        ("f", "none", f"Cannot find alias arn: {BASE}:f:none"),
        ("f", "10", f"Function not found: {BASE}:f:10"),
    ],
)
def test_provisioned_concurrency_of_what_is_not_there(words: Any, name: str, qualifier: str, text: str) -> None:
    meant = {"FunctionName": name, "Qualifier": qualifier}
    assert refused(NOT_FOUND, words.put_provisioned_concurrency_config, **meant, ProvisionedConcurrentExecutions=1) == text
    assert refused(NOT_FOUND, words.get_provisioned_concurrency_config, **meant) == text
    assert refused(NOT_FOUND, words.delete_provisioned_concurrency_config, **meant) == text


def test_reserved_concurrency_of_no_function_names_the_latest_version(words: Any) -> None:
    text = f"Function not found: {BASE}:nobody:$LATEST"
    assert refused(NOT_FOUND, words.put_function_concurrency, FunctionName="nobody", ReservedConcurrentExecutions=1) == text
    assert refused(NOT_FOUND, words.get_function_concurrency, FunctionName="nobody") == text
    assert refused(NOT_FOUND, words.delete_function_concurrency, FunctionName="nobody") == text


def test_reserved_concurrency_is_shown_for_the_function_only(words: Any) -> None:
    words.put_function_concurrency(FunctionName="f", ReservedConcurrentExecutions=3)
    try:
        assert words.get_function(FunctionName="f")["Concurrency"] == {"ReservedConcurrentExecutions": 3}
        for qualifier in ("$LATEST", "1", "live"):
            assert "Concurrency" not in words.get_function(FunctionName="f", Qualifier=qualifier)
    finally:
        words.delete_function_concurrency(FunctionName="f")


def test_permissions_for_what_is_not_there(words: Any) -> None:
    grant = {"StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}
    for qualifier, text in (
        ("none", f"Cannot find alias arn: {BASE}:f:none"),
        ("42", f"Function not found: {BASE}:f:42"),
        ("with-$-in-it", f"Function not found: {BASE}:f:with-$-in-it"),
    ):
        assert refused(NOT_FOUND, words.add_permission, FunctionName="f", Qualifier=qualifier, **grant) == text
        assert refused(NOT_FOUND, words.remove_permission, FunctionName="f", Qualifier=qualifier, StatementId="s") == text
        assert refused(NOT_FOUND, words.get_policy, FunctionName="f", Qualifier=qualifier) == NO_RESOURCE
    assert refused(NOT_FOUND, words.get_policy, FunctionName="nobody") == f"Function not found: {BASE}:nobody"


def test_an_alias_of_no_function_names_the_version(words: Any) -> None:
    text = refused(NOT_FOUND, words.create_alias, FunctionName="nobody", Name="a", FunctionVersion="1")
    assert text == f"Function not found: {BASE}:nobody:1"


def test_settings_of_asynchronous_invocations_of_no_function(words: Any) -> None:
    text = "The function doesn't exist."
    assert refused(NOT_FOUND, words.list_function_event_invoke_configs, FunctionName="nobody") == text
    assert refused(NOT_FOUND, words.put_function_event_invoke_config, FunctionName="nobody", MaximumRetryAttempts=0) == text
    assert refused(NOT_FOUND, words.update_function_event_invoke_config, FunctionName="nobody", MaximumRetryAttempts=0) == text
    text = refused(NOT_FOUND, words.update_function_event_invoke_config, FunctionName="f", Qualifier="live", MaximumRetryAttempts=0)
    assert text == f"The function {BASE}:f:live doesn't have an EventInvokeConfig"


def test_urls_that_are_changed(words: Any) -> None:
    text = "Function does not exist"
    assert refused(NOT_FOUND, words.update_function_url_config, FunctionName="nobody", AuthType="NONE") == text
    assert refused(NOT_FOUND, words.update_function_url_config, FunctionName="f", Qualifier="none", AuthType="NONE") == text
    assert refused(NOT_FOUND, words.update_function_url_config, FunctionName="f", AuthType="NONE") == NO_RESOURCE
    words.create_function_url_config(FunctionName="f", AuthType="NONE")
    assert "InvokeMode" not in words.update_function_url_config(FunctionName="f", AuthType="AWS_IAM")
    assert words.update_function_url_config(FunctionName="f", InvokeMode="RESPONSE_STREAM")["InvokeMode"] == "RESPONSE_STREAM"
    assert words.get_function_url_config(FunctionName="f")["InvokeMode"] == "RESPONSE_STREAM"
    words.delete_function_url_config(FunctionName="f")


def test_tags_give_the_function_another_revision(words: Any) -> None:
    seen = [words.get_function_configuration(FunctionName="f")]
    words.tag_resource(Resource=f"{BASE}:f", Tags={"a": "b"})
    seen.append(words.get_function_configuration(FunctionName="f"))
    words.untag_resource(Resource=f"{BASE}:f", TagKeys=["a"])
    seen.append(words.get_function_configuration(FunctionName="f"))
    assert len({each["RevisionId"] for each in seen}) == 3
    assert len({each["LastModified"] for each in seen}) == 1


def test_code_signing_configurations_that_are_not_there(words: Any) -> None:
    arn = f"{LAMBDA}:code-signing-config:csc-{'a' * 17}"
    text = f"The code signing configuration cannot be found. Check that the provided configuration is not deleted: {arn}."
    for function in ("f", "nobody"):
        call = words.put_function_code_signing_config
        assert refused("CodeSigningConfigNotFoundException", call, FunctionName=function, CodeSigningConfigArn=arn) == text
    text = f"The Lambda code signing configuration {arn} can not be found."
    assert refused(NOT_FOUND, words.get_code_signing_config, CodeSigningConfigArn=arn) == text
    assert refused(NOT_FOUND, words.tag_resource, Resource=arn, Tags={"a": "b"}) == text
    assert refused(NOT_FOUND, words.list_tags, Resource=arn) == text
    theirs = arn.replace("000000000000", "111111111111")
    for call in (
        words.get_code_signing_config,
        words.update_code_signing_config,
        words.delete_code_signing_config,
        words.list_functions_by_code_signing_config,
    ):
        assert f"on resource: {theirs} because" in refused("AccessDeniedException", call, CodeSigningConfigArn=theirs)


def test_the_capacity_provider_of_others_cannot_be_passed_on(words: Any) -> None:
    theirs = "arn:aws:lambda:us-east-1:111111111111:capacity-provider:c"
    managed = {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": theirs}}
    request = {"FunctionName": "g", "Runtime": RUNTIME, "Role": ROLE, "Handler": "app.handler", "Code": {"ZipFile": b"zip"}}
    text = refused("AccessDeniedException", words.create_function, **request, MemorySize=2_048, CapacityProviderConfig=managed)
    assert f"is not authorized to perform: lambda:PassCapacityProvider on resource: {theirs}" in text


@pytest.mark.parametrize("resource", [f"event-source-mapping:{'a' * 8}-aaaa-aaaa-aaaa-{'a' * 12}", "capacity-provider:c"])
def test_tags_of_what_others_have(words: Any, resource: str) -> None:
    theirs = f"arn:aws:lambda:us-east-1:111111111111:{resource}"
    text = refused("AccessDeniedException", words.tag_resource, Resource=theirs, Tags={"a": "b"})
    assert "is not authorized to perform: lambda:TagResource on resource: " + theirs in text
    assert "lambda:UntagResource" in refused("AccessDeniedException", words.untag_resource, Resource=theirs, TagKeys=["a"])
    assert "lambda:ListTags" in refused("AccessDeniedException", words.list_tags, Resource=theirs)
    elsewhere = f"arn:aws:lambda:eu-west-1:000000000000:{resource}"
    assert refused(NOT_FOUND, words.list_tags, Resource=elsewhere) == NO_RESOURCE


def test_layers_show_what_they_were_given_even_if_it_is_nothing(words: Any) -> None:
    content = {"ZipFile": zipped({"x.py": ""})}
    plain = words.publish_layer_version(LayerName="plain", Content=content)
    assert plain.keys().isdisjoint({"CompatibleRuntimes", "CompatibleArchitectures"})
    empty = words.publish_layer_version(LayerName="empty", Content=content, CompatibleRuntimes=[], CompatibleArchitectures=[])
    for shown in (
        empty,
        words.get_layer_version(LayerName="empty", VersionNumber=1),
        words.list_layer_versions(LayerName="empty")["LayerVersions"][0],
    ):
        assert (shown["CompatibleRuntimes"], shown["CompatibleArchitectures"]) == ([], [])


def test_starting_positions_that_do_not_fit(words: Any) -> None:
    queue, stream = "arn:aws:sqs:us-east-1:000000000000:words", "arn:aws:kinesis:us-east-1:000000000000:stream/words"
    for given in ({"StartingPosition": "LATEST"}, {"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 1}):
        text = refused("InvalidParameterValueException", words.create_event_source_mapping, FunctionName="f", EventSourceArn=queue, **given)
        assert text == "StartingPosition is not valid for SQS event sources."
    given = {"StartingPosition": "LATEST", "StartingPositionTimestamp": 1}
    text = refused("InvalidParameterValueException", words.create_event_source_mapping, FunctionName="f", EventSourceArn=stream, **given)
    assert text == "Timestamp only valid with StartingPosition AT_TIMESTAMP"


def test_null_where_aws_says_null(words: Any, server: LocalServer) -> None:
    """boto3 drops nulls, so the bodies are read before it does."""
    bodies: list[Any] = []
    reader = server.client("lambda")
    reader.meta.events.register_last("before-parse.lambda", lambda response_dict, **rest: bodies.append(json.loads(response_dict["body"])))
    reader.get_runtime_management_config(FunctionName="f")
    assert bodies.pop()["RuntimeVersionArn"] is None
    key = f"arn:aws:kms:us-east-1:000000000000:key/{'a' * 8}-aaaa-aaaa-aaaa-{'a' * 12}"
    made = words.create_event_source_mapping(
        FunctionName="f",
        EventSourceArn="arn:aws:sqs:us-east-1:000000000000:words",
        Enabled=False,
        KMSKeyArn=key,
        FilterCriteria={"Filters": [{"Pattern": '{"body":[1]}'}]},
    )
    assert made["FilterCriteria"] == {"Filters": [{"Pattern": '{"body":[1]}'}]}
    reader.list_event_source_mappings(FunctionName="f")
    [listed] = bodies.pop()["EventSourceMappings"]
    assert listed["FilterCriteria"] is None
    words.delete_event_source_mapping(UUID=made["UUID"])


def test_the_function_of_a_mapping_is_shown_as_it_was_named(words: Any, server: LocalServer) -> None:
    server.client("sqs").create_queue(QueueName="named")
    source = {"EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:named", "Enabled": False}
    latest = words.create_event_source_mapping(FunctionName="f:$LATEST", **source)
    alias = words.create_event_source_mapping(FunctionName="f:live", **source)
    assert latest["FunctionArn"] == f"{BASE}:f:$LATEST"
    for name in ("f", "f:$LATEST"):
        listed = words.list_event_source_mappings(FunctionName=name, EventSourceArn=source["EventSourceArn"])
        assert [each["UUID"] for each in listed["EventSourceMappings"]] == [latest["UUID"]]
    taken = f"Please update or delete the existing mapping with UUID {latest['UUID']}"
    assert taken in refused("ResourceConflictException", words.create_event_source_mapping, FunctionName="f", **source)
    assert taken in refused("ResourceConflictException", words.update_event_source_mapping, UUID=alias["UUID"], FunctionName="f")
    assert words.get_event_source_mapping(UUID=alias["UUID"])["FunctionArn"] == f"{BASE}:f:live"
    assert words.update_event_source_mapping(UUID=alias["UUID"], FunctionName="f:1")["FunctionArn"] == f"{BASE}:f:1"
    words.delete_event_source_mapping(UUID=latest["UUID"])
