-- Rates: what the deltas of one row come to in a second.
-- Replaceable: reapplied on every upgrade.

-- Bits per second; null where it cannot be told: no row before, one further away than elapsed_ms can say, or a reading that
-- was rejected or found to be a glitch. A counter in a dip has 0: nothing is known to have moved. Not STRICT, for the
-- planner's sake: see counters.sql.
CREATE OR REPLACE FUNCTION linkbeat.bps(bytes bigint, elapsed_ms integer, delta_kind text) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN elapsed_ms BETWEEN 1 AND 2147483646 AND delta_kind NOT IN ('rejected', 'glitch')
            THEN bytes * 8000::double precision / elapsed_ms END;
