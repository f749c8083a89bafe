-- repair_deltas: judges one series' rows in the order of time from one on, until a row that is right already and after
-- which nothing can differ. For late samples, for readings that show an earlier one to be a glitch, and for boots that turn
-- out to be another machine's. The caller holds the server's row.
-- Replaceable: reapplied on every upgrade.
--   is_whole  goes on to the newest row, whatever is right already
CREATE OR REPLACE FUNCTION linkbeat.repair_deltas(
    of_server text, of_interface text, since timestamptz, is_whole boolean DEFAULT false
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    previous network_interface_metrics;
    base     network_interface_metrics;
    stored   network_interface_metrics;
    judged   network_interface_metrics;
    start    timestamptz := since;
    -- Boots whose newest row up to here is not as it was: the next row of each may change too. It may stand behind rows of
    -- another boot where two overlap, but not after `ends`.
    changing bigint[] := '{}';
    ends     timestamptz;
    -- Where a row changed, those after it that asked earlier rows are judged again: the next of them, up to `horizon`.
    reach    timestamptz := since;
    horizon  timestamptz := since;
BEGIN
    SELECT * INTO previous FROM network_interface_metrics
    WHERE server_id = of_server AND interface_name = of_interface AND time < since ORDER BY time DESC LIMIT 1;
    IF previous.delta_kind = 'glitch' THEN
        -- What was concluded from a later reading is open again.
        start := previous.doubted_since;
        SELECT * INTO previous FROM network_interface_metrics
        WHERE server_id = of_server AND interface_name = of_interface AND time < start ORDER BY time DESC LIMIT 1;
    END IF;
    previous := linkbeat.with_counters(previous);

    FOR stored IN
        SELECT * FROM network_interface_metrics
        WHERE server_id = of_server AND interface_name = of_interface AND time >= start
        ORDER BY time
    LOOP
        IF stored.rx_bytes IS NULL THEN
            judged := linkbeat.with_counters(stored);
            CONTINUE WHEN judged.rx_bytes IS NULL;  -- deleted is what it counted from: its deltas are all that is known
            stored := judged;
        END IF;
        base := CASE WHEN (previous.boot <> stored.boot) IS TRUE THEN linkbeat.row_before(stored, previous) ELSE previous END;
        IF base.old_levels IS NOT NULL AND linkbeat.is_back(base, stored) THEN
            base := linkbeat.correct_glitch(base, stored);
        END IF;
        judged := linkbeat.judge(base, stored);
        -- A row without a boot stands before its next one alone.
        changing := array_remove(array_remove(changing, stored.boot), NULL);
        IF judged IS DISTINCT FROM stored THEN
            PERFORM linkbeat.write_judgement(judged);
        ELSIF stored.time > since AND stored.time >= reach AND NOT is_whole
              AND (judged.old_levels IS NULL OR stored.time > horizon) THEN
            IF changing <> '{}' THEN
                ends := (SELECT max(last_seen) FROM linkbeat.boot_spans(of_server) WHERE boot = ANY (changing));
            END IF;
            IF changing = '{}' OR ends IS NULL OR stored.time >= ends THEN
                reach := linkbeat.next_that_asked(stored, horizon);
                IF reach IS NULL THEN
                    RETURN;
                END IF;
            END IF;
        END IF;
        IF stored.time <= since OR judged IS DISTINCT FROM stored THEN
            changing := array_append(changing, stored.boot);
            horizon := stored.time + greatest(900000, 10 * stored.interval_ms::bigint) * INTERVAL '1 millisecond';
        END IF;
        previous := judged;
    END LOOP;
    -- Up to the newest row, which its server's state follows.
    IF judged.time IS NOT NULL THEN
        PERFORM linkbeat.remember_interface(judged);
    END IF;
END $$;

-- The next row of a series, after m and up to `horizon`, that asked earlier rows than the one before it; null: none did.
CREATE OR REPLACE FUNCTION linkbeat.next_that_asked(m network_interface_metrics, horizon timestamptz) RETURNS timestamptz
LANGUAGE sql VOLATILE
RETURN (
    SELECT r.time FROM network_interface_metrics r
    WHERE r.server_id = m.server_id AND r.interface_name = m.interface_name AND r.time > m.time AND r.time <= horizon
      AND (r.levels IS NOT NULL OR r.old_levels IS NOT NULL)
    ORDER BY r.time LIMIT 1
);

-- The row that a row's deltas count from: the one before it, or where that is of another boot, its own boot's newest, if
-- boots overlap. No row at all where it has none and the row before is another machine's, which is no reboot.
--   previous  the row before
CREATE OR REPLACE FUNCTION linkbeat.row_before(m network_interface_metrics, previous network_interface_metrics)
RETURNS network_interface_metrics LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    own network_interface_metrics;
BEGIN
    IF (previous.boot <> m.boot) IS NOT TRUE THEN
        RETURN previous;
    END IF;
    SELECT * INTO own FROM network_interface_metrics
    WHERE server_id = m.server_id AND interface_name = m.interface_name AND time < m.time AND boot = m.boot
      AND time >= (SELECT first_seen FROM server_boots WHERE server_id = m.server_id AND boot = m.boot)
    ORDER BY time DESC LIMIT 1;
    IF own.time IS NOT NULL THEN
        own := linkbeat.with_counters(own);
        -- Ids that are no UUIDs may alternate while one machine counts on: then the row before lies between the two.
        IF NOT linkbeat.is_uuid_boot(m.boot) AND NOT linkbeat.is_uuid_boot(previous.boot)
           AND linkbeat.lies_between(own, previous, m) THEN
            RETURN previous;
        END IF;
        RETURN own;
    END IF;
    IF linkbeat.is_other_machine(m.server_id, m.boot, previous.boot) THEN
        RETURN NULL;
    END IF;
    RETURN previous;
END $$;

-- Whether octets and packets of a row lie between those of two others, one before and one after it.
CREATE OR REPLACE FUNCTION linkbeat.lies_between(
    earlier network_interface_metrics, m network_interface_metrics, later network_interface_metrics
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN linkbeat.unsigned(m.rx_bytes) BETWEEN linkbeat.unsigned(earlier.rx_bytes) AND linkbeat.unsigned(later.rx_bytes)
   AND linkbeat.unsigned(m.tx_bytes) BETWEEN linkbeat.unsigned(earlier.tx_bytes) AND linkbeat.unsigned(later.tx_bytes)
   AND linkbeat.unsigned(m.rx_packets) BETWEEN linkbeat.unsigned(earlier.rx_packets) AND linkbeat.unsigned(later.rx_packets)
   AND linkbeat.unsigned(m.tx_packets) BETWEEN linkbeat.unsigned(earlier.tx_packets) AND linkbeat.unsigned(later.tx_packets);

-- The rows in doubt were wrong readings: what they gained of the counters in doubt was no traffic, and growth is counted
-- from the old level. Returns `base`, the last of them, as it is then; m is the reading that shows it.
CREATE OR REPLACE FUNCTION linkbeat.correct_glitch(base network_interface_metrics, m network_interface_metrics)
RETURNS network_interface_metrics LANGUAGE plpgsql AS $$
DECLARE
    old   CONSTANT bigint[] := base.old_levels;
    since CONSTANT timestamptz := base.doubted_since;
    wrong network_interface_metrics;
BEGIN
    FOR wrong IN
        SELECT * FROM network_interface_metrics
        WHERE server_id = m.server_id AND interface_name = m.interface_name AND time >= since AND time < m.time
          AND (boot IS NULL OR boot IN (base.boot, m.boot) OR NOT linkbeat.is_uuid_boot(boot))
        ORDER BY time
    LOOP
        wrong := linkbeat.with_counters(wrong);
        wrong.rx_bytes_delta := CASE WHEN old[1] IS NULL THEN wrong.rx_bytes_delta ELSE 0 END;
        wrong.tx_bytes_delta := CASE WHEN old[2] IS NULL THEN wrong.tx_bytes_delta ELSE 0 END;
        wrong.rx_packets_delta := CASE WHEN old[3] IS NULL THEN wrong.rx_packets_delta ELSE 0 END;
        wrong.tx_packets_delta := CASE WHEN old[4] IS NULL THEN wrong.tx_packets_delta ELSE 0 END;
        wrong.rx_errors_delta := CASE WHEN old[5] IS NULL THEN wrong.rx_errors_delta ELSE wrong.rx_errors - wrong.rx_errors END;
        wrong.tx_errors_delta := CASE WHEN old[6] IS NULL THEN wrong.tx_errors_delta ELSE wrong.tx_errors - wrong.tx_errors END;
        wrong.rx_dropped_delta := CASE WHEN old[7] IS NULL THEN wrong.rx_dropped_delta ELSE wrong.rx_dropped - wrong.rx_dropped END;
        wrong.tx_dropped_delta := CASE WHEN old[8] IS NULL THEN wrong.tx_dropped_delta ELSE wrong.tx_dropped - wrong.tx_dropped END;
        wrong.delta_kind := 'glitch';
        wrong.levels := ARRAY(SELECT coalesce(old[n], wrong.levels[n]) FROM generate_series(1, 8) AS n);
        wrong.old_levels := NULL;
        wrong.doubted_since := since;
        PERFORM linkbeat.write_judgement(wrong);
        IF wrong.time = base.time THEN
            base := wrong;
        END IF;
    END LOOP;
    RETURN base;
END $$;

-- Writes what was concluded about a stored row; with its counters, which a row that was thinned gets back: they no longer
-- follow from its deltas.
CREATE OR REPLACE FUNCTION linkbeat.write_judgement(m network_interface_metrics) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE network_interface_metrics SET
        rx_bytes = m.rx_bytes, tx_bytes = m.tx_bytes, rx_packets = m.rx_packets, tx_packets = m.tx_packets,
        rx_bytes_delta = m.rx_bytes_delta, tx_bytes_delta = m.tx_bytes_delta,
        rx_packets_delta = m.rx_packets_delta, tx_packets_delta = m.tx_packets_delta,
        rx_errors_delta = m.rx_errors_delta, tx_errors_delta = m.tx_errors_delta,
        rx_dropped_delta = m.rx_dropped_delta, tx_dropped_delta = m.tx_dropped_delta,
        elapsed_ms = m.elapsed_ms, counts_64bit = m.counts_64bit, delta_kind = m.delta_kind,
        levels = m.levels, old_levels = m.old_levels, doubted_since = m.doubted_since
    WHERE server_id = m.server_id AND interface_name = m.interface_name AND time = m.time;
    IF m.is_folded THEN
        PERFORM linkbeat.sum_folded(ARRAY[m.server_id], ARRAY[m.time]);
    END IF;
END $$;
