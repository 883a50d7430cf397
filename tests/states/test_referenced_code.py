"""Code that stays in a bucket: what is kept of it, what is shown, and what comes of it when the object goes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from control_house import ACCOUNT, ARN, REGION, House, creation, small, zipped

from lambent.arn import FunctionArn
from lambent.control.code import GRACE_S
from lambent.control.code_source import BucketObject, Reader
from lambent.control.function_configuration import FunctionRecord
from lambent.control.function_state import Event
from lambent.control.idle import Idleness
from lambent.control.preparation import MEND_S
from lambent.control.referenced_code import ReferencedCode, SourceWatch
from lambent.errors import ClientFault, PlatformFault
from lambent.settings import Limits

ONE, TWO = zipped({"h.py": b"1\n"}), zipped({"h.py": b"22\n"})
CODE = {"S3Bucket": "b", "S3Key": "k", "S3ObjectStorageMode": "REFERENCE"}
COPY = {"S3Bucket": "b", "S3Key": "k"}
FIRST, SECOND = BucketObject("b", "k", "v1"), BucketObject("b", "k", "v2")
GONE = "The code s3://b/k in version v1 cannot be accessed. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist."


def play(tmp_path: Path, story: Callable[[House], Awaitable[None]], limits: Limits | None = None) -> None:
    async def whole() -> None:
        async with House(tmp_path, limits=limits) as house:
            house.shelf.objects = {BucketObject("b", "k"): ONE, FIRST: ONE, SECOND: TWO}
            house.shelf.latest = "v1"
            listen(house)
            await story(house)

    asyncio.run(whole())


def listen(house: House) -> None:
    """Have invocations of what is Inactive wake it, as the node does."""
    idle = Idleness(house.table, house.clock, 0.0, house.functions.report, list, house.tasks.create_task)
    house.registry.inactive = idle.refuse


async def made(house: House, name: str = "f", **params: Any) -> dict[str, Any]:
    answer = await house.functions.create(house.call(), {**creation(name), "Code": CODE, **params})
    await house.settle()
    return answer


async def updated(house: House, **params: Any) -> dict[str, Any]:
    answer = await house.functions.update_code(house.call(), {"FunctionName": "f", **params})
    await house.settle()
    return answer


async def refusal(awaitable: Awaitable[Any]) -> ClientFault:
    with pytest.raises(ClientFault) as caught:
        await awaitable
    return caught.value


async def invoked(house: House, qualifier: str | None = None) -> ClientFault | None:
    """What an invocation is told; lets pass what it begins."""
    try:
        house.registry.resolve(ARN if qualifier is None else ARN.qualified(qualifier))
    except ClientFault as fault:
        await house.settle()
        return fault
    return None


async def collected(house: House) -> None:
    for _ in range(3):
        await house.settle()
        house.clock.advance(GRACE_S)
    await house.settle()


def lose(house: House) -> None:
    for version in (FIRST, BucketObject("b", "k")):
        house.shelf.objects.pop(version, None)


def used(house: House) -> int:
    return int(house.account.settings(house.call())["AccountUsage"]["TotalCodeSize"])


async def download(house: House, location: str) -> bytes | None:
    url = urlsplit(location)
    query = parse_qs(url.query)
    return await house.code.download(url.path.rpartition("/")[2], query["expires"][0], query["token"][0])


def test_nothing_is_kept_and_the_object_is_shown(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        shown = await made(house)
        assert shown["CodeSize"] == len(ONE)
        assert "_reference" not in shown
        assert house.show()["State"] == "Active"
        code = house.functions.get(house.call(), {"FunctionName": "f"})["Code"]
        assert code["RepositoryType"] == "S3"
        assert code["ResolvedS3Object"] == {"S3Bucket": "b", "S3Key": "k", "S3ObjectVersion": "v1"}
        assert await download(house, code["Location"]) == ONE
        assert (Path(house.registry.resolve(ARN).code_dir) / "h.py").read_bytes() == b"1\n"
        assert house.disk.blobs == {}
        assert not [key for kind, key in house.disk.documents if kind == "code"]
        assert used(house) == 0
        assert set(house.shelf.readers) == {Reader(ACCOUNT, REGION, str(ARN))}
        await collected(house)
        assert (Path(house.registry.resolve(ARN).code_dir) / "h.py").exists()
        lose(house)
        fault = await refusal(download(house, code["Location"]))
        assert fault.status == 404
        await house.delete()
        await collected(house)
        assert list(tmp_path.iterdir()) == []

    play(tmp_path, story)


def test_an_object_without_a_version_is_refused(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        house.shelf.latest = "null"
        for attempt in (
            house.functions.create(house.call(), {**creation(), "Code": CODE}),
            house.layers.publish(house.call(), {"LayerName": "l", "Content": CODE}),
        ):
            fault = await refusal(attempt)
            assert fault.code == "InvalidParameterValueException"
            assert "Enable versioning for the bucket b" in fault.message
        assert list(house.table) == []

    play(tmp_path, story)


def test_an_update_without_the_mode_copies_and_back_again_drops_the_copy(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await made(house)
        await updated(house, **COPY)
        assert list(house.disk.blobs.values()) == [ONE]
        assert used(house) == 2
        assert "ResolvedS3Object" not in house.functions.get(house.call(), {"FunctionName": "f"})["Code"]
        tried = await updated(house, **CODE, DryRun=True)
        assert tried["CodeSize"] == len(ONE)
        assert used(house) == 2
        await updated(house, **CODE)
        assert used(house) == 0
        assert list(house.disk.blobs.values()) == [ONE]  # for those who have a URL
        await collected(house)
        assert house.disk.blobs == {}
        assert not [key for kind, key in house.disk.documents if kind == "code"]
        assert (Path(house.registry.resolve(ARN).code_dir) / "h.py").exists()

    play(tmp_path, story)


def test_a_copy_stays_as_long_as_somebody_needs_it(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await house.create("g", ONE)
        await made(house)
        await updated(house, **CODE, S3ObjectVersion="v2", Publish=True)
        await updated(house, **CODE)
        await collected(house)
        assert list(house.disk.blobs.values()) == [ONE]
        assert used(house) == 2
        await house.delete("g")
        await collected(house)
        assert house.disk.blobs == {}
        assert len(list(tmp_path.iterdir())) == 2  # ONE of $LATEST, TWO of version 1

    play(tmp_path, story)


def test_a_switch_that_was_killed_is_finished_at_the_next_start(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await house.create("f", ONE)
        await house.settle()
        await updated(house, **CODE)
        await house.kill()
        assert list(house.disk.blobs.values()) == [ONE]
        async with house.reborn() as again:
            await collected(again)
            assert again.disk.blobs == {}
            assert again.show()["State"] == "Active"

    play(tmp_path, story)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(1, 6))
@pytest.mark.parametrize("to", [COPY, CODE])
def test_a_switch_may_be_killed_at_any_commit(tmp_path: Path, to: dict[str, str], step: int, after: bool) -> None:
    async def story(house: House) -> None:
        await (made(house) if to is COPY else house.create("f", ONE))
        await house.settle()
        house.store.die_at, house.store.die_after = step, after

        async def switch() -> None:
            await house.functions.update_code(house.call(), {"FunctionName": "f", **to})
            await collected(house)

        work = asyncio.ensure_future(switch())
        dead = asyncio.ensure_future(house.store.dead.wait())
        await asyncio.wait({work, dead}, return_when=asyncio.FIRST_COMPLETED)
        await house.kill()
        async with house.reborn() as again:
            await collected(again)
            code = again.functions.get(again.call(), {"FunctionName": "f"})
            assert code["Configuration"]["State"] == "Active"
            assert (again.disk.blobs == {}) == ("ResolvedS3Object" in code["Code"])
            assert await download(again, code["Code"]["Location"]) == ONE

    play(tmp_path, story)


def test_storage_is_for_copies_only(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await made(house)
        await updated(house, **CODE, S3ObjectVersion="v2")
        await house.layers.publish(house.call(), {"LayerName": "l", "Content": CODE})
        assert used(house) == 0
        fault = await refusal(updated(house, **COPY))
        assert fault.code == "CodeStorageExceededException"
        fault = await refusal(updated(house, **COPY, DryRun=True))
        assert fault.code == "CodeStorageExceededException"
        assert house.functions.get(house.call(), {"FunctionName": "f"})["Code"]["ResolvedS3Object"]["S3ObjectVersion"] == "v2"

    play(tmp_path, story, small(code_storage=1))


def test_a_missing_folder_is_fetched_again(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await made(house, Publish=True)
        await house.kill()
        shutil.rmtree(tmp_path)
        async with house.reborn() as again:
            await again.settle()
            for target in (ARN, ARN.qualified("1")):
                assert (Path(again.registry.resolve(target).code_dir) / "h.py").read_bytes() == b"1\n"
            assert again.disk.blobs == {}

    play(tmp_path, story)


@pytest.mark.parametrize("loss", ["gone", "changed"])
def test_an_object_that_is_gone_at_the_start_makes_the_function_inactive_until_it_is_back(tmp_path: Path, loss: str) -> None:
    async def story(house: House) -> None:
        await made(house, Publish=True)
        await house.kill()
        shutil.rmtree(tmp_path)
        if loss == "gone":
            lose(house)
        else:
            house.shelf.objects[FIRST] = TWO
        async with house.reborn() as again:
            listen(again)
            await again.settle()
            for params in ({}, {"Qualifier": "1"}):
                shown = again.show(**params)
                assert (shown["State"], shown["StateReasonCode"]) == ("Inactive", "Idle")
                assert shown["StateReason"] == GONE if loss == "gone" else "other content" in shown["StateReason"]
            for qualifier in (None, "1"):
                fault = await invoked(again, qualifier)
                assert fault is not None
                assert (fault.code, fault.status) == ("ResourceConflictException", 409)
                assert "state: Inactive" in fault.message
            assert again.show()["State"] == "Inactive"
            again.shelf.objects[FIRST] = ONE
            assert await invoked(again) is not None
            assert again.show()["State"] == "Active"
            assert await invoked(again) is None
            assert again.show(Qualifier="1")["State"] == "Inactive"
            again.clock.advance(MEND_S)
            await again.settle()
            assert again.show(Qualifier="1")["State"] == "Active"
            assert await invoked(again, "1") is None

    play(tmp_path, story)


@pytest.mark.parametrize("near", [True, False])
def test_a_version_that_is_back_while_nobody_ran_is_active_at_the_start(tmp_path: Path, near: bool) -> None:
    async def story(house: House) -> None:
        house.shelf.is_near = near
        await made(house, Publish=True)
        await house.kill()
        shutil.rmtree(tmp_path)
        lose(house)
        async with house.reborn() as second:
            await second.settle()
            assert second.show(Qualifier="1")["State"] == "Inactive"
            await second.kill()
            second.shelf.objects[FIRST] = ONE
            async with second.reborn() as third:
                listen(third)
                await third.settle()
                assert third.show(Qualifier="1")["State"] == "Active"
                assert third.show()["State"] == "Inactive"  # $LATEST waits for an invocation
                await invoked(third)
                assert third.show()["State"] == "Active"

    play(tmp_path, story)


def test_an_s3_that_does_not_answer_is_no_loss(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await made(house, Publish=True)
        await house.kill()
        shutil.rmtree(tmp_path)
        house.shelf.broken, house.shelf.is_near = True, False
        async with house.reborn() as again:
            for _ in range(3):
                await again.settle()
                assert again.show()["State"] == "Active"
                assert again.show(Qualifier="1")["State"] == "Active"
                again.clock.advance(MEND_S)
            again.shelf.broken = False
            again.shelf.fault = ClientFault("SlowDown", 503, "Please reduce your request rate.")
            again.shelf.objects, objects = {}, again.shelf.objects
            again.clock.advance(MEND_S)
            await again.settle()
            assert again.show()["State"] == "Active"
            again.shelf.objects = objects
            again.clock.advance(MEND_S)
            await again.settle()
            assert (Path(again.registry.resolve(ARN).code_dir) / "h.py").exists()
            assert (Path(again.registry.resolve(ARN.qualified("1")).code_dir) / "h.py").exists()

    play(tmp_path, story)


def test_a_far_object_is_fetched_without_holding_up_the_start(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        house.shelf.is_near = False
        await made(house)
        await house.kill()
        shutil.rmtree(tmp_path)
        async with house.reborn() as again:
            assert not Path(again.registry.resolve(ARN).code_dir).exists()
            await again.settle()
            assert (Path(again.registry.resolve(ARN).code_dir) / "h.py").exists()

    play(tmp_path, story)


def test_a_far_layer_is_fetched_and_merged_again(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        house.shelf.is_near = False
        contents = ({**CODE, "S3ObjectVersion": "v2"}, {"ZipFile": zipped({"other": b"3"})})
        arns = [
            (await house.layers.publish(house.call(), {"LayerName": name, "Content": content}))["LayerVersionArn"]
            for name, content in zip("ab", contents, strict=True)
        ]
        await house.create("f", ONE, Layers=arns)
        await house.settle()
        opt = Path(house.registry.resolve(ARN).opt_dir)
        await house.kill()
        shutil.rmtree(opt)
        async with house.reborn() as again:
            await again.settle()
            assert sorted(path.name for path in opt.iterdir()) == ["h.py", "other"]
            await again.kill()
        shutil.rmtree(tmp_path)
        async with house.reborn() as third:
            await third.settle()
            assert sorted(path.name for path in opt.iterdir()) == ["h.py", "other"]

    play(tmp_path, story)


def test_objects_are_looked_at_now_and_then_and_not_read(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await made(house)
        house.tasks.create_task(house.functions.watch.run())
        await house.settle()
        reads, looks = house.shelf.reads, len(house.shelf.readers)
        house.clock.advance(100)
        await house.settle()
        assert (house.shelf.reads, len(house.shelf.readers)) == (reads, looks + 1)
        assert house.show()["State"] == "Active"
        house.shelf.broken = True
        house.clock.advance(100)
        await house.settle()
        assert house.show()["State"] == "Active"
        house.shelf.broken = False
        lose(house)
        house.clock.advance(99)
        await house.settle()
        assert await invoked(house) is None
        house.clock.advance(1)
        await house.settle()
        assert (house.show()["State"], house.show()["StateReason"]) == ("Inactive", GONE)
        house.gate.clear()
        assert await invoked(house) is not None
        assert house.show()["State"] == "Inactive"  # although the folder is there
        house.shelf.objects[FIRST] = ONE
        assert await invoked(house) is not None
        assert (house.show()["State"], house.show()["StateReasonCode"]) == ("Pending", "Restoring")
        house.gate.set()
        await house.settle()
        assert house.show()["State"] == "Active"

    play(tmp_path, story, Limits(code_check_seconds=100.0))


def test_nobody_looks_unless_it_is_set(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await asyncio.wait_for(house.functions.watch.run(), 5)

    play(tmp_path, story, Limits(code_check_seconds=0.0))


def test_an_update_of_the_code_restores_and_one_of_the_configuration_does_not(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await made(house)
        lose(house)
        await house.functions.watch.look(ARN)
        assert house.show()["State"] == "Inactive"
        await house.configure(Description="new")
        await house.settle()
        assert (house.show()["State"], house.show()["Description"]) == ("Inactive", "new")
        await updated(house, **CODE, S3ObjectVersion="v2")
        assert house.show()["State"] == "Active"
        assert (Path(house.registry.resolve(ARN).code_dir) / "h.py").read_bytes() == b"22\n"

    play(tmp_path, story)


def test_a_loss_that_is_found_late_is_not_that_of_the_new_code(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        async def late(arn: FunctionArn, event: Event, still: Callable[[FunctionRecord], bool] = bool) -> None:
            await updated(house, **CODE, S3ObjectVersion="v2")
            await house.functions.report(arn, event, still)
            reported.append(event)

        reported: list[Event] = []
        await made(house)
        lose(house)
        await SourceWatch(house.table, ReferencedCode(house.code, house.source), house.clock, 0.0, late).look(ARN)
        assert len(reported) == 1
        assert house.show()["State"] == "Active"

    play(tmp_path, story)


def test_published_versions_keep_their_own_references(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await made(house, Publish=True)
        await updated(house, **CODE, S3ObjectVersion="v2", Publish=True)
        resolved = [
            house.functions.get(house.call(), {"FunctionName": "f", "Qualifier": each})["Code"]["ResolvedS3Object"]["S3ObjectVersion"]
            for each in ("1", "2", "$LATEST")
        ]
        assert resolved == ["v1", "v2", "v2"]
        house.shelf.objects.clear()
        await house.functions.watch.look(ARN)
        assert house.show()["State"] == "Inactive"
        assert await invoked(house, "1") is None
        assert (Path(house.registry.resolve(ARN.qualified("1")).code_dir) / "h.py").read_bytes() == b"1\n"

    play(tmp_path, story)


def test_layers_stay_in_buckets_too(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        layer = await house.layers.publish(house.call(), {"LayerName": "l", "Content": {**CODE, "S3ObjectVersion": "v2"}})
        resolved = {"S3Bucket": "b", "S3Key": "k", "S3ObjectVersion": "v2"}
        assert layer["Content"]["ResolvedS3Object"] == resolved
        shown = house.layers.get(house.call(), {"LayerName": "l", "VersionNumber": 1})
        assert shown["Content"]["ResolvedS3Object"] == resolved
        assert await download(house, shown["Content"]["Location"]) == TWO
        assert house.shelf.readers[-1].arn == f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:l"
        arn = layer["LayerVersionArn"]
        await house.create("f", ONE, Layers=[arn])
        await house.settle()
        assert used(house) == 2
        await collected(house)
        assert list(house.disk.blobs.values()) == [ONE]
        await house.kill()
        shutil.rmtree(tmp_path)
        async with house.reborn() as again:
            await again.settle()
            assert (Path(again.registry.resolve(ARN).opt_dir) / "h.py").read_bytes() == b"22\n"
            await lost_layer(again, arn)

    async def lost_layer(house: House, arn: str) -> None:
        del house.shelf.objects[SECOND]
        await house.functions.watch.look(ARN)
        assert house.show()["State"] == "Active"
        await house.configure(Description="goes on")
        await house.settle()
        await house.upload(zipped({"h.py": b"3\n"}))
        await house.settle()
        assert (house.show()["State"], house.show()["LastUpdateStatus"]) == ("Active", "Successful")
        for attempt in (house.configure(Layers=[arn]), house.create("g", ONE, Layers=[arn])):
            fault = await refusal(attempt)
            assert fault.code == "InvalidParameterValueException"
            assert fault.message.startswith("Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: ")
        await house.layers.delete(house.call(), {"LayerName": "l", "VersionNumber": 1})
        await collected(house)
        assert (Path(house.registry.resolve(ARN).opt_dir) / "h.py").exists()

    play(tmp_path, story)


def test_the_lost_object_of_a_layer_is_no_loss_of_its_functions(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        layer = await house.layers.publish(house.call(), {"LayerName": "l", "Content": CODE})
        await house.create("f", TWO, Layers=[layer["LayerVersionArn"]])
        await house.settle()
        await house.kill()
        opt = Path(house.registry.resolve(ARN).opt_dir)
        shutil.rmtree(opt)
        lose(house)
        async with house.reborn() as again:
            await again.settle()
            assert again.show()["State"] == "Active"
            again.shelf.objects[FIRST] = ONE
            again.clock.advance(MEND_S)
            await again.settle()
            assert (opt / "h.py").exists()

    play(tmp_path, story)


def test_a_fault_of_s3_at_the_creation_is_ours(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        house.shelf.broken = True
        with pytest.raises(PlatformFault):
            await made(house)
        assert list(house.table) == []

    play(tmp_path, story)


def test_images_stay_in_no_bucket(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        code = {"ImageUri": "oci:app", "S3ObjectStorageMode": "REFERENCE"}
        params = {name: value for name, value in creation().items() if name in ("FunctionName", "Role")}
        fault = await refusal(house.functions.create(house.call(), {**params, "PackageType": "Image", "Code": code}))
        assert fault.message == "Please do not provide other FunctionCode parameters when providing an ImageUri."

    play(tmp_path, story)
