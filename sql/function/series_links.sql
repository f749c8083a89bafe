-- Links of series (sql/schema/series_links.sql): what an administrator says of the past.
-- Replaceable: reapplied on every upgrade.

-- As what a sample of this series at this moment is read: by one link of its server at most, because links are no chains,
-- and then by the servers that replaced its server later, one after the other. `server_id` null: it does not
-- count; another server was in its server's place then.
--   of_series, series  null: any that has no link
CREATE OR REPLACE FUNCTION linkbeat.resolve_series(
    of_server text, of_series text, at timestamptz, OUT server_id text, OUT series text
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    was text;
BEGIN
    series := coalesce((
        SELECT l.into_series FROM linkbeat.series_links l
        WHERE l.server_id = of_server AND l.series = of_series AND l.since <= at AND at < l.until), of_series);
    server_id := of_server;
    LOOP
        IF EXISTS (SELECT FROM linkbeat.successions s
                   WHERE s.server_id = resolve_series.server_id AND at < s.since AND s.predecessor_id IS DISTINCT FROM was) THEN
            server_id := NULL;
            series := NULL;
            RETURN;
        END IF;
        was := server_id;
        server_id := (SELECT s.server_id FROM linkbeat.successions s WHERE s.predecessor_id = was AND at < s.since);
        IF server_id IS NULL THEN
            server_id := was;
            RETURN;
        END IF;
    END LOOP;
END $$;

-- A server, and those that replaced it, one after the other.
CREATE OR REPLACE FUNCTION linkbeat.with_successors(of_server text) RETURNS SETOF text LANGUAGE sql STABLE AS $$
    WITH RECURSIVE chain AS (
        SELECT of_server COLLATE "C" AS server_id
        UNION ALL
        SELECT s.server_id FROM chain c JOIN linkbeat.successions s ON s.predecessor_id = c.server_id
    )
    SELECT server_id FROM chain;
$$;

-- Writes what linkbeat.series_map has of a server.
CREATE OR REPLACE FUNCTION linkbeat.map_series(of_server text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    linked    CONSTANT text[] := ARRAY(SELECT DISTINCT l.series FROM linkbeat.series_links l WHERE l.server_id = of_server);
    handovers CONSTANT timestamptz[] := ARRAY(
        SELECT s.since FROM linkbeat.successions s WHERE s.server_id IN (SELECT linkbeat.with_successors(of_server)));
BEGIN
    DELETE FROM linkbeat.series_map m WHERE m.server_id = of_server;
    INSERT INTO linkbeat.series_map (server_id, series, except_series, since, until, into_server_id, into_series)
    WITH mapped AS (
        SELECT unnest(linked) AS series, '{}'::text[] AS except_series
        UNION ALL
        SELECT NULL, linked WHERE handovers <> '{}'
    ), boundary AS (
        SELECT '-infinity'::timestamptz AS at
        UNION
        SELECT b.at FROM linkbeat.series_links l CROSS JOIN LATERAL (VALUES (l.since), (l.until)) AS b(at)
        WHERE l.server_id = of_server
        UNION
        SELECT unnest(handovers)
    ), segment AS (
        SELECT m.*, b.at AS since, lead(b.at, 1, 'infinity') OVER (PARTITION BY m.series ORDER BY b.at) AS until
        FROM mapped m CROSS JOIN boundary b WHERE b.at < 'infinity'
    ), resolved AS (
        SELECT s.*, r.server_id AS into_server_id, r.series AS into_series,
               (r.server_id, r.series) IS NOT DISTINCT FROM
               (lag(r.server_id) OVER w, lag(r.series) OVER w) AS goes_on
        FROM segment s CROSS JOIN LATERAL linkbeat.resolve_series(of_server, s.series, s.since) AS r
        WINDOW w AS (PARTITION BY s.series ORDER BY s.since)
    ), numbered AS (
        SELECT *, count(*) FILTER (WHERE NOT goes_on) OVER (PARTITION BY series ORDER BY since) AS run FROM resolved
    )
    SELECT of_server, series, except_series, min(since), max(until), min(into_server_id), min(into_series)
    FROM numbered GROUP BY series, except_series, run;
END $$;

CREATE OR REPLACE FUNCTION linkbeat.on_link_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM linkbeat.map_series(coalesce(NEW.server_id, OLD.server_id));
    RETURN NULL;
END $$;

-- As linkbeat.count_config_change.
CREATE OR REPLACE FUNCTION linkbeat.count_link_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE linkbeat.installation SET links_revision = links_revision + 1;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER map_series AFTER INSERT OR UPDATE OR DELETE ON linkbeat.series_links
FOR EACH ROW EXECUTE FUNCTION linkbeat.on_link_change();
CREATE OR REPLACE TRIGGER count_change AFTER INSERT OR UPDATE OR DELETE ON linkbeat.series_links
FOR EACH STATEMENT EXECUTE FUNCTION linkbeat.count_link_change();

-- When two series of a server both have samples in [since, until); null: never. Those of one heartbeat have one time. For
-- times of which no samples are retained, the hours tell: together, both have more samples than there were heartbeats,
-- one of which may be irregular.
CREATE OR REPLACE FUNCTION linkbeat.overlap_of(
    of_server text, of_series text, other text, since timestamptz, until timestamptz,
    OUT first timestamptz, OUT last timestamptz, OUT samples bigint
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    rows_since CONSTANT timestamptz := time_bucket('1 hour', now() - linkbeat.configured('retain_raw_days') + INTERVAL '1 hour');
BEGIN
    WITH both_of_samples AS (
        SELECT a.time AS first, a.time AS last, 1::bigint AS samples
        FROM public.network_samples a
        JOIN public.linked_samples(of_server, greatest(since, rows_since), until, other) b USING (time)
        WHERE a.server_id = of_server AND a.interface_name = of_series AND NOT a.is_folded AND NOT b.is_folded
          AND a.time >= greatest(since, rows_since) AND a.time < until
    ), a AS (
        SELECT h.bucket, h.samples, h.expected_samples FROM public.network_traffic_1h h
        WHERE h.server_id = of_server AND h.interface_name = of_series AND h.bucket >= since AND h.bucket < least(until, rows_since)
    ), b AS (
        SELECT h.bucket, sum(h.samples) AS samples
        FROM linkbeat.linked_rows('network_traffic_1h', ARRAY[of_server], other, since, least(until, rows_since)) h GROUP BY 1
    ), heartbeat AS (
        SELECT h.bucket, max(h.samples) AS samples FROM public.network_traffic_1h h
        WHERE h.server_id = of_server AND h.bucket = ANY (ARRAY(SELECT a.bucket FROM a JOIN b USING (bucket)))
        GROUP BY 1
    ), both_of_hours AS (
        SELECT bucket AS first, bucket + INTERVAL '1 hour' AS last, least(a.samples, b.samples) AS samples
        FROM a JOIN b USING (bucket) JOIN heartbeat h USING (bucket)
        WHERE a.samples + b.samples > greatest(h.samples, a.expected_samples + (a.expected_samples > 1)::integer)
    )
    SELECT min(f.first), max(f.last), sum(f.samples) INTO first, last, samples
    FROM (SELECT * FROM both_of_samples UNION ALL SELECT * FROM both_of_hours) AS f;
END $$;

-- Says that the samples of `of_series` in [from_time, to_time) are samples of `new_into`; null: from the first, or to the
-- last and all later ones. Returns the link's number; null: there is no such server.
--   LB404  the server has no series of a name: the detail
--   LB409  the series, or the other one, is part of a link at that time already
--   LB410  both have samples at the same time, and it is not said that they are added; the detail has that time
CREATE OR REPLACE FUNCTION linkbeat.add_link(
    of_server text, of_series text, new_into text, from_time timestamptz, to_time timestamptz, as_sum boolean
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    begins CONSTANT timestamptz := coalesce(from_time, '-infinity');
    ends   CONSTANT timestamptz := coalesce(to_time, 'infinity');
    name   text;
    other  record;
    shared record;
    number bigint;
BEGIN
    -- A server that is removed meanwhile is waited for, and then not there.
    PERFORM FROM servers WHERE server_id = of_server FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM linkbeat.take_turn('links', '');
    FOREACH name IN ARRAY ARRAY[of_series, new_into] LOOP
        -- The other one may be a series of a server that replaced this one.
        IF NOT EXISTS (SELECT FROM network_traffic_1d t
                       WHERE t.server_id IN (SELECT linkbeat.with_successors(of_server)) AND t.interface_name = name
                         AND (t.server_id = of_server OR name = new_into)) THEN
            RAISE EXCEPTION 'server % has no series %', of_server, name USING ERRCODE = 'LB404', DETAIL = name;
        END IF;
    END LOOP;
    -- What a chain or a circle of links would mean depends on the order in which they were made.
    SELECT * INTO other FROM linkbeat.series_links l
    WHERE l.server_id = of_server AND (l.series IN (of_series, new_into) OR l.into_series = of_series)
      AND l.since < ends AND begins < l.until
    ORDER BY l.link_id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'link % of % into % applies at that time', other.link_id, other.series, other.into_series USING ERRCODE = 'LB409',
            DETAIL = jsonb_build_object('id', other.link_id, 'series', other.series, 'into', other.into_series);
    END IF;
    IF NOT as_sum THEN
        shared := linkbeat.overlap_of(of_server, of_series, new_into, begins, ends);
        IF shared.samples > 0 THEN
            RAISE EXCEPTION '% and % both have samples from % to %', of_series, new_into, shared.first, shared.last USING ERRCODE = 'LB410',
                DETAIL = jsonb_build_object('since', shared.first, 'until', shared.last, 'samples', shared.samples);
        END IF;
    END IF;
    INSERT INTO linkbeat.series_links (server_id, series, into_series, since, until, is_sum)
    VALUES (of_server, of_series, new_into, begins, ends, as_sum) RETURNING link_id INTO number;
    RETURN number;
END $$;

-- False where there is no such link of the server. Reads are again as before it was made.
CREATE OR REPLACE FUNCTION linkbeat.delete_link(of_server text, number bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM linkbeat.take_turn('links', '');
    DELETE FROM linkbeat.series_links l WHERE l.link_id = number AND l.server_id = of_server;
    RETURN FOUND;
END $$;

-- All traffic of some series, as links say it is read.
CREATE OR REPLACE FUNCTION linkbeat.totals_of(of_server text, of_series text[]) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_agg(jsonb_build_object('interface', s.name, 'rx_bytes', coalesce(t.rx_bytes, 0), 'tx_bytes', coalesce(t.tx_bytes, 0),
                                        'samples', coalesce(t.samples, 0)) ORDER BY s.place)
    FROM unnest(of_series) WITH ORDINALITY AS s(name, place) CROSS JOIN LATERAL (
        SELECT sum(r.rx_bytes) AS rx_bytes, sum(r.tx_bytes) AS tx_bytes, sum(r.samples) AS samples
        FROM linkbeat.linked_rows('network_traffic_1d', ARRAY[of_server], s.name, '-infinity', 'infinity') r) t;
$$;

-- What add_link would do: the totals of both series before and after, and with as_sum also when both have samples. It makes
-- the link, reads what every answer would, and takes it back. Null: there is no such server. Errors as add_link's.
CREATE OR REPLACE FUNCTION linkbeat.preview_link(
    of_server text, of_series text, new_into text, from_time timestamptz, to_time timestamptz, as_sum boolean
) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    was     jsonb := linkbeat.totals_of(of_server, ARRAY[of_series, new_into]);
    shared  record := linkbeat.overlap_of(of_server, of_series, new_into, coalesce(from_time, '-infinity'), coalesce(to_time, 'infinity'));
    becomes jsonb;
    number  bigint;
BEGIN
    BEGIN
        number := linkbeat.add_link(of_server, of_series, new_into, from_time, to_time, as_sum);
        becomes := linkbeat.totals_of(of_server, ARRAY[of_series, new_into]);
        RAISE EXCEPTION 'taken back' USING ERRCODE = 'LB001';
    EXCEPTION
        WHEN SQLSTATE 'LB001' THEN NULL;
    END;
    RETURN CASE WHEN number IS NOT NULL THEN jsonb_build_object('before', was, 'after', becomes, 'overlap',
        CASE WHEN shared.samples > 0 THEN jsonb_build_object('since', shared.first, 'until', shared.last, 'samples', shared.samples) END) END;
END $$;

CREATE OR REPLACE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON linkbeat.series_links
FOR EACH ROW WHEN (pg_trigger_depth() = 0)
EXECUTE FUNCTION linkbeat.audit_row('link', 'link_id', 'server_id', '{link_id,server_id,created_at}');
