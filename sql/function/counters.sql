-- Counters: how 64 bits live in a bigint, and what two readings of one counter prove.
-- The one place where the delta rules stand; ingest_heartbeats and repair_deltas both call it.
-- Replaceable: reapplied on every upgrade.

-- None of these is STRICT: the planner puts a strict SQL function's CASE, OR or LEAST into the query only without it,
-- and a call costs microseconds a row.

-- The counter that a bigint holds as two's complement: 0 .. 2**64-1.
CREATE OR REPLACE FUNCTION linkbeat.unsigned(stored bigint) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN stored >= 0 THEN stored::numeric ELSE stored::numeric + 18446744073709551616 END;

COMMENT ON FUNCTION linkbeat.unsigned(bigint) IS 'The counter that a stored bigint stands for, 0 .. 2**64-1.';

-- The most bytes that an interface can carry in elapsed_ms: its line rate and 2 %, or 400 Gb/s, the fastest there is,
-- where that is not known; and one second of grace for clocks that were set. More than this was never on a wire and
-- must not enter a sum.
CREATE OR REPLACE FUNCTION linkbeat.delta_limit(elapsed_ms integer, speed_mbps integer) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN speed_mbps IS NULL THEN 50000000::bigint * (elapsed_ms + 1000::bigint)
            ELSE speed_mbps::bigint * 255 * (elapsed_ms + 1000::bigint) / 2 END;

-- Whether samples are missing before a row: more than three intervals passed.
CREATE OR REPLACE FUNCTION linkbeat.is_gap(elapsed_ms integer, interval_ms integer) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN elapsed_ms > 3 * interval_ms::bigint;

-- Milliseconds from one reading to the next, 0 where there is none before; 2**31-1 stands for 24 days and more.
CREATE OR REPLACE FUNCTION linkbeat.elapsed_ms(previous timestamptz, current timestamptz) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN previous IS NULL THEN 0
            ELSE least(date_part('epoch', current - previous) * 1000, 2147483647)::integer END;

