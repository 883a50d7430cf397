"""AWS event-stream frames (contract 02 §3), both ways and without I/O.

    frame   = total length u32, headers length u32, CRC-32 of those 8 bytes, headers, payload, CRC-32 of everything before it
    header  = name length u8, name, type u8, value; a text value (type 7) is length u16, bytes

Everything is big-endian. ``encode`` writes text headers, the only kind that our events have; ``Decoder`` reads all ten kinds, takes
bytes in any portions and gives back whole messages.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

from lambent.errors import LambentError

_PRELUDE = struct.Struct(">II")
_CRC = struct.Struct(">I")
_OVERHEAD = 16
_TEXT = 7
_HEADERS_MOST = 128 * 1024
_FRAME_MOST = 24 * 1024 * 1024
_FIXED = {2: struct.Struct(">b"), 3: struct.Struct(">h"), 4: struct.Struct(">i"), 5: struct.Struct(">q"), 8: struct.Struct(">q")}


class BadFrame(LambentError):
    """Bytes that are no event stream: a wrong checksum, an impossible length, an unknown header type."""


@dataclass(frozen=True, slots=True)
class Message:
    """One frame. Header values are ``str``, ``bytes``, ``int`` (timestamps: milliseconds), ``bool`` or ``UUID``."""

    headers: dict[str, Any]
    payload: bytes


def encode(headers: Mapping[str, str], payload: bytes = b"") -> bytes:
    """One frame. Raises ``BadFrame`` for a header that does not fit."""
    return _frame(_block(headers), payload)


def _block(headers: Mapping[str, str]) -> bytes:
    block = bytearray()
    for name, value in headers.items():
        key, text = name.encode(), value.encode()
        if not 0 < len(key) < 256 or len(text) > 32_767:
            raise BadFrame(f"header {name[:64]!r} does not fit")
        block += bytes((len(key),)) + key + struct.pack(">BH", _TEXT, len(text)) + text
    return bytes(block)


def _frame(block: bytes, payload: bytes) -> bytes:
    prelude = _PRELUDE.pack(len(block) + len(payload) + _OVERHEAD, len(block))
    start = prelude + _CRC.pack(zlib.crc32(prelude)) + block
    return b"".join((start, payload, _CRC.pack(zlib.crc32(payload, zlib.crc32(start)))))


def event(event_type: str, content_type: str, payload: bytes = b"") -> bytes:
    """An event frame as AWS's services send it."""
    return _frame(_event_block(event_type, content_type), payload)


@cache
def _event_block(event_type: str, content_type: str) -> bytes:
    """The model's names only, so there are few."""
    return _block({":event-type": event_type, ":content-type": content_type, ":message-type": "event"})


class Decoder:
    """Feed bytes as they come; whole messages come out. After ``BadFrame`` the stream is lost and the decoder with it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Raises ``BadFrame``."""
        self._buffer += data
        messages = []
        while (message := self._next()) is not None:
            messages.append(message)
        return messages

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete yet; not 0 at the end of a stream means that it was cut."""
        return len(self._buffer)

    def _next(self) -> Message | None:
        buffer = self._buffer
        if len(buffer) < 12:
            return None
        total, head = _PRELUDE.unpack_from(buffer)
        if _CRC.unpack_from(buffer, 8)[0] != zlib.crc32(buffer[:8]):
            raise BadFrame("prelude checksum mismatch")
        if total > _FRAME_MOST or head > _HEADERS_MOST or total < head + _OVERHEAD:
            raise BadFrame(f"impossible lengths: frame {total}, headers {head}")
        if len(buffer) < total:
            return None
        frame = bytes(buffer[:total])
        del buffer[:total]
        if _CRC.unpack_from(frame, total - 4)[0] != zlib.crc32(frame[:-4]):
            raise BadFrame("frame checksum mismatch")
        return Message(_read_headers(frame[12 : 12 + head]), frame[12 + head : -4])


def _read_headers(block: bytes) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    at = 0
    try:
        while at < len(block):
            end = at + 1 + block[at]
            name = block[at + 1 : end].decode()
            headers[name], at = _read_value(block, block[end], end + 1)
            if at > len(block):
                raise BadFrame("a header runs over the end of its block")
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise BadFrame(f"unreadable header: {error}") from error
    return headers


def _read_value(block: bytes, kind: int, at: int) -> tuple[Any, int]:
    if kind in (0, 1):
        return kind == 0, at
    if kind in _FIXED:
        form = _FIXED[kind]
        return form.unpack_from(block, at)[0], at + form.size
    if kind in (6, _TEXT):
        (length,) = struct.unpack_from(">H", block, at)
        value = block[at + 2 : at + 2 + length]
        return value if kind == 6 else value.decode(), at + 2 + length
    if kind == 9:
        if at + 16 > len(block):
            raise BadFrame("a header runs over the end of its block")
        return UUID(bytes=block[at : at + 16]), at + 16
    raise BadFrame(f"unknown header type {kind}")
