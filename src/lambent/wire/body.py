"""Request bodies that are read as they come, for the few operations whose bodies are too large to hold.

The server gives such a request to the request path when its head is there; ``BodyStream`` is what the operation reads. What is known
about the body only once all of it has passed (its hash, the signatures of its chunks, its length, the checksums behind it) is checked on
the way, and a failed check raises in the reader. So whoever reads to the end without an exception has what the client meant to send.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import AsyncIterator

from lambent.errors import ClientFault
from lambent.wire.chunked import Chain

_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})(?:;chunk-signature=([0-9a-f]{64}))?[^\r\n]{0,256}")
_EMPTY = hashlib.sha256(b"").hexdigest()
_LINE_MOST, _TRAILERS_MOST = 8_192, 32


class Unchunker:
    """``aws-chunked`` taken off piece by piece (``wire/chunked.py`` has the form). With ``chain`` every chunk must be signed."""

    def __init__(self, chain: Chain | None, trailer_is_signed: bool) -> None:
        self._chain = chain
        self._trailer_is_signed = trailer_is_signed
        self._held = b""
        self._left = -1  # bytes of the chunk still to come; -1: its size comes next
        self._claimed = ""
        self._digest = hashlib.sha256()
        self._in_trailers = False
        self._lines = b""
        self._trailer_claim = ""
        self.trailers: dict[str, str] = {}

    def feed(self, data: bytes) -> list[bytes]:
        """The plain bytes in ``data``. Raises ``ClientFault``."""
        self._held += data
        plain: list[bytes] = []
        while self._step(plain):
            pass
        return plain

    def finish(self) -> None:
        """The body has ended. Raises ``ClientFault`` where it ends too early."""
        if not self._in_trailers or self._held.strip(b"\r\n"):
            raise _broken("it ends within a chunk")
        if self._chain is not None and (self._lines or self._trailer_is_signed):
            self._chain.check_trailers(self._lines, self._trailer_claim)

    def _step(self, plain: list[bytes]) -> bool:
        if self._left > 0:
            piece, self._held = self._held[: self._left], self._held[self._left :]
            if not piece:
                return False
            self._left -= len(piece)
            if self._chain is not None:
                self._digest.update(piece)
            plain.append(piece)
            return True
        line = self._line()
        if line is None:
            return False
        if self._left == 0:  # the line end behind a chunk
            if line:
                raise _broken("a chunk is longer than it says")
            self._end_chunk()
            self._left = -1
        elif self._in_trailers:
            self._take_trailer(line)
        else:
            self._begin_chunk(line)
        return True

    def _line(self) -> bytes | None:
        end = self._held.find(b"\r\n", 0, _LINE_MOST)
        if end < 0:
            if len(self._held) >= _LINE_MOST:
                raise _broken("a line does not end")
            return None
        line, self._held = self._held[:end], self._held[end + 2 :]
        return line

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE.fullmatch(line)
        if match is None:
            raise _broken("a chunk has no size")
        self._left = int(match[1], 16)
        self._claimed = (match[2] or b"").decode()
        if self._left == 0:
            self._in_trailers = True
            self._left = -1
            self._end_chunk()

    def _end_chunk(self) -> None:
        if self._chain is not None:
            self._chain.check_digest(self._digest.hexdigest(), self._claimed)
            self._digest = hashlib.sha256()

    def _take_trailer(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name.lower() == b"x-amz-trailer-signature":
            self._trailer_claim = value.strip().decode("latin-1")
        elif line and len(self.trailers) < _TRAILERS_MOST:
            self._lines += name.lower() + b":" + value.strip() + b"\n"
            self.trailers[name.decode("latin-1").lower()] = value.strip().decode("latin-1")


class BodyStream:
    """The body of one request. ``length`` is that of the plain body where the client said it, else ``None``.

    ``async for`` gives the plain bytes, once. ``trailers`` holds what came behind them, when they have been read.
    """

    def __init__(self, source: AsyncIterator[bytes], length: int | None) -> None:
        self._source = source
        self.length = length
        self._sha256 = ""
        self._unchunker: Unchunker | None = None

    def expect(self, sha256: str, unchunker: Unchunker | None) -> None:
        """Check the body against its hash in hex (``""``: not said), and take ``aws-chunked`` off it."""
        self._sha256 = sha256
        self._unchunker = unchunker

    @property
    def trailers(self) -> dict[str, str]:
        return self._unchunker.trailers if self._unchunker is not None else {}

    async def read(self, limit: int) -> bytes:
        """All of it. Raises 400 ``MaxMessageLengthExceeded`` above ``limit`` bytes."""
        pieces, size = [], 0
        async for piece in self:
            size += len(piece)
            if size > limit:
                raise ClientFault("MaxMessageLengthExceeded", 400, "Your request was too big.")
            pieces.append(piece)
        return b"".join(pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        digest = hashlib.sha256() if self._sha256 else None
        size = 0
        async for data in self._source:
            for piece in self._unchunker.feed(data) if self._unchunker is not None else (data,):
                if digest is not None:
                    digest.update(piece)
                size += len(piece)
                yield piece
        if self._unchunker is not None:
            self._unchunker.finish()
        if digest is not None and not hmac.compare_digest(digest.hexdigest(), self._sha256):
            text = "The provided 'x-amz-content-sha256' header does not match what was computed."
            raise ClientFault("XAmzContentSHA256Mismatch", 400, text)
        if self.length is not None and size != self.length:
            text = f"{size} bytes came where {self.length} were announced"
            raise _broken(text)


def _broken(what: str) -> ClientFault:
    return ClientFault("IncompleteBody", 400, f"The request body is not what was announced: {what}.")
