"""Layers, one operation at a time and over restarts, against contracts 01 and 06."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from control_house import ACCOUNT, ARN, REGION, House, creation, small, zipped

from lambent.control.code import GRACE_S
from lambent.control.layer_merge import merged_key
from lambent.errors import ClientFault
from lambent.settings import Limits
from lambent.store.contract import StoreConflict

OTHER = "210987654321"
LAYER_ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:l"


def play(tmp_path: Path, story: Callable[[House], Awaitable[None]], limits: Limits | None = None) -> None:
    async def whole() -> None:
        async with House(tmp_path, limits=limits) as house:
            await story(house)

    asyncio.run(whole())


async def refusal(awaitable: Awaitable[Any]) -> ClientFault:
    with pytest.raises(ClientFault) as caught:
        await awaitable
    return caught.value


def refusal_now(work: Callable[[], Any]) -> ClientFault:
    with pytest.raises(ClientFault) as caught:
        work()
    return caught.value


async def publish(house: House, name: str = "l", files: dict[str, bytes] | None = None, **params: Any) -> dict[str, Any]:
    content = {"ZipFile": zipped(files or {"python/shared.py": b"A = 1\n"})}
    return await house.layers.publish(house.call(), {"LayerName": name, "Content": content, **params})


def test_publish_and_get(tmp_path: Path):
    async def story(house: House) -> None:
        content = zipped({"python/shared.py": b"A = 1\n"})
        made = await publish(
            house, Description="d", LicenseInfo="MIT", CompatibleRuntimes=["python3.12"], CompatibleArchitectures=["arm64"]
        )
        location = made["Content"].pop("Location")
        assert made == {
            "Content": {"CodeSha256": base64.b64encode(hashlib.sha256(content).digest()).decode(), "CodeSize": len(content)},
            "LayerArn": LAYER_ARN,
            "LayerVersionArn": f"{LAYER_ARN}:1",
            "Description": "d",
            "CreatedDate": "2026-01-01T00:00:00.000+0000",
            "Version": 1,
            "CompatibleRuntimes": ["python3.12"],
            "CompatibleArchitectures": ["arm64"],
            "LicenseInfo": "MIT",
        }
        query = parse_qs(urlsplit(location).query)
        assert await house.code.download(urlsplit(location).path.split("/")[-1], query["expires"][0], query["token"][0]) == content
        for asked in (
            house.layers.get(house.call(), {"LayerName": "l", "VersionNumber": 1}),
            house.layers.get(house.call(), {"LayerName": LAYER_ARN, "VersionNumber": 1}),
            house.layers.get_by_arn(house.call(), {"Arn": f"{LAYER_ARN}:1"}),
        ):
            asked["Content"].pop("Location")
            assert asked == made
        assert house.account.settings(house.call())["AccountUsage"]["TotalCodeSize"] == len(b"A = 1\n")

    play(tmp_path, story)


def test_numbers_are_never_used_again(tmp_path: Path):
    async def story(house: House) -> None:
        assert [(await publish(house))["Version"] for _ in range(3)] == [1, 2, 3]
        for number in (1, 2, 3, 3, 99):
            await house.layers.delete(house.call(), {"LayerName": "l", "VersionNumber": number})
        assert house.layers.list_layers(house.call(), {}) == {"Layers": []}
        assert (await publish(house))["Version"] == 4
        await house.stop()
        again = house.reborn()
        async with again:
            assert (await publish(again))["Version"] == 5
            assert [each["Version"] for each in again.layers.list_versions(again.call(), {"LayerName": "l"})["LayerVersions"]] == [5, 4]

    play(tmp_path, story)


def test_publishers_at_once_get_numbers_of_their_own(tmp_path: Path):
    async def story(house: House) -> None:
        made = await asyncio.gather(*(publish(house, files={"f": b"%d" % number}) for number in range(20)))
        assert sorted(each["Version"] for each in made) == list(range(1, 21))
        for each in made:
            shown = house.layers.get(house.call(), {"LayerName": "l", "VersionNumber": each["Version"]})
            assert shown["Content"]["CodeSha256"] == each["Content"]["CodeSha256"]

    play(tmp_path, story)


def test_what_is_not_there(tmp_path: Path):
    async def story(house: House) -> None:
        await publish(house)
        for params in ({"LayerName": "l", "VersionNumber": 2}, {"LayerName": "other", "VersionNumber": 1}):
            fault = refusal_now(lambda params=params: house.layers.get(house.call(), params))
            assert (fault.code, fault.message) == ("ResourceNotFoundException", "The resource you requested does not exist.")
        fault = refusal_now(lambda: house.layers.get(house.call(), {"LayerName": "l", "VersionNumber": 0}))
        assert (fault.code, fault.message) == ("InvalidParameterValueException", "Layer Version Cannot be less than 1")
        assert house.layers.list_versions(house.call(), {"LayerName": "other"}) == {"LayerVersions": []}
        fault = await refusal(house.layers.publish(house.call(), {"LayerName": "l", "Content": {}}))
        assert fault.code == "InvalidParameterValueException"
        fault = await refusal(house.layers.publish(house.call(), {"LayerName": "l", "Content": {"ZipFile": b"no zip"}}))
        assert fault.message.startswith("Could not unzip uploaded file.")
        assert [each["Version"] for each in house.layers.list_versions(house.call(), {"LayerName": "l"})["LayerVersions"]] == [1]

    play(tmp_path, story)


def test_lists_filters_and_pages(tmp_path: Path):
    async def story(house: House) -> None:
        for name, runtimes in (("a", ["python3.11"]), ("b", ["python3.12"]), ("c", ["python3.11", "python3.12"])):
            await publish(house, name, CompatibleRuntimes=runtimes, CompatibleArchitectures=["x86_64"])
            house.clock.advance(1)
        await publish(house, "a", CompatibleRuntimes=["python3.12"])

        def names(**params: Any) -> list[tuple[str, int]]:
            found: list[tuple[str, int]] = []
            while True:
                answer = house.layers.list_layers(house.call(), params)
                found += [(each["LayerName"], each["LatestMatchingVersion"]["Version"]) for each in answer["Layers"]]
                if "NextMarker" not in answer:
                    return found
                params["Marker"] = answer["NextMarker"]

        assert names() == [("a", 2), ("c", 1), ("b", 1)]
        assert names(MaxItems=1) == names()
        assert names(CompatibleRuntime="python3.11") == [("c", 1), ("a", 1)]
        assert names(CompatibleRuntime="python3.12", CompatibleArchitecture="x86_64") == [("c", 1), ("b", 1)]
        assert names(CompatibleArchitecture="arm64") == []
        for number in range(60):
            await publish(house, "many", {"f": b"%d" % number})
        first = house.layers.list_versions(house.call(), {"LayerName": "many", "MaxItems": 10_000})
        assert [each["Version"] for each in first["LayerVersions"]] == list(range(60, 10, -1))
        second = house.layers.list_versions(house.call(), {"LayerName": "many", "Marker": first["NextMarker"]})
        assert [each["Version"] for each in second["LayerVersions"]] == list(range(10, 0, -1))
        assert "NextMarker" not in second
        for wrong in (
            lambda: names(Marker="nonsense"),
            lambda: house.layers.list_versions(house.call(), {"LayerName": "l", "Marker": "x"}),
        ):
            assert refusal_now(wrong).code == "InvalidParameterValueException"

    play(tmp_path, story)


def test_a_function_with_layers(tmp_path: Path):
    async def story(house: House) -> None:
        one = await publish(house, "one", {"python/a.py": b"A = 1\n", "bin/tool": b"1"})
        two = await publish(house, "two", {"python/b.py": b"B = 1\n", "bin/tool": b"2"})
        arns = [one["LayerVersionArn"], two["LayerVersionArn"]]
        shown = await house.create(Layers=arns)
        sizes = [each["Content"]["CodeSize"] for each in (one, two)]
        assert shown["Layers"] == [{"Arn": arn, "CodeSize": size} for arn, size in zip(arns, sizes, strict=True)]
        assert not [name for name in shown if name.startswith("_")]
        await house.settle()
        version = house.registry.resolve(ARN)
        opt = Path(version.opt_dir)
        assert opt.parent == Path(version.code_dir).parent
        assert ((opt / "bin/tool").read_bytes(), (opt / "python/a.py").exists(), (opt / "python/b.py").exists()) == (b"2", True, True)
        await house.configure(Layers=arns[::-1])
        await house.settle()
        turned = house.registry.resolve(ARN)
        assert turned.environment_key != version.environment_key
        assert (Path(turned.opt_dir) / "bin/tool").read_bytes() == b"1"
        await house.configure(Timeout=5)
        await house.settle()
        assert house.registry.resolve(ARN).opt_dir == turned.opt_dir
        await house.upload(zipped({"h.py": b"# other\n"}))
        await house.settle()
        assert house.registry.resolve(ARN).layer_sha256 == turned.layer_sha256
        await house.configure(Layers=arns[:1])
        await house.settle()
        single = house.registry.resolve(ARN)
        assert single.layer_sha256 == hashlib.sha256(zipped({"python/a.py": b"A = 1\n", "bin/tool": b"1"})).hexdigest()
        assert "Layers" not in await house.configure(Layers=[])
        await house.settle()
        assert (house.registry.resolve(ARN).opt_dir, house.registry.resolve(ARN).layer_sha256) == ("", "")

    play(tmp_path, story)


def test_refused_references(tmp_path: Path):
    async def story(house: House) -> None:
        for _ in range(2):
            await publish(house)
        await house.create()
        await house.settle()
        first, second = f"{LAYER_ARN}:1", f"{LAYER_ARN}:2"
        same = "Two different versions of the same layer are not allowed to be referenced in the same function. "
        elsewhere = first.replace(REGION, "eu-west-1")
        for layers, message in (
            ([first] * 6, "Cannot reference more than 5 layers."),
            ([first, second], f"{same}{first} and {second} are versions of the same layer."),
            ([first, first], f"{same}{first} and {first} are versions of the same layer."),
            ([f"{LAYER_ARN}:3"], f"Layer version {LAYER_ARN}:3 does not exist."),
            ([elsewhere], f"Layers are not in the same region as the function. Layers are expected to be in region {REGION}."),
        ):
            for attempt in (house.create("g", Layers=layers), house.configure(Layers=layers)):
                fault = await refusal(attempt)
                assert (fault.code, fault.message) == ("InvalidParameterValueException", message)
        assert house.show()["LastUpdateStatus"] == "Successful"

    play(tmp_path, story)


def test_sizes_together(tmp_path: Path):
    async def story(house: House) -> None:
        big, half = b"x" * 900, b"y" * 600
        one = (await publish(house, "one", {"f": big}))["LayerVersionArn"]
        two = (await publish(house, "two", {"f": half}))["LayerVersionArn"]
        three = (await publish(house, "three", {"f": half}))["LayerVersionArn"]
        fault = await refusal(house.create(Layers=[two, three]))
        assert fault.message == "Layers consume more than the available size of 1000 bytes"
        code = zipped({"h.py": b"z" * 200})
        fault = await refusal(house.create(content=code, Layers=[one]))
        combined = "Function code combined with layers exceeds the maximum allowed size of 1000 bytes. The actual size is 1100 bytes."
        assert fault.message == combined
        await house.create(content=code, Layers=[two])
        await house.settle()
        assert (await refusal(house.configure(Layers=[one]))).message == combined
        for dry in (True, False):
            fault = await refusal(house.upload(zipped({"h.py": b"z" * 401}), DryRun=dry))
            assert fault.message.endswith("The actual size is 1001 bytes.")

    play(tmp_path, story, small(code_unzipped=1000))


def test_code_storage_counts_layers_too(tmp_path: Path):
    async def story(house: House) -> None:
        await publish(house, files={"f": b"x" * 90})
        assert (await refusal(publish(house, files={"f": b"y" * 20}))).code == "CodeStorageExceededException"
        assert (await refusal(house.create())).code == "CodeStorageExceededException"
        await house.layers.delete(house.call(), {"LayerName": "l", "VersionNumber": 1})
        await house.create()

    play(tmp_path, story, small(code_storage=100))


def test_deleted_versions_go_on_serving_and_vanish_at_last(tmp_path: Path):
    async def collected(house: House) -> None:
        await house.settle()
        house.clock.advance(GRACE_S)
        await house.settle()
        await house.settle()
        house.clock.advance(GRACE_S)
        await house.settle()

    async def story(house: House) -> None:
        one, two = await publish(house, "one", {"a": b"1"}), await publish(house, "two", {"b": b"2"})
        arns = [one["LayerVersionArn"], two["LayerVersionArn"]]
        hashes = [base64.b64decode(each["Content"]["CodeSha256"]).hex() for each in (one, two)]
        await house.create(Layers=arns)
        await house.settle()
        for name in ("one", "two"):
            await house.layers.delete(house.call(), {"LayerName": name, "VersionNumber": 1})
        await collected(house)
        opt = Path(house.registry.resolve(ARN).opt_dir)
        assert sorted(each.name for each in opt.iterdir()) == ["a", "b"]
        assert (await refusal(house.create("g", Layers=arns))).message == f"Layer version {arns[0]} does not exist."
        await house.configure(Timeout=9)
        await house.settle()
        assert [each["Arn"] for each in house.show()["Layers"]] == arns
        again = house.reborn()
        await house.stop()
        for place in (opt, *(tmp_path / each for each in hashes)):  # as if the folders were lost: the blobs are the truth
            for path in place.iterdir():
                path.unlink()
            place.rmdir()
        async with again:
            await again.settle()
            assert sorted(each.name for each in Path(again.registry.resolve(ARN).opt_dir).iterdir()) == ["a", "b"]
            key = merged_key(hashes)
            again.running.add(key)
            await again.configure(Layers=[])
            await again.settle()
            await collected(again)
            assert (tmp_path / key).is_dir()
            assert not any((tmp_path / each).exists() for each in hashes)
            again.running.clear()
            await collected(again)
            assert not (tmp_path / key).exists()
            assert not set(hashes) & set(again.disk.blobs)

    play(tmp_path, story)


def test_content_of_a_layer_stays_while_it_has_a_version(tmp_path: Path):
    async def story(house: House) -> None:
        made = await publish(house)
        sha256 = base64.b64decode(made["Content"]["CodeSha256"]).hex()
        await publish(house)
        await house.layers.delete(house.call(), {"LayerName": "l", "VersionNumber": 1})
        await house.settle()
        house.clock.advance(GRACE_S)
        await house.settle()
        assert sha256 in house.disk.blobs
        again = house.reborn()
        await house.stop()
        async with again:
            await again.settle()
            again.clock.advance(GRACE_S)
            await again.settle()
            assert sha256 in again.disk.blobs
            await again.layers.delete(again.call(), {"LayerName": "l", "VersionNumber": 2})
            await again.settle()
            again.clock.advance(GRACE_S)
            await again.settle()
            assert sha256 not in again.disk.blobs

    play(tmp_path, story)


def test_policies(tmp_path: Path):
    async def story(house: House) -> None:
        await publish(house)
        version = {"LayerName": "l", "VersionNumber": 1}
        fault = refusal_now(lambda: house.layers.get_policy(house.call(), version))
        assert (fault.status, fault.message) == (404, "No policy is associated with the given resource.")
        grant = {"StatementId": "s", "Action": "lambda:GetLayerVersion", "Principal": OTHER}
        first = await house.layers.add_permission(house.call(), {**version, **grant})
        statement = {
            "Sid": "s",
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{OTHER}:root"},
            "Action": "lambda:GetLayerVersion",
            "Resource": f"{LAYER_ARN}:1",
        }
        assert json.loads(first["Statement"]) == statement
        fault = await refusal(house.layers.add_permission(house.call(), {**version, **grant}))
        assert (fault.status, fault.message) == (
            409,
            "The statement id (s) provided already exists. Please provide a new statement id, or remove the existing statement.",
        )
        stale = {**version, **grant, "StatementId": "t", "RevisionId": "old"}
        fault = await refusal(house.layers.add_permission(house.call(), stale))
        assert (fault.status, "GetLayerPolicy API" in fault.message) == (412, True)
        org = {"StatementId": "o", "Principal": "*", "OrganizationId": "o-0123456789", "RevisionId": first["RevisionId"]}
        second = await house.layers.add_permission(house.call(), {**version, **grant, **org})
        assert second["RevisionId"] != first["RevisionId"]
        policy = house.layers.get_policy(house.call(), version)
        assert policy["RevisionId"] == second["RevisionId"]
        document = json.loads(policy["Policy"])
        assert (document["Version"], document["Id"], document["Statement"][0]) == ("2012-10-17", "default", statement)
        assert document["Statement"][1]["Condition"] == {"StringEquals": {"aws:PrincipalOrgID": "o-0123456789"}}
        fault = await refusal(house.layers.remove_permission(house.call(), {**version, "StatementId": "none"}))
        assert (fault.status, fault.message) == (404, "Statement none is not found in resource policy.")
        await house.layers.remove_permission(house.call(), {**version, "StatementId": "s", "RevisionId": second["RevisionId"]})
        assert [each["Sid"] for each in json.loads(house.layers.get_policy(house.call(), version)["Policy"])["Statement"]] == ["o"]
        for missing in (
            house.layers.add_permission(house.call(), {**version, **grant, "VersionNumber": 7}),
            house.layers.remove_permission(house.call(), {**version, "StatementId": "s", "VersionNumber": 7}),
        ):
            fault = await refusal(missing)
            assert (fault.status, fault.message) == (404, f"Layer version {LAYER_ARN}:7 does not exist.")

    play(tmp_path, story)


def test_policies_have_a_length(tmp_path: Path):
    async def story(house: House) -> None:
        await publish(house)
        grant = {"LayerName": "l", "VersionNumber": 1, "Action": "lambda:GetLayerVersion", "Principal": "*"}
        await house.layers.add_permission(house.call(), {**grant, "StatementId": "a"})
        assert (
            await refusal(house.layers.add_permission(house.call(), {**grant, "StatementId": "b"}))
        ).code == "PolicyLengthExceededException"

    play(tmp_path, story, small(policy=300))


def test_layers_of_others(tmp_path: Path):
    async def story(house: House) -> None:
        await publish(house)
        stranger = house.call(OTHER)
        arn = f"{LAYER_ARN}:1"
        creating = {**creation("theirs"), "Role": f"arn:aws:iam::{OTHER}:role/r", "Layers": [arn]}
        fault = await refusal(house.functions.create(stranger, creating))
        assert (fault.status, fault.code) == (403, "AccessDeniedException")
        assert f"lambda:GetLayerVersion on resource: {arn}" in fault.message
        assert refusal_now(lambda: house.layers.get_by_arn(stranger, {"Arn": arn})).status == 403
        for attempt in (
            house.layers.delete(stranger, {"LayerName": LAYER_ARN, "VersionNumber": 1}),
            publish_as(house, stranger, LAYER_ARN),
        ):
            assert (await refusal(attempt)).status == 403
        grant = {"LayerName": "l", "VersionNumber": 1, "Action": "lambda:GetLayerVersion", "Principal": OTHER, "StatementId": "s"}
        await house.layers.add_permission(house.call(), grant)
        assert house.layers.get_by_arn(stranger, {"Arn": arn})["LayerVersionArn"] == arn
        assert refusal_now(lambda: house.layers.get_by_arn(house.call("333333333333"), {"Arn": arn})).status == 403
        assert (await house.functions.create(stranger, creating))["Layers"][0]["Arn"] == arn

    async def publish_as(house: House, call: Any, name: str) -> None:
        await house.layers.publish(call, {"LayerName": name, "Content": {"ZipFile": zipped()}})

    play(tmp_path, story)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 2])
def test_killed_while_publishing(tmp_path: Path, at: int, after: bool):
    """Whatever is killed when, a number is given once, and what was not committed is gone."""

    async def whole() -> None:
        house = House(tmp_path)
        await house.start()
        house.store.die_at, house.store.die_after = at, after
        attempt = asyncio.ensure_future(publish(house))
        await house.store.dead.wait()
        attempt.cancel()
        await asyncio.gather(attempt, return_exceptions=True)
        await house.kill()
        again = house.reborn()
        async with again:
            held = [each["Version"] for each in again.layers.list_versions(again.call(), {"LayerName": "l"})["LayerVersions"]]
            assert held == ([1] if at == 2 and after else [])
            assert (await publish(again))["Version"] == len(held) + 1

    asyncio.run(whole())


def test_another_process_publishes_first(tmp_path: Path):
    async def story(house: House) -> None:
        real = house.store.commit
        struck = []

        async def commit(*mutations: Any) -> list[int]:
            if not struck and mutations[0].kind == "layer":
                struck.append(True)
                await real(*mutations)
                raise StoreConflict("layer", "k", 0, 1)
            return await real(*mutations)

        house.store.commit = commit  # type: ignore[method-assign]
        assert (await publish(house))["Version"] == 2

    play(tmp_path, story)
