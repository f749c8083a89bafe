-- network_traffic_1m, _15m, _1h, _1d on TimescaleDB's Apache edition, which has no continuous aggregates:
-- the same relations with the same results, made of tables, views and triggers.
-- Structure: run once, frozen on release.
--
-- Each level is a view: what is kept in its table below the level's watermark, and what the level below says now
-- from the watermark on. So nothing is ever missing, whether or not the watermark moves. refresh_aggregates moves
-- it: one grouped pass over the new rows, where an upsert per heartbeat and level would cost more than the ingest.
-- Rows that change below the watermark (late, repaired, deleted) have their buckets computed anew by a trigger,
-- in the same transaction.

CREATE TABLE linkbeat.watermarks (
    level     text PRIMARY KEY,
    watermark timestamptz NOT NULL
);
INSERT INTO linkbeat.watermarks SELECT unnest('{1m,15m,1h,1d}'::text[]), time_bucket('1 day', now());

-- Called immutable so that the planner sees a constant and leaves out the chunks on its far side. A plan that
-- outlives a move of the watermark reads more of the level below, with the same result.
CREATE FUNCTION linkbeat.watermark(of_level text) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN (SELECT watermark FROM linkbeat.watermarks WHERE level = of_level);
END $$;

-- A writer and a moving watermark exclude each other: a row that lands below it unseen would be in no bucket.
-- Writers share the lock; refresh_aggregates holds it alone.
CREATE FUNCTION linkbeat.hold_watermarks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared('linkbeat.watermarks'::regclass::oid::bigint);
    RETURN NULL;
END $$;

CREATE TRIGGER hold_watermarks BEFORE INSERT OR UPDATE OR DELETE ON network_interface_metrics
    FOR EACH STATEMENT EXECUTE FUNCTION linkbeat.hold_watermarks();

DO $install$
DECLARE
    -- The only place where the columns of a level are defined on this edition.
    columns CONSTANT text := 'bucket, server_id, interface_name, rx_bytes, tx_bytes, rx_packets, tx_packets,
        rx_errors, tx_errors, rx_dropped, tx_dropped, rx_bps_max, tx_bps_max, up_samples, samples';
    from_samples CONSTANT text := $sql$
        sum(rx_bytes_delta)::bigint AS rx_bytes, sum(tx_bytes_delta)::bigint AS tx_bytes,
        sum(rx_packets_delta)::bigint AS rx_packets, sum(tx_packets_delta)::bigint AS tx_packets,
        coalesce(sum(rx_errors_delta), 0)::bigint AS rx_errors, coalesce(sum(tx_errors_delta), 0)::bigint AS tx_errors,
        coalesce(sum(rx_dropped_delta), 0)::bigint AS rx_dropped, coalesce(sum(tx_dropped_delta), 0)::bigint AS tx_dropped,
        max(CASE WHEN elapsed_ms > 0 THEN rx_bytes_delta * 8000::double precision / elapsed_ms END) AS rx_bps_max,
        max(CASE WHEN elapsed_ms > 0 THEN tx_bytes_delta * 8000::double precision / elapsed_ms END) AS tx_bps_max,
        count(*) FILTER (WHERE is_up) AS up_samples, count(*) AS samples $sql$;
    from_buckets CONSTANT text := $sql$
        sum(rx_bytes)::bigint AS rx_bytes, sum(tx_bytes)::bigint AS tx_bytes,
        sum(rx_packets)::bigint AS rx_packets, sum(tx_packets)::bigint AS tx_packets,
        sum(rx_errors)::bigint AS rx_errors, sum(tx_errors)::bigint AS tx_errors,
        sum(rx_dropped)::bigint AS rx_dropped, sum(tx_dropped)::bigint AS tx_dropped,
        max(rx_bps_max) AS rx_bps_max, max(tx_bps_max) AS tx_bps_max,
        sum(up_samples)::bigint AS up_samples, sum(samples)::bigint AS samples $sql$;
    level    record;
    -- format() arguments: 1 level, 2 width, 3 chunk, 4 relation below, 5 its time column, 6 aggregates, 7 columns,
    -- 8 what is kept of the level below
    template text;
    recompute text := '';
    refresh   text := '';
