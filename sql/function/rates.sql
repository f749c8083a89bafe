-- Rates: what the deltas of one row come to in a second.
-- Replaceable: reapplied on every upgrade.

-- Bits per second; null where it cannot be told: no row before, one further away than elapsed_ms can say, or a delta
-- that was rejected. Not STRICT, for the planner's sake: see counters.sql.
CREATE OR REPLACE FUNCTION linkbeat.bps(bytes bigint, elapsed_ms integer, delta_kind text) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN elapsed_ms BETWEEN 1 AND 2147483646 AND delta_kind <> 'rejected'
            THEN bytes * 8000::double precision / elapsed_ms END;
