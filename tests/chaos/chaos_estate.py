"""Changes of the control plane under fire: what is acknowledged must be there, what is not may be there, nothing else may.

``Estate`` keeps what the server should show. Changes are made one after the other by one client; the one that was under way when the
server died is looked for when it is back: all of it must be there, or nothing.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import json
import random
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError
from chaos_load import Load
from chaos_town import ROLE, RUNTIME, Town, code

_NAMES = [f"estate-{number}" for number in range(5)]
_LAYERS = ["layer-0", "layer-1"]
_QUEUES = ["own-0", "own-1"]
_ARN = "arn:aws:lambda:us-east-1:000000000000"

Expected = dict[str, Any]


class Estate:
    """``act`` makes one change; ``check`` compares the server with what was acknowledged, after a restart."""

    def __init__(self, town: Town, load: Load, seed: int) -> None:
        self._town = town
        self._load = load
        self._dice = random.Random(seed)
        self._sources = [f"def handler(event, context):\n    return {number}\n" for number in range(4)]
        self._codes = [code(source) for source in self._sources]
        self.expected: Expected = {
            "functions": {},
            "layers": {name: {} for name in _LAYERS},
            "queues": {},
            "made": dict.fromkeys(_LAYERS, 0),
        }
        self._possible: Expected | None = None  # if the change under way was made
        self.acknowledged = 0
        self.undecided = 0
        self.found_made = 0
        self._changes: list[Callable[[Expected], Callable[[], Any]]] = [
            self._create, self._create, self._update, self._update, self._update_code, self._publish, self._alias, self._alias, self._tag,
            self._allow, self._reserve, self._retries, self._delete, self._layer, self._drop_layer, self._queue, self._url,
        ]  # fmt: skip

    def act(self) -> bool:
        """One change. Raises ``Interrupted``."""
        if self._possible is not None:
            self._load.call(self.check)  # the database went away under the server's feet
        request = None
        while request is None:
            after = copy.deepcopy(self.expected)
            with contextlib.suppress(_NothingToDo):
                request = self._dice.choice(self._changes)(after)
        self._possible = after
        request()
        self.expected, self._possible = after, None
        self.acknowledged += 1
        return False

    def check(self) -> None:
        """Raises ``AssertionError`` where the server shows anything but what was acknowledged, and ``Interrupted``."""
        found = self._observe()
        if self._possible is None:
            assert found == _shown(self.expected)
            return
        self.undecided += 1
        assert found in (_shown(self.expected), _shown(self._possible)), (found, self.expected, self._possible)
        if found == _shown(self._possible):
            self.expected = self._possible
            self.found_made += 1
        self._possible = None

    # -- changes: each alters what is expected, and gives the request ----------------------------------------------------------------

    def _ask(self, operation: str, **parameters: Any) -> Callable[[], Any]:
        client = self._town.sqs if "queue" in operation else self._town.api
        return lambda: self._load.call(getattr(client, operation), **parameters)

    def _one(self, after: Expected) -> tuple[str, dict[str, Any]]:
        """One of the functions, ready for a change."""
        if not after["functions"]:
            raise _NothingToDo
        name = self._dice.choice(sorted(after["functions"]))
        deadline, shown = time.monotonic() + 30, None
        while True:
            assert time.monotonic() < deadline, f"{name} is not ready: {shown}"
            shown = self._load.call(self._town.api.get_function_configuration, FunctionName=name)
            if shown["State"] == "Active" and shown["LastUpdateStatus"] != "InProgress":
                return name, after["functions"][name]

    def _create(self, after: Expected) -> Callable[[], Any]:
        free = [name for name in _NAMES if name not in after["functions"]]
        if not free:
            raise _NothingToDo
        name, number = self._dice.choice(free), self._dice.randrange(len(self._codes))
        layers = [f"{_ARN}:layer:{layer}:{version}" for layer in _LAYERS for version in sorted(after["layers"][layer], key=int)[:1]]
        after["functions"][name] = {
            "description": "",
            "memory": 128,
            "code": _sha256(self._codes[number]),
            "layers": layers,
            "tags": {"of": name},
            "versions": {},
            "aliases": {},
            "statements": [],
            "reserved": None,
            "retries": None,
            "url": None,
            "published": 0,
        }
        return self._ask(
            "create_function",
            FunctionName=name,
            Runtime=RUNTIME,
            Role=ROLE,
            Handler="app.handler",
            Code={"ZipFile": self._codes[number]},
            Tags={"of": name},
            Layers=layers,
        )

    def _update(self, after: Expected) -> Callable[[], Any]:
        name, function = self._one(after)
        function["description"], function["memory"] = self._word(), self._dice.choice([128, 192, 256])
        return self._ask(
            "update_function_configuration", FunctionName=name, Description=function["description"], MemorySize=function["memory"]
        )

    def _update_code(self, after: Expected) -> Callable[[], Any]:
        name, function = self._one(after)
        content = self._dice.choice(self._codes)
        function["code"] = _sha256(content)
        return self._ask("update_function_code", FunctionName=name, ZipFile=content)

    def _publish(self, after: Expected) -> Callable[[], Any]:
        name, function = self._one(after)
        same = {"code": function["code"], "description": function["description"], "memory": function["memory"]}
        newest = function["versions"].get(str(function["published"]))
        if newest is not None and newest == same:
            raise _NothingToDo
        function["published"] += 1
        function["versions"][str(function["published"])] = same
        return self._ask("publish_version", FunctionName=name)

    def _alias(self, after: Expected) -> Callable[[], Any]:
        name, function = self._one(after)
        if not function["versions"]:
            raise _NothingToDo
        alias, version = self._dice.choice(["live", "next"]), self._dice.choice(sorted(function["versions"]))
        operation = "update_alias" if alias in function["aliases"] else "create_alias"
        if operation == "update_alias" and self._dice.random() < 0.2:
            del function["aliases"][alias]
            return self._ask("delete_alias", FunctionName=name, Name=alias)
        function["aliases"][alias] = version
        return self._ask(operation, FunctionName=name, Name=alias, FunctionVersion=version)

    def _tag(self, after: Expected) -> Callable[[], Any]:
        name, function = self._one(after)
        key = self._dice.choice(["a", "b", "c"])
        if key in function["tags"] and self._dice.random() < 0.4:
            del function["tags"][key]
            return self._ask("untag_resource", Resource=f"{_ARN}:function:{name}", TagKeys=[key])
        function["tags"][key] = self._word()
        return lambda: self._load.call(self._town.api.tag_resource, Resource=f"{_ARN}:function:{name}", Tags={key: function["tags"][key]})

    def _allow(self, after: Expected) -> Callable[[], Any]:
        name, function = self._one(after)
        if len(function["statements"]) > 4:
            return self._ask("remove_permission", FunctionName=name, StatementId=function["statements"].pop(0))
        function["statements"].append(self._word())
        return self._ask(
            "add_permission",
            FunctionName=name,
            StatementId=function["statements"][-1],
            Action="lambda:InvokeFunction",
            Principal="s3.amazonaws.com",
        )

    def _reserve(self, after: Expected) -> Callable[[], Any]:
        name, function = self._one(after)
        if function["reserved"] is not None and self._dice.random() < 0.4:
            function["reserved"] = None
            return self._ask("delete_function_concurrency", FunctionName=name)
        function["reserved"] = self._dice.randint(0, 9)
        return self._ask("put_function_concurrency", FunctionName=name, ReservedConcurrentExecutions=function["reserved"])

    def _retries(self, after: Expected) -> Callable[[], Any]:
        name, function = self._one(after)
        if function["retries"] is not None and self._dice.random() < 0.4:
            function["retries"] = None
            return self._ask("delete_function_event_invoke_config", FunctionName=name)
        function["retries"] = self._dice.randint(0, 2)
        return self._ask("put_function_event_invoke_config", FunctionName=name, MaximumRetryAttempts=function["retries"])

    def _url(self, after: Expected) -> Callable[[], Any]:
        name, function = self._one(after)
        if function["url"] is not None:
            function["url"] = None
            return self._ask("delete_function_url_config", FunctionName=name)
        function["url"] = self._dice.choice(["NONE", "AWS_IAM"])
        return self._ask("create_function_url_config", FunctionName=name, AuthType=function["url"])

    def _delete(self, after: Expected) -> Callable[[], Any]:
        if self._dice.random() < 0.5:
            raise _NothingToDo
        name, _ = self._one(after)
        del after["functions"][name]
        return self._ask("delete_function", FunctionName=name)

    def _layer(self, after: Expected) -> Callable[[], Any]:
        name = self._dice.choice(_LAYERS)
        if len(after["layers"][name]) > 3:
            raise _NothingToDo
        after["made"][name] += 1
        text = after["layers"][name][str(after["made"][name])] = self._word()
        return self._ask("publish_layer_version", LayerName=name, Description=text, Content={"ZipFile": self._dice.choice(self._codes)})

    def _drop_layer(self, after: Expected) -> Callable[[], Any]:
        name = self._dice.choice(_LAYERS)
        if not after["layers"][name]:
            raise _NothingToDo
        version = self._dice.choice(sorted(after["layers"][name]))
        del after["layers"][name][version]
        return self._ask("delete_layer_version", LayerName=name, VersionNumber=int(version))

    def _queue(self, after: Expected) -> Callable[[], Any]:
        name = self._dice.choice(_QUEUES)
        seconds = str(self._dice.randint(1, 600))
        if name not in after["queues"]:
            after["queues"][name] = seconds
            return self._ask("create_queue", QueueName=name, Attributes={"VisibilityTimeout": seconds})
        url = f"{self._town.server.endpoint}/000000000000/{name}"
        after["queues"][name] = seconds
        return self._ask("set_queue_attributes", QueueUrl=url, Attributes={"VisibilityTimeout": seconds})

    def _word(self) -> str:
        return f"w{self._dice.randrange(10**9)}"

    # -- what is there -----------------------------------------------------------------------------------------------------------

    def _observe(self) -> Expected:
        api, sqs = self._town.api, self._town.sqs
        listed = [each["FunctionName"] for page in api.get_paginator("list_functions").paginate() for each in page["Functions"]]
        queues = {}
        for url in sqs.list_queues(QueueNamePrefix="own-").get("QueueUrls", []):
            attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
            queues[url.rpartition("/")[2]] = attributes["VisibilityTimeout"]
        layers = {
            name: {str(each["Version"]): each["Description"] for each in api.list_layer_versions(LayerName=name)["LayerVersions"]}
            for name in _LAYERS
        }
        return {
            "functions": {name: self._function(name) for name in listed if name in _NAMES},
            "layers": layers,
            "queues": queues,
        }

    def _function(self, name: str) -> dict[str, Any]:
        api = self._town.api
        found = api.get_function(FunctionName=name)
        configuration = found["Configuration"]
        versions = {
            each["Version"]: {"code": each["CodeSha256"], "description": each["Description"], "memory": each["MemorySize"]}
            for each in api.list_versions_by_function(FunctionName=name)["Versions"]
            if each["Version"] != "$LATEST"
        }
        policy = _or_none(api.get_policy, FunctionName=name)
        retries = _or_none(api.get_function_event_invoke_config, FunctionName=name)
        url = _or_none(api.get_function_url_config, FunctionName=name)
        return {
            "description": configuration["Description"],
            "memory": configuration["MemorySize"],
            "code": configuration["CodeSha256"],
            "layers": [each["Arn"] for each in configuration.get("Layers", [])],
            "tags": found.get("Tags", {}),
            "versions": versions,
            "aliases": {each["Name"]: each["FunctionVersion"] for each in api.list_aliases(FunctionName=name)["Aliases"]},
            "statements": sorted(_statements(policy)),
            "reserved": found.get("Concurrency", {}).get("ReservedConcurrentExecutions"),
            "retries": retries["MaximumRetryAttempts"] if retries else None,
            "url": url["AuthType"] if url else None,
        }


class _NothingToDo(Exception):
    """The change that was drawn does not fit what is there."""


def _shown(expected: Expected) -> Expected:
    """What the server would show of it."""
    functions = {
        name: {**{key: value for key, value in each.items() if key != "published"}, "statements": sorted(each["statements"])}
        for name, each in expected["functions"].items()
    }
    return {"functions": functions, "layers": expected["layers"], "queues": expected["queues"]}


def _or_none(operation: Callable[..., Any], **parameters: Any) -> Any:
    try:
        return operation(**parameters)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return None
        raise


def _statements(policy: Any) -> list[str]:
    return [each["Sid"] for each in json.loads(policy["Policy"])["Statement"]] if policy else []


def _sha256(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()
