"""Versions and aliases with boto3: published, addressed in every form, routed, listed, protected, kept over kill -9."""

from __future__ import annotations

import collections
import json
import math

import pytest
from acceptance_helpers import ROLE, RUNTIME, settle, zipped
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer

SOURCE = "def handler(event, context):\n    return [%r, context.function_version, context.invoked_function_arn]\n"


def refused(code, call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] == code, caught.value.response
    return caught.value.response["Error"]["Message"]


def create(api, name, mark="one", **more):
    return api.create_function(
        FunctionName=name, Runtime=RUNTIME, Role=ROLE, Handler="app.handler", Code={"ZipFile": zipped({"app.py": SOURCE % mark})}, **more
    )


def update(api, name, mark, **more):
    answer = api.update_function_code(FunctionName=name, ZipFile=zipped({"app.py": SOURCE % mark}), **more)
    settle(api, name)
    return answer


def run(api, name, **more):
    answer = api.invoke(FunctionName=name, **more)
    return json.load(answer["Payload"]), answer["ExecutedVersion"]


def test_a_version_is_frozen_and_found_in_every_form(api):
    arn = create(api, "frozen")["FunctionArn"]
    settle(api, "frozen")
    latest = api.get_function_configuration(FunctionName="frozen")
    one = api.publish_version(
        FunctionName="frozen", Description="the first", RevisionId=latest["RevisionId"], CodeSha256=latest["CodeSha256"]
    )
    assert (one["Version"], one["FunctionArn"], one["State"], one["Description"]) == ("1", f"{arn}:1", "Active", "the first")
    after = api.get_function_configuration(FunctionName="frozen")
    assert after["RevisionId"] not in (latest["RevisionId"], one["RevisionId"])
    update(api, "frozen", "two")
    api.update_function_configuration(FunctionName="frozen", Timeout=9)
    settle(api, "frozen")
    shown = api.get_function_configuration(FunctionName="frozen", Qualifier="1")
    assert (shown["Timeout"], shown["RevisionId"], shown["CodeSha256"]) == (3, one["RevisionId"], latest["CodeSha256"])
    for name in ("frozen:1", f"{arn}:1", "function:frozen:1", "000000000000:function:frozen:1"):
        assert run(api, name) == (["one", "1", f"{arn}:1"], "1")
    assert run(api, "frozen", Qualifier="1")[1] == "1"
    assert run(api, "frozen")[0][:2] == ["two", "$LATEST"]
    assert run(api, "frozen:$LATEST") == (["two", "$LATEST", f"{arn}:$LATEST"], "$LATEST")
    assert "Function not found" in refused("ResourceNotFoundException", api.invoke, FunctionName="frozen:7")
    refused("InvalidParameterValueException", api.invoke, FunctionName="frozen:1", Qualifier="2")


def test_nothing_new_is_published_without_a_change(api):
    create(api, "same")
    settle(api, "same")
    first = api.publish_version(FunctionName="same")
    again = api.publish_version(FunctionName="same")
    assert (again["Version"], again["RevisionId"]) == ("1", first["RevisionId"])
    update(api, "same", "other")
    assert api.publish_version(FunctionName="same")["Version"] == "2"
    api.delete_function(FunctionName="same", Qualifier="2")
    assert api.publish_version(FunctionName="same")["Version"] == "3"
    versions = [
        each["Version"]
        for page in api.get_paginator("list_versions_by_function").paginate(FunctionName="same", PaginationConfig={"PageSize": 1})
        for each in page["Versions"]
    ]
    assert versions == ["$LATEST", "1", "3"]
    text = refused("InvalidParameterValueException", api.publish_version, FunctionName="same", CodeSha256="AAAA")
    assert text.startswith("CodeSHA256 (AAAA) is different from current CodeSHA256 in $LATEST (")
    refused("PreconditionFailedException", api.publish_version, FunctionName="same", RevisionId="00000000-0000-0000-0000-000000000000")


def test_publishing_with_a_change_waits_for_it(api):
    made = create(api, "together", Publish=True)
    assert (made["Version"], made["State"], made["FunctionArn"].rpartition(":")[2]) == ("1", "Pending", "1")
    api.get_waiter("published_version_active").wait(FunctionName="together", Qualifier="1", WaiterConfig={"Delay": 1})
    settle(api, "together")
    first = api.get_function_configuration(FunctionName="together", Qualifier="1")
    again = api.publish_version(FunctionName="together")
    assert (again["Version"], again["RevisionId"]) == ("1", first["RevisionId"])
    assert update(api, "together", "one", Publish=True)["Version"] == "1"
    updated = update(api, "together", "two", Publish=True)
    assert (updated["Version"], updated["State"]) == ("2", "Pending")
    assert run(api, "together:2")[0][0] == "two"
    assert run(api, "together:1")[0][0] == "one"


