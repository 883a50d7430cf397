"""The services: translation between the wire and the parts, and the table of what is implemented."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from control_house import ACCOUNT, REGION, House, creation, zipped

from lambent.arn import FunctionArn
from lambent.errors import ClientFault
from lambent.invoke.invocation import Invocation, InvocationResult
from lambent.invoke.response_stream import InvocationStream, Pace
from lambent.services.lambda_ import CLIENT_CONTEXT, LambdaService
from lambent.services.sts import StsService
from lambent.services.table import SERVICES, implemented, methods
from lambent.testing.clock import ManualClock
from lambent.wire.call import Call
from lambent.wire.models import load_service
from lambent.wire.serialize import serialize


class Door:
    """A front door that answers what it is told to and remembers who came in."""

    def __init__(self) -> None:
        self.invoked: list[Invocation] = []
        self.checked: list[Invocation] = []
        self.result = InvocationResult(b'"done"', "$LATEST", log_tail=b"END\n", trace="Root=1-2-3;Sampled=0")

    async def invoke(self, call: Invocation) -> InvocationResult:
        self.invoked.append(call)
        return self.result

    async def invoke_stream(self, call: Invocation) -> InvocationStream:
        self.invoked.append(call)
        answer = asyncio.get_running_loop().create_future()
        answer.set_result(self.result)
        stream = InvocationStream(answer, ManualClock(), Pace())
        stream.executed_version, stream.trace = "$LATEST", self.result.trace
        return stream

    async def dry_run(self, call: Invocation) -> None:
        self.checked.append(call)


def play(tmp_path: Path, story: Callable[[House, LambdaService, Door], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with House(tmp_path) as house:
            door = Door()
            await story(house, LambdaService(house.functions, house.tags, house.account, door, house.layers), door)

    asyncio.run(whole())


async def refusal(awaitable: Awaitable[Any]) -> ClientFault:
    with pytest.raises(ClientFault) as caught:
        await awaitable
    return caught.value


def context(document: object) -> str:
    return base64.b64encode(json.dumps(document).encode()).decode()


def test_every_answer_is_one_that_the_model_knows(tmp_path: Path):
    async def story(house: House, service: LambdaService, door: Door) -> None:
        statuses = {}
        arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f"

        async def do(operation: str, **params: Any) -> None:
            bound = methods({"lambda": service})["lambda", operation]
            result = await bound(house.call(), params)
            result.pop("__headers__", None)
            modelled = next(each for each in load_service("lambda").operations.values() if each.name == operation)
            statuses[operation] = serialize(modelled, result, "id").status
            await house.settle()

        await do("CreateFunction", **creation(Tags={"a": "b"}))
        await do("GetFunction", FunctionName="f")
        await do("GetFunctionConfiguration", FunctionName="f")
        await do("ListFunctions")
        await do("UpdateFunctionCode", FunctionName="f", ZipFile=zipped({"x": b"1"}))
        await do("UpdateFunctionConfiguration", FunctionName="f", Timeout=5)
        await do("TagResource", Resource=arn, Tags={"c": "d"})
        await do("UntagResource", Resource=arn, TagKeys=["a"])
        await do("ListTags", Resource=arn)
        await do("GetAccountSettings")
        layer = {"LayerName": "l", "VersionNumber": 1}
        await do("PublishLayerVersion", LayerName="l", Content={"ZipFile": zipped()}, Description="d", LicenseInfo="MIT")
        await do("GetLayerVersion", **layer)
        await do("GetLayerVersionByArn", Arn=f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:l:1")
        await do("ListLayers")
        await do("ListLayerVersions", LayerName="l")
        await do("AddLayerVersionPermission", **layer, StatementId="s", Action="lambda:GetLayerVersion", Principal="*")
        await do("GetLayerVersionPolicy", **layer)
        await do("RemoveLayerVersionPermission", **layer, StatementId="s")
        await do("DeleteLayerVersion", **layer)
        await do("Invoke", FunctionName="f", LogType="Tail")
        await do("InvokeWithResponseStream", FunctionName="f", LogType="Tail")
        await do("DeleteFunction", FunctionName="f")
        assert set(statuses) | {"InvokeAsync"} == {name for _, name in methods({"lambda": service})} | {"InvokeAsync"}
        created = {"CreateFunction", "PublishLayerVersion", "AddLayerVersionPermission"}
        no_content = {"TagResource", "UntagResource", "DeleteLayerVersion", "RemoveLayerVersionPermission"}
        assert statuses == {name: 201 if name in created else 204 if name in no_content else 200 for name in statuses}

    play(tmp_path, story)


def test_invoke_translates_both_ways(tmp_path: Path):
    async def story(house: House, service: LambdaService, door: Door) -> None:
        call = house.call()
        call.trace = "Root=1-2-3"
        answer = await service.invoke(
            call,
            {
                "FunctionName": "f",
                "Qualifier": "$LATEST",
                "Payload": b"{}",
                "LogType": "Tail",
                "ClientContext": context({"client": {"a": "ü"}}),
            },
        )
        [given] = door.invoked
        assert given == Invocation(
            target=FunctionArn(REGION, ACCOUNT, "f", "$LATEST"),
            payload=b"{}",
            request_id=call.request_id,
            client_context='{"client":{"a":"\\u00fc"}}',
            trace="Root=1-2-3",
            want_log=True,
            cause=call.request_id,
        )
        assert answer == {
            "StatusCode": 200,
            "ExecutedVersion": "$LATEST",
            "Payload": b'"done"',
            "LogResult": base64.b64encode(b"END\n").decode(),
            "__headers__": {"x-amzn-Remapped-Content-Length": "0", "X-Amzn-Trace-Id": "Root=1-2-3;Sampled=0"},
        }
        door.result.function_error = "Unhandled"
        answer = await service.invoke(house.call(), {"FunctionName": "f"})
        assert answer["FunctionError"] == "Unhandled"
        assert "LogResult" not in answer
        assert door.invoked[1].payload == b""

    play(tmp_path, story)


def test_dry_run_and_event(tmp_path: Path):
    async def story(house: House, service: LambdaService, door: Door) -> None:
        assert await service.invoke(house.call(), {"FunctionName": "f", "InvocationType": "DryRun"}) == {"StatusCode": 204}
        assert len(door.checked) == 1
        assert (await refusal(service.invoke(house.call(), {"FunctionName": "f", "InvocationType": "Event"}))).status == 501
        assert door.invoked == []

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "Client context must be a valid Base64-encoded JSON object."),
        (base64.b64encode(b"{").decode(), "Client context must be a valid Base64-encoded JSON object."),
        (base64.b64encode(b"\xff\xff").decode(), "Client context must be a valid Base64-encoded JSON object."),
        (base64.b64encode(b"[" * 2_000).decode(), "Client context must be a valid Base64-encoded JSON object."),
        (context([1]), "Client context must be a valid Base64-encoded JSON object."),
        ("A" * (CLIENT_CONTEXT + 1), "Client context must be at most 3583 bytes of Base64-encoded data."),
    ],
)
def test_client_context_is_checked(tmp_path: Path, text: str, message: str):
    async def story(house: House, service: LambdaService, door: Door) -> None:
        fault = await refusal(service.invoke(house.call(), {"FunctionName": "f", "ClientContext": text}))
        assert (fault.code, fault.status, fault.message) == ("InvalidRequestContentException", 400, message)
        assert door.invoked == []

    play(tmp_path, story)


@pytest.mark.parametrize("params", [{"DurableExecutionName": "d"}])
def test_what_the_function_is_not_made_for(tmp_path: Path, params: dict[str, str]):
    async def story(house: House, service: LambdaService, door: Door) -> None:
        assert (await refusal(service.invoke(house.call(), {"FunctionName": "f", **params}))).code == "InvalidParameterValueException"
        assert door.invoked == []

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("principal", "user_id"),
    [
        (f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT),
        (f"arn:aws:iam::{ACCOUNT}:user/anna", "AKIA"),
        (f"arn:aws:sts::{ACCOUNT}:assumed-role/r/session", "AKIA:session"),
    ],
)
def test_caller_identity(principal: str, user_id: str):
    call = Call("id", ACCOUNT, REGION, "AKIA", principal, "http://h")
    answer = asyncio.run(StsService().get_caller_identity(call, {}))
    assert answer == {"Account": ACCOUNT, "UserId": user_id, "Arn": principal}


def test_table_names_operations_of_the_model_and_nothing_else():
    table = implemented()
    for service, operations in table.items():
        assert operations <= {each.name for each in load_service(service).operations.values()}, service
        assert operations
    assert "Invoke" in table["lambda"]
    assert "ListDurableExecutionsByFunction" not in table["lambda"]
    assert set(table) == set(SERVICES)


def test_methods_are_bound_to_the_given_instance():
    service = StsService()
    table = methods({"sts": service})
    assert set(table) == {("sts", "AssumeRole"), ("sts", "GetCallerIdentity")}
    assert table["sts", "GetCallerIdentity"] == service.get_caller_identity
