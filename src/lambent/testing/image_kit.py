"""Container images for tests, made from nothing: layers, manifests, layouts; a real registry on this machine to push them to.

image = Image([layer({"app": program})], entrypoint=["/app"])
image.write(folder, "latest")                     # an OCI layout
with RegistryServer(folder) as registry:
    registry.push("team/app", "latest", image)    # the docker-registry of Debian
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import urllib3

from lambent.images.manifest import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, digest_of
from lambent.testing.local_server import free_port

_OCI = ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip")
_DOCKER = ("application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip")


@dataclass(frozen=True, slots=True)
class File:
    """An entry of a layer that is more than a plain file: ``kind`` is one of tarfile's types."""

    content: bytes = b""
    mode: int = 0o644
    kind: bytes = tarfile.REGTYPE
    link: str = ""


def folder(mode: int = 0o755) -> File:
    return File(b"", mode, tarfile.DIRTYPE)


def symlink(to: str) -> File:
    return File(b"", 0o777, tarfile.SYMTYPE, to)


def program(content: bytes) -> File:
    return File(content, 0o755)


def layer(files: Mapping[str, bytes | File]) -> bytes:
    """An uncompressed tar file, the same for the same files."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, given in files.items():
            file = given if isinstance(given, File) else File(given)
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.linkname, entry.size = file.kind, file.mode, file.link, len(file.content)
            archive.addfile(entry, io.BytesIO(file.content) if file.content else None)
    return sink.getvalue()


@dataclass(slots=True)
class Image:
    """An image of uncompressed ``layers``, bottom first."""

    layers: Sequence[bytes]
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    workdir: str = ""
    environment: Sequence[str] = ()
    architecture: str = "amd64"
    docker: bool = False
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifest: bytes = b""

    def __post_init__(self) -> None:
        config_type, layer_type = _DOCKER if self.docker else _OCI
        config = {
            "architecture": self.architecture,
            "os": "linux",
            "config": {
                "Entrypoint": list(self.entrypoint) or None,
                "Cmd": list(self.command) or None,
                "WorkingDir": self.workdir,
                "Env": list(self.environment),
            },
            "rootfs": {"type": "layers", "diff_ids": [digest_of(each) for each in self.layers]},
        }
        document = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self._keep(json.dumps(config).encode(), config_type),
            "layers": [self._keep(gzip.compress(each, 1, mtime=0), layer_type) for each in self.layers],
        }
        self.manifest = json.dumps(document).encode()

    @property
    def media_type(self) -> str:
        return DOCKER_MANIFEST if self.docker else OCI_MANIFEST

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    def describe(self) -> dict[str, Any]:
        """As an entry of an index."""
        platform = {"os": "linux", "architecture": self.architecture}
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.manifest), "platform": platform}

    def write(self, layout: Path, tag: str) -> None:
        """Add the image to the OCI layout in ``layout``."""
        blobs = layout / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        for content in (self.manifest, *self.blobs.values()):
            (blobs / hashlib.sha256(content).hexdigest()).write_bytes(content)
        path = layout / "index.json"
        index: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"schemaVersion": 2, "manifests": []}
        others = [each for each in index["manifests"] if each["annotations"]["org.opencontainers.image.ref.name"] != tag]
        entry = {**self.describe(), "annotations": {"org.opencontainers.image.ref.name": tag}}
        path.write_text(json.dumps({**index, "manifests": [*others, entry]}))

    def _keep(self, content: bytes, media_type: str) -> dict[str, Any]:
        digest = digest_of(content)
        self.blobs[digest] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content)}


def index_of(images: Sequence[Image]) -> bytes:
    """An index of images of several architectures."""
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [each.describe() for each in images]}).encode()


class RegistryServer:
    """Debian's ``docker-registry`` on a free port, with its data in ``data``. With ``htpasswd`` it wants credentials."""

    def __init__(self, data: Path, htpasswd: str = "") -> None:
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self._data = data
        self._htpasswd = htpasswd
        self._process: subprocess.Popen[str] | None = None
        self._http = urllib3.PoolManager()
        self._headers: dict[str, str] = {}
        self._lines: list[str] = []
        self._reader = threading.Thread()

    def authenticate(self, user: str, password: str) -> None:
        """What pushes are sent with."""
        self._headers = urllib3.make_headers(basic_auth=f"{user}:{password}")

    def __enter__(self) -> RegistryServer:
        self._data.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(self._data / "registry")}, "delete": {"enabled": True}},
            "http": {"addr": self.host},
        }
        if self._htpasswd:
            (self._data / "htpasswd").write_text(self._htpasswd)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(self._data / "htpasswd")}}
        (self._data / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        command = ["docker-registry", "serve", str(self._data / "config.yml")]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self._process, ready), daemon=True)
        self._reader.start()
        ready.wait(30.0)
        if not any("listening on" in line for line in self._lines):
            self.__exit__(None, None, None)
            raise RuntimeError(f"docker-registry did not start:\n{''.join(self._lines)}")
        return self

    def _read(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        """Reads on to the end, for otherwise it would fill its pipe and wait."""
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self._lines.append(line)
                if "listening on" in line:
                    ready.set()
        ready.set()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.clear()
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def push(self, name: str, tag: str, image: Image) -> str:
        """Gives the name of the image."""
        for digest, content in image.blobs.items():
            begun = self._send("POST", f"/v2/{name}/blobs/uploads/", b"", 202)
            location = begun.headers["Location"]
            mark = "&" if "?" in location else "?"
            self._send("PUT", f"{location}{mark}digest={digest}", content, 201)
        return self.push_manifest(name, tag, image.manifest, image.media_type)

    def push_manifest(self, name: str, tag: str, content: bytes, media_type: str) -> str:
        self._send("PUT", f"/v2/{name}/manifests/{tag}", content, 201, media_type)
        return f"{self.host}/{name}:{tag}"

    def delete(self, name: str, digest: str) -> None:
        """Forget a manifest."""
        self._send("DELETE", f"/v2/{name}/manifests/{digest}", b"", 202)

    def _send(self, method: str, path: str, body: bytes, expected: int, kind: str = "application/octet-stream") -> urllib3.BaseHTTPResponse:
        url = path if path.startswith("http") else f"http://{self.host}{path}"
        answer = self._http.request(method, url, body=body, headers={**self._headers, "Content-Type": kind}, retries=False)
        if answer.status != expected:
            raise RuntimeError(f"{method} {path}: {answer.status} {answer.data!r}")
        return answer
