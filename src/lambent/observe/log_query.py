"""The questions that CloudWatch Logs answers: groups, streams, the events of a stream, the events of a group.

Plain functions of a reading connection. **Tokens** are positions, not cursors: a token holds the key of the last event that was given (or,
for the listings, the last name), so it never expires and the same question with the same token has the same answer. At the end of a stream,
``get_events`` gives back the token that it got, which is how callers know; what is written later stands behind that token.
"""

from __future__ import annotations

import base64
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lambent.observe.log_blocks import SEQUENCES, SPAN, Event, key_of, unpack
from lambent.observe.log_database import DAY_MS
from lambent.observe.log_entities import (
    BadToken,
    EventPage,
    FilterQuery,
    FoundPage,
    GroupInfo,
    GroupPage,
    LogGroup,
    NoSuchGroup,
    NoSuchStream,
    StreamInfo,
    StreamPage,
    group_of,
)
from lambent.observe.log_merge import Header, ascending, descending
from lambent.observe.log_pattern import compile_pattern
from lambent.observe.log_sink import LogStream
from lambent.store.mutations import beyond

PAGE_BYTES = 1_048_576
SCAN_BYTES = 32 * 1024 * 1024  # a filter that finds little gives an early page after so much searching
_FOREVER = 1 << 62
_EVENT_TOKEN = re.compile(r"([fb])/(\d{56})/s")


