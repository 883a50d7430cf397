"""What the store's calls are to PostgreSQL: mutations as columns of arrays, questions as statements.

A whole group of calls goes to the server in one round trip, as parallel arrays for ``lambent_commit`` (``sql/postgres``), which gives each
call a subtransaction of its own. ``encode`` runs in the caller's thread, so a document that the caller changes afterwards is stored as
it was.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import psycopg

from lambent.store.contract import (
    Acknowledge,
    Append,
    Counts,
    Delete,
    Enqueue,
    Entry,
    Extend,
    Message,
    Mutation,
    Peek,
    Put,
    Record,
    Requeue,
)
from lambent.store.mutations import beyond

Connection = psycopg.Connection[tuple[Any, ...]]

Row = tuple[int, str, bytes, bytes, int, float, str]
"""(operation, name, key, body, number, time, group): one mutation."""

_PUT, _DELETE, _APPEND, _ENQUEUE, _ACKNOWLEDGE, _REQUEUE, _EXTEND = range(1, 8)
_BIGGEST = 2**63 - 1


def encode(mutation: Mutation) -> Row:
    """Raises ``TypeError`` or ``ValueError`` where a value is no JSON or a name cannot be stored."""
    match mutation:
        case Put(kind, key, value, expected):
            return _PUT, _name(kind), key.encode(), json.dumps(value, separators=(",", ":")).encode(), expected, 0.0, ""
        case Delete(kind, key, expected):
            return _DELETE, _name(kind), key.encode(), b"", expected, 0.0, ""
        case Append(topic, body):
            return _APPEND, _name(topic), b"", bytes(body), 0, 0.0, ""
        case Enqueue(queue, body, visible_at, group, leased_until):
            return _ENQUEUE, _name(queue), b"", bytes(body), int(leased_until > 0), leased_until or visible_at, _name(group)
        case Acknowledge(queue, receipt):
            return _held(_ACKNOWLEDGE, queue, receipt, 0.0)
        case Requeue(queue, receipt, visible_at):
            return _held(_REQUEUE, queue, receipt, visible_at)
        case Extend(queue, receipt, visible_at):
            return _held(_EXTEND, queue, receipt, visible_at)


def _name(name: str) -> str:
    if "\0" in name:
        raise ValueError("a name with a NUL character cannot be stored")
    return name


def _held(operation: int, queue: str, receipt: str, visible_at: float) -> Row:
    """A receipt is ``position.attempt``; what is none fits no message."""
    position, _, attempt = receipt.partition(".")
    fits = position.isdecimal() and attempt.isdecimal() and max(int(position), int(attempt)) <= _BIGGEST
    number, lease = (int(position), attempt) if fits else (0, "0")
    return operation, _name(queue), str(int(lease)).encode(), b"", number, visible_at, ""


def commit(connection: Connection, group_id: str, calls: Sequence[Sequence[Row]], now: float) -> list[Any]:
    """Apply ``calls``; an outcome for each that has mutations: a list of numbers, or ``{"at", "found"}`` for a conflict."""
    rows = [(number, *row) for number, call in enumerate(calls, 1) for row in call]
    columns = [list(column) for column in zip(*rows, strict=True)]
    sql = (
        "SELECT lambent_commit(%s, %b::integer[], %b::integer[], %b::text[], %b::bytea[], %b::bytea[], %b::bigint[],"
        " %b::double precision[], %b::text[], %s::double precision)"
    )
    numbers, ops, names, keys, bodies, revisions, times, groups = columns
    floats = [float(time) for time in times]
    row = connection.execute(sql, (group_id, numbers, ops, names, keys, bodies, revisions, floats, groups, now)).fetchone()
    assert row is not None
    outcomes: list[Any] = row[0]
    return outcomes


def recall(connection: Connection, group_id: str) -> list[Any] | None:
    """What ``commit`` of ``group_id`` gave, if it was the last and was committed."""
    row = connection.execute("SELECT outcomes FROM last_group WHERE id = %s", (group_id,)).fetchone()
    return row[0] if row else None


_FREE = (
    " AND (m.grp = '' OR NOT EXISTS (SELECT 1 FROM messages b WHERE b.queue = m.queue AND b.grp = m.grp AND b.grp <> ''"
    " AND b.position < m.position AND b.visible_at > %(now)s))"
)
_LEASE = (
    "WITH due AS MATERIALIZED (SELECT position AS p, since AS s FROM messages m WHERE queue = %(queue)s AND visible_at <= %(now)s {where}"
    " ORDER BY {order} LIMIT %(limit)s FOR UPDATE)"
    " UPDATE messages u SET attempt = attempt + 1, lease = attempt + 1, visible_at = %(until)s, since = %(until)s,"
    " first_leased = CASE first_leased WHEN 0 THEN %(now)s ELSE first_leased END"
    " FROM due WHERE u.position = due.p"
    " RETURNING u.position, u.body, u.attempt, u.enqueued_at, u.grp, u.first_leased, due.s"
)
_LEASE_BY_AGE = _LEASE.format(where="AND since <= %(latest)s", order="since, position")
_LEASE_IN_ORDER = _LEASE.format(where=_FREE, order="position")


def lease(queue: str, limit: int, now: float, visibility: float, latest: float, ordered: bool, connection: Connection) -> list[Message]:
    values = {"queue": queue, "limit": limit, "now": now, "until": now + visibility, "latest": latest}
    rows = connection.execute(_LEASE_IN_ORDER if ordered else _LEASE_BY_AGE, values, binary=True).fetchall()
    rows.sort(key=lambda row: row[0] if ordered else (row[6], row[0]))
    return [
        Message(f"{position}.{attempt}", body, attempt, enqueued_at, group, first)
        for position, body, attempt, enqueued_at, group, first, _ in rows
    ]


def truncate(topic: str, through: int, connection: Connection) -> int:
    return connection.execute("DELETE FROM entries WHERE topic = %s AND position <= %s", (topic, min(through, _BIGGEST))).rowcount


def release(queue: str, now: float, connection: Connection) -> int:
    sql = (
        "UPDATE messages SET lease = 0, visible_at = 0, since = least(enqueued_at, %s)"
        " WHERE queue = %s AND since > %s AND lease > 0 AND visible_at > %s"
    )
    return connection.execute(sql, (now, queue, now, now)).rowcount


def drop(queue: str, position: int, connection: Connection) -> int:
    return connection.execute("DELETE FROM messages WHERE queue = %s AND position = %s", (queue, position)).rowcount


def purge(queue: str, limit: int, connection: Connection) -> int:
    sql = "DELETE FROM messages WHERE position IN (SELECT position FROM messages WHERE queue = %s ORDER BY position LIMIT %s)"
    return connection.execute(sql, (queue, limit)).rowcount


def get(connection: Connection, kind: str, key: str) -> Record | None:
    row = connection.execute("SELECT value, revision FROM documents WHERE kind = %s AND key = %s", (kind, key.encode())).fetchone()
    return Record(key, json.loads(row[0]), row[1]) if row else None


def scan(connection: Connection, kind: str, prefix: str, after: str, limit: int) -> list[Record]:
    sql = "SELECT key, value, revision FROM documents WHERE kind = %s AND key >= %s"
    values: list[object] = [kind, prefix.encode()]
    if after:
        sql += " AND key > %s"
        values.append(after.encode())
    end = beyond(prefix)
    if end:
        sql += " AND key < %s"
        values.append(end.encode())
    rows = connection.execute(sql + " ORDER BY key LIMIT %s", (*values, limit), binary=True)
    return [Record(key.decode(), json.loads(value), revision) for key, value, revision in rows]


def read(connection: Connection, topic: str, after: int, limit: int) -> list[Entry]:
    sql = "SELECT position, body FROM entries WHERE topic = %s AND position > %s ORDER BY position LIMIT %s"
    return [Entry(position, body) for position, body in connection.execute(sql, (topic, after, limit), binary=True)]


def peek(connection: Connection, queue: str, limit: int, after: int, now: float) -> list[Peek]:
    sql = (
        "SELECT position, body, attempt, enqueued_at, visible_at, grp, lease FROM messages"
        " WHERE queue = %s AND position > %s ORDER BY position LIMIT %s"
    )
    rows = connection.execute(sql, (queue, after, limit), binary=True)
    return [
        Peek(position, body, attempt, enqueued_at, visible_at, group, lease > 0 and visible_at > now)
        for position, body, attempt, enqueued_at, visible_at, group, lease in rows
    ]


def depth(connection: Connection, queue: str) -> int:
    row = connection.execute("SELECT count(*) FROM messages WHERE queue = %s", (queue,)).fetchone()
    return row[0] if row else 0


def counts(connection: Connection, queue: str, now: float) -> Counts:
    sql = (
        "SELECT count(*), count(*) FILTER (WHERE visible_at <= %s), count(*) FILTER (WHERE visible_at > %s AND lease > 0)"
        " FROM messages WHERE queue = %s"
    )
    row = connection.execute(sql, (now, now, queue)).fetchone()
    total, visible, leased = row or (0, 0, 0)
    return Counts(visible, leased, total - visible - leased)


def due(connection: Connection, queue: str) -> float | None:
    row = connection.execute("SELECT since FROM messages WHERE queue = %s ORDER BY since LIMIT 1", (queue,)).fetchone()
    return row[0] if row else None


def queues(connection: Connection, prefix: str) -> list[str]:
    """Jumps from name to name in the index, so that a million messages cost no more than their queues."""
    sql = (
        "WITH RECURSIVE name AS ((SELECT queue FROM messages WHERE queue >= %(prefix)s ORDER BY queue LIMIT 1)"
        " UNION ALL SELECT (SELECT m.queue FROM messages m WHERE m.queue > name.queue ORDER BY m.queue LIMIT 1)"
        " FROM name WHERE name.queue IS NOT NULL) SELECT queue FROM name WHERE queue IS NOT NULL AND starts_with(queue, %(prefix)s)"
    )
    return [row[0] for row in connection.execute(sql, {"prefix": prefix})]
