"""Layers, log formats and file systems as a user meets them: boto3, a real server, real sandboxes."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from acceptance_helpers import ROLE, RUNTIME, call, settle, stop_cleanly, zipped
from aws_cli import aws
from botocore.exceptions import ClientError

from lambent.testing.local_server import LocalServer

EFS = "arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/fsap-0123456789abcdef0"
LOOK = """
import os, sys
def handler(event, context):
    import shared
    return {
        "version": shared.VERSION,
        "path": shared.__file__,
        "only": os.path.exists("/opt/only"),
        "tool": open("/opt/bin/tool").read(),
        "writable": os.access("/opt/bin/tool", os.W_OK),
    }
"""


def publish(api: Any, name: str, files: dict[str, str | bytes]) -> dict[str, Any]:
    return api.publish_layer_version(LayerName=name, Content={"ZipFile": zipped(files)}, CompatibleRuntimes=[RUNTIME])


def test_layers_are_merged_in_order_and_outlive_their_versions(api: Any, deploy: Any):
    site = f"python/lib/{RUNTIME}/site-packages/shared.py"
    one = publish(api, "one", {"python/shared.py": "VERSION = 1\n", "bin/tool": "one", "only": "1"})
    two = publish(api, "two", {site: "VERSION = 2\n", "bin/tool": "two"})
    arns = [one["LayerVersionArn"], two["LayerVersionArn"]]
    made = deploy("layered", LOOK, Layers=arns)
    assert made["Layers"] == [{"Arn": each["LayerVersionArn"], "CodeSize": each["Content"]["CodeSize"]} for each in (one, two)]
    seen = {"version": 2, "path": f"/opt/{site}", "only": True, "tool": "two", "writable": False}
    assert call(api, "layered")[0] == seen
    for name in ("one", "two"):
        api.delete_layer_version(LayerName=name, VersionNumber=1)
    with pytest.raises(ClientError, match="does not exist"):
        api.get_layer_version(LayerName="one", VersionNumber=1)
    api.update_function_configuration(FunctionName="layered", Layers=arns[:0], MemorySize=256)
    settle(api, "layered")
    assert call(api, "layered")[1]["FunctionError"] == "Unhandled"
    with pytest.raises(ClientError, match=r"Layer version .* does not exist"):
        api.update_function_configuration(FunctionName="layered", Layers=arns)
    third = publish(api, "one", {"python/shared.py": "VERSION = 3\n", "bin/tool": "three"})
    assert third["Version"] == 2
    api.update_function_configuration(FunctionName="layered", Layers=[third["LayerVersionArn"]])
    settle(api, "layered")
    assert call(api, "layered")[0] == {**seen, "version": 3, "path": "/opt/python/shared.py", "only": False, "tool": "three"}


def test_shown_and_listed(api: Any):
    content = zipped({"f": "x"})
    for _ in range(2):
        made = api.publish_layer_version(LayerName="shown", Content={"ZipFile": content}, CompatibleRuntimes=[RUNTIME])
    asked = api.get_layer_version_by_arn(Arn=made["LayerVersionArn"])
    with urllib.request.urlopen(asked["Content"]["Location"]) as answer:
        assert answer.read() == content
    pages = api.get_paginator("list_layer_versions").paginate(LayerName="shown", PaginationConfig={"PageSize": 1})
    assert [each["Version"] for page in pages for each in page["LayerVersions"]] == [2, 1]
    listed = api.list_layers(CompatibleRuntime=RUNTIME)["Layers"]
    assert [each["LatestMatchingVersion"]["Version"] for each in listed if each["LayerName"] == "shown"] == [2]
    granted = api.add_layer_version_permission(
        LayerName="shown", VersionNumber=2, StatementId="all", Action="lambda:GetLayerVersion", Principal="*"
    )
    policy = api.get_layer_version_policy(LayerName="shown", VersionNumber=2)
    assert (json.loads(policy["Policy"])["Statement"], policy["RevisionId"]) == ([json.loads(granted["Statement"])], granted["RevisionId"])
    api.remove_layer_version_permission(LayerName="shown", VersionNumber=2, StatementId="all")
    with pytest.raises(api.exceptions.ResourceNotFoundException):
        api.get_layer_version_policy(LayerName="shown", VersionNumber=2)
    with pytest.raises(api.exceptions.InvalidParameterValueException, match="Layer Version Cannot be less than 1"):
        api.get_layer_version(LayerName="shown", VersionNumber=0)


def test_the_aws_cli_publishes(server: LocalServer, tmp_path: Path):
    (tmp_path / "layer.zip").write_bytes(zipped({"f": "x"}))
    words = ("publish-layer-version", "--layer-name", "cli", "--zip-file", "fileb://layer.zip")
    assert json.loads(aws(server.endpoint, tmp_path, "lambda", *words))["LayerVersionArn"].endswith(":layer:cli:1")


def test_json_logs(api: Any, deploy: Any):
    source = "import logging\ndef handler(event, context):\n    for say in (logging.info, logging.warning): say('said')\n"
    levels = {"LogFormat": "JSON", "ApplicationLogLevel": "WARN"}
    made = deploy("json-logs", source, LoggingConfig=levels)
    assert made["LoggingConfig"] == {**levels, "SystemLogLevel": "INFO", "LogGroup": "/aws/lambda/json-logs"}
    log = call(api, "json-logs")[1]["log"]
    assert [json.loads(line)["level"] for line in log.splitlines() if '"said"' in line] == ["WARNING"]
    with pytest.raises(api.exceptions.InvalidParameterValueException, match="LogLevel is not supported"):
        api.update_function_configuration(FunctionName="json-logs", LoggingConfig={"LogFormat": "Text", "SystemLogLevel": "INFO"})


@pytest.fixture(scope="module")
def mounting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalServer, Path]]:
    folder = tmp_path_factory.mktemp("efs")
    os.chown(folder, 1000, 1000) if os.geteuid() == 0 else None
    config = tmp_path_factory.mktemp("config") / "lambent.toml"
    config.write_text(f'[sandbox.file_systems]\n"{EFS}" = "{folder}"\n')
    with LocalServer(config=config) as running:
        yield running, folder
        stop_cleanly(running)


def test_a_folder_stands_for_a_file_system(mounting: tuple[LocalServer, Path]):
    server, folder = mounting
    if server.health()["isolation"]["driver"] != "namespaces":
        pytest.skip("only the namespaces driver mounts")
    api = server.client("lambda")
    source = "def handler(event, context):\n    with open('/mnt/data/n', 'a+') as f:\n        f.write('x')\n        return f.tell()\n"
    api.create_function(
        FunctionName="mounted",
        Runtime=RUNTIME,
        Role=ROLE,
        Handler="app.handler",
        Code={"ZipFile": zipped({"app.py": source})},
        FileSystemConfigs=[{"Arn": EFS, "LocalMountPath": "/mnt/data"}],
    )
    settle(api, "mounted")
    assert [call(api, "mounted")[0] for _ in range(3)] == [1, 2, 3]
    assert (folder / "n").read_text() == "xxx"
    api.update_function_configuration(FunctionName="mounted", MemorySize=256)
    settle(api, "mounted")
    (folder / "n").unlink()
    folder.rmdir()
    with pytest.raises(api.exceptions.EFSMountFailureException) as caught:
        api.invoke(FunctionName="mounted")
    assert EFS in caught.value.response["Error"]["Message"] or EFS in caught.value.response["Message"]
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, 1000, 1000)
    assert call(api, "mounted")[0] == 1
