"""Code that a request does not bring but names: an object in a bucket (contract 01 §5.3).

The bucket is one of the object store in the box, or, where the setting ``s3.endpoint`` names another S3, one there, which is asked with the
credentials of the setting. Whatever is wrong with bucket or object is told in the words in which AWS Lambda passes on what S3 said.

Code is copied from there, or, with ``S3ObjectStorageMode`` REFERENCE, stays there and is read again when it is needed. Then Lambda itself
is the reader, for the function or layer that refers to it, and the bucket may be one of another Region, or of another account whose
policy lets Lambda in. What is referred to is one version of an object, which never changes; it can only go (``ObjectLost``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lambent.errors import ClientFault, PlatformFault, invalid_parameter
from lambent.objects.bucket_policy import lets_lambda_read
from lambent.objects.buckets import Buckets
from lambent.objects.faults import access_denied, no_such_key
from lambent.objects.objects import Objects
from lambent.objects.records import NULL, Version
from lambent.objects.segments import Segments, cut
from lambent.settings import Limits, S3Settings
from lambent.wire.call import Call

Params = Mapping[str, Any]

S3_MEMBERS = ("S3Bucket", "S3Key", "S3ObjectVersion")

# What S3 says when an object cannot be had, and asking again soon will not help; anything else may pass.
GONE = frozenset({"NoSuchKey", "NoSuchVersion", "NoSuchBucket", "AccessDenied", "InvalidObjectState"})


@dataclass(frozen=True, slots=True)
class BucketObject:
    """An object; ``version`` is ``""`` for the latest. ``is_reference``: it is to stay where it is."""

    bucket: str
    key: str
    version: str = ""
    is_reference: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads: the caller of an operation, or with ``arn``, that of a function or layer, Lambda itself for it."""

    account: str
    region: str
    arn: str = ""


@dataclass(frozen=True, slots=True)
class Reference:
    """The version of an object that is the code of the function or layer ``arn``."""

    bucket: str
    key: str
    version: str
    arn: str

    @property
    def wanted(self) -> BucketObject:
        return BucketObject(self.bucket, self.key, self.version)

    @property
    def reader(self) -> Reader:
        _, _, _, region, account, *_ = self.arn.split(":")
        return Reader(account, region, self.arn)

    def shown(self) -> dict[str, str]:
        """``ResolvedS3Object``."""
        return {"S3Bucket": self.bucket, "S3Key": self.key, "S3ObjectVersion": self.version}

    def to_document(self) -> dict[str, str]:
        return {"bucket": self.bucket, "key": self.key, "version": self.version, "arn": self.arn}

    @staticmethod
    def from_document(document: Mapping[str, str]) -> Reference:
        return Reference(**document)


class ObjectLost(PlatformFault):
    """What a reference names cannot be had any more. ``said`` is S3's answer in AWS Lambda's form."""

    def __init__(self, reference: Reference, said: str) -> None:
        super().__init__(f"The code s3://{reference.bucket}/{reference.key} in version {reference.version} cannot be accessed. {said}")
        self.said = said


def by_reference(code: Params) -> bool:
    """Whether ``code`` is asked to stay in its bucket."""
    return bool(code.get("S3ObjectStorageMode") == "REFERENCE")


def bucket_object(code: Params) -> BucketObject | None:
    """The object that ``code`` names, if it names one. Raises ``ClientFault`` for half a name."""
    if not by_reference(code) and not any(code.get(name) for name in S3_MEMBERS):
        return None
    if not code.get("S3Bucket") or not code.get("S3Key"):
        raise invalid_parameter("Please provide both S3Bucket and S3Key as the source of the code.")
    return BucketObject(code["S3Bucket"], code["S3Key"], code.get("S3ObjectVersion") or "", by_reference(code))


