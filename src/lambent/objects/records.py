"""Buckets, versions of objects, uploads and parts as values, and as the documents that the store keeps.

"s3-bucket"    <bucket>                                     a bucket and its configuration
"s3-object"    <bucket>/<key>                               the latest version of a key, which may be a delete marker
"s3-version"   <bucket>/<key> NUL <16 hex>                  the versions behind it, newest first: the digits count backwards
"s3-upload"    <bucket>/<key> NUL <upload id>               a multipart upload under way
"s3-part"      <upload id>/<5 digits>                       one of its parts
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lambent.objects.segments import Segment

BUCKET, OBJECT, VERSION, UPLOAD, PART = "s3-bucket", "s3-object", "s3-version", "s3-upload", "s3-part"
WITH_SEGMENTS = frozenset({OBJECT, VERSION, PART})
NULL = "null"  # the version id of what was put while the bucket kept no versions
_LAST = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Bucket:
    """``versioning`` is ``""``, ``Enabled`` or ``Suspended``; ``configuration`` holds documents by their kind, in the wire's shape."""

    name: str
    account: str
    region: str
    created: float
    versioning: str = ""
    configuration: Mapping[str, Any] = field(default_factory=dict)

    def to_document(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> Bucket:
        return Bucket(**document)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object, or (``is_marker``) the note that it was deleted.

    ``sequence`` orders the versions of a key. ``headers`` are the members of GetObject's answer that the client set (``ContentType`` …),
    ``checksums`` those of its answers (``ChecksumCRC32`` …). ``part_count`` is 0 for an object put in one piece. ``has_older`` says of a
    latest version that there may be versions behind it.
    """

    key: str
    id: str
    sequence: int
    modified: float
    segments: tuple[Segment, ...] = ()
    size: int = 0
    etag: str = ""  # without quotes
    headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    part_count: int = 0
    is_marker: bool = False
    has_older: bool = False

    def to_document(self) -> dict[str, Any]:
        document = {name: value for name, value in asdict(self).items() if value}
        document["segments"] = [[segment.id, segment.size] for segment in self.segments]
        return document

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> Version:
        given = dict(document)
        given["segments"] = tuple(Segment(*each) for each in given["segments"])
        return Version(**given)


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload: what the object will be, and which checksum its parts have."""

    id: str
    bucket: str
    key: str
    initiated: float
    headers: Mapping[str, str]
    metadata: Mapping[str, str]
    tags: Mapping[str, str]
    algorithm: str = ""

    def to_document(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> Upload:
        return Upload(**document)


@dataclass(frozen=True, slots=True)
class Part:
    number: int
    segment: Segment
    etag: str
    modified: float
    checksums: Mapping[str, str] = field(default_factory=dict)

    def to_document(self) -> dict[str, Any]:
        return {**asdict(self), "segment": [self.segment.id, self.segment.size]}

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> Part:
        return Part(**{**document, "segment": Segment(*document["segment"])})


def segments_named(kind: str, document: Mapping[str, Any]) -> Iterator[str]:
    """The names of the segments that a document of ``kind`` holds."""
    for name, _ in [document["segment"]] if kind == PART else document["segments"]:
        yield name


def object_key(bucket: str, key: str) -> str:
    return f"{bucket}/{key}"


def versions_prefix(bucket: str, key: str) -> str:
    return f"{bucket}/{key}\0"


def version_key(bucket: str, version: Version) -> str:
    return f"{versions_prefix(bucket, version.key)}{_LAST - version.sequence:016x}"


def upload_key(bucket: str, key: str, upload: str) -> str:
    return f"{bucket}/{key}\0{upload}"


def part_key(upload: str, number: int) -> str:
    return f"{upload}/{number:05d}"
