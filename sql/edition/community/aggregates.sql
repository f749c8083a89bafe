-- network_traffic_1m, _15m, _1h, _1d on TimescaleDB's Community edition: hierarchical, real-time continuous
-- aggregates with refresh policies. Structure: run once, frozen on release.
--
-- Real-time at every level, because a level does not inherit it from the one below. A refresh reaches back nine days
-- and more: further than the oldest heartbeat that the service takes (seven days), because below the watermark a row
-- counts only once its bucket was refreshed.

CREATE MATERIALIZED VIEW network_traffic_1m
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
    SELECT time_bucket('1 minute', time) AS bucket, server_id, interface_name,
           sum(rx_bytes_delta)::bigint AS rx_bytes, sum(tx_bytes_delta)::bigint AS tx_bytes,
           sum(rx_packets_delta)::bigint AS rx_packets, sum(tx_packets_delta)::bigint AS tx_packets,
           coalesce(sum(rx_errors_delta), 0)::bigint AS rx_errors, coalesce(sum(tx_errors_delta), 0)::bigint AS tx_errors,
           coalesce(sum(rx_dropped_delta), 0)::bigint AS rx_dropped, coalesce(sum(tx_dropped_delta), 0)::bigint AS tx_dropped,
           max(CASE WHEN elapsed_ms > 0 THEN rx_bytes_delta * 8000::double precision / elapsed_ms END) AS rx_bps_max,
           max(CASE WHEN elapsed_ms > 0 THEN tx_bytes_delta * 8000::double precision / elapsed_ms END) AS tx_bps_max,
           count(*) FILTER (WHERE is_up) AS up_samples, count(*) AS samples
    FROM network_interface_metrics
    GROUP BY 1, 2, 3
WITH NO DATA;
CREATE INDEX ON network_traffic_1m (server_id, interface_name, bucket);

DO $install$
DECLARE
    level record;
BEGIN
    FOR level IN
        SELECT * FROM (VALUES
            ('15m', '15 minutes', 'network_traffic_1m'),
            ('1h',  '1 hour',     'network_traffic_15m'),
            ('1d',  '1 day',      'network_traffic_1h')) AS l(name, width, below)
    LOOP
        EXECUTE format($sql$
            CREATE MATERIALIZED VIEW network_traffic_%1$s
            WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
                SELECT time_bucket(%2$L::interval, bucket) AS bucket, server_id, interface_name,
                       sum(rx_bytes)::bigint AS rx_bytes, sum(tx_bytes)::bigint AS tx_bytes,
                       sum(rx_packets)::bigint AS rx_packets, sum(tx_packets)::bigint AS tx_packets,
                       sum(rx_errors)::bigint AS rx_errors, sum(tx_errors)::bigint AS tx_errors,
                       sum(rx_dropped)::bigint AS rx_dropped, sum(tx_dropped)::bigint AS tx_dropped,
                       max(rx_bps_max) AS rx_bps_max, max(tx_bps_max) AS tx_bps_max,
                       sum(up_samples)::bigint AS up_samples, sum(samples)::bigint AS samples
                FROM %3$s
                GROUP BY 1, 2, 3
            WITH NO DATA
            $sql$, level.name, level.width, level.below);
        EXECUTE format('CREATE INDEX ON network_traffic_%s (server_id, interface_name, bucket)', level.name);
    END LOOP;
END $install$;

-- Oldest first: newest first moves the watermark over what is not materialized yet, which is then in no answer.
SELECT add_continuous_aggregate_policy('network_traffic_1m', start_offset => INTERVAL '9 days',
    end_offset => INTERVAL '2 minutes', schedule_interval => INTERVAL '1 minute', refresh_newest_first => false);
SELECT add_continuous_aggregate_policy('network_traffic_15m', start_offset => INTERVAL '9 days',
    end_offset => INTERVAL '15 minutes', schedule_interval => INTERVAL '5 minutes', refresh_newest_first => false);
SELECT add_continuous_aggregate_policy('network_traffic_1h', start_offset => INTERVAL '9 days',
    end_offset => INTERVAL '1 hour', schedule_interval => INTERVAL '15 minutes', refresh_newest_first => false);
SELECT add_continuous_aggregate_policy('network_traffic_1d', start_offset => INTERVAL '10 days',
    end_offset => INTERVAL '1 day', schedule_interval => INTERVAL '1 hour', refresh_newest_first => false);

-- Materializes every level up to `until`, from the beginning.
CREATE PROCEDURE linkbeat.refresh_aggregates(until timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    CALL public.refresh_continuous_aggregate('network_traffic_1m', NULL, until);
    CALL public.refresh_continuous_aggregate('network_traffic_15m', NULL, until);
    CALL public.refresh_continuous_aggregate('network_traffic_1h', NULL, until);
    CALL public.refresh_continuous_aggregate('network_traffic_1d', NULL, until);
END $$;

-- The policies above do all of it; the Apache edition has its work here.
CREATE PROCEDURE linkbeat.maintain() LANGUAGE plpgsql AS $$
BEGIN
    NULL;
END $$;
