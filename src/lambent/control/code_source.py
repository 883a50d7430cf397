"""Code that a request does not bring but names: an object in a bucket (contract 01 §5.3).

The bucket is one of the object store in the box, or, where the setting ``s3.endpoint`` names another S3, one there, which is asked with the
credentials of the setting. Whatever is wrong with bucket or object is told in the words in which AWS Lambda passes on what S3 said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from lambent.errors import ClientFault, NotImplementedFault, PlatformFault, invalid_parameter
from lambent.objects.buckets import Buckets
from lambent.objects.objects import Objects
from lambent.objects.segments import Segments, cut
from lambent.settings import Limits, S3Settings
from lambent.wire.call import Call

Params = Mapping[str, Any]

S3_MEMBERS = ("S3Bucket", "S3Key", "S3ObjectVersion")
READ = 1 << 20


@dataclass(frozen=True, slots=True)
class BucketObject:
    """An object; ``version`` is ``""`` for the latest."""

    bucket: str
    key: str
    version: str = ""


def bucket_object(operation: str, code: Params) -> BucketObject | None:
    """The object that ``code`` names, if it names one. Raises ``ClientFault`` for what is asked of it and not done here."""
    if code.get("S3ObjectStorageMode") == "REFERENCE":
        raise NotImplementedFault("lambda", f"{operation} with S3ObjectStorageMode REFERENCE")
    if not any(code.get(name) for name in S3_MEMBERS):
        return None
    if not code.get("S3Bucket") or not code.get("S3Key"):
        raise invalid_parameter("Please provide both S3Bucket and S3Key as the source of the code.")
    return BucketObject(code["S3Bucket"], code["S3Key"], code.get("S3ObjectVersion") or "")


class Shelf(Protocol):
    """Where objects are."""

    async def read(self, call: Call, wanted: BucketObject, most: int) -> bytes:
        """The content. Raises S3's own ``ClientFault``; above ``most`` bytes IPV."""
        ...


class CodeSource:
    """Reads from ``shelf``."""

    def __init__(self, shelf: Shelf, limits: Limits) -> None:
        self._shelf = shelf
        self._limits = limits

    async def fetch(self, call: Call, wanted: BucketObject) -> bytes:
        """The zip. Raises ``ClientFault`` in AWS Lambda's words."""
        try:
            return await self._shelf.read(call, wanted, self._limits.code_unzipped)
        except ClientFault as fault:
            if fault.code == "InvalidParameterValueException":
                raise
            raise _passed_on(fault, wanted) from fault

    async def layer(self, call: Call, content: Params) -> tuple[bytes, bool]:
        """The zip of PublishLayerVersion's ``Content``, and whether the request itself brought it. Raises ``ClientFault``."""
        zip_file: bytes | None = content.get("ZipFile")
        if zip_file is not None:
            if any(content.get(name) for name in S3_MEMBERS):
                raise invalid_parameter("Please do not provide other Content parameters when providing a ZipFile.")
            return zip_file, True
        wanted = bucket_object("PublishLayerVersion", content)
        if wanted is None:
            raise invalid_parameter("Please provide a source for layer content.")
        return await self.fetch(call, wanted), False


def _passed_on(fault: ClientFault, wanted: BucketObject) -> ClientFault:
    said = f"S3 Error Code: {fault.code}. S3 Error Message: {fault.message}"
    if fault.code == "AccessDenied":
        text = (
            "Your access has been denied by S3, please make sure your request credentials have permission to GetObject for "
            f"{wanted.bucket}/{wanted.key}. {said}"
        )
        return ClientFault("AccessDeniedException", 403, text)
    return invalid_parameter(f"Error occurred while GetObject. {said}")


class OwnShelf:
    """The object store in the box."""

    def __init__(self, buckets: Buckets, objects: Objects, segments: Segments) -> None:
        self._buckets = buckets
        self._objects = objects
        self._segments = segments

    async def read(self, call: Call, wanted: BucketObject, most: int) -> bytes:
        bucket = self._buckets.get(wanted.bucket, call.account)
        if bucket.region != call.region:
            text = f"The bucket is in this region: {bucket.region}. Please use this region to retry the request"
            raise ClientFault("PermanentRedirect", 301, text)
        version = await self._objects.find(bucket.name, wanted.key, wanted.version)
        if version.is_marker:
            raise ClientFault("NoSuchKey", 404, "The specified key does not exist.")
        if version.size > most:
            raise _too_large(most)
        return b"".join([data async for data in self._segments.read(cut(version.segments, 0, version.size))])


class OtherShelf:
    """Another S3, asked with boto3 in a thread."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings

    async def read(self, call: Call, wanted: BucketObject, most: int) -> bytes:
        return await asyncio.to_thread(self._read, self._settings.region or call.region, wanted, most)

    def _read(self, region: str, wanted: BucketObject, most: int) -> bytes:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        settings = self._settings
        given = {"aws_access_key_id": settings.access_key, "aws_secret_access_key": settings.secret_key} if settings.access_key else {}
        try:
            client = boto3.client("s3", endpoint_url=settings.endpoint, region_name=region, **given)
            version = {"VersionId": wanted.version} if wanted.version else {}
            answer = client.get_object(Bucket=wanted.bucket, Key=wanted.key, **version)
            with answer["Body"] as body:
                content: bytes = body.read(most + 1)
        except ClientError as error:
            about = error.response["Error"]
            raise ClientFault(about.get("Code", "Unknown"), 400, about.get("Message", "")) from error
        except (BotoCoreError, OSError, ValueError) as error:
            raise PlatformFault(f"The S3 at {settings.endpoint} cannot be read: {error}") from error
        if len(content) > most:
            raise _too_large(most)
        return content


def _too_large(most: int) -> ClientFault:
    return invalid_parameter(f"Unzipped size must be smaller than {most} bytes")
