"""Snapshots of SQLite files: the store's rows in and out, and any other file table by table (the log store's).

A snapshot is one read transaction on a connection of its own. In WAL mode it neither waits for writers nor keeps them waiting; what they
write meanwhile stays in the write-ahead log until the snapshot ends, which is the one price of a long one.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lambent.store.connection import connect
from lambent.store.export import Kept, KeptDocument, KeptEntry, KeptMessage, KeptPosition, KeptTopic, in_order
from lambent.store.schema import later, migrate, migrations

_MESSAGE = "position, queue, body, enqueued_at, visible_at, since, attempt, lease, grp, first_leased"
_LAST = "SELECT seq FROM sqlite_sequence WHERE name = 'messages'"
_LINES_BYTES = 512 * 1024


def everything(connection: sqlite3.Connection) -> Iterator[Kept]:
    """All rows of the store as of the first one asked for. ``connection`` is in autocommit mode and stays in the transaction."""
    connection.execute("BEGIN")
    ask = connection.execute
    documents = ask("SELECT kind, key, revision, value FROM documents ORDER BY kind, key")
    yield from in_order(
        (KeptDocument(*row) for row in documents),
        (KeptTopic(*row) for row in ask("SELECT topic, head FROM topics")),
        (KeptEntry(*row) for row in ask("SELECT topic, position, body FROM entries")),
        (KeptMessage(*row) for row in ask(f"SELECT {_MESSAGE} FROM messages ORDER BY position")),
        (KeptPosition(*row) for row in ask(_LAST)),
    )


def load(rows: Sequence[Kept], connection: sqlite3.Connection) -> None:
    """Put ``rows`` into the store's tables, inside the caller's transaction."""
    many = connection.executemany
    many("INSERT INTO documents (kind, key, revision, value) VALUES (?, ?, ?, ?)", _of(rows, KeptDocument))
    many("INSERT INTO topics (topic, head) VALUES (?, ?)", _of(rows, KeptTopic))
    many("INSERT INTO entries (topic, position, body) VALUES (?, ?, ?)", _of(rows, KeptEntry))
    many(f"INSERT INTO messages ({_MESSAGE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _of(rows, KeptMessage))
    for (last,) in _of(rows, KeptPosition):
        connection.execute("DELETE FROM sqlite_sequence WHERE name = 'messages'")
        connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('messages', ?)", (last,))


def _of(rows: Sequence[Kept], kind: type) -> list[Any]:
    return [row for row in rows if type(row) is kind]


# -- any file, table by table


def tables_of(path: Path) -> Iterator[bytes]:
    """Everything in the file, as of the first piece asked for: lines of JSON, some half a megabyte at a time.

    The first line is ``["schema", VERSION]``, each further one ``[TABLE, COLUMN, ...]``, where bytes are ``{"b64": TEXT}``.
    """
    connection = connect(path, "NORMAL", read_only=True)
    try:
        connection.execute("BEGIN")
        (version,) = connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()
        lines = [json.dumps(["schema", version])]
        size = 0
        for name in _tables(connection):
            for row in connection.execute(f'SELECT * FROM "{name}"'):
                lines.append(json.dumps([name, *map(_plain, row)], separators=(",", ":")))
                size += len(lines[-1])
                if size >= _LINES_BYTES:
                    yield ("\n".join(lines) + "\n").encode()
                    lines, size = [], 0
        yield ("\n".join(lines) + "\n").encode() if lines else b""
    finally:
        connection.close()


class TableLoader:
    """Makes the file at ``path`` anew from what ``tables_of`` gave, in the schema that it had; opening it brings that up to date."""

    def __init__(self, path: Path, family: str, now: float) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._connection = connect(path, "NORMAL")
        path.chmod(0o600)
        self._family = family
        self._now = now
        self._columns: dict[str, int] = {}

    def feed(self, data: bytes) -> int:
        """Gives the number of rows. Raises ``ValueError``, ``SchemaTooNew`` and ``sqlite3.Error``."""
        lines = [json.loads(line) for line in data.splitlines()]
        if not self._columns:
            if not lines or lines[0][:1] != ["schema"]:
                raise ValueError("the tables do not begin with their schema")
            self._make(int(lines.pop(0)[1]))
        self._connection.execute("BEGIN IMMEDIATE")
        for name, *values in lines:
            if len(values) != self._columns.get(name):
                raise ValueError(f"no row of a table {name!r}")
            if name == "sqlite_sequence":  # inserts into the other tables have made rows there
                self._connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", values[:1])
            marks = ", ".join("?" * len(values))
            self._connection.execute(f'INSERT INTO "{name}" VALUES ({marks})', [_packed(value) for value in values])
        self._connection.execute("COMMIT")
        return len(lines)

    def close(self) -> None:
        self._connection.close()

    def _make(self, version: int) -> None:
        known = migrations(self._family)
        to_come = later(known, version)  # when the file is opened
        migrate(self._connection, self._family, self._now, [migration for migration in known if migration not in to_come])
        for name in _tables(self._connection):
            self._connection.execute(f'DELETE FROM "{name}"')
            self._columns[name] = len(self._connection.execute(f'SELECT * FROM "{name}" LIMIT 0').description)


def _tables(connection: sqlite3.Connection) -> list[str]:
    """Tables with content of their own; ``sqlite_sequence`` is one of them, and comes last, since inserts into the others move it."""
    sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'migrations' ORDER BY name = 'sqlite_sequence', name"
    return [name for (name,) in connection.execute(sql)]


def _plain(value: object) -> object:
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _packed(value: Any) -> Any:
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value
