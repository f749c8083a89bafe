-- What is usual of an interface: what the rules ask of earlier rows than the one before (judge.sql, doubts.sql).
-- Replaceable: reapplied on every upgrade.

-- The last ten rows of an interface from one moment to before another whose counters moved and grew; by the newest first.
-- Put into the queries that call it, as any SQL function of one SELECT is.
CREATE OR REPLACE FUNCTION linkbeat.moving_rows(m network_interface_metrics, since timestamptz, until timestamptz)
RETURNS SETOF network_interface_metrics LANGUAGE sql STABLE AS $$
    SELECT * FROM network_interface_metrics r
    WHERE r.server_id = m.server_id AND r.interface_name = m.interface_name AND r.time >= since AND r.time < until
      AND r.delta_kind IN ('normal', 'gap') AND r.elapsed_ms > 0
      AND (r.rx_bytes_delta > 0 OR r.tx_bytes_delta > 0 OR r.rx_packets_delta > 0 OR r.tx_packets_delta > 0)
    ORDER BY r.time DESC LIMIT 10
$$;

-- How far back from a moment rows tell what is usual: fifteen minutes or ten intervals. Stable, as its operators are: were
-- it declared immutable, it would not be put into its callers' queries.
CREATE OR REPLACE FUNCTION linkbeat.usual_since(moment timestamptz, interval_ms integer) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN moment - greatest(900000, 10 * interval_ms::bigint) * INTERVAL '1 millisecond';

