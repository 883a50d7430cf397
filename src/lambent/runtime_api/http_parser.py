"""HTTP/1.1 requests out of bytes: a pure parser that a sandbox may feed with anything.

The clients of the APIs inside are few (libcurl in AWS's runtime clients, the standard clients of Go, Rust, Java and Node, ``curl`` in a
shell script), but user code may write to the same port, so the parser believes nothing. It is *pulled*: ``feed`` takes what arrived,
``next`` gives one event at a time (a ``Head``, pieces of its body, an ``End``), or ``None`` when it needs more. Whoever pulls decides when
the next request of a pipelining client is looked at, and a body that nobody wants to hold passes through piece by piece.

What it holds is bounded: a head and a set of trailers by ``MAX_HEAD`` (the header with the cause of an error alone may have 1 MB, contract
03 section 2), the line of a chunk's size by ``MAX_CHUNK_LINE``; a body is never held. There is one error, ``BadRequest``, after which the
connection cannot be understood any more. Requests that would let two readers disagree about where a request ends (both lengths given,
lengths that differ, folded headers, bare line feeds, codings other than chunked) are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum, auto

from lambent.errors import LambentError

MAX_HEAD = 1024 * 1024 + 64 * 1024
MAX_LINES = 256
MAX_CHUNK_LINE = 1024
MAX_LENGTH = 2**62

_is_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_is_target = re.compile(r"[\x21-\x7e\x80-\xff]+").fullmatch
_is_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch
_is_size = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?").fullmatch


class BadRequest(LambentError):
    """What arrived is no request that can be answered in order. ``status`` and ``text`` are for the answer; then hang up."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(slots=True)
class Head:
    """The request line and headers. Names in lower case, values as Latin-1 text; repeated headers are joined with ``", "``."""

    method: str
    path: str  # without query, scheme and host
    headers: dict[str, str]
    keep_alive: bool
    length: int | None  # of the body; ``None`` where it comes in chunks
    expects: bool = False  # the client waits for ``100 Continue``


@dataclass(slots=True)
class End:
    """The request is complete. Trailers as in ``Head.headers``."""

    trailers: dict[str, str] = field(default_factory=dict)


Event = Head | bytes | End
_NO_TRAILERS = End()


class _Part(Enum):
    HEAD = auto()
    BODY = auto()
    CHUNK_SIZE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    BROKEN = auto()


