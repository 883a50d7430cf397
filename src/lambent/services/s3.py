"""Amazon S3, as far as it is answered: operation name -> method, and the translation between the wire and ``objects``.

What deploy tools, the AWS CLI and boto3 do with buckets and objects: bytes in and out as streams, versions, multipart uploads, lists,
copies. ``ServerSideEncryption`` and ``StorageClass`` of an object are kept and shown and nothing comes of them.
"""

from __future__ import annotations

import asyncio
import base64
import re
from typing import Any
from urllib.parse import quote

from lambent.clock import Clock
from lambent.errors import ClientFault
from lambent.objects.buckets import Buckets
from lambent.objects.checksums import Digests, announced, check_md5, compare, computable
from lambent.objects.faults import invalid_argument, invalid_request, no_such_key
from lambent.objects.listing import Asked, Listing
from lambent.objects.multipart import MAX_PART, Uploads
from lambent.objects.objects import Objects, discard_on_failure
from lambent.objects.records import Part, Version
from lambent.objects.segments import Segments, cut
from lambent.services import s3_members as members
from lambent.services.s3_buckets import BucketOperations
from lambent.services.s3_conditions import check_read, read_range
from lambent.services.s3_members import check_tags, owner_of, owner_only
from lambent.wire.call import Call

Params = dict[str, Any]

_OVERRIDES = ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType", "Expires")
_PART_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})")


