-- repair_new: what rows that have just been stored change of those around them. Replaceable: reapplied on every upgrade.
--   of_servers, of_interfaces, times  parallel arrays: the rows, which ingest_heartbeats has judged where their counters
--                                     plainly grew; of each server, rows of one time
--
-- Late rows between others are common, and simple enough for one query over all rows of a batch: repair_late. The other rows
-- are judged one by one by repair_deltas, which takes several times as long. The caller holds the servers' rows.
CREATE OR REPLACE FUNCTION linkbeat.repair_new(of_servers text[], of_interfaces text[], times timestamptz[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    late record;
    rest record;
BEGIN
    SELECT * INTO late FROM linkbeat.repair_late(of_servers, of_interfaces, times);
    FOR rest IN
        WITH changed AS MATERIALIZED (
            SELECT n.server_id, n.rows, linkbeat.states_after(s.interface_names, s.interfaces, n.rows) AS interfaces
            FROM (SELECT (m).server_id, array_agg(m) AS rows FROM unnest(late.newest) AS m GROUP BY (m).server_id) AS n
            JOIN servers s USING (server_id)
        ), updated AS (
            UPDATE servers s SET interfaces = c.interfaces FROM changed c WHERE s.server_id = c.server_id AND c.interfaces IS NOT NULL
        )
        SELECT server_id, rows FROM changed WHERE interfaces IS NULL
    LOOP
        PERFORM linkbeat.remember_interfaces(rest.server_id, rest.rows);
    END LOOP;
    PERFORM linkbeat.repair_deltas(of_servers[p], array_agg(of_interfaces[p]), array_agg(times[p]))
    FROM (SELECT generate_subscripts(times, 1) EXCEPT SELECT unnest(late.repaired)) AS others(p)
    GROUP BY of_servers[p] ORDER BY of_servers[p];
END $$;

-- Late rows between two rows of the same boot, where all counters plainly grew to the late row and from it, as nearly
-- always: the next row's gain is its difference to the late one, and nothing else changes.
--   repaired  places of these rows in the arrays
--   newest    those of the next rows that are the newest of their series, as they are now
CREATE OR REPLACE FUNCTION linkbeat.repair_late(
    of_servers text[], of_interfaces text[], times timestamptz[],
    OUT repaired integer[], OUT newest network_interface_metrics[]
) LANGUAGE plpgsql AS $$
DECLARE
    split   record;
    x       network_interface_metrics;  -- the late row
    m       network_interface_metrics;  -- the next one
    changed network_interface_metrics[];
BEGIN
    FOR split IN
        SELECT l.place, l.time, next.rows, cardinality(next.rows) = 2 AS is_newest
        FROM (
            SELECT unnest(of_servers) AS server_id, unnest(of_interfaces) AS interface_name, unnest(times) AS time,
                   generate_subscripts(times, 1) AS place
            OFFSET 0
        ) AS l
        CROSS JOIN LATERAL (
            SELECT array_agg(n.r) AS rows
            FROM (SELECT r FROM network_interface_metrics r
                  WHERE r.server_id = l.server_id AND r.interface_name = l.interface_name AND r.time >= l.time
                  ORDER BY r.time LIMIT 3) AS n
        ) AS next
        WHERE cardinality(next.rows) > 1
          -- Of boots whose ids are no UUIDs, linkbeat.flickers counts rows.
          AND NOT EXISTS (SELECT FROM server_boots b WHERE b.server_id = l.server_id AND NOT linkbeat.is_uuid_boot(b.boot))
          -- A row that asked earlier ones (linkbeat.next_that_asked), as far as the next row may be among them; or of
          -- another boot, behind which rows of this one may follow.
          AND (cardinality(next.rows) = 2 OR (
              SELECT bool_or(r.levels IS NOT NULL OR r.old_levels IS NOT NULL OR r.boot IS DISTINCT FROM (next.rows[2]).boot)
              FROM network_interface_metrics r
              WHERE r.server_id = l.server_id AND r.interface_name = l.interface_name AND r.time > (next.rows[2]).time
                AND r.time <= (next.rows[2]).time + linkbeat.asked_within((next.rows[2]).interval_ms)) IS NOT TRUE)
    LOOP
        x := split.rows[1];
        m := split.rows[2];
        m.elapsed_ms := linkbeat.elapsed_ms(x.time, m.time);
        CONTINUE WHEN (
            x.time = split.time AND m.boot = x.boot AND x.delta_kind IN ('normal', 'gap') AND m.delta_kind IN ('normal', 'gap')
            AND num_nonnulls(x.levels, x.old_levels, m.levels, m.old_levels) = 0 AND m.rx_bytes IS NOT NULL AND NOT m.is_folded
            AND linkbeat.grew_plainly(
                    x.rx_bytes, x.tx_bytes, x.rx_packets, x.tx_packets, x.rx_errors, x.tx_errors, x.rx_dropped, x.tx_dropped,
                    m.rx_bytes, m.tx_bytes, m.rx_packets, m.tx_packets, m.rx_errors, m.tx_errors, m.rx_dropped, m.tx_dropped,
                    m.elapsed_ms, greatest(x.speed_mbps, m.speed_mbps))) IS NOT TRUE;
        m.rx_bytes_delta := m.rx_bytes - x.rx_bytes; m.tx_bytes_delta := m.tx_bytes - x.tx_bytes;
        m.rx_packets_delta := m.rx_packets - x.rx_packets; m.tx_packets_delta := m.tx_packets - x.tx_packets;
        m.rx_errors_delta := m.rx_errors - coalesce(x.rx_errors, m.rx_errors);
        m.tx_errors_delta := m.tx_errors - coalesce(x.tx_errors, m.tx_errors);
        m.rx_dropped_delta := m.rx_dropped - coalesce(x.rx_dropped, m.rx_dropped);
        m.tx_dropped_delta := m.tx_dropped - coalesce(x.tx_dropped, m.tx_dropped);
        m.delta_kind := CASE WHEN linkbeat.is_gap(m.elapsed_ms, m.interval_ms) THEN 'gap' ELSE 'normal' END;
        repaired := array_append(repaired, split.place);
        changed := array_append(changed, m);
        IF split.is_newest THEN
            newest := array_append(newest, m);
        END IF;
    END LOOP;
    IF changed IS NOT NULL THEN
        PERFORM linkbeat.write_deltas(changed);
    END IF;
END $$;