BEGIN
    FOR level IN
        SELECT * FROM (VALUES
            ('1m',  '1 minute',   '1 day',    'network_interface_metrics', 'time',   from_samples, 'network_interface_metrics'),
            ('15m', '15 minutes', '7 days',   'network_traffic_1m',        'bucket', from_buckets, 'linkbeat.kept_traffic_1m'),
            ('1h',  '1 hour',     '30 days',  'network_traffic_15m',       'bucket', from_buckets, 'linkbeat.kept_traffic_15m'),
            ('1d',  '1 day',      '365 days', 'network_traffic_1h',        'bucket', from_buckets, 'linkbeat.kept_traffic_1h')
        ) AS l(name, width, chunk, below, below_time, aggregates, kept_below)
    LOOP
        EXECUTE format($sql$
            CREATE TABLE linkbeat.kept_traffic_%1$s (
                bucket timestamptz NOT NULL, server_id text COLLATE "C", interface_name text COLLATE "C",
                rx_bytes bigint NOT NULL, tx_bytes bigint NOT NULL,
                rx_packets bigint NOT NULL, tx_packets bigint NOT NULL,
                rx_errors bigint NOT NULL, tx_errors bigint NOT NULL,
                rx_dropped bigint NOT NULL, tx_dropped bigint NOT NULL,
                rx_bps_max double precision, tx_bps_max double precision,
                up_samples bigint NOT NULL, samples bigint NOT NULL,
                PRIMARY KEY (server_id, interface_name, bucket)
            )$sql$, level.name);
        PERFORM create_hypertable(format('linkbeat.kept_traffic_%s', level.name)::regclass,
                                  by_range('bucket', level.chunk::interval), create_default_indexes => false);
        EXECUTE format($sql$
            CREATE VIEW network_traffic_%1$s AS
                SELECT %7$s FROM linkbeat.kept_traffic_%1$s WHERE bucket < linkbeat.watermark(%1$L)
                UNION ALL
                SELECT time_bucket(%2$L, %5$s) AS bucket, server_id, interface_name, %6$s
                FROM %4$s WHERE %5$s >= linkbeat.watermark(%1$L)
                GROUP BY 1, 2, 3
            $sql$, level.name, level.width, level.chunk, level.below, level.below_time, level.aggregates, columns);

        recompute := recompute || format($sql$
            DELETE FROM linkbeat.kept_traffic_%1$s AS k USING (
                SELECT DISTINCT time_bucket(%2$L, time) AS bucket, server_id, interface_name FROM changed) AS c
            WHERE (k.server_id, k.interface_name, k.bucket) = (c.server_id, c.interface_name, c.bucket);
            INSERT INTO linkbeat.kept_traffic_%1$s (%7$s)
            SELECT c.bucket, c.server_id, c.interface_name, a.rx_bytes, a.tx_bytes, a.rx_packets, a.tx_packets,
                   a.rx_errors, a.tx_errors, a.rx_dropped, a.tx_dropped, a.rx_bps_max, a.tx_bps_max, a.up_samples, a.samples
            FROM (SELECT DISTINCT time_bucket(%2$L, time) AS bucket, server_id, interface_name FROM changed
                  WHERE time < (SELECT watermark FROM linkbeat.watermarks WHERE level = %1$L)) AS c
            CROSS JOIN LATERAL (
                SELECT %6$s FROM %8$s AS b
                WHERE b.server_id = c.server_id AND b.interface_name = c.interface_name
                  AND b.%5$s >= c.bucket AND b.%5$s < c.bucket + INTERVAL %2$L
                HAVING count(*) > 0) AS a;
            $sql$, level.name, level.width, level.chunk, level.below, level.below_time, level.aggregates, columns, level.kept_below);

        refresh := refresh || format($sql$
            -- In steps of sixty buckets: writers wait for one step, not for a backlog.
            LOOP
                PERFORM pg_advisory_xact_lock('linkbeat.watermarks'::regclass::oid::bigint);
                SELECT watermark INTO since FROM linkbeat.watermarks WHERE level = %1$L;
                step := least(time_bucket(%2$L, until), since + 60 * INTERVAL %2$L);
                EXIT WHEN step <= since;
                INSERT INTO linkbeat.kept_traffic_%1$s (%7$s)
                SELECT time_bucket(%2$L, %5$s) AS bucket, server_id, interface_name, %6$s
                FROM %8$s WHERE %5$s >= since AND %5$s < step
                GROUP BY 1, 2, 3;
                UPDATE linkbeat.watermarks SET watermark = step WHERE level = %1$L;
                COMMIT;
            END LOOP;
            COMMIT;
            SELECT watermark INTO until FROM linkbeat.watermarks WHERE level = %1$L;
            $sql$, level.name, level.width, level.chunk, level.below, level.below_time, level.aggregates, columns, level.kept_below);
    END LOOP;

    EXECUTE format($sql$
        CREATE FUNCTION linkbeat.recompute_traffic() RETURNS trigger LANGUAGE plpgsql AS $body$
        BEGIN
            -- The lowest level's watermark is the highest: in order, there is nothing to do.
            IF NOT EXISTS (SELECT FROM changed
                           WHERE time < (SELECT watermark FROM linkbeat.watermarks WHERE level = '1m')) THEN
                RETURN NULL;
            END IF;
            %s
            RETURN NULL;
        END $body$ $sql$, recompute);

    EXECUTE format($sql$
        CREATE PROCEDURE linkbeat.refresh_aggregates(until timestamptz) LANGUAGE plpgsql AS $body$
        DECLARE
            since timestamptz;
            step  timestamptz;
        BEGIN
            %s
        END $body$ $sql$, refresh);
END $install$;

CREATE TRIGGER recompute_inserted AFTER INSERT ON network_interface_metrics
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION linkbeat.recompute_traffic();
CREATE TRIGGER recompute_updated AFTER UPDATE ON network_interface_metrics
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION linkbeat.recompute_traffic();
CREATE TRIGGER recompute_updated_from AFTER UPDATE ON network_interface_metrics
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION linkbeat.recompute_traffic();
CREATE TRIGGER recompute_deleted AFTER DELETE ON network_interface_metrics
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION linkbeat.recompute_traffic();

CREATE FUNCTION linkbeat.truncate_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE linkbeat.kept_traffic_1m, linkbeat.kept_traffic_15m, linkbeat.kept_traffic_1h, linkbeat.kept_traffic_1d;
    RETURN NULL;
END $$;
CREATE TRIGGER truncate_kept AFTER TRUNCATE ON network_interface_metrics
    FOR EACH STATEMENT EXECUTE FUNCTION linkbeat.truncate_kept();

-- What the Community edition's policies do; the service calls it every half minute, one caller at a time.
-- Two minutes behind the clock, so that heartbeats on their way still find the watermark below them.
CREATE PROCEDURE linkbeat.maintain() LANGUAGE plpgsql AS $$
BEGIN
    CALL linkbeat.refresh_aggregates(now() - INTERVAL '2 minutes');
END $$;
