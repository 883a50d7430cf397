"""FileSystemConfigs: access points of EFS or S3 Files, which are folders of this machine here (contract 03 §6, 06 §9).

The administrator names a folder for each ARN in the setting ``sandbox.file_systems``. The model holds ARNs and paths to their forms and
their number to one; what is left is that the ARN has a folder. A function that was made before the setting lost its ARN, or whose folder
has gone, is refused when an environment of it is to start, as AWS refuses one whose file system cannot be mounted. Nothing here needs a
VPC, unlike at AWS.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lambent.errors import ClientFault, PlatformFault, invalid_parameter
from lambent.function_version import FileSystem


class FileSystems:
    """``folders`` is the setting: ARN -> folder."""

    def __init__(self, folders: Mapping[str, str]) -> None:
        self._folders = dict(folders)

    def check(self, configs: Sequence[Mapping[str, Any]]) -> None:
        """Check ``FileSystemConfigs``. Raises IPV for an ARN without a folder."""
        for config in configs:
            if config["Arn"] not in self._folders:
                raise invalid_parameter(
                    f"The access point {config['Arn']} does not exist: the setting sandbox.file_systems names no folder for it."
                )

    def mounts(self, configs: Iterable[Mapping[str, Any]]) -> tuple[FileSystem, ...]:
        """What environments see of ``FileSystemConfigs``. The source is ``""`` where an ARN has no folder any more."""
        return tuple(FileSystem(self._folders.get(config["Arn"], ""), config["LocalMountPath"], config["Arn"]) for config in configs)


def require_mountable(mounts: Iterable[FileSystem]) -> None:
    """Check that every folder is there. Raises a ``PlatformFault`` that answers 403 ``EFSMountFailureException`` or S3 Files' own."""
    for mount in mounts:
        if not mount.source or not os.path.isdir(mount.source):
            kind, name = ("S3Files", "S3") if ":s3files:" in mount.arn else ("EFS", "EFS")
            text = f"The function couldn't mount the {name} file system with access point {mount.arn}."
            raise PlatformFault(
                f"{text} Its folder is {mount.source or 'not named in sandbox.file_systems'}.",
                answer=ClientFault(f"{kind}MountFailureException", 403, text),
            )
