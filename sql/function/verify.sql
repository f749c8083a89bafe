-- verifiable_since: from when on an aggregate can be compared with the rows that it is made of (`linkbeat verify`).
-- Replaceable: reapplied on every upgrade.
--
-- A whole day, from which on retention has dropped neither rows nor buckets. Buckets that are older than the level's
-- retention, but still there, can be compared too: a restored copy whose maintenance is off has them.
-- Null where there are no rows.
CREATE OR REPLACE FUNCTION linkbeat.verifiable_since(of_relation text) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT time_bucket('1 day', greatest(
                   min(raw.range_start), least(now() - linkbeat.configured(format('retain_%s_days', a.level)), min(own.range_start)))
                   + INTERVAL '1 day' - INTERVAL '1 microsecond')
        FROM linkbeat.aggregates a
        JOIN timescaledb_information.chunks raw ON raw.hypertable_schema = 'public' AND raw.hypertable_name = a.source
        LEFT JOIN (
            SELECT k.relation, min(c.range_start) AS range_start
            FROM linkbeat.kept k JOIN timescaledb_information.chunks c
                 ON format('%I.%I', c.hypertable_schema, c.hypertable_name)::regclass = k.kept
            GROUP BY k.relation
        ) own USING (relation)
        WHERE a.relation = of_relation GROUP BY a.level);
END $$;
