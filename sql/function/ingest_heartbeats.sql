-- ingest_heartbeats: the only writer of servers, network_interfaces and network_interface_metrics.
-- Idempotent on (server_id, interface_name, time): what is stored already stays as it is.
-- Replaceable: reapplied on every upgrade.
--
-- Input, parallel arrays:
--   server_*   one element per server of the batch, by server_id: its newest heartbeat
--   sample_*   one element per interface and heartbeat, ordered by (server_id, interface_name, time), keys unique;
--              sample_heartbeat is the caller's number of the heartbeat that it came in
-- Output:
--   registered   servers that were not known before
--   repeated     servers whose newest heartbeat here was their newest already
--   duplicate    the heartbeat's number, once for each sample that was stored before
--   conflict     the same, for those of them that were stored with other values (the first stays)
--
-- Writers of one server take turns at its row in servers: each then sees all that the one before committed, and
-- neither predecessor nor successor of a sample can appear unseen. Rows are locked in the order of server_id, so
-- that two batches cannot wait for each other.
CREATE OR REPLACE FUNCTION linkbeat.ingest_heartbeats(
    server_ids text[], server_times timestamptz[], server_hostnames text[], server_guids text[],
    server_boot_ids text[], server_agent_versions text[], server_statuses text[], server_intervals float8[],
    server_primary_interfaces text[], server_os_infos jsonb[], server_metrics jsonb[], server_filesystems jsonb[],
    sample_heartbeats integer[], sample_servers text[], sample_names text[], sample_times timestamptz[],
    sample_boots bigint[], sample_rx_bytes bigint[], sample_tx_bytes bigint[],
    sample_rx_packets bigint[], sample_tx_packets bigint[], sample_rx_errors bigint[], sample_tx_errors bigint[],
    sample_rx_dropped bigint[], sample_tx_dropped bigint[], sample_is_up boolean[],
    OUT registered text[], OUT repeated text[], OUT duplicate integer[], OUT conflict integer[]
) LANGUAGE plpgsql AS $$
DECLARE
    updated    text[];
    odd        integer[];
    late       integer[];
    late_until timestamptz[];
    walk       record;
    walked_server    text;
    walked_interface text;
    walked_until     timestamptz;
