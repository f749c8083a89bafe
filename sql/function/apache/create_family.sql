-- create_family, on TimescaleDB's Apache edition, which has no continuous aggregates: tables of finished buckets, and
-- the watermarks up to which they are finished. Replaceable: reapplied on every upgrade.
--
-- A level is read through a view (sql/view/aggregates.sql): what is kept in its table below its watermark, and what
-- the finer levels and the rows say from there on. So nothing is ever missing, whether or not the watermark moves.
-- refresh_aggregates moves it (refresh.sql): one grouped pass over the new rows, where an upsert per heartbeat and level
-- would cost more than the ingest itself. Rows that change below the watermark (late, repaired, deleted) have their
-- buckets recomputed by a trigger (recompute.sql), in the same transaction.

-- Writers share this lock, from the moment at which they have looked at the watermarks to their commit; a refresh has
-- it alone while it says how far it will go. A row that landed below that unseen would be in no bucket.
CREATE OR REPLACE FUNCTION linkbeat.writers_lock() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'linkbeat.watermarks'::regclass::oid::bigint;

-- Of one relation: a refresh has it alone while it takes buckets in, and writers of rows that belong in them share it.
CREATE OR REPLACE FUNCTION linkbeat.taking_lock(of_relation text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN hashtextextended(of_relation, 'linkbeat.watermarks'::regclass::oid::bigint);

-- Makes what keeps the finished buckets of a family, or adds the columns that it has gained, to all levels. Rows of the
-- tables are not rewritten: PostgreSQL answers for a column added with a constant.
CREATE OR REPLACE FUNCTION linkbeat.create_family(of_family text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    aggregate record;
    added     record;
BEGIN
    FOR aggregate IN SELECT * FROM linkbeat.aggregates WHERE family = of_family ORDER BY width LOOP
        IF NOT EXISTS (SELECT FROM linkbeat.kept WHERE relation = aggregate.relation) THEN
            EXECUTE format('CREATE TABLE linkbeat.kept_%s (bucket timestamptz NOT NULL, %s, %s, PRIMARY KEY (%s, bucket))',
                aggregate.relation, aggregate.definitions,
                (SELECT string_agg(format('%I text COLLATE "C" NOT NULL', name), ', ' ORDER BY place)
                 FROM unnest(aggregate.series_columns) WITH ORDINALITY AS s(name, place)), aggregate.series);
            PERFORM create_hypertable(format('linkbeat.kept_%s', aggregate.relation)::regclass,
                                      by_range('bucket', aggregate.chunk), create_default_indexes => false);
            -- Buckets are added in the order of time; see network_interface_metrics_time.
            EXECUTE format('CREATE INDEX ON linkbeat.kept_%s USING brin (bucket)
                WITH (pages_per_range = 32, autosummarize = on)', aggregate.relation);
            INSERT INTO linkbeat.watermarks (relation, watermark, taking)
            VALUES (aggregate.relation, time_bucket('1 day', now()), time_bucket('1 day', now()));
            INSERT INTO linkbeat.kept (relation, kept)
            VALUES (aggregate.relation, format('linkbeat.kept_%s', aggregate.relation)::regclass);
        END IF;
        FOR added IN
            SELECT name, type, coalesce(of_older, 'NULL') AS of_older FROM linkbeat.missing_columns
            WHERE relation = aggregate.relation ORDER BY ordinal
        LOOP
            EXECUTE format('ALTER TABLE linkbeat.kept_%s ADD COLUMN %I %s DEFAULT %s',
                           aggregate.relation, added.name, added.type, added.of_older);
            EXECUTE format('ALTER TABLE linkbeat.kept_%s ALTER COLUMN %I DROP DEFAULT', aggregate.relation, added.name);
        END LOOP;

        -- Called immutable so that the planner sees a constant and leaves out the chunks on its far side. A plan that
        -- outlives a move of the watermark reads more of what is below it, with the same result. A function for each,
        -- because with the name as a parameter the query within would be planned again at every call; by its owner's
        -- rights, because a view calls it by those of who reads the view.
        EXECUTE format($sql$
            CREATE OR REPLACE FUNCTION linkbeat.watermark_%1$s() RETURNS timestamptz
            LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
            BEGIN
                RETURN (SELECT watermark FROM linkbeat.watermarks WHERE relation = '%1$s');
            END $body$ $sql$, aggregate.relation);
    END LOOP;
    PERFORM linkbeat.create_recompute(of_family);
END $$;
