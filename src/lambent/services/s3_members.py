"""Members of S3's requests and answers, one by one: from parameters to what ``objects`` takes, and from what it gives to answers. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from lambent.errors import ClientFault
from lambent.objects.faults import entity_too_large, invalid_argument
from lambent.objects.listing import Asked
from lambent.objects.multipart import MAX_PART, MAX_PARTS
from lambent.objects.objects import Conditions
from lambent.objects.records import Part, Version
from lambent.wire.body import BodyStream

Params = dict[str, Any]

KEY = 1_024  # bytes
METADATA = 2_048  # bytes
PAGE = 1_000
_KEPT = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "Expires",
    "WebsiteRedirectLocation",
    "StorageClass",
    "ServerSideEncryption",
    "SSEKMSKeyId",
)
_CUSTOMER_KEYS = ("SSECustomerAlgorithm", "SSECustomerKey", "CopySourceSSECustomerKey")


def check_put(params: Params) -> None:
    key = params["Key"]
    if len(key.encode()) > KEY:
        raise ClientFault("KeyTooLongError", 400, "Your key is too long", {"Size": len(key.encode()), "MaxSizeAllowed": KEY})
    metadata = params.get("Metadata") or {}
    size = sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())
    if size > METADATA:
        text = "Your metadata headers exceed the maximum allowed metadata size"
        raise ClientFault("MetadataTooLarge", 400, text, {"Size": size, "MaxSizeAllowed": METADATA})
    refuse_customer_keys(params)


def refuse_customer_keys(params: Params) -> None:
    if any(params.get(name) for name in _CUSTOMER_KEYS):
        raise ClientFault("NotImplemented", 501, "Lambent does not encrypt objects with keys of the customer's.")


def body(params: Params) -> tuple[AsyncIterator[bytes], Mapping[str, str] | None]:
    """The bytes, and what will hold the trailers once they have been read (``None``: there cannot be any)."""
    body = params.get("Body")
    if isinstance(body, BodyStream):
        if body.length is not None and body.length > MAX_PART:
            raise entity_too_large(MAX_PART)
        return aiter(body), body.trailers

    async def once() -> AsyncIterator[bytes]:
        yield body or b""

    return once(), None


def headers(params: Params) -> dict[str, str]:
    """The headers that are kept with an object. ``aws-chunked`` is of the transport and not of the content."""
    kept = {name: str(params[name]) for name in _KEPT if params.get(name)}
    codings = [each.strip() for each in kept.pop("ContentEncoding", "").split(",")]
    coding = ",".join(each for each in codings if each and each != "aws-chunked")
    return {**kept, "ContentEncoding": coding} if coding else kept


def header_tags(params: Params) -> dict[str, str]:
    given = parse_qsl(params.get("Tagging") or "", keep_blank_values=True)
    tags = dict(given)
    check_tags(tags, len(given), 10)
    return tags


def conditions(params: Params) -> Conditions:
    return Conditions((params.get("IfMatch") or "").strip('"'), (params.get("IfNoneMatch") or "").strip('"'))


def copy_source(params: Params) -> tuple[str, str, str]:
    """Bucket, key and version id of ``x-amz-copy-source``."""
    text = params["CopySource"]
    path, _, query = text.partition("?")
    name, _, key = unquote(path).removeprefix("/").partition("/")
    if not name or not key:
        raise invalid_argument("x-amz-copy-source", text, "Copy Source must mention the source bucket and key: sourcebucket/sourcekey")
    return name, key, dict(parse_qsl(query)).get("versionId", "")


def part_number(params: Params) -> int:
    number: int = params["PartNumber"]
    if not 1 <= number <= MAX_PARTS:
        raise invalid_argument("partNumber", number, f"Part number must be an integer between 1 and {MAX_PARTS}, inclusive")
    return number


def number(params: Params, name: str, default: int) -> int:
    value = params.get(name)
    number = default if value in (None, "") else int(str(value)) if str(value).isdigit() else -1
    if number < 0:
        raise invalid_argument(name, value, f"Argument {name} must be an integer between 0 and 2147483647")
    return number


def asked(params: Params, after: str) -> Asked:
    most = min(number(params, "MaxKeys", PAGE), PAGE)
    return Asked(params["Bucket"], params.get("Prefix") or "", params.get("Delimiter") or "", after, most)


def read_token(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, UnicodeError) as error:
        raise invalid_argument("continuation-token", token, "The continuation token provided is incorrect") from error


# -- to answers ---------------------------------------------------------------------------------------------------------------------------


def quoted(etag: str) -> str:
    return f'"{etag}"'


def speller(params: Params) -> Any:
    """How keys are written: as they are, or with ``encoding-type=url`` so that any of them can stand in XML."""
    return (lambda text: quote(text, safe="/")) if params.get("EncodingType") == "url" else (lambda text: text)


def echo(params: Params, asked: Asked, spell: Any) -> dict[str, Any]:
    shown: dict[str, Any] = {"Prefix": spell(asked.prefix), "MaxKeys": asked.limit}
    if asked.delimiter:
        shown["Delimiter"] = spell(asked.delimiter)
    if params.get("EncodingType"):
        shown["EncodingType"] = params["EncodingType"]
    return shown


def entry(version: Version, spell: Any, owner: str) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "Key": spell(version.key),
        "LastModified": version.modified,
        "ETag": quoted(version.etag),
        "Size": version.size,
        "StorageClass": version.headers.get("StorageClass", "STANDARD"),
    }
    algorithms = [name.removeprefix("Checksum") for name in version.checksums]
    if algorithms:
        shown |= {"ChecksumAlgorithm": algorithms, "ChecksumType": "FULL_OBJECT"}
    return shown | ({"Owner": owner_of(owner)} if owner else {})


def version_entry(version: Version, is_latest: bool, spell: Any, account: str) -> dict[str, Any]:
    return {**entry(version, spell, account), "VersionId": version.id, "IsLatest": is_latest}


def marker_entry(version: Version, is_latest: bool, spell: Any, account: str) -> dict[str, Any]:
    return {
        "Key": spell(version.key),
        "VersionId": version.id,
        "IsLatest": is_latest,
        "LastModified": version.modified,
        "Owner": owner_of(account),
    }


def deleted(gone: Version | None, asked_for: str | None) -> dict[str, Any]:
    if gone is None:
        return {"VersionId": asked_for} if asked_for else {}
    return {"VersionId": gone.id, **({"DeleteMarker": True} if gone.is_marker else {})}


def encryption(version: Version) -> dict[str, Any]:
    return {name: version.headers[name] for name in ("ServerSideEncryption", "SSEKMSKeyId") if name in version.headers}


def encryption_asked(params: Params) -> dict[str, str]:
    return {name: params[name] for name in ("ServerSideEncryption", "SSEKMSKeyId") if params.get(name)}


def part_checksums(part: Part) -> dict[str, str]:
    return {f"Checksum{name}": value for name, value in part.checksums.items()}


def check_tags(tags: dict[str, str], count: int, most: int) -> None:
    """Raises 400 ``InvalidTag`` or ``BadRequest``."""
    if len(tags) != count:
        raise ClientFault("InvalidTag", 400, "Cannot provide multiple Tags with the same key")
    if count > most:
        raise ClientFault("BadRequest", 400, f"Object tags cannot be greater than {most}")
    for key, value in tags.items():
        if not key or len(key) > 128:
            raise ClientFault("InvalidTag", 400, "The TagKey you have provided is invalid", {"TagKey": key})
        if len(value) > 256:
            raise ClientFault("InvalidTag", 400, "The TagValue you have provided is invalid", {"TagKey": key, "TagValue": value})


def owner_of(account: str) -> dict[str, str]:
    return {"ID": _canonical_id(account)}


def owner_only(account: str) -> dict[str, Any]:
    """The access control list of everything here."""
    grantee = {"Type": "CanonicalUser", "ID": _canonical_id(account)}
    return {"Owner": owner_of(account), "Grants": [{"Grantee": grantee, "Permission": "FULL_CONTROL"}]}


def _canonical_id(account: str) -> str:
    """An account's canonical user id: opaque, 64 hex digits."""
    return hashlib.sha256(f"lambent canonical user {account}".encode()).hexdigest()
