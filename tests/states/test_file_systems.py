"""FileSystemConfigs become mounts of configured folders."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from control_house import ARN, House

from lambent.control.file_systems import FileSystems, require_mountable
from lambent.errors import ClientFault, PlatformFault
from lambent.function_version import FileSystem

EFS = "arn:aws:elasticfilesystem:us-east-1:123456789012:access-point/fsap-0123456789abcdef0"
S3_FILES = "arn:aws:s3files:us-east-1:123456789012:file-system/fs-0123456789abcdef0/access-point/fsap-0123456789abcdef0"


def test_from_the_request_to_the_data_plane(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path / "code") as house:
            house.rules.file_systems = FileSystems({EFS: "/srv/one", S3_FILES: "/srv/two"})
            config = {"Arn": EFS, "LocalMountPath": "/mnt/data"}
            assert (await house.create(FileSystemConfigs=[config]))["FileSystemConfigs"] == [config]
            await house.settle()
            before = house.registry.resolve(ARN)
            assert before.mounts == (FileSystem("/srv/one", "/mnt/data", EFS),)
            other = {"Arn": S3_FILES, "LocalMountPath": "/mnt/data", "S3FilesConfig": {"DirectS3Read": "AUTO"}}
            await house.configure(FileSystemConfigs=[other])
            await house.settle()
            after = house.registry.resolve(ARN)
            assert after.mounts[0].source == "/srv/two"
            assert after.environment_key != before.environment_key
            await house.configure(Timeout=9)
            assert house.show()["FileSystemConfigs"] == [other]
            await house.settle()
            assert "FileSystemConfigs" not in await house.configure(FileSystemConfigs=[])
            await house.settle()
            assert house.registry.resolve(ARN).mounts == ()

    asyncio.run(story())


def test_an_access_point_without_a_folder(tmp_path: Path):
    async def story() -> None:
        async with House(tmp_path / "code") as house:
            with pytest.raises(ClientFault) as caught:
                await house.create(FileSystemConfigs=[{"Arn": EFS, "LocalMountPath": "/mnt/data"}])
            assert caught.value.code == "InvalidParameterValueException"
            assert EFS in caught.value.message

    asyncio.run(story())


@pytest.mark.parametrize(("arn", "code"), [(EFS, "EFSMountFailureException"), (S3_FILES, "S3FilesMountFailureException")])
def test_folders_that_are_gone(tmp_path: Path, arn: str, code: str):
    require_mountable([FileSystem(str(tmp_path), "/mnt/data", arn)])
    (config,) = [{"Arn": arn, "LocalMountPath": "/mnt/data"}]
    for folders in ({}, {arn: str(tmp_path / "gone")}):
        with pytest.raises(PlatformFault) as caught:
            require_mountable(FileSystems(folders).mounts([config]))
        assert caught.value.answer is not None
        assert (caught.value.answer.code, caught.value.answer.status) == (code, 403)
        assert arn in caught.value.answer.message
