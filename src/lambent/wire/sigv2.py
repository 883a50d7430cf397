"""Presigned S3 URLs in the old form, AWS Signature Version 2, which botocore still makes unless it is told otherwise.

    ?AWSAccessKeyId=<key>&Signature=<base64 HMAC-SHA1>&Expires=<epoch seconds>

Only queries are read, never headers: everything else has been signed with version 4 for ten years.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import parse_qsl, unquote

from lambent.wire.http import HttpRequest
from lambent.wire.sigv4 import BadSignature, Signature

_SUBRESOURCES = frozenset(
    {
        "acl",
        "cors",
        "delete",
        "lifecycle",
        "location",
        "logging",
        "notification",
        "partNumber",
        "policy",
        "requestPayment",
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
        "restore",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versionId",
        "versioning",
        "versions",
        "website",
    }
)


def read_signature_v2(request: HttpRequest) -> Signature | None:
    """The signature in the query of ``request``, unverified; ``None`` where there is none."""
    if "AWSAccessKeyId=" not in request.query or "Signature=" not in request.query:
        return None
    fields = dict(parse_qsl(request.query, keep_blank_values=True))
    found = Signature("v2", "AWS2", "", "", fields.get("Signature", ""), "", fields.get("Expires", ""))
    found.access_key, found.service = fields.get("AWSAccessKeyId", ""), "s3"
    return found


def verify_v2(request: HttpRequest, signature: Signature, secret: str, now: float) -> None:
    """Check signature and expiry; ``now`` in epoch seconds. Raises ``BadSignature``."""
    expires = signature.expires
    if not (expires.isascii() and expires.isdigit() and len(expires) < 13):
        raise BadSignature("AccessDenied", "Invalid date (should be seconds since epoch): " + expires[:32], "s3")
    wanted = base64.b64encode(hmac.digest(secret.encode(), string_to_sign(request, expires), hashlib.sha1)).decode()
    if not hmac.compare_digest(wanted.encode(), signature.signature.encode()):
        text = "The request signature we calculated does not match the signature you provided. Check your key and signing method."
        raise BadSignature("SignatureDoesNotMatch", text, "s3")
    if now > int(expires):
        raise BadSignature("AccessDenied", "Request has expired", "s3")


def string_to_sign(request: HttpRequest, expires: str) -> bytes:
    headers = request.headers
    amazon = "".join(f"{name}:{value.strip()}\n" for name, value in sorted(headers.items()) if name.startswith("x-amz-"))
    pairs = sorted(part for part in request.query.split("&") if part.partition("=")[0] in _SUBRESOURCES)
    resource = request.path + ("?" + "&".join(unquote(part) for part in pairs) if pairs else "")
    start = (request.method, headers.get("content-md5", ""), headers.get("content-type", ""), expires)
    return ("\n".join(start) + "\n" + amazon + resource).encode()
