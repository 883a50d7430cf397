"""Images of a node: resolved, brought, shared, collected; and functions made of them, through kills and restarts."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from control_house import ACCOUNT, House, creation

from lambent.control.function_configuration import code_of
from lambent.errors import ClientFault
from lambent.images.faults import ImageFault
from lambent.images.reference import parse
from lambent.images.sources import Sources
from lambent.images.store import GRACE_S, ImageStore
from lambent.settings import ImageSettings
from lambent.testing.clock import ManualClock
from lambent.testing.image_kit import Image, layer, program

BASE = layer({"base": b"b" * 1000})
ONE = Image([BASE, layer({"app": program(b"one")})], entrypoint=["/app"], command=["one.handler"])
TWO = Image([BASE, layer({"app": program(b"two!")})], entrypoint=["/app"])


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


@pytest.fixture
def layouts(tmp_path: Path) -> Path:
    ONE.write(tmp_path / "layouts" / "app", "one")
    TWO.write(tmp_path / "layouts" / "app", "two")
    return tmp_path / "layouts"


class Shelf:
    """An image store over a folder of layouts."""

    def __init__(self, root: Path, layouts: Path, limit: int = 1 << 20) -> None:
        self.clock = ManualClock()
        self.running: set[str] = set()
        self.root = root
        sources = Sources(ImageSettings(folders=(str(layouts),)), ())
        self.store = ImageStore(root, sources, limit, "x86_64", self.clock, self.running.__contains__)

    async def __aenter__(self) -> ImageStore:
        await self.store.open()
        return self.store

    async def __aexit__(self, *exception: object) -> None:
        self.store.close()

    def layers(self) -> list[str]:
        return sorted(os.listdir(self.root / "layers"))


def hexes(*images: Image) -> list[str]:
    return sorted({hashlib.sha256(each).hexdigest() for image in images for each in image.layers})


async def bring(store: ImageStore, name: str) -> str:
    async with store.resolve(parse(name)) as image:
        await store.ensure(image.digest, parse(name).resolved(f"sha256:{image.digest}"))
        return image.digest


def test_layers_are_unpacked_once_and_shared(tmp_path: Path, layouts: Path) -> None:
    async def story() -> None:
        shelf = Shelf(tmp_path / "images", layouts)
        async with shelf as store:
            one, two = await asyncio.gather(bring(store, "oci:app:one"), bring(store, f"oci:{layouts}/app:two"))
            first, second = store.get(one), store.get(two)
            assert first is not None
            assert second is not None
            assert f"sha256:{one}" == ONE.digest
            assert first.layers[0] == second.layers[0]
            assert Path(first.layers[1], "app").read_bytes() == b"one"
            assert shelf.layers() == hexes(ONE, TWO)
            inode = os.stat(first.layers[0]).st_ino
            await bring(store, "oci:app:one")
            assert os.stat(first.layers[0]).st_ino == inode
            assert os.listdir(tmp_path / "images" / "parts") == []

    run(story())


def test_what_nobody_needs_goes_and_shared_layers_stay(tmp_path: Path, layouts: Path) -> None:
    async def story() -> None:
        shelf = Shelf(tmp_path / "images", layouts)
        async with shelf as store:
            one, two = await bring(store, "oci:app:one"), await bring(store, "oci:app:two")
            shelf.running.add(one)
            assert await store.collect({two}.__contains__) == 0
            shelf.clock.advance(GRACE_S)
            assert await store.collect({two}.__contains__) == 0  # an environment lives on it
            shelf.running.clear()
            assert await store.collect({two}.__contains__) == 1
            assert shelf.layers() == hexes(TWO)
            assert store.get(one) is None
            assert not store.pending
            await bring(store, "oci:app:one")
            assert shelf.layers() == hexes(ONE, TWO)

    run(story())


def test_a_store_remembers_and_sweeps(tmp_path: Path, layouts: Path) -> None:
    async def story() -> None:
        shelf = Shelf(tmp_path / "images", layouts)
        async with shelf as store:
            one = await bring(store, "oci:app:one")
        (tmp_path / "images" / ".tmp-dead" / "layer").mkdir(parents=True)
        (tmp_path / "images" / "layers" / ("a" * 64)).mkdir()
        (tmp_path / "images" / "parts" / "old").write_text("x")
        (tmp_path / "images" / "images" / ("b" * 64 + ".json")).write_text("{damaged")
        for blob in (layouts / "app" / "blobs" / "sha256").iterdir():
            blob.unlink()
        again = Shelf(tmp_path / "images", layouts)
        async with again as store:
            await store.sweep({one}.__contains__)
            assert again.layers() == hexes(ONE)
            assert os.listdir(tmp_path / "images" / "parts") == []
            assert not any(name.startswith(".tmp-") for name in os.listdir(tmp_path / "images"))
            assert await store.complete(one)
            await store.ensure(one, f"oci:{layouts}/app@sha256:{one}")  # needs its source no more

    run(story())


def test_a_beginning_is_gone_on_from_and_a_wrong_one_replaced(tmp_path: Path, layouts: Path) -> None:
    async def story() -> None:
        for beginning in (lambda content: content[:20], lambda content: b"?" * 20, lambda content: content + b"more"):
            shelf = Shelf(tmp_path / f"images-{len(os.listdir(tmp_path))}", layouts)
            async with shelf as store, store.resolve(parse("oci:app:one")) as image:
                digest, content = list(ONE.blobs.items())[1]
                part = f"{digest.removeprefix('sha256:')}.{image.configuration.diff_ids[0].removeprefix('sha256:')}"
                (shelf.root / "parts" / part).write_bytes(beginning(content))
                await store.ensure(image.digest, "oci:app:one")
                assert Path(image.layers[0], "base").read_bytes() == b"b" * 1000

    run(story())


def test_damage_and_size_are_told(tmp_path: Path, layouts: Path) -> None:
    async def fails(limit: int, code: str, text: str) -> None:
        shelf = Shelf(tmp_path / f"images-{limit}", layouts, limit)
        async with shelf as store:
            with pytest.raises(ImageFault, match=text) as caught:
                await bring(store, "oci:app:one")
            assert caught.value.code == code
            assert not any(name.startswith(".tmp-") for name in os.listdir(shelf.root))

    run(fails(999, "InvalidImage", "larger than the limit"))
    run(fails(1002, "InvalidImage", "larger than the limit"))  # the budget is that of all layers together
    digest = list(ONE.blobs)[2].removeprefix("sha256:")
    blob = layouts / "app" / "blobs" / "sha256" / digest
    good = blob.read_bytes()
    blob.write_bytes(good[:-1] + b"?")
    run(fails(2001, "InvalidImage", "other bytes"))
    blob.write_bytes(good + b"?")
    run(fails(2002, "InvalidImage", "larger than the manifest says"))
    blob.unlink()
    run(fails(2003, "ImageDeleted", "No such file"))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("oci:app:three", "ImageDeleted"),
        ("oci:/etc:x", "ImageAccessDenied"),
        ("oci:elsewhere:x", "ImageAccessDenied"),
        ("oci:link:x", "ImageAccessDenied"),
        ("oci:app@sha256:" + "a" * 64, "ImageDeleted"),
        ("docker-archive:app.tar:nope", "ImageDeleted"),
        ("docker-archive:app/index.json", "ImageDeleted"),
    ],
)
def test_what_is_not_there_or_not_ours(tmp_path: Path, layouts: Path, name: str, code: str) -> None:
    outside = tmp_path / "outside"
    ONE.write(outside, "x")
    (layouts / "link").symlink_to(outside)
    docker_save(layouts / "app.tar", ONE)

    async def story() -> None:
        async with Shelf(tmp_path / "images", layouts) as store:
            with pytest.raises(ImageFault) as caught:
                await bring(store, name)
            assert caught.value.code == code

    run(story())


def docker_save(path: Path, image: Image) -> None:
    """As ``docker save`` writes it: configuration and uncompressed layers by name."""
    with tarfile.open(path, "w") as archive:
        files = {f"{number}/layer.tar": content for number, content in enumerate(image.layers)}
        entry = {"Config": "config.json", "RepoTags": ["team/app:one"], "Layers": list(files)}
        files |= {"config.json": next(iter(image.blobs.values())), "manifest.json": json.dumps([entry]).encode()}
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_a_docker_archive_is_an_image_too(tmp_path: Path, layouts: Path) -> None:
    docker_save(layouts / "app.tar", ONE)

    async def story() -> None:
        shelf = Shelf(tmp_path / "images", layouts)
        async with shelf as store:
            digests = {await bring(store, f"docker-archive:app.tar{tag}") for tag in ("", ":team/app:one")}
            (digest,) = digests
            await store.ensure(digest, "docker-archive:app.tar")
            assert shelf.layers() == hexes(ONE)

    run(story())


# -- functions ----------------------------------------------------------------------------------------------------------------------------


def imaged(uri: str = "oci:app:one", **params: Any) -> dict[str, Any]:
    request = creation("f", b"", PackageType="Image", Code={"ImageUri": uri}, **params)
    return {name: value for name, value in request.items() if name not in ("Runtime", "Handler") or name in params}


def house(tmp_path: Path, layouts: Path) -> House:
    made = House(tmp_path / "code")
    made.disk.images = tmp_path / "images"
    made.image_folders = (str(layouts),)
    return made


async def until(condition: Callable[[], bool]) -> None:
    """Fetching is work of threads, which nobody announces to a test."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