class S3Service(BucketOperations):
    """One method per operation that does something."""

    def __init__(self, buckets: Buckets, objects: Objects, uploads: Uploads, listing: Listing, segments: Segments, clock: Clock) -> None:
        self._buckets = buckets
        self._objects = objects
        self._uploads = uploads
        self._listing = listing
        self._segments = segments
        self._clock = clock

    # -- objects --------------------------------------------------------------------------------------------------------------------------

    async def put_object(self, call: Call, params: Params) -> dict[str, Any]:
        bucket = self._bucket(call, params)
        members.check_put(params)
        tags = members.header_tags(params)
        source, trailers = members.body(params)
        stated = announced(params)
        digests = Digests(computable(stated, trailers is not None))
        segment = await self._segments.write(source, digests, MAX_PART)
        with discard_on_failure(self._segments, [segment]):
            check_md5(params.get("ContentMD5"), digests)
            checksums = compare(stated, digests, trailers or {})
            version = Version(
                key=params["Key"],
                id="",
                sequence=0,
                modified=self._clock.now(),
                segments=(segment,),
                size=segment.size,
                etag=digests.md5.hexdigest(),
                headers=members.headers(params),
                metadata=params.get("Metadata") or {},
                tags=tags,
                checksums={f"Checksum{name}": value for name, value in checksums.items()},
            )
            stored = await self._objects.put(bucket.name, version, members.conditions(params))
        answer = {
            "ETag": members.quoted(stored.etag),
            **stored.checksums,
            **members.encryption(stored),
            **self._version_id(bucket.name, stored),
        }
        if stored.checksums:
            answer["ChecksumType"] = "FULL_OBJECT"
        return answer

    async def get_object(self, call: Call, params: Params) -> dict[str, Any]:
        version = await self._readable(call, params)
        answer, start, length = self._describe(version, params)
        pieces = cut(version.segments, start, length)
        if pieces:
            answer["Body"] = self._segments.read(pieces)
        else:
            del answer["ContentLength"]  # the server says it of a body that is whole
        for name in _OVERRIDES:
            if params.get(f"Response{name}") is not None:
                answer[name] = str(params[f"Response{name}"])
        return answer

    async def head_object(self, call: Call, params: Params) -> dict[str, Any]:
        return self._describe(await self._readable(call, params), params)[0]

    async def delete_object(self, call: Call, params: Params) -> dict[str, Any]:
        bucket = self._bucket(call, params)
        gone = await self._objects.delete(bucket.name, params["Key"], params.get("VersionId") or "")
        return members.deleted(gone, params.get("VersionId"))

    async def delete_objects(self, call: Call, params: Params) -> dict[str, Any]:
        bucket = self._bucket(call, params)
        wanted = params["Delete"]["Objects"]
        if len(wanted) > members.PAGE or not wanted:
            text = "The XML you provided was not well-formed or did not validate against our published schema"
            raise ClientFault("MalformedXML", 400, text)

        async def delete(entry: Params) -> dict[str, Any]:
            gone = await self._objects.delete(bucket.name, entry["Key"], entry.get("VersionId") or "")
            shown = members.deleted(gone, entry.get("VersionId"))
            if shown.get("DeleteMarker"):
                shown["DeleteMarkerVersionId"] = shown.pop("VersionId")
            if entry.get("VersionId"):
                shown["VersionId"] = entry["VersionId"]
            return {"Key": entry["Key"], **shown}

        deleted = await asyncio.gather(*(delete(entry) for entry in wanted))
        return {} if params["Delete"].get("Quiet") else {"Deleted": deleted}

    async def copy_object(self, call: Call, params: Params) -> dict[str, Any]:
        bucket = self._bucket(call, params)
        members.check_put(params)
        name, source = await self._source(call, params)
        replaces = params.get("MetadataDirective") == "REPLACE"
        is_itself = (name, source.key) == (bucket.name, params["Key"]) and not members.copy_source(params)[2]
        if is_itself and not replaces and not params.get("StorageClass") and not params.get("ServerSideEncryption"):
            raise invalid_request(
                "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, "
                "storage class, website redirect location or encryption attributes."
            )
        digests = Digests()
        storage = {"StorageClass": params["StorageClass"]} if params.get("StorageClass") else {}
        with self._segments.holding(source.segments):
            if len(source.segments) == 1:
                segment, etag = await self._segments.link(source.segments[0]), source.etag
            else:
                reading = self._segments.read(cut(source.segments, 0, source.size))
                segment = await self._segments.write(reading, digests, MAX_PART)
                etag = digests.md5.hexdigest()
        with discard_on_failure(self._segments, [segment]):
            version = Version(
                key=params["Key"],
                id="",
                sequence=0,
                modified=self._clock.now(),
                segments=(segment,),
                size=source.size,
                etag=etag,
                headers=members.headers(params) if replaces else {**source.headers, **members.encryption_asked(params), **storage},
                metadata=(params.get("Metadata") or {}) if replaces else source.metadata,
                tags=members.header_tags(params) if params.get("TaggingDirective") == "REPLACE" else source.tags,
                checksums=source.checksums,
            )
            stored = await self._objects.put(bucket.name, version, members.conditions(params))
        answer = {
            "CopyObjectResult": {"ETag": members.quoted(stored.etag), "LastModified": stored.modified, **stored.checksums},
            **members.encryption(stored),
            **self._version_id(bucket.name, stored),
        }
        if self._buckets.get(name, call.account).versioning:
            answer["CopySourceVersionId"] = source.id
        return answer

    async def get_object_tagging(self, call: Call, params: Params) -> dict[str, Any]:
        version = await self._readable(call, params)
        tags = [{"Key": key, "Value": value} for key, value in version.tags.items()]
        return {"TagSet": tags, **self._version_id(params["Bucket"], version)}

    async def put_object_tagging(self, call: Call, params: Params) -> dict[str, Any]:
        bucket, given = self._bucket(call, params), params["Tagging"]["TagSet"]
        tags = {tag["Key"]: tag["Value"] for tag in given}
        check_tags(tags, len(given), 10)
        version = await self._objects.retag(bucket.name, params["Key"], params.get("VersionId") or "", tags)
        return self._version_id(bucket.name, version)

    async def delete_object_tagging(self, call: Call, params: Params) -> dict[str, Any]:
        bucket = self._bucket(call, params)
        version = await self._objects.retag(bucket.name, params["Key"], params.get("VersionId") or "", {})
        return self._version_id(bucket.name, version)

    async def get_object_acl(self, call: Call, params: Params) -> dict[str, Any]:
        await self._readable(call, params)
        return owner_only(call.account)

    # -- multipart uploads ----------------------------------------------------------------------------------------------------------------

    async def create_multipart_upload(self, call: Call, params: Params) -> dict[str, Any]:
        bucket = self._bucket(call, params)
        members.check_put(params)
        algorithm = params.get("ChecksumAlgorithm") or ""
        upload = await self._uploads.begin(
            bucket.name, params["Key"], members.headers(params), params.get("Metadata") or {}, members.header_tags(params), algorithm
        )
        answer = {"Bucket": bucket.name, "Key": upload.key, "UploadId": upload.id, **members.encryption_asked(params)}
        if algorithm:
            answer |= {"ChecksumAlgorithm": algorithm, "ChecksumType": params.get("ChecksumType") or "COMPOSITE"}
        return answer

    async def upload_part(self, call: Call, params: Params) -> dict[str, Any]:
        bucket, number = self._bucket(call, params), members.part_number(params)
        upload = await self._uploads.get(bucket.name, params["Key"], params["UploadId"])
        source, trailers = members.body(params)
        part = await self._uploads.put_part(
            upload, number, source, stated=announced(params), md5=params.get("ContentMD5"), trailers=trailers
        )
        return {"ETag": members.quoted(part.etag), **members.part_checksums(part)}

    async def upload_part_copy(self, call: Call, params: Params) -> dict[str, Any]:
        bucket, number = self._bucket(call, params), members.part_number(params)
        upload = await self._uploads.get(bucket.name, params["Key"], params["UploadId"])
        _, source = await self._source(call, params)
        start, length = 0, source.size
        asked = params.get("CopySourceRange")
        if asked is not None:
            match = _PART_RANGE.fullmatch(asked)
            if match is None or not int(match[1]) <= int(match[2]) < source.size:
                text = "The x-amz-copy-source-range value must be of the form bytes=first-last"
                raise invalid_argument("x-amz-copy-source-range", asked, text)
            start, length = int(match[1]), int(match[2]) - int(match[1]) + 1
        reading = self._segments.read(cut(source.segments, start, length))
        part = await self._uploads.put_part(upload, number, reading, stated={})
        return {"CopyPartResult": {"ETag": members.quoted(part.etag), "LastModified": part.modified, **members.part_checksums(part)}}

    async def complete_multipart_upload(self, call: Call, params: Params) -> dict[str, Any]:
        bucket = self._bucket(call, params)
        upload = await self._uploads.get(bucket.name, params["Key"], params["UploadId"])
        parts = (params.get("MultipartUpload") or {}).get("Parts") or []
        stored = await self._uploads.finish(upload, parts, members.conditions(params))
        location = f"{call.base_url}/{bucket.name}/{quote(upload.key)}"
        answer = {"Location": location, "Bucket": bucket.name, "Key": upload.key, "ETag": members.quoted(stored.etag)}
        return {**answer, **members.encryption(stored), **self._version_id(bucket.name, stored)}

    async def abort_multipart_upload(self, call: Call, params: Params) -> dict[str, Any]:
        bucket = self._bucket(call, params)
        await self._uploads.abort(await self._uploads.get(bucket.name, params["Key"], params["UploadId"]))
        return {}

    async def list_parts(self, call: Call, params: Params) -> dict[str, Any]:
        bucket = self._bucket(call, params)
        upload = await self._uploads.get(bucket.name, params["Key"], params["UploadId"])
        after, most = members.number(params, "PartNumberMarker", 0), min(members.number(params, "MaxParts", members.PAGE), members.PAGE)
        found: list[Part] = []
        async for part in self._uploads.parts(upload, after):
            found.append(part)
            if len(found) > most:
                break
        page = found[:most]
        answer = {
            "Bucket": bucket.name,
            "Key": upload.key,
            "UploadId": upload.id,
            "PartNumberMarker": after,
            "NextPartNumberMarker": page[-1].number if page else 0,
            "MaxParts": most,
            "IsTruncated": len(found) > most,
            "Parts": [
                {
                    "PartNumber": part.number,
                    "LastModified": part.modified,
                    "ETag": members.quoted(part.etag),
                    "Size": part.segment.size,
                    **members.part_checksums(part),
                }
                for part in page
            ],
            "Owner": owner_of(call.account),
            "Initiator": owner_of(call.account),
            "StorageClass": upload.headers.get("StorageClass", "STANDARD"),
        }
        return answer | ({"ChecksumAlgorithm": upload.algorithm} if upload.algorithm else {})

    # -- lists ----------------------------------------------------------------------------------------------------------------------------

    async def list_objects(self, call: Call, params: Params) -> dict[str, Any]:
        bucket, marker, spell = self._bucket(call, params), params.get("Marker") or "", members.speller(params)
        asked = members.asked(params, marker)
        page = await self._listing.current(asked)
        answer = {
            **members.echo(params, asked, spell),
            "Name": bucket.name,
            "Marker": spell(marker),
            "IsTruncated": bool(page.last),
            "Contents": [members.entry(version, spell, call.account) for version in page.entries],
            "CommonPrefixes": [{"Prefix": spell(prefix)} for prefix in page.prefixes],
        }
        if page.last and asked.delimiter:
            answer["NextMarker"] = spell(page.last)
        return answer

    async def list_objects_v2(self, call: Call, params: Params) -> dict[str, Any]:
        bucket, spell = self._bucket(call, params), members.speller(params)
        token, start = params.get("ContinuationToken"), params.get("StartAfter") or ""
        asked = members.asked(params, members.read_token(token) if token is not None else start)
        page = await self._listing.current(asked)
        owner = call.account if params.get("FetchOwner") else ""
        answer = {
            **members.echo(params, asked, spell),
            "Name": bucket.name,
            "IsTruncated": bool(page.last),
            "KeyCount": len(page),
            "Contents": [members.entry(version, spell, owner) for version in page.entries],
            "CommonPrefixes": [{"Prefix": spell(prefix)} for prefix in page.prefixes],
        }
        if start:
            answer["StartAfter"] = spell(start)
        if token is not None:
            answer["ContinuationToken"] = token
        if page.last:
            answer["NextContinuationToken"] = base64.urlsafe_b64encode(page.last.encode()).decode()
        return answer

    async def list_object_versions(self, call: Call, params: Params) -> dict[str, Any]:
        bucket, spell = self._bucket(call, params), members.speller(params)
        marker, version_marker = params.get("KeyMarker") or "", params.get("VersionIdMarker") or ""
        if version_marker and not marker:
            raise invalid_argument("version-id-marker", version_marker, "A version-id marker cannot be specified without a key marker.")
        asked = members.asked(params, marker)
        page = await self._listing.versions(asked, version_marker)
        answer = {
            **members.echo(params, asked, spell),
            "Name": bucket.name,
            "KeyMarker": spell(marker),
            "VersionIdMarker": version_marker,
            "IsTruncated": bool(page.last),
            "Versions": [members.version_entry(each, latest, spell, call.account) for each, latest in page.entries if not each.is_marker],
            "DeleteMarkers": [members.marker_entry(each, latest, spell, call.account) for each, latest in page.entries if each.is_marker],
            "CommonPrefixes": [{"Prefix": spell(prefix)} for prefix in page.prefixes],
        }
        if page.last:
            answer["NextKeyMarker"] = spell(page.last)
            if page.entries and page.entries[-1][0].key == page.last:
                answer["NextVersionIdMarker"] = page.entries[-1][0].id
        return answer

    async def list_multipart_uploads(self, call: Call, params: Params) -> dict[str, Any]:
        bucket, spell = self._bucket(call, params), members.speller(params)
        marker, upload_marker = params.get("KeyMarker") or "", params.get("UploadIdMarker") or ""
        most = min(members.number(params, "MaxUploads", members.PAGE), members.PAGE)
        asked = Asked(bucket.name, params.get("Prefix") or "", params.get("Delimiter") or "", marker, most)
        page = await self._listing.uploads(asked, upload_marker if marker else "")
        answer = {
            "Bucket": bucket.name,
            "Prefix": spell(asked.prefix),
            "KeyMarker": spell(marker),
            "UploadIdMarker": upload_marker,
            "MaxUploads": most,
            "IsTruncated": bool(page.last),
            "Uploads": [
                {
                    "Key": spell(upload.key),
                    "UploadId": upload.id,
                    "Initiated": upload.initiated,
                    "StorageClass": upload.headers.get("StorageClass", "STANDARD"),
                    "Owner": owner_of(call.account),
                    "Initiator": owner_of(call.account),
                }
                for upload in page.entries
            ],
            "CommonPrefixes": [{"Prefix": spell(prefix)} for prefix in page.prefixes],
        }
        if page.last:
            answer["NextKeyMarker"] = spell(page.last)
            if page.entries and page.entries[-1].key == page.last:
                answer["NextUploadIdMarker"] = page.entries[-1].id
        return answer

    # -- reading --------------------------------------------------------------------------------------------------------------------------

    async def _readable(self, call: Call, params: Params) -> Version:
        """The version asked for. Raises 404 for one that is deleted, 405 for a delete marker that is named."""
        bucket, wanted = self._bucket(call, params), params.get("VersionId") or ""
        members.refuse_customer_keys(params)
        version = await self._objects.find(bucket.name, params["Key"], wanted)
        if version.is_marker:
            about = {"x-amz-delete-marker": "true", "x-amz-version-id": version.id}
            if wanted:
                raise ClientFault("MethodNotAllowed", 405, "The specified method is not allowed against this resource.", about)
            raise ClientFault("NoSuchKey", 404, no_such_key("").message, {**about, "Key": params["Key"]})
        return version

    def _describe(self, version: Version, params: Params) -> tuple[dict[str, Any], int, int]:
        """The answer to GetObject or HeadObject but for its body, and which bytes are meant."""
        check_read(version, params)
        answer: dict[str, Any] = {
            "AcceptRanges": "bytes",
            "LastModified": version.modified,
            "ETag": members.quoted(version.etag),
            "ContentType": "binary/octet-stream",
            **version.headers,
            "Metadata": version.metadata,
            **self._version_id(params["Bucket"], version),
        }
        if version.tags:
            answer["TagCount"] = len(version.tags)
        start, length = 0, version.size
        number = params.get("PartNumber")
        span = read_range(params.get("Range"), version.size) if number is None else self._part(version, number, answer)
        if span is not None:
            start, length = span
            answer["ContentRange"] = f"bytes {start}-{start + length - 1}/{version.size}"
            answer["__status__"] = 206
        elif params.get("ChecksumMode") == "ENABLED" and version.checksums:
            answer |= {**version.checksums, "ChecksumType": "FULL_OBJECT"}
        answer["ContentLength"] = length
        return answer, start, length

    @staticmethod
    def _part(version: Version, number: int, answer: dict[str, Any]) -> tuple[int, int] | None:
        if not 1 <= number <= max(version.part_count, 1):
            about = {"PartNumberRequested": number, "ActualPartCount": max(version.part_count, 1)}
            raise ClientFault("InvalidPartNumber", 416, "The requested partnumber is not satisfiable", about)
        if version.part_count:
            answer["PartsCount"] = version.part_count
        start = sum(segment.size for segment in version.segments[: number - 1])
        return (start, version.segments[number - 1].size) if version.size else None

    async def _source(self, call: Call, params: Params) -> tuple[str, Version]:
        """The bucket and the version that a copy is made of."""
        name, key, version_id = members.copy_source(params)
        members.refuse_customer_keys(params)
        self._buckets.get(name, call.account)
        version = await self._objects.find(name, key, version_id)
        if version.is_marker:
            if version_id:
                raise invalid_request("The source of a copy request may not specifically refer to a delete marker by version id.")
            raise no_such_key(key)
        check_read(version, params, "CopySource")
        if version.size > MAX_PART:
            raise invalid_request("The specified copy source is larger than the maximum allowable size for a copy source: 5368709120")
        return name, version

    def _version_id(self, bucket: str, version: Version) -> dict[str, str]:
        with self._buckets.writing(bucket) as about:
            return {"VersionId": version.id} if about.versioning else {}