class Shelf(Protocol):
    """Where objects are. ``is_near``: they are read without a network."""

    is_near: bool

    async def read(self, reader: Reader, wanted: BucketObject, most: int) -> tuple[bytes, str]:
        """The content, and the id of its version. Raises S3's own ``ClientFault``; above ``most`` bytes IPV."""
        ...

    async def look(self, reader: Reader, wanted: BucketObject) -> None:
        """Raises what ``read`` would of an object that cannot be had; reads nothing of it."""
        ...


class CodeSource:
    """Reads from ``shelf``."""

    def __init__(self, shelf: Shelf, limits: Limits) -> None:
        self._shelf = shelf
        self._limits = limits

    @property
    def is_near(self) -> bool:
        return self._shelf.is_near

    async def fetch(self, call: Call, wanted: BucketObject, arn: str) -> tuple[bytes, Reference | None]:
        """The zip for the function or layer ``arn``, and the reference to it where it stays in its bucket.

        Raises ``ClientFault`` in AWS Lambda's words.
        """
        reader = Reader(call.account, call.region, arn if wanted.is_reference else "")
        try:
            content, version = await self._shelf.read(reader, wanted, self._limits.code_unzipped)
        except ClientFault as fault:
            if fault.code == "InvalidParameterValueException":
                raise
            raise _passed_on(fault, wanted) from fault
        if not wanted.is_reference:
            return content, None
        if version in ("", NULL):
            raise invalid_parameter(
                f"S3ObjectStorageMode REFERENCE needs an object with a version. Enable versioning for the bucket {wanted.bucket}, "
                f"and upload {wanted.key} again."
            )
        return content, Reference(wanted.bucket, wanted.key, version, arn)

    async def layer(self, call: Call, content: Params, arn: str) -> tuple[bytes, bool, Reference | None]:
        """The zip of PublishLayerVersion's ``Content``, whether the request itself brought it, and the reference to it, if any.

        Raises ``ClientFault``.
        """
        zip_file: bytes | None = content.get("ZipFile")
        if zip_file is not None:
            if by_reference(content) or any(content.get(name) for name in S3_MEMBERS):
                raise invalid_parameter("Please do not provide other Content parameters when providing a ZipFile.")
            return zip_file, True, None
        wanted = bucket_object(content)
        if wanted is None:
            raise invalid_parameter("Please provide a source for layer content.")
        zipped, reference = await self.fetch(call, wanted, arn)
        return zipped, False, reference

    async def again(self, reference: Reference) -> bytes:
        """What was referred to. Raises ``ObjectLost``, and ``PlatformFault`` where S3 does not answer as it should."""
        with _told(reference):
            content, _ = await self._shelf.read(reference.reader, reference.wanted, self._limits.code_unzipped)
        return content

    async def look(self, reference: Reference) -> None:
        """Raises as ``again`` does, and reads nothing."""
        with _told(reference):
            await self._shelf.look(reference.reader, reference.wanted)


@contextlib.contextmanager
def _told(reference: Reference) -> Iterator[None]:
    """S3's refusal to hand out what a reference names, as a loss or as a fault that may pass."""
    try:
        yield
    except ClientFault as fault:
        if fault.code in GONE:
            raise ObjectLost(reference, _said(fault)) from fault
        raise PlatformFault(f"s3://{reference.bucket}/{reference.key} cannot be read now: {fault}") from fault


def _said(fault: ClientFault) -> str:
    return f"S3 Error Code: {fault.code}. S3 Error Message: {fault.message}"


def _passed_on(fault: ClientFault, wanted: BucketObject) -> ClientFault:
    said = _said(fault)
    if fault.code == "AccessDenied":
        text = (
            "Your access has been denied by S3, please make sure your request credentials have permission to GetObject for "
            f"{wanted.bucket}/{wanted.key}. {said}"
        )
        return ClientFault("AccessDeniedException", 403, text)
    return invalid_parameter(f"Error occurred while GetObject. {said}")