async def settled(home: House) -> dict[str, Any]:
    await until(lambda: home.show()["State"] != "Pending" and home.show().get("LastUpdateStatus") != "InProgress")
    return home.show()


def test_a_function_of_an_image(tmp_path: Path, layouts: Path) -> None:
    async def story() -> None:
        async with house(tmp_path, layouts) as home:
            config = {"Command": ["other.handler"], "WorkingDirectory": "/w"}
            answer = await home.functions.create(home.call(), imaged(ImageConfig=config))
            assert (answer["State"], answer["PackageType"], answer["CodeSize"]) == ("Pending", "Image", 0)
            assert answer["CodeSha256"] == ONE.digest.removeprefix("sha256:")
            assert answer["ImageConfigResponse"] == {"ImageConfig": config}
            assert not {"Runtime", "Handler", "RuntimeVersionConfig", "_image"} & set(answer)
            assert (await settled(home))["State"] == "Active"
            code = home.functions.get(home.call(), {"FunctionName": "f"})["Code"]
            assert code == {"RepositoryType": "ECR", "ImageUri": "oci:app:one", "ResolvedImageUri": f"oci:app@{ONE.digest}"}
            version = home.published[-1]
            assert version is not None
            assert version.image is not None
            assert (version.image.argv, version.image.workdir) == (("/app", "other.handler"), "/w")
            assert (version.handler, version.runtime, version.code_dir) == ("other.handler", "", "")
            key = version.environment_key

            await home.configure(ImageConfig={})
            assert "ImageConfigResponse" not in await settled(home)
            assert home.published[-1] is not None
            assert home.published[-1].image is not None
            assert home.published[-1].image.argv == ("/app", "one.handler")
            assert home.published[-1].environment_key != key

            answer = await home.functions.update_code(home.call(), {"FunctionName": "f", "ImageUri": "oci:app:two"})
            assert answer["LastUpdateStatus"] == "InProgress"
            assert answer["CodeSha256"] == TWO.digest.removeprefix("sha256:")
            await settled(home)
            assert home.published[-1].code_sha256 == TWO.digest.removeprefix("sha256:")
            await home.delete()

    run(story())


