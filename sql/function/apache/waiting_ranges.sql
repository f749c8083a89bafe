-- waiting_ranges, on TimescaleDB's Apache edition: none. Rows that change below a watermark have their buckets recomputed
-- in the same transaction (recompute.sql). Replaceable: reapplied on every upgrade.
CREATE OR REPLACE FUNCTION linkbeat.waiting_ranges(of_relation text)
RETURNS TABLE (since timestamptz, until timestamptz) LANGUAGE sql STABLE AS $$
    SELECT NULL::timestamptz, NULL::timestamptz WHERE false
$$;
