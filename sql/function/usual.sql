-- What is usual of an interface: what the rules ask of earlier rows than the one before (judge.sql, doubts.sql).
-- Replaceable: reapplied on every upgrade.

-- What the counters of an interface gained in the last ten rows, from one moment to before another, in which they moved and
-- grew; by the newest first. Put into the queries that call it, as any SQL function of one SELECT is; of columns that a
-- caller does not name, the executor would make nulls.
CREATE OR REPLACE FUNCTION linkbeat.moving_rows(of_server text, of_interface text, since timestamptz, until timestamptz)
RETURNS TABLE (
    elapsed_ms integer, rx_bytes bigint, tx_bytes bigint, rx_packets bigint, tx_packets bigint, rx_errors bigint,
    tx_errors bigint, rx_dropped bigint, tx_dropped bigint, delta_kind text
) LANGUAGE sql STABLE AS $$
    SELECT r.elapsed_ms, r.rx_bytes_delta, r.tx_bytes_delta, r.rx_packets_delta, r.tx_packets_delta, r.rx_errors_delta,
           r.tx_errors_delta, r.rx_dropped_delta, r.tx_dropped_delta, r.delta_kind
    FROM network_interface_metrics r
    WHERE r.server_id = of_server AND r.interface_name = of_interface AND r.time >= since AND r.time < until
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
--   rates   the highest rate of each counter, per millisecond
--   sizes   octets per packet, received and sent
--   bursts  of octets received and sent, the highest rate that there may have been: where all of these rows are gaps, all of
--           a gap's may have crossed in one interval, as after a clock that was put forward by an hour
CREATE OR REPLACE FUNCTION linkbeat.usual(
    m network_interface_metrics, OUT rates double precision[], OUT sizes double precision[], OUT bursts double precision[]
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT ARRAY[max(rx_bytes::double precision / elapsed_ms), max(tx_bytes::double precision / elapsed_ms),
                 max(rx_packets::double precision / elapsed_ms), max(tx_packets::double precision / elapsed_ms),
                 max(rx_errors::double precision / elapsed_ms), max(tx_errors::double precision / elapsed_ms),
                 max(rx_dropped::double precision / elapsed_ms), max(tx_dropped::double precision / elapsed_ms)],
           ARRAY[sum(rx_bytes)::double precision / nullif(sum(rx_packets), 0)::double precision,
                 sum(tx_bytes)::double precision / nullif(sum(tx_packets), 0)::double precision],
           CASE WHEN bool_and(delta_kind = 'gap')
                THEN ARRAY[max(rx_bytes::double precision / least(elapsed_ms, m.interval_ms)),
                           max(tx_bytes::double precision / least(elapsed_ms, m.interval_ms))]
                ELSE ARRAY[max(rx_bytes::double precision / elapsed_ms), max(tx_bytes::double precision / elapsed_ms)] END
    INTO rates, sizes, bursts
    FROM linkbeat.moving_rows(m.server_id, m.interface_name, linkbeat.usual_since(m.time, m.interval_ms), m.time);
END $$;

-- What each counter gained before it fell or jumped, or gains since, per millisecond; 0 where nothing is known. By the same
-- rows as linkbeat.usual.
-- Before: the second highest rate, because the highest may be what a source that stood still had put by. Since then: the
-- middle one, and none where one row tells it, because readings that are wrong may grow as well.
--   before_it  the time of the row before m
CREATE OR REPLACE FUNCTION linkbeat.usual_rates(
    m network_interface_metrics, since timestamptz, before_it timestamptz
) RETURNS double precision[] LANGUAGE plpgsql STABLE AS $$
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
        SELECT rx_bytes::double precision / elapsed_ms AS rx_bytes, tx_bytes::double precision / elapsed_ms AS tx_bytes,
               rx_packets::double precision / elapsed_ms AS rx_packets, tx_packets::double precision / elapsed_ms AS tx_packets,
               rx_errors::double precision / elapsed_ms AS rx_errors, tx_errors::double precision / elapsed_ms AS tx_errors,
               rx_dropped::double precision / elapsed_ms AS rx_dropped, tx_dropped::double precision / elapsed_ms AS tx_dropped
        FROM linkbeat.moving_rows(m.server_id, m.interface_name, linkbeat.usual_since(since, m.interval_ms), since)
    ) r;
    IF since >= before_it THEN
        RETURN before;
    END IF;
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
        SELECT rx_bytes::double precision / elapsed_ms AS rx_bytes, tx_bytes::double precision / elapsed_ms AS tx_bytes,
               rx_packets::double precision / elapsed_ms AS rx_packets, tx_packets::double precision / elapsed_ms AS tx_packets,
               rx_errors::double precision / elapsed_ms AS rx_errors, tx_errors::double precision / elapsed_ms AS tx_errors,
               rx_dropped::double precision / elapsed_ms AS rx_dropped, tx_dropped::double precision / elapsed_ms AS tx_dropped
        FROM linkbeat.moving_rows(m.server_id, m.interface_name, greatest(since, linkbeat.usual_since(m.time, m.interval_ms)), m.time)
    ) r;
    RETURN ARRAY[greatest(before[1], after[1]), greatest(before[2], after[2]), greatest(before[3], after[3]),
                 greatest(before[4], after[4]), greatest(before[5], after[5]), greatest(before[6], after[6]),
                 greatest(before[7], after[7]), greatest(before[8], after[8])];