@dataclass(frozen=True, slots=True)
class _Range:
    """What of the time line is asked for: timestamps from ``start`` to ``end``, keys above ``after`` and below ``before``."""

    start: int
    end: int
    after: int = -1
    before: int = key_of(_FOREVER, 0)

    @classmethod
    def at(cls, start: int, end: int, letter: str, key: int | None) -> _Range:
        """With the position that a token holds: ``f`` goes on after it, ``b`` before it."""
        if key is None:
            return cls(start, end)
        return cls(start, end, after=key) if letter == "f" else cls(start, end, before=key)

    def holds(self, event: Event) -> bool:
        return self.start <= event.timestamp <= self.end and self.after < event.key < self.before

    def bounds(self) -> tuple[int, int]:
        """Timestamps, seen from the keys too."""
        low = max(self.start, self.after // SEQUENCES)
        return min(max(low, 0), _FOREVER), min(max(self.end, 0), _FOREVER, self.before // SEQUENCES)


def token_of(letter: str, key: int) -> str:
    return f"{letter}/{max(key, 0):056d}/s"


def describe_groups(
    connection: sqlite3.Connection, account: str, region: str, prefix: str, pattern: str, limit: int, token: str
) -> GroupPage:
    """Groups by name. ``prefix`` or ``pattern`` (a substring) narrow them; ``""`` is none."""
    after = _listing_token(token, 1)[0] if token else ""
    sql = "SELECT name, created, retention, bytes, class, tags FROM log_groups WHERE account = ? AND region = ? AND name > ? AND name >= ?"
    values: list[object] = [account, region, after, prefix]
    if pattern:
        sql += " AND instr(name, ?) > 0"
        values.append(pattern)
    if beyond(prefix):
        sql += " AND name < ?"
        values.append(beyond(prefix))
    rows = connection.execute(f"{sql} ORDER BY name LIMIT ?", (*values, limit + 1)).fetchall()
    groups = [
        GroupInfo(LogGroup(account, region, name), created, retention, size, log_class, json.loads(tags))
        for name, created, retention, size, log_class, tags in rows[:limit]
    ]
    return GroupPage(groups, _make_listing_token(groups[-1].group.name) if len(rows) > limit else None)


def describe_streams(
    connection: sqlite3.Connection, group: LogGroup, prefix: str, by_time: bool, reverse: bool, limit: int, token: str
) -> StreamPage:
    """Streams by name or by the time of their last event. Raises ``NoSuchGroup`` or ``BadToken``."""
    group_id, _ = _group(connection, group)
    sql = "SELECT name, created, first_ts, last_ts, ingested FROM log_streams WHERE group_id = ? AND name >= ?"
    values: list[object] = [group_id, prefix]
    if beyond(prefix):
        sql += " AND name < ?"
        values.append(beyond(prefix))
    compare, order = ("<", "DESC") if reverse else (">", "ASC")
    if by_time:
        if token:
            sql += f" AND (coalesce(last_ts, 0), name) {compare} (?, ?)"
            values += _listing_token(token, 2)
        sql += f" ORDER BY coalesce(last_ts, 0) {order}, name {order}"
    else:
        if token:
            sql += f" AND name {compare} ?"
            values += _listing_token(token, 1)
        sql += f" ORDER BY name {order}"
    rows = connection.execute(f"{sql} LIMIT ?", (*values, limit + 1)).fetchall()
    streams = [StreamInfo(*row) for row in rows[:limit]]
    if len(rows) <= limit:
        return StreamPage(streams, None)
    last = streams[-1]
    return StreamPage(streams, _make_listing_token(*([last.last_event or 0] if by_time else []), last.name))


def get_events(
    connection: sqlite3.Connection,
    stream: LogStream,
    start: int | None,
    end: int | None,
    from_head: bool,
    limit: int,
    token: str | None,
    now: int,
) -> EventPage:
    """Events of one stream, oldest first: from ``start`` on and before ``end``. Raises ``NoSuchGroup``, ``NoSuchStream``, ``BadToken``."""
    group_id, retention = _group(connection, group_of(stream))
    stream_id = _streams(connection, group_id, (stream.name,)).get(stream.name)
    if stream_id is None:
        raise NoSuchStream
    oldest = max(start or 0, _cutoff(retention, now))
    newest = _FOREVER if end is None else end - 1
    letter, key = _event_token(token) if token else ("f" if from_head else "b", None)
    span = _Range.at(oldest, newest, letter, key)
    found = _events(connection, "stream_id = ?", [stream_id], span, letter == "f")
    events = _page([event for _, event in _limited(found, limit)])
    if letter == "b":
        events.reverse()
    if events:
        return EventPage(events, token_of("f", events[-1].key), token_of("b", events[0].key))
    if key is None:
        return EventPage([], token_of("f", 0), token_of("b", 0))
    return EventPage([], token_of("f", key if letter == "f" else key - 1), token_of("b", key + 1 if letter == "f" else key))


def filter_events(connection: sqlite3.Connection, group: LogGroup, query: FilterQuery, now: int) -> FoundPage:
    """Events of a group, those of all its streams interleaved. Raises ``NoSuchGroup``, ``NoSuchStream``, ``BadToken``, ``BadPattern``."""
    matches = compile_pattern(query.pattern)
    group_id, retention = _group(connection, group)
    where, values, names = _selection(connection, group_id, query)
    letter, key = _event_token(query.token) if query.token else ("f" if query.from_head else "b", None)
    oldest = max(query.start or 0, _cutoff(retention, now))
    newest = _FOREVER if query.end is None else query.end
    span = _Range.at(oldest, newest, letter, key)
    events: list[tuple[str, Event]] = []
    scanned = size = 0
    last = 0
    for stream_id, event in _events(connection, where, values, span, letter == "f"):
        if len(events) >= query.limit or (events and size + event.size > PAGE_BYTES) or scanned > SCAN_BYTES:
            return FoundPage(events, token_of(letter, last))
        last = event.key
        scanned += event.size
        if matches(event.message):
            size += event.size
            events.append((_name(connection, names, stream_id), event))
    return FoundPage(events, None)


def _selection(connection: sqlite3.Connection, group_id: int, query: FilterQuery) -> tuple[str, list[object], dict[int, str]]:
    """Which chunks are meant, as SQL, and the names of the streams as far as they are known."""
    if not query.streams and not query.prefix:
        return "group_id = ?", [group_id], {}
    if query.streams:
        ids = _streams(connection, group_id, query.streams)
        if len(ids) < len(set(query.streams)):
            raise NoSuchStream
        marks = ", ".join(str(stream_id) for stream_id in ids.values())
        return f"group_id = ? AND stream_id IN ({marks})", [group_id], {stream_id: name for name, stream_id in ids.items()}
    named = "SELECT id FROM log_streams WHERE group_id = ? AND name >= ?"
    values: list[object] = [group_id, group_id, query.prefix]
    if beyond(query.prefix):
        named += " AND name < ?"
        values.append(beyond(query.prefix))
    return f"group_id = ? AND stream_id IN ({named})", values, {}


def _name(connection: sqlite3.Connection, names: dict[int, str], stream_id: int) -> str:
    name = names.get(stream_id)
    if name is None:
        row = connection.execute("SELECT name FROM log_streams WHERE id = ?", (stream_id,)).fetchone()
        name = names[stream_id] = row[0] if row else ""
    return name


def _events(connection: sqlite3.Connection, where: str, values: list[object], span: _Range, forward: bool) -> Iterator[tuple[int, Event]]:
    """The events of the selected chunks within ``span``, in order of their keys or against it, with the ids of their streams."""
    low, high = span.bounds()
    order = "ASC" if forward else "DESC"
    rows = connection.execute(
        f"SELECT first_ts, last_ts, stream_id, id FROM chunks WHERE {where} AND first_ts BETWEEN ? AND ? AND last_ts >= ?"
        f" ORDER BY first_ts {order}",
        (*values, low - SPAN, high, low),
    )

    def load(header: Header) -> Iterator[Event]:
        row = connection.execute("SELECT data FROM chunks WHERE id = ?", (header.chunk_id,)).fetchone()
        return filter(span.holds, unpack(row[0])) if row else iter(())

    merge: Callable[..., Any] = ascending if forward else descending
    for event, stream_id in merge(map(Header._make, rows), load):
        yield stream_id, event


def _limited(found: Iterator[tuple[int, Event]], limit: int) -> Iterator[tuple[int, Event]]:
    for count, entry in enumerate(found, 1):
        yield entry
        if count >= limit:
            return


def _page(events: list[Event]) -> list[Event]:
    """As many as a page holds, and one at least."""
    size = 0
    for count, event in enumerate(events):
        size += event.size
        if size > PAGE_BYTES and count:
            return events[:count]
    return events


def _group(connection: sqlite3.Connection, group: LogGroup) -> tuple[int, int | None]:
    sql = "SELECT id, retention FROM log_groups WHERE account = ? AND region = ? AND name = ?"
    row = connection.execute(sql, (group.account, group.region, group.name)).fetchone()
    if row is None:
        raise NoSuchGroup
    return row[0], row[1]


def _streams(connection: sqlite3.Connection, group_id: int, names: tuple[str, ...]) -> dict[str, int]:
    """The ids of the named streams, as far as there are such."""
    sql = f"SELECT name, id FROM log_streams WHERE group_id = ? AND name IN ({', '.join('?' * len(names))})"
    return dict(connection.execute(sql, (group_id, *names)).fetchall())


def _cutoff(retention: int | None, now: int) -> int:
    return 0 if retention is None else now - retention * DAY_MS


def _event_token(token: str) -> tuple[str, int]:
    match = _EVENT_TOKEN.fullmatch(token)
    if match is None:
        raise BadToken
    return match[1], int(match[2])


def _make_listing_token(*values: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


def _listing_token(token: str, count: int) -> list[Any]:
    """What the token holds: a name, before which may stand a time."""
    try:
        values = json.loads(base64.urlsafe_b64decode(token.encode()))
    except ValueError as error:
        raise BadToken from error
    if not isinstance(values, list) or len(values) != count or not isinstance(values[-1], str) or not isinstance(values[0], int | str):
        raise BadToken
    return values
