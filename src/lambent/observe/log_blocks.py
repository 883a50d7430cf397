"""How log lines look as bytes: blocks, and the chunks that blocks are packed into. Pure.

A *block* is what one ``write`` brought: a sequence number, the time it came, and its lines. The same bytes stand in the journal, wait in
memory and end up in a chunk, so a line is encoded once in its life. Line ``n`` of a block has the sequence number ``block + n``, which
together with its timestamp is the event's *key*: unique, stable, and the order in which events are read.

A *chunk* is many blocks of one stream behind a byte that tells their packing. It spans at most ``SPAN`` of time; blocks with wilder
timestamps are taken apart first.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

SPAN = 60_000
EVENT_OVERHEAD = 26  # bytes that CloudWatch counts for every event beside its message
SEQUENCES = 10**20

_HEAD = struct.Struct("<QQI")
_LINE = struct.Struct("<qI")
_PACK_FROM = 1_024
_CHUNK_BYTES = 512 * 1024
_RAW, _ZLIB = b"\x00", b"\x01"


class Block(NamedTuple):
    """An encoded block and what an index wants to know of it. ``size`` is the bytes that CloudWatch would count."""

    data: bytes
    seq: int
    lines: int
    first_ts: int
    last_ts: int
    size: int


class Event(NamedTuple):
    """A log event. Sorts by ``key``, which is timestamp and sequence number in one; ``timestamp`` and ``ingested`` are epoch ms."""

    key: int
    timestamp: int
    ingested: int
    message: str
    size: int


class Chunk(NamedTuple):
    """A packed chunk, ready to be stored. ``ingested`` is when its last block came."""

    data: bytes
    first_seq: int
    lines: int
    first_ts: int
    last_ts: int
    size: int
    ingested: int


def key_of(timestamp: int, seq: int) -> int:
    """56 decimal digits, as CloudWatch's event ids and tokens have."""
    return timestamp * SEQUENCES + seq


def encode(seq: int, ingested: int, lines: Sequence[tuple[int, str]]) -> Block:
    """Lines as a block. What is no valid text (a lone surrogate) is replaced."""
    parts = [_HEAD.pack(seq, ingested, len(lines))]
    first = last = lines[0][0]
    size = 0
    for timestamp, message in lines:
        try:
            text = message.encode()
        except UnicodeEncodeError:
            text = message.encode("utf-8", "replace")
        parts.append(_LINE.pack(timestamp, len(text)))
        parts.append(text)
        size += len(text) + EVENT_OVERHEAD
        if timestamp < first:
            first = timestamp
        elif timestamp > last:
            last = timestamp
    return Block(b"".join(parts), seq, len(lines), first, last, size)


def decode(data: bytes) -> Iterator[Event]:
    """The events of one block or of several in a row."""
    at, end = 0, len(data)
    while at < end:
        seq, ingested, count = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        for number in range(seq, seq + count):
            timestamp, length = _LINE.unpack_from(data, at)
            at += _LINE.size
            message = data[at : at + length].decode()
            at += length
            yield Event(timestamp * SEQUENCES + number, timestamp, ingested, message, length + EVENT_OVERHEAD)


def describe(data: bytes) -> Block:
    """A block read back from bytes. Raises ``struct.error`` or ``UnicodeDecodeError`` where they are none."""
    events = list(decode(data))
    stamps = [event.timestamp for event in events]
    return Block(data, events[0].key % SEQUENCES, len(events), min(stamps), max(stamps), sum(event.size for event in events))


def pack(blocks: Iterable[Block]) -> Iterator[Chunk]:
    """Blocks of one stream as chunks, each bounded in time and bytes."""
    held: list[Block] = []
    first = last = size = 0
    for block in chain.from_iterable(map(_pieces, blocks)):
        if held:
            low, high = min(first, block.first_ts), max(last, block.last_ts)
            if high - low <= SPAN and size < _CHUNK_BYTES:
                first, last, size = low, high, size + len(block.data)
                held.append(block)
                continue
            yield _chunk(held, first, last)
        held, first, last, size = [block], block.first_ts, block.last_ts, len(block.data)
    if held:
        yield _chunk(held, first, last)


def unpack(data: bytes) -> Iterator[Event]:
    """The events of a chunk, in the order in which they came."""
    return decode(zlib.decompress(data[1:]) if data[:1] == _ZLIB else data[1:])


def _pieces(block: Block) -> Iterator[Block]:
    """The block itself, or where it spans too much time, runs of its lines that do not."""
    if block.last_ts - block.first_ts <= SPAN:
        yield block
        return
    run: list[Event] = []
    low = high = 0
    for event in decode(block.data):
        stamp = event.timestamp
        if run and max(high, stamp) - min(low, stamp) > SPAN:
            yield _run(run)
            run = []
        low, high = (min(low, stamp), max(high, stamp)) if run else (stamp, stamp)
        run.append(event)
    yield _run(run)


def _run(events: list[Event]) -> Block:
    return encode(events[0].key % SEQUENCES, events[0].ingested, [(event.timestamp, event.message) for event in events])


def _chunk(blocks: list[Block], first: int, last: int) -> Chunk:
    data = b"".join([block.data for block in blocks])
    packed = _ZLIB + zlib.compress(data, 1) if len(data) >= _PACK_FROM else _RAW + data
    _, ingested, _ = _HEAD.unpack_from(blocks[-1].data)
    lines = sum(block.lines for block in blocks)
    return Chunk(packed, blocks[0].seq, lines, first, last, sum(block.size for block in blocks), ingested)
