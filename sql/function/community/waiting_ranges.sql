-- waiting_ranges, on TimescaleDB's Community edition: where rows have changed below an aggregate's watermark that no
-- refresh has taken in yet. Replaceable: reapplied on every upgrade.
--
-- TimescaleDB logs such a change in the transaction that makes it, first for the hypertable, later for each aggregate; a
-- refresh moves what it works on to materialization_ranges. So one snapshot has the rows, the buckets and the log as
-- they belong together. A change of the rows, or of a finer level, has to come through all levels between.
-- From the watermark on a read takes in the rows as they are: nothing waits there.
CREATE OR REPLACE FUNCTION linkbeat.waiting_ranges(of_relation text)
RETURNS TABLE (since timestamptz, until timestamptz) LANGUAGE plpgsql STABLE AS $$
DECLARE
    level     text;
    watermark timestamptz;
    newest    timestamptz := '-infinity';
BEGIN
    -- Of all these levels, the one furthest ahead: with its wider buckets a level may be materialized beyond the newest bucket of
    -- a finer one, where a change still has to come through that.
    FOR level IN
        SELECT finer.relation FROM linkbeat.aggregates a JOIN linkbeat.aggregates finer ON finer.family = a.family AND finer.width <= a.width
        WHERE a.relation = of_relation
    LOOP
        EXECUTE format('SELECT linkbeat.watermark_%s()', level) INTO watermark;
        newest := greatest(newest, watermark);
    END LOOP;
    RETURN QUERY
        SELECT linkbeat.logged_time(l.lowest), least(linkbeat.logged_time(l.greatest), newest)
        FROM linkbeat.aggregates a
        JOIN linkbeat.aggregates finer ON finer.family = a.family AND finer.width <= a.width
        JOIN linkbeat.kept k ON k.relation = finer.relation
        JOIN _timescaledb_catalog.hypertable h ON format('%I.%I', h.schema_name, h.table_name)::regclass = k.kept
        CROSS JOIN LATERAL (
            SELECT i.lowest_modified_value, i.greatest_modified_value
            FROM _timescaledb_catalog.continuous_aggs_materialization_invalidation_log i WHERE i.materialization_id = h.id
            UNION ALL
            SELECT i.lowest_modified_value, i.greatest_modified_value
            FROM _timescaledb_catalog.continuous_aggs_materialization_ranges i WHERE i.materialization_id = h.id
            UNION ALL
            SELECT i.lowest_modified_value, i.greatest_modified_value
            FROM _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log i
            WHERE i.hypertable_id = h.id AND finer.width < a.width
        ) AS l(lowest, greatest)
        WHERE a.relation = of_relation AND linkbeat.logged_time(l.lowest) < newest
        UNION ALL
        SELECT linkbeat.logged_time(i.lowest_modified_value), least(linkbeat.logged_time(i.greatest_modified_value), newest)
        FROM linkbeat.aggregates a
        JOIN _timescaledb_catalog.hypertable h ON h.schema_name = 'public' AND h.table_name = a.source
        JOIN _timescaledb_catalog.continuous_aggs_hypertable_invalidation_log i ON i.hypertable_id = h.id
        WHERE a.relation = of_relation AND linkbeat.logged_time(i.lowest_modified_value) < newest;
END $$;

-- The log has microseconds since 1970; its ends, which no time has, are those of what was never materialized.
CREATE OR REPLACE FUNCTION linkbeat.logged_time(microseconds bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN microseconds < -62135596800000000 THEN '-infinity'::timestamptz
            WHEN microseconds > 253402300799000000 THEN 'infinity'::timestamptz
            ELSE to_timestamp(microseconds / 1000000) END;
