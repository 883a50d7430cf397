"""Snapshots of a store in PostgreSQL, and how a store that was loaded beside the one in use takes its place.

A snapshot is one REPEATABLE READ transaction on a connection of its own, read through cursors of the server, so neither side ever holds
more than some rows. A sequence has no snapshot; it may be ahead of the rows, never behind them, which is all that is asked of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from psycopg import sql

from lambent.store.export import Kept, KeptDocument, KeptEntry, KeptMessage, KeptPosition, KeptTopic, in_order
from lambent.store.postgres_engine import connect, lock, unavailable
from lambent.store.postgres_tables import Connection

_AT_ONCE = 64  # rows in one piece from the server
_MESSAGE = "position, queue, body, enqueued_at, visible_at, since, attempt, lease, grp, first_leased"


def everything(connection: Connection) -> Iterator[Kept]:
    """All rows of the store as of the first one asked for. ``connection`` is in autocommit mode and stays in the transaction."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    documents = _rows(connection, "SELECT kind, key, revision, value FROM documents ORDER BY kind, key")
    topics = _rows(connection, "SELECT topic, head FROM topics")
    entries = _rows(connection, "SELECT topic, position, body FROM entries")
    messages = _rows(connection, f"SELECT {_MESSAGE} FROM messages ORDER BY position")
    yield from in_order(
        (KeptDocument(kind, bytes(key).decode(), revision, bytes(value).decode()) for kind, key, revision, value in documents),
        (KeptTopic(*row) for row in topics),
        (KeptEntry(topic, position, bytes(body)) for topic, position, body in entries),
        (KeptMessage(row[0], row[1], bytes(row[2]), *row[3:]) for row in messages),
        _last(connection),
    )


def _rows(connection: Connection, question: str) -> Iterator[tuple[Any, ...]]:
    with connection.cursor("export", binary=True) as cursor:
        cursor.itersize = _AT_ONCE
        yield from cursor.execute(question.encode())


def _last(connection: Connection) -> Iterator[KeptPosition]:
    row = connection.execute("SELECT pg_get_serial_sequence('messages', 'position')").fetchone()
    assert row is not None
    found = connection.execute(f"SELECT last_value FROM {row[0]} WHERE is_called".encode()).fetchone()
    if found is not None:
        yield KeptPosition(found[0])


def load(rows: Sequence[Kept], connection: Connection) -> None:
    """Put ``rows`` into the store's tables, inside the caller's transaction."""
    documents = [(row.kind, row.key.encode(), row.revision, row.text.encode()) for row in rows if isinstance(row, KeptDocument)]
    _copy(connection, "documents (kind, key, revision, value)", documents)
    _copy(connection, "topics (topic, head)", [row for row in rows if isinstance(row, KeptTopic)])
    _copy(connection, "entries (topic, position, body)", [row for row in rows if isinstance(row, KeptEntry)])
    _copy(connection, f"messages ({_MESSAGE})", [row for row in rows if isinstance(row, KeptMessage)])
    for row in rows:
        if isinstance(row, KeptPosition):
            connection.execute("SELECT setval(pg_get_serial_sequence('messages', 'position'), %s)", (row.last,))


def _copy(connection: Connection, where: str, rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        with connection.cursor().copy(f"COPY {where} FROM STDIN".encode()) as copy:
            for row in rows:
                copy.write_row(row)


# -- one schema takes the place of another


def drop(dsn: str, schema: str) -> None:
    """Remove ``schema``, if it is there. Raises ``StoreUnavailable``."""
    with _connected(dsn, schema) as connection:
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


def replace(dsn: str, schema: str, successor: str) -> None:
    """``successor``, if it is there, becomes ``schema``, in one transaction. Raises ``StoreInUse`` and ``StoreUnavailable``."""
    with _connected(dsn, schema) as connection:
        lock(connection, schema)
        if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (successor,)).fetchone() is None:
            return
        with connection.transaction():
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))
            connection.execute(sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(sql.Identifier(successor), sql.Identifier(schema)))


def is_empty(dsn: str, schema: str) -> bool:
    """Whether ``schema`` is missing or holds nothing. Raises ``StoreUnavailable``."""
    with _connected(dsn, schema) as connection:
        if connection.execute("SELECT to_regclass('documents')").fetchone() == (None,):
            return True
        row = connection.execute(
            "SELECT EXISTS (SELECT FROM documents) OR EXISTS (SELECT FROM topics) OR EXISTS (SELECT FROM messages)"
        ).fetchone()
        return row == (False,)


@contextlib.contextmanager
def _connected(dsn: str, schema: str) -> Iterator[Connection]:
    with unavailable(), contextlib.closing(connect(dsn, schema)) as connection:
        yield connection
