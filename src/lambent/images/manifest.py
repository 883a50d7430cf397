"""Manifests, indexes and configurations of images, as values. Pure; whoever fetched the bytes has checked their digests.

Both families are read: OCI (image-spec 1.0 and 1.1) and Docker's (schema 2). AWS takes single manifests only; here an index is looked
through for this machine's architecture, since that is what ``docker buildx`` makes by default. Schema 1, artifacts without layers, and
layers that live at foreign URLs or are encrypted are refused as unsupported.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lambent.images.faults import invalid, unsupported

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPTED = (OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_LIST)
MAX_DOCUMENT = 4 << 20  # bytes of a manifest or configuration, the most that registries take
MAX_LAYERS = 127  # as many as Docker takes
MAX_VARIABLES = 32_768  # bytes of all variables of an image

_COMPRESSION = {
    "application/vnd.oci.image.layer.v1.tar": "",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
}
_CONFIGURATIONS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MACHINES = {"x86_64": "amd64", "arm64": "arm64"}


@dataclass(frozen=True, slots=True)
class Blob:
    """Where some bytes are: ``digest`` is "sha256:<hex>", ``size`` in bytes."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image of one architecture. ``layers`` are bottom first, as they were compressed for transport."""

    digest: str
    config: Blob
    layers: tuple[Blob, ...]


@dataclass(frozen=True, slots=True)
class ImageConfiguration:
    """What an image says of how it is run. ``diff_ids`` name the layers as they are uncompressed, bottom first."""

    architecture: str  # in AWS's words
    diff_ids: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    workdir: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def choose(content: bytes, architecture: str) -> str | Manifest:
    """What a manifest or an index holds: the digest of the manifest for ``architecture``, or the manifest itself.

    Raises ``ImageFault``.
    """
    document = _load(content)
    kind = document.get("mediaType") or (OCI_INDEX if "manifests" in document else OCI_MANIFEST)
    if document.get("schemaVersion") != 2 or kind not in ACCEPTED:
        raise unsupported(f"manifest of type {kind!r}, schema {document.get('schemaVersion')!r}")
    if kind in (OCI_INDEX, DOCKER_LIST):
        return _for_architecture(document, architecture)
    return _manifest(document, digest_of(content))


def _for_architecture(document: Mapping[str, Any], architecture: str) -> str:
    seen = []
    for entry in _list(document, "manifests"):
        if not isinstance(entry, dict):
            raise invalid("an entry of the index is no object")
        if entry.get("mediaType") not in (OCI_MANIFEST, DOCKER_MANIFEST):
            continue
        platform = entry.get("platform") or {}
        name = f"{platform.get('os', 'linux')}/{platform.get('architecture', '')}"
        if not platform and len(document["manifests"]) == 1:
            return _blob(entry).digest
        if name == f"linux/{_MACHINES.get(architecture, architecture)}":
            return _blob(entry).digest
        seen.append(name)
    raise unsupported(f"no manifest for linux/{_MACHINES.get(architecture, architecture)}, only for {', '.join(seen) or 'nothing'}")


def _manifest(document: Mapping[str, Any], digest: str) -> Manifest:
    config = document.get("config")
    if not isinstance(config, dict) or config.get("mediaType") not in _CONFIGURATIONS:
        raise unsupported(f"configuration of type {(config or {}).get('mediaType')!r}" if isinstance(config, dict) else "no configuration")
    layers = _list(document, "layers")
    if len(layers) > MAX_LAYERS:
        raise unsupported(f"{len(layers)} layers, at most {MAX_LAYERS}")
    for layer in layers:
        if not isinstance(layer, dict) or layer.get("mediaType") not in _COMPRESSION:
            raise unsupported(f"layer of type {layer.get('mediaType')!r}" if isinstance(layer, dict) else "a layer that is no object")
    return Manifest(digest, _blob(config), tuple(_blob(layer) for layer in layers))


def read_configuration(content: bytes) -> ImageConfiguration:
    """Raises ``ImageFault``."""
    document = _load(content)
    if document.get("os", "linux") != "linux":
        raise unsupported(f"image for {document['os']!r}")
    machine = document.get("architecture")
    roots = document.get("rootfs")
    diff_ids = _texts(roots, "diff_ids") if isinstance(roots, dict) else ()
    if not all(_DIGEST.fullmatch(each) for each in diff_ids):
        raise invalid("rootfs.diff_ids: not all are SHA-256 digests")
    config = document.get("config") or {}
    if not isinstance(config, dict):
        raise invalid("config is no object")
    workdir = config.get("WorkingDir") or ""
    if not isinstance(workdir, str) or "\0" in workdir:
        raise invalid("config.WorkingDir is no path")
    return ImageConfiguration(
        architecture={"amd64": "x86_64"}.get(str(machine), str(machine)),
        diff_ids=diff_ids,
        entrypoint=_texts(config, "Entrypoint"),
        command=_texts(config, "Cmd"),
        workdir=workdir,
        environment=_variables(_texts(config, "Env")),
    )


def _variables(lines: tuple[str, ...]) -> dict[str, str]:
    if sum(len(line.encode("utf-8", "surrogatepass")) for line in lines) > MAX_VARIABLES:
        raise invalid(f"the variables of the image are larger than {MAX_VARIABLES} bytes")
    variables: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition("=")
        if name:
            variables[name] = value
    return variables


def _load(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise invalid(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise invalid("not a JSON object")
    return document


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    if not isinstance(value, list):
        raise invalid(f"{name} is no list")
    return value


def _texts(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = document.get(name) or []
    if not isinstance(value, list) or not all(isinstance(each, str) and "\0" not in each for each in value):
        raise invalid(f"{name} is no list of texts")
    return tuple(value)


def _blob(entry: Mapping[str, Any]) -> Blob:
    digest, size = entry.get("digest"), entry.get("size")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise unsupported(f"digest {digest!r}: only SHA-256 is known here")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise invalid(f"size {size!r} of {digest}")
    return Blob(digest, size)
