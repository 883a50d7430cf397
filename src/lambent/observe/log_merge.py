"""Events of many chunks in order of time, without ever holding more of them than overlap.

Chunks are looked up by their first timestamp and span at most ``SPAN``. Forwards that is enough: once an event is older than the first
one of the next chunk, it is next. Backwards, chunks must be taken by their *last* timestamp, for which their headers are
read ahead by one span; headers are small, and a chunk is unpacked only when its time has come.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import NamedTuple

from lambent.observe.log_blocks import SPAN, Event

_NEVER = -(1 << 62)


class Header(NamedTuple):
    """Where a chunk stands; the rows of the index."""

    first_ts: int
    last_ts: int
    stream_id: int
    chunk_id: int


class Found(NamedTuple):
    """An event and the stream that it stands in."""

    event: Event
    stream_id: int


Load = Callable[[Header], Iterator[Event]]


def ascending(headers: Iterator[Header], load: Load) -> Iterator[Found]:
    """``headers`` come by first timestamp, least first; ``load`` unpacks a chunk into the events that matter."""
    waiting: list[tuple[int, int, Event]] = []
    for header in headers:
        while waiting and waiting[0][2].timestamp < header.first_ts:
            _, stream_id, event = heapq.heappop(waiting)
            yield Found(event, stream_id)
        for event in load(header):
            heapq.heappush(waiting, (event.key, header.stream_id, event))
    while waiting:
        _, stream_id, event = heapq.heappop(waiting)
        yield Found(event, stream_id)


def descending(headers: Iterator[Header], load: Load) -> Iterator[Found]:
    """``headers`` come by first timestamp, greatest first."""
    closed: list[tuple[int, int, Header]] = []  # chunks not unpacked yet, by last timestamp
    waiting: list[tuple[int, int, Event]] = []
    upcoming = next(headers, None)
    while True:
        newest_chunk = -closed[0][0] if closed else _NEVER
        newest_event = waiting[0][2].timestamp if waiting else _NEVER
        if upcoming is not None and upcoming.first_ts + SPAN >= max(newest_chunk, newest_event):
            heapq.heappush(closed, (-upcoming.last_ts, upcoming.chunk_id, upcoming))
            upcoming = next(headers, None)
        elif closed and newest_chunk >= newest_event:
            header = heapq.heappop(closed)[2]
            for event in load(header):
                heapq.heappush(waiting, (-event.key, header.stream_id, event))
        elif waiting:
            _, stream_id, event = heapq.heappop(waiting)
            yield Found(event, stream_id)
        else:
            return
