-- refresh_aggregates: takes finished buckets up to `until` into the tables of all levels, and moves the watermarks.
-- Replaceable: reapplied on every upgrade.
--
-- A step is two transactions. The first says how far the step goes, alone among the writers: when it commits, every
-- row below that is either committed, or of a writer who knows and waits. The second reads and keeps the buckets while
-- ingest goes on, and moves the watermark with them. So writers wait for an instant, and not for the reading.
-- A step that was begun is the next caller's step, whether or not whoever began it still works at it.
CREATE OR REPLACE PROCEDURE linkbeat.refresh_aggregates(until timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    aggregate record;
    since     timestamptz;
    step      timestamptz;
    finished  timestamptz;
    buckets   integer;
    started   timestamptz;
BEGIN
    FOR aggregate IN
        SELECT a.*, k.kept, coalesce(b.kept, a.source::regclass) AS kept_below, b.relation AS finished_by
        FROM linkbeat.aggregates a JOIN linkbeat.kept k USING (relation) LEFT JOIN linkbeat.kept b ON b.relation = a.below
        ORDER BY a.width, a.family
    LOOP
        buckets := 1;
        LOOP
            PERFORM pg_advisory_xact_lock(linkbeat.writers_lock());
            SELECT watermark, taking INTO since, step FROM linkbeat.watermarks WHERE relation = aggregate.relation;
            IF step = since THEN
                finished := least(until, (SELECT watermark FROM linkbeat.watermarks WHERE relation = aggregate.finished_by));
                step := least(time_bucket(aggregate.width, finished), since + buckets * aggregate.width);
                EXIT WHEN step <= since;
                UPDATE linkbeat.watermarks SET taking = step WHERE relation = aggregate.relation;
            END IF;
            COMMIT;

            started := clock_timestamp();
            PERFORM pg_advisory_xact_lock(linkbeat.taking_lock(aggregate.relation));
            IF since = (SELECT watermark FROM linkbeat.watermarks WHERE relation = aggregate.relation) THEN
                EXECUTE format('INSERT INTO %1$s (bucket, %2$s, %3$s) SELECT time_bucket(%4$L::interval, %5$s), %2$s, %6$s
                    FROM %7$s WHERE %8$s AND %5$s >= $1 AND %5$s < $2 GROUP BY 1, %2$s',
                    aggregate.kept, aggregate.series, aggregate.columns, aggregate.width, aggregate.below_time,
                    aggregate.from_below, aggregate.kept_below, aggregate.below_condition) USING since, step;
                UPDATE linkbeat.watermarks SET watermark = step WHERE relation = aggregate.relation;
            END IF;
            COMMIT;
            -- A backlog in larger steps, but none that writers of late rows would wait for long.
            buckets := CASE WHEN clock_timestamp() < started + INTERVAL '200 ms' THEN least(buckets * 2, 1440)
                            ELSE greatest(buckets / 2, 1) END;
        END LOOP;
        COMMIT;
    END LOOP;
END $$;
