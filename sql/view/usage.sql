-- network_days, network_total, server_total, network_month, network_percentile: traffic for billing, used by analysts
-- and by the service. They are applied with the views, because they read the views of the aggregates. Replaceable:
-- reapplied on every upgrade.
--
-- Each is a single statement, which the planner inlines into the calling query, so that ranges use indexes and exclude
-- chunks. What servers with links (sql/view/linked_traffic.sql) need stands in functions that it does not inline, and that
-- nothing plans for any other server: the setting prevents that.

-- network_days of a server with links.
CREATE OR REPLACE FUNCTION linkbeat.linked_days(
    of_server text, since date, until date, time_zone text, of_interface text, are_hours boolean
) RETURNS TABLE (
    day date, interface_name text, is_lowest boolean,
    rx_bytes bigint, tx_bytes bigint, rx_packets bigint, tx_packets bigint, samples bigint
)
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = public, pg_temp
BEGIN ATOMIC
    SELECT (b.bucket AT TIME ZONE linked_days.time_zone)::date, b.interface_name, b.is_lowest,
           sum(b.rx_bytes)::bigint, sum(b.tx_bytes)::bigint, sum(b.rx_packets)::bigint, sum(b.tx_packets)::bigint,
           sum(b.samples)::bigint
    FROM linkbeat.linked_rows(
        CASE WHEN linked_days.are_hours THEN 'network_traffic_1h' ELSE 'network_traffic_15m' END,
        ARRAY[linked_days.of_server], linked_days.of_interface,
        day_start(linked_days.since, linked_days.time_zone), day_start(linked_days.until, linked_days.time_zone)) AS b
    GROUP BY 1, 2, 3;
END;

CREATE OR REPLACE FUNCTION public.network_days(
    of_server text, since date, until date, time_zone text DEFAULT 'UTC', of_interface text DEFAULT NULL
) RETURNS TABLE (
    day date, interface_name text, is_lowest boolean,
    rx_bytes bigint, tx_bytes bigint, rx_packets bigint, tx_packets bigint, samples bigint
)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    -- Hours make up a day if every midnight is on the hour; quarters of an hour do so in every time zone.
    WITH midnights AS (
        SELECT bool_and(extract(minute FROM day_start(midnight::date, network_days.time_zone) AT TIME ZONE 'UTC') = 0
                        AND extract(second FROM day_start(midnight::date, network_days.time_zone) AT TIME ZONE 'UTC') = 0) AS are_hours
        FROM generate_series(network_days.since::timestamp, network_days.until::timestamp, INTERVAL '1 day') AS midnight
    )
    -- By the local date of the bucket's start, which exists whether the clock is set forward or back, or skips a day.
    SELECT (b.bucket AT TIME ZONE network_days.time_zone)::date, b.interface_name, b.is_lowest,
           sum(b.rx_bytes)::bigint, sum(b.tx_bytes)::bigint, sum(b.rx_packets)::bigint, sum(b.tx_packets)::bigint,
           sum(b.samples)::bigint
    FROM (
        SELECT h.bucket, h.server_id, h.interface_name, h.is_lowest, h.rx_bytes, h.tx_bytes, h.rx_packets, h.tx_packets, h.samples
        FROM public.network_traffic_1h h
        WHERE (SELECT are_hours FROM midnights) AND h.server_id = network_days.of_server
          AND (network_days.of_interface IS NULL OR h.interface_name = network_days.of_interface)
          AND h.bucket >= day_start(network_days.since, network_days.time_zone)
          AND h.bucket < day_start(network_days.until, network_days.time_zone)
        UNION ALL
        SELECT q.bucket, q.server_id, q.interface_name, q.is_lowest, q.rx_bytes, q.tx_bytes, q.rx_packets, q.tx_packets, q.samples
        FROM public.network_traffic_15m q
        WHERE NOT (SELECT are_hours FROM midnights) AND q.server_id = network_days.of_server
          AND (network_days.of_interface IS NULL OR q.interface_name = network_days.of_interface)
          AND q.bucket >= day_start(network_days.since, network_days.time_zone)
          AND q.bucket < day_start(network_days.until, network_days.time_zone)
    ) AS b
    WHERE NOT linkbeat.is_linked(network_days.of_server)
    GROUP BY 1, 2, 3
    UNION ALL
    SELECT l.* FROM midnights m CROSS JOIN LATERAL linkbeat.linked_days(
        network_days.of_server, network_days.since, network_days.until, network_days.time_zone, network_days.of_interface, m.are_hours) AS l
    WHERE linkbeat.is_linked(network_days.of_server);
