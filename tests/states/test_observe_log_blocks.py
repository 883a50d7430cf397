"""Blocks, chunks and the merging of chunks by time: pure, and checked against the plainest possible account of them."""

from hypothesis import given
from hypothesis import strategies as st

from lambent.observe.log_blocks import EVENT_OVERHEAD, SPAN, Event, decode, describe, encode, key_of, pack, unpack
from lambent.observe.log_merge import Header, ascending, descending

TIMES = st.integers(0, 10 * SPAN)
LINES = st.lists(st.tuples(TIMES, st.text(max_size=8)), min_size=1, max_size=12)
WRITES = st.lists(LINES, min_size=1, max_size=12)


def blocks_of(writes):
    seq, blocks = 1, []
    for number, lines in enumerate(writes):
        blocks.append(encode(seq, 1_000 + number, lines))
        seq += len(lines)
    return blocks


def test_a_block_reads_as_it_was_written():
    block = encode(7, 99, [(5, "one\n"), (3, "zwei ü\n"), (9, "")])
    assert list(decode(block.data)) == [
        Event(key_of(5, 7), 5, 99, "one\n", 4 + EVENT_OVERHEAD),
        Event(key_of(3, 8), 3, 99, "zwei ü\n", 8 + EVENT_OVERHEAD),
        Event(key_of(9, 9), 9, 99, "", EVENT_OVERHEAD),
    ]
    assert (block.seq, block.lines, block.first_ts, block.last_ts, block.size) == (7, 3, 3, 9, 12 + 3 * EVENT_OVERHEAD)
    assert describe(block.data) == block


def test_what_is_no_text_is_replaced():
    assert [event.message for event in decode(encode(1, 1, [(1, "a\ud800b")]).data)] == ["a?b"]


@given(WRITES)
def test_packing_keeps_every_event_with_its_key(writes):
    blocks = blocks_of(writes)
    chunks = list(pack(blocks))
    packed = [event for chunk in chunks for event in unpack(chunk.data)]
    assert packed == [event for block in blocks for event in decode(block.data)]
    for chunk in chunks:
        events = list(unpack(chunk.data))
        stamps = [event.timestamp for event in events]
        assert (chunk.first_ts, chunk.last_ts) == (min(stamps), max(stamps))
        assert chunk.last_ts - chunk.first_ts <= SPAN
        assert (chunk.lines, chunk.size) == (len(events), sum(event.size for event in events))
        assert (chunk.first_seq, chunk.ingested) == (events[0].key % 10**20, events[-1].ingested)


def test_big_chunks_are_cut():
    chunks = list(pack(blocks_of([[(1, "x" * 300_000)]] * 8)))
    assert len(chunks) == 4
    assert all(len(chunk.data) < 50_000 for chunk in chunks)


@given(WRITES)
def test_merged_events_come_in_the_order_of_their_keys(writes):
    chunks = [(header, chunk.data) for header, chunk in numbered(pack(blocks_of(writes)))]
    data = {header.chunk_id: packed for header, packed in chunks}
    headers = sorted(header for header, _ in chunks)
    expected = sorted(event for packed in data.values() for event in unpack(packed))
    unpacked = []

    def load(header):
        unpacked.append(header.chunk_id)
        return unpack(data[header.chunk_id])

    assert [found.event for found in ascending(iter(headers), load)] == expected
    assert [found.event for found in descending(reversed(headers), load)] == expected[::-1]
    assert sorted(unpacked) == sorted([*data, *data])


def numbered(chunks):
    return [(Header(chunk.first_ts, chunk.last_ts, number % 3, number), chunk) for number, chunk in enumerate(chunks)]


def test_the_newest_event_unpacks_no_more_than_it_must():
    chunks = [next(pack([encode(number + 1, 1, [(number * 1_000, "x")])])) for number in range(200)]
    headers = [Header(chunk.first_ts, chunk.last_ts, 1, number) for number, chunk in enumerate(chunks)]
    unpacked = []

    def load(header):
        unpacked.append(header.chunk_id)
        return unpack(chunks[header.chunk_id].data)

    assert next(descending(reversed(headers), load)).event.timestamp == 199_000
    assert unpacked == [199]
