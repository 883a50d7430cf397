"""Framed log records: how a runtime hands over records that stay whole, with their level and their time (contract 03 §8).

A runtime finds a descriptor in ``_LAMBDA_TELEMETRY_LOG_FD`` and writes frames to it:

    type    u32 BE   0xa55a00 and a byte: level in bits 2 to 4, 2 for JSON or 3 for text below; 1 is the old frame without a time
    length  u32 BE   of the record
    time    u64 BE   microseconds since the epoch
    record  UTF-8, line feeds allowed

Here that descriptor is the same pipe as standard output. So what is printed and what is logged stay in the order in which they happened,
nothing more has to be read, and the two cannot be mistaken: no frame begins like UTF-8 text, where 0xa5 can only continue a character.

``RecordReader`` takes the pipe's bytes apart. A frame in the middle of a line leaves the line as it is; it goes on behind the frame.

**Bounds.** Whoever writes here is user code. A record of more than 262,144 bytes is cut into several; a frame that was announced and never
finished ends with the invocation (``flush``), whatever length it claims.
"""

from __future__ import annotations

from lambent.observe.log_lines import LINE_LIMIT, LineSplitter

MAGIC = b"\xa5\x5a\x00"
_OLD, _OLD_HEADER, _HEADER = 1, 8, 16
_TYPES = {_OLD, *(level << 2 | form for level in range(7) for form in (2, 3))}

Record = tuple[str, int, int]
"""Text that ends with a line feed (unless it was cut), its level (0: not told), its time in epoch milliseconds (0: not told)."""


class RecordReader:
    """Bytes in, records out: frames, and whole lines of what is not framed."""

    __slots__ = ("_frame", "_held", "_left", "_level", "_limit", "_splitter", "_time")

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._splitter = LineSplitter(limit)
        self._held = b""  # what may become the header of a frame
        self._frame = bytearray()
        self._left = 0  # bytes of the frame that are to come
        self._level = self._time = 0

    def feed(self, data: bytes) -> list[Record]:
        """What ``data`` completes."""
        if not self._left and not self._held and b"\xa5" not in data:
            return [(line, 0, 0) for line in self._splitter.feed(data)]
        data = self._held + data
        self._held = b""
        records: list[Record] = []
        at = 0
        while at < len(data):
            at = self._take_frame(data, at, records) if self._left else self._take_text(data, at, records)
        return records

    def flush(self) -> list[Record]:
        """What was begun and not finished, as it is. A frame is over with that."""
        records: list[Record] = []
        if self._left:
            self._left = 0
            self._end_frame(records)
        held, self._held = self._held, b""
        lines = [*self._splitter.feed(held), *self._splitter.flush()]
        return [*records, *((line, 0, 0) for line in lines)]

    def _take_frame(self, data: bytes, at: int, records: list[Record]) -> int:
        taken = min(self._left, self._limit - len(self._frame), len(data) - at)
        self._frame += data[at : at + taken]
        self._left -= taken
        if not self._left or len(self._frame) >= self._limit:
            self._end_frame(records)
        return at + taken

    def _end_frame(self, records: list[Record]) -> None:
        frame = self._frame
        edge = _boundary(frame) if self._left else len(frame)  # one of several pieces is never cut inside a character
        frame, self._frame = frame[:edge], frame[edge:]
        text = frame.decode("utf-8", "replace")
        if not self._left and not text.endswith("\n"):
            text += "\n"
        records.append((text, self._level, self._time))

    def _take_text(self, data: bytes, at: int, records: list[Record]) -> int:
        """Up to the next frame, and its header."""
        start = data.find(b"\xa5", at)
        while start >= 0 and (size := _header_size(data, start)) == 0:
            start = data.find(b"\xa5", start + 1)
        if start < 0:
            self._add_lines(data[at:], records)
            return len(data)
        if start > at:
            self._add_lines(data[at:start], records)
        if len(data) - start < size:
            self._held = data[start:]
            return len(data)
        self._open_frame(data[start : start + size], records)
        return start + size

    def _open_frame(self, header: bytes, records: list[Record]) -> None:
        self._level = header[3] >> 2
        self._left = int.from_bytes(header[4:8], "big")
        self._time = int.from_bytes(header[8:16], "big") // 1000
        if not self._left:
            self._end_frame(records)

    def _add_lines(self, text: bytes, records: list[Record]) -> None:
        records.extend((line, 0, 0) for line in self._splitter.feed(text))


def _header_size(data: bytes, at: int) -> int:
    """How long the header is that may begin at ``at``; 0 if none does."""
    head = data[at : at + 4]
    if not MAGIC.startswith(head[:3]):
        return 0
    if len(head) < 4:
        return _HEADER
    return 0 if head[3] not in _TYPES else _OLD_HEADER if head[3] == _OLD else _HEADER


def _boundary(data: bytearray) -> int:
    """The last edge between two UTF-8 characters in ``data``, if one is near its end."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            break
        if byte >= 0xC0:
            need = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if back < need and len(data) > back else len(data)
    return len(data)
