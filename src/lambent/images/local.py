"""Images that lie in a folder or a file of this machine, seen as if a registry gave them. Blocking.

``OciLayout``      a folder of the OCI image layout, as ``skopeo copy ... oci:FOLDER:tag`` and ``umoci`` write it
``DockerArchive``  a tar file of ``docker save``; a manifest is made up for it, since its layers have no digests of their own

Both raise ``ImageFault``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lambent.images.faults import deleted, invalid, unsupported
from lambent.images.manifest import DOCKER_MANIFEST, MAX_DOCUMENT, OCI_INDEX, OCI_MANIFEST, Blob, digest_of

CHUNK = 1 << 18
_NAME = "org.opencontainers.image.ref.name"


class OciLayout:
    """The image layout in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def close(self) -> None:
        pass

    def manifest(self, wanted: str) -> bytes:
        digest = wanted if wanted.startswith("sha256:") else self._tagged(wanted)
        content = self._read(self._blob_path(digest), MAX_DOCUMENT)
        if digest_of(content) != digest:
            raise invalid(f"{self._folder}: the manifest {digest} is damaged")
        return content

    def blob(self, blob: Blob, offset: int) -> tuple[int, Iterator[bytes]]:
        return offset, _pieces(self._blob_path(blob.digest), offset)

    def _tagged(self, tag: str) -> str:
        try:
            index: Any = json.loads(self._read(self._folder / "index.json", MAX_DOCUMENT))
            entries = [
                entry for entry in index["manifests"] if entry.get("mediaType", OCI_MANIFEST) in (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST)
            ]
            named = [entry for entry in entries if (entry.get("annotations") or {}).get(_NAME) == tag]
            if not named and tag == "latest" and len(entries) == 1:
                named = entries
            if not named:
                raise deleted(f"{self._folder} has no image {tag!r}")
            return str(named[0]["digest"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise invalid(f"{self._folder}: index.json is damaged") from error

    def _blob_path(self, digest: str) -> Path:
        kind, _, name = digest.partition(":")
        if kind != "sha256" or len(name) != 64 or not name.isalnum():
            raise unsupported(f"digest {digest!r}: only SHA-256 is known here")
        return self._folder / "blobs" / "sha256" / name

    def _read(self, path: Path, limit: int) -> bytes:
        try:
            with open(path, "rb") as file:
                content = file.read(limit + 1)
        except OSError as error:
            raise deleted(f"{path}: {error.strerror}") from error
        if len(content) > limit:
            raise invalid(f"{path} is larger than {limit} bytes")
        return content


class DockerArchive:
    """The archive ``path``; ``close`` at the end."""

    def __init__(self, path: Path) -> None:
        try:
            self._archive = tarfile.open(path, "r:")  # noqa: SIM115 - closed by ``close``
        except (OSError, tarfile.TarError) as error:
            raise deleted(f"{path}: {error}") from error
        self._path = path
        self._members: dict[str, str] = {}  # by digest
        self._contents: dict[str, bytes] = {}  # likewise

    def close(self) -> None:
        self._archive.close()

    def manifest(self, wanted: str) -> bytes:
        entry = self._entry("" if wanted.startswith("sha256:") else wanted)
        with self._member(entry["Config"]) as file:
            config = file.read(MAX_DOCUMENT + 1)
        if len(config) > MAX_DOCUMENT:
            raise invalid(f"{self._path}: the configuration is too large")
        self._contents[digest_of(config)] = config
        document = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": digest_of(config),
                "size": len(config),
            },
            "layers": [self._layer(name) for name in entry["Layers"]],
        }
        content = json.dumps(document).encode()
        if wanted.startswith("sha256:") and digest_of(content) != wanted:
            raise deleted(f"{self._path} holds another image by now")
        return content

    def blob(self, blob: Blob, offset: int) -> tuple[int, Iterator[bytes]]:
        if blob.digest in self._contents:
            return offset, iter((self._contents[blob.digest][offset:],))
        if blob.digest not in self._members:
            self.manifest("latest")
        return offset, self._pieces(self._members.get(blob.digest, ""), offset)

    def _pieces(self, name: str, offset: int) -> Iterator[bytes]:
        with self._member(name) as file:
            file.seek(offset)
            while piece := file.read(CHUNK):
                yield piece

    def _entry(self, tag: str) -> Any:
        with self._member("manifest.json") as file:
            try:
                entries: Any = json.loads(file.read(MAX_DOCUMENT))
                named = [each for each in entries if any(name == tag or name.endswith(f"/{tag}") for name in each["RepoTags"] or ())]
                if not named and tag in ("", "latest") and len(entries) == 1:
                    named = entries
                if not named:
                    raise deleted(f"{self._path} has no image {tag!r}")
                if not isinstance(named[0]["Config"], str) or not all(isinstance(each, str) for each in named[0]["Layers"]):
                    raise TypeError
                return named[0]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise invalid(f"{self._path}: manifest.json is damaged") from error

    def _layer(self, name: str) -> dict[str, Any]:
        hashed = hashlib.sha256()
        size = 0
        with self._member(name) as file:
            while piece := file.read(CHUNK):
                hashed.update(piece)
                size += len(piece)
        digest = f"sha256:{hashed.hexdigest()}"
        self._members[digest] = name
        return {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": digest, "size": size}

    @contextlib.contextmanager
    def _member(self, name: str) -> Iterator[IO[bytes]]:
        try:
            file = self._archive.extractfile(name)
        except (KeyError, OSError, tarfile.TarError) as error:
            raise invalid(f"{self._path} lacks {name!r}") from error
        if file is None:
            raise invalid(f"{self._path}: {name!r} is no file")
        with file:
            yield file


def _pieces(path: Path, offset: int) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            while piece := file.read(CHUNK):
                yield piece
    except OSError as error:
        raise deleted(f"{path}: {error.strerror}") from error
