"""Where an image comes from: the settings' say on which registries and folders are good, and a source for a reference.

A ``Source`` gives manifests and blobs of one repository. It is made for one pull, used from one thread, and closed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from lambent.images.faults import denied
from lambent.images.local import DockerArchive, OciLayout
from lambent.images.manifest import Blob
from lambent.images.reference import ImageReference
from lambent.images.registry_keys import RegistryKeys
from lambent.settings import ImageSettings, RegistryCredential


class Source(Protocol):
    """One repository. Blocking; every method raises ``ImageFault``."""

    def manifest(self, wanted: str) -> bytes:
        """The manifest or index with this tag or digest."""
        ...

    def blob(self, blob: Blob, offset: int) -> tuple[int, Iterator[bytes]]:
        """Where the bytes begin, ``offset`` or 0, and the bytes."""
        ...

    def close(self) -> None: ...


class Sources:
    """Opens a source for a reference."""

    def __init__(self, settings: ImageSettings, credentials: Sequence[RegistryCredential]) -> None:
        self._settings = settings
        self._keys = RegistryKeys(credentials, settings.docker_config)
        self._folders = [Path(folder).resolve() for folder in settings.folders]

    def open(self, reference: ImageReference) -> Source:
        """Blocking. Raises ``ImageFault`` for what the settings do not allow."""
        if reference.kind != "registry":
            path = self._local(reference.name)
            return OciLayout(path) if reference.kind == "oci" else DockerArchive(path)
        if not any(fnmatchcase(reference.host, pattern) for pattern in self._settings.allowed):
            raise denied(f"the registry {reference.host} is not among those that the settings allow")
        from lambent.images.registry import Registry  # which brings an HTTP client that most servers never need

        host = self._mirror(reference.host)
        insecure = any(fnmatchcase(host, pattern) for pattern in self._settings.insecure)
        return Registry(host, reference.name, self._keys.find(host), insecure=insecure)

    def _mirror(self, host: str) -> str:
        for entry in self._settings.mirrors:
            pattern, _, other = entry.partition("=")
            if fnmatchcase(host, pattern):
                return other
        return host

    def _local(self, name: str) -> Path:
        """A path below one of the folders that the settings name, links resolved; a relative one below the first that has it."""
        candidates = [Path(name)] if name.startswith("/") else [folder / name for folder in self._folders]
        for candidate in candidates:
            path = candidate.resolve()
            if path.exists() and any(path.is_relative_to(folder) for folder in self._folders):
                return path
        raise denied(f"{name} does not lie in a folder that the settings name for images")
