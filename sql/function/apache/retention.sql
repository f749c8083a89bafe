-- Retention on TimescaleDB's Apache edition, which has no policies for it: the service calls it (sql/schema/apache.sql).
-- Replaceable: reapplied on every upgrade.

-- Drops the chunks that are older than linkbeat.configuration says, one a transaction, the oldest first: a reader or
-- writer waits for one at most. Nothing is dropped that the level above has not taken in.
CREATE OR REPLACE PROCEDURE linkbeat.drop_expired() LANGUAGE plpgsql AS $$
DECLARE
    expired record;
BEGIN
    FOR expired IN
        SELECT o.relation, o.made_of_it, c.range_end, o.kept
        FROM (
            SELECT f.source AS relation, f.source::regclass AS kept, 'retain_raw_days' AS setting,
                   format('%s_1m', f.family) AS made_of_it
            FROM linkbeat.families f
            UNION ALL
            SELECT a.relation, k.kept, format('retain_%s_days', a.level), above.relation
            FROM linkbeat.aggregates a JOIN linkbeat.kept k USING (relation)
            LEFT JOIN linkbeat.aggregates above ON above.below = a.relation
        ) o
        JOIN timescaledb_information.chunks c
             ON format('%I.%I', c.hypertable_schema, c.hypertable_name)::regclass = o.kept
        LEFT JOIN linkbeat.watermarks w ON w.relation = o.made_of_it
        WHERE c.range_end <= least(now() - linkbeat.configured(o.setting), w.watermark)
        ORDER BY c.range_end
    LOOP
        UPDATE linkbeat.watermarks SET floor = greatest(floor, expired.range_end) WHERE relation = expired.made_of_it;
        PERFORM drop_chunks(expired.kept, older_than => expired.range_end);
        COMMIT;
    END LOOP;
END $$;

-- What linkbeat.configure has set is read where it is needed.
CREATE OR REPLACE FUNCTION linkbeat.apply_configuration() RETURNS void LANGUAGE sql AS '';
