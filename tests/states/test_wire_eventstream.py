"""Event-stream frames: ours read by botocore, botocore's format read by us, and nothing but BadFrame on garbage."""

from __future__ import annotations

import struct
import uuid
import zlib

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from lambent.wire.eventstream import BadFrame, Decoder, Message, encode, event

NAMES = st.text(min_size=1, max_size=60)
HEADERS = st.dictionaries(NAMES, st.text(max_size=200), max_size=6)


@given(HEADERS, st.binary(max_size=3000))
def test_botocore_reads_what_we_write(headers, payload):
    buffer = EventStreamBuffer()
    buffer.add_data(encode(headers, payload))
    [message] = list(buffer)
    assert (message.headers, message.payload) == (headers, payload)


@given(st.lists(st.tuples(HEADERS, st.binary(max_size=500)), max_size=5), st.data())
def test_any_cut_of_the_stream_gives_the_same_messages(messages, data):
    stream = b"".join(encode(headers, payload) for headers, payload in messages)
    decoder, got, at = Decoder(), [], 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        got += decoder.feed(stream[at : at + step])
        at += step
    assert got == [Message(headers, payload) for headers, payload in messages]
    assert decoder.pending == 0


def framed(block: bytes, payload: bytes = b"") -> bytes:
    prelude = struct.pack(">II", len(block) + len(payload) + 16, len(block))
    start = prelude + struct.pack(">I", zlib.crc32(prelude)) + block + payload
    return start + struct.pack(">I", zlib.crc32(start))


def test_all_ten_header_types_are_read():
    identity = uuid.uuid4()
    block = (
        b"\x01t\x00"
        + b"\x01f\x01"
        + b"\x01b\x02\xff"
        + b"\x01s\x03\xff\xfe"
        + b"\x01i\x04\x00\x00\x00\x05"
        + b"\x01l\x05"
        + struct.pack(">q", -6)
    )
    block += (
        b"\x01B\x06\x00\x02\x00\xff"
        + b"\x01S\x07\x00\x02hi"
        + b"\x01T\x08"
        + struct.pack(">q", 1_700_000_000_000)
        + b"\x01u\x09"
        + identity.bytes
    )
    [message] = Decoder().feed(framed(block, b"p"))
    assert message.headers == {
        "t": True,
        "f": False,
        "b": -1,
        "s": -2,
        "i": 5,
        "l": -6,
        "B": b"\x00\xff",
        "S": "hi",
        "T": 1_700_000_000_000,
        "u": identity,
    }
    theirs = EventStreamBuffer()
    theirs.add_data(framed(block, b"p"))
    assert set(next(theirs).headers) == set(message.headers)


@pytest.mark.parametrize(
    "frame",
    [
        framed(b"\x01x\x0a"),
        framed(b"\x05x"),
        framed(b"\x01x"),
        framed(b"\x01x\x07\x00\x09hi"),
        framed(b"\x01x\x05\x00"),
        framed(b"\x01x\x09\x00"),
        framed(b"\x01\xff\x00"),
        framed(b"\x01x\x06\x00\x09hi"),
        struct.pack(">III", 15, 0, zlib.crc32(struct.pack(">II", 15, 0))),
        struct.pack(">III", 2**31, 0, zlib.crc32(struct.pack(">II", 2**31, 0))),
        struct.pack(">III", 20, 8, zlib.crc32(struct.pack(">II", 20, 8))),
    ],
)
def test_bad_frames(frame):
    with pytest.raises(BadFrame):
        Decoder().feed(frame)


@given(st.binary(max_size=200), st.integers(0, 150), st.integers(1, 255))
def test_a_flipped_byte_never_passes(payload, where, flip):
    frame = bytearray(event("PayloadChunk", "application/octet-stream", payload))
    frame[where % len(frame)] ^= flip
    with pytest.raises(BadFrame):
        Decoder().feed(bytes(frame))


@given(st.binary(max_size=300))
def test_garbage_is_refused_or_waited_for(data):
    decoder = Decoder()
    try:
        assert decoder.feed(data) == []
        assert decoder.pending == len(data) < 12
    except BadFrame:
        pass


@pytest.mark.parametrize("headers", [{"": "x"}, {"n" * 256: "x"}, {"n": "x" * 32_768}])
def test_headers_that_do_not_fit_are_refused(headers):
    with pytest.raises(BadFrame):
        encode(headers)
