-- create_family, on TimescaleDB's Community edition: hierarchical, real-time continuous aggregates; and the columnstore
-- under them and under what they are made of. Replaceable: reapplied on every upgrade.
--
-- Real-time at every level: a refresh reads the view of the level below, and takes in what that has not materialized
-- yet, in whatever order the policies run. sql/view/aggregates.sql gives each of the views a body of its own.
--
-- A continuous aggregate cannot gain a column: those that a family gains stand in another one, the next part, with views
-- of its own in schema linkbeat. The relation that is read groups the parts.

-- What an aggregate's part is called: the first has the name that is read.
CREATE OR REPLACE FUNCTION linkbeat.part_name(of_relation text, of_part integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE of_part WHEN 1 THEN format('public.%I', of_relation) ELSE format('linkbeat.%I', format('%s_%s', of_relation, of_part)) END;

-- Makes what keeps the finished buckets of a family, or of the columns that it has gained, at all levels.
CREATE OR REPLACE FUNCTION linkbeat.create_family(of_family text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    family       record;
    aggregate    record;
    pieces       record;
    materialized record;
    new_part     integer;
    new_name     text;
    finished     timestamptz;
    of_parts     text;
    part         record;
BEGIN
    SELECT * INTO STRICT family FROM linkbeat.families f WHERE f.family = of_family;
    IF NOT (SELECT compression_enabled FROM timescaledb_information.hypertables
            WHERE hypertable_schema = 'public' AND hypertable_name = family.source) THEN
        EXECUTE format('ALTER TABLE %I SET (timescaledb.enable_columnstore = true, timescaledb.segmentby = %L,
            timescaledb.orderby = ''time DESC'')', family.source, array_to_string(family.series, ', '));
    END IF;

    FOR aggregate IN SELECT * FROM linkbeat.aggregates a WHERE a.family = of_family ORDER BY width LOOP
        SELECT string_agg(CASE aggregate.below_time WHEN 'time' THEN c.from_rows ELSE c.from_buckets END, ', ' ORDER BY c.ordinal) AS from_below,
               string_agg(c.name, ', ') AS names
        INTO pieces
        FROM linkbeat.missing_columns m JOIN linkbeat.column_pieces c USING (family, name)
        WHERE m.relation = aggregate.relation;
        IF pieces.names IS NOT NULL THEN
            new_part := (SELECT coalesce(max(k.part), 0) + 1 FROM linkbeat.kept k WHERE k.relation = aggregate.relation);
            new_name := linkbeat.part_name(aggregate.relation, new_part);
            finished := '-infinity';
            IF new_part > 1 THEN
                EXECUTE format('SELECT linkbeat.watermark_%s()', aggregate.relation) INTO finished;
            END IF;
            EXECUTE format('
                CREATE MATERIALIZED VIEW %s
                WITH (timescaledb.continuous, timescaledb.materialized_only = false,
                      timescaledb.create_group_indexes = false, timescaledb.chunk_interval = %L) AS
                    SELECT time_bucket(%L::interval, %s) AS bucket, %s, %s
                    FROM %s WHERE %s
                    GROUP BY 1, %5$s
                WITH NO DATA',
                new_name, aggregate.chunk, aggregate.width, aggregate.below_time, aggregate.series, pieces.from_below,
                CASE aggregate.below_time WHEN 'time' THEN aggregate.source ELSE linkbeat.part_name(aggregate.below, new_part) END,
                aggregate.below_condition);
            EXECUTE format('ALTER MATERIALIZED VIEW %s SET (timescaledb.enable_columnstore = true,
                timescaledb.segmentby = %L, timescaledb.orderby = ''bucket DESC'')', new_name, aggregate.series);

            SELECT h.table_name, format('%I.%I', h.schema_name, h.table_name)::regclass AS kept INTO STRICT materialized
            FROM _timescaledb_catalog.continuous_agg c JOIN _timescaledb_catalog.hypertable h ON h.id = c.mat_hypertable_id
            WHERE format('%I.%I', c.user_view_schema, c.user_view_name) = new_name;
            INSERT INTO linkbeat.kept (relation, part, kept, since)
            VALUES (aggregate.relation, new_part, materialized.kept, finished);

            -- TimescaleDB's own index on the bucket costs each refresh a B-tree, and each read the planner's look at its end.
            -- By the view's name: in TimescaleDB's schema only a superuser may make an index.
            -- With what charts draw: a series' buckets stand on a page each, because they were added in the order of time.
            EXECUTE format('CREATE INDEX ON %s (%s, bucket) %s', new_name, aggregate.series,
                CASE WHEN of_family = 'network_traffic' AND new_part = 1 THEN 'INCLUDE (rx_bytes, tx_bytes)' END);
            EXECUTE format('CREATE INDEX ON %s USING brin (bucket) WITH (pages_per_range = 32, autosummarize = on)', new_name);
            EXECUTE format('DROP INDEX _timescaledb_internal.%I', format('%s_bucket_idx', materialized.table_name));
            -- At the installation linkbeat.configure does it, of all.
            IF EXISTS (SELECT FROM linkbeat.configuration) THEN
                PERFORM linkbeat.set_policies(aggregate.relation, new_part, aggregate.level);
            END IF;
        END IF;

        -- Up to when it is materialized, as the calling query's snapshot has it. TimescaleDB's own cagg_watermark() takes
        -- a newer one wherever it is called at run time, as in the refresh of a level that reads the level below: what
        -- was materialized between the two would be in neither half of that, and missing in all buckets made of it.
        -- Called immutable so that the planner sees a constant and leaves out the chunks on its far side. A plan that
        -- outlives a move of the watermark reads more of what is below it, with the same result. A function for each,
        -- because with the name as a parameter the query within would be planned again at every call.
        -- Of all parts it is that of the one furthest behind. A part that has materialized nothing yet knows what was
        -- finished before it was made: nothing of its columns was reported then.
        of_parts := NULL;
        FOR part IN
            SELECT k.part, format('greatest(%L::timestamptz, (SELECT _timescaledb_functions.to_timestamp(watermark)
                                   FROM _timescaledb_catalog.continuous_aggs_watermark WHERE mat_hypertable_id = %s))', k.since, h.id) AS watermark
            FROM linkbeat.kept k JOIN _timescaledb_catalog.hypertable h ON format('%I.%I', h.schema_name, h.table_name)::regclass = k.kept
            WHERE k.relation = aggregate.relation ORDER BY k.part
        LOOP
            of_parts := concat_ws(', ', of_parts, part.watermark);
            IF part.part > 1 THEN
                PERFORM linkbeat.create_watermark(format('%s_%s', aggregate.relation, part.part), part.watermark);
            END IF;
        END LOOP;
        PERFORM linkbeat.create_watermark(aggregate.relation, format('least(%s)', of_parts));
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION linkbeat.create_watermark(of_relation text, expression text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format($sql$
        CREATE OR REPLACE FUNCTION linkbeat.watermark_%s() RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $body$
        BEGIN
            RETURN (SELECT %s);
        END $body$ $sql$, of_relation, expression);
END $$;
