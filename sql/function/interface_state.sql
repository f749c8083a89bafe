-- What ingest_heartbeats asks of interfaces that are not in its plain way: late, new or gone.
-- Replaceable: reapplied on every upgrade.

-- The stored sample at or before a moment; null: none. Volatile, so that it sees what was committed up to the moment
-- when the caller had the server's row, and not only up to the start of the caller's statement.
CREATE OR REPLACE FUNCTION linkbeat.sample_before(of_server text, of_interface text, moment timestamptz)
RETURNS linkbeat.interface_state LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    stored network_interface_metrics;
BEGIN
    SELECT * INTO stored FROM network_interface_metrics
    WHERE server_id = of_server AND interface_name = of_interface AND time <= moment
    ORDER BY time DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN linkbeat.as_state(linkbeat.with_counters(stored));
END $$;

-- The same of all samples of late heartbeats, in one query for a batch; null: none.
--   late           their places in of_servers and times
--   beats, names   parallel arrays: samples of all heartbeats, each with the place of its own
-- ROWS: as linkbeat.states_of. Strict: a batch without late heartbeats asks nothing.
CREATE OR REPLACE FUNCTION linkbeat.samples_before(
    late integer[], of_servers text[], times timestamptz[], beats integer[], names text[]
) RETURNS TABLE (place integer, name text, state linkbeat.interface_state)
LANGUAGE plpgsql VOLATILE STRICT ROWS 1 AS $$
BEGIN
    RETURN QUERY
    SELECT s.place, s.name, CASE WHEN (stored).time IS NOT NULL THEN linkbeat.as_state(linkbeat.with_counters(stored)) END
    FROM (
        SELECT s.place, s.name, (
            SELECT r FROM network_interface_metrics r
            WHERE r.server_id = of_servers[s.place] AND r.interface_name = s.name AND r.time <= times[s.place]
            ORDER BY r.time DESC LIMIT 1) AS stored
        FROM (SELECT unnest(beats) AS place, unnest(names) AS name OFFSET 0) AS s
        WHERE s.place = ANY (late)
        OFFSET 0
    ) AS s;
END $$;

-- A row of the history as the state of its interface; what the history does not tell is null.
CREATE OR REPLACE FUNCTION linkbeat.as_state(m network_interface_metrics) RETURNS linkbeat.interface_state
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(m.time, m.rx_bytes, m.tx_bytes, m.rx_packets, m.tx_packets, m.rx_bytes_delta, m.tx_bytes_delta,
           m.elapsed_ms, m.is_up, m.counts_64bit, m.is_lowest, m.is_folded, m.interface_name, m.delta_kind, m.boot, NULL,
           m.rx_errors, m.tx_errors, m.rx_dropped, m.tx_dropped, m.speed_mbps, NULL, NULL, NULL,
           m.ifindex, m.levels, m.old_levels, m.doubted_since, NULL, NULL
       )::linkbeat.interface_state;

-- The state of an interface as the row of the history that it was: what linkbeat.judge reads of it.
CREATE OR REPLACE FUNCTION linkbeat.as_row(of_server text, i linkbeat.interface_state) RETURNS network_interface_metrics
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    m network_interface_metrics;
BEGIN
    m.server_id := of_server; m.interface_name := i.interface_name; m.time := i.time; m.boot := i.boot;
    m.rx_bytes := i.rx_bytes; m.tx_bytes := i.tx_bytes; m.rx_packets := i.rx_packets; m.tx_packets := i.tx_packets;
    m.rx_errors := i.rx_errors; m.tx_errors := i.tx_errors; m.rx_dropped := i.rx_dropped; m.tx_dropped := i.tx_dropped;
    m.counts_64bit := i.counts_64bit; m.speed_mbps := i.speed_mbps; m.ifindex := i.ifindex;
    m.rx_bytes_delta := i.rx_bytes_delta; m.tx_bytes_delta := i.tx_bytes_delta; m.elapsed_ms := i.elapsed_ms;
    m.delta_kind := i.delta_kind; m.levels := i.levels; m.old_levels := i.old_levels; m.doubted_since := i.doubted_since;
    RETURN m;
END $$;

-- The names in interface_state.stacked_on. In a name of a series, a unit separator stands for its '/'.
CREATE OR REPLACE FUNCTION linkbeat.names_below(stacked_on text) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN string_to_array(translate(stacked_on, U&'/\001F', U&'\001E/'), U&'\001E');

