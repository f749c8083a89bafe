-- network_traffic_*, server_metrics_*, filesystem_metrics_*: the relations that are read, the same on both editions.
-- Replaceable: reapplied on every upgrade.
--
-- Finished buckets up to the watermark, and from it on what the finer levels and the newest rows say now: nothing is
-- missing, whether or not the watermark moves. All of that tail stands in one place, and not in each level's view the
-- view below it, because planning four levels within each other takes longer than reading a week.
DO $views$
DECLARE
    aggregate record;
    finer     record;
    since     text;
    tail      text;
    derived   text;
BEGIN
    FOR aggregate IN
        SELECT *, format('linkbeat.watermark_%s()', relation) AS watermark
        FROM linkbeat.aggregates JOIN linkbeat.kept USING (relation)
    LOOP
        tail := '';
        since := format('>= %s', aggregate.watermark);
        FOR finer IN
            SELECT k.kept, format('linkbeat.watermark_%s()', k.relation) AS watermark
            FROM unnest(aggregate.tail) WITH ORDINALITY AS t(level, place)
            JOIN linkbeat.kept k ON k.relation = format('%s_%s', aggregate.family, t.level) ORDER BY t.place
        LOOP
            tail := tail || format('SELECT bucket, %s, %s FROM %s WHERE bucket %s AND bucket < %s UNION ALL ',
                aggregate.series, aggregate.columns, finer.kept, replace(since, '$', 'bucket'), finer.watermark);
            since := format('%s AND $ >= %s', since, finer.watermark);
        END LOOP;
        tail := tail || format('SELECT time AS bucket, %s, %s FROM %I WHERE %s AND time %s',
            aggregate.series, aggregate.of_row, aggregate.source, aggregate.condition, replace(since, '$', 'time'));
        -- How many samples the bucket should hold: its width over the interval, rounded.
        derived := CASE WHEN aggregate.family = 'network_traffic' THEN
            format(', greatest(1, (%s + %%1$s::bigint) / (2 * greatest(%%1$s, 1)::bigint)) AS expected_samples',
                   2 * aggregate.width_ms) ELSE '' END;
        EXECUTE format('CREATE OR REPLACE VIEW %1$I AS
            SELECT bucket, %2$s, %3$s %4$s FROM %5$s WHERE bucket < %6$s
            UNION ALL
            SELECT time_bucket(%7$L::interval, bucket) AS bucket, %2$s, %8$s %9$s FROM (%10$s) AS tail GROUP BY 1, %2$s',
            aggregate.relation, aggregate.series, aggregate.columns, format(derived, 'interval_ms'), aggregate.kept,
            aggregate.watermark, aggregate.width, aggregate.from_buckets, format(derived, 'min(interval_ms)'), tail);
    END LOOP;
END $views$;
