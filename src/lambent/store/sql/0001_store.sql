-- Documents of the KV: one row per (kind, key), the value as JSON text.
CREATE TABLE documents (
    kind     TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    revision INTEGER NOT NULL,
    value    TEXT    NOT NULL,
    PRIMARY KEY (kind, key)
);

-- The last position of every topic that ever had an entry; it outlives the entries, so no position is given twice.
CREATE TABLE topics (
    topic TEXT    NOT NULL PRIMARY KEY,
    head  INTEGER NOT NULL
);

CREATE TABLE entries (
    topic    TEXT    NOT NULL,
    position INTEGER NOT NULL,
    body     BLOB    NOT NULL,
    PRIMARY KEY (topic, position)
) WITHOUT ROWID;

-- Messages of all queues. `since` is when a message became or becomes visible and orders the queue; `lease` is the number of the lease
-- that holds it (its attempt), 0 where none does. AUTOINCREMENT, so that no receipt of a past message ever fits a later one.
CREATE TABLE messages (
    position    INTEGER PRIMARY KEY AUTOINCREMENT,
    queue       TEXT    NOT NULL,
    body        BLOB    NOT NULL,
    enqueued_at REAL    NOT NULL,
    visible_at  REAL    NOT NULL,
    since       REAL    NOT NULL,
    attempt     INTEGER NOT NULL DEFAULT 0,
    lease       INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX messages_by_age ON messages (queue, since, position, visible_at);
