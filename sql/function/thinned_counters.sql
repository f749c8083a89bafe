-- Thinned rows: old ones without counters, which follow from the rows before them (sql/function/community/columnstore.sql).
-- Who reads counters from the history has them from here; people have public.network_counters.
-- Replaceable: reapplied on every upgrade.

-- Of each series, the first row in each of these steps has its counters. Fixed: what is thinned already counts on it.
CREATE OR REPLACE FUNCTION linkbeat.thinning_step() RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN INTERVAL '1 hour';

-- A row with its counters, stored or not: those of the last row before it that has them, and all deltas since. Null only
-- where somebody deleted that row.
--   besides   the row of that time does not count: it was not there when the row was thinned
CREATE OR REPLACE FUNCTION linkbeat.with_counters(m network_interface_metrics, besides timestamptz DEFAULT NULL)
RETURNS network_interface_metrics LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    kept network_interface_metrics;
BEGIN
    IF m.rx_bytes IS NOT NULL OR m.time IS NULL THEN
        RETURN m;
    END IF;
    SELECT * INTO kept FROM network_interface_metrics
    WHERE server_id = m.server_id AND interface_name = m.interface_name AND rx_bytes IS NOT NULL
      AND time >= time_bucket(linkbeat.thinning_step(), m.time) AND time < m.time AND time IS DISTINCT FROM besides
    ORDER BY time DESC LIMIT 1;
    SELECT kept.rx_bytes + sum(rx_bytes_delta), kept.tx_bytes + sum(tx_bytes_delta),
           kept.rx_packets + sum(rx_packets_delta), kept.tx_packets + sum(tx_packets_delta)
    INTO m.rx_bytes, m.tx_bytes, m.rx_packets, m.tx_packets
    FROM network_interface_metrics
    WHERE server_id = m.server_id AND interface_name = m.interface_name
      AND time > kept.time AND time <= m.time AND time IS DISTINCT FROM besides;
    RETURN m;
END $$;

-- Before deltas are repaired around a row that came late into a thinned hour: the row after it gets its counters back,
-- which would count from the new one otherwise.
CREATE OR REPLACE FUNCTION linkbeat.keep_counters_after(of_server text, of_interface text, moment timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    next network_interface_metrics;
BEGIN
    SELECT * INTO next FROM network_interface_metrics
    WHERE server_id = of_server AND interface_name = of_interface AND time > moment
      AND time < time_bucket(linkbeat.thinning_step(), moment) + linkbeat.thinning_step()
    ORDER BY time LIMIT 1;
    IF next.time IS NOT NULL AND next.rx_bytes IS NULL THEN
        next := linkbeat.with_counters(next, besides => moment);
        UPDATE network_interface_metrics
        SET rx_bytes = next.rx_bytes, tx_bytes = next.tx_bytes, rx_packets = next.rx_packets, tx_packets = next.tx_packets
        WHERE server_id = of_server AND interface_name = of_interface AND time = next.time;
    END IF;
END $$;