class RequestParser:
    """One connection's requests, one after the other."""

    __slots__ = ("_at", "_buffer", "_error", "_left", "_part", "_scanned")

    def __init__(self) -> None:
        self._buffer: bytes | bytearray = b""
        self._at = 0  # what lies before is done with
        self._scanned = 0  # no terminator begins before this
        self._part = _Part.HEAD
        self._left = 0
        self._error: BadRequest | None = None

    @property
    def held(self) -> int:
        """Bytes that wait to be understood."""
        return len(self._buffer) - self._at

    @property
    def at_rest(self) -> bool:
        """Whether no request is under way."""
        return self._part is _Part.HEAD and not self.held

    def feed(self, data: bytes) -> None:
        if self._part is _Part.BROKEN:
            return
        if not self._buffer:
            self._buffer = data
            return
        if isinstance(self._buffer, bytes):
            self._buffer = bytearray(self._buffer[self._at :])
        else:
            del self._buffer[: self._at]
        self._buffer += data
        self._scanned = max(0, self._scanned - self._at)
        self._at = 0

    def next(self) -> Event | None:
        """The next event, or ``None``. Raises ``BadRequest``, and the same one ever after."""
        if self._error is not None:
            raise self._error
        try:
            event = _STEPS[self._part](self)
        except BadRequest as error:
            self._error = error
            self._part = _Part.BROKEN
            self._buffer, self._at = b"", 0
            raise
        if self._at == len(self._buffer):
            self._buffer = b""
            self._at = self._scanned = 0
        return event

    # --------------------------------------------------------------------------------------------------------------- the parts

    def _head(self) -> Event | None:
        buffer = self._buffer
        while buffer.startswith(b"\r\n", self._at):  # some clients end a body with one too many
            self._at += 2
        end = buffer.find(b"\r\n\r\n", max(self._at, self._scanned))
        if end < 0:
            self._scanned = max(self._at, len(buffer) - 3)
        if (len(buffer) if end < 0 else end) - self._at > MAX_HEAD:
            raise BadRequest(431, "Request header fields too large")
        if end < 0:
            return None
        lines = bytes(buffer[self._at : end]).decode("latin-1").split("\r\n")
        self._at = self._scanned = end + 4
        head = _read_head(lines)
        if head.length is None:
            self._part = _Part.CHUNK_SIZE
        else:
            self._part = _Part.BODY
            self._left = head.length
        return head

    def _body(self) -> Event | None:
        if not self._left:
            self._part = _Part.HEAD
            return _NO_TRAILERS
        return self._piece()

    def _piece(self) -> bytes | None:
        buffer, at, left = self._buffer, self._at, self._left
        size = min(len(buffer) - at, left)
        if not size:
            return None
        self._left = left - size
        self._at = self._scanned = at + size
        if size == len(buffer) and isinstance(buffer, bytes):
            return buffer
        return bytes(buffer[at : at + size])

    def _chunk_size(self) -> Event | None:
        line = self._line(MAX_CHUNK_LINE, "The line of a chunk's size is too long")
        if line is None:
            return None
        size = _is_size(line)
        if size is None:
            raise BadRequest(400, "The size of a chunk is no number")
        self._left = int(size[1], 16)
        self._part = _Part.CHUNK if self._left else _Part.TRAILERS
        return _STEPS[self._part](self)

    def _line(self, most: int, complaint: str) -> bytes | None:
        end = self._buffer.find(b"\r\n", max(self._at, self._scanned))
        if (len(self._buffer) if end < 0 else end) - self._at > most:
            raise BadRequest(400, complaint)
        if end < 0:
            self._scanned = max(self._at, len(self._buffer) - 1)
            return None
        line = bytes(self._buffer[self._at : end])
        self._at = self._scanned = end + 2
        return line

    def _chunk(self) -> Event | None:
        if self._left:
            return self._piece()
        self._part = _Part.CHUNK_END
        return self._chunk_end()

    def _chunk_end(self) -> Event | None:
        if self.held < 2:
            return None
        if not self._buffer.startswith(b"\r\n", self._at):
            raise BadRequest(400, "A chunk is longer than its size")
        self._at += 2
        self._scanned = self._at
        self._part = _Part.CHUNK_SIZE
        return self._chunk_size()

    def _trailers(self) -> Event | None:
        buffer, at = self._buffer, self._at
        if buffer.startswith(b"\r\n", at):
            self._at = self._scanned = at + 2
            self._part = _Part.HEAD
            return _NO_TRAILERS
        end = buffer.find(b"\r\n\r\n", max(at, self._scanned))
        if (len(buffer) if end < 0 else end) - at > MAX_HEAD:
            raise BadRequest(431, "Request header fields too large")
        if end < 0:
            self._scanned = max(at, len(buffer) - 3)
            return None
        trailers = _read_fields(bytes(buffer[at:end]).decode("latin-1").split("\r\n"))
        self._at = self._scanned = end + 4
        self._part = _Part.HEAD
        return End(trailers)


_STEPS = {
    _Part.HEAD: RequestParser._head,
    _Part.BODY: RequestParser._body,
    _Part.CHUNK_SIZE: RequestParser._chunk_size,
    _Part.CHUNK: RequestParser._chunk,
    _Part.CHUNK_END: RequestParser._chunk_end,
    _Part.TRAILERS: RequestParser._trailers,
}


def _read_head(lines: list[str]) -> Head:
    parts = lines[0].split(" ")
    if len(parts) != 3:
        raise BadRequest(400, "The request line has not three parts")
    method, target, version = parts
    if not _is_token(method) or not _is_target(target) or not version.startswith("HTTP/"):
        raise BadRequest(400, "The request line is malformed")
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest(505, "HTTP version not supported")
    headers = _read_fields(lines[1:])
    connection = headers.get("connection", "").lower()
    modern = version == "HTTP/1.1"
    keep_alive = "close" not in connection if modern else "keep-alive" in connection
    expects = modern and headers.get("expect", "").lower() == "100-continue"
    return Head(method, _path(target), headers, keep_alive, _length(headers), expects)


def _read_fields(lines: list[str]) -> dict[str, str]:
    if len(lines) > MAX_LINES:
        raise BadRequest(431, "Too many header fields")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _is_token(name):
            raise BadRequest(400, "A header is malformed")
        value = value.strip(" \t")
        if not _is_value(value):
            raise BadRequest(400, "The value of a header holds control characters")
        name = name.lower()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def _path(target: str) -> str:
    if target[0] != "/":  # the absolute form that proxies are sent
        scheme, found, rest = target.partition("://")
        if found and scheme.isalpha():
            target = "/" + rest.partition("/")[2]
    return target.partition("?")[0]


def _length(headers: dict[str, str]) -> int | None:
    declared = headers.get("content-length")
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if declared is not None:
            raise BadRequest(400, "A length is given twice")
        if coding.lower() != "chunked":
            raise BadRequest(501, "Transfer coding not supported")
        return None
    if declared is None:
        return 0
    lengths = {length.strip() for length in declared.split(",")}
    length = lengths.pop()
    if lengths or not (length.isascii() and length.isdigit()) or len(length) > 19 or int(length) > MAX_LENGTH:
        raise BadRequest(400, "The length is no number")
    return int(length)
