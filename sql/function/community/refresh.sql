-- refresh_aggregates, on TimescaleDB's Community edition, where policies do it; for tests and for psql.
-- Replaceable: reapplied on every upgrade.

-- Materializes every level up to `until`, as far back as rows are kept: a refresh of what retention has dropped from the
-- rows would drop it from the aggregates.
CREATE OR REPLACE PROCEDURE linkbeat.refresh_aggregates(until timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    aggregate record;
BEGIN
    FOR aggregate IN
        SELECT linkbeat.part_name(a.relation, p.part)::regclass AS name, k.since
        FROM linkbeat.aggregates a JOIN linkbeat.kept p USING (relation)
        CROSS JOIN LATERAL (
            SELECT greatest(min(c.range_start), time_bucket('1 day', now() - linkbeat.configured('retain_raw_days'))) AS since
            FROM timescaledb_information.chunks c
            WHERE c.hypertable_schema = 'public' AND c.hypertable_name = a.source HAVING count(*) > 0) k
        WHERE time_bucket(a.width, until) > k.since
        ORDER BY a.width, p.part
    LOOP
        -- Newest first would move the watermark over what is not materialized yet, which is then in no answer.
        CALL public.refresh_continuous_aggregate(aggregate.name, aggregate.since, until,
                                                 options => '{"refresh_newest_first": false, "buckets_per_batch": 60}');
    END LOOP;
END $$;
