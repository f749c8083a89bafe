-- The aggregates on TimescaleDB's Community edition: hierarchical, real-time continuous aggregates; and the columnstore
-- under them and under what they are made of. Structure: run once, frozen on release.
--
-- Real-time at every level: a refresh reads the view of the level below, and takes in what that has not materialized
-- yet, in whatever order the policies run. sql/view/aggregates.sql gives each of the views a body of its own.

DO $install$
DECLARE
    aggregate    record;
    family       record;
    materialized record;
BEGIN
    FOR family IN SELECT * FROM linkbeat.families LOOP
        EXECUTE format('ALTER TABLE %I SET (timescaledb.enable_columnstore = true, timescaledb.segmentby = %L,
            timescaledb.orderby = ''time DESC'')', family.source, array_to_string(family.series, ', '));
    END LOOP;

    FOR aggregate IN SELECT * FROM linkbeat.aggregates ORDER BY family, width LOOP
        EXECUTE format('
            CREATE MATERIALIZED VIEW %I
            WITH (timescaledb.continuous, timescaledb.materialized_only = false,
                  timescaledb.create_group_indexes = false, timescaledb.chunk_interval = %L) AS
                SELECT time_bucket(%L::interval, %s) AS bucket, %s, %s
                FROM %I WHERE %s
                GROUP BY 1, %5$s
            WITH NO DATA',
            aggregate.relation, aggregate.chunk, aggregate.width, aggregate.below_time, aggregate.series,
            aggregate.from_below, aggregate.below, aggregate.below_condition);
        EXECUTE format('ALTER MATERIALIZED VIEW %I SET (timescaledb.enable_columnstore = true,
            timescaledb.segmentby = %L, timescaledb.orderby = ''bucket DESC'')', aggregate.relation, aggregate.series);

        SELECT h.id, h.table_name, format('%I.%I', h.schema_name, h.table_name)::regclass AS kept INTO STRICT materialized
        FROM _timescaledb_catalog.continuous_agg c JOIN _timescaledb_catalog.hypertable h ON h.id = c.mat_hypertable_id
        WHERE c.user_view_schema = 'public' AND c.user_view_name = aggregate.relation;
        INSERT INTO linkbeat.kept (relation, kept) VALUES (aggregate.relation, materialized.kept);

        -- TimescaleDB's own index on the bucket costs each refresh a B-tree, and each read the planner's look at its end.
        -- By the view's name: in TimescaleDB's schema only a superuser may make an index.
        -- With what charts draw: a series' buckets stand on a page each, because they were added in the order of time.
        EXECUTE format('CREATE INDEX ON %I (%s, bucket) %s', aggregate.relation, aggregate.series,
            CASE WHEN aggregate.family = 'network_traffic' THEN 'INCLUDE (rx_bytes, tx_bytes)' END);
        EXECUTE format('CREATE INDEX ON %I USING brin (bucket) WITH (pages_per_range = 32, autosummarize = on)', aggregate.relation);
        EXECUTE format('DROP INDEX _timescaledb_internal.%I', format('%s_bucket_idx', materialized.table_name));

        -- Up to when it is materialized, as the calling query's snapshot has it. TimescaleDB's own cagg_watermark() takes
        -- a newer one wherever it is called at run time, as in the refresh of a level that reads the level below: what
        -- was materialized between the two would be in neither half of that, and missing in all buckets made of it.
        -- Called immutable so that the planner sees a constant and leaves out the chunks on its far side. A plan that
        -- outlives a move of the watermark reads more of what is below it, with the same result. A function for each,
        -- because with the name as a parameter the query within would be planned anew at every call.
        EXECUTE format($sql$
            CREATE FUNCTION linkbeat.watermark_%s() RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $body$
            BEGIN
                RETURN (SELECT _timescaledb_functions.to_timestamp(watermark)
                        FROM _timescaledb_catalog.continuous_aggs_watermark WHERE mat_hypertable_id = %s);
            END $body$ $sql$, aggregate.relation, materialized.id);
    END LOOP;
END $install$;

-- Materializes every level up to `until`, as far back as rows are kept: a refresh of what retention has dropped from the
-- rows would drop it from the aggregates.
CREATE PROCEDURE linkbeat.refresh_aggregates(until timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    aggregate record;
BEGIN
    FOR aggregate IN
        SELECT a.relation, k.since
        FROM linkbeat.aggregates a
        CROSS JOIN LATERAL (
            SELECT greatest(min(c.range_start), time_bucket('1 day', now() - linkbeat.configured('retain_raw_days'))) AS since
            FROM timescaledb_information.chunks c
            WHERE c.hypertable_schema = 'public' AND c.hypertable_name = a.source HAVING count(*) > 0) k
        WHERE time_bucket(a.width, until) > k.since
        ORDER BY a.width
    LOOP
        -- Newest first would move the watermark over what is not materialized yet, which is then in no answer.
        CALL public.refresh_continuous_aggregate(aggregate.relation, aggregate.since, until,
                                                 options => '{"refresh_newest_first": false, "buckets_per_batch": 60}');
    END LOOP;
END $$;