-- Whether a boot of the server was noted before. Volatile, as linkbeat.sample_before.
CREATE OR REPLACE FUNCTION linkbeat.is_known_boot(of_server text, of_boot bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM server_boots WHERE server_id = of_server AND boot = of_boot);
END $$;

-- A sample that is newer than any of its interface, judged from the state before it; its old_levels are '{}' if the row
-- before it is a glitch, which is yet to be marked. Null where it may show otherwise that stored rows were wrong:
-- repair_deltas finds out, and corrects those first.
-- Volatile, as linkbeat.sample_before: the rows that it asks for may be of the writer that this one waited for.
--   uptime  seconds since the machine's boot, as the heartbeat says
CREATE OR REPLACE FUNCTION linkbeat.judge_newest(
    of_server text, previous linkbeat.interface_state, current linkbeat.interface_state, interval_ms integer,
    uptime double precision
) RETURNS network_interface_metrics LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    base network_interface_metrics := linkbeat.as_row(of_server, previous);
    m    network_interface_metrics := linkbeat.as_row(of_server, current);
BEGIN
    m.interval_ms := interval_ms;
    IF linkbeat.may_be_back(base, m) THEN
        RETURN CASE WHEN NOT previous.is_folded THEN linkbeat.after_glitch(base, m) END;
    END IF;
    m := linkbeat.judge(base, m, uptime);
    IF (base.boot <> m.boot) IS TRUE AND NOT linkbeat.is_uuid_boot(m.boot) THEN
        m.levels := coalesce(m.levels, '{}');  -- as judge_again marks it: repair has to find it where earlier rows change
    END IF;
    RETURN m;
END $$;

-- How many interfaces a server's row remembers; a heartbeat may name half as many (MAX_INTERFACES in service/wire.py). The
-- history still has the counters of an interface that was forgotten.
CREATE OR REPLACE FUNCTION linkbeat.max_remembered() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 4000;

-- The interfaces that a server's row remembers. ROWS: a full join hashes the side of which it expects fewer, and keeps the
-- order of the other one, the samples.
CREATE OR REPLACE FUNCTION linkbeat.states_of(interface_names text[], interfaces linkbeat.interface_state[])
RETURNS TABLE (name text, state linkbeat.interface_state) LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE ROWS 1 AS $$
BEGIN
    RETURN QUERY SELECT unnest(interface_names), unnest(interfaces);
END $$;

-- What a server remembers after its newest heartbeat: the interfaces that it names (`current`), in its order, and of those
-- that are absent from it those worth remembering: folded ones for as long as they could come to a series of their own, the
-- others for as long as raw rows are usual. Past linkbeat.max_remembered() the longest absent are forgotten first.
-- Grouped, because the planner expects few elements of an array: a join might compare thousands of names with thousands.
CREATE OR REPLACE FUNCTION linkbeat.remembered_interfaces(
    had linkbeat.interface_state[], current linkbeat.interface_state[], moment timestamptz, fold_seconds integer,
    OUT names text[], OUT interfaces linkbeat.interface_state[]
) LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    SELECT coalesce(array_agg((state).interface_name), '{}'), coalesce(array_agg(state), '{}') INTO names, interfaces
    FROM (
        SELECT state
        FROM (
            -- The name of an interface that both have stands twice; the current state has an ordinal.
            SELECT (array_agg(state ORDER BY ordinal))[1] AS state, min(ordinal) AS ordinal
            FROM (
                SELECT (state).interface_name AS name, state, NULL AS ordinal FROM (SELECT unnest(had) AS state OFFSET 0) AS h
                UNION ALL
                SELECT (state).interface_name, state, ordinal
                FROM (SELECT unnest(current) AS state, generate_subscripts(current, 1) AS ordinal OFFSET 0) AS c
            ) AS either
            GROUP BY name
            OFFSET 0
        ) AS newest
        WHERE ordinal IS NOT NULL
           OR (state).time > moment - CASE WHEN (state).is_folded THEN fold_seconds * INTERVAL '1 second' ELSE INTERVAL '14 days' END
        ORDER BY ordinal, (state).time DESC, (state).interface_name
        LIMIT linkbeat.max_remembered()
    ) AS kept;
END $$;

