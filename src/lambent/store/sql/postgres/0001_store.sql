-- The store of one node, in the schema that the connection's search_path names first.

-- Documents of the KV. Keys are bytes, so that they sort as everywhere else and may hold any character.
CREATE TABLE documents (
    kind     text   NOT NULL,
    key      bytea  NOT NULL,
    revision bigint NOT NULL,
    value    bytea  NOT NULL,
    PRIMARY KEY (kind, key)
);

-- The last position of every topic that ever had an entry; it outlives the entries, so no position is given twice.
CREATE TABLE topics (
    topic text   NOT NULL PRIMARY KEY,
    head  bigint NOT NULL
);

CREATE TABLE entries (
    topic    text   NOT NULL,
    position bigint NOT NULL,
    body     bytea  NOT NULL,
    PRIMARY KEY (topic, position)
);

-- Messages of all queues; the columns mean what they mean in the embedded store.
CREATE TABLE messages (
    position     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue        text             COLLATE "C" NOT NULL,
    body         bytea            NOT NULL,
    enqueued_at  double precision NOT NULL,
    visible_at   double precision NOT NULL,
    since        double precision NOT NULL,
    attempt      integer          NOT NULL DEFAULT 0,
    lease        integer          NOT NULL DEFAULT 0,
    grp          text             NOT NULL DEFAULT '',
    first_leased double precision NOT NULL DEFAULT 0
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX messages_by_age ON messages (queue, since, position);
CREATE INDEX messages_by_group ON messages (queue, grp, position) WHERE grp <> '';
CREATE INDEX messages_by_position ON messages (queue, position);

-- The last group of calls that was committed, so that a connection lost during COMMIT leaves no doubt.
CREATE TABLE last_group (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    id       text   NOT NULL,
    outcomes jsonb  NOT NULL
);
INSERT INTO last_group (id, outcomes) VALUES ('', '[]');

-- One mutation of a call. Raises LBN01 where a document's revision is not the expected one, with what was found as its detail.
CREATE FUNCTION lambent_mutate(
    op integer, name text, key bytea, body bytea, number bigint, at double precision, grp text, now double precision
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    found_revision bigint;
    result bigint;
BEGIN
    CASE op
    WHEN 1, 2 THEN  -- put, delete
        SELECT revision INTO found_revision FROM documents d WHERE d.kind = name AND d.key = lambent_mutate.key FOR UPDATE;
        found_revision := coalesce(found_revision, 0);
        IF number <> -1 AND number <> found_revision THEN
            RAISE EXCEPTION 'conflict' USING ERRCODE = 'LBN01', DETAIL = found_revision::text;
        END IF;
        IF op = 2 THEN
            DELETE FROM documents d WHERE d.kind = name AND d.key = lambent_mutate.key;
            RETURN CASE WHEN found_revision > 0 THEN 1 ELSE 0 END;
        END IF;
        INSERT INTO documents AS d VALUES (name, lambent_mutate.key, 1, body)
            ON CONFLICT ON CONSTRAINT documents_pkey DO UPDATE SET revision = d.revision + 1, value = excluded.value
            RETURNING d.revision INTO result;
    WHEN 3 THEN  -- append
        INSERT INTO topics AS t VALUES (name, 1) ON CONFLICT (topic) DO UPDATE SET head = t.head + 1 RETURNING head INTO result;
        INSERT INTO entries VALUES (name, result, body);
    WHEN 4 THEN  -- enqueue: number is 1 if it is born leased
        INSERT INTO messages (queue, body, enqueued_at, visible_at, since, grp, attempt, lease, first_leased)
            VALUES (name, lambent_mutate.body, now, at, greatest(at, now), lambent_mutate.grp, number, number, now * number)
            RETURNING position INTO result;
    WHEN 5 THEN  -- acknowledge: number is the position, key the lease
        DELETE FROM messages m WHERE m.position = number AND m.queue = name AND m.lease = convert_from(key, 'UTF8')::bigint AND m.lease > 0;
        GET DIAGNOSTICS result = ROW_COUNT;
    WHEN 6 THEN  -- requeue
        UPDATE messages m SET lease = 0, visible_at = at, since = greatest(at, now)
            WHERE m.position = number AND m.queue = name AND m.lease = convert_from(key, 'UTF8')::bigint AND m.lease > 0;
        GET DIAGNOSTICS result = ROW_COUNT;
    WHEN 7 THEN  -- extend
        UPDATE messages m SET visible_at = at, since = greatest(at, now)
            WHERE m.position = number AND m.queue = name AND m.lease = convert_from(key, 'UTF8')::bigint AND m.lease > 0 AND m.visible_at > now;
        GET DIAGNOSTICS result = ROW_COUNT;
    END CASE;
    RETURN result;
END $$;

-- A group of calls in one round trip. `calls` says to which call (from 1, ascending) each mutation belongs. Each call stands or falls by
-- itself. Gives a list with one outcome per call: the numbers of its mutations, or {"at": index of the mutation, "found": revision}.
CREATE FUNCTION lambent_commit(
    group_id text, calls integer[], ops integer[], names text[], keys bytea[], bodies bytea[], numbers bigint[],
    times double precision[], grps text[], now double precision
) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    told jsonb := '[]';
    results bigint[];
    i integer := 1;
    call integer;
    last integer := coalesce(array_length(calls, 1), 0);
    detail text;
BEGIN
    WHILE i <= last LOOP
        call := calls[i];
        results := '{}';
        BEGIN
            WHILE i <= last AND calls[i] = call LOOP
                results := results || lambent_mutate(ops[i], names[i], keys[i], bodies[i], numbers[i], times[i], grps[i], now);
                i := i + 1;
            END LOOP;
            told := told || jsonb_build_array(to_jsonb(results));
        EXCEPTION WHEN SQLSTATE 'LBN01' THEN
            GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
            told := told || jsonb_build_array(jsonb_build_object('at', i, 'found', detail::bigint));
            WHILE i <= last AND calls[i] = call LOOP
                i := i + 1;
            END LOOP;
        END;
    END LOOP;
    UPDATE last_group SET id = group_id, outcomes = told;
    RETURN told;
END $$;
