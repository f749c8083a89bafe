-- Counters: how 64 bits live in a bigint, and the bounds that the rules of judge.sql work with.
-- Replaceable: reapplied on every upgrade.

-- None of these is STRICT: the planner puts a strict SQL function's CASE, OR or LEAST into the query only without it,
-- and a call costs microseconds a row.

-- The counter that a bigint holds as two's complement: 0 .. 2**64-1.
CREATE OR REPLACE FUNCTION linkbeat.unsigned(stored bigint) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN stored >= 0 THEN stored::numeric ELSE stored::numeric + 18446744073709551616 END;

COMMENT ON FUNCTION linkbeat.unsigned(bigint) IS 'The counter that a stored bigint represents, 0 .. 2**64-1.';

-- The most octets that cross in elapsed_ms: at the line rate and 2 %, or at 400 Gb/s, the fastest there is, where that
-- is null; and in one second of grace for clocks that were set.
CREATE OR REPLACE FUNCTION linkbeat.delta_limit(elapsed_ms integer, speed_mbps integer) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN speed_mbps IS NULL THEN 50000000::bigint * (elapsed_ms + 1000::bigint)
            ELSE speed_mbps::bigint * 255 * (elapsed_ms + 1000::bigint) / 2 END;

-- Whether `packets` can have carried `octets`: no more than 1 MiB each, which is beyond what any offload puts together.
CREATE OR REPLACE FUNCTION linkbeat.packets_carry(packets bigint, octets bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN octets >> 20 <= packets;

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

-- Whether all counters of an interface plainly grew, in no doubt: by no more than its line carries or than its packets
-- confirm, where they are counted. What linkbeat.judge concludes of it is the difference. Put into the queries that call it.
CREATE OR REPLACE FUNCTION linkbeat.grew_plainly(
    had_rx_bytes bigint, had_tx_bytes bigint, had_rx_packets bigint, had_tx_packets bigint, had_rx_errors bigint,
    had_tx_errors bigint, had_rx_dropped bigint, had_tx_dropped bigint,
    rx_bytes bigint, tx_bytes bigint, rx_packets bigint, tx_packets bigint, rx_errors bigint, tx_errors bigint,
    rx_dropped bigint, tx_dropped bigint, elapsed integer, speed integer
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN linkbeat.grew(had_rx_bytes, rx_bytes) AND linkbeat.grew(had_tx_bytes, tx_bytes)
         AND linkbeat.grew(had_rx_packets, rx_packets) AND linkbeat.grew(had_tx_packets, tx_packets)
         AND linkbeat.grew(had_rx_errors, rx_errors) AND linkbeat.grew(had_tx_errors, tx_errors)
         AND linkbeat.grew(had_rx_dropped, rx_dropped) AND linkbeat.grew(had_tx_dropped, tx_dropped)
    THEN greatest(rx_bytes - had_rx_bytes, tx_bytes - had_tx_bytes, rx_packets - had_rx_packets, tx_packets - had_tx_packets,
                  rx_errors - had_rx_errors, tx_errors - had_tx_errors, rx_dropped - had_rx_dropped, tx_dropped - had_tx_dropped)
         <= linkbeat.delta_limit(elapsed, speed)
         AND (speed IS NOT NULL
              OR (rx_packets = 0 OR linkbeat.packets_carry(rx_packets - had_rx_packets, rx_bytes - had_rx_bytes))
                 AND (tx_packets = 0 OR linkbeat.packets_carry(tx_packets - had_tx_packets, tx_bytes - had_tx_bytes)))
    ELSE false
END;

-- How long a doubt about a reading stays open for later readings: 15 minutes, or five intervals where those are longer.
CREATE OR REPLACE FUNCTION linkbeat.is_in_doubt(doubted_since timestamptz, moment timestamptz, interval_ms integer)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN moment - doubted_since <= greatest(900000, 5 * interval_ms::bigint) * INTERVAL '1 millisecond';

-- The oldest of a row's doubts.
CREATE OR REPLACE FUNCTION linkbeat.oldest(since timestamptz[]) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN least(since[1], since[2], since[3], since[4], since[5], since[6], since[7], since[8]);

-- Whether every counter that is in doubt is below its old level still, so that none can be back at it.
CREATE OR REPLACE FUNCTION linkbeat.stays_below(
    old_levels bigint[], rx_bytes bigint, tx_bytes bigint, rx_packets bigint, tx_packets bigint, rx_errors bigint,
    tx_errors bigint, rx_dropped bigint, tx_dropped bigint
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(old_levels[1] > rx_bytes, true) AND coalesce(old_levels[2] > tx_bytes, true)
   AND coalesce(old_levels[3] > rx_packets, true) AND coalesce(old_levels[4] > tx_packets, true)
   AND coalesce(old_levels[5] > rx_errors, true) AND coalesce(old_levels[6] > tx_errors, true)
   AND coalesce(old_levels[7] > rx_dropped, true) AND coalesce(old_levels[8] > tx_dropped, true);

-- Whether the fingerprint of a boot is that of a UUID, as kernels make them for each boot; service/ingest/batch.py
-- marks the others by these 24 bits, because an id that follows from a clock slides without a boot.
CREATE OR REPLACE FUNCTION linkbeat.is_uuid_boot(boot bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN boot >> 40 <> 5000268;