def test_old_images_of_functions_are_collected(tmp_path: Path, layouts: Path) -> None:
    async def story() -> None:
        async with house(tmp_path, layouts) as home:
            await home.functions.create(home.call(), imaged())
            await settled(home)
            await home.functions.update_code(home.call(), {"FunctionName": "f", "ImageUri": "oci:app:two"})
            await settled(home)
            while home.image_store.get(ONE.digest.removeprefix("sha256:")) is not None:
                home.clock.advance(GRACE_S)
                await asyncio.sleep(0)
            await until(lambda: sorted(os.listdir(tmp_path / "images" / "layers")) == hexes(TWO))

    run(story())


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_it_is_prepared(tmp_path: Path, layouts: Path, when: str) -> None:
    async def story() -> None:
        home = house(tmp_path, layouts)
        home.gate.clear()
        await home.start()
        await home.functions.create(home.call(), imaged())
        if when == "after":  # its layers are here
            await until(lambda: sorted(os.listdir(tmp_path / "images" / "layers")) == hexes(ONE))
        await home.kill()
        again = home.reborn()
        again.image_folders = home.image_folders
        async with again:
            assert (await settled(again))["State"] == "Active"
            version = again.published[-1]
            assert version is not None
            assert version.image is not None
            assert Path(version.image.layers[1], "app").read_bytes() == b"one"

    run(story())


def test_a_restart_needs_no_source(tmp_path: Path, layouts: Path) -> None:
    async def story() -> None:
        home = house(tmp_path, layouts)
        async with home:
            await home.functions.create(home.call(), imaged())
            await settled(home)
        async with home.reborn() as again:  # knows no folder of layouts
            assert again.show()["State"] == "Active"
            version = again.published[-1]
            assert version is not None
            assert version.image is not None
            assert Path(version.image.layers[0]).is_dir()

    run(story())


def test_layers_that_got_lost_are_fetched_again(tmp_path: Path, layouts: Path) -> None:
    async def story() -> None:
        home = house(tmp_path, layouts)
        async with home:
            await home.functions.create(home.call(), imaged())
            await settled(home)
        shutil.rmtree(tmp_path / "images")
        again = home.reborn()
        again.image_folders = home.image_folders
        async with again:
            assert again.show()["State"] == "Active"
            while again.published[-1] is None or again.published[-1].image is None:
                again.clock.advance(10.0)
                await asyncio.sleep(0)
            assert sorted(os.listdir(tmp_path / "images" / "layers")) == hexes(ONE)

    run(story())


