"""Names of images, as ``Code.ImageUri`` gives them. Pure.

    host[:port]/name[:tag][@sha256:...]     in a registry: AWS's form, and that of every other registry
    oci:FOLDER[:tag][@sha256:...]           a local OCI layout, as ``skopeo copy ... oci:FOLDER:tag`` writes it; ``oci-layout://`` too
    docker-archive:FILE.tar[:name:tag]      a tar file of ``docker save``

A name without a host is refused, as AWS refuses it: there is no registry that everybody means. Of a tag and a digest the digest counts.
Local forms are good only below the folders that the settings name (``folders`` in ``[images]``); ``sources.py`` holds them to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_HOST = re.compile(r"(?:\[[0-9a-fA-F:]+\]|[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?)(?::[0-9]{1,5})?")
_NAME = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LOCAL = {"oci-layout://": "oci", "oci:": "oci", "docker-archive:": "docker-archive"}
MAX_LENGTH = 2_048


class BadReference(ValueError):
    """Not the name of an image."""


@dataclass(frozen=True, slots=True)
class ImageReference:
    """``kind`` is "registry", "oci" or "docker-archive"; ``host`` is "" for the local ones, whose ``name`` is a path."""

    kind: str
    host: str
    name: str
    tag: str = ""
    digest: str = ""

    @property
    def wanted(self) -> str:
        """What to ask for: the digest, else the tag, else ``latest``, which in a local image means the only one."""
        return self.digest or self.tag or "latest"

    def resolved(self, digest: str) -> str:
        """``Code.ResolvedImageUri``: the same image by its digest."""
        if self.kind == "registry":
            return f"{self.host}/{self.name}@{digest}"
        if self.kind == "oci":
            return f"oci:{self.name}@{digest}"
        return str(self)

    def at(self, digest: str) -> ImageReference:
        return replace(self, digest=digest)

    def __str__(self) -> str:
        tail = (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")
        prefix = f"{self.host}/" if self.kind == "registry" else f"{self.kind}:"
        return f"{prefix}{self.name}{tail}"


def parse(text: str) -> ImageReference:
    """Raises ``BadReference``."""
    if len(text) > MAX_LENGTH or any(ord(character) < 33 for character in text):
        raise BadReference(text)
    for prefix, kind in _LOCAL.items():
        if text.startswith(prefix):
            return _parse_local(kind, text[len(prefix) :], text)
    host, slash, rest = text.partition("/")
    if not slash or not _HOST.fullmatch(host) or not ("." in host or ":" in host or host == "localhost"):
        raise BadReference(text)
    rest, digest = _cut_digest(rest, text)
    name, tag = _cut_tag(rest)
    if not _NAME.fullmatch(name) or len(name) > 255:
        raise BadReference(text)
    if ":" in rest and not _TAG.fullmatch(tag):
        raise BadReference(text)
    return ImageReference("registry", host, name, tag, digest)


def _parse_local(kind: str, rest: str, text: str) -> ImageReference:
    rest, digest = _cut_digest(rest, text)
    if kind == "docker-archive":  # the part behind the file may hold a colon itself: name:tag
        path, _, tag = rest.partition(":")
    else:
        path, tag = _cut_tag(rest)
        if ":" in rest and not _TAG.fullmatch(tag):
            raise BadReference(text)
    if not path or ".." in path.split("/"):
        raise BadReference(text)
    return ImageReference(kind, "", path, tag, digest)


def _cut_digest(text: str, whole: str) -> tuple[str, str]:
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise BadReference(whole)
    return rest, digest


def _cut_tag(text: str) -> tuple[str, str]:
    """A colon behind the last slash begins the tag."""
    head, slash, last = text.rpartition("/")
    name, _, tag = last.partition(":")
    return head + slash + name, tag