BEGIN
    WITH written AS (
        INSERT INTO servers AS s (server_id, hostname, server_guid, first_seen, last_seen, received_at,
                                  interval_seconds, reported_status, boot_id, agent_version, primary_interface,
                                  os_info, latest_metrics, filesystems)
        SELECT n.server_id, n.hostname, n.guid, n.time, n.time, statement_timestamp(), n.interval_seconds, n.status,
               n.boot_id, n.agent_version, n.primary_interface, n.os_info, n.metrics, n.filesystems
        FROM unnest(server_ids, server_times, server_hostnames, server_guids, server_boot_ids, server_agent_versions,
                    server_statuses, server_intervals, server_primary_interfaces, server_os_infos, server_metrics,
                    server_filesystems)
             AS n(server_id, time, hostname, guid, boot_id, agent_version, status, interval_seconds,
                  primary_interface, os_info, metrics, filesystems)
        ON CONFLICT (server_id) DO UPDATE SET
            hostname = EXCLUDED.hostname,
            server_guid = coalesce(EXCLUDED.server_guid, s.server_guid),
            last_seen = EXCLUDED.last_seen,
            received_at = EXCLUDED.received_at,
            interval_seconds = EXCLUDED.interval_seconds,
            reported_status = EXCLUDED.reported_status,
            boot_id = EXCLUDED.boot_id,
            agent_version = coalesce(EXCLUDED.agent_version, s.agent_version),
            primary_interface = EXCLUDED.primary_interface,
            os_info = coalesce(EXCLUDED.os_info, s.os_info),
            latest_metrics = EXCLUDED.latest_metrics,
            filesystems = EXCLUDED.filesystems
        -- Not newer: the row is locked all the same, which the samples below rely on.
        WHERE EXCLUDED.last_seen > s.last_seen
        RETURNING s.server_id, s.xmax = 0 AS inserted  -- xmax is 0 in a new row, the updater's id in one updated
    )
    SELECT array_agg(server_id), array_agg(server_id) FILTER (WHERE inserted) INTO updated, registered FROM written;

    IF coalesce(cardinality(updated), 0) < cardinality(server_ids) THEN
        UPDATE servers SET received_at = statement_timestamp()
        WHERE server_id = ANY (server_ids) AND server_id <> ALL (coalesce(updated, '{}'));

        SELECT array_agg(s.server_id) INTO repeated
        FROM unnest(server_ids, server_times) AS n(server_id, time) JOIN servers s USING (server_id)
        WHERE s.last_seen = n.time AND n.server_id <> ALL (coalesce(updated, '{}'));
    END IF;

    IF cardinality(sample_servers) = 0 THEN
        RETURN;
    END IF;

    WITH sample AS (
        SELECT n.*,
               ROW(n.time, n.boot, linkbeat.proves_64bit(n.rx_bytes, n.tx_bytes), n.rx_bytes, n.tx_bytes, n.rx_packets,
                   n.tx_packets, n.rx_errors, n.tx_errors, n.rx_dropped, n.tx_dropped, n.is_up)::linkbeat.reading
                   AS reading
        FROM unnest(sample_heartbeats, sample_servers, sample_names, sample_times, sample_boots,
                    sample_rx_bytes, sample_tx_bytes, sample_rx_packets, sample_tx_packets,
                    sample_rx_errors, sample_tx_errors, sample_rx_dropped, sample_tx_dropped, sample_is_up)
             WITH ORDINALITY
             AS n(heartbeat, server_id, interface_name, time, boot, rx_bytes, tx_bytes, rx_packets, tx_packets,
                  rx_errors, tx_errors, rx_dropped, tx_dropped, is_up, ordinal)
    ), following AS (
        SELECT s.*, CASE WHEN lag(server_id) OVER batch = server_id AND lag(interface_name) OVER batch = interface_name
                         THEN lag(reading) OVER batch END AS before
        FROM sample s
        WINDOW batch AS (ORDER BY ordinal)
    ), linked AS MATERIALIZED (
        SELECT f.*,
               CASE WHEN p.reading IS NULL OR (f.before).time > (p.reading).time THEN f.before ELSE p.reading END
                   AS previous,
               coalesce((p.reading).counts_64bit AND ((p.reading).boot <> f.boot) IS NOT TRUE, false)
                   AS counted_64bit,
               p.reading AS stored, coalesce(p.is_newest, false) AS is_newest
        FROM following f
        LEFT JOIN LATERAL (
            -- The newest row, where the sample is newer than that; the history is searched for late samples only.
            SELECT ROW(i.time, i.boot, i.counts_64bit, i.rx_bytes, i.tx_bytes, i.rx_packets, i.tx_packets,
                       i.rx_errors, i.tx_errors, i.rx_dropped, i.tx_dropped, i.is_up)::linkbeat.reading AS reading,
                   true AS is_newest
            FROM network_interfaces i
            WHERE i.server_id = f.server_id AND i.interface_name = f.interface_name AND i.time < f.time
            UNION ALL
            (SELECT ROW(m.time, m.boot, m.counts_64bit, m.rx_bytes, m.tx_bytes, m.rx_packets, m.tx_packets,
                        m.rx_errors, m.tx_errors, m.rx_dropped, m.tx_dropped, m.is_up)::linkbeat.reading, false
             FROM network_interface_metrics m
             WHERE m.server_id = f.server_id AND m.interface_name = f.interface_name AND m.time <= f.time
             ORDER BY m.time DESC LIMIT 1)
            LIMIT 1
        ) p ON true
    ), judged AS MATERIALIZED (
        -- The plain case, all counters grew, is settled here; the rest is left to repair_deltas.
        SELECT k.*,
               k.first OR k.rebooted IS NOT TRUE
                   AND linkbeat.grew((k.previous).rx_bytes, k.rx_bytes, k.most)
                   AND linkbeat.grew((k.previous).tx_bytes, k.tx_bytes, k.most)
                   AND linkbeat.grew((k.previous).rx_packets, k.rx_packets, k.most)
                   AND linkbeat.grew((k.previous).tx_packets, k.tx_packets, k.most)
                   AND linkbeat.grew((k.previous).rx_errors, k.rx_errors, k.most)
                   AND linkbeat.grew((k.previous).tx_errors, k.tx_errors, k.most)
                   AND linkbeat.grew((k.previous).rx_dropped, k.rx_dropped, k.most)
                   AND linkbeat.grew((k.previous).tx_dropped, k.tx_dropped, k.most)
                   AS is_plain
        FROM (
            SELECT l.*,
                   -- The next of its series that is written here.
                   CASE WHEN lead(l.server_id) OVER batch = l.server_id
                             AND lead(l.interface_name) OVER batch = l.interface_name
                        THEN lead(l.time) OVER batch ELSE 'infinity' END AS next_time,
                   l.previous IS NULL AS first, (l.previous).boot <> l.boot AS rebooted,
                   linkbeat.elapsed_ms((l.previous).time, l.time) AS elapsed_ms,
                   linkbeat.delta_limit(linkbeat.elapsed_ms((l.previous).time, l.time)) AS most
            FROM linked l
            WHERE (l.stored).time IS DISTINCT FROM l.time  -- what is stored stays as it is
            WINDOW batch AS (ORDER BY l.ordinal)
        ) k
    ), history AS (
        INSERT INTO network_interface_metrics (
            server_id, interface_name, time, boot, rx_bytes, tx_bytes, rx_packets, tx_packets,
            rx_errors, tx_errors, rx_dropped, tx_dropped, is_up,
            rx_bytes_delta, tx_bytes_delta, rx_packets_delta, tx_packets_delta,
            rx_errors_delta, tx_errors_delta, rx_dropped_delta, tx_dropped_delta,
            elapsed_ms, counts_64bit, delta_kind)
        SELECT server_id, interface_name, time, boot, rx_bytes, tx_bytes, rx_packets, tx_packets,
               rx_errors, tx_errors, rx_dropped, tx_dropped, is_up,
               CASE WHEN NOT first AND is_plain THEN rx_bytes - (previous).rx_bytes ELSE 0 END,
               CASE WHEN NOT first AND is_plain THEN tx_bytes - (previous).tx_bytes ELSE 0 END,
               CASE WHEN NOT first AND is_plain THEN rx_packets - (previous).rx_packets ELSE 0 END,
               CASE WHEN NOT first AND is_plain THEN tx_packets - (previous).tx_packets ELSE 0 END,
               CASE WHEN NOT is_plain THEN 0 WHEN rx_errors IS NOT NULL THEN rx_errors - coalesce((previous).rx_errors, rx_errors) END,
               CASE WHEN NOT is_plain THEN 0 WHEN tx_errors IS NOT NULL THEN tx_errors - coalesce((previous).tx_errors, tx_errors) END,
               CASE WHEN NOT is_plain THEN 0 WHEN rx_dropped IS NOT NULL THEN rx_dropped - coalesce((previous).rx_dropped, rx_dropped) END,
               CASE WHEN NOT is_plain THEN 0 WHEN tx_dropped IS NOT NULL THEN tx_dropped - coalesce((previous).tx_dropped, tx_dropped) END,
               coalesce(elapsed_ms, 0), counted_64bit OR (reading).counts_64bit OR coalesce((before).counts_64bit AND NOT rebooted, false),
               CASE WHEN first THEN 'first' WHEN is_plain THEN 'normal' ELSE '' END
        FROM judged
    ), newest AS (
        INSERT INTO network_interfaces AS i (
            server_id, interface_name, time, boot, rx_bytes, tx_bytes, rx_packets, tx_packets,
            rx_errors, tx_errors, rx_dropped, tx_dropped, is_up,
            rx_bytes_delta, tx_bytes_delta, elapsed_ms, counts_64bit)
        SELECT server_id, interface_name, time, boot, rx_bytes, tx_bytes, rx_packets, tx_packets,
               rx_errors, tx_errors, rx_dropped, tx_dropped, is_up,
               CASE WHEN NOT first AND is_plain THEN rx_bytes - (previous).rx_bytes ELSE 0 END,
               CASE WHEN NOT first AND is_plain THEN tx_bytes - (previous).tx_bytes ELSE 0 END,
               coalesce(elapsed_ms, 0), counted_64bit OR (reading).counts_64bit OR coalesce((before).counts_64bit AND NOT rebooted, false)
        FROM judged
        WHERE next_time = 'infinity'  -- the last of its series here; whether it is the newest is asked below
        ON CONFLICT (server_id, interface_name) DO UPDATE SET
            time = EXCLUDED.time, boot = EXCLUDED.boot,
            rx_bytes = EXCLUDED.rx_bytes, tx_bytes = EXCLUDED.tx_bytes,
            rx_packets = EXCLUDED.rx_packets, tx_packets = EXCLUDED.tx_packets,
            rx_errors = EXCLUDED.rx_errors, tx_errors = EXCLUDED.tx_errors,
            rx_dropped = EXCLUDED.rx_dropped, tx_dropped = EXCLUDED.tx_dropped, is_up = EXCLUDED.is_up,
            rx_bytes_delta = EXCLUDED.rx_bytes_delta, tx_bytes_delta = EXCLUDED.tx_bytes_delta,
            elapsed_ms = EXCLUDED.elapsed_ms, counts_64bit = EXCLUDED.counts_64bit
        WHERE EXCLUDED.time > i.time
    )
    SELECT (SELECT array_agg(heartbeat) FROM linked WHERE (stored).time = time),
           (SELECT array_agg(heartbeat) FROM linked WHERE (stored).time = time
            AND (rx_bytes, tx_bytes, rx_packets, tx_packets, is_up) IS DISTINCT FROM
                ((stored).rx_bytes, (stored).tx_bytes, (stored).rx_packets, (stored).tx_packets, (stored).is_up)),
           array_agg(ordinal) FILTER (WHERE NOT is_plain), array_agg(ordinal) FILTER (WHERE NOT is_newest),
           array_agg(next_time) FILTER (WHERE NOT is_newest)
    INTO duplicate, conflict, odd, late, late_until
    FROM judged;

    IF odd IS NULL AND late IS NULL THEN
        RETURN;
    END IF;
    FOR walk IN
        SELECT sample_servers[o] AS server_id, sample_names[o] AS interface_name, sample_times[o] AS since
        FROM unnest(odd) AS o
        UNION
        -- The stored row after a late one counts from the late one now.
        SELECT sample_servers[l.o], sample_names[l.o], m.time
        FROM unnest(late, late_until) AS l(o, until)
        CROSS JOIN LATERAL (
            SELECT time FROM network_interface_metrics
            WHERE server_id = sample_servers[l.o] AND interface_name = sample_names[l.o]
              AND time > sample_times[l.o] AND time < l.until
            ORDER BY time LIMIT 1
        ) m
        ORDER BY 1, 2, 3
    LOOP
        IF (walk.server_id, walk.interface_name) IS DISTINCT FROM (walked_server, walked_interface)
           OR walk.since > walked_until THEN
            walked_server := walk.server_id;
            walked_interface := walk.interface_name;
            walked_until := linkbeat.repair_deltas(walk.server_id, walk.interface_name, walk.since);
        END IF;
    END LOOP;
END $$;
