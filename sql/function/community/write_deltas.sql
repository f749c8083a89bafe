-- write_deltas, on TimescaleDB's Community edition. Replaceable: reapplied on every upgrade.
--
-- Writes what was concluded about stored rows; with their counters, which rows that were thinned get back: they no longer
-- follow from their deltas. Of folded rows, the caller sums their kind again.
-- Row by row: joined with the rows, every chunk of the columnstore would be decompressed whole.
CREATE OR REPLACE FUNCTION linkbeat.write_deltas(judged network_interface_metrics[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    m network_interface_metrics;
BEGIN
    FOREACH m IN ARRAY judged LOOP
        UPDATE network_interface_metrics SET
            rx_bytes = m.rx_bytes, tx_bytes = m.tx_bytes, rx_packets = m.rx_packets, tx_packets = m.tx_packets,
            rx_bytes_delta = m.rx_bytes_delta, tx_bytes_delta = m.tx_bytes_delta,
            rx_packets_delta = m.rx_packets_delta, tx_packets_delta = m.tx_packets_delta,
            rx_errors_delta = m.rx_errors_delta, tx_errors_delta = m.tx_errors_delta,
            rx_dropped_delta = m.rx_dropped_delta, tx_dropped_delta = m.tx_dropped_delta,
            elapsed_ms = m.elapsed_ms, counts_64bit = m.counts_64bit, delta_kind = m.delta_kind,
            levels = m.levels, old_levels = m.old_levels, doubted_since = m.doubted_since
        WHERE server_id = m.server_id AND interface_name = m.interface_name AND time = m.time;
        PERFORM linkbeat.note_reboot(m);
    END LOOP;
END $$;
