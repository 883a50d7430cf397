"""The tables of the log store, on the writing side: chunks go in; groups and streams come, change and go.

Plain functions of an open SQLite connection, all called from the log store's writer thread, inside a transaction that the caller opens. The
ids of groups and streams that take part in the writing are remembered, so a flush costs one row for each stream that had lines.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping

from lambent.observe.log_blocks import Block, Chunk, pack
from lambent.observe.log_entities import GroupExists, LogGroup, NoSuchGroup, NoSuchStream, StreamExists, group_of
from lambent.observe.log_sink import LogStream

DAY_MS = 86_400_000
_REMEMBERED = 20_000


class LogDatabase:
    """Changes to the tables. ``now`` is wall time in epoch ms everywhere."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._ids: dict[LogStream, tuple[int, int]] = {}

    def next_seq(self) -> int:
        """The sequence number from which on lines are not here yet."""
        seq: int = self._connection.execute("SELECT next_seq FROM ledger").fetchone()[0]
        return seq

    def forget(self) -> None:
        """Remember no ids: a transaction that made some was rolled back."""
        self._ids.clear()

    def store(self, batch: Mapping[LogStream, Iterable[Block]], next_seq: int, now: int) -> None:
        """Take the lines in; groups and streams are made where they are missing."""
        grown: dict[int, int] = {}
        for stream, blocks in batch.items():
            group_id, stream_id = self._id(stream, now)
            chunks = list(pack(blocks))
            self._insert(group_id, stream_id, chunks)
            grown[group_id] = grown.get(group_id, 0) + sum(chunk.size for chunk in chunks)
        self._connection.executemany("UPDATE log_groups SET bytes = bytes + ? WHERE id = ?", [(size, key) for key, size in grown.items()])
        self._connection.execute("UPDATE ledger SET next_seq = max(next_seq, ?)", (next_seq,))

    def create_group(self, group: LogGroup, now: int, log_class: str, tags: Mapping[str, str]) -> None:
        """Raises ``GroupExists``."""
        if self._group_row(group) is not None:
            raise GroupExists
        self._make_group(group, now, log_class, tags)

    def delete_group(self, group: LogGroup) -> None:
        """With its streams and lines. Raises ``NoSuchGroup``."""
        group_id = self.group_id(group)
        for table in ("chunks", "log_streams"):
            self._connection.execute(f"DELETE FROM {table} WHERE group_id = ?", (group_id,))
        self._connection.execute("DELETE FROM log_groups WHERE id = ?", (group_id,))
        self._ids = {stream: ids for stream, ids in self._ids.items() if ids[0] != group_id}

    def set_retention(self, group: LogGroup, days: int | None) -> None:
        """Raises ``NoSuchGroup``."""
        self._connection.execute("UPDATE log_groups SET retention = ? WHERE id = ?", (days, self.group_id(group)))

    def change_tags(self, group: LogGroup, add: Mapping[str, str], remove: Iterable[str]) -> dict[str, str]:
        """Gives the tags as they stand then. Raises ``NoSuchGroup``."""
        group_id = self.group_id(group)
        tags: dict[str, str] = json.loads(self._connection.execute("SELECT tags FROM log_groups WHERE id = ?", (group_id,)).fetchone()[0])
        tags.update(add)
        for name in remove:
            tags.pop(name, None)
        self._connection.execute("UPDATE log_groups SET tags = ? WHERE id = ?", (json.dumps(tags), group_id))
        return tags

    def create_stream(self, stream: LogStream, now: int) -> None:
        """Raises ``NoSuchGroup`` or ``StreamExists``."""
        group_id = self.group_id(group_of(stream))
        if self._stream_row(group_id, stream.name) is not None:
            raise StreamExists
        self._make_stream(group_id, stream.name, now)

    def delete_stream(self, stream: LogStream) -> None:
        """With its lines. Raises ``NoSuchGroup`` or ``NoSuchStream``."""
        group_id, stream_id = self.stream_id(stream)
        sql = "UPDATE log_groups SET bytes = bytes - (SELECT coalesce(sum(bytes), 0) FROM chunks WHERE stream_id = ?) WHERE id = ?"
        self._connection.execute(sql, (stream_id, group_id))
        self._connection.execute("DELETE FROM chunks WHERE stream_id = ?", (stream_id,))
        self._connection.execute("DELETE FROM log_streams WHERE id = ?", (stream_id,))
        self._ids.pop(stream, None)

    def purge(self, now: int) -> int:
        """Remove the chunks of which every event is past its group's retention; gives how many."""
        purged = 0
        rows = self._connection.execute("SELECT id, retention FROM log_groups WHERE retention IS NOT NULL").fetchall()
        for group_id, days in rows:
            past = "FROM chunks WHERE group_id = ? AND first_ts < ? AND last_ts < ?"
            values = (group_id, now - days * DAY_MS, now - days * DAY_MS)
            sql = f"UPDATE log_groups SET bytes = bytes - (SELECT coalesce(sum(bytes), 0) {past}) WHERE id = ?"
            self._connection.execute(sql, (*values, group_id))
            purged += self._connection.execute(f"DELETE {past}", values).rowcount
        return purged

    def group_id(self, group: LogGroup) -> int:
        """Raises ``NoSuchGroup``."""
        found = self._group_row(group)
        if found is None:
            raise NoSuchGroup
        return found

    def stream_id(self, stream: LogStream) -> tuple[int, int]:
        """The ids of group and stream. Raises ``NoSuchGroup`` or ``NoSuchStream``."""
        group_id = self.group_id(group_of(stream))
        found = self._stream_row(group_id, stream.name)
        if found is None:
            raise NoSuchStream
        return group_id, found

    def _id(self, stream: LogStream, now: int) -> tuple[int, int]:
        ids = self._ids.get(stream)
        if ids is None:
            group = group_of(stream)
            group_id = self._group_row(group)
            if group_id is None:
                group_id = self._make_group(group, now, "STANDARD", {})
            stream_id = self._stream_row(group_id, stream.name)
            if stream_id is None:
                stream_id = self._make_stream(group_id, stream.name, now)
            if len(self._ids) >= _REMEMBERED:
                self._ids.clear()
            ids = self._ids[stream] = (group_id, stream_id)
        return ids

    def _insert(self, group_id: int, stream_id: int, chunks: list[Chunk]) -> None:
        self._connection.executemany(
            "INSERT INTO chunks (group_id, stream_id, first_ts, last_ts, first_seq, lines, bytes, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (group_id, stream_id, chunk.first_ts, chunk.last_ts, chunk.first_seq, chunk.lines, chunk.size, chunk.data)
                for chunk in chunks
            ],
        )
        first = min(chunk.first_ts for chunk in chunks)
        last = max(chunk.last_ts for chunk in chunks)
        self._connection.execute(
            "UPDATE log_streams SET first_ts = min(coalesce(first_ts, ?), ?), last_ts = max(coalesce(last_ts, ?), ?), ingested = ?"
            " WHERE id = ?",
            (first, first, last, last, chunks[-1].ingested, stream_id),
        )

    def _group_row(self, group: LogGroup) -> int | None:
        sql = "SELECT id FROM log_groups WHERE account = ? AND region = ? AND name = ?"
        row = self._connection.execute(sql, (group.account, group.region, group.name)).fetchone()
        return row[0] if row else None

    def _stream_row(self, group_id: int, name: str) -> int | None:
        row = self._connection.execute("SELECT id FROM log_streams WHERE group_id = ? AND name = ?", (group_id, name)).fetchone()
        return row[0] if row else None

    def _make_group(self, group: LogGroup, now: int, log_class: str, tags: Mapping[str, str]) -> int:
        cursor = self._connection.execute(
            "INSERT INTO log_groups (account, region, name, created, class, tags) VALUES (?, ?, ?, ?, ?, ?)",
            (group.account, group.region, group.name, now, log_class, json.dumps(dict(tags))),
        )
        return cursor.lastrowid or 0

    def _make_stream(self, group_id: int, name: str, now: int) -> int:
        cursor = self._connection.execute("INSERT INTO log_streams (group_id, name, created) VALUES (?, ?, ?)", (group_id, name, now))
        return cursor.lastrowid or 0
