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

-- Whether counter n can have gained this much in elapsed_ms.
--   packets  that its direction gained in the same time; null: not known, because that counter fell
--   counted  what the packet counter says in all: 0 where the source does not count packets
-- What the line carries needs no witness. More than that was carried only if packets confirm it: emulated and bonded
-- devices exceed their speed_mbps. Where neither is known, no more than 1 Gb/s is believed of a source that counts packets.
-- In PL/pgSQL, because judge calls it for each counter, and a call of an SQL function there costs five times as much.
CREATE OR REPLACE FUNCTION linkbeat.is_plausible(
    n integer, gain numeric, packets numeric, counted numeric, elapsed_ms integer, speed_mbps integer
) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    -- With the second of grace, as in linkbeat.delta_limit.
    elapsed CONSTANT bigint := elapsed_ms + 1000::bigint;
BEGIN
    IF gain = 0 OR gain <= speed_mbps::bigint * 255 * elapsed / 2 THEN
        RETURN true;
    ELSIF gain > 50000000 * elapsed THEN
        RETURN false;
    ELSIF n > 2 THEN
        RETURN true;
    ELSIF packets > 0 THEN
        RETURN div(gain, 1048576) <= packets;
    ELSIF speed_mbps IS NOT NULL THEN
        RETURN false;
    END IF;
    RETURN counted = 0 OR gain <= 1000::bigint * 255 * elapsed / 2;
END $$;

-- The same over the time since the counter last moved: a source may refresh seldom, or stand still for a while. Looks back
-- 15 minutes at most. Where its packets cannot be read, a counter is believed what it usually gains.
CREATE OR REPLACE FUNCTION linkbeat.is_plausible_since_it_moved(
    n integer, gain numeric, packets numeric, counted numeric, base network_interface_metrics,
    m network_interface_metrics, speed_mbps integer
) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    since    CONSTANT timestamptz := m.time - INTERVAL '15 minutes';
    moved_at timestamptz;
BEGIN
    SELECT coalesce(max(r.time) FILTER (WHERE r.delta_kind IN ('rejected', 'first') OR (linkbeat.deltas(r))[n] <> 0), min(r.time))
    INTO moved_at
    FROM network_interface_metrics r
    WHERE r.server_id = m.server_id AND r.interface_name = m.interface_name AND r.time >= since AND r.time <= base.time
      AND (r.boot IS NULL OR r.boot IS NOT DISTINCT FROM base.boot OR r.boot IS NOT DISTINCT FROM m.boot);
    IF moved_at < base.time AND linkbeat.is_plausible(
           n, gain,
           coalesce(packets, 0) + (
               SELECT coalesce(sum(CASE n % 2 WHEN 1 THEN r.rx_packets_delta ELSE r.tx_packets_delta END), 0)
               FROM network_interface_metrics r
               WHERE r.server_id = m.server_id AND r.interface_name = m.interface_name AND r.time > moved_at AND r.time <= base.time
                 AND (r.boot IS NULL OR r.boot IS NOT DISTINCT FROM base.boot OR r.boot IS NOT DISTINCT FROM m.boot)),
           counted, linkbeat.elapsed_ms(moved_at, m.time), speed_mbps) THEN
        RETURN true;
    END IF;
    RETURN n <= 2 AND coalesce(packets, 0) = 0 AND gain <= linkbeat.delta_limit(m.elapsed_ms, NULL)
           AND coalesce(gain <= 4 * (linkbeat.usual(m)).rates[n] * m.elapsed_ms, false);
END $$;

