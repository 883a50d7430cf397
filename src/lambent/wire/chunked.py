"""Bodies sent as ``aws-chunked``: sized chunks, each with a signature that chains to the one before it, then trailers.

    10000;chunk-signature=<64 hex>\\r\\n<65536 bytes>\\r\\n ... 0;chunk-signature=<64 hex>\\r\\n[name:value\\r\\n]\\r\\n

With ``STREAMING-UNSIGNED-PAYLOAD-TRAILER`` (what newer SDKs send over TLS) there are no chunk signatures, only trailers. Trailing
checksums are read past, not computed: nothing behind the wire asks for them.
"""

from __future__ import annotations

import hashlib
import hmac
import re

from lambent.errors import ClientFault
from lambent.wire.http import HttpRequest

CHUNKED = {
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD": True,
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER": True,
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER": False,
}
"""Values of ``x-amz-content-sha256`` that mean such a body, and whether its chunks are signed."""

_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")
_EMPTY = hashlib.sha256(b"").hexdigest()
_SIGNATURE = b"chunk-signature="
_TRAILER_SIGNATURE = b"x-amz-trailer-signature:"
_LINE_MOST = 8_192


class Chain:
    """The chain of chunk signatures; starts at the signature of the head."""

    def __init__(self, key: bytes, timestamp: str, scope: str, seed: str) -> None:
        self._key = key
        self._where = f"{timestamp}\n{scope}"
        self._previous = seed

    def check(self, data: bytes, claimed: str) -> None:
        """Raises 403 where ``claimed`` is not the signature of the next chunk ``data``."""
        self.check_digest(hashlib.sha256(data).hexdigest(), claimed)

    def check_digest(self, digest: str, claimed: str) -> None:
        """``check`` for a chunk whose SHA-256 is known already."""
        self._link("AWS4-HMAC-SHA256-PAYLOAD", f"{_EMPTY}\n{digest}", claimed)

    def check_trailers(self, lines: bytes, claimed: str) -> None:
        self._link("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(lines).hexdigest(), claimed)

    def _link(self, algorithm: str, digest: str, claimed: str) -> None:
        text = f"{algorithm}\n{self._where}\n{self._previous}\n{digest}"
        wanted = hmac.digest(self._key, text.encode(), "sha256").hex()
        if not hmac.compare_digest(wanted.encode(), claimed.encode()):
            raise ClientFault("InvalidSignatureException", 403, "A chunk of the body does not match its signature.")
        self._previous = wanted


def is_chunked(request: HttpRequest) -> bool:
    """Does the body come as ``aws-chunked``?"""
    headers = request.headers
    return headers.get("x-amz-content-sha256") in CHUNKED or "aws-chunked" in headers.get("content-encoding", "")


def unchunk(request: HttpRequest, chain: Chain | None = None) -> bytes:
    """The plain body. With ``chain`` every chunk, and the trailer if one is announced, must be signed. Raises ``ClientFault``."""
    body, at = request.body, 0
    pieces: list[bytes] = []
    while True:
        head, at = _line(body, at)
        size_text, _, extension = head.partition(b";")
        if not _SIZE.fullmatch(size_text):
            raise _broken("a chunk has no size")
        size = int(size_text, 16)
        data = body[at : at + size]
        if len(data) != size:
            raise _broken("it ends within a chunk")
        if chain is not None:
            claimed = extension[len(_SIGNATURE) :] if extension.startswith(_SIGNATURE) else b""
            chain.check(data, claimed.decode("latin-1"))
        at += size
        if size == 0:
            break
        pieces.append(data)
        if body[at : at + 2] != b"\r\n":
            raise _broken("a chunk is longer than it says")
        at += 2
    _read_trailers(request, at, chain)
    plain = b"".join(pieces)
    stated = request.headers.get("x-amz-decoded-content-length")
    if stated is not None and stated != str(len(plain)):
        raise _broken(f"{len(plain)} bytes came where {stated[:20]} were announced")
    return plain


def _read_trailers(request: HttpRequest, at: int, chain: Chain | None) -> None:
    body, lines, claimed = request.body, b"", b""
    while at < len(body):
        line, at = _line(body, at)
        if line.lower().startswith(_TRAILER_SIGNATURE):
            claimed = line[len(_TRAILER_SIGNATURE) :].strip()
        elif line:
            name, _, value = line.partition(b":")
            lines += name.lower() + b":" + value.strip() + b"\n"
    announced = request.headers.get("x-amz-content-sha256", "").endswith("-PAYLOAD-TRAILER")
    if chain is not None and (lines or announced):
        chain.check_trailers(lines, claimed.decode("latin-1"))


def _line(body: bytes, at: int) -> tuple[bytes, int]:
    end = body.find(b"\r\n", at, at + _LINE_MOST)
    if end < 0:
        raise _broken("a line does not end")
    return body[at:end], end + 2


def _broken(what: str) -> ClientFault:
    return ClientFault("IncompleteBody", 400, f"The request body is no aws-chunked body: {what}.")
