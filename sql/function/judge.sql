-- judge: what a reading of an interface's counters proves, given the reading before it. The one place where the rules
-- stand (docs/counters.md has them in words); ingest_heartbeats and repair_deltas both call it.
--
-- A delta is a conclusion: of the explanations that fit what was reported, the one with the least traffic. Each counter
-- is judged by itself; its siblings (octets, packets, errors, drops of the same interface) are witnesses. The rows of a
-- series are judged in the order of time, each from the one before it and from what that one passes on: `levels`,
-- `old_levels` and `doubted_since`. So the same rows give the same deltas in whatever order they arrived.
-- Replaceable: reapplied on every upgrade.

-- Counters in the order in which arrays hold them: rx and tx of bytes, packets, errors and dropped.
CREATE OR REPLACE FUNCTION linkbeat.readings(m network_interface_metrics) RETURNS numeric[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY[linkbeat.unsigned(m.rx_bytes), linkbeat.unsigned(m.tx_bytes), linkbeat.unsigned(m.rx_packets),
             linkbeat.unsigned(m.tx_packets), linkbeat.unsigned(m.rx_errors), linkbeat.unsigned(m.tx_errors),
             linkbeat.unsigned(m.rx_dropped), linkbeat.unsigned(m.tx_dropped)];

-- What growth is counted from after a row: its readings, or the levels that stand above or below them.
CREATE OR REPLACE FUNCTION linkbeat.held(m network_interface_metrics) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY[coalesce(m.levels[1], m.rx_bytes), coalesce(m.levels[2], m.tx_bytes),
             coalesce(m.levels[3], m.rx_packets), coalesce(m.levels[4], m.tx_packets),
             coalesce(m.levels[5], m.rx_errors), coalesce(m.levels[6], m.tx_errors),
             coalesce(m.levels[7], m.rx_dropped), coalesce(m.levels[8], m.tx_dropped)];

-- Deltas of a row, in the order of linkbeat.readings.
CREATE OR REPLACE FUNCTION linkbeat.deltas(m network_interface_metrics) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY[m.rx_bytes_delta, m.tx_bytes_delta, m.rx_packets_delta, m.tx_packets_delta, m.rx_errors_delta,
             m.tx_errors_delta, m.rx_dropped_delta, m.tx_dropped_delta];

-- The row `m` with its deltas as they follow from `base`, the row that it is counted from (linkbeat.row_before); `base` is
-- null before the first. Where linkbeat.are_back(base, m), the rows in doubt are to be corrected first.
--   uptime  seconds since the boot at m's time, where they are not stored yet
CREATE OR REPLACE FUNCTION linkbeat.judge(
    base network_interface_metrics, m network_interface_metrics, uptime double precision DEFAULT NULL
) RETURNS network_interface_metrics LANGUAGE plpgsql STABLE AS $$
DECLARE
    readings CONSTANT numeric[] := linkbeat.readings(m);
    was      numeric[];
    held     bigint[];
    level    numeric[];
    gains    numeric[] := '{}';
    speed    integer := greatest(base.speed_mbps, m.speed_mbps);
    is_wide  boolean := coalesce(base.counts_64bit, false);
    is_other_boot boolean := (base.boot <> m.boot) IS TRUE;
    is_rebooted   boolean := false;
    is_restarted  boolean := false;  -- of its counters together
    is_certain    boolean := false;  -- that they restarted: nothing is left in doubt
    counting integer := 0;
    fell     integer := 0;
    below_half integer := 0;
    accepted boolean[] := '{}';
    usual    record;
    ran_as_usual boolean[];
    rates_since timestamptz;
    in_all   double precision;
    is_doubted_now boolean[] := array_fill(false, '{8}');
    gain     numeric;
    packets  numeric;
    kind     text;
    kinds    text[] := '{}';
    deltas   bigint[] := '{}';
    levels   bigint[] := array_fill(NULL::bigint, '{8}');
    old      bigint[] := array_fill(NULL::bigint, '{8}');
    since    timestamptz[] := array_fill(NULL::timestamptz, '{8}');
    is_asked boolean := false;  -- rows before base were
    is_together boolean;  -- its counters began again, whatever each shows
    is_confirmed boolean[] := array_fill(false, '{8}');  -- that what was rejected did cross
    late_gain numeric;
    doubt_lasts CONSTANT interval := greatest(900000, 5 * m.interval_ms::bigint) * INTERVAL '1 millisecond';  -- is_in_doubt
BEGIN
    IF base.time IS NULL THEN
        m.elapsed_ms := 0;
        m.counts_64bit := linkbeat.proves_64bit(m.rx_bytes, m.tx_bytes);
        m.rx_bytes_delta := 0; m.tx_bytes_delta := 0; m.rx_packets_delta := 0; m.tx_packets_delta := 0;
        m.rx_errors_delta := m.rx_errors - m.rx_errors; m.tx_errors_delta := m.tx_errors - m.tx_errors;
        m.rx_dropped_delta := m.rx_dropped - m.rx_dropped; m.tx_dropped_delta := m.tx_dropped - m.tx_dropped;
        m.delta_kind := 'first';
        m.levels := NULL; m.old_levels := NULL; m.doubted_since := NULL;
        RETURN m;
    END IF;
    was := linkbeat.readings(base);
    held := linkbeat.held(base);
    level := CASE WHEN coalesce(base.levels, '{}') = '{}' THEN was ELSE ARRAY[
        linkbeat.unsigned(held[1]), linkbeat.unsigned(held[2]), linkbeat.unsigned(held[3]), linkbeat.unsigned(held[4]),
        linkbeat.unsigned(held[5]), linkbeat.unsigned(held[6]), linkbeat.unsigned(held[7]), linkbeat.unsigned(held[8])] END;
    m.elapsed_ms := linkbeat.elapsed_ms(base.time, m.time);

    -- Did the device or the machine restart? Octets and packets say so together: all of those that count fell, or all but
    -- one, which may have been small before.
    FOR n IN 1 .. 4 LOOP
        gains[n] := readings[n] - level[n];
        IF level[n] > 0 THEN
            counting := counting + 1;
            fell := fell + (gains[n] < 0)::integer;
            below_half := below_half + (2 * readings[n] < level[n])::integer;
        END IF;
    END LOOP;
    is_restarted := below_half > 0 AND fell = counting OR below_half >= greatest(2, counting - 1);
    IF is_other_boot THEN
        is_certain := linkbeat.is_uuid_boot(m.boot);
        IF NOT is_certain AND NOT is_restarted THEN
            -- An id that is no UUID may have slid with a clock. Uptime does not.
            is_certain := coalesce(
                coalesce(uptime, (SELECT uptime_seconds FROM server_metrics WHERE server_id = m.server_id AND time = m.time))
                < (SELECT uptime_seconds FROM server_metrics WHERE server_id = m.server_id AND time = base.time), false);
        END IF;
        is_rebooted := is_certain OR is_restarted;
    ELSIF fell > 0 AND (base.ifindex <> m.ifindex) IS TRUE THEN
        is_restarted := true;
        is_certain := true;
    END IF;
    is_wide := is_wide AND NOT is_rebooted;
    is_together := is_rebooted OR is_restarted;

    FOR n IN 1 .. 8 LOOP
        IF readings[n] = level[n] AND base.old_levels IS NULL AND NOT is_together THEN
            deltas[n] := 0;
            kinds[n] := 'normal';
            CONTINUE;
        ELSIF readings[n] IS NULL OR level[n] IS NULL THEN
            deltas[n] := CASE WHEN readings[n] IS NOT NULL THEN 0 END;
            kinds[n] := 'first';
        ELSE
            gain := readings[n] - level[n];
            kind := 'normal';
            IF is_together THEN
                kind := CASE WHEN is_rebooted THEN 'reboot' ELSE 'reset' END;
                gain := readings[n];
                IF n <= 2 THEN
                    accepted[n] := linkbeat.is_plausible(n, gain, readings[n + 2], readings[n + 2], m.elapsed_ms, speed);
                    IF accepted[n] AND is_restarted AND NOT is_certain
                       AND gain > coalesce(speed, 1000)::bigint * 255 * (m.elapsed_ms + 1000::bigint) / 2 THEN
                        -- More than a usual line carries: it may have stepped back by more than half. What the direction
                        -- with more octets shows holds for both.
                        is_asked := true;
                        usual := coalesce(usual, linkbeat.usual(m));
                        accepted[n] := coalesce(gain <= 4 * usual.bursts[n] * m.elapsed_ms, false)
                            OR coalesce(readings[3 - n] >= gain AND readings[3 - n] <= 4 * usual.bursts[3 - n] * m.elapsed_ms, false);
                    END IF;
                ELSE
                    accepted[n] := accepted[2 - n % 2]
                        AND gain <= greatest(50000000, speed::bigint * 255 / 2) * (m.elapsed_ms + 1000::bigint);
                END IF;
                IF NOT accepted[n] THEN
                    kind := 'rejected';
                    gain := 0;
                END IF;
                IF NOT is_certain AND readings[n] < level[n] THEN
                    old[n] := held[n];
                END IF;
            ELSIF gain >= 0 THEN
                packets := CASE WHEN n > 2 THEN NULL WHEN gains[n + 2] >= 0 THEN gains[n + 2]
                                WHEN readings[n + 2] >= was[n + 2] THEN readings[n + 2] - was[n + 2] END;
                IF NOT linkbeat.is_plausible(n, gain, packets, readings[n + 2], m.elapsed_ms, speed) THEN
                    is_asked := true;
                    IF NOT linkbeat.is_plausible_since_it_moved(n, gain, packets, readings[n + 2], base, m, speed) THEN
                        kind := 'rejected';
                        gain := 0;
                        old[n] := held[n];
                    END IF;
                END IF;
                -- Its packets, which could not be read when the octets were rejected and since, are back.
                IF n <= 2 AND kind = 'normal' AND linkbeat.unsigned(base.old_levels[n]) < level[n] AND base.levels[n + 2] IS NOT NULL
                   AND gains[n + 2] > 0 AND m.time - base.doubted_since[n] <= doubt_lasts THEN
                    is_asked := true;
                    late_gain := linkbeat.confirmed_gain(n, base, m, gains[n + 2], speed);
                    is_confirmed[n] := late_gain IS NOT NULL;
                    gain := gain + coalesce(late_gain, 0);
                END IF;
            ELSE
                kind := 'dip';
                IF -gain * 100 < level[n] THEN
                    levels[n] := held[n];
                ELSE
                    is_asked := true;
                    usual := coalesce(usual, linkbeat.usual(m));
                    IF n <= 4 AND NOT is_wide AND level[n] < 4294967296 AND linkbeat.is_wrap(
                           n, gain + 4294967296, readings[n], level[n], gains, m.elapsed_ms, speed, usual.sizes[2 - n % 2]) THEN
                        kind := 'wrap';
                        gain := gain + 4294967296;
                        old[n] := held[n];
                    ELSIF 2 * readings[n] >= level[n] THEN
                        levels[n] := held[n];
                    ELSE
                        -- By itself: it counts on from here. What it may have counted in this interval is its value, if that
                        -- is what it usually counts.
                        old[n] := held[n];
                        IF readings[n] <= coalesce(usual.rates[n], 0) * m.elapsed_ms * 1.000001 AND linkbeat.is_plausible(
                               n, readings[n], readings[n + 2] - was[n + 2], readings[n + 2], m.elapsed_ms, speed) THEN
                            kind := 'reset';
                            gain := readings[n];
                        END IF;
                    END IF;
                END IF;
                IF kind = 'dip' THEN
                    gain := 0;
                END IF;
            END IF;
            deltas[n] := gain;
            kinds[n] := kind;
        END IF;

        -- What is in doubt from here on: what fell or jumped now, and what was before, until it is certain, or too old, or
        -- the counter came past its old level as it counts.
        IF old[n] IS NOT NULL THEN
            since[n] := m.time;
            is_doubted_now[n] := true;
        END IF;
        CONTINUE WHEN base.old_levels[n] IS NULL OR is_certain OR is_confirmed[n]
            OR m.time - base.doubted_since[n] > doubt_lasts
            OR kinds[n] = 'normal' AND linkbeat.unsigned(base.old_levels[n]) BETWEEN level[n] + 1 AND readings[n];
        in_all := date_part('epoch', m.time - base.doubted_since[n]) * 1000 + m.elapsed_ms;
        IF old[n] IS NOT NULL AND base.doubted_since[n] < base.time
           AND (readings[n] >= level[n] OR in_all >= 5 * m.interval_ms::bigint)  -- a reading or two may be wrong twice
           -- A dip gains nothing, and says nothing about the rows before it.
           AND (base.delta_kind IN ('normal', 'gap', 'dip') OR CASE n % 2 WHEN 1 THEN base.rx_bytes_delta ELSE base.tx_bytes_delta END > 0) THEN
            -- The older doubt stands, unless the counters of this direction did begin again: their octets show what is usual
            -- for the time since.
            CONTINUE WHEN base.delta_kind IN ('normal', 'gap') AND is_doubted_now[2 - n % 2] AND linkbeat.has_run(
                level[2 - n % 2], CASE n % 2 WHEN 1 THEN base.rx_bytes_delta ELSE base.tx_bytes_delta END, base.elapsed_ms,
                in_all, speed) AND linkbeat.grew_in_packets(base, m, 2 - n % 2);
            IF rates_since IS DISTINCT FROM base.doubted_since[n] THEN
                is_asked := true;
                rates_since := base.doubted_since[n];
                ran_as_usual := linkbeat.ran_as_usual(
                    m.server_id, m.interface_name, m.time, m.interval_ms, rates_since, level[1], level[2], in_all);
            END IF;
            -- What fell together began again together.
            CONTINUE WHEN ran_as_usual[2 - n % 2] OR (base.doubted_since[1 + n % 2] = rates_since AND level[1 + n % 2] > 0
                                                      AND ran_as_usual[1 + n % 2]) IS TRUE;
        END IF;
        old[n] := base.old_levels[n];
        since[n] := base.doubted_since[n];
    END LOOP;

    m.levels := CASE WHEN num_nonnulls(VARIADIC levels) > 0 THEN levels WHEN is_asked THEN '{}' END;
    IF num_nonnulls(VARIADIC old) > 0 THEN
        m.old_levels := old;
        m.doubted_since := since;
    ELSE
        m.old_levels := NULL;
        m.doubted_since := NULL;
    END IF;
    m.counts_64bit := is_wide OR linkbeat.proves_64bit(m.rx_bytes, m.tx_bytes);
    m.rx_bytes_delta := deltas[1];
    m.tx_bytes_delta := deltas[2];
    m.rx_packets_delta := deltas[3];
    m.tx_packets_delta := deltas[4];
    m.rx_errors_delta := deltas[5];
    m.tx_errors_delta := deltas[6];
    m.rx_dropped_delta := deltas[7];
    m.tx_dropped_delta := deltas[8];
    -- The row is as good as its worst counter; errors and drops do not speak for it.
    kinds := kinds[1:4];
    m.delta_kind := CASE WHEN 'rejected' = ANY (kinds) THEN 'rejected' WHEN 'reset' = ANY (kinds) THEN 'reset'
                         WHEN 'wrap' = ANY (kinds) THEN 'wrap' WHEN 'dip' = ANY (kinds) THEN 'dip'
                         WHEN 'reboot' = ANY (kinds) THEN 'reboot' WHEN 'normal' = ANY (kinds) THEN 'normal' ELSE 'first' END;
    IF m.delta_kind = 'normal' AND linkbeat.is_gap(m.elapsed_ms, m.interval_ms) THEN
        m.delta_kind := 'gap';
    END IF;
    RETURN m;
END $$;
