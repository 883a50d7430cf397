"""The frame protocol: how the node and a runtime client talk over an inherited socket.

The Runtime API over HTTP (contract 03 §2) costs two round trips and two parses an invocation. Lambent's own runtime clients speak the
same conversation in frames, over one stream socket that the sandbox inherits:

    runtime                         node
      ── NEXT ───────────────────▶          "init is over" the first time, "ready again" afterwards
      ◀────────────────── INVOKE ──
      ── RESPONSE or ERROR ──────▶          usually in one write with the NEXT that follows
      ── INIT_ERROR ─────────────▶          instead of the first NEXT; the process ends afterwards

A response that is streamed is RESPONSE_START, any number of CHUNKs, and RESPONSE_END in the place of RESPONSE. The runtime writes chunks
as they come; a slow receiver makes its writes block, since the node reads no more than it can pass on.

A frame is ``type u8 · head length u32 · body length u32`` (big-endian), the head, the body. The head is UTF-8 text: fixed fields in a fixed
order, one a line; only the last may hold line feeds. Every frame of an invocation repeats the *token*, the lease epoch that the node
chose: an answer with a stale token comes from an attempt that has timed out, and is refused.

The node trusts nothing that arrives here, since user code shares the process with the client: ``FrameReader`` is a pure parser that bounds
what it holds. A body over the cap is counted and thrown away, not stored.

| type | fields of the head | body |
|---|---|---|
| INVOKE | token, request id, deadline (epoch ms), function ARN as addressed, trace, tenant, Cognito identity, client context | the event |
| NEXT | (none) | (none) |
| RESPONSE | token, request id, content type | the answer |
| ERROR | token, request id, error type, X-Ray cause | the error payload, JSON |
| INIT_ERROR | error type | the error payload, JSON |
| RESPONSE_START | token, request id, content type | (none) |
| CHUNK | token | bytes of the answer, at most 1 MB |
| RESPONSE_END | token, request id, error type (empty: all is well) | the error payload, JSON, if there is an error type |
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from lambent.errors import LambentError

HEADER = struct.Struct(">BII")
MAX_HEAD = 2 * 1024 * 1024
MAX_CHUNK = 1024 * 1024
MAX_CHUNK_HEAD = 64


class FrameType(IntEnum):
    """The first byte of a frame."""

    INVOKE = 0x01
    NEXT = 0x11
    RESPONSE = 0x12
    ERROR = 0x13
    INIT_ERROR = 0x14
    RESPONSE_START = 0x15
    CHUNK = 0x16
    RESPONSE_END = 0x17


_CHUNK = int(FrameType.CHUNK)
_MAX_HEADS = {
    int(FrameType.NEXT): MAX_HEAD,
    int(FrameType.RESPONSE): MAX_HEAD,
    int(FrameType.ERROR): MAX_HEAD,
    int(FrameType.INIT_ERROR): MAX_HEAD,
    int(FrameType.RESPONSE_START): MAX_HEAD,
    _CHUNK: MAX_CHUNK_HEAD,
    int(FrameType.RESPONSE_END): MAX_HEAD,
}
"""What a runtime may send, and how long the head of each may be."""


class BadFrame(LambentError):
    """The peer broke the protocol; its environment is beyond trust and must be replaced."""


@dataclass(slots=True)
class Frame:
    """A frame from the runtime. ``oversize`` is the true body length where the body exceeded the cap and was dropped, else 0."""

    type: int
    head: str
    body: bytes
    oversize: int = 0


def encode(kind: int, head: str = "", body: bytes = b"") -> bytes:
    """One frame as bytes."""
    encoded = head.encode()
    return HEADER.pack(kind, len(encoded), len(body)) + encoded + body


def encode_invoke(
    token: int,
    request_id: str,
    deadline_ms: int,
    arn: str,
    trace: str,
    event: bytes,
    tenant: str = "",
    cognito: str = "",
    client_context: str = "",
) -> bytes:
    """An INVOKE frame."""
    head = f"{token}\n{request_id}\n{deadline_ms}\n{arn}\n{trace}\n{tenant}\n{cognito}\n{client_context}".encode()
    return HEADER.pack(FrameType.INVOKE, len(head), len(event)) + head + event


class FrameReader:
    """Bytes in, frames out. ``body_cap`` bounds what a body may hold; larger ones come out empty with ``oversize`` set.

    A chunk has a bound of its own, ``MAX_CHUNK``, and one beyond it is a violation: the peer chooses how it cuts its stream.
    """

    __slots__ = ("_body_cap", "_buffer", "_skip", "_skipped")

    def __init__(self, body_cap: int) -> None:
        self._body_cap = body_cap
        self._buffer = bytearray()
        self._skip = 0
        self._skipped: Frame | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """Take what arrived and give the frames that it completes. Raises ``BadFrame``."""
        frames: list[Frame] = []
        if self._buffer or self._skip:
            self._buffer += data
            data = b""
        offset = 0
        view: bytes | bytearray = data if data else self._buffer
        size = len(view)
        while True:
            if self._skip:
                dropped = min(self._skip, size - offset)
                offset += dropped
                self._skip -= dropped
                if self._skip:
                    break
                assert self._skipped is not None
                frames.append(self._skipped)
                self._skipped = None
            if size - offset < HEADER.size:
                break
            kind, head_length, body_length = HEADER.unpack_from(view, offset)
            if head_length > _MAX_HEADS.get(kind, -1):
                raise BadFrame(f"frame type {kind} with a head of {head_length} bytes")
            if kind == _CHUNK and body_length > MAX_CHUNK:
                raise BadFrame(f"a chunk of {body_length} bytes")
            start = offset + HEADER.size
            if body_length > self._body_cap and kind != _CHUNK:
                if size - start < head_length:
                    break
                head = bytes(view[start : start + head_length])
                self._skipped = Frame(kind, _text(head), b"", body_length)
                self._skip = body_length
                offset = start + head_length
                continue
            end = start + head_length + body_length
            if size < end:
                break
            head = bytes(view[start : start + head_length])
            frames.append(Frame(kind, _text(head), bytes(view[start + head_length : end])))
            offset = end
        if data:
            if offset < size:
                self._buffer += data[offset:]
        elif offset:
            del self._buffer[:offset]
        return frames


def _text(head: bytes) -> str:
    try:
        return head.decode()
    except UnicodeDecodeError as error:
        raise BadFrame("a head that is not UTF-8") from error