class OwnShelf:
    """The object store in the box."""

    is_near = True

    def __init__(self, buckets: Buckets, objects: Objects, segments: Segments) -> None:
        self._buckets = buckets
        self._objects = objects
        self._segments = segments

    async def read(self, reader: Reader, wanted: BucketObject, most: int) -> tuple[bytes, str]:
        version = await self._find(reader, wanted)
        if version.size > most:
            raise _too_large(most)
        return b"".join([data async for data in self._segments.read(cut(version.segments, 0, version.size))]), version.id

    async def look(self, reader: Reader, wanted: BucketObject) -> None:
        await self._find(reader, wanted)

    async def _find(self, reader: Reader, wanted: BucketObject) -> Version:
        if reader.arn:
            self._require_permission(reader, wanted)
        else:
            bucket = self._buckets.get(wanted.bucket, reader.account)
            if bucket.region != reader.region:
                text = f"The bucket is in this region: {bucket.region}. Please use this region to retry the request"
                raise ClientFault("PermanentRedirect", 301, text)
        version = await self._objects.find(wanted.bucket, wanted.key, wanted.version)
        if version.is_marker:
            raise no_such_key(wanted.key)
        return version

    def _require_permission(self, reader: Reader, wanted: BucketObject) -> None:
        """Lambda reads all buckets of the function's own account, and of others what their policies let it read."""
        bucket = self._buckets.find(wanted.bucket)
        policy = bucket.configuration.get("policy") or ""
        if bucket.account != reader.account and not lets_lambda_read(policy, f"{wanted.bucket}/{wanted.key}", reader.arn, reader.account):
            raise access_denied()


class OtherShelf:
    """Another S3, asked with boto3 in a thread."""

    is_near = False

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings

    async def read(self, reader: Reader, wanted: BucketObject, most: int) -> tuple[bytes, str]:
        return await asyncio.to_thread(self._read, reader.region, wanted, most)

    async def look(self, reader: Reader, wanted: BucketObject) -> None:
        await asyncio.to_thread(self._look, reader.region, wanted)

    def _read(self, region: str, wanted: BucketObject, most: int) -> tuple[bytes, str]:
        with self._asked(region) as client:
            answer = client.get_object(**_named(wanted))
            with answer["Body"] as body:
                content: bytes = body.read(most + 1)
        if len(content) > most:
            raise _too_large(most)
        return content, answer.get("VersionId", "")

    def _look(self, region: str, wanted: BucketObject) -> None:
        with self._asked(region) as client:
            client.head_object(**_named(wanted))

    @contextlib.contextmanager
    def _asked(self, region: str) -> Iterator[Any]:
        """A client of the other S3; what that says, as faults."""
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        settings = self._settings
        given = {"aws_access_key_id": settings.access_key, "aws_secret_access_key": settings.secret_key} if settings.access_key else {}
        try:
            yield boto3.client("s3", endpoint_url=settings.endpoint, region_name=settings.region or region, **given)
        except ClientError as error:
            about = error.response["Error"]
            code, message = _OF_HEAD.get(about.get("Code", ""), (about.get("Code", "Unknown"), about.get("Message", "")))
            raise ClientFault(code, 400, message) from error
        except (BotoCoreError, OSError, ValueError) as error:
            raise PlatformFault(f"The S3 at {settings.endpoint} cannot be read: {error}") from error


# The answer to HEAD has no body, so botocore tells only its status. A delete marker that is named by its version answers 405.
_OF_HEAD = {
    "403": ("AccessDenied", "Access Denied"),
    "404": ("NoSuchKey", "The specified key does not exist."),
    "405": ("NoSuchKey", "The specified key does not exist."),
}


def _named(wanted: BucketObject) -> dict[str, str]:
    version = {"VersionId": wanted.version} if wanted.version else {}
    return {"Bucket": wanted.bucket, "Key": wanted.key, **version}


def _too_large(most: int) -> ClientFault:
    return invalid_parameter(f"Unzipped size must be smaller than {most} bytes")
