-- repair_new: what rows that have just been stored change of those around them. Replaceable: reapplied on every upgrade.
--   of_servers, of_interfaces, times  parallel arrays: the rows, which ingest_heartbeats has judged where their counters
--                                     plainly grew; of each server, rows of one time
--
-- Two cases are common, and simple enough for one query over all rows of a batch: repair_late and repair_glitches. The other
-- rows are judged one by one by repair_deltas, which takes several times as long. The caller holds the servers' rows.
CREATE OR REPLACE FUNCTION linkbeat.repair_new(of_servers text[], of_interfaces text[], times timestamptz[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    late     record;
    glitches record;
BEGIN
    SELECT * INTO late FROM linkbeat.repair_late(of_servers, of_interfaces, times);
    SELECT * INTO glitches FROM linkbeat.repair_glitches(of_servers, of_interfaces, times);
    PERFORM linkbeat.remember_interfaces((m).server_id, array_agg(m))
    FROM unnest(late.newest || glitches.newest) AS m GROUP BY (m).server_id;
    PERFORM linkbeat.repair_deltas(of_servers[p], array_agg(of_interfaces[p]), array_agg(times[p]))
    FROM (SELECT generate_subscripts(times, 1) EXCEPT SELECT unnest(late.repaired || glitches.repaired)) AS others(p)
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
    m       network_interface_metrics;
    changed network_interface_metrics[];
BEGIN
    FOR split IN
        SELECT l.place, ROW(n.*)::network_interface_metrics AS n, later.asked IS NULL AS is_newest, linkbeat.elapsed_ms(x.time, n.time) AS elapsed_ms,
               n.rx_bytes - x.rx_bytes AS rx_bytes, n.tx_bytes - x.tx_bytes AS tx_bytes,
               n.rx_packets - x.rx_packets AS rx_packets, n.tx_packets - x.tx_packets AS tx_packets,
               n.rx_errors - coalesce(x.rx_errors, n.rx_errors) AS rx_errors,
               n.tx_errors - coalesce(x.tx_errors, n.tx_errors) AS tx_errors,
               n.rx_dropped - coalesce(x.rx_dropped, n.rx_dropped) AS rx_dropped,
               n.tx_dropped - coalesce(x.tx_dropped, n.tx_dropped) AS tx_dropped
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
    LOOP
        m := split.n;
        m.elapsed_ms := split.elapsed_ms;
        m.rx_bytes_delta := split.rx_bytes; m.tx_bytes_delta := split.tx_bytes;
        m.rx_packets_delta := split.rx_packets; m.tx_packets_delta := split.tx_packets;
        m.rx_errors_delta := split.rx_errors; m.tx_errors_delta := split.tx_errors;
        m.rx_dropped_delta := split.rx_dropped; m.tx_dropped_delta := split.tx_dropped;
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

-- Newest rows that show the reading before them to be a glitch, in cases that imply what linkbeat.are_back and linkbeat.judge
-- conclude: every counter that fell, octets or packets among them, is back, no further above its old level than it had
-- fallen, and one of these gained more in that interval than three times the highest rate before allows. The glitch
-- gained nothing, and growth is counted from the old levels.
--   repaired, newest  as in repair_late; here the newest rows are the repaired ones
CREATE OR REPLACE FUNCTION linkbeat.repair_glitches(
    of_servers text[], of_interfaces text[], times timestamptz[],
    OUT repaired integer[], OUT newest network_interface_metrics[]
) LANGUAGE plpgsql AS $$
DECLARE
    shown   record;
    m       network_interface_metrics;
    changed network_interface_metrics[];
BEGIN
    FOR shown IN
        SELECT l.place, ROW(x.*)::network_interface_metrics AS x, ROW(p.*)::network_interface_metrics AS wrong, g.elapsed_ms, had.*
        FROM (
            SELECT unnest(of_servers) AS of_server, unnest(of_interfaces) AS of_interface, unnest(times) AS at,
                   generate_subscripts(times, 1) AS place
            OFFSET 0
        ) AS l
        CROSS JOIN LATERAL (
            SELECT * FROM network_interface_metrics r
            WHERE r.server_id = l.of_server AND r.interface_name = l.of_interface AND r.time >= l.at
            ORDER BY r.time DESC LIMIT 1) AS x
        CROSS JOIN LATERAL (
            SELECT * FROM network_interface_metrics r
            WHERE r.server_id = l.of_server AND r.interface_name = l.of_interface AND r.time < l.at
            ORDER BY r.time DESC LIMIT 1) AS p
        CROSS JOIN LATERAL (SELECT linkbeat.elapsed_ms(p.time, x.time) AS elapsed_ms) AS g
        CROSS JOIN LATERAL (
            SELECT coalesce(p.old_levels[1], p.rx_bytes) AS had_rx_bytes, coalesce(p.old_levels[2], p.tx_bytes) AS had_tx_bytes,
                   coalesce(p.old_levels[3], p.rx_packets) AS had_rx_packets, coalesce(p.old_levels[4], p.tx_packets) AS had_tx_packets,
                   coalesce(p.old_levels[5], p.rx_errors) AS had_rx_errors, coalesce(p.old_levels[6], p.tx_errors) AS had_tx_errors,
                   coalesce(p.old_levels[7], p.rx_dropped) AS had_rx_dropped, coalesce(p.old_levels[8], p.tx_dropped) AS had_tx_dropped
        ) AS had
        CROSS JOIN LATERAL (
            SELECT 3.0::double precision * g.elapsed_ms * coalesce(max(rx_bytes::double precision / elapsed_ms), 0) AS rx_bytes,
                   3.0::double precision * g.elapsed_ms * coalesce(max(tx_bytes::double precision / elapsed_ms), 0) AS tx_bytes,
                   3.0::double precision * g.elapsed_ms * coalesce(max(rx_packets::double precision / elapsed_ms), 0) AS rx_packets,
                   3.0::double precision * g.elapsed_ms * coalesce(max(tx_packets::double precision / elapsed_ms), 0) AS tx_packets
            FROM linkbeat.moving_rows(l.of_server, l.of_interface, linkbeat.usual_since(p.time, x.interval_ms), p.time)
        ) AS usual
        WHERE x.time = l.at AND x.boot = p.boot AND linkbeat.is_uuid_boot(x.boot) AND NOT x.is_folded AND NOT p.is_folded
          AND p.delta_kind NOT IN ('normal', 'gap', 'glitch') AND coalesce(p.levels, '{}') = '{}' AND p.old_levels IS NOT NULL
          AND p.time = ALL (array_remove(p.doubted_since, NULL)) AND linkbeat.is_in_doubt(p.time, x.time, x.interval_ms)
          AND num_nonnulls(p.old_levels[1], p.old_levels[2], p.old_levels[3], p.old_levels[4]) > 0
          AND least(p.rx_bytes, p.tx_bytes, p.rx_packets, p.tx_packets, p.rx_errors, p.tx_errors, p.rx_dropped, p.tx_dropped) >= 0
          AND linkbeat.is_just_back(p.old_levels[1], p.rx_bytes, x.rx_bytes) AND linkbeat.is_just_back(p.old_levels[2], p.tx_bytes, x.tx_bytes)
          AND linkbeat.is_just_back(p.old_levels[3], p.rx_packets, x.rx_packets) AND linkbeat.is_just_back(p.old_levels[4], p.tx_packets, x.tx_packets)
          AND linkbeat.is_just_back(p.old_levels[5], p.rx_errors, x.rx_errors) AND linkbeat.is_just_back(p.old_levels[6], p.tx_errors, x.tx_errors)
          AND linkbeat.is_just_back(p.old_levels[7], p.rx_dropped, x.rx_dropped) AND linkbeat.is_just_back(p.old_levels[8], p.tx_dropped, x.tx_dropped)
          AND (p.old_levels[1] IS NOT NULL AND (x.rx_bytes - p.rx_bytes)::double precision > usual.rx_bytes
               OR p.old_levels[2] IS NOT NULL AND (x.tx_bytes - p.tx_bytes)::double precision > usual.tx_bytes
               OR p.old_levels[3] IS NOT NULL AND (x.rx_packets - p.rx_packets)::double precision > usual.rx_packets
               OR p.old_levels[4] IS NOT NULL AND (x.tx_packets - p.tx_packets)::double precision > usual.tx_packets)
          AND linkbeat.grew_plainly(
                  had_rx_bytes, had_tx_bytes, had_rx_packets, had_tx_packets, had_rx_errors, had_tx_errors, had_rx_dropped,
                  had_tx_dropped, x.rx_bytes, x.tx_bytes, x.rx_packets, x.tx_packets, x.rx_errors, x.tx_errors, x.rx_dropped,
                  x.tx_dropped, g.elapsed_ms, greatest(p.speed_mbps, x.speed_mbps))
    LOOP
        m := shown.wrong;
        m.rx_bytes_delta := CASE WHEN m.old_levels[1] IS NULL THEN m.rx_bytes_delta ELSE 0 END;
        m.tx_bytes_delta := CASE WHEN m.old_levels[2] IS NULL THEN m.tx_bytes_delta ELSE 0 END;
        m.rx_packets_delta := CASE WHEN m.old_levels[3] IS NULL THEN m.rx_packets_delta ELSE 0 END;
        m.tx_packets_delta := CASE WHEN m.old_levels[4] IS NULL THEN m.tx_packets_delta ELSE 0 END;
        m.rx_errors_delta := CASE WHEN m.old_levels[5] IS NULL THEN m.rx_errors_delta ELSE 0 END;
        m.tx_errors_delta := CASE WHEN m.old_levels[6] IS NULL THEN m.tx_errors_delta ELSE 0 END;
        m.rx_dropped_delta := CASE WHEN m.old_levels[7] IS NULL THEN m.rx_dropped_delta ELSE 0 END;
        m.tx_dropped_delta := CASE WHEN m.old_levels[8] IS NULL THEN m.tx_dropped_delta ELSE 0 END;
        m.delta_kind := 'glitch';
        m.levels := m.old_levels;
        m.old_levels := NULL;
        changed := array_append(changed, m);

        m := shown.x;
        m.elapsed_ms := shown.elapsed_ms;
        m.counts_64bit := coalesce((shown.wrong).counts_64bit, false) OR linkbeat.proves_64bit(m.rx_bytes, m.tx_bytes);
        m.rx_bytes_delta := m.rx_bytes - shown.had_rx_bytes;
        m.tx_bytes_delta := m.tx_bytes - shown.had_tx_bytes;
        m.rx_packets_delta := m.rx_packets - shown.had_rx_packets;
        m.tx_packets_delta := m.tx_packets - shown.had_tx_packets;
        m.rx_errors_delta := m.rx_errors - coalesce(shown.had_rx_errors, m.rx_errors);
        m.tx_errors_delta := m.tx_errors - coalesce(shown.had_tx_errors, m.tx_errors);
        m.rx_dropped_delta := m.rx_dropped - coalesce(shown.had_rx_dropped, m.rx_dropped);
        m.tx_dropped_delta := m.tx_dropped - coalesce(shown.had_tx_dropped, m.tx_dropped);
        m.delta_kind := CASE WHEN linkbeat.is_gap(m.elapsed_ms, m.interval_ms) THEN 'gap' ELSE 'normal' END;
        m.levels := NULL; m.old_levels := NULL; m.doubted_since := NULL;
        repaired := array_append(repaired, shown.place);
        newest := array_append(newest, m);
        changed := array_append(changed, m);
    END LOOP;
    IF changed IS NOT NULL THEN
        PERFORM linkbeat.write_deltas(changed);
    END IF;
END $$;

-- Whether a counter is back at its old level, or above it by no more than it had fallen; true of one that is not in doubt.
CREATE OR REPLACE FUNCTION linkbeat.is_just_back(old bigint, fallen bigint, reading bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN old IS NULL OR coalesce(reading >= old AND old >= fallen AND reading - old <= old - fallen, false);