-- What is usual of an interface, by the last ten rows before a moment whose counters moved: no further back than fifteen
-- minutes or ten intervals. Null where nothing tells.
--   rates  the highest rate of each counter, per millisecond
--   sizes  octets per packet, received and sent
CREATE OR REPLACE FUNCTION linkbeat.usual(
    m network_interface_metrics, OUT rates double precision[], OUT sizes double precision[]
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT ARRAY[max(rx_bytes_delta::double precision / elapsed_ms), max(tx_bytes_delta::double precision / elapsed_ms),
                 max(rx_packets_delta::double precision / elapsed_ms), max(tx_packets_delta::double precision / elapsed_ms),
                 max(rx_errors_delta::double precision / elapsed_ms), max(tx_errors_delta::double precision / elapsed_ms),
                 max(rx_dropped_delta::double precision / elapsed_ms), max(tx_dropped_delta::double precision / elapsed_ms)],
           ARRAY[sum(rx_bytes_delta)::double precision / nullif(sum(rx_packets_delta), 0)::double precision,
                 sum(tx_bytes_delta)::double precision / nullif(sum(tx_packets_delta), 0)::double precision]
    INTO rates, sizes
    FROM linkbeat.moving_rows(m, linkbeat.usual_since(m.time, m.interval_ms), m.time);
END $$;

-- What each counter gained before it fell or jumped, or gains since, per millisecond; 0 where nothing is known. By the same
-- rows as linkbeat.usual.
-- Before: the second highest rate, because the highest may be what a source that stood still had put by. Since then: the
-- middle one, and none where one row tells it, because readings that are wrong may grow as well.
CREATE OR REPLACE FUNCTION linkbeat.usual_rates(m network_interface_metrics, since timestamptz) RETURNS double precision[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    before double precision[];
    after  double precision[];
BEGIN
    SELECT ARRAY[coalesce((array_agg(rx_bytes ORDER BY rx_bytes DESC NULLS LAST))[2], max(rx_bytes), 0),
                 coalesce((array_agg(tx_bytes ORDER BY tx_bytes DESC NULLS LAST))[2], max(tx_bytes), 0),
                 coalesce((array_agg(rx_packets ORDER BY rx_packets DESC NULLS LAST))[2], max(rx_packets), 0),
                 coalesce((array_agg(tx_packets ORDER BY tx_packets DESC NULLS LAST))[2], max(tx_packets), 0),
                 coalesce((array_agg(rx_errors ORDER BY rx_errors DESC NULLS LAST))[2], max(rx_errors), 0),
                 coalesce((array_agg(tx_errors ORDER BY tx_errors DESC NULLS LAST))[2], max(tx_errors), 0),
                 coalesce((array_agg(rx_dropped ORDER BY rx_dropped DESC NULLS LAST))[2], max(rx_dropped), 0),
                 coalesce((array_agg(tx_dropped ORDER BY tx_dropped DESC NULLS LAST))[2], max(tx_dropped), 0)]
    INTO before
    FROM (
        SELECT rx_bytes_delta::double precision / elapsed_ms AS rx_bytes, tx_bytes_delta::double precision / elapsed_ms AS tx_bytes,
               rx_packets_delta::double precision / elapsed_ms AS rx_packets, tx_packets_delta::double precision / elapsed_ms AS tx_packets,
               rx_errors_delta::double precision / elapsed_ms AS rx_errors, tx_errors_delta::double precision / elapsed_ms AS tx_errors,
               rx_dropped_delta::double precision / elapsed_ms AS rx_dropped, tx_dropped_delta::double precision / elapsed_ms AS tx_dropped
        FROM linkbeat.moving_rows(m, linkbeat.usual_since(since, m.interval_ms), since)
    ) r;
    SELECT ARRAY[CASE WHEN count(rx_bytes) > 1 THEN percentile_disc(0.5) WITHIN GROUP (ORDER BY rx_bytes) ELSE 0 END,
                 CASE WHEN count(tx_bytes) > 1 THEN percentile_disc(0.5) WITHIN GROUP (ORDER BY tx_bytes) ELSE 0 END,
                 CASE WHEN count(rx_packets) > 1 THEN percentile_disc(0.5) WITHIN GROUP (ORDER BY rx_packets) ELSE 0 END,
                 CASE WHEN count(tx_packets) > 1 THEN percentile_disc(0.5) WITHIN GROUP (ORDER BY tx_packets) ELSE 0 END,
                 CASE WHEN count(rx_errors) > 1 THEN percentile_disc(0.5) WITHIN GROUP (ORDER BY rx_errors) ELSE 0 END,
                 CASE WHEN count(tx_errors) > 1 THEN percentile_disc(0.5) WITHIN GROUP (ORDER BY tx_errors) ELSE 0 END,
                 CASE WHEN count(rx_dropped) > 1 THEN percentile_disc(0.5) WITHIN GROUP (ORDER BY rx_dropped) ELSE 0 END,
                 CASE WHEN count(tx_dropped) > 1 THEN percentile_disc(0.5) WITHIN GROUP (ORDER BY tx_dropped) ELSE 0 END]
    INTO after
    FROM (
        SELECT rx_bytes_delta::double precision / elapsed_ms AS rx_bytes, tx_bytes_delta::double precision / elapsed_ms AS tx_bytes,
               rx_packets_delta::double precision / elapsed_ms AS rx_packets, tx_packets_delta::double precision / elapsed_ms AS tx_packets,
               rx_errors_delta::double precision / elapsed_ms AS rx_errors, tx_errors_delta::double precision / elapsed_ms AS tx_errors,
               rx_dropped_delta::double precision / elapsed_ms AS rx_dropped, tx_dropped_delta::double precision / elapsed_ms AS tx_dropped
        FROM linkbeat.moving_rows(m, greatest(since, linkbeat.usual_since(m.time, m.interval_ms)), m.time)
    ) r;
    RETURN ARRAY[greatest(before[1], after[1]), greatest(before[2], after[2]), greatest(before[3], after[3]),
                 greatest(before[4], after[4]), greatest(before[5], after[5]), greatest(before[6], after[6]),
                 greatest(before[7], after[7]), greatest(before[8], after[8])];
END $$;

-- The same of octets alone, received and sent: for judge, which every reset asks.
CREATE OR REPLACE FUNCTION linkbeat.usual_octets(m network_interface_metrics, since timestamptz) RETURNS double precision[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    rx double precision[];
    tx double precision[];
    after_rx double precision[];
    after_tx double precision[];
BEGIN
    SELECT array_agg(rate_rx ORDER BY rate_rx DESC), array_agg(rate_tx ORDER BY rate_tx DESC) INTO rx, tx
    FROM (
        SELECT rx_bytes_delta::double precision / elapsed_ms AS rate_rx, tx_bytes_delta::double precision / elapsed_ms AS rate_tx
        FROM linkbeat.moving_rows(m, linkbeat.usual_since(since, m.interval_ms), since)
    ) r;
    SELECT array_agg(rate_rx ORDER BY rate_rx), array_agg(rate_tx ORDER BY rate_tx) INTO after_rx, after_tx
    FROM (
        SELECT rx_bytes_delta::double precision / elapsed_ms AS rate_rx, tx_bytes_delta::double precision / elapsed_ms AS rate_tx
        FROM linkbeat.moving_rows(m, greatest(since, linkbeat.usual_since(m.time, m.interval_ms)), m.time)
    ) r;
    RETURN ARRAY[
        greatest(rx[least(2, cardinality(rx))], CASE WHEN cardinality(after_rx) > 1 THEN after_rx[(cardinality(after_rx) + 1) / 2] END, 0),
        greatest(tx[least(2, cardinality(tx))], CASE WHEN cardinality(after_tx) > 1 THEN after_tx[(cardinality(after_tx) + 1) / 2] END, 0)];
END $$;
