-- Doubts: what fell or jumped may turn out never to have done so, and what began again may turn out to have done so.
-- Replaceable: reapplied on every upgrade.

-- Milliseconds from the reading before the one since which something is in doubt, as it were, to this one.
CREATE OR REPLACE FUNCTION linkbeat.in_all_ms(since timestamptz, moment timestamptz, elapsed_ms integer)
RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN date_part('epoch', moment - since) * 1000 + elapsed_ms;

-- Whether octets that began again in_all milliseconds ago show what the rate of the row before, which was one of several
-- since, comes to: then no other row needs to be asked. More than a usual line carries is not believed of one row.
CREATE OR REPLACE FUNCTION linkbeat.has_run(level numeric, grown bigint, base_ms integer, in_all double precision, speed integer)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN grown > 0 AND base_ms > 0 AND level >= 3 * grown::numeric AND grown <= linkbeat.delta_limit(base_ms, coalesce(speed, 1000))
   AND level::double precision <= 1.5::double precision * grown / base_ms * in_all;

-- Whether octets that are in doubt by themselves grew in packets in the row `base`: a counter that began again counts whole
-- packets, none of which is larger than 64 KiB, and on average about as large as before: three times that at most, or an Ethernet
-- frame. Readings that are wrong in different ways grow by anything. Where packets are in doubt too, or are not counted, they say
-- nothing. Asks the stored row: a server's newest state has no deltas of packets.
--   m  the row after it
CREATE OR REPLACE FUNCTION linkbeat.grew_in_packets(
    base network_interface_metrics, m network_interface_metrics, direction integer
) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    grown   bigint;
    packets bigint;
    size    double precision;
BEGIN
    IF base.old_levels[direction] IS NULL OR base.old_levels[direction + 2] IS NOT NULL
       OR coalesce(CASE direction WHEN 1 THEN base.rx_packets ELSE base.tx_packets END, 0) = 0 THEN
        RETURN true;
    END IF;
    SELECT CASE direction WHEN 1 THEN r.rx_bytes_delta ELSE r.tx_bytes_delta END,
           CASE direction WHEN 1 THEN r.rx_packets_delta ELSE r.tx_packets_delta END
    INTO grown, packets
    FROM network_interface_metrics r
    WHERE r.server_id = m.server_id AND r.interface_name = m.interface_name AND r.time = base.time;
    IF (grown / 65536 <= packets) IS NOT TRUE THEN
        RETURN false;
    END IF;
    m.time := base.doubted_since[direction];
    size := (linkbeat.usual(m)).sizes[direction];
    RETURN size IS NULL OR grown::double precision <= greatest(3.0::double precision * size, 1518) * packets;
END $$;

