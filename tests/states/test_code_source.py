"""Code that lies in a bucket: found, refused in AWS's words, and no different from code in a request once it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from control_house import ARN, House, creation, small, zipped

from lambent.control.code_source import BucketObject
from lambent.errors import ClientFault
from lambent.settings import Limits

CODE = {"S3Bucket": "b", "S3Key": "k"}
NO_KEY = "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist."


def play(tmp_path: Path, story: Callable[[House], Awaitable[None]], limits: Limits | None = None) -> None:
    async def whole() -> None:
        async with House(tmp_path, limits=limits) as house:
            await story(house)

    asyncio.run(whole())


async def refusal(awaitable: Awaitable[Any]) -> ClientFault:
    with pytest.raises(ClientFault) as caught:
        await awaitable
    return caught.value


def test_functions_and_layers(tmp_path: Path):
    async def story(house: House) -> None:
        first, second = zipped({"h.py": b"1\n"}), zipped({"h.py": b"2\n"})
        house.shelf.objects = {BucketObject("b", "k"): first, BucketObject("b", "k", "v2"): second}
        direct = await house.create("direct", first)
        made = await house.functions.create(house.call(), {**creation(), "Code": CODE})
        assert (made["CodeSha256"], made["CodeSize"]) == (direct["CodeSha256"], len(first))
        await house.settle()
        versioned = {"FunctionName": "f", **CODE, "S3ObjectVersion": "v2"}
        tried = await house.functions.update_code(house.call(), {**versioned, "DryRun": True})
        assert tried["CodeSha256"] != made["CodeSha256"]
        assert house.show()["CodeSha256"] == made["CodeSha256"]
        updated = await house.functions.update_code(house.call(), versioned)
        assert updated["CodeSha256"] == tried["CodeSha256"]
        await house.settle()
        assert (Path(house.registry.resolve(ARN).code_dir) / "h.py").read_bytes() == b"2\n"
        layer = await house.layers.publish(house.call(), {"LayerName": "l", "Content": {**CODE, "S3ObjectStorageMode": "COPY"}})
        assert layer["Content"]["CodeSize"] == len(first)

    play(tmp_path, story)


def test_what_the_bucket_says_is_passed_on(tmp_path: Path):
    async def story(house: House) -> None:
        attempts: list[Callable[[], Awaitable[Any]]] = [
            lambda: house.functions.create(house.call(), {**creation("new"), "Code": CODE}),
            lambda: house.layers.publish(house.call(), {"LayerName": "l", "Content": CODE}),
        ]
        for attempt in attempts:
            fault = await refusal(attempt())
            assert (fault.code, fault.message) == ("InvalidParameterValueException", NO_KEY)
        house.shelf.fault = ClientFault("AccessDenied", 403, "Access Denied")
        fault = await refusal(attempts[0]())
        assert (fault.code, fault.status) == ("AccessDeniedException", 403)
        assert fault.message.endswith("GetObject for b/k. S3 Error Code: AccessDenied. S3 Error Message: Access Denied")
        assert not house.disk.blobs

    play(tmp_path, story)


def test_the_direct_limit_is_of_requests_only(tmp_path: Path):
    async def story(house: House) -> None:
        content = zipped({"h.py": bytes(range(256)) * 2})
        assert (await refusal(house.create("direct", content))).code == "RequestEntityTooLargeException"
        house.shelf.objects = {BucketObject("b", "k"): content}
        await house.functions.create(house.call(), {**creation(), "Code": CODE})

    play(tmp_path, story, small(zip_direct=300))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"S3Bucket": "b"}, "Please provide both S3Bucket and S3Key"),
        ({"S3Key": "k", "S3ObjectVersion": "v"}, "Please provide both S3Bucket and S3Key"),
        ({**CODE, "ZipFile": b"x"}, "Please do not provide other"),
        ({"S3ObjectStorageMode": "REFERENCE", "ZipFile": b"x"}, "Please do not provide other"),
        ({"S3ObjectStorageMode": "REFERENCE"}, "Please provide both S3Bucket and S3Key"),
        ({}, "Please provide a source for"),
    ],
)
def test_one_source_and_a_whole_one(tmp_path: Path, content: dict[str, Any], message: str):
    async def story(house: House) -> None:
        for attempt in (
            house.functions.create(house.call(), {**creation(), "Code": content}),
            house.layers.publish(house.call(), {"LayerName": "l", "Content": content}),
        ):
            fault = await refusal(attempt)
            assert fault.code == "InvalidParameterValueException"
            assert fault.message.startswith(message)

    play(tmp_path, story)
