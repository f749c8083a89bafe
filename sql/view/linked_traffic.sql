-- linked_traffic, linked_samples: the history as its links (linkbeat.series_links) say it is read, for analysts and for
-- the service. interface_links: the links themselves. server_successions: the servers that replaced others (linkbeat.successions).
-- Replaceable: reapplied on every upgrade.
--
-- They stand beside the aggregates and above them, never below: coarser aggregates are made from finer ones, and a bucket
-- that had been made from a mapped series would stay when the link is deleted. Whoever reads a server without links reads
-- network_traffic_* and plans nothing of this.

CREATE OR REPLACE VIEW public.interface_links AS
SELECT l.link_id, l.server_id, l.series AS interface_name, l.into_series AS into_interface_name,
       nullif(l.since, '-infinity') AS since, nullif(l.until, 'infinity') AS until, l.is_sum, l.created_at
FROM linkbeat.series_links l;

COMMENT ON VIEW public.interface_links IS
    'Interfaces whose samples of the past are another interface''s: an administrator said so. linked_traffic() and linked_samples() follow them; network_traffic_* and network_samples have the rows as they are stored.';
COMMENT ON COLUMN public.interface_links.link_id IS 'Number of the link.';
COMMENT ON COLUMN public.interface_links.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.interface_links.interface_name IS 'The series that is read as another one.';
COMMENT ON COLUMN public.interface_links.into_interface_name IS 'The series that it is read as.';
COMMENT ON COLUMN public.interface_links.since IS 'Time of the first sample that is; null: from the first on.';
COMMENT ON COLUMN public.interface_links.until IS 'Time of the first sample that no longer is; null: all later ones are too.';
COMMENT ON COLUMN public.interface_links.is_sum IS 'Whether both may have samples at the same time, whose traffic is added.';
COMMENT ON COLUMN public.interface_links.created_at IS 'When it was made.';

CREATE OR REPLACE VIEW public.server_successions AS
SELECT s.server_id, s.predecessor_id, s.since, s.created_at FROM linkbeat.successions s;

COMMENT ON VIEW public.server_successions IS
    'Servers that replaced other servers: an administrator said so. Whatever follows links continues the predecessor''s traffic as the server''s; network_traffic_* and network_samples have the rows as they are stored.';
COMMENT ON COLUMN public.server_successions.server_id IS 'The server that replaced another one.';
COMMENT ON COLUMN public.server_successions.predecessor_id IS 'The server that it replaced.';
COMMENT ON COLUMN public.server_successions.since IS 'From when on it did: samples before it are the predecessor''s, from it on the server''s own.';
COMMENT ON COLUMN public.server_successions.created_at IS 'When it was first said.';

CREATE OR REPLACE VIEW public.server_aliases AS
SELECT a.alias, a.server_id, a.created_at FROM linkbeat.server_aliases a;

COMMENT ON VIEW public.server_aliases IS 'Other ids under which servers report and are asked for over REST.';
COMMENT ON COLUMN public.server_aliases.alias IS 'The other id. No row of any other relation has it.';
COMMENT ON COLUMN public.server_aliases.server_id IS 'The name under which the server is stored.';
COMMENT ON COLUMN public.server_aliases.created_at IS 'When it was made.';