-- Whether a reading shows that the interface counts beyond 2**32 (from 2**63 on, stored values are negative).
CREATE OR REPLACE FUNCTION linkbeat.proves_64bit(rx_bytes bigint, tx_bytes bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN rx_bytes NOT BETWEEN 0 AND 4294967295 OR tx_bytes NOT BETWEEN 0 AND 4294967295;

-- Whether a counter plainly grew; true where it was not reported. Both below 2**63, so that the difference is that of
-- the stored values.
CREATE OR REPLACE FUNCTION linkbeat.grew(previous bigint, current bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN previous IS NULL OR current IS NULL OR (previous >= 0 AND current >= previous);

-- What one counter gained between two readings, and how that is known.
--   previous, current        stored counters; a counter not reported is null
--   rebooted                 both boot ids are known and differ
--   counts_64bit             the interface passed 2**32 in this boot, up to the previous reading
--   most                     that the interface can have carried between the two readings
--   elapsed_ms               between the two readings
--   previous_gain, previous_ms  what it gained just before, and in which time; null or 0: not known
-- A counter that shrank without a reboot wrapped at 2**32 only with evidence: it was below 2**32 and never above
-- in this boot, and the wrapped difference is in line with the rate just before it (half to twice) or below 1 MiB, and
-- no more than the interface can carry.
-- Otherwise it was reset, and its new value counts from 0. Traffic is never invented.
CREATE OR REPLACE FUNCTION linkbeat.counter_delta(
    previous bigint, current bigint, rebooted boolean, counts_64bit boolean,
    most bigint, elapsed_ms integer, previous_gain bigint, previous_ms integer
) RETURNS linkbeat.delta
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    before  numeric := linkbeat.unsigned(previous);
    now_    numeric := linkbeat.unsigned(current);
    gained  numeric;
    kind    text;
    wrapped numeric;
    -- The gain that the rate before would give, times previous_ms: a division could round.
    usual   numeric := previous_gain::numeric * elapsed_ms;
BEGIN
    IF now_ IS NULL OR before IS NULL THEN
        RETURN ROW(CASE WHEN now_ IS NULL THEN NULL ELSE 0 END, 'first')::linkbeat.delta;
    ELSIF rebooted THEN
        gained := now_;
        kind := 'reboot';
    ELSIF now_ >= before THEN
        gained := now_ - before;
        kind := 'normal';
    ELSE
        wrapped := now_ + 4294967296 - before;
        IF before < 4294967296 AND NOT counts_64bit AND wrapped <= most
           AND (wrapped < 1048576
                OR coalesce(previous_ms > 0 AND wrapped * previous_ms * 2 >= usual AND wrapped * previous_ms <= usual * 2, false)) THEN
            gained := wrapped;
            kind := 'wrap';
        ELSE
            gained := now_;
            kind := 'reset';
        END IF;
    END IF;
    IF gained > most THEN
        RETURN ROW(0, 'rejected')::linkbeat.delta;
    END IF;
    RETURN ROW(gained::bigint, kind)::linkbeat.delta;
END $$;

-- The row `current` with its deltas as they follow from the row before; `previous` is null before the first.
CREATE OR REPLACE FUNCTION linkbeat.settled(previous network_interface_metrics, current network_interface_metrics)
RETURNS network_interface_metrics LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    rebooted boolean := coalesce(previous.boot <> current.boot, false);
    elapsed  integer := linkbeat.elapsed_ms(previous.time, current.time);
    most     bigint := linkbeat.delta_limit(elapsed, greatest(previous.speed_mbps, current.speed_mbps));
    -- A rate is known from a row whose counters all grew or wrapped.
    usual_ms integer := CASE WHEN previous.delta_kind IN ('normal', 'gap', 'wrap') THEN previous.elapsed_ms END;
    wide     boolean := coalesce(previous.counts_64bit AND NOT rebooted, false);
    deltas   linkbeat.delta[] := ARRAY[
        linkbeat.counter_delta(previous.rx_bytes, current.rx_bytes, rebooted, wide, most, elapsed, previous.rx_bytes_delta, usual_ms),
        linkbeat.counter_delta(previous.tx_bytes, current.tx_bytes, rebooted, wide, most, elapsed, previous.tx_bytes_delta, usual_ms),
        linkbeat.counter_delta(previous.rx_packets, current.rx_packets, rebooted, wide, most, elapsed, previous.rx_packets_delta, usual_ms),
        linkbeat.counter_delta(previous.tx_packets, current.tx_packets, rebooted, wide, most, elapsed, previous.tx_packets_delta, usual_ms),
        linkbeat.counter_delta(previous.rx_errors, current.rx_errors, rebooted, wide, most, elapsed, previous.rx_errors_delta, usual_ms),
        linkbeat.counter_delta(previous.tx_errors, current.tx_errors, rebooted, wide, most, elapsed, previous.tx_errors_delta, usual_ms),
        linkbeat.counter_delta(previous.rx_dropped, current.rx_dropped, rebooted, wide, most, elapsed, previous.rx_dropped_delta, usual_ms),
        linkbeat.counter_delta(previous.tx_dropped, current.tx_dropped, rebooted, wide, most, elapsed, previous.tx_dropped_delta, usual_ms)];
BEGIN
    current.elapsed_ms := elapsed;
    current.counts_64bit := wide OR linkbeat.proves_64bit(current.rx_bytes, current.tx_bytes);
    current.rx_bytes_delta := deltas[1].amount;
    current.tx_bytes_delta := deltas[2].amount;
    current.rx_packets_delta := deltas[3].amount;
    current.tx_packets_delta := deltas[4].amount;
    current.rx_errors_delta := deltas[5].amount;
    current.tx_errors_delta := deltas[6].amount;
    current.rx_dropped_delta := deltas[7].amount;
    current.tx_dropped_delta := deltas[8].amount;
    -- The row is as good as its worst counter; the errors and drops do not speak for the row.
    SELECT (array_agg(d.kind ORDER BY array_position('{rejected,reset,wrap,reboot,normal,first}', d.kind)))[1] INTO current.delta_kind
    FROM unnest(deltas[1:4]) AS d;
    IF current.delta_kind = 'normal' AND linkbeat.is_gap(elapsed, current.interval_ms) THEN
        current.delta_kind := 'gap';
    END IF;
    RETURN current;
END $$;