END;

COMMENT ON FUNCTION public.network_days IS
    'Traffic of a server on each calendar day in `time_zone`, from the day `since` up to the day before `until`, by interface, including the newest data; no row for a day without data. The server''s own traffic is the sum over `is_lowest`.';

-- Two functions of one body: only as an equality inside does a server's id reach the indexes of all levels.
-- The widest buckets that fit are read: days within, hours and quarters at both ends.
DO $functions$
DECLARE
    -- Each level with the range of it: what of the range wider ones leave over. As it is stored, and as links say it is read.
    levels CONSTANT text[] := (
        SELECT ARRAY[
            string_agg(format('SELECT server_id, interface_name, is_lowest, rx_bytes, tx_bytes, samples FROM public.%s
                               WHERE bucket >= %s AND bucket < %s', relation, first, next), ' UNION ALL '),
            string_agg(format('SELECT server_id, interface_name, is_lowest, rx_bytes, tx_bytes, samples
                               FROM linkbeat.linked_rows(%L, of_servers, of_interface, %s, %s)', relation, first, next), ' UNION ALL ')]
        FROM (SELECT format('public.time_bucket(INTERVAL ''1 %s'', since + INTERVAL ''1 %1$s'' - INTERVAL ''1 microsecond'')', 'day') AS first_day,
                     'public.time_bucket(INTERVAL ''1 day'', until)' AS end_of_days,
                     format('public.time_bucket(INTERVAL ''1 %s'', since + INTERVAL ''1 %1$s'' - INTERVAL ''1 microsecond'')', 'hour') AS first_hour,
                     'public.time_bucket(INTERVAL ''1 hour'', until)' AS end_of_hours) AS b
        CROSS JOIN LATERAL (VALUES
            ('network_traffic_1d', first_day, end_of_days),
            ('network_traffic_1h', first_hour, format('least(%s, %s)', first_day, end_of_hours)),
            ('network_traffic_1h', format('greatest(%s, %s)', first_day, end_of_days), end_of_hours),
            ('network_traffic_15m', 'since', format('least(%s, until)', first_hour)),
            ('network_traffic_15m', format('greatest(%s, %s)', first_hour, end_of_hours), 'until')
        ) AS l(relation, first, next));
    body CONSTANT text := $sql$
        SELECT b.server_id, b.interface_name, b.is_lowest, sum(b.rx_bytes)::bigint, sum(b.tx_bytes)::bigint, sum(b.samples)::bigint
        FROM (%s) AS b %s $sql$;
    result CONSTANT text := 'RETURNS TABLE (server_id text, interface_name text, is_lowest boolean, rx_bytes bigint, tx_bytes bigint,
        samples bigint) LANGUAGE sql STABLE PARALLEL SAFE %s BEGIN ATOMIC %s; END';
BEGIN
    EXECUTE 'CREATE OR REPLACE FUNCTION linkbeat.linked_total(of_servers text[], of_interface text, since timestamptz, until timestamptz) '
        || format(result, 'SET search_path = public, pg_temp', format(body, levels[2], 'GROUP BY 1, 2, 3'));
    -- After grouping: there are far fewer series than buckets.
    EXECUTE 'CREATE OR REPLACE FUNCTION public.network_total(since timestamptz, until timestamptz) '
        || format(result, '', format(body, levels[1], 'GROUP BY 1, 2, 3
               HAVING b.server_id NOT IN (SELECT linkbeat.linked_servers())') || '
           UNION ALL
           SELECT * FROM linkbeat.linked_total(ARRAY(SELECT linkbeat.linked_servers()), NULL, since, until)');
    EXECUTE 'CREATE OR REPLACE FUNCTION public.server_total(of_server text, since timestamptz, until timestamptz,
        of_interface text DEFAULT NULL) '
        || format(result, '', format(body, levels[1], 'WHERE b.server_id = of_server AND (of_interface IS NULL OR b.interface_name = of_interface)
               AND NOT linkbeat.is_linked(of_server) GROUP BY 1, 2, 3') || '
           UNION ALL
           SELECT * FROM linkbeat.linked_total(ARRAY[of_server], of_interface, since, until) WHERE linkbeat.is_linked(of_server)');
END $functions$;

COMMENT ON FUNCTION public.network_total IS
    'Traffic of each interface of the fleet from `since` up to `until`, both on a quarter of an hour, including the newest data. A server''s own traffic is the sum over `is_lowest`.';
COMMENT ON FUNCTION public.server_total IS 'The same as network_total() for one server or one of its interfaces, without reading the others.';

-- Assumes that the average rate so far continues. Null during the first day of the period.
CREATE OR REPLACE FUNCTION public.network_forecast(bytes numeric, since timestamptz, until timestamptz, as_of timestamptz)
RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN as_of >= until THEN bytes
    WHEN extract(epoch FROM as_of - since) >= 86400
    THEN round(bytes * extract(epoch FROM until - since) / extract(epoch FROM as_of - since))
END;

COMMENT ON FUNCTION public.network_forecast IS
    'Extrapolates `bytes`, moved from `since` up to `as_of`, to `until` at the same average rate; null while less than a day has passed.';

CREATE OR REPLACE FUNCTION public.network_month(
    of_server text, at timestamptz DEFAULT now(), first_day integer DEFAULT 1, time_zone text DEFAULT 'UTC',
    of_interface text DEFAULT NULL, as_of timestamptz DEFAULT now()
) RETURNS TABLE (
    since timestamptz, until timestamptz, rx_bytes numeric, tx_bytes numeric, samples bigint,
    expected_rx_bytes numeric, expected_tx_bytes numeric
)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT lower(p.period), upper(p.period), t.rx_bytes, t.tx_bytes, t.samples,
           -- For a server that was added later, from its first heartbeat on.
           network_forecast(t.rx_bytes, greatest(lower(p.period), b.began_at), upper(p.period), network_month.as_of),
           network_forecast(t.tx_bytes, greatest(lower(p.period), b.began_at), upper(p.period), network_month.as_of)
    -- OFFSET 0 prevents inlining: otherwise it would be computed in every bound below, for every row.
    FROM (SELECT billing_period(network_month.at, network_month.first_day, network_month.time_zone) AS period OFFSET 0) p
    LEFT JOIN public.server_overview s ON s.server_id = network_month.of_server
    CROSS JOIN LATERAL (SELECT linkbeat.account_since(s.server_id, s.first_seen) AS began_at OFFSET 0) b
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(t.rx_bytes), 0) AS rx_bytes, coalesce(sum(t.tx_bytes), 0) AS tx_bytes,
               coalesce(sum(t.samples), 0)::bigint AS samples
        FROM server_total(network_month.of_server, lower(p.period), upper(p.period), network_month.of_interface) t
        WHERE t.is_lowest OR network_month.of_interface IS NOT NULL
    ) t;
END;

COMMENT ON FUNCTION public.network_month IS
    'Traffic of a server, or of one of its interfaces, in the billing month that contains `at` (billing_period), each byte once; and the forecast for the end of the month at the average rate up to `as_of`, null while there is less than one day of data.';

-- Rates of the 5-minute samples of a server with links.
CREATE OR REPLACE FUNCTION linkbeat.linked_percentile(
    of_server text, since timestamptz, until timestamptz, of_interface text
) RETURNS TABLE (rx_bps double precision, tx_bps double precision, sum_bps double precision)
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = public, pg_temp
BEGIN ATOMIC
    SELECT (sum(m.rx_bytes) * 8 / 300)::double precision, (sum(m.tx_bytes) * 8 / 300)::double precision,
           ((sum(m.rx_bytes) + sum(m.tx_bytes)) * 8 / 300)::double precision
    FROM linkbeat.linked_rows('network_traffic_1m', ARRAY[linked_percentile.of_server], linked_percentile.of_interface,
                              linked_percentile.since, linked_percentile.until) AS m
    WHERE m.is_lowest OR linked_percentile.of_interface IS NOT NULL
    GROUP BY time_bucket('5 minutes', m.bucket);
END;

-- Slots are all periods of five minutes in the range; samples are the slots with data. The highest 5 % (rounded down)
-- are dropped, and the next one is the percentile: of the samples, or of the slots, where a missing one counts as 0.
-- The percentile of both directions together is not the sum of theirs, because their peaks may occur at different
-- times.
CREATE OR REPLACE FUNCTION public.network_percentile(
    of_server text, since timestamptz, until timestamptz, of_interface text DEFAULT NULL, percentile numeric DEFAULT 95
) RETURNS TABLE (
    samples bigint, slots bigint, rx_bps double precision, tx_bps double precision,
    rx_bps_of_slots double precision, tx_bps_of_slots double precision,
    sum_bps double precision, sum_bps_of_slots double precision
)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT r.samples, n.slots, r.rx_bps[p.of_samples], r.tx_bps[p.of_samples],
           CASE WHEN r.samples > 0 THEN coalesce(r.rx_bps[p.of_slots], 0) END,
           CASE WHEN r.samples > 0 THEN coalesce(r.tx_bps[p.of_slots], 0) END,
           r.sum_bps[p.of_samples],
           CASE WHEN r.samples > 0 THEN coalesce(r.sum_bps[p.of_slots], 0) END
    FROM (
        SELECT count(*) AS samples, array_agg(s.rx_bps ORDER BY s.rx_bps DESC) AS rx_bps,
               array_agg(s.tx_bps ORDER BY s.tx_bps DESC) AS tx_bps, array_agg(s.sum_bps ORDER BY s.sum_bps DESC) AS sum_bps
        FROM (
            SELECT (sum(m.rx_bytes) * 8 / 300)::double precision AS rx_bps, (sum(m.tx_bytes) * 8 / 300)::double precision AS tx_bps,
                   ((sum(m.rx_bytes) + sum(m.tx_bytes)) * 8 / 300)::double precision AS sum_bps
            FROM public.network_traffic_1m m
            WHERE m.server_id = network_percentile.of_server
              AND (m.interface_name = network_percentile.of_interface
                   OR network_percentile.of_interface IS NULL AND m.is_lowest)
              AND m.bucket >= network_percentile.since AND m.bucket < network_percentile.until
              AND NOT linkbeat.is_linked(network_percentile.of_server)
            GROUP BY time_bucket('5 minutes', m.bucket)
            UNION ALL
            SELECT l.rx_bps, l.tx_bps, l.sum_bps
            FROM linkbeat.linked_percentile(network_percentile.of_server, network_percentile.since, network_percentile.until,
                                            network_percentile.of_interface) AS l
            WHERE linkbeat.is_linked(network_percentile.of_server)
        ) s
    ) r
    CROSS JOIN (
        SELECT greatest(0, floor(extract(epoch FROM network_percentile.until - network_percentile.since) / 300))::bigint AS slots
    ) n
    CROSS JOIN LATERAL (
        SELECT r.samples - ceil(r.samples * network_percentile.percentile / 100)::bigint + 1 AS of_samples,
               n.slots - ceil(n.slots * network_percentile.percentile / 100)::bigint + 1 AS of_slots
    ) p;
END;

COMMENT ON FUNCTION public.network_percentile IS
    'The 95th percentile, or another one, of the average rates of all 5-minute samples from `since` up to `until`, in bits per second, as transit is billed: the highest 5 % (rounded down) are dropped, and the next one is the percentile. `rx_bps`: of the existing samples; `rx_bps_of_slots`: missing samples count as 0; `sum_bps`: of both directions together. Reads network_traffic_1m, which must reach back to `since`.';
