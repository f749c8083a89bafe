-- repair_late: what rows that have just been stored change of those after them. Replaceable: reapplied on every upgrade.
--   of_servers, of_interfaces, times  parallel arrays: the rows, which ingest_heartbeats has judged where their counters
--                                     plainly grew; of each server, rows of one time
--
-- Nearly every late row lies between two of its boot, and all counters plainly grew to it and from it. Then what the next
-- row gained is the difference to the late one, and nothing else changes: one statement does that for all rows of a batch.
-- Of the others repair_deltas judges row by row, which takes ten times as long. The caller holds the servers' rows.
CREATE OR REPLACE FUNCTION linkbeat.repair_late(of_servers text[], of_interfaces text[], times timestamptz[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    repaired integer[];
    newest   network_interface_metrics[];
BEGIN
    WITH split AS MATERIALIZED (
        SELECT l.place, n.server_id, n.interface_name, n.time, linkbeat.elapsed_ms(x.time, n.time) AS elapsed_ms,
               n.rx_bytes - x.rx_bytes AS rx_bytes, n.tx_bytes - x.tx_bytes AS tx_bytes,
               n.rx_packets - x.rx_packets AS rx_packets, n.tx_packets - x.tx_packets AS tx_packets,
               n.rx_errors - coalesce(x.rx_errors, n.rx_errors) AS rx_errors,
               n.tx_errors - coalesce(x.tx_errors, n.tx_errors) AS tx_errors,
               n.rx_dropped - coalesce(x.rx_dropped, n.rx_dropped) AS rx_dropped,
               n.tx_dropped - coalesce(x.tx_dropped, n.tx_dropped) AS tx_dropped, later.asked IS NULL AS is_newest
        FROM (
            SELECT unnest(of_servers) AS server_id, unnest(of_interfaces) AS interface_name, unnest(times) AS time,
                   generate_subscripts(times, 1) AS place
            OFFSET 0
        ) AS l
        -- LIMIT, because a join might read all rows of the server.
        CROSS JOIN LATERAL (
            SELECT r.time, r.boot, r.delta_kind, r.speed_mbps, r.rx_bytes, r.tx_bytes, r.rx_packets, r.tx_packets, r.rx_errors,
                   r.tx_errors, r.rx_dropped, r.tx_dropped, r.levels, r.old_levels
            FROM network_interface_metrics r
            WHERE r.server_id = l.server_id AND r.interface_name = l.interface_name AND r.time = l.time
            LIMIT 1) AS x
        CROSS JOIN LATERAL (
            SELECT * FROM network_interface_metrics r
            WHERE r.server_id = l.server_id AND r.interface_name = l.interface_name AND r.time > l.time
            ORDER BY r.time LIMIT 1) AS n
        -- A row that asked earlier ones (linkbeat.next_that_asked), as far as the next row may be among them; or of
        -- another boot, behind which rows of this one may follow.
        CROSS JOIN LATERAL (
            SELECT bool_or(r.levels IS NOT NULL OR r.old_levels IS NOT NULL OR r.boot IS DISTINCT FROM n.boot) AS asked
            FROM network_interface_metrics r
            WHERE r.server_id = l.server_id AND r.interface_name = l.interface_name AND r.time > n.time
              AND r.time <= n.time + linkbeat.asked_within(n.interval_ms)) AS later
        WHERE n.boot = x.boot AND later.asked IS NOT TRUE
          AND x.delta_kind IN ('normal', 'gap') AND n.delta_kind IN ('normal', 'gap')
          AND num_nonnulls(x.levels, x.old_levels, n.levels, n.old_levels) = 0
          AND n.rx_bytes IS NOT NULL AND NOT n.is_folded
          AND linkbeat.grew_plainly(
                  x.rx_bytes, x.tx_bytes, x.rx_packets, x.tx_packets, x.rx_errors, x.tx_errors, x.rx_dropped, x.tx_dropped,
                  n.rx_bytes, n.tx_bytes, n.rx_packets, n.tx_packets, n.rx_errors, n.tx_errors, n.rx_dropped, n.tx_dropped,
                  linkbeat.elapsed_ms(x.time, n.time), greatest(x.speed_mbps, n.speed_mbps))
          -- Of boots whose ids are no UUIDs, linkbeat.flickers counts rows.
          AND NOT EXISTS (SELECT FROM server_boots b WHERE b.server_id = l.server_id AND NOT linkbeat.is_uuid_boot(b.boot))
    ), written AS (
        UPDATE network_interface_metrics m SET
            rx_bytes_delta = s.rx_bytes, tx_bytes_delta = s.tx_bytes, rx_packets_delta = s.rx_packets,
            tx_packets_delta = s.tx_packets, rx_errors_delta = s.rx_errors, tx_errors_delta = s.tx_errors,
            rx_dropped_delta = s.rx_dropped, tx_dropped_delta = s.tx_dropped, elapsed_ms = s.elapsed_ms,
            delta_kind = CASE WHEN linkbeat.is_gap(s.elapsed_ms, m.interval_ms) THEN 'gap' ELSE 'normal' END
        FROM split s
        WHERE m.server_id = s.server_id AND m.interface_name = s.interface_name AND m.time = s.time
        RETURNING m, s.place, s.is_newest
    )
    SELECT array_agg(place), array_agg(m) FILTER (WHERE is_newest) INTO repaired, newest FROM written;
    IF newest IS NOT NULL THEN
        PERFORM linkbeat.remember_interfaces((m).server_id, array_agg(m)) FROM unnest(newest) AS m GROUP BY (m).server_id;
    END IF;
    IF cardinality(repaired) IS DISTINCT FROM cardinality(times) THEN
        PERFORM linkbeat.repair_deltas(of_servers[p], array_agg(of_interfaces[p]), array_agg(times[p]))
        FROM (SELECT generate_subscripts(times, 1) EXCEPT SELECT unnest(repaired)) AS others(p)
        GROUP BY of_servers[p] ORDER BY of_servers[p];
    END IF;
END $$;