END $$;

-- Whether octets that began again in_all milliseconds ago show what the rates of linkbeat.usual_rates come to: those that
-- were received, and those that were sent. The rows since they began are asked only where those before do not say so.
-- Counted, not sorted: the second highest rate suffices if two do, and the middle one if as many do as are not below it.
-- Volatile, as linkbeat.sample_before, because ingest_heartbeats calls it too.
CREATE OR REPLACE FUNCTION linkbeat.ran_as_usual(
    of_server text, of_interface text, moment timestamptz, interval_ms integer, since timestamptz, rx numeric, tx numeric,
    in_all double precision
) RETURNS boolean[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    rx_level CONSTANT double precision := rx;
    tx_level CONSTANT double precision := tx;
    is_usual boolean[];
    moved    bigint;
    rx_high  bigint;
    tx_high  bigint;
BEGIN
    SELECT count(*), count(*) FILTER (WHERE rx_level <= 1.5 * (rx_bytes::double precision / elapsed_ms) * in_all),
           count(*) FILTER (WHERE tx_level <= 1.5 * (tx_bytes::double precision / elapsed_ms) * in_all)
    INTO moved, rx_high, tx_high
    FROM linkbeat.moving_rows(of_server, of_interface, linkbeat.usual_since(since, interval_ms), since);
    is_usual := ARRAY[rx = 0 OR moved > 0 AND rx_high >= least(2, moved), tx = 0 OR moved > 0 AND tx_high >= least(2, moved)];
    IF is_usual[1] AND is_usual[2] THEN
        RETURN is_usual;
    END IF;
    SELECT count(*), count(*) FILTER (WHERE rx_level <= 1.5 * (rx_bytes::double precision / elapsed_ms) * in_all),
           count(*) FILTER (WHERE tx_level <= 1.5 * (tx_bytes::double precision / elapsed_ms) * in_all)
    INTO moved, rx_high, tx_high
    FROM linkbeat.moving_rows(of_server, of_interface, greatest(since, linkbeat.usual_since(moment, interval_ms)), moment);
    IF moved > 1 THEN
        is_usual := ARRAY[is_usual[1] OR rx_high > moved - (moved + 1) / 2, is_usual[2] OR tx_high > moved - (moved + 1) / 2];
    END IF;
    RETURN is_usual;
END $$;

-- Whether octets and packets, in doubt since a moment, gained no more in elapsed_ms than at one and a half times the rates
-- before it: then linkbeat.are_back finds what they gained explained, and asks no more. Null: what it need not explain.
CREATE OR REPLACE FUNCTION linkbeat.gained_as_usual(
    of_server text, of_interface text, interval_ms integer, since timestamptz, rx_gain bigint, tx_gain bigint,
    rx_packets_gain bigint, tx_packets_gain bigint, elapsed integer
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    moved bigint;
    high  bigint[];
BEGIN
    SELECT count(*), ARRAY[
        count(*) FILTER (WHERE rx_gain::double precision > 1.5 * (rx_bytes::double precision / elapsed_ms) * elapsed),
        count(*) FILTER (WHERE tx_gain::double precision > 1.5 * (tx_bytes::double precision / elapsed_ms) * elapsed),
        count(*) FILTER (WHERE rx_packets_gain::double precision > 1.5 * (rx_packets::double precision / elapsed_ms) * elapsed),
        count(*) FILTER (WHERE tx_packets_gain::double precision > 1.5 * (tx_packets::double precision / elapsed_ms) * elapsed)]
    INTO moved, high
    FROM linkbeat.moving_rows(of_server, of_interface, linkbeat.usual_since(since, interval_ms), since);
    RETURN moved > 0 AND greatest(high[1], high[2], high[3], high[4]) <= moved - least(2, moved);
END $$;