-- Whether octets that are in doubt grow at no more than twice the rate of the row before, which was not the only one since
-- they fell.
CREATE OR REPLACE FUNCTION linkbeat.goes_on(
    is_doubted boolean, level numeric, grown bigint, reading numeric, base_ms integer, elapsed_ms integer
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN is_doubted IS NOT TRUE
    OR grown > 0 AND level >= 2 * grown::numeric AND reading >= level
       AND (reading - level)::double precision * base_ms <= 2.0 * grown * elapsed_ms;

-- Whether linkbeat.are_back can find anything: a counter in doubt is at its old level or above it, and if it had jumped, below
-- the level that it jumped to.
CREATE OR REPLACE FUNCTION linkbeat.may_be_back(base network_interface_metrics, m network_interface_metrics) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    readings bigint[];
    held     bigint[];
    old      numeric;
    level    numeric;
    reading  numeric;
BEGIN
    IF base.old_levels IS NULL OR (base.boot <> m.boot) IS TRUE AND linkbeat.is_uuid_boot(m.boot) THEN
        RETURN false;
    END IF;
    readings := ARRAY[m.rx_bytes, m.tx_bytes, m.rx_packets, m.tx_packets, m.rx_errors, m.tx_errors, m.rx_dropped, m.tx_dropped];
    held := linkbeat.held(base);
    FOR n IN 1 .. 8 LOOP
        CONTINUE WHEN base.old_levels[n] IS NULL OR readings[n] IS NULL OR held[n] IS NULL;
        old := linkbeat.unsigned(base.old_levels[n]);
        level := linkbeat.unsigned(held[n]);
        reading := linkbeat.unsigned(readings[n]);
        IF reading >= old AND (old >= level OR level > reading)
           AND linkbeat.is_in_doubt(base.doubted_since[n], m.time, m.interval_ms) THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END $$;

-- The counters in doubt that a reading shows never to have fallen or jumped: they are back at their old level or a step
-- above it that their usual rate explains, and the readings since do not explain where they are. What jumped comes back by
-- itself; what fell together comes back together: most of it, because one counter may be wrong again in this reading.
-- Null: none.
--   before_it  the time of the row before m; that of base, unless boots overlap
CREATE OR REPLACE FUNCTION linkbeat.are_back(
    base network_interface_metrics, m network_interface_metrics, before_it timestamptz
) RETURNS boolean[] LANGUAGE plpgsql STABLE AS $$
DECLARE
    elapsed     integer;
    readings    numeric[];
    was         numeric[];
    held        bigint[];
    since       timestamptz;
    events      timestamptz[] := '{}';
    usual       double precision[];
    old         numeric;
    level       numeric;
    in_event    integer;
    back        integer;
    main_event  integer;
    main_back   integer;
    goes_on     boolean;
    is_most     boolean;  -- of what fell together is at its old level
    unexplained boolean;
    unexplained_main boolean;
    has_run     boolean;  -- since it fell, as it usually does
    found       boolean[];
BEGIN
    IF NOT linkbeat.may_be_back(base, m) THEN
        RETURN NULL;
    END IF;
    elapsed := linkbeat.elapsed_ms(base.time, m.time);
    readings := linkbeat.readings(m);
    was := linkbeat.readings(base);
    held := linkbeat.held(base);
    FOR counter IN 1 .. 8 LOOP
        since := base.doubted_since[counter];
        CONTINUE WHEN base.old_levels[counter] IS NULL OR since = ANY (events) OR NOT linkbeat.is_in_doubt(since, m.time, m.interval_ms);
        events := array_append(events, since);
        -- Its octets grow as they did in the row before, which was one of several: they count on from where they are.
        goes_on := base.delta_kind IN ('normal', 'gap') AND base.elapsed_ms > 0 AND linkbeat.goes_on(
            base.old_levels[1] IS NOT NULL AND base.doubted_since[1] = since, linkbeat.unsigned(held[1]), base.rx_bytes_delta, readings[1], base.elapsed_ms, elapsed)
            AND linkbeat.goes_on(
            base.old_levels[2] IS NOT NULL AND base.doubted_since[2] = since, linkbeat.unsigned(held[2]), base.tx_bytes_delta, readings[2], base.elapsed_ms, elapsed)
            AND (base.old_levels[1] IS NOT NULL AND base.doubted_since[1] = since OR base.old_levels[2] IS NOT NULL AND base.doubted_since[2] = since);
        usual := NULL;
        in_event := 0; back := 0; main_event := 0; main_back := 0; unexplained := false; unexplained_main := false;
        FOR n IN 1 .. 4 LOOP
            IF base.old_levels[n] IS NOT NULL AND base.doubted_since[n] = since THEN
                main_event := main_event + 1;
                main_back := main_back + coalesce(readings[n] >= linkbeat.unsigned(base.old_levels[n]), false)::integer;
            END IF;
        END LOOP;
        is_most := main_event = 0 OR 2 * main_back > main_event;
        main_back := 0;
        FOR n IN 1 .. 8 LOOP
            CONTINUE WHEN base.old_levels[n] IS NULL OR base.doubted_since[n] <> since;
            in_event := in_event + 1;
            old := linkbeat.unsigned(base.old_levels[n]);
            level := linkbeat.unsigned(held[n]);
            CONTINUE WHEN readings[n] IS NULL OR level IS NULL OR readings[n] < old OR old < level AND level <= readings[n];
            CONTINUE WHEN level <= old AND (goes_on OR NOT is_most);
            usual := coalesce(usual, linkbeat.usual_rates(m, since, before_it));
            -- Above the old level by more than it usually gains and more than it had fallen, or half of what it had jumped: a
            -- burst since a reset, or a step back after a jump that was none.
            CONTINUE WHEN (readings[n] - old)::double precision > greatest(
                1.5 * usual[n] * (linkbeat.elapsed_ms(since, m.time)::double precision + elapsed),
                CASE WHEN level <= old THEN old - level ELSE div(level - old, 2) END::double precision);
            back := back + 1;
            main_back := main_back + (n <= 4)::integer;
            IF level > old THEN  -- what jumped comes back by itself
                found := coalesce(found, array_fill(false, '{8}'));
                found[n] := true;
            END IF;
            -- What counts for long already may have a burst as it passes its old level.
            has_run := level >= 3 * (readings[n] - level)
                AND level::double precision <= 1.5 * usual[n] * (linkbeat.elapsed_ms(since, m.time) - elapsed);
            -- Where a reading was passed over, the level is an older one's.
            IF level > old OR NOT has_run AND (readings[n] - level)::double precision
                              > 1.5 * usual[n] * (elapsed + (level <> was[n])::integer * base.elapsed_ms::bigint) THEN
                unexplained := true;
                unexplained_main := unexplained_main OR n <= 4;
            END IF;
        END LOOP;
        -- Octets and packets decide, where they are among it.
        IF NOT goes_on AND (main_event > 0 AND unexplained_main AND 2 * main_back > main_event
                            OR main_event = 0 AND unexplained AND 2 * back > in_event) THEN
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
