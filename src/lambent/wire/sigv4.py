"""AWS Signature Version 4: who signed a request, and whether the signature is right.

``read_signature`` is cheap and never fails: in the default mode it only tells account, Region and service. ``verify`` does the whole thing
for ``auth = "signature"``: the Authorization header, presigned queries with their expiry, payload hashes (also ``UNSIGNED-PAYLOAD``), and
bodies sent as ``aws-chunked``, whose every chunk carries a signature chained to the one before it (``wire/chunked.py``).

The canonical request has one quirk: a path is encoded a second time for every service but S3, where it is taken as sent. All comparisons
take constant time. Now is passed in.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import posixpath
import re
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, unquote_plus

from lambent.errors import ClientFault
from lambent.wire.body import Unchunker
from lambent.wire.chunked import CHUNKED, Chain, is_chunked, unchunk
from lambent.wire.http import HttpRequest

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW_MOST = 900.0
EXPIRES_MOST = 604_800
UNSIGNED = "UNSIGNED-PAYLOAD"

_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. "
    "Consult the service documentation for details."
)
_HASH = re.compile(r"[0-9a-f]{64}")
_STAMP = re.compile(r"\d{8}T\d{6}Z")


class BadSignature(ClientFault):
    """A request that is not signed as it should be. ``service`` lets the answer be spelled in the caller's protocol."""

    def __init__(self, code: str, message: str, service: str | None = None, status: int = 403) -> None:
        super().__init__(code, status, message)
        self.service = service if service in ("lambda", "logs", "sts", "s3") else None


class Signature:
    """What a request says about who signed it. ``kind`` is ``header`` or ``query``; all texts are as sent and may be anything."""

    __slots__ = ("access_key", "algorithm", "date", "expires", "kind", "region", "service", "signature", "signed_headers", "timestamp")

    def __init__(
        self, kind: str, algorithm: str, credential: str, signed_headers: str, signature: str, timestamp: str, expires: str = ""
    ) -> None:
        self.kind = kind
        self.algorithm = algorithm
        parts = credential.split("/")
        if len(parts) == 5:
            self.access_key, self.date, self.region, self.service, _ = parts
        else:  # SigV4A names no Region, and some tools send a bare key
            self.access_key, self.date, self.region = parts[0], parts[1] if len(parts) > 1 else "", ""
            self.service = parts[-2] if len(parts) == 4 else ""
        self.signed_headers = signed_headers
        self.signature = signature
        self.timestamp = timestamp
        self.expires = expires

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def read_signature(request: HttpRequest) -> Signature | None:
    """The signature that ``request`` carries, unverified; ``None`` where it carries none that can be read."""
    header = request.headers.get("authorization")
    if header is not None:
        return _from_header(header, request.headers)
    if "X-Amz-Credential=" in request.query:
        fields = dict(parse_qsl(request.query, keep_blank_values=True))
        names = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Date", "X-Amz-Expires")
        return Signature("query", *(fields.get(name, "") for name in names))
    return None


def _from_header(header: str, headers: dict[str, str]) -> Signature | None:
    algorithm, _, rest = header.partition(" ")
    if not algorithm.startswith("AWS4-"):
        return None
    credential = _field(rest, "Credential=")
    if not credential:
        return None
    stamp = headers.get("x-amz-date") or headers.get("date", "")
    return Signature("header", algorithm, credential, _field(rest, "SignedHeaders="), _field(rest, "Signature="), stamp)


def _field(text: str, name: str) -> str:
    start = text.find(name)
    if start < 0:
        return ""
    start += len(name)
    end = text.find(",", start)
    return (text[start:] if end < 0 else text[start:end]).strip()


def verify(request: HttpRequest, signature: Signature, secret: str, now: float) -> bytes:
    """Check everything and give back the plain body (``aws-chunked`` taken off). ``now`` in epoch seconds. Raises ``BadSignature``."""
    _check_form(signature)
    _check_time(signature, now)
    claimed = _claimed_hash(request, signature)
    key = signing_key(secret, signature.date, signature.region, signature.service)
    if not _is_signed(canonical_request(request, signature, claimed), signature, key):
        raise _bad(signature, _MISMATCH)
    if request.stream is not None:
        signed = CHUNKED.get(claimed, False)
        chain = Chain(key, signature.timestamp, signature.scope, signature.signature) if signed else None
        expect_body(request, chain, claimed if _HASH.fullmatch(claimed) else "")
        return b""
    if _HASH.fullmatch(claimed) and not hmac.compare_digest(claimed, hashlib.sha256(request.body).hexdigest()):
        text = "The provided 'x-amz-content-sha256' header does not match what was computed."
        raise BadSignature("XAmzContentSHA256Mismatch", text, signature.service, 400)
    if claimed in CHUNKED:
        chain = Chain(key, signature.timestamp, signature.scope, signature.signature) if CHUNKED[claimed] else None
        return unchunk(request, chain)
    return unchunk(request) if is_chunked(request) else request.body


def expect_body(request: HttpRequest, chain: Chain | None = None, sha256: str = "") -> None:
    """Have the stream of ``request`` checked and taken out of ``aws-chunked`` as it is read."""
    if request.stream is not None:
        stated = request.headers.get("x-amz-content-sha256", "")
        unchunker = Unchunker(chain, stated.endswith("-PAYLOAD-TRAILER")) if is_chunked(request) else None
        request.stream.expect(sha256, unchunker)


