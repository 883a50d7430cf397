"""The frame parser against every way of cutting the same bytes, and against bytes that nobody should send."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lambent.runtime_api import python_client
from lambent.runtime_api.frames import (
    HEADER,
    MAX_CHUNK,
    MAX_CHUNK_HEAD,
    MAX_HEAD,
    BadFrame,
    Frame,
    FrameReader,
    FrameType,
    encode,
    encode_invoke,
)

CAP = 64
KINDS = [kind for kind in FrameType if kind != FrameType.INVOKE]

frames = st.tuples(st.sampled_from(KINDS), st.text(max_size=15), st.binary(max_size=2 * CAP))


def expected(kind: int, head: str, body: bytes) -> Frame:
    return Frame(kind, head, body) if len(body) <= CAP or kind == FrameType.CHUNK else Frame(kind, head, b"", len(body))


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
@example([(FrameType.RESPONSE, "é", b"x" * (CAP + 1)), (FrameType.NEXT, "", b"")], [1, 10, 12, 40, 77])
def test_any_split_gives_the_same_frames(sent, cuts):
    reader = FrameReader(CAP)
    received = []
    for piece in pieces(b"".join(encode(*frame) for frame in sent), cuts):
        received += reader.feed(piece)
    assert received == [expected(*frame) for frame in sent]


@given(st.lists(frames, min_size=1, max_size=3))
def test_a_frame_comes_out_with_its_last_byte_and_not_before(sent):
    reader = FrameReader(CAP)
    for frame in sent:
        data = encode(*frame)
        for byte in data[:-1]:
            assert reader.feed(bytes([byte])) == []
        assert reader.feed(data[-1:]) == [expected(*frame)]


@given(st.integers(CAP + 1, 2**32 - 1), st.integers(1, 50))
def test_the_body_of_an_oversize_frame_is_never_held(length, chunks):
    reader = FrameReader(CAP)
    assert reader.feed(HEADER.pack(FrameType.RESPONSE, 2, length) + b"1\n") == []
    remaining = length
    for _ in range(min(chunks, length // 1_000)):
        remaining -= 1_000
        done = reader.feed(bytes(1_000))
        assert done == ([Frame(FrameType.RESPONSE, "1\n", b"", length)] if remaining == 0 else [])
        assert len(reader._buffer) < HEADER.size


@pytest.mark.parametrize("length", [CAP, CAP + 1])
def test_the_cap_itself_is_allowed(length):
    [frame] = FrameReader(CAP).feed(encode(FrameType.RESPONSE, "", bytes(length)))
    assert (len(frame.body), frame.oversize) == ((CAP, 0) if length == CAP else (0, CAP + 1))


@given(st.binary(min_size=1, max_size=400), st.lists(st.integers(0, 400), max_size=6))
def test_garbage_is_refused_or_waited_for_but_never_held_beyond_bounds(data, cuts):
    reader = FrameReader(CAP)
    try:
        for piece in pieces(data, cuts):
            for frame in reader.feed(piece):
                assert frame.type in KINDS
    except BadFrame:
        return
    assert len(reader._buffer) <= HEADER.size + MAX_HEAD + MAX_CHUNK


def test_the_largest_chunk_passes_whatever_the_cap():
    [frame] = FrameReader(CAP).feed(encode(FrameType.CHUNK, "1", bytes(MAX_CHUNK)))
    assert (len(frame.body), frame.oversize) == (MAX_CHUNK, 0)


@given(st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_wrong_type_or_an_endless_head_is_refused_at_once(kind, head, body):
    reader = FrameReader(CAP)
    header = HEADER.pack(kind, head, body)
    if kind in KINDS and head <= (MAX_CHUNK_HEAD if kind == FrameType.CHUNK else MAX_HEAD):
        if kind == FrameType.CHUNK and body > MAX_CHUNK:
            with pytest.raises(BadFrame, match=f"a chunk of {body} bytes"):
                reader.feed(header)
        else:
            reader.feed(header)
    else:
        with pytest.raises(BadFrame, match=f"frame type {kind} with a head of {head} bytes"):
            reader.feed(header)


@pytest.mark.parametrize("body", [b"", bytes(CAP + 1)])
def test_a_head_that_is_no_text_is_refused(body):
    with pytest.raises(BadFrame, match="UTF-8"):
        FrameReader(CAP).feed(HEADER.pack(FrameType.RESPONSE, 1, len(body)) + b"\xff" + body)


def test_a_runtime_may_not_send_what_the_node_sends():
    with pytest.raises(BadFrame):
        FrameReader(CAP).feed(encode_invoke(1, "id", 0, "arn", "", b"{}"))


fields = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=20)


@given(st.integers(0, 2**63), fields, st.integers(0, 2**53), fields, fields, st.binary(max_size=50), fields, fields, st.text(max_size=30))
def test_an_invoke_frame_holds_its_fields_in_order(token, request, deadline, arn, trace, event, tenant, cognito, context):
    data = encode_invoke(token, request, deadline, arn, trace, event, tenant, cognito, context)
    kind, head_length, body_length = HEADER.unpack_from(data)
    head = data[HEADER.size : HEADER.size + head_length].decode()
    assert (kind, head.split("\n", 7)) == (FrameType.INVOKE, [str(token), request, str(deadline), arn, trace, tenant, cognito, context])
    assert data[HEADER.size + head_length :] == event
    assert body_length == len(event)


def test_both_ends_speak_of_the_same_types():
    """The client stands alone in the sandbox and so repeats these numbers."""
    ours = [python_client._INVOKE, python_client._NEXT, python_client._RESPONSE, python_client._ERROR, python_client._INIT_ERROR]
    assert ours == [FrameType.INVOKE, FrameType.NEXT, FrameType.RESPONSE, FrameType.ERROR, FrameType.INIT_ERROR]
    assert python_client._HEADER.format == HEADER.format
    assert encode(FrameType.NEXT) == python_client._NEXT_FRAME