def test_an_alias_routes_by_weight(api):
    arn = create(api, "routed", Publish=True)["FunctionArn"].rpartition(":")[0]
    settle(api, "routed")
    update(api, "routed", "two", Publish=True)
    alias = api.create_alias(FunctionName="routed", Name="live", FunctionVersion="1", Description="d")
    assert (alias["AliasArn"], alias["FunctionVersion"]) == (f"{arn}:live", "1")
    assert run(api, "routed:live") == (["one", "1", f"{arn}:live"], "1")
    moved = api.update_alias(
        FunctionName="routed", Name="live", RoutingConfig={"AdditionalVersionWeights": {"2": 0.3}}, RevisionId=alias["RevisionId"]
    )
    assert moved["RevisionId"] != alias["RevisionId"]
    count = 600
    drawn = collections.Counter(run(api, "routed:live")[1] for _ in range(count))
    assert set(drawn) == {"1", "2"}
    assert abs(drawn["2"] - 0.3 * count) < 6 * math.sqrt(count * 0.3 * 0.7)
    shown = api.get_function(FunctionName="routed", Qualifier="live")["Configuration"]
    assert (shown["FunctionArn"], shown["Version"]) == (f"{arn}:live", "1")
    text = refused("ResourceConflictException", api.delete_function, FunctionName="routed", Qualifier="2")
    assert text == "Unable to delete version because the following aliases reference it: [live]"
    assert "cannot be greater than 1" in refused(
        "InvalidParameterValueException",
        api.update_alias,
        FunctionName="routed",
        Name="live",
        RoutingConfig={"AdditionalVersionWeights": {"1": 0.1, "2": 0.1}},
    )
    refused(
        "InvalidParameterValueException",
        api.update_alias,
        FunctionName="routed",
        Name="live",
        RoutingConfig={"AdditionalVersionWeights": {"1": 0.1}},
    )
    refused("InvalidParameterValueException", api.update_alias, FunctionName="routed", Name="live", FunctionVersion="$LATEST")
    refused("PreconditionFailedException", api.update_alias, FunctionName="routed", Name="live", RevisionId=alias["RevisionId"])
    cleared = api.update_alias(
        FunctionName="routed", Name="live", RoutingConfig={"AdditionalVersionWeights": {}}, FunctionVersion="$LATEST"
    )
    assert "RoutingConfig" not in cleared
    assert run(api, "routed:live")[1] == "$LATEST"
    refused("InvalidParameterValueException", api.delete_function, FunctionName="routed", Qualifier="live")
    api.delete_alias(FunctionName="routed", Name="live")
    api.delete_alias(FunctionName="routed", Name="live")
    refused("ResourceNotFoundException", api.invoke, FunctionName="routed:live")


def test_aliases_are_listed_and_missed_in_awss_words(api):
    arn = create(api, "named", Publish=True)["FunctionArn"].rpartition(":")[0]
    settle(api, "named")
    for name in ("b", "a", "c"):
        api.create_alias(FunctionName="named", Name=name, FunctionVersion="1" if name != "c" else "$LATEST")
    assert [each["Name"] for each in api.list_aliases(FunctionName="named")["Aliases"]] == ["a", "b", "c"]
    assert [each["Name"] for each in api.list_aliases(FunctionName="named", FunctionVersion="1")["Aliases"]] == ["a", "b"]
    pages = list(api.get_paginator("list_aliases").paginate(FunctionName="named", PaginationConfig={"PageSize": 2}))
    assert [len(page["Aliases"]) for page in pages] == [2, 1]
    assert (
        refused("ResourceConflictException", api.create_alias, FunctionName="named", Name="a", FunctionVersion="1")
        == f"Alias already exists: {arn}:a"
    )
    assert (
        refused("ResourceNotFoundException", api.create_alias, FunctionName="named", Name="d", FunctionVersion="9")
        == f"Function not found: {arn}:9"
    )
    assert refused("ResourceNotFoundException", api.get_alias, FunctionName="named", Name="d") == f"Cannot find alias arn: {arn}:d"
    assert refused("ResourceNotFoundException", api.update_alias, FunctionName="named", Name="d") == f"Alias not found: {arn}:d"
    refused("ValidationException", api.create_alias, FunctionName="named", Name="12", FunctionVersion="1")
    assert {each["FunctionArn"] for each in api.list_functions(FunctionVersion="ALL")["Functions"]} >= {f"{arn}:$LATEST", f"{arn}:1"}


def test_versions_and_aliases_survive_kill_9(tmp_path):
    with LocalServer(tmp_path / "data") as server:
        api = server.client("lambda")
        create(api, "kept", Publish=True)
        settle(api, "kept")
        update(api, "kept", "two")
        api.create_alias(FunctionName="kept", Name="live", FunctionVersion="1")
        server.kill()
        server.start()
        assert run(api, "kept:live")[0][:2] == ["one", "1"]
        assert run(api, "kept")[0][0] == "two"
        assert api.publish_version(FunctionName="kept")["Version"] == "2"
        api.delete_function(FunctionName="kept")
        server.kill()
        server.start()
        refused("ResourceNotFoundException", api.get_function, FunctionName="kept", Qualifier="1")
        create(api, "kept")
        settle(api, "kept")
        assert [each["Version"] for each in api.list_versions_by_function(FunctionName="kept")["Versions"]] == ["$LATEST"]
        assert server.stop() == 0
