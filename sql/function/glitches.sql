-- Glitches of one reading that are beyond doubt: ingest_heartbeats settles them without judging rows again. What is said here,
-- linkbeat.are_back and linkbeat.judge conclude. Replaceable: reapplied on every upgrade.

-- The newest row `m`, if it shows `base`, the row before it, to be a glitch: every counter that fell, octets or packets among
-- them, is back, no further above its old level than it had fallen, and one of these gained more in that interval than three
-- times the highest rate before allows. Growth is counted from the old levels, and old_levels is '{}'; base is yet to be
-- marked (linkbeat.mark_glitches). Null: repair_deltas has to find out.
CREATE OR REPLACE FUNCTION linkbeat.after_glitch(base network_interface_metrics, m network_interface_metrics)
RETURNS network_interface_metrics LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    old   CONSTANT bigint[] := base.old_levels;
    had   bigint[];
    rates double precision[];
BEGIN
    IF (base.boot = m.boot AND linkbeat.is_uuid_boot(m.boot)
        AND base.delta_kind NOT IN ('normal', 'gap', 'glitch') AND coalesce(base.levels, '{}') = '{}'
        AND base.time = ALL (array_remove(base.doubted_since, NULL)) AND linkbeat.is_in_doubt(base.time, m.time, m.interval_ms)
        AND num_nonnulls(old[1], old[2], old[3], old[4]) > 0
        AND least(base.rx_bytes, base.tx_bytes, base.rx_packets, base.tx_packets, base.rx_errors, base.tx_errors, base.rx_dropped,
                  base.tx_dropped) >= 0
        AND linkbeat.is_just_back(old[1], base.rx_bytes, m.rx_bytes) AND linkbeat.is_just_back(old[2], base.tx_bytes, m.tx_bytes)
        AND linkbeat.is_just_back(old[3], base.rx_packets, m.rx_packets) AND linkbeat.is_just_back(old[4], base.tx_packets, m.tx_packets)
        AND linkbeat.is_just_back(old[5], base.rx_errors, m.rx_errors) AND linkbeat.is_just_back(old[6], base.tx_errors, m.tx_errors)
        AND linkbeat.is_just_back(old[7], base.rx_dropped, m.rx_dropped) AND linkbeat.is_just_back(old[8], base.tx_dropped, m.tx_dropped)
       ) IS NOT TRUE THEN
        RETURN NULL;
    END IF;
    had := ARRAY[
        coalesce(old[1], base.rx_bytes), coalesce(old[2], base.tx_bytes), coalesce(old[3], base.rx_packets),
        coalesce(old[4], base.tx_packets), coalesce(old[5], base.rx_errors), coalesce(old[6], base.tx_errors),
        coalesce(old[7], base.rx_dropped), coalesce(old[8], base.tx_dropped)];
    m.elapsed_ms := linkbeat.elapsed_ms(base.time, m.time);
    IF linkbeat.grew_plainly(
           had[1], had[2], had[3], had[4], had[5], had[6], had[7], had[8], m.rx_bytes, m.tx_bytes, m.rx_packets, m.tx_packets,
           m.rx_errors, m.tx_errors, m.rx_dropped, m.tx_dropped, m.elapsed_ms, greatest(base.speed_mbps, m.speed_mbps)) IS NOT TRUE THEN
        RETURN NULL;
    END IF;
    base.interval_ms := m.interval_ms;  -- of a state it is not known
    rates := (linkbeat.usual(base)).rates;
    IF (old[1] IS NOT NULL AND (m.rx_bytes - base.rx_bytes)::double precision > 3.0::double precision * m.elapsed_ms * coalesce(rates[1], 0)
        OR old[2] IS NOT NULL AND (m.tx_bytes - base.tx_bytes)::double precision > 3.0::double precision * m.elapsed_ms * coalesce(rates[2], 0)
        OR old[3] IS NOT NULL AND (m.rx_packets - base.rx_packets)::double precision > 3.0::double precision * m.elapsed_ms * coalesce(rates[3], 0)
        OR old[4] IS NOT NULL AND (m.tx_packets - base.tx_packets)::double precision > 3.0::double precision * m.elapsed_ms * coalesce(rates[4], 0)
       ) IS NOT TRUE THEN
        RETURN NULL;
    END IF;
    m.counts_64bit := coalesce(base.counts_64bit, false) OR linkbeat.proves_64bit(m.rx_bytes, m.tx_bytes);
    m.rx_bytes_delta := m.rx_bytes - had[1];
    m.tx_bytes_delta := m.tx_bytes - had[2];
    m.rx_packets_delta := m.rx_packets - had[3];
    m.tx_packets_delta := m.tx_packets - had[4];
    m.rx_errors_delta := m.rx_errors - coalesce(had[5], m.rx_errors);
    m.tx_errors_delta := m.tx_errors - coalesce(had[6], m.tx_errors);
    m.rx_dropped_delta := m.rx_dropped - coalesce(had[7], m.rx_dropped);
    m.tx_dropped_delta := m.tx_dropped - coalesce(had[8], m.tx_dropped);
    m.delta_kind := CASE WHEN linkbeat.is_gap(m.elapsed_ms, m.interval_ms) THEN 'gap' ELSE 'normal' END;
    m.levels := NULL; m.old_levels := '{}'; m.doubted_since := NULL;
    RETURN m;
END $$;

-- Whether a counter is back at its old level, or above it by no more than it had fallen; true of one that is not in doubt.
CREATE OR REPLACE FUNCTION linkbeat.is_just_back(old bigint, fallen bigint, reading bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN old IS NULL OR coalesce(reading >= old AND old >= fallen AND reading - old <= old - fallen, false);

-- Marks stored rows as glitches: what was in doubt of each gained nothing. The caller holds the servers' rows.
--   of_servers, of_interfaces, times  parallel arrays: the rows
CREATE OR REPLACE FUNCTION linkbeat.mark_glitches(of_servers text[], of_interfaces text[], times timestamptz[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    m      network_interface_metrics;
    marked network_interface_metrics[];
BEGIN
    FOR m IN
        SELECT r.*
        FROM (SELECT unnest(of_servers) AS server_id, unnest(of_interfaces) AS interface_name, unnest(times) AS time OFFSET 0) AS g
        -- LIMIT, because a join might read all rows of the server.
        CROSS JOIN LATERAL (
            SELECT * FROM network_interface_metrics r
            WHERE r.server_id = g.server_id AND r.interface_name = g.interface_name AND r.time = g.time
            LIMIT 1) AS r
    LOOP
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
        marked := array_append(marked, m);
    END LOOP;
    PERFORM linkbeat.write_deltas(marked);
END $$;
