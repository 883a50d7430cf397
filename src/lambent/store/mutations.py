"""What each mutation does to the tables, and what each question asks of them: plain functions on an open connection.

``bind`` runs in the caller's thread: it freezes a mutation into a function of the connection alone, so a document that the caller
changes afterwards is stored as it was. The functions run in the writer's thread, inside the transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from functools import partial

from lambent.store.contract import (
    ANY,
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
    StoreConflict,
)

Change = Callable[[sqlite3.Connection], int]

_LAST = 0x10FFFF


def bind(mutation: Mutation, now: float) -> Change:
    """The change that ``mutation`` means. Raises ``TypeError`` or ``ValueError`` where its value is no JSON."""
    match mutation:
        case Put(kind, key, value, expected):
            return partial(_put, kind, key, json.dumps(value, separators=(",", ":")), expected)
        case Delete(kind, key, expected):
            return partial(_delete, kind, key, expected)
        case Append(topic, body):
            return partial(_append, topic, bytes(body))
        case Enqueue(queue, body, visible_at, group, leased_until):
            return partial(_enqueue, queue, bytes(body), visible_at, group, leased_until, now)
        case Acknowledge(queue, receipt):
            return partial(_acknowledge, queue, receipt)
        case Requeue(queue, receipt, visible_at):
            return partial(_requeue, queue, receipt, visible_at, now)
        case Extend(queue, receipt, visible_at):
            return partial(_extend, queue, receipt, visible_at, now)


def _expect(connection: sqlite3.Connection, kind: str, key: str, expected: int) -> int:
    """The revision that stands there, 0 if none; raises where it is not the expected one."""
    row = connection.execute("SELECT revision FROM documents WHERE kind = ? AND key = ?", (kind, key)).fetchone()
    found: int = row[0] if row else 0
    if expected not in (ANY, found):
        raise StoreConflict(kind, key, expected, found)
    return found


def _put(kind: str, key: str, text: str, expected: int, connection: sqlite3.Connection) -> int:
    revision = _expect(connection, kind, key, expected) + 1
    if revision == 1:
        connection.execute("INSERT INTO documents (kind, key, revision, value) VALUES (?, ?, 1, ?)", (kind, key, text))
    else:
        connection.execute("UPDATE documents SET revision = ?, value = ? WHERE kind = ? AND key = ?", (revision, text, kind, key))
    return revision


def _delete(kind: str, key: str, expected: int, connection: sqlite3.Connection) -> int:
    _expect(connection, kind, key, expected)
    return connection.execute("DELETE FROM documents WHERE kind = ? AND key = ?", (kind, key)).rowcount


def _append(topic: str, body: bytes, connection: sqlite3.Connection) -> int:
    connection.execute("INSERT INTO topics VALUES (?, 1) ON CONFLICT (topic) DO UPDATE SET head = head + 1", (topic,))
    position: int = connection.execute("SELECT head FROM topics WHERE topic = ?", (topic,)).fetchone()[0]
    connection.execute("INSERT INTO entries VALUES (?, ?, ?)", (topic, position, body))
    return position


def _enqueue(
    queue: str, body: bytes, visible_at: float, group: str, leased_until: float, now: float, connection: sqlite3.Connection
) -> int:
    held = int(leased_until > 0)
    until = leased_until or visible_at
    cursor = connection.execute(
        "INSERT INTO messages (queue, body, enqueued_at, visible_at, since, grp, attempt, lease, first_leased)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (queue, body, now, until, max(until, now), group, held, held, now * held),
    )
    return cursor.lastrowid or 0


def _receipt(receipt: str) -> tuple[int, int]:
    """``position.attempt``; what is none fits no message."""
    position, _, attempt = receipt.partition(".")
    return (int(position), int(attempt)) if position.isdecimal() and attempt.isdecimal() and len(receipt) < 36 else (0, 0)


def _acknowledge(queue: str, receipt: str, connection: sqlite3.Connection) -> int:
    position, attempt = _receipt(receipt)
    sql = "DELETE FROM messages WHERE position = ? AND queue = ? AND lease = ? AND lease > 0"
    return connection.execute(sql, (position, queue, attempt)).rowcount


def _requeue(queue: str, receipt: str, visible_at: float, now: float, connection: sqlite3.Connection) -> int:
    position, attempt = _receipt(receipt)
    sql = "UPDATE messages SET lease = 0, visible_at = ?, since = ? WHERE position = ? AND queue = ? AND lease = ? AND lease > 0"
    return connection.execute(sql, (visible_at, max(visible_at, now), position, queue, attempt)).rowcount


def _extend(queue: str, receipt: str, visible_at: float, now: float, connection: sqlite3.Connection) -> int:
    position, attempt = _receipt(receipt)
    sql = "UPDATE messages SET visible_at = ?, since = ? WHERE position = ? AND queue = ? AND lease = ? AND lease > 0 AND visible_at > ?"
    return connection.execute(sql, (visible_at, max(visible_at, now), position, queue, attempt, now)).rowcount


_LEASED = "SELECT position, body, enqueued_at, attempt, grp, first_leased FROM messages AS m WHERE queue = ? AND visible_at <= ?"
_FREE = (
    " AND (grp = '' OR NOT EXISTS (SELECT 1 FROM messages AS b"
    " WHERE b.queue = m.queue AND b.grp = m.grp AND b.grp != '' AND b.position < m.position AND b.visible_at > ?))"
)


def lease(
    queue: str, limit: int, now: float, visibility: float, latest: float, ordered: bool, connection: sqlite3.Connection
) -> list[Message]:
    """``latest`` bounds the search: nothing that is visible at ``now`` became visible after it, by any clock we have."""
    if ordered:
        rows = connection.execute(f"{_LEASED}{_FREE} ORDER BY position LIMIT ?", (queue, now, now, limit)).fetchall()
    else:
        rows = connection.execute(f"{_LEASED} AND since <= ? ORDER BY since, position LIMIT ?", (queue, now, latest, limit)).fetchall()
    until = now + visibility
    connection.executemany(
        "UPDATE messages SET attempt = attempt + 1, lease = attempt + 1, visible_at = ?, since = ?, first_leased = ? WHERE position = ?",
        [(until, until, row[5] or now, row[0]) for row in rows],
    )
    return [
        Message(f"{position}.{attempt + 1}", body, attempt + 1, enqueued_at, group, first or now)
        for position, body, enqueued_at, attempt, group, first in rows
    ]


def release(queue: str, now: float, connection: sqlite3.Connection) -> int:
    """``since`` goes back to what it was at the start, as near as that is known: they are the oldest."""
    sql = (
        "UPDATE messages SET lease = 0, visible_at = 0, since = min(enqueued_at, ?1)"
        " WHERE queue = ?2 AND since > ?1 AND lease > 0 AND visible_at > ?1"  # by age: of a million that wait none is looked at
    )
    return connection.execute(sql, (now, queue)).rowcount


def drop(queue: str, position: int, connection: sqlite3.Connection) -> int:
    return connection.execute("DELETE FROM messages WHERE position = ? AND queue = ?", (position, queue)).rowcount


def purge(queue: str, limit: int, connection: sqlite3.Connection) -> int:
    sql = "DELETE FROM messages WHERE position IN (SELECT position FROM messages WHERE queue = ? ORDER BY position LIMIT ?)"
    return connection.execute(sql, (queue, limit)).rowcount


def truncate(topic: str, through: int, connection: sqlite3.Connection) -> int:
    return connection.execute("DELETE FROM entries WHERE topic = ? AND position <= ?", (topic, through)).rowcount


def get(connection: sqlite3.Connection, kind: str, key: str) -> Record | None:
    row = connection.execute("SELECT value, revision FROM documents WHERE kind = ? AND key = ?", (kind, key)).fetchone()
    return Record(key, json.loads(row[0]), row[1]) if row else None


def scan(connection: sqlite3.Connection, kind: str, prefix: str, after: str, limit: int) -> list[Record]:
    """SQLite compares text by its UTF-8 bytes, which is the order of the code points."""
    sql = "SELECT key, value, revision FROM documents WHERE kind = ? AND key >= ? AND key > ?"
    values: list[object] = [kind, prefix, after]
    if not after and not prefix:
        sql, values = "SELECT key, value, revision FROM documents WHERE kind = ?", [kind]
    end = beyond(prefix)
    if end:
        sql += " AND key < ?"
        values.append(end)
    rows = connection.execute(f"{sql} ORDER BY key LIMIT ?", (*values, limit))
    return [Record(key, json.loads(value), revision) for key, value, revision in rows]


def beyond(prefix: str) -> str:
    """The least text that sorts after everything that starts with ``prefix``; ``""`` where there is none."""
    while prefix:
        code = ord(prefix[-1]) + 1
        if code <= _LAST:
            return prefix[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)
        prefix = prefix[:-1]
    return ""


def read(connection: sqlite3.Connection, topic: str, after: int, limit: int) -> list[Entry]:
    sql = "SELECT position, body FROM entries WHERE topic = ? AND position > ? ORDER BY position LIMIT ?"
    return [Entry(position, body) for position, body in connection.execute(sql, (topic, after, limit))]


def depth(connection: sqlite3.Connection, queue: str) -> int:
    count: int = connection.execute("SELECT count(*) FROM messages WHERE queue = ?", (queue,)).fetchone()[0]
    return count


def peek(connection: sqlite3.Connection, queue: str, limit: int, after: int, now: float) -> list[Peek]:
    sql = (
        "SELECT position, body, attempt, enqueued_at, visible_at, grp, lease FROM messages"
        " WHERE queue = ? AND position > ? ORDER BY position LIMIT ?"
    )
    rows = connection.execute(sql, (queue, after, limit))
    return [
        Peek(position, body, attempt, enqueued_at, visible_at, group, lease > 0 and visible_at > now)
        for position, body, attempt, enqueued_at, visible_at, group, lease in rows
    ]


def counts(connection: sqlite3.Connection, queue: str, now: float) -> Counts:
    sql = "SELECT count(*), total(visible_at <= ?1), total(visible_at > ?1 AND lease > 0) FROM messages WHERE queue = ?2"
    total, visible, leased = map(int, connection.execute(sql, (now, queue)).fetchone())
    return Counts(visible, leased, total - visible - leased)


def due(connection: sqlite3.Connection, queue: str) -> float | None:
    found: float | None = connection.execute("SELECT min(since) FROM messages WHERE queue = ?", (queue,)).fetchone()[0]
    return found


def queues(connection: sqlite3.Connection, prefix: str) -> list[str]:
    """Jumps from name to name in the index, so that a million messages cost no more than their queues."""
    names: list[str] = []
    sql = "SELECT min(queue) FROM messages WHERE queue >= ?"
    found = connection.execute(sql, (prefix,)).fetchone()[0]
    while found is not None and found.startswith(prefix):
        names.append(found)
        found = connection.execute("SELECT min(queue) FROM messages WHERE queue > ?", (found,)).fetchone()[0]
    return names