def _is_signed(canonical: str, signature: Signature, key: bytes) -> bool:
    """Heads reach us decoded as Latin-1, so that is how their bytes come back; a client that sends Latin-1 itself may have signed UTF-8."""
    given = signature.signature.encode()
    encodings = ("ascii",) if canonical.isascii() else ("latin-1", "utf-8")
    return any(
        hmac.compare_digest(sign(key, string_to_sign(signature, canonical.encode(each, "replace"))).encode(), given) for each in encodings
    )


def _bad(signature: Signature, message: str) -> BadSignature:
    return BadSignature("InvalidSignatureException", message, signature.service)


def _check_form(signature: Signature) -> None:
    """Everything that is needed is there, in the right form."""
    complaint = ""
    if signature.algorithm != ALGORITHM:
        complaint = f"Unsupported AWS 'algorithm': '{signature.algorithm[:64]}'."
    elif not (signature.region and signature.service and signature.signature and signature.signed_headers):
        complaint = "Authorization requires 'Credential', 'Signature' and 'SignedHeaders' parameters."
    elif not _STAMP.fullmatch(signature.timestamp):
        complaint = "Authorization requires existence of either a 'X-Amz-Date' or a 'Date' header in ISO8601 basic format."
    if complaint:
        raise BadSignature("IncompleteSignatureException", complaint, signature.service, 400)
    if signature.timestamp[:8] != signature.date:
        text = f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{signature.date[:16]}'"
        raise _bad(signature, f"{text} != '{signature.timestamp[:8]}', from '{signature.timestamp}'.")
    if "host" not in signature.signed_headers.split(";"):
        raise _bad(signature, "'Host' must be a 'SignedHeader' in the AWS Authorization.")


def _check_time(signature: Signature, now: float) -> None:
    try:
        signed = datetime.strptime(signature.timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise BadSignature("IncompleteSignatureException", "No valid date in the request.", signature.service, 400) from error
    lifetime = SKEW_MOST
    if signature.kind == "query":
        digits = signature.expires
        if not (digits.isascii() and digits.isdigit() and len(digits) < 8 and 0 < int(digits) <= EXPIRES_MOST):
            raise BadSignature("IncompleteSignatureException", "X-Amz-Expires must be 1 to 604800 seconds.", signature.service, 400)
        lifetime = float(digits)
    if signed - SKEW_MOST <= now <= signed + lifetime:
        return
    if signature.service == "s3" and signature.kind == "header":
        text = "The difference between the request time and the current time is too large."
        raise BadSignature("RequestTimeTooSkewed", text, signature.service)
    moment = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}"
    if now < signed:
        raise _bad(signature, f"Signature not yet current: {signature.timestamp} is still later than {moment} + 15 min.")
    raise _bad(signature, f"Signature expired: {signature.timestamp} with {lifetime:.0f} s is now earlier than {moment}.")


def _claimed_hash(request: HttpRequest, signature: Signature) -> str:
    """The payload hash that went into the signature."""
    stated = request.headers.get("x-amz-content-sha256")
    if stated is not None:
        if stated != UNSIGNED and stated not in CHUNKED and not _HASH.fullmatch(stated):
            text = "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING-… value or a valid sha256 value."
            raise BadSignature("InvalidRequest", text, signature.service, 400)
        return stated
    if signature.kind == "query" and signature.service == "s3":
        return UNSIGNED
    if request.stream is not None:
        raise BadSignature("InvalidRequest", "Missing required header for this request: x-amz-content-sha256", signature.service, 400)
    return hashlib.sha256(request.body).hexdigest()


# -- the algorithm ------------------------------------------------------------------------------------------------------------------------


def canonical_request(request: HttpRequest, signature: Signature, payload_hash: str) -> str:
    """Method, path, query, headers, names of headers, hash: the text whose hash is signed."""
    names = signature.signed_headers.split(";")
    headers = "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in names)
    path = request.path or "/"
    if signature.service != "s3":
        path = quote(_normalized(path), safe="/~")
    return "\n".join((request.method, path, _canonical_query(request.query), headers, signature.signed_headers, payload_hash))


def _normalized(path: str) -> str:
    """Without ``.``, ``..`` and doubled slashes, as the signers do it; only the signature looks at this form."""
    if "//" not in path and "/." not in path:
        return path
    plain = posixpath.normpath("/" + path.lstrip("/"))
    return plain + "/" if path.endswith("/") and plain != "/" else plain


def _canonical_query(query: str) -> str:
    """Decoded as ``wire/parse.py`` decodes it, so that what is verified is what is read."""
    if not query:
        return ""
    pairs = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if part and name != "X-Amz-Signature":
            pairs.append((quote(unquote_plus(name), safe="-_.~"), quote(unquote_plus(value), safe="-_.~")))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def string_to_sign(signature: Signature, canonical: bytes) -> bytes:
    return "\n".join((ALGORITHM, signature.timestamp, signature.scope, hashlib.sha256(canonical).hexdigest())).encode()


@functools.lru_cache(maxsize=256)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def sign(key: bytes, text: bytes) -> str:
    return hmac.digest(key, text, "sha256").hex()