-- Deltas of a row, in the order of linkbeat.readings.
CREATE OR REPLACE FUNCTION linkbeat.deltas(m network_interface_metrics) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY[m.rx_bytes_delta, m.tx_bytes_delta, m.rx_packets_delta, m.tx_packets_delta, m.rx_errors_delta,
             m.tx_errors_delta, m.rx_dropped_delta, m.tx_dropped_delta];

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
    FROM (
        SELECT * FROM network_interface_metrics
        WHERE server_id = m.server_id AND interface_name = m.interface_name AND time < m.time
          AND time >= m.time - greatest(900000, 10 * m.interval_ms::bigint) * INTERVAL '1 millisecond'
          AND delta_kind IN ('normal', 'gap') AND elapsed_ms > 0
          AND (rx_bytes_delta > 0 OR tx_bytes_delta > 0 OR rx_packets_delta > 0 OR tx_packets_delta > 0)
        ORDER BY time DESC LIMIT 10
    ) r;
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
        SELECT time, rx_bytes_delta::double precision / elapsed_ms AS rx_bytes, tx_bytes_delta::double precision / elapsed_ms AS tx_bytes,
               rx_packets_delta::double precision / elapsed_ms AS rx_packets, tx_packets_delta::double precision / elapsed_ms AS tx_packets,
               rx_errors_delta::double precision / elapsed_ms AS rx_errors, tx_errors_delta::double precision / elapsed_ms AS tx_errors,
               rx_dropped_delta::double precision / elapsed_ms AS rx_dropped, tx_dropped_delta::double precision / elapsed_ms AS tx_dropped
        FROM network_interface_metrics
        WHERE server_id = m.server_id AND interface_name = m.interface_name AND time < since
          AND time >= since - greatest(900000, 10 * m.interval_ms::bigint) * INTERVAL '1 millisecond'
          AND delta_kind IN ('normal', 'gap') AND elapsed_ms > 0
          AND (rx_bytes_delta > 0 OR tx_bytes_delta > 0 OR rx_packets_delta > 0 OR tx_packets_delta > 0)
        ORDER BY time DESC LIMIT 10
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
        SELECT time, rx_bytes_delta::double precision / elapsed_ms AS rx_bytes, tx_bytes_delta::double precision / elapsed_ms AS tx_bytes,
               rx_packets_delta::double precision / elapsed_ms AS rx_packets, tx_packets_delta::double precision / elapsed_ms AS tx_packets,
               rx_errors_delta::double precision / elapsed_ms AS rx_errors, tx_errors_delta::double precision / elapsed_ms AS tx_errors,
               rx_dropped_delta::double precision / elapsed_ms AS rx_dropped, tx_dropped_delta::double precision / elapsed_ms AS tx_dropped
        FROM network_interface_metrics
        WHERE server_id = m.server_id AND interface_name = m.interface_name AND time < m.time
          AND time >= m.time - greatest(900000, 10 * m.interval_ms::bigint) * INTERVAL '1 millisecond'
          AND delta_kind IN ('normal', 'gap') AND elapsed_ms > 0
          AND (rx_bytes_delta > 0 OR tx_bytes_delta > 0 OR rx_packets_delta > 0 OR tx_packets_delta > 0)
        ORDER BY time DESC LIMIT 10
    ) r
    WHERE time >= since;
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
        FROM network_interface_metrics
        WHERE server_id = m.server_id AND interface_name = m.interface_name AND time < since
          AND time >= since - greatest(900000, 10 * m.interval_ms::bigint) * INTERVAL '1 millisecond'
          AND delta_kind IN ('normal', 'gap') AND elapsed_ms > 0
          AND (rx_bytes_delta > 0 OR tx_bytes_delta > 0 OR rx_packets_delta > 0 OR tx_packets_delta > 0)
        ORDER BY time DESC LIMIT 10
    ) r;
    SELECT array_agg(rate_rx ORDER BY rate_rx), array_agg(rate_tx ORDER BY rate_tx) INTO after_rx, after_tx
    FROM (
        SELECT time, rx_bytes_delta::double precision / elapsed_ms AS rate_rx, tx_bytes_delta::double precision / elapsed_ms AS rate_tx
        FROM network_interface_metrics
        WHERE server_id = m.server_id AND interface_name = m.interface_name AND time < m.time
          AND time >= greatest(since, m.time - greatest(900000, 10 * m.interval_ms::bigint) * INTERVAL '1 millisecond')
          AND delta_kind IN ('normal', 'gap') AND elapsed_ms > 0
          AND (rx_bytes_delta > 0 OR tx_bytes_delta > 0 OR rx_packets_delta > 0 OR tx_packets_delta > 0)
        ORDER BY time DESC LIMIT 10
    ) r;
    RETURN ARRAY[
        greatest(rx[least(2, cardinality(rx))], CASE WHEN cardinality(after_rx) > 1 THEN after_rx[(cardinality(after_rx) + 1) / 2] END, 0),
        greatest(tx[least(2, cardinality(tx))], CASE WHEN cardinality(after_tx) > 1 THEN after_tx[(cardinality(after_tx) + 1) / 2] END, 0)];
END $$;

-- Whether octets that began again in_all milliseconds ago show what the rate of the row before, which was one of several
-- since, comes to: then no other row needs to be asked.
CREATE OR REPLACE FUNCTION linkbeat.has_run(level numeric, grown bigint, base_ms integer, in_all double precision)
RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN grown > 0 AND base_ms > 0 AND level >= 3 * grown::numeric
           AND level::double precision <= 1.5::double precision * grown / base_ms * in_all;
END $$;

