-- repair_deltas: recomputes one series' deltas in time order from `since` on, until a row that is right already.
-- For what the plain path of ingest_heartbeats leaves: counters that shrank, reboots, the rows after a late sample.
-- The caller holds the server's row. Returns the time of the row at which it stopped; infinity after the last.
-- Replaceable: reapplied on every upgrade.
CREATE OR REPLACE FUNCTION linkbeat.repair_deltas(of_server text, of_interface text, since timestamptz)
RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    previous network_interface_metrics;
    stored   network_interface_metrics;
    settled  network_interface_metrics;
BEGIN
    SELECT * INTO previous FROM network_interface_metrics
    WHERE server_id = of_server AND interface_name = of_interface AND time < since
    ORDER BY time DESC LIMIT 1;

    FOR stored IN
        SELECT * FROM network_interface_metrics
        WHERE server_id = of_server AND interface_name = of_interface AND time >= since
        ORDER BY time
    LOOP
        settled := linkbeat.settled(previous, stored);
        IF settled IS NOT DISTINCT FROM stored THEN
            RETURN stored.time;
        END IF;
        UPDATE network_interface_metrics SET
            rx_bytes_delta = settled.rx_bytes_delta, tx_bytes_delta = settled.tx_bytes_delta,
            rx_packets_delta = settled.rx_packets_delta, tx_packets_delta = settled.tx_packets_delta,
            rx_errors_delta = settled.rx_errors_delta, tx_errors_delta = settled.tx_errors_delta,
            rx_dropped_delta = settled.rx_dropped_delta, tx_dropped_delta = settled.tx_dropped_delta,
            elapsed_ms = settled.elapsed_ms, counts_64bit = settled.counts_64bit, delta_kind = settled.delta_kind
        WHERE server_id = of_server AND interface_name = of_interface AND time = stored.time;
        UPDATE network_interfaces SET
            rx_bytes_delta = settled.rx_bytes_delta, tx_bytes_delta = settled.tx_bytes_delta,
            elapsed_ms = settled.elapsed_ms, counts_64bit = settled.counts_64bit
        WHERE server_id = of_server AND interface_name = of_interface AND time = stored.time;
        previous := settled;
    END LOOP;
    RETURN 'infinity';
END $$;

-- The same for several places, ordered by (server, interface, since): a walk that has passed the next one serves both.
CREATE OR REPLACE FUNCTION linkbeat.repair_deltas(servers text[], interfaces text[], sinces timestamptz[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    walked_until timestamptz;
BEGIN
    FOR place IN 1 .. coalesce(cardinality(servers), 0) LOOP
        IF place = 1 OR (servers[place], interfaces[place]) <> (servers[place - 1], interfaces[place - 1])
           OR sinces[place] > walked_until THEN
            walked_until := linkbeat.repair_deltas(servers[place], interfaces[place], sinces[place]);
        END IF;
    END LOOP;
END $$;
