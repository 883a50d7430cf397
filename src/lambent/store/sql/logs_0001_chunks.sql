-- The sequence number that the next log line gets; everything below it is in chunks, whatever journals still say.
CREATE TABLE ledger (
    only     INTEGER PRIMARY KEY CHECK (only = 1),
    next_seq INTEGER NOT NULL
);

INSERT INTO ledger VALUES (1, 1);

CREATE TABLE log_groups (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    account    TEXT    NOT NULL,
    region     TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    created    INTEGER NOT NULL,
    retention  INTEGER,
    bytes      INTEGER NOT NULL DEFAULT 0,
    class      TEXT    NOT NULL DEFAULT 'STANDARD',
    tags       TEXT    NOT NULL DEFAULT '{}',
    UNIQUE (account, region, name)
);

-- Times in milliseconds since the epoch; `first_ts` and `last_ts` are NULL until there was an event.
CREATE TABLE log_streams (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    group_id  INTEGER NOT NULL,
    name      TEXT    NOT NULL,
    created   INTEGER NOT NULL,
    first_ts  INTEGER,
    last_ts   INTEGER,
    ingested  INTEGER,
    UNIQUE (group_id, name)
);

CREATE INDEX log_streams_by_time ON log_streams (group_id, coalesce(last_ts, 0), name);

-- One row holds what one stream got between two flushes; `data` is a byte for the packing and then blocks (observe/log_blocks.py).
-- No chunk spans more than a minute, so that an index on its first timestamp answers questions about any time range.
CREATE TABLE chunks (
    id        INTEGER PRIMARY KEY,
    group_id  INTEGER NOT NULL,
    stream_id INTEGER NOT NULL,
    first_ts  INTEGER NOT NULL,
    last_ts   INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    lines     INTEGER NOT NULL,
    bytes     INTEGER NOT NULL,
    data      BLOB    NOT NULL
);

CREATE INDEX chunks_of_streams ON chunks (stream_id, first_ts, last_ts);
CREATE INDEX chunks_of_groups ON chunks (group_id, first_ts, last_ts, stream_id);
