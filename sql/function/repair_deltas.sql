-- repair_deltas: recomputes one series' deltas in time order from a sample on, until a row that is right already.
-- For what the plain way of ingest_heartbeats leaves: counters that shrank, reboots, the rows after a late sample.
-- The caller holds the server's row.
-- Replaceable: reapplied on every upgrade.
CREATE OR REPLACE FUNCTION linkbeat.repair_deltas(of_server text, of_interface text, since timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    is_shared boolean := linkbeat.is_shared(of_server);
    stored    network_interface_metrics;
    settled   network_interface_metrics;
    -- Of boots whose newest row up to here is not as it was: their next rows may change too. Where one machine reports
    -- that is the next row; where two alternate, it may stand behind the other's, but not after `ends`.
    changing  bigint[] := '{}';
    ends      timestamptz := since;
BEGIN
    FOR stored IN
        SELECT * FROM network_interface_metrics
        WHERE server_id = of_server AND interface_name = of_interface AND time >= since
        ORDER BY time
    LOOP
        IF stored.rx_bytes IS NULL THEN
            stored := linkbeat.with_counters(stored);
            CONTINUE WHEN stored.rx_bytes IS NULL;  -- deleted is what it counted from: its deltas are all that is known
        END IF;
        settled := linkbeat.settled(linkbeat.row_before(stored, is_shared), stored);
        -- A row without a boot stands before its next one alone.
        changing := array_remove(array_remove(changing, stored.boot), NULL);
        IF settled IS DISTINCT FROM stored THEN
            UPDATE network_interface_metrics SET
                rx_bytes_delta = settled.rx_bytes_delta, tx_bytes_delta = settled.tx_bytes_delta,
                rx_packets_delta = settled.rx_packets_delta, tx_packets_delta = settled.tx_packets_delta,
                rx_errors_delta = settled.rx_errors_delta, tx_errors_delta = settled.tx_errors_delta,
                rx_dropped_delta = settled.rx_dropped_delta, tx_dropped_delta = settled.tx_dropped_delta,
                elapsed_ms = settled.elapsed_ms, counts_64bit = settled.counts_64bit, delta_kind = settled.delta_kind
            WHERE server_id = of_server AND interface_name = of_interface AND time = stored.time;
            IF stored.is_folded THEN
                PERFORM linkbeat.sum_folded(ARRAY[of_server], ARRAY[stored.time]);
            END IF;
        ELSIF stored.time > since AND (NOT is_shared OR changing = '{}' OR stored.time >= ends) THEN
            RETURN;
        END IF;
        IF stored.time = since OR settled IS DISTINCT FROM stored THEN
            changing := array_append(changing, stored.boot);
            IF is_shared THEN
                ends := greatest(ends, (SELECT last_seen FROM linkbeat.boot_spans(of_server) WHERE boot = stored.boot));
            END IF;
        END IF;
    END LOOP;
    -- Up to the newest row, which its server's state follows.
    IF settled.time IS NOT NULL THEN
        PERFORM linkbeat.remember_interface(settled);
    END IF;
END $$;

-- The row that a row's deltas count from: the one before it. Where two machines report under one id, the last one of
-- the same boot; and no row at all where it has none and the row before is another machine's, which is no reboot.
CREATE OR REPLACE FUNCTION linkbeat.row_before(m network_interface_metrics, is_shared boolean)
RETURNS network_interface_metrics LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    before network_interface_metrics;
    own    network_interface_metrics;
BEGIN
    SELECT * INTO before FROM network_interface_metrics
    WHERE server_id = m.server_id AND interface_name = m.interface_name AND time < m.time
    ORDER BY time DESC LIMIT 1;
    IF NOT is_shared OR (before.boot <> m.boot) IS NOT TRUE THEN
        RETURN linkbeat.with_counters(before);
    END IF;
    SELECT * INTO own FROM network_interface_metrics
    WHERE server_id = m.server_id AND interface_name = m.interface_name AND time < m.time AND boot = m.boot
      AND time >= (SELECT first_seen FROM server_boots WHERE server_id = m.server_id AND boot = m.boot)
    ORDER BY time DESC LIMIT 1;
    IF own.time IS NOT NULL THEN
        RETURN linkbeat.with_counters(own);
    END IF;
    IF linkbeat.is_other_machine(m.server_id, m.boot, before.boot) THEN
        RETURN NULL;
    END IF;
    RETURN linkbeat.with_counters(before);
END $$;
