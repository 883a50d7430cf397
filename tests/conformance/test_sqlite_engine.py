"""Which groups of SQLite's engine wait for the disk."""

from __future__ import annotations

from functools import partial

import pytest

from lambent.store.connection import connect
from lambent.store.group_commit import Soft, Ticket
from lambent.store.sqlite_engine import SqliteEngine

NORMAL, FULL = 1, 2


def flushed(connection):
    return connection.execute("PRAGMA synchronous").fetchone()[0]


@pytest.fixture
def engine(tmp_path):
    engine = SqliteEngine("test", partial(connect, tmp_path / "a.sqlite", "FULL"))
    yield engine
    engine.close()


def run(engine, *jobs):
    group = [Ticket(job, None) for job in jobs]
    assert engine.attempt(group)
    assert [ticket.error for ticket in group] == [None] * len(group)
    return [ticket.value for ticket in group]


def test_only_a_group_of_nothing_but_soft_jobs_does_not_wait_for_the_disk(engine):
    soft = Soft(flushed)
    assert run(engine, flushed) == [FULL]
    assert run(engine, soft, soft) == [NORMAL, NORMAL]
    assert run(engine, soft, flushed) == [FULL, FULL]
    assert run(engine, soft) == [NORMAL]
    assert run(engine, flushed) == [FULL]


def test_a_new_connection_begins_with_the_disk(engine):
    assert run(engine, Soft(flushed)) == [NORMAL]
    engine.close()
    assert run(engine, flushed) == [FULL]
    assert run(engine, Soft(flushed)) == [NORMAL]
