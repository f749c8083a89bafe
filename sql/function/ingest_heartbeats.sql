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
        -- Each sample with the reading before it: of this batch or stored, whichever is later.
        SELECT f.*, p.reading AS stored, coalesce(p.is_newest, false) AS is_newest,
               p.reading IS NULL OR coalesce((f.before).time > (p.reading).time, false) AS follows,
               CASE WHEN p.reading IS NULL OR (f.before).time > (p.reading).time THEN f.before ELSE p.reading END
                   AS previous
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
    ), fresh AS (
        SELECT l.*, (l.previous).boot <> l.boot AS rebooted,
               linkbeat.elapsed_ms((l.previous).time, l.time) AS elapsed_ms,
               linkbeat.delta_limit(linkbeat.elapsed_ms((l.previous).time, l.time)) AS most,
               -- The next of its series that is written here.
               CASE WHEN lead(l.server_id) OVER batch = l.server_id
                         AND lead(l.interface_name) OVER batch = l.interface_name
                    THEN lead(l.time) OVER batch ELSE 'infinity' END AS next_time
        FROM linked l
        WHERE (l.stored).time IS DISTINCT FROM l.time  -- what is stored stays as it is
        WINDOW batch AS (ORDER BY l.ordinal)
    ), judged AS (
        -- Plain: all counters grew, or there is nothing before. The rest is left to repair_deltas; so is a sample for
        -- which it cannot be told from here whether the row stored before its batch was of the same boot.
        SELECT f.*,
               rebooted IS NOT TRUE
               AND linkbeat.grew((previous).rx_bytes, rx_bytes, most)
               AND linkbeat.grew((previous).tx_bytes, tx_bytes, most)
               AND linkbeat.grew((previous).rx_packets, rx_packets, most)
               AND linkbeat.grew((previous).tx_packets, tx_packets, most)
               AND linkbeat.grew((previous).rx_errors, rx_errors, most)
               AND linkbeat.grew((previous).tx_errors, tx_errors, most)
               AND linkbeat.grew((previous).rx_dropped, rx_dropped, most)
               AND linkbeat.grew((previous).tx_dropped, tx_dropped, most)
               AND NOT (follows AND coalesce((stored).counts_64bit, false)
                        AND num_nonnulls((stored).boot, (before).boot, boot) BETWEEN 1 AND 2) AS is_plain,
               (reading).counts_64bit
               OR rebooted IS NOT TRUE AND coalesce((previous).counts_64bit, false)
               OR follows AND coalesce((stored).counts_64bit, false) AND (stored).boot IS NOT DISTINCT FROM boot
                   AS counts_64bit
        FROM fresh f
        OFFSET 0  -- keeps the planner from working is_plain out again in each expression below
    ), settled AS MATERIALIZED (
        SELECT j.*,
               CASE WHEN is_plain THEN rx_bytes - coalesce((previous).rx_bytes, rx_bytes) ELSE 0 END AS rx_bytes_delta,
               CASE WHEN is_plain THEN tx_bytes - coalesce((previous).tx_bytes, tx_bytes) ELSE 0 END AS tx_bytes_delta,
               CASE WHEN is_plain THEN rx_packets - coalesce((previous).rx_packets, rx_packets) ELSE 0 END AS rx_packets_delta,
               CASE WHEN is_plain THEN tx_packets - coalesce((previous).tx_packets, tx_packets) ELSE 0 END AS tx_packets_delta,
               CASE WHEN is_plain THEN rx_errors - coalesce((previous).rx_errors, rx_errors) END AS rx_errors_delta,
               CASE WHEN is_plain THEN tx_errors - coalesce((previous).tx_errors, tx_errors) END AS tx_errors_delta,
               CASE WHEN is_plain THEN rx_dropped - coalesce((previous).rx_dropped, rx_dropped) END AS rx_dropped_delta,
               CASE WHEN is_plain THEN tx_dropped - coalesce((previous).tx_dropped, tx_dropped) END AS tx_dropped_delta
        FROM judged j
    ), history AS (
        INSERT INTO network_interface_metrics (
            server_id, interface_name, time, boot, rx_bytes, tx_bytes, rx_packets, tx_packets,
            rx_errors, tx_errors, rx_dropped, tx_dropped, is_up, counts_64bit, elapsed_ms,
            rx_bytes_delta, tx_bytes_delta, rx_packets_delta, tx_packets_delta,
            rx_errors_delta, tx_errors_delta, rx_dropped_delta, tx_dropped_delta, delta_kind)
        SELECT server_id, interface_name, time, boot, rx_bytes, tx_bytes, rx_packets, tx_packets,
               rx_errors, tx_errors, rx_dropped, tx_dropped, is_up, counts_64bit, elapsed_ms,
               rx_bytes_delta, tx_bytes_delta, rx_packets_delta, tx_packets_delta,
               rx_errors_delta, tx_errors_delta, rx_dropped_delta, tx_dropped_delta,
               CASE WHEN NOT is_plain THEN '' WHEN previous IS NULL THEN 'first' ELSE 'normal' END
        FROM settled
    ), newest AS (
        INSERT INTO network_interfaces AS i (
            server_id, interface_name, time, boot, rx_bytes, tx_bytes, rx_packets, tx_packets,
            rx_errors, tx_errors, rx_dropped, tx_dropped, is_up, counts_64bit, elapsed_ms,
            rx_bytes_delta, tx_bytes_delta)
        SELECT server_id, interface_name, time, boot, rx_bytes, tx_bytes, rx_packets, tx_packets,
               rx_errors, tx_errors, rx_dropped, tx_dropped, is_up, counts_64bit, elapsed_ms,
               rx_bytes_delta, tx_bytes_delta
        FROM settled
        WHERE next_time = 'infinity'  -- the last of its series here; whether it is the newest is asked below
        ON CONFLICT (server_id, interface_name) DO UPDATE SET
            time = EXCLUDED.time, boot = EXCLUDED.boot,
            rx_bytes = EXCLUDED.rx_bytes, tx_bytes = EXCLUDED.tx_bytes,
            rx_packets = EXCLUDED.rx_packets, tx_packets = EXCLUDED.tx_packets,
            rx_errors = EXCLUDED.rx_errors, tx_errors = EXCLUDED.tx_errors,
            rx_dropped = EXCLUDED.rx_dropped, tx_dropped = EXCLUDED.tx_dropped, is_up = EXCLUDED.is_up,
            counts_64bit = EXCLUDED.counts_64bit, elapsed_ms = EXCLUDED.elapsed_ms,
            rx_bytes_delta = EXCLUDED.rx_bytes_delta, tx_bytes_delta = EXCLUDED.tx_bytes_delta
        WHERE EXCLUDED.time > i.time
    )
    SELECT (SELECT array_agg(heartbeat) FROM linked WHERE (stored).time = time),
           (SELECT array_agg(heartbeat) FROM linked WHERE (stored).time = time
            AND (rx_bytes, tx_bytes, rx_packets, tx_packets, is_up) IS DISTINCT FROM
                ((stored).rx_bytes, (stored).tx_bytes, (stored).rx_packets, (stored).tx_packets, (stored).is_up)),
           array_agg(ordinal) FILTER (WHERE NOT is_plain),
           array_agg(ordinal) FILTER (WHERE NOT is_newest), array_agg(next_time) FILTER (WHERE NOT is_newest)
    INTO duplicate, conflict, odd, late, late_until
    FROM settled;

    IF odd IS NOT NULL OR late IS NOT NULL THEN
        PERFORM linkbeat.repair_deltas(array_agg(server_id), array_agg(interface_name), array_agg(since))
        FROM (
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
        ) w;
    END IF;
END $$;
