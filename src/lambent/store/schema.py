"""Versions of a database file's schema: numbered SQL files, applied in order, each in a transaction of its own.

The files stand in ``store/sql`` and are named ``<family>NNNN_what.sql``; a family is one kind of database file (``""`` for the store,
``"logs_"`` for the log store). Those of PostgreSQL stand in ``store/sql/postgres`` and are applied by ``postgres_engine.py``. The table
``migrations`` tells which of them a database has had. One that a newer Lambent has written is refused, since an older one could only
damage it.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from importlib.resources import files

from lambent.store.contract import StoreUnavailable

_TABLE = "CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at REAL NOT NULL)"


class SchemaTooNew(StoreUnavailable):
    """The file was written by a newer Lambent than this one."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file."""

    version: int
    name: str
    script: str


def migrations(family: str, folder: str = "") -> list[Migration]:
    """The known migrations of a family, oldest first."""
    pattern = re.compile(rf"{family}(\d{{4}})_\w+\.sql")
    found = []
    for entry in (files("lambent.store") / "sql" / folder).iterdir():
        match = pattern.fullmatch(entry.name)
        if match:
            found.append(Migration(int(match[1]), entry.name, entry.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.version)


def later(known: list[Migration], present: int) -> list[Migration]:
    """Those that data of version ``present`` has not had. Raises ``SchemaTooNew``."""
    newest = max((migration.version for migration in known), default=0)
    if present > newest:
        raise SchemaTooNew(
            f"the data was written by a newer Lambent (schema {present}; this one knows {newest}); install that one or newer"
        )
    return [migration for migration in known if migration.version > present]


def migrate(connection: sqlite3.Connection, family: str, now: float, known: list[Migration] | None = None) -> None:
    """Bring the open database (autocommit mode) up to date; ``now`` is wall time. Raises ``SchemaTooNew`` and ``sqlite3.Error``."""
    known = migrations(family) if known is None else known
    connection.execute(_TABLE)
    (present,) = connection.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()
    for migration in later(known, present):
        _apply(connection, migration, now)


def _apply(connection: sqlite3.Connection, migration: Migration, now: float) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _statements(migration.script):
            connection.execute(statement)
        connection.execute("INSERT INTO migrations VALUES (?, ?, ?)", (migration.version, migration.name, now))
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _statements(script: str) -> list[str]:
    """``executescript`` would commit behind our back, so the script is taken apart here."""
    found: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    return found
