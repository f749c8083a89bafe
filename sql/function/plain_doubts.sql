-- What is in doubt after a sample that needs nothing but the one before it, where that fell or left doubts behind. What is
-- said here, linkbeat.judge concludes (judge.sql); it costs thirty times as much, and where containers restart, a heartbeat
-- has dozens of such samples. Ingest calls linkbeat.doubts_after, and linkbeat.is_plain_reboot for the same reason; the planner
-- inlines the others, as long as no argument that is used twice costs more than ten operators.
-- Replaceable: reapplied on every upgrade.
--   had_*, grown_*, base_ms   of the sample before: its counters, its deltas, its elapsed_ms
--   old, since                its old levels, all in doubt since that moment
--   is_open                   that is not too long ago
--   was_growing               it is of kind normal or gap; the first of its row is not

-- One of the moments since when counters are in doubt; where it is not since = ALL (array), linkbeat.oldest is another.
CREATE OR REPLACE FUNCTION linkbeat.doubted_once(since timestamptz[]) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(since[1], since[2], since[3], since[4], since[5], since[6], since[7], since[8]);

-- What is in doubt of a counter after it grew.
CREATE OR REPLACE FUNCTION linkbeat.doubt_after_growth(old bigint, had bigint, now bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN (old > had AND old <= now) IS NOT TRUE THEN old END;

-- The old levels that are in doubt after octets grew, '{}' where none is. Null: judge has to be asked.
-- Plain is growth where the doubts are over, or where octets grow as they did before, or all that came past its old level
-- gained what is usual: it came past it as it counts. (Of growth below the old levels, the statement asks nothing.)
CREATE OR REPLACE FUNCTION linkbeat.doubts_after_growth(
    old bigint[], is_open boolean, was_growing boolean, base_ms integer, elapsed integer, grown_rx bigint, grown_tx bigint,
    since timestamptz, base_time timestamptz, interval_ms integer, of_server text, of_interface text,
    had_rx_bytes bigint, had_tx_bytes bigint, had_rx_packets bigint, had_tx_packets bigint, had_rx_errors bigint,
    had_tx_errors bigint, had_rx_dropped bigint, had_tx_dropped bigint,
    rx_bytes bigint, tx_bytes bigint, rx_packets bigint, tx_packets bigint, rx_errors bigint, tx_errors bigint,
    rx_dropped bigint, tx_dropped bigint
) RETURNS bigint[] LANGUAGE sql VOLATILE
RETURN CASE
    WHEN is_open IS NOT TRUE THEN '{}'
    -- None from 2**63 on, where differences of the stored values may be out of range.
    WHEN least(had_rx_bytes, had_tx_bytes, had_rx_packets, had_tx_packets) >= 0
         AND num_nonnulls(old[1], old[2]) > 0
         AND coalesce(least(old[1], old[2], old[3], old[4], old[5], old[6], old[7], old[8]) >= 0, true)
         AND (was_growing AND linkbeat.goes_on(old[1] IS NOT NULL, had_rx_bytes, grown_rx, rx_bytes, base_ms, elapsed)
                          AND linkbeat.goes_on(old[2] IS NOT NULL, had_tx_bytes, grown_tx, tx_bytes, base_ms, elapsed)
              -- Right after the fall, it is more likely a glitch (linkbeat.after_glitch).
              OR since < base_time AND linkbeat.gained_as_usual(
                     of_server, of_interface, interval_ms, since,
                     CASE WHEN old[1] <= rx_bytes THEN rx_bytes - had_rx_bytes END, CASE WHEN old[2] <= tx_bytes THEN tx_bytes - had_tx_bytes END,
                     CASE WHEN old[3] <= rx_packets THEN rx_packets - had_rx_packets END,
                     CASE WHEN old[4] <= tx_packets THEN tx_packets - had_tx_packets END, elapsed))
    THEN coalesce(nullif(ARRAY[
        linkbeat.doubt_after_growth(old[1], had_rx_bytes, rx_bytes), linkbeat.doubt_after_growth(old[2], had_tx_bytes, tx_bytes),
        linkbeat.doubt_after_growth(old[3], had_rx_packets, rx_packets),
        linkbeat.doubt_after_growth(old[4], had_tx_packets, tx_packets),
        linkbeat.doubt_after_growth(old[5], had_rx_errors, rx_errors), linkbeat.doubt_after_growth(old[6], had_tx_errors, tx_errors),
        linkbeat.doubt_after_growth(old[7], had_rx_dropped, rx_dropped),
        linkbeat.doubt_after_growth(old[8], had_tx_dropped, tx_dropped)],
        '{NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL}'), '{}')
END;

-- Whether octets and packets all fell below half, to what a usual line carries.
CREATE OR REPLACE FUNCTION linkbeat.began_again(
    elapsed integer, speed integer,
    had_rx_bytes bigint, had_tx_bytes bigint, had_rx_packets bigint, had_tx_packets bigint, had_rx_errors bigint,
    had_tx_errors bigint, had_rx_dropped bigint, had_tx_dropped bigint,
    rx_bytes bigint, tx_bytes bigint, rx_packets bigint, tx_packets bigint, rx_errors bigint, tx_errors bigint,
    rx_dropped bigint, tx_dropped bigint
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN least(had_rx_bytes, had_tx_bytes, had_rx_packets, had_tx_packets, had_rx_errors, had_tx_errors, had_rx_dropped,
             had_tx_dropped, rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped) >= 0
   AND (had_rx_bytes = 0 OR rx_bytes <= (had_rx_bytes - 1) / 2)
   AND (had_tx_bytes = 0 OR tx_bytes <= (had_tx_bytes - 1) / 2)
   AND (had_rx_packets = 0 OR rx_packets <= (had_rx_packets - 1) / 2)
   AND (had_tx_packets = 0 OR tx_packets <= (had_tx_packets - 1) / 2)
   AND greatest(rx_bytes, tx_bytes) <= linkbeat.delta_limit(elapsed, coalesce(speed, 1000))
   AND greatest(rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped) <= linkbeat.delta_limit(elapsed, NULL)
   AND (speed IS NOT NULL
        OR (rx_packets = 0 OR linkbeat.packets_carry(rx_packets, rx_bytes))
           AND (tx_packets = 0 OR linkbeat.packets_carry(tx_packets, tx_bytes)));

-- Whether the octets of each direction of which something is in doubt show that they have run since, by the row before alone.
CREATE OR REPLACE FUNCTION linkbeat.have_run(
    old bigint[], had_rx_bytes bigint, had_tx_bytes bigint, grown_rx bigint, grown_tx bigint, base_ms integer, speed integer,
    in_all double precision
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (old[1] IS NULL AND old[3] IS NULL OR linkbeat.has_run(had_rx_bytes, grown_rx, base_ms, in_all, speed))
   AND (old[2] IS NULL AND old[4] IS NULL OR linkbeat.has_run(had_tx_bytes, grown_tx, base_ms, in_all, speed));

-- The same, by earlier rows where the row before does not tell.
CREATE OR REPLACE FUNCTION linkbeat.have_run_as_usual(
    old bigint[], had_rx_bytes bigint, had_tx_bytes bigint, grown_rx bigint, grown_tx bigint, base_ms integer, speed integer,
    in_all double precision, of_server text, of_interface text, moment timestamptz, interval_ms integer, since timestamptz
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    ran CONSTANT boolean[] := linkbeat.ran_as_usual(
        of_server, of_interface, moment, interval_ms, since, had_rx_bytes, had_tx_bytes, in_all);
BEGIN
    RETURN (old[1] IS NULL AND old[3] IS NULL OR ran[1] OR linkbeat.has_run(had_rx_bytes, grown_rx, base_ms, in_all, speed))
       AND (old[2] IS NULL AND old[4] IS NULL OR ran[2] OR linkbeat.has_run(had_tx_bytes, grown_tx, base_ms, in_all, speed));
END $$;

-- The old levels that are in doubt after octets fell, as counters that began again do; '{}' where none is. Null: judge has to
-- be asked. Older doubts end if their counters have run since, and may not come back now.
--   is_certain  that it is another device
CREATE OR REPLACE FUNCTION linkbeat.doubts_after_fall(
    old bigint[], is_open boolean, is_certain boolean, was_growing boolean, base_ms integer, elapsed integer, speed integer,
    grown_rx bigint, grown_tx bigint, since timestamptz, base_time timestamptz, moment timestamptz, interval_ms integer,
    of_server text, of_interface text,
    had_rx_bytes bigint, had_tx_bytes bigint, had_rx_packets bigint, had_tx_packets bigint, had_rx_errors bigint,
    had_tx_errors bigint, had_rx_dropped bigint, had_tx_dropped bigint,
    rx_bytes bigint, tx_bytes bigint, rx_packets bigint, tx_packets bigint, rx_errors bigint, tx_errors bigint,
    rx_dropped bigint, tx_dropped bigint
) RETURNS bigint[] LANGUAGE sql VOLATILE
RETURN CASE
    WHEN linkbeat.began_again(
             elapsed, speed,
             had_rx_bytes, had_tx_bytes, had_rx_packets, had_tx_packets, had_rx_errors, had_tx_errors, had_rx_dropped, had_tx_dropped,
             rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped)
         AND (is_open IS NOT TRUE
              OR was_growing
                 AND (old IS NULL
                      OR linkbeat.stays_below(old, rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped)
                         AND coalesce(least(old[1], old[2], old[3], old[4], old[5], old[6], old[7], old[8]) >= 0, true)
                         AND (is_certain
                              OR num_nonnulls(old[5], old[6], old[7], old[8]) = 0 AND since < base_time
                                 AND linkbeat.in_all_ms(since, moment, elapsed) >= 5 * interval_ms::bigint
                                 -- Octets by themselves: judge asks their packets (linkbeat.grew_in_packets).
                                 AND (old[1] IS NULL OR old[3] IS NOT NULL OR had_rx_packets = 0)
                                 AND (old[2] IS NULL OR old[4] IS NOT NULL OR had_tx_packets = 0)
                                 AND (old[3] IS NULL OR rx_packets < had_rx_packets)
                                 AND (old[2] IS NULL AND old[4] IS NULL OR tx_bytes < had_tx_bytes)
                                 AND (old[4] IS NULL OR tx_packets < had_tx_packets)
                                 AND (linkbeat.have_run(old, had_rx_bytes, had_tx_bytes, grown_rx, grown_tx, base_ms, speed,
                                                        linkbeat.in_all_ms(since, moment, elapsed))
                                      OR linkbeat.have_run_as_usual(
                                             old, had_rx_bytes, had_tx_bytes, grown_rx, grown_tx, base_ms, speed,
                                             linkbeat.in_all_ms(since, moment, elapsed), of_server, of_interface, moment, interval_ms, since)))))
    THEN CASE WHEN is_certain THEN '{}' ELSE ARRAY[
        had_rx_bytes, CASE WHEN tx_bytes < had_tx_bytes THEN had_tx_bytes END,
        CASE WHEN rx_packets < had_rx_packets THEN had_rx_packets END, CASE WHEN tx_packets < had_tx_packets THEN had_tx_packets END,
        CASE WHEN rx_errors < had_rx_errors THEN had_rx_errors END, CASE WHEN tx_errors < had_tx_errors THEN had_tx_errors END,
        CASE WHEN rx_dropped < had_rx_dropped THEN had_rx_dropped END,
        CASE WHEN tx_dropped < had_tx_dropped THEN had_tx_dropped END] END
END;

-- Since when what is in doubt is: since `moment`, or if that is null, since when it was.
CREATE OR REPLACE FUNCTION linkbeat.in_doubt_since(old_levels bigint[], was timestamptz[], moment timestamptz)
RETURNS timestamptz[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN old_levels <> '{}' THEN ARRAY[
    CASE WHEN old_levels[1] IS NOT NULL THEN coalesce(moment, was[1]) END, CASE WHEN old_levels[2] IS NOT NULL THEN coalesce(moment, was[2]) END,
    CASE WHEN old_levels[3] IS NOT NULL THEN coalesce(moment, was[3]) END, CASE WHEN old_levels[4] IS NOT NULL THEN coalesce(moment, was[4]) END,
    CASE WHEN old_levels[5] IS NOT NULL THEN coalesce(moment, was[5]) END, CASE WHEN old_levels[6] IS NOT NULL THEN coalesce(moment, was[6]) END,
    CASE WHEN old_levels[7] IS NOT NULL THEN coalesce(moment, was[7]) END, CASE WHEN old_levels[8] IS NOT NULL THEN coalesce(moment, was[8]) END] END;

-- Whether a reboot in no doubt, by a new UUID, is counted from 0 without judge: its counters show what a line carries.
CREATE OR REPLACE FUNCTION linkbeat.is_plain_reboot(
    elapsed integer, speed integer, rx_bytes bigint, tx_bytes bigint, rx_packets bigint, tx_packets bigint,
    rx_errors bigint, tx_errors bigint, rx_dropped bigint, tx_dropped bigint
) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN least(rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped) >= 0
       AND greatest(rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped)
           <= linkbeat.delta_limit(elapsed, speed)
       AND (speed IS NOT NULL
            OR (rx_packets = 0 OR linkbeat.packets_carry(rx_packets, rx_bytes))
               AND (tx_packets = 0 OR linkbeat.packets_carry(tx_packets, tx_bytes)));
END $$;

-- The old levels that are in doubt after a sample, whether it grew or fell. In PL/pgSQL, because the executor initializes all
-- expressions of a statement each time it runs, also those that no row reaches: inlined, these would be a tenth of the cost of
-- a call of ingest_heartbeats.
CREATE OR REPLACE FUNCTION linkbeat.doubts_after(
    had linkbeat.interface_state, since timestamptz, of_server text, of_interface text, moment timestamptz, interval_ms integer,
    ifindex integer, speed_mbps integer, rx_bytes bigint, tx_bytes bigint, rx_packets bigint, tx_packets bigint, rx_errors bigint,
    tx_errors bigint, rx_dropped bigint, tx_dropped bigint
) RETURNS bigint[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    is_open     CONSTANT boolean := linkbeat.is_in_doubt(since, moment, interval_ms);
    was_growing CONSTANT boolean := had.delta_kind IN ('normal', 'gap') AND had.elapsed_ms > 0;
    elapsed     CONSTANT integer := linkbeat.elapsed_ms(had.time, moment);
BEGIN
    IF rx_bytes >= had.rx_bytes THEN
        RETURN linkbeat.doubts_after_growth(
            had.old_levels, is_open, was_growing, had.elapsed_ms, elapsed, had.rx_bytes_delta, had.tx_bytes_delta, since, had.time,
            interval_ms, of_server, of_interface,
            had.rx_bytes, had.tx_bytes, had.rx_packets, had.tx_packets, had.rx_errors, had.tx_errors, had.rx_dropped, had.tx_dropped,
            rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped);
    END IF;
    RETURN linkbeat.doubts_after_fall(
        had.old_levels, is_open, (had.ifindex <> ifindex) IS TRUE, was_growing, had.elapsed_ms, elapsed,
        greatest(had.speed_mbps, speed_mbps), had.rx_bytes_delta, had.tx_bytes_delta, since, had.time, moment, interval_ms,
        of_server, of_interface,
        had.rx_bytes, had.tx_bytes, had.rx_packets, had.tx_packets, had.rx_errors, had.tx_errors, had.rx_dropped, had.tx_dropped,
        rx_bytes, tx_bytes, rx_packets, tx_packets, rx_errors, tx_errors, rx_dropped, tx_dropped);
END $$;