def test_an_image_that_breaks_behind_the_answer(tmp_path: Path, layouts: Path) -> None:
    async def story() -> None:
        async with house(tmp_path, layouts) as home:
            await home.functions.create(home.call(), imaged())
            await settled(home)
            (layouts / "app" / "blobs" / "sha256" / list(TWO.blobs)[2].removeprefix("sha256:")).unlink()
            await home.functions.update_code(home.call(), {"FunctionName": "f", "ImageUri": "oci:app:two"})
            shown = await settled(home)
            assert (shown["State"], shown["LastUpdateStatus"]) == ("Active", "Failed")
            assert shown["LastUpdateStatusReasonCode"] == "ImageDeleted"
            assert shown["LastUpdateStatusReason"].startswith("The function is trying to use a deleted image.")
            assert home.published[-1] is not None
            assert home.published[-1].code_sha256 == ONE.digest.removeprefix("sha256:")  # still runs what it had
            await home.delete()
            await home.functions.create(home.call(), imaged("oci:app:two"))
            shown = await settled(home)
            assert (shown["State"], shown["StateReasonCode"]) == ("Failed", "ImageDeleted")

    run(story())


IMAGE_TEXT = "Please don't provide Handler or Runtime or Layer when the intended function PackageType is Image."


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (imaged("app:latest"), "Source image app:latest is not valid. Provide a valid source image."),
        (imaged("oci:app:none"), "Source image oci:app:none does not exist. Provide a valid source image."),
        (imaged(Handler="a.b"), IMAGE_TEXT),
        (imaged(Runtime="python3.12"), IMAGE_TEXT),
        (imaged(Layers=[f"arn:aws:lambda:us-east-1:{ACCOUNT}:layer:l:1"]), IMAGE_TEXT),
        ({**imaged(), "Code": {"ZipFile": b"x"}}, "Please provide ImageUri when creating a function with packageType Image."),
        (
            {**imaged(), "Code": {"ZipFile": b"x", "ImageUri": "oci:app:one"}},
            "Please do not provide other FunctionCode parameters when providing an ImageUri.",
        ),
        ({**creation(), "Code": {"ImageUri": "oci:app:one"}}, "Please provide a source for function code."),
        (creation(ImageConfig={"Command": ["x"]}), "Please don't provide ImageConfig when the intended function PackageType is Zip."),
    ],
)
def test_what_is_refused(tmp_path: Path, layouts: Path, request_: dict[str, Any], text: str) -> None:
    async def story() -> None:
        async with house(tmp_path, layouts) as home:
            with pytest.raises(ClientFault) as caught:
                await home.functions.create(home.call(), request_)
            assert (caught.value.code, caught.value.status) == ("InvalidParameterValueException", 400)
            assert caught.value.message.startswith(text)

    run(story())


def test_the_package_type_is_for_life(tmp_path: Path, layouts: Path) -> None:
    async def story() -> None:
        async with house(tmp_path, layouts) as home:
            await home.functions.create(home.call(), imaged())
            await settled(home)
            for change, text in (
                ({"ZipFile": b"x"}, "Please provide ImageUri when updating a function with packageType Image."),
                ({}, "Please provide ImageUri when updating a function with packageType Image."),
            ):
                with pytest.raises(ClientFault) as caught:
                    await home.functions.update_code(home.call(), {"FunctionName": "f", **change})
                assert caught.value.message == text
            with pytest.raises(ClientFault) as caught:
                await home.configure(Handler="a.b")
            assert caught.value.message == IMAGE_TEXT
            tried = await home.functions.update_code(home.call(), {"FunctionName": "f", "ImageUri": "oci:app:two", "DryRun": True})
            assert tried["CodeSha256"] == TWO.digest.removeprefix("sha256:")
            assert home.show()["CodeSha256"] == ONE.digest.removeprefix("sha256:")
            record = next(iter(home.table))
            assert code_of(record.configuration) == ONE.digest.removeprefix("sha256:")

    run(story())


def test_a_folder_that_the_settings_do_not_name_is_denied(tmp_path: Path, layouts: Path) -> None:
    async def story() -> None:
        async with House(tmp_path / "code") as home:
            with pytest.raises(ClientFault) as caught:
                await home.functions.create(home.call(), imaged(f"oci:{layouts}/app:one"))
            assert (caught.value.code, caught.value.status) == ("AccessDeniedException", 403)
            assert caught.value.message.startswith("Lambda does not have permission to access the ECR image. Check the ECR permissions.")

    run(story())
