-- network_traffic_*, server_metrics_*, filesystem_metrics_*: the relations that are read, the same on both editions; and
-- what keeps their finished buckets, where that is not there yet.
-- Replaceable: reapplied on every upgrade.

SELECT linkbeat.create_family(family) FROM linkbeat.families ORDER BY family;

-- The statement of an aggregate's view, or of the view of one of its parts.
--
-- Finished buckets up to the watermark, and from it on what the finer levels and the newest rows say now: nothing is
-- missing, whether or not the watermark moves. All of that tail stands in one place, and not in each level's view the
-- view below it, because planning four levels within each other takes longer than reading a week.
CREATE OR REPLACE FUNCTION linkbeat.view_statement(of_relation text, only_part integer DEFAULT NULL) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    suffix    CONSTANT text := coalesce('_' || only_part, '');
    aggregate record;
    pieces    record;
    finer     record;
    since     text;
    tail      text := '';
BEGIN
    SELECT *, format('linkbeat.watermark_%s%s()', relation, suffix) AS watermark INTO STRICT aggregate
    FROM linkbeat.aggregates WHERE relation = of_relation;
    WITH named AS (
        SELECT name, ordinal, of_row, CASE part WHEN 1 THEN quote_ident(name) ELSE of_part END AS finished, from_buckets
        FROM linkbeat.kept_columns WHERE relation = of_relation AND part = coalesce(only_part, part)
        UNION ALL
        -- How many samples the bucket should hold: its width over the interval, rounded.
        SELECT 'expected_samples', 1000000, NULL, format(samples, 'interval_ms'), format(samples, 'min(interval_ms)')
        FROM format('greatest(1, (%s + %%1$s::bigint) / (2 * greatest(%%1$s, 1)::bigint)) AS expected_samples',
                    2 * aggregate.width_ms) AS samples
        WHERE aggregate.family = 'network_traffic' AND only_part IS NULL
    ), placed AS (
        -- A view that is replaced keeps its columns where they are.
        SELECT n.*, row_number() OVER (ORDER BY t.attnum, n.ordinal) AS place
        FROM named n LEFT JOIN pg_attribute t
             ON t.attrelid = to_regclass(format('public.%I', of_relation)) AND t.attname = n.name AND NOT t.attisdropped
    )
    SELECT string_agg(finished, ', ' ORDER BY place) AS finished, string_agg(from_buckets, ', ' ORDER BY place) AS from_tail,
           string_agg(of_row, ', ' ORDER BY place) AS of_row,
           string_agg(finished, ', ' ORDER BY place) FILTER (WHERE of_row IS NOT NULL) AS of_finer
    INTO pieces FROM placed;

    since := format('>= %s', aggregate.watermark);
    FOR finer IN
        SELECT format('%s_%s', aggregate.family, t.level) AS relation,
               format('linkbeat.watermark_%s_%s%s()', aggregate.family, t.level, suffix) AS watermark
        FROM unnest(aggregate.tail) WITH ORDINALITY AS t(level, place) ORDER BY t.place
    LOOP
        tail := tail || format('SELECT bucket, %s, %s FROM %s WHERE bucket %s AND bucket < %s UNION ALL ',
            aggregate.series, pieces.of_finer, linkbeat.finished_buckets(finer.relation, only_part),
            replace(since, '$', 'bucket'), finer.watermark);
        since := format('%s AND $ >= %s', since, finer.watermark);
    END LOOP;
    tail := tail || format('SELECT time AS bucket, %s, %s FROM public.%I WHERE %s AND time %s',
        aggregate.series, pieces.of_row, aggregate.source, aggregate.condition, replace(since, '$', 'time'));
    RETURN format('SELECT bucket, %1$s, %2$s FROM %3$s WHERE bucket < %4$s
        UNION ALL
        SELECT time_bucket(%5$L::interval, bucket) AS bucket, %1$s, %6$s FROM (%7$s) AS tail GROUP BY 1, %1$s',
        aggregate.series, pieces.finished, linkbeat.finished_buckets(of_relation, only_part), aggregate.watermark,
        aggregate.width, pieces.from_tail, tail);
END $$;

-- What keeps the finished buckets, as it stands after FROM. Several parts are grouped and not joined: a range of buckets
-- reaches the chunks of every branch of a union, but of a join those of one side alone.
CREATE OR REPLACE FUNCTION linkbeat.finished_buckets(of_relation text, only_part integer) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    grouped text := (SELECT string_agg(from_buckets, ', ' ORDER BY ordinal) FROM linkbeat.kept_columns WHERE relation = of_relation);
    parts   record;
BEGIN
    SELECT count(*) AS many, min(k.kept::text) AS only_one, min(a.series) AS series,
           string_agg(format('SELECT bucket, %s, %s AS part, %s FROM %s', a.series, k.part, (
               SELECT string_agg(CASE c.part WHEN k.part THEN quote_ident(c.name) ELSE format('NULL::%s AS %I', c.type, c.name) END, ', ' ORDER BY c.ordinal)
               FROM linkbeat.kept_columns c WHERE c.relation = of_relation), k.kept), ' UNION ALL ' ORDER BY k.part) AS branches
    INTO parts
    FROM linkbeat.kept k JOIN linkbeat.aggregates a USING (relation)
    WHERE k.relation = of_relation AND k.part = coalesce(only_part, k.part);
    IF parts.many = 1 THEN
        RETURN parts.only_one;
    END IF;
    RETURN format('(SELECT bucket, %1$s, %2$s FROM (%3$s) AS parts GROUP BY bucket, %1$s HAVING bool_or(part = 1)) AS finished',
                  parts.series, grouped, parts.branches);
END $$;

DO $views$
DECLARE
    aggregate record;
    part      record;
BEGIN
    FOR aggregate IN SELECT relation FROM linkbeat.aggregates ORDER BY family, width LOOP
        EXECUTE format('CREATE OR REPLACE VIEW public.%I AS %s', aggregate.relation, linkbeat.view_statement(aggregate.relation));
    END LOOP;
    FOR part IN SELECT relation, k.part FROM linkbeat.kept k WHERE k.part > 1 LOOP
        EXECUTE format('CREATE OR REPLACE VIEW linkbeat.%I AS %s',
            format('%s_%s', part.relation, part.part), linkbeat.view_statement(part.relation, part.part));
    END LOOP;
END $views$;
