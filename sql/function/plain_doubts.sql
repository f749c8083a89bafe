-- plain_doubts: what is in doubt after a sample that needs nothing but the one before it, where that fell or left doubts
-- behind. Called within the statement of ingest_heartbeats. What is said here, linkbeat.judge concludes (judge.sql); it
-- costs ten times as much, and where containers restart, a heartbeat has dozens of such samples.
-- Replaceable: reapplied on every upgrade.

-- The old levels that are in doubt from this sample on, '{}' where none is: since this sample if its octets fell, otherwise
-- since when they were. Null: judge has to be asked.
-- A fall is plain where octets and packets all fell below half, to what a usual line carries; growth, where the doubts are
-- over, or where octets grow as they did before. (Of growth below the old levels, the statement asks nothing.)
CREATE OR REPLACE FUNCTION linkbeat.plain_doubts(
    was linkbeat.interface_state, moment timestamptz, rx_bytes bigint, tx_bytes bigint, rx_packets bigint,
    tx_packets bigint, rx_errors bigint, tx_errors bigint, rx_dropped bigint, tx_dropped bigint, speed_mbps integer,
    ifindex integer, interval_ms integer
) RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    since      CONSTANT timestamptz := linkbeat.oldest(was.doubted_since);
    is_open    CONSTANT boolean := linkbeat.is_in_doubt(since, moment, interval_ms) IS TRUE;
    old        bigint[] := was.old_levels;
    elapsed    integer;
    speed      integer;
    is_certain boolean;
    in_all     double precision;
    had        bigint[];
    now        bigint[];
BEGIN
    IF array_remove(array_remove(was.doubted_since, NULL), since) <> '{}'  -- of several events
          OR is_open AND (was.delta_kind NOT IN ('normal', 'gap') OR was.elapsed_ms = 0) THEN
        RETURN NULL;
    END IF;
    elapsed := linkbeat.elapsed_ms(was.time, moment);
    had := ARRAY[was.rx_bytes, was.tx_bytes, was.rx_packets, was.tx_packets, was.rx_errors, was.tx_errors, was.rx_dropped,
                 was.tx_dropped];
    now := ARRAY[rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped];

    IF rx_bytes >= was.rx_bytes THEN  -- of the others, the statement asks itself whether they grew
        IF NOT is_open THEN
            RETURN '{}';
        ELSIF num_nonnulls(old[1], old[2]) = 0
              OR NOT linkbeat.goes_on(old[1] IS NOT NULL, had[1], was.rx_bytes_delta, now[1], was.elapsed_ms, elapsed)
              OR NOT linkbeat.goes_on(old[2] IS NOT NULL, had[2], was.tx_bytes_delta, now[2], was.elapsed_ms, elapsed) THEN
            RETURN NULL;
        END IF;
        FOR n IN 1 .. 8 LOOP
            IF old[n] < 0 THEN
                RETURN NULL;
            ELSIF old[n] > had[n] AND old[n] <= now[n] THEN
                old[n] := NULL;  -- it came past its old level as it counts
            END IF;
        END LOOP;
        RETURN CASE WHEN num_nonnulls(VARIADIC old) > 0 THEN old ELSE '{}' END;
    END IF;

    speed := greatest(was.speed_mbps, speed_mbps);
    is_certain := (was.ifindex <> ifindex) IS TRUE;
    in_all := date_part('epoch', moment - since) * 1000 + elapsed;
    FOR n IN 1 .. 8 LOOP
        IF had[n] < 0 OR now[n] < 0
           OR n <= 4 AND had[n] > 0 AND now[n] > (had[n] - 1) / 2
           OR now[n] > linkbeat.delta_limit(elapsed, CASE WHEN n <= 2 THEN coalesce(speed, 1000) END)
           OR n <= 2 AND speed IS NULL AND now[n + 2] > 0 AND NOT linkbeat.packets_carry(now[n + 2], now[n])
           -- Its older doubt ends if its counter has run since, as the octets of its direction show; it may not come back now.
           OR is_open AND old[n] IS NOT NULL
              AND (old[n] <= now[n] OR old[n] < 0
                   OR NOT is_certain
                      AND (n > 4 OR since >= was.time OR in_all < 5 * interval_ms::bigint OR now[n] >= had[n] OR now[2 - n % 2] >= had[2 - n % 2]
                           OR NOT linkbeat.has_run(
                                  had[2 - n % 2], CASE n % 2 WHEN 1 THEN was.rx_bytes_delta ELSE was.tx_bytes_delta END,
                                  was.elapsed_ms, in_all))) THEN
            RETURN NULL;
        END IF;
        old[n] := CASE WHEN now[n] < had[n] AND NOT is_certain THEN had[n] END;
    END LOOP;
    RETURN CASE WHEN num_nonnulls(VARIADIC old) > 0 THEN old ELSE '{}' END;
END $$;

-- Since when each of the old levels is in doubt: since `moment`, or where that is null, since when it was.
CREATE OR REPLACE FUNCTION linkbeat.in_doubt_since(old_levels bigint[], was timestamptz[], moment timestamptz)
RETURNS timestamptz[] LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    FOR n IN 1 .. 8 LOOP
        was[n] := CASE WHEN old_levels[n] IS NOT NULL THEN coalesce(moment, was[n]) END;
    END LOOP;
    RETURN CASE WHEN old_levels <> '{}' THEN was END;
END $$;

-- Whether a reboot in no doubt, by a new UUID, is counted from 0 without judge: its counters show what a line carries.
CREATE OR REPLACE FUNCTION linkbeat.is_plain_reboot(
    was linkbeat.interface_state, moment timestamptz, rx_bytes bigint, tx_bytes bigint, rx_packets bigint,
    tx_packets bigint, rx_errors bigint, tx_errors bigint, rx_dropped bigint, tx_dropped bigint, speed_mbps integer
) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    speed CONSTANT integer := greatest(was.speed_mbps, speed_mbps);
BEGIN
    RETURN least(rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped) >= 0
       AND greatest(rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped)
           <= linkbeat.delta_limit(linkbeat.elapsed_ms(was.time, moment), speed)
       AND (speed IS NOT NULL
            OR (rx_packets = 0 OR linkbeat.packets_carry(rx_packets, rx_bytes))
               AND (tx_packets = 0 OR linkbeat.packets_carry(tx_packets, tx_bytes)));
END $$;