-- Writes rows of the history, one of each interface, into their server's state where they are the newest of it.
CREATE OR REPLACE FUNCTION linkbeat.remember_interfaces(of_server text, newest network_interface_metrics[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    names      text[];
    states     linkbeat.interface_state[];
    is_changed boolean;
BEGIN
    SELECT array_agg((state).interface_name), array_agg(state), bool_or(state IS DISTINCT FROM had)
    INTO names, states, is_changed
    FROM (
        SELECT had, linkbeat.newer_state(had, m) AS state
        FROM (
            SELECT (array_agg(state) FILTER (WHERE state IS DISTINCT FROM NULL))[1] AS had,
                   (array_agg(m) FILTER (WHERE m IS DISTINCT FROM NULL))[1] AS m, min(place) AS place
            FROM (
                SELECT (state).interface_name AS name, state, NULL::network_interface_metrics AS m, place
                FROM (SELECT unnest(interfaces) AS state, generate_subscripts(interfaces, 1) AS place
                      FROM servers WHERE server_id = of_server OFFSET 0) AS s
                UNION ALL
                SELECT (m).interface_name, NULL, m, NULL FROM (SELECT unnest(newest) AS m OFFSET 0) AS n
            ) AS either
            GROUP BY name
            OFFSET 0
        ) AS paired
        ORDER BY (linkbeat.newer_state(had, m)).time DESC, place
        LIMIT linkbeat.max_remembered()
    ) AS kept;
    IF is_changed THEN
        UPDATE servers SET interface_names = names, interfaces = states WHERE server_id = of_server;
    END IF;
END $$;

-- The states of a server's interfaces after rows of their history that they are the states of; null where these are not all
-- among them, or are many: then linkbeat.remember_interfaces is to be asked.
CREATE OR REPLACE FUNCTION linkbeat.states_after(
    names text[], states linkbeat.interface_state[], changed network_interface_metrics[]
) RETURNS linkbeat.interface_state[] LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    m   network_interface_metrics;
    had linkbeat.interface_state;
    at  integer;
BEGIN
    IF cardinality(names) > 64 THEN  -- each search in the array costs as much as it has names
        RETURN NULL;
    END IF;
    FOREACH m IN ARRAY changed LOOP
        at := array_position(names, m.interface_name);
        had := states[at];
        IF (had.time = m.time) IS NOT TRUE THEN
            RETURN NULL;
        END IF;
        states[at] := linkbeat.newer_state(had, m);
    END LOOP;
    RETURN states;
END $$;

-- The state of an interface after a row of its history, null for none; of what the history does not tell, as it was.
CREATE OR REPLACE FUNCTION linkbeat.newer_state(had linkbeat.interface_state, m network_interface_metrics)
RETURNS linkbeat.interface_state LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    state linkbeat.interface_state := linkbeat.as_state(m);
BEGIN
    IF m.time IS NULL OR had.time > m.time THEN
        RETURN had;
    END IF;
    state.first_seen := coalesce(had.first_seen, m.time);
    state.kind := had.kind;
    state.stacked_on := had.stacked_on;
    state.operstate := had.operstate;
    state.carrier_changes := had.carrier_changes;
    state.os_name := had.os_name;
    RETURN state;
END $$;

-- Late heartbeats: when their servers were heard from, and what was sent again. Returns the places of those without
-- samples that were stored before: those of the newest heartbeat's time, and those whose metrics were there (measured).
CREATE OR REPLACE FUNCTION linkbeat.note_late(
    late integer[], beat_servers text[], beat_times timestamptz[], sample_beats integer[],
    measured integer[], duplicate integer[], conflict integer[]
) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
    again integer[];
BEGIN
    SELECT array_agg(p) INTO again FROM unnest(late) AS p
    WHERE p <> ALL (coalesce(sample_beats, '{}'))
      AND (EXISTS (SELECT FROM servers s WHERE s.server_id = beat_servers[p] AND s.last_seen = beat_times[p])
           OR p = ANY (measured));
    UPDATE servers s SET
        received_at = statement_timestamp(),
        received_before = s.received_at,
        first_seen = least(s.first_seen, l.time),
        duplicates = s.duplicates + l.is_duplicate::integer,
        conflicts = s.conflicts + l.is_conflict::integer
    FROM (
        SELECT beat_servers[p] AS server_id, beat_times[p] AS time, coalesce(p = ANY (conflict), false) AS is_conflict,
               -- All of its samples were there: the heartbeat was.
               coalesce(p = ANY (again), false)
               OR coalesce(p = ANY (duplicate) AND cardinality(array_positions(duplicate, p))
                                                   = cardinality(array_positions(sample_beats, p)), false) AS is_duplicate
        FROM unnest(late) AS p
    ) l
    WHERE s.server_id = l.server_id;
    INSERT INTO linkbeat.late_arrivals (server_id, since, until)
    SELECT beat_servers[p], beat_times[p], beat_times[p] FROM unnest(late) AS p WHERE p <> ALL (coalesce(again, '{}'));
    RETURN again;
END $$;
