-- Ordered queues: messages of one group keep their order; and when a message was first leased.
ALTER TABLE messages ADD COLUMN grp TEXT NOT NULL DEFAULT '';
ALTER TABLE messages ADD COLUMN first_leased REAL NOT NULL DEFAULT 0;

CREATE INDEX messages_by_group ON messages (queue, grp, position, visible_at) WHERE grp != '';
CREATE INDEX messages_by_position ON messages (queue, position);