-- Whether octets that are in doubt grow at no more than twice the rate of the row before, which was not the only one since
-- they fell.
CREATE OR REPLACE FUNCTION linkbeat.goes_on(
    is_doubted boolean, level bigint, grown bigint, reading numeric, base_ms integer, elapsed_ms integer
) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN is_doubted IS NOT TRUE
           OR grown > 0 AND level >= 2 * grown::numeric
              AND (reading - level)::double precision * base_ms <= 2.0 * grown * elapsed_ms;
END $$;

-- The counters in doubt that a reading shows never to have fallen or jumped: they are back at their old level or a step
-- above it that their usual rate explains, and the readings since do not explain where they are. What fell together comes
-- back together: most of it, because one counter may be wrong again in this reading. Null: none.
CREATE OR REPLACE FUNCTION linkbeat.are_back(base network_interface_metrics, m network_interface_metrics) RETURNS boolean[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    elapsed     CONSTANT integer := linkbeat.elapsed_ms(base.time, m.time);
    readings    CONSTANT numeric[] := linkbeat.readings(m);
    held        CONSTANT bigint[] := linkbeat.held(base);
    since       timestamptz;
    usual       double precision[];
    old         numeric;
    level       numeric;
    in_event    integer;
    back        integer;
    main_event  integer := 0;
    main_back   integer := 0;
    unexplained boolean;
    unexplained_main boolean;
    found       boolean[];
BEGIN
    IF base.old_levels IS NULL OR (base.boot <> m.boot) IS TRUE AND linkbeat.is_uuid_boot(m.boot) THEN
        RETURN NULL;
    END IF;
    -- None of its octets and packets is at its old level or above: nothing more needs to be asked.
    FOR n IN 1 .. 4 LOOP
        IF base.old_levels[n] IS NOT NULL THEN
            main_event := main_event + 1;
            main_back := main_back + (readings[n] >= linkbeat.unsigned(base.old_levels[n]))::integer;
        END IF;
    END LOOP;
    IF main_event > 0 AND main_back = 0 THEN
        RETURN NULL;
    END IF;
    FOR since IN SELECT DISTINCT s FROM unnest(base.doubted_since, base.old_levels) AS d(s, o) WHERE o IS NOT NULL LOOP
        CONTINUE WHEN NOT linkbeat.is_in_doubt(since, m.time, m.interval_ms);
        -- Its octets grow as they did in the row before, which was one of several: they count on from where they are.
        CONTINUE WHEN base.delta_kind IN ('normal', 'gap') AND base.elapsed_ms > 0 AND linkbeat.goes_on(
            base.old_levels[1] IS NOT NULL AND base.doubted_since[1] = since, held[1], base.rx_bytes_delta, readings[1], base.elapsed_ms, elapsed)
            AND linkbeat.goes_on(
            base.old_levels[2] IS NOT NULL AND base.doubted_since[2] = since, held[2], base.tx_bytes_delta, readings[2], base.elapsed_ms, elapsed)
            AND (base.old_levels[1] IS NOT NULL AND base.doubted_since[1] = since OR base.old_levels[2] IS NOT NULL AND base.doubted_since[2] = since);
        usual := NULL;
        in_event := 0; back := 0; main_event := 0; main_back := 0; unexplained := false; unexplained_main := false;
        FOR n IN 1 .. 8 LOOP
            CONTINUE WHEN base.old_levels[n] IS NULL OR base.doubted_since[n] <> since;
            in_event := in_event + 1;
            main_event := main_event + (n <= 4)::integer;
            old := linkbeat.unsigned(base.old_levels[n]);
            level := linkbeat.unsigned(held[n]);
            CONTINUE WHEN readings[n] IS NULL OR level IS NULL OR readings[n] < old OR old < level AND level <= readings[n];
            IF usual IS NULL THEN
                -- Most of what fell together has to be there.
                EXIT WHEN (SELECT 2 * count(*) FILTER (WHERE readings[i] >= linkbeat.unsigned(base.old_levels[i])) <= count(*)
                           FROM generate_series(1, 4) AS i WHERE base.old_levels[i] IS NOT NULL AND base.doubted_since[i] = since
                           HAVING count(*) > 0);
                usual := linkbeat.usual_rates(m, since);
            END IF;
            -- Above the old level by more than it usually gains and more than it had fallen: a burst since a reset.
            CONTINUE WHEN (readings[n] - old)::double precision > greatest(
                1.5 * usual[n] * (linkbeat.elapsed_ms(since, m.time)::double precision + elapsed), abs(level - old)::double precision);
            back := back + 1;
            main_back := main_back + (n <= 4)::integer;
            IF level > old OR (readings[n] - level)::double precision > 1.5 * usual[n] * elapsed THEN
                unexplained := true;
                unexplained_main := unexplained_main OR n <= 4;
            END IF;
        END LOOP;
        -- Octets and packets decide, where they are among it.
        IF main_event > 0 AND unexplained_main AND 2 * main_back > main_event
           OR main_event = 0 AND unexplained AND 2 * back > in_event THEN
            FOR n IN 1 .. 8 LOOP
                IF base.old_levels[n] IS NOT NULL AND base.doubted_since[n] = since THEN
                    found := coalesce(found, array_fill(false, '{8}'));
                    found[n] := true;
                END IF;
            END LOOP;
        END IF;
    END LOOP;
    RETURN found;
END $$;

-- Whether a counter that fell wrapped at 2**32: the other counter of its direction confirms the wrapped difference.
--   gains  of all counters, above what growth is counted from
--   size   octets per packet as usual; null: not known
-- A packet of more than a jumbo frame confirms it only where such packets are usual; and where the counter fell by half or
-- less, and may have stepped back as well, packets of about the usual size alone. Otherwise any fall of a counter below
-- 2**32 would be a wrap as long as there is traffic.
CREATE OR REPLACE FUNCTION linkbeat.is_wrap(
    n integer, wrapped numeric, reading numeric, level numeric, gains numeric[], elapsed_ms integer, speed_mbps integer, size double precision
) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    octets  numeric := CASE WHEN n <= 2 THEN wrapped ELSE gains[n - 2] END;
    packets numeric := CASE WHEN n <= 2 THEN gains[n + 2] ELSE wrapped END;
BEGIN
    RETURN reading BETWEEN 1 AND 4294967295 AND packets > 0 AND octets >= packets
       AND octets <= packets * coalesce(least(greatest(8 * size, CASE WHEN 2 * reading < level THEN 9216 ELSE 0 END), 1048576), 1048576)
       AND linkbeat.is_plausible(2 - n % 2, octets, packets, packets, elapsed_ms, speed_mbps);
END $$;

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
    rates    double precision[];
    rates_since timestamptz;
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
                        -- More than a usual line carries: it may have stepped back by more than half.
                        is_asked := true;
                        accepted[n] := coalesce(gain <= 4 * (linkbeat.usual(m)).rates[n] * m.elapsed_ms, false);
                    END IF;
                ELSE
                    accepted[n] := accepted[2 - n % 2] AND gain <= 50000000 * (m.elapsed_ms + 1000::bigint);
                END IF;
                IF NOT accepted[n] THEN
                    kind := 'rejected';
                    gain := 0;
                END IF;
                IF NOT is_certain AND readings[n] < level[n] THEN
                    old[n] := held[n];
                END IF;
            ELSIF gain >= 0 THEN
                packets := CASE WHEN n <= 2 AND readings[n + 2] >= was[n + 2] THEN readings[n + 2] - was[n + 2] END;
                IF NOT linkbeat.is_plausible(n, gain, packets, readings[n + 2], m.elapsed_ms, speed) THEN
                    is_asked := true;
                    IF NOT linkbeat.is_plausible_since_it_moved(n, gain, packets, readings[n + 2], base, m, speed) THEN
                        kind := 'rejected';
                        gain := 0;
                        old[n] := held[n];
                    END IF;
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
        END IF;
        CONTINUE WHEN base.old_levels[n] IS NULL OR is_certain
            OR m.time - base.doubted_since[n] > doubt_lasts
            OR kinds[n] = 'normal' AND linkbeat.unsigned(base.old_levels[n]) BETWEEN level[n] + 1 AND readings[n];
        IF old[n] IS NOT NULL AND base.doubted_since[n] < base.time
           AND (base.delta_kind IN ('normal', 'gap') OR CASE n % 2 WHEN 1 THEN base.rx_bytes_delta ELSE base.tx_bytes_delta END > 0) THEN
            -- The older doubt stands, unless the counters of this direction did begin again: their octets show what is usual
            -- for the time since.
            CONTINUE WHEN base.delta_kind IN ('normal', 'gap') AND old[2 - n % 2] IS NOT NULL AND linkbeat.has_run(
                level[2 - n % 2], CASE n % 2 WHEN 1 THEN base.rx_bytes_delta ELSE base.tx_bytes_delta END, base.elapsed_ms,
                date_part('epoch', m.time - base.doubted_since[n]) * 1000 + m.elapsed_ms);
            IF rates_since IS DISTINCT FROM base.doubted_since[n] THEN
                is_asked := true;
                rates_since := base.doubted_since[n];
                rates := linkbeat.usual_octets(m, rates_since);
            END IF;
            CONTINUE WHEN level[2 - n % 2]::double precision <= 1.5 * rates[2 - n % 2]
                * (date_part('epoch', m.time - rates_since) * 1000 + m.elapsed_ms);
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
