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

CREATE OR REPLACE FUNCTION linkbeat.per_1000_s(gain bigint, elapsed_ms integer) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN div(gain::numeric * 1000000 + elapsed_ms - 1, elapsed_ms::numeric);

-- Whether counter n can have gained this much in elapsed_ms.
--   packets  that its direction gained in the same time; null: not known, because that counter fell
--   counted  what the packet counter says in all: 0 where the source does not count packets
-- What the line carries needs no witness. More than that was carried only if packets confirm it: emulated and bonded
-- devices exceed their speed_mbps. Where neither is known, no more than 1 Gb/s is believed of a source that counts packets.
CREATE OR REPLACE FUNCTION linkbeat.is_plausible(
    n integer, gain numeric, packets numeric, counted numeric, elapsed_ms integer, speed_mbps integer
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN gain <= linkbeat.delta_limit(elapsed_ms, speed_mbps) AND speed_mbps IS NOT NULL OR gain = 0 THEN true
    WHEN gain > linkbeat.delta_limit(elapsed_ms, NULL) THEN false
    WHEN n > 2 THEN true
    WHEN packets > 0 THEN div(gain, 1048576) <= packets
    WHEN speed_mbps IS NOT NULL THEN false
    ELSE counted = 0 OR gain <= linkbeat.delta_limit(elapsed_ms, 1000)
END;

-- The same over the time since the counter last moved: a source may refresh seldom, or stand still for a while.
-- Looks back 15 minutes at most.
CREATE OR REPLACE FUNCTION linkbeat.is_plausible_since_it_moved(
    n integer, gain numeric, packets numeric, counted numeric, base network_interface_metrics,
    m network_interface_metrics, speed_mbps integer
) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    since    CONSTANT timestamptz := m.time - INTERVAL '15 minutes';
    moved_at timestamptz;
BEGIN
    SELECT coalesce(max(r.time) FILTER (WHERE r.delta_kind IN ('rejected', 'first')
                        OR CASE n WHEN 1 THEN r.rx_bytes_delta WHEN 2 THEN r.tx_bytes_delta
                                  WHEN 3 THEN r.rx_packets_delta WHEN 4 THEN r.tx_packets_delta
                                  WHEN 5 THEN r.rx_errors_delta WHEN 6 THEN r.tx_errors_delta
                                  WHEN 7 THEN r.rx_dropped_delta ELSE r.tx_dropped_delta END <> 0),
                    min(r.time))
    INTO moved_at
    FROM network_interface_metrics r
    WHERE r.server_id = m.server_id AND r.interface_name = m.interface_name AND r.time >= since AND r.time <= base.time
      AND (r.boot IS NULL OR r.boot IS NOT DISTINCT FROM base.boot OR r.boot IS NOT DISTINCT FROM m.boot);
    IF moved_at IS NULL OR moved_at >= base.time THEN
        RETURN linkbeat.is_plausible(n, gain, packets, counted, m.elapsed_ms, speed_mbps);
    END IF;
    packets := coalesce(packets, 0) + (
        SELECT coalesce(sum(CASE n WHEN 1 THEN r.rx_packets_delta ELSE r.tx_packets_delta END), 0)
        FROM network_interface_metrics r
        WHERE r.server_id = m.server_id AND r.interface_name = m.interface_name AND r.time > moved_at AND r.time <= base.time
          AND (r.boot IS NULL OR r.boot IS NOT DISTINCT FROM base.boot OR r.boot IS NOT DISTINCT FROM m.boot));
    RETURN linkbeat.is_plausible(n, gain, packets, counted, linkbeat.elapsed_ms(moved_at, m.time), speed_mbps);
END $$;

-- The highest rate of each counter in the rows before a moment, in 1,000 seconds; and octets per packet, received and sent.
-- Both rounded up: a division must not make them less than they were. Null where nothing tells. Of ten rows, and no further back than fifteen minutes or ten intervals.
CREATE OR REPLACE FUNCTION linkbeat.usual(
    m network_interface_metrics, moment timestamptz, OUT rates numeric[], OUT sizes numeric[]
) LANGUAGE sql STABLE AS $$
    SELECT ARRAY[max(linkbeat.per_1000_s(rx_bytes_delta, elapsed_ms)), max(linkbeat.per_1000_s(tx_bytes_delta, elapsed_ms)),
                 max(linkbeat.per_1000_s(rx_packets_delta, elapsed_ms)), max(linkbeat.per_1000_s(tx_packets_delta, elapsed_ms)),
                 max(linkbeat.per_1000_s(rx_errors_delta, elapsed_ms)), max(linkbeat.per_1000_s(tx_errors_delta, elapsed_ms)),
                 max(linkbeat.per_1000_s(rx_dropped_delta, elapsed_ms)), max(linkbeat.per_1000_s(tx_dropped_delta, elapsed_ms))],
           ARRAY[div(sum(rx_bytes_delta) + sum(rx_packets_delta) - 1, nullif(sum(rx_packets_delta), 0)), div(sum(tx_bytes_delta) + sum(tx_packets_delta) - 1, nullif(sum(tx_packets_delta), 0))]
    FROM (
        SELECT * FROM network_interface_metrics r
        WHERE r.server_id = m.server_id AND r.interface_name = m.interface_name AND r.time < moment
          AND r.time >= moment - greatest(900000, 10 * m.interval_ms::bigint) * INTERVAL '1 millisecond'
        ORDER BY r.time DESC LIMIT 10
    ) r
    WHERE delta_kind IN ('normal', 'gap') AND elapsed_ms > 0
$$;

-- Whether a reading shows that the counters in doubt never fell or jumped: all are back at their old level or a step above
-- it that their usual rate explains, and the readings since do not explain where they are. `base` as for judge.
CREATE OR REPLACE FUNCTION linkbeat.is_back(base network_interface_metrics, m network_interface_metrics) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    elapsed     CONSTANT integer := linkbeat.elapsed_ms(base.time, m.time);
    readings    CONSTANT numeric[] := linkbeat.readings(m);
    held        CONSTANT bigint[] := linkbeat.held(base);
    before      numeric[];
    since       numeric[];
    old         numeric;
    level       numeric;
    unexplained boolean := false;
BEGIN
    IF base.old_levels IS NULL OR NOT linkbeat.is_in_doubt(base.doubted_since, m.time, m.interval_ms)
       OR (base.boot <> m.boot) IS TRUE AND linkbeat.is_uuid_boot(m.boot) THEN
        RETURN false;
    END IF;
    FOR n IN 1 .. 8 LOOP
        old := linkbeat.unsigned(base.old_levels[n]);
        IF old > readings[n] THEN
            RETURN false;
        END IF;
    END LOOP;
    before := (linkbeat.usual(m, base.doubted_since)).rates;
    since := (linkbeat.usual(m, m.time)).rates;
    FOR n IN 1 .. 8 LOOP
        old := linkbeat.unsigned(base.old_levels[n]);
        level := linkbeat.unsigned(held[n]);
        CONTINUE WHEN old IS NULL OR readings[n] IS NULL OR level IS NULL;
        IF level > old AND readings[n] >= level THEN
            RETURN false;  -- it jumped, and goes on from there
        END IF;
        -- Above the old level by more than its rate and more than it had fallen: a burst since a reset.
        IF (readings[n] - old) * 1000000 > greatest(
               1.5 * coalesce(before[n], 0) * (linkbeat.elapsed_ms(base.doubted_since, m.time)::numeric + elapsed),
               abs(level - old) * 1000000) THEN
            RETURN false;
        END IF;
        unexplained := unexplained OR level > old
            OR (readings[n] - level) * 1000000 > 1.5 * greatest(before[n], since[n], 0) * elapsed;
    END LOOP;
    RETURN unexplained;
END $$;

-- The row `m` with its deltas as they follow from `base`, the row that it is counted from (linkbeat.row_before); `base` is
-- null before the first. Where linkbeat.is_back(base, m), the rows in doubt are to be corrected first.
--   uptime  seconds since the boot at m's time, where they are not stored yet
CREATE OR REPLACE FUNCTION linkbeat.judge(
    base network_interface_metrics, m network_interface_metrics, uptime double precision DEFAULT NULL
) RETURNS network_interface_metrics LANGUAGE plpgsql STABLE AS $$
DECLARE
    readings CONSTANT numeric[] := linkbeat.readings(m);
    was      numeric[];
    held     bigint[];
    level    numeric[];
    speed    integer := greatest(base.speed_mbps, m.speed_mbps);
    is_wide  boolean := coalesce(base.counts_64bit, false);
    is_other_boot  boolean := (base.boot <> m.boot) IS TRUE;
    is_rebooted    boolean := false;
    is_restarted   boolean := false;  -- of all counters, without a reboot
    is_certain     boolean := false;  -- that they restarted: nothing is left in doubt
    all_fell       boolean := true;
    any_fell       boolean := false;
    any_below_half boolean := false;
    accepted boolean[] := '{}';
    usual    record;
    gain     numeric;
    packets  numeric;
    kind     text;
    kinds    text[] := '{}';
    deltas   bigint[] := '{}';
    levels   bigint[] := array_fill(NULL::bigint, '{8}');
    doubted  bigint[] := array_fill(NULL::bigint, '{8}');
    is_asked boolean := false;  -- rows before base were
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
    level := ARRAY[linkbeat.unsigned(held[1]), linkbeat.unsigned(held[2]), linkbeat.unsigned(held[3]), linkbeat.unsigned(held[4]),
                   linkbeat.unsigned(held[5]), linkbeat.unsigned(held[6]), linkbeat.unsigned(held[7]), linkbeat.unsigned(held[8])];
    m.elapsed_ms := linkbeat.elapsed_ms(base.time, m.time);

    -- Did the device or the machine restart? The counters that count say so together.
    FOR n IN 1 .. 4 LOOP
        IF level[n] > 0 THEN
            IF readings[n] >= level[n] THEN
                all_fell := false;
            ELSE
                any_fell := true;
                any_below_half := any_below_half OR readings[n] * 2 < level[n];
            END IF;
        END IF;
    END LOOP;
    is_restarted := all_fell AND any_below_half;
    IF is_other_boot THEN
        is_certain := linkbeat.is_uuid_boot(m.boot);
        IF NOT is_certain AND NOT is_restarted THEN
            -- An id that is no UUID may have slid with a clock. Uptime does not.
            is_certain := coalesce(
                coalesce(uptime, (SELECT uptime_seconds FROM server_metrics WHERE server_id = m.server_id AND time = m.time))
                < (SELECT uptime_seconds FROM server_metrics WHERE server_id = m.server_id AND time = base.time), false);
        END IF;
        is_rebooted := is_certain OR is_restarted;
    ELSIF any_fell AND (base.ifindex <> m.ifindex) IS TRUE THEN
        is_restarted := true;
        is_certain := true;
    END IF;
    is_wide := is_wide AND NOT is_rebooted;

    -- What the row before left in doubt stays so for a while.
    IF base.old_levels IS NOT NULL AND NOT is_certain AND linkbeat.is_in_doubt(base.doubted_since, m.time, m.interval_ms) THEN
        m.old_levels := base.old_levels;
        m.doubted_since := base.doubted_since;
        FOR n IN 1 .. 8 LOOP
            IF linkbeat.unsigned(m.old_levels[n]) BETWEEN level[n] + 1 AND readings[n] THEN
                m.old_levels[n] := NULL;  -- it came past its old level as it counts
            END IF;
        END LOOP;
        IF num_nonnulls(VARIADIC m.old_levels) = 0 THEN
            m.old_levels := NULL;
            m.doubted_since := NULL;
        END IF;
    ELSE
        m.old_levels := NULL;
        m.doubted_since := NULL;
    END IF;

    FOR n IN 1 .. 8 LOOP
        IF readings[n] IS NULL OR level[n] IS NULL THEN
            deltas[n] := CASE WHEN readings[n] IS NOT NULL THEN 0 END;
            kinds[n] := 'first';
            CONTINUE;
        END IF;
        gain := readings[n] - level[n];
        kind := 'normal';
        IF is_rebooted OR is_restarted THEN
            kind := CASE WHEN is_rebooted THEN 'reboot' ELSE 'reset' END;
            gain := readings[n];
            IF n <= 2 THEN
                accepted[n] := linkbeat.is_plausible(n, gain, readings[n + 2], readings[n + 2], m.elapsed_ms, speed);
                IF accepted[n] AND is_restarted AND NOT is_certain
                   AND gain > linkbeat.delta_limit(m.elapsed_ms, coalesce(speed, 1000)) THEN
                    -- More than a usual line carries: it may have stepped back by more than half.
                    IF usual IS NULL THEN
                        usual := linkbeat.usual(m, m.time);
                    END IF;
                    is_asked := true;
                    accepted[n] := coalesce(gain * 1000000 <= 4 * usual.rates[n] * m.elapsed_ms, false);
                END IF;
            ELSE
                accepted[n] := accepted[2 - n % 2] AND linkbeat.is_plausible(n, gain, NULL, NULL, m.elapsed_ms, speed);
            END IF;
            IF NOT accepted[n] THEN
                kind := 'rejected';
                gain := 0;
            END IF;
            IF NOT is_certain AND readings[n] < level[n] THEN
                doubted[n] := held[n];
            END IF;
        ELSIF gain >= 0 THEN
            packets := CASE WHEN n <= 2 AND readings[n + 2] >= was[n + 2] THEN readings[n + 2] - was[n + 2] END;
            IF NOT linkbeat.is_plausible(n, gain, packets, readings[n + 2], m.elapsed_ms, speed) THEN
                is_asked := true;
                IF NOT linkbeat.is_plausible_since_it_moved(n, gain, packets, readings[n + 2], base, m, speed) THEN
                    kind := 'rejected';
                    gain := 0;
                    doubted[n] := held[n];
                END IF;
            END IF;
        ELSE
            kind := 'dip';
            IF -gain * 100 >= level[n] THEN
                IF usual IS NULL THEN
                    usual := linkbeat.usual(m, m.time);
                END IF;
                is_asked := true;
                IF n <= 4 AND NOT is_wide AND level[n] < 4294967296
                   AND linkbeat.is_wrap(n, gain + 4294967296, readings, was, m.elapsed_ms, speed, usual.sizes[2 - n % 2]) THEN
                    kind := 'wrap';
                    gain := gain + 4294967296;
                    doubted[n] := held[n];
                ELSIF readings[n] * 2 < level[n] THEN
                    -- By itself: it counts on from here. What it may have counted in this interval is its value, if that
                    -- is what it usually counts.
                    doubted[n] := held[n];
                    IF readings[n] * 1000000 <= coalesce(usual.rates[n], 0) * m.elapsed_ms
                       AND linkbeat.is_plausible(n, readings[n], readings[n + 2] - was[n + 2], readings[n + 2], m.elapsed_ms, speed) THEN
                        kind := 'reset';
                        gain := readings[n];
                    END IF;
                END IF;
            END IF;
            IF kind = 'dip' THEN
                gain := 0;
                IF doubted[n] IS NULL THEN
                    levels[n] := held[n];
                END IF;
            END IF;
        END IF;
        deltas[n] := gain;
        kinds[n] := kind;
    END LOOP;

    -- One doubt at a time: a new one gives way to an older one that is about the same counters, unless they have counted
    -- on since.
    IF num_nonnulls(VARIADIC doubted) > 0 AND (m.old_levels IS NULL OR base.delta_kind IN ('normal', 'gap')) THEN
        m.old_levels := doubted;
        m.doubted_since := m.time;
    END IF;
    m.levels := CASE WHEN num_nonnulls(VARIADIC levels) > 0 THEN levels WHEN is_asked THEN '{}' END;

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
    m.delta_kind := (SELECT k FROM unnest('{rejected,reset,wrap,dip,reboot,normal,first}'::text[]) WITH ORDINALITY AS w(k, place)
                     WHERE k = ANY (kinds[1:4]) ORDER BY place LIMIT 1);
    IF m.delta_kind = 'normal' AND linkbeat.is_gap(m.elapsed_ms, m.interval_ms) THEN
        m.delta_kind := 'gap';
    END IF;
    RETURN m;
END $$;

-- Whether a counter that fell wrapped at 2**32: the other counter of its direction confirms the wrapped difference.
--   readings, was  of all counters, now and before
--   size           octets per packet as usual; null: not known
-- A packet of more than a jumbo frame confirms it only where such packets are usual: else any fall of a counter below 2**32
-- would be a wrap as long as there is traffic.
CREATE OR REPLACE FUNCTION linkbeat.is_wrap(
    n integer, wrapped numeric, readings numeric[], was numeric[], elapsed_ms integer, speed_mbps integer, size numeric
) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    octets  numeric := CASE WHEN n <= 2 THEN wrapped ELSE readings[n - 2] - was[n - 2] END;
    packets numeric := CASE WHEN n <= 2 THEN readings[n + 2] - was[n + 2] ELSE wrapped END;
BEGIN
    RETURN readings[n] BETWEEN 1 AND 4294967295 AND packets > 0 AND octets >= packets
       AND octets <= packets * CASE WHEN size IS NULL THEN 1048576 ELSE least(greatest(8 * size, 9216), 1048576) END
       AND linkbeat.is_plausible(CASE WHEN n <= 2 THEN n ELSE n - 2 END, octets, packets, packets, elapsed_ms, speed_mbps);
END $$;
