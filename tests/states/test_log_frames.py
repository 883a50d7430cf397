"""Framed records and printed lines out of one pipe: whole, in order, bounded, whatever arrives."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambent.observe.log_frames import RecordReader

TEXT, JSON, OLD = 0xA55A0003, 0xA55A0002, 0xA55A0001


def frame(text, level=0, micros=0, kind=TEXT):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack(">IIQ", kind | level << 2, len(data), micros) + data


def read(data, limit=262_144):
    reader = RecordReader(limit)
    return reader.feed(data) + reader.flush()


@pytest.mark.parametrize(
    ("number", "level"),
    [
        (0xA55A0003, 0),
        (0xA55A000B, 2),
        (0xA55A000F, 3),
        (0xA55A0013, 4),
        (0xA55A0017, 5),
        (0xA55A001B, 6),
        (0xA55A0002, 0),
        (0xA55A000A, 2),
        (0xA55A000E, 3),
        (0xA55A0012, 4),
        (0xA55A0016, 5),
        (0xA55A001A, 6),
    ],
)
def test_the_types_of_the_contract(number, level):
    assert read(struct.pack(">IIQ", number, 5, 1_767_225_600_001_999) + b"a\nb c") == [("a\nb c\n", level, 1_767_225_600_001)]


def test_a_record_keeps_its_lines_and_its_own_line_feed():
    assert read(frame("one\ntwo\n") + frame("three")) == [("one\ntwo\n", 0, 0), ("three\n", 0, 0)]
    assert read(frame("")) == [("\n", 0, 0)]


def test_the_old_frame_has_no_time():
    assert read(struct.pack(">II", OLD, 3) + b"oldnext\n") == [("old\n", 0, 0), ("next\n", 0, 0)]


def test_prints_and_records_stay_in_order():
    data = b"one\n" + frame("two", 4) + b"three\nfo" + frame("five", 5) + b"ur\n"
    assert [record[:2] for record in read(data)] == [("one\n", 0), ("two\n", 4), ("three\n", 0), ("five\n", 5), ("four\n", 0)]


def test_what_only_looks_like_a_frame_is_text():
    for data in (b"\xa5", b"\xa5\x5a\x00", b"\xa5\x5a\x00\x04tail\n", b"\xa5\x5a\x01\x03\n", b"\xa5\xa5\x5a\n", "å¥\n".encode()):
        assert "".join(text for text, _, _ in read(data)) == data.decode("utf-8", "replace")


def test_a_record_over_the_limit_comes_in_pieces():
    pieces = read(frame("ö" * 50, 3, 5_000), limit=33)
    assert [text for text, _, _ in pieces] == ["ö" * 16, "ö" * 16, "ö" * 16, "ö" * 2 + "\n"]
    assert {(level, time) for _, level, time in pieces} == {(3, 5)}


def test_an_endless_record_ends_with_the_invocation():
    reader = RecordReader(64)
    assert reader.feed(struct.pack(">IIQ", TEXT, 0xFFFFFFFF, 0) + b"x" * 100) == [("x" * 64, 0, 0)]
    assert reader.flush() == [("x" * 36 + "\n", 0, 0)]
    assert reader.feed(b"next\n") == [("next\n", 0, 0)]


def test_a_header_that_never_came_is_what_was_printed():
    reader = RecordReader()
    assert reader.feed(b"\xa5\x5a\x00\x03\x00") == []
    assert reader.flush() == [("\ufffdZ\x00\x03\x00", 0, 0)]


_records = st.lists(st.one_of(st.text(max_size=40).map(lambda text: text.replace("\n", "") + "\n"), st.tuples(st.text(max_size=40))))


@given(_records, st.randoms(use_true_random=False))
def test_however_the_bytes_arrive(records, dice):
    data = b"".join(frame(record[0], 3, 7_000) if isinstance(record, tuple) else record.encode() for record in records)
    expected = [
        (record[0] if record[0].endswith("\n") else record[0] + "\n", 3, 7) if isinstance(record, tuple) else (record, 0, 0)
        for record in records
    ]
    reader, found, at = RecordReader(), [], 0
    while at < len(data):
        size = dice.randint(1, 20)
        found += reader.feed(data[at : at + size])
        at += size
    assert found + reader.flush() == expected


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from([b"\xa5\x5a\x00\x03", b"\xa5\x5a\x00", b"\xa5", frame("x" * 30), struct.pack(">IIQ", JSON, 20, 1)]),
        )
    )
)
def test_garbage_is_bounded_and_ends(pieces):
    reader = RecordReader(16)
    found = []
    for piece in pieces:
        found += reader.feed(piece)
        assert sum(len(text.encode()) for text, _, _ in reader.feed(b"")) == 0
    found += reader.flush()
    assert reader.flush() == []
    assert all(len(text) <= 17 for text, _, _ in found)
    assert reader.feed(b"ok\n") == [("ok\n", 0, 0)]