-- When the traffic that is read as a server's began: with its first heartbeat, or with that of a server that it replaced.
CREATE OR REPLACE FUNCTION linkbeat.account_since(of_server text, first_seen timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = public, pg_temp
BEGIN ATOMIC
    WITH RECURSIVE chain AS (
        SELECT s.predecessor_id FROM linkbeat.successions s WHERE s.server_id = of_server
        UNION ALL
        SELECT s.predecessor_id FROM chain c JOIN linkbeat.successions s ON s.server_id = c.predecessor_id
    )
    SELECT least(account_since.first_seen, (SELECT min(p.first_seen) FROM chain c JOIN public.servers p ON p.server_id = c.predecessor_id));
END;

-- Servers of which any read depends on a link or a succession.
CREATE OR REPLACE FUNCTION linkbeat.linked_servers() RETURNS SETOF text
LANGUAGE sql STABLE PARALLEL SAFE ROWS 100 SECURITY DEFINER SET search_path = public, pg_temp
BEGIN ATOMIC
    SELECT server_id FROM linkbeat.series_map
    UNION
    SELECT into_server_id FROM linkbeat.series_map WHERE into_server_id IS NOT NULL;
END;

CREATE OR REPLACE FUNCTION linkbeat.is_linked(of_server text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = public, pg_temp
RETURN EXISTS (SELECT FROM linkbeat.series_map m WHERE m.server_id = of_server)
    OR EXISTS (SELECT FROM linkbeat.series_map m WHERE m.into_server_id = of_server);

-- The servers and series that samples of these servers, or of one of their interfaces, are stored under. `series` null: all.
CREATE OR REPLACE FUNCTION linkbeat.linked_sources(
    of_servers text[], of_interface text, OUT servers text[], OUT series text[]
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT ARRAY(SELECT unnest(of_servers) UNION SELECT m.server_id FROM linkbeat.series_map m WHERE m.into_server_id = ANY (of_servers)),
           CASE WHEN of_interface IS NOT NULL THEN ARRAY(
               SELECT of_interface
               UNION
               SELECT m.series FROM linkbeat.series_map m
               WHERE m.into_server_id = ANY (of_servers) AND m.into_series = of_interface AND m.series IS NOT NULL) END;
$$;

-- linked_rows: buckets of an aggregate as its links say it is read: of these servers, or of one of their interfaces, that
-- start in [first, last). A series has two rows for a bucket in which only one of its parts was lowest.
--
-- A bucket in which a segment ends is read from the finer level, and there again the one in which it ends, down to the
-- samples themselves: so it is divided exactly for as long as the finer level is retained. After that it counts whole
-- where it starts.
CREATE OR REPLACE FUNCTION linkbeat.linked_rows(
    of_relation text, of_servers text[], of_interface text, first timestamptz, last timestamptz
) RETURNS SETOF public.network_traffic_1m
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    sources  record;
    columns  record;
    whole    interval;  -- the width of the buckets that are asked for
    whole_ms bigint;
    level    record;
    above    interval;  -- the width of the level before; null: none was read yet
    is_last  boolean;   -- no segment ends within a bucket of this level
    divides  text;      -- whether the segment x begins within a bucket of this level, and the finer one can tell where
    start    text;
    read     text;
    branches text[] := '{}';
BEGIN
    IF first >= last OR of_servers = '{}' THEN
        RETURN;
    END IF;
    sources := linkbeat.linked_sources(of_servers, of_interface);
    SELECT a.width, a.width_ms INTO STRICT whole, whole_ms FROM linkbeat.aggregates a WHERE a.relation = of_relation;
    -- `merged` in the order of the result. Of two parts with samples at the same time nobody knows the peak, and what they
    -- cover is no more than the bucket; a rate would otherwise be half of what both carried. Parts of two servers have none.
    SELECT string_agg(c.name, ', ' ORDER BY c.ordinal) AS names,
           string_agg(c.of_row, ', ' ORDER BY c.ordinal) AS of_row,
           string_agg(CASE c.name WHEN 'is_lowest' THEN format($e$
                   (SELECT bool_or(w.is_lowest) FROM public.%I w WHERE w.server_id = r.server_id AND w.interface_name = r.interface_name
                                                                   AND w.bucket = time_bucket(%L::interval, r.bucket)) AS is_lowest$e$, of_relation, whole)
               ELSE c.name END, ', ' ORDER BY c.ordinal) AS divided,
           string_agg(CASE
               WHEN c.name IS NULL THEN 'NULL::bigint'
               WHEN c.name = 'is_lowest' THEN 'is_lowest'
               WHEN c.name = 'up_ms' THEN format('CASE WHEN count(DISTINCT part) > count(DISTINCT stored_under) THEN least(sum(up_ms), greatest(max(up_ms), %s)) ELSE sum(up_ms) END::bigint', whole_ms)
               WHEN c.name IN ('rx_bps_max', 'tx_bps_max') THEN
                   format('CASE WHEN count(DISTINCT part) > count(DISTINCT stored_under) AND sum(up_ms) >= %s + max(interval_ms) THEN NULL ELSE max(%I) END::real', whole_ms, c.name)
               ELSE c.from_buckets END, ', ' ORDER BY t.attnum) AS merged
    INTO columns
    FROM pg_attribute t LEFT JOIN linkbeat.column_pieces c ON c.family = 'network_traffic' AND c.name = t.attname
    WHERE t.attrelid = 'public.network_traffic_1m'::regclass AND t.attnum > 3 AND NOT t.attisdropped;
    FOR level IN
        SELECT l.*, lead(l.setting) OVER (ORDER BY l.width DESC) AS finer
        FROM (SELECT format('public.%I', a.relation) AS relation, a.width, format('retain_%s_days', a.level) AS setting
              FROM linkbeat.aggregates a WHERE a.family = 'network_traffic'
              UNION ALL
              SELECT format('(SELECT time AS bucket, server_id, interface_name, %s FROM public.network_interface_metrics
                              WHERE NOT is_folded)', columns.of_row), INTERVAL '0', 'retain_raw_days') AS l
        WHERE l.width <= whole
        ORDER BY l.width DESC
    LOOP
        divides := format('isfinite(x.since) AND x.since <> time_bucket(%1$L::interval, x.since)
                           AND x.since >= %2$L', level.width, now() - linkbeat.configured(coalesce(level.finer, level.setting)));
        is_last := level.finer IS NULL;
        IF NOT is_last THEN
            EXECUTE format('SELECT NOT EXISTS (
                                SELECT FROM linkbeat.series_map x WHERE x.server_id = ANY ($1) AND %s AND x.since > $2 AND x.since < $3 + $4)', divides)
            INTO is_last USING sources.servers, first, last, whole;
        END IF;
        IF above IS NULL THEN
            start := 'r.bucket';
            read := format('%s r', level.relation);
        ELSE
            start := format('time_bucket(%L::interval, r.bucket)', whole);
            read := format('
                (SELECT DISTINCT x.server_id, x.series, x.except_series, time_bucket(%1$L::interval, x.since) AS start
                 FROM linkbeat.series_map x
                 WHERE x.server_id = ANY (%2$L::text[]) AND isfinite(x.since) AND x.since <> time_bucket(%1$L::interval, x.since)
                   AND x.since >= %3$L
                   AND time_bucket(%4$L::interval, x.since) >= %5$L AND time_bucket(%4$L::interval, x.since) < %6$L) AS e
                CROSS JOIN LATERAL (
                    SELECT r.* FROM %7$s r
                    WHERE r.server_id = e.server_id AND r.bucket >= e.start AND r.bucket < e.start + %1$L::interval
                      AND (e.series = r.interface_name OR e.series IS NULL AND r.interface_name <> ALL (e.except_series))
                    OFFSET 0) AS r',
                above, sources.servers, now() - linkbeat.configured(level.setting), whole, first, last, level.relation);
        END IF;
        branches := branches || concat(
            format('SELECT %s AS bucket, CASE WHEN m.server_id IS NULL THEN r.server_id ELSE m.into_server_id END AS server_id,
                           coalesce(m.into_series, r.interface_name) AS interface_name, r.server_id AS stored_under,
                           ROW(r.server_id, r.interface_name) AS part, %s FROM %s
                    LEFT JOIN linkbeat.series_map m ON m.server_id = r.server_id
                         AND (m.series = r.interface_name OR m.series IS NULL AND r.interface_name <> ALL (m.except_series))
                         AND r.bucket >= m.since AND r.bucket < m.until
                    WHERE CASE WHEN m.server_id IS NULL THEN r.server_id ELSE m.into_server_id END = ANY (%L::text[])',
                   start, CASE WHEN above IS NULL THEN columns.names ELSE columns.divided END, read, of_servers),
            CASE WHEN above IS NULL THEN
                format(' AND r.server_id = ANY (%L::text[]) AND r.bucket >= %L AND r.bucket < %L', sources.servers, first, last) END,
            CASE WHEN of_interface IS NOT NULL THEN
                format(' AND r.interface_name = ANY (%L::text[]) AND coalesce(m.into_series, r.interface_name) = %L', sources.series, of_interface) END,
            CASE WHEN NOT is_last THEN
                format(' AND NOT EXISTS (SELECT FROM linkbeat.series_map x
                             WHERE x.server_id = r.server_id
                               AND (x.series = r.interface_name OR x.series IS NULL AND r.interface_name <> ALL (x.except_series))
                               AND x.since > r.bucket AND x.since < r.bucket + %L::interval AND %s)', level.width, divides) END);
        EXIT WHEN is_last;
        above := level.width;
    END LOOP;
    RETURN QUERY EXECUTE format('SELECT bucket, server_id, interface_name, %s FROM (%s) AS parts GROUP BY bucket, server_id, interface_name, is_lowest',
                                columns.merged, array_to_string(branches, ' UNION ALL '));
END $$;

-- The same for the samples.
CREATE OR REPLACE FUNCTION public.linked_samples(
    of_server text, since timestamptz, until timestamptz, of_interface text DEFAULT NULL
) RETURNS SETOF public.network_samples
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    sources record := linkbeat.linked_sources(ARRAY[of_server], of_interface);
    columns text := (
        SELECT string_agg(CASE t.attname WHEN 'server_id' THEN '$1' WHEN 'interface_name' THEN 'coalesce(m.into_series, r.interface_name)'
                                         ELSE format('r.%I', t.attname) END, ', ' ORDER BY t.attnum)
        FROM pg_attribute t WHERE t.attrelid = 'public.network_samples'::regclass AND t.attnum > 0 AND NOT t.attisdropped);
BEGIN
    RETURN QUERY EXECUTE concat(
        format('SELECT %s FROM public.network_samples r LEFT JOIN linkbeat.series_map m ON m.server_id = r.server_id
                     AND (m.series = r.interface_name OR m.series IS NULL AND r.interface_name <> ALL (m.except_series))
                     AND r.time >= m.since AND r.time < m.until
                WHERE CASE WHEN m.server_id IS NULL THEN r.server_id ELSE m.into_server_id END = $1
                  AND r.server_id = ANY (%L::text[]) AND r.time >= %L AND r.time < %L', columns, sources.servers, since, until),
        CASE WHEN of_interface IS NOT NULL THEN
            format(' AND r.interface_name = ANY (%L::text[]) AND coalesce(m.into_series, r.interface_name) = $2', sources.series) END)
    USING of_server, of_interface;
END $$;

COMMENT ON FUNCTION public.linked_samples IS
    'network_samples of a server, or of one of its interfaces, from `since` up to `until`, as its links (interface_links) say they are read.';

-- One row for each bucket of each series.
CREATE OR REPLACE FUNCTION public.linked_traffic(
    level text, of_server text, since timestamptz, until timestamptz, of_interface text DEFAULT NULL
) RETURNS SETOF public.network_traffic_1m
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    aggregate record;
    columns   text;
BEGIN
    SELECT a.relation, a.width_ms INTO aggregate FROM linkbeat.aggregates a
    WHERE a.family = 'network_traffic' AND a.level = linked_traffic.level;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'level: expected 1m, 15m, 1h or 1d, got %', coalesce(quote_literal(level), 'null') USING ERRCODE = '22023';
    END IF;
    SELECT string_agg(coalesce(c.from_buckets, format('greatest(1, (%s + min(interval_ms)) / (2 * greatest(min(interval_ms), 1)::bigint))', 2 * aggregate.width_ms)),
                      ', ' ORDER BY t.attnum) INTO columns
    FROM pg_attribute t LEFT JOIN linkbeat.column_pieces c ON c.family = 'network_traffic' AND c.name = t.attname
    WHERE t.attrelid = 'public.network_traffic_1m'::regclass AND t.attnum > 3 AND NOT t.attisdropped;
    RETURN QUERY EXECUTE format('SELECT bucket, server_id, interface_name, %s
                                 FROM linkbeat.linked_rows($1, ARRAY[$2], $3, $4, $5) GROUP BY 1, 2, 3', columns)
    USING aggregate.relation, of_server, of_interface, since, until;
END $$;

COMMENT ON FUNCTION public.linked_traffic IS
    'Buckets of a server, or of one of its interfaces, that start from `since` up to `until`, as its links (interface_links) say they are read; `level`: 1m, 15m, 1h or 1d. The columns are those of network_traffic_*, and without links the rows are too. A bucket in which a link begins or ends is divided exactly for as long as the finer level is retained; after that it counts whole where it starts.';
