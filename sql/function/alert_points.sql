-- alert_points: what a rule says of subjects at each of their samples: the one definition of the conditions of the kinds rate,
-- link, errors and filesystem, for turns and backtests. Replaceable: reapplied on every upgrade.
--
--   of_servers, of_subjects, since   parallel arrays; points are those after `since`
--   until     last moment, included
--   at        of a turn: rows wait for two of their intervals before they are judged, where the rule has a lag of a minute;
--             null: a backtest
--   on_minutes  buckets of a minute stand in for rows

-- The rows of one subject (s) in a range of times, under the same names from both sources.
--   range  a condition with $ for the column of time
CREATE OR REPLACE FUNCTION linkbeat.alert_rows(kind text, on_minutes boolean, range text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT format(CASE
        WHEN kind = 'filesystem' AND on_minutes THEN
            'SELECT bucket + INTERVAL ''1 minute'' AS time, percent_max AS percent, available_bytes_min AS available,
                    false AS is_unreachable, 60000 AS interval_ms
             FROM public.filesystem_metrics_1m WHERE server_id = s.server_id AND mount_point = s.subject AND %1$s'
        WHEN kind = 'filesystem' THEN
            'SELECT time, percent, linkbeat.unsigned(available_bytes) AS available, state IS NOT DISTINCT FROM ''unreachable'' AS is_unreachable,
                    -- The row has no interval: what its server says now.
                    coalesce((SELECT interval_seconds * 1000 FROM public.servers x WHERE x.server_id = s.server_id), 30000) AS interval_ms
             FROM public.filesystem_metrics WHERE server_id = s.server_id AND mount_point = s.subject AND %1$s'
        WHEN on_minutes THEN
            'SELECT bucket + INTERVAL ''1 minute'' AS time, rx_bytes, tx_bytes, samples * interval_ms AS elapsed_ms, true AS counts,
                    NULL::integer AS speed_mbps, greatest(interval_ms, 60000) AS interval_ms, up_samples > 0 AS is_up,
                    rx_errors + tx_errors + rx_dropped + tx_dropped AS faults, rx_packets + tx_packets AS packets,
                    rx_bps_max, tx_bps_max
             FROM public.network_traffic_1m WHERE server_id = s.server_id AND interface_name = s.subject AND %1$s'
        ELSE
            'SELECT time, rx_bytes_delta AS rx_bytes, tx_bytes_delta AS tx_bytes, elapsed_ms,
                    elapsed_ms BETWEEN 1 AND 2147483646 AND delta_kind NOT IN (''rejected'', ''glitch'') AS counts,
                    speed_mbps, interval_ms, is_up,
                    coalesce(rx_errors_delta, 0) + coalesce(tx_errors_delta, 0) + coalesce(rx_dropped_delta, 0)
                    + coalesce(tx_dropped_delta, 0) AS faults, rx_packets_delta + tx_packets_delta AS packets,
                    NULL::real AS rx_bps_max, NULL::real AS tx_bps_max
             FROM public.network_interface_metrics
             WHERE server_id = s.server_id AND interface_name = s.subject AND NOT is_folded AND %1$s' END,
        -- With OFFSET 0 the index is searched for each subject.
        replace(range, '$ ', CASE WHEN on_minutes THEN 'bucket ' ELSE 'time ' END) || ' OFFSET 0')
$$;

-- What rules of the kinds rate and errors say of the sums of a window: one definition for turns, which take all rules at once,
-- and for backtests.
--   sums  a query for: number of the rule in $1, place and since of the subject, and of each point time, step, interval_ms and
--         what was transferred within the window before it, in double precision, which holds the octets of an hour at 20 Tbit/s to
--         the last; it may name `rules`
--   $2    of a turn: its moment
CREATE OR REPLACE FUNCTION linkbeat.points_of_sums(sums text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT format($sql$
        WITH rules AS MATERIALIZED (
            SELECT p.ordinality AS number, p.kind, p."window", p.lag, p.direction, p.bound, p.is_below, p.is_percent,
                   1000 * extract(epoch FROM p."window")::double precision AS window_ms,
                   linkbeat.alert_number(p.spec, 'clear_percent', 90) / 100 AS clear_share, p.count,
                   linkbeat.alert_number(p.spec, 'percent', 0.1)::numeric AS percent,
                   linkbeat.alert_number(p.spec, 'packets', 10000) AS packets
            FROM unnest($1) WITH ORDINALITY AS p
            WHERE p.kind IN ('rate', 'errors')
        ), sums AS MATERIALIZED (%s)
        SELECT v.place::integer, v.time, CASE WHEN v.is_known THEN CASE WHEN v.is_below THEN v.value < v.bound ELSE v.value > v.bound END END,
               v.is_known AND CASE WHEN v.is_below THEN v.value >= v.bound / v.clear_share ELSE v.value <= v.bound * v.clear_share END,
               v.value, NULL::timestamptz, v.step, NULL::text, v.is_below
        FROM (
            SELECT w.place, w.time, w.step, 10 * w.elapsed_ms >= 8 * p.window_ms AND r.value IS NOT NULL AS is_known, r.value,
                   p.bound, p.is_below, p.clear_share
            FROM sums w JOIN rules p USING (number)
            -- To bit/s, or to percent of the line rate, by one division of whole numbers: the mean, and of minutes no more than the
            -- highest rate in them.
            CROSS JOIN LATERAL (
                SELECT least(CASE WHEN p.is_percent THEN w.rx * 8 / nullif(w.capacity * 10, 0) ELSE w.rx * 8000 / nullif(w.elapsed_ms, 0) END, w.rx_max) AS rx,
                       least(CASE WHEN p.is_percent THEN w.tx * 8 / nullif(w.capacity * 10, 0) ELSE w.tx * 8000 / nullif(w.elapsed_ms, 0) END, w.tx_max) AS tx
                OFFSET 0
            ) u
            CROSS JOIN LATERAL (SELECT CASE p.direction WHEN 'rx' THEN u.rx WHEN 'tx' THEN u.tx WHEN 'sum' THEN u.rx + u.tx
                                       ELSE greatest(u.rx, u.tx) END AS value OFFSET 0) r
            WHERE p.kind = 'rate' AND w.time > w.since
              AND ($2 IS NULL OR NOT p.is_below OR w.time <= $2 - 2 * w.interval_ms * INTERVAL '1 millisecond')
        ) v
        UNION ALL
        SELECT w.place::integer, w.time, c.is_true, NOT c.is_true, w.faults, NULL::timestamptz, w.step,
               CASE WHEN c.is_true THEN format('%%s errors and drops in %%s packets', w.faults, w.packets) END, false
        FROM sums w JOIN rules p USING (number)
        CROSS JOIN LATERAL (SELECT w.faults >= p.count AND w.packets >= p.packets
                                   AND w.faults::numeric * 100 >= p.percent * w.packets::numeric AS is_true OFFSET 0) c
        WHERE p.kind = 'errors' AND w.time > w.since
        ORDER BY 1, 2 $sql$, sums)
$$;

-- The same points that linkbeat.alert_points has of each rule, of all rules of the kinds rate and errors in a turn: a series that is
-- beyond the bounds of ten rules is read once. Sums up to each row stand for those over a window: the difference of two of them.
--   numbers  of the rule in `plans`, parallel to the subjects
CREATE OR REPLACE FUNCTION linkbeat.traffic_points(
    plans linkbeat.alert_plans[], numbers integer[], of_servers text[], of_subjects text[], since timestamptz[], at timestamptz
) RETURNS SETOF linkbeat.alert_point LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    RETURN QUERY EXECUTE linkbeat.points_of_sums(format($sql$
        WITH asked AS MATERIALIZED (
            SELECT a.* FROM unnest($3, $4, $5, $6) WITH ORDINALITY AS a(number, server_id, subject, since, place)
        ), series AS MATERIALIZED (
            SELECT c.server_id, c.subject, array_agg(c.time ORDER BY c.time) AS times, array_agg(c.interval_ms ORDER BY c.time) AS intervals_ms,
                   array_agg(c.rx ORDER BY c.time) AS rx, array_agg(c.tx ORDER BY c.time) AS tx,
                   array_agg(c.elapsed_ms ORDER BY c.time) AS elapsed_ms, array_agg(c.capacity ORDER BY c.time) AS capacity,
                   array_agg(c.faults ORDER BY c.time) AS faults, array_agg(c.packets ORDER BY c.time) AS packets
            FROM (
                SELECT s.server_id, s.subject, m.time, m.interval_ms,
                       coalesce(sum(m.rx_bytes::double precision) FILTER (WHERE m.counts) OVER w, 0) AS rx,
                       coalesce(sum(m.tx_bytes::double precision) FILTER (WHERE m.counts) OVER w, 0) AS tx,
                       coalesce(sum(m.elapsed_ms::double precision) FILTER (WHERE m.counts) OVER w, 0) AS elapsed_ms,
                       coalesce(sum(m.elapsed_ms * m.speed_mbps::double precision) FILTER (WHERE m.counts) OVER w, 0) AS capacity,
                       sum(m.faults::double precision) OVER w AS faults, sum(m.packets::double precision) OVER w AS packets
                FROM (SELECT a.server_id, a.subject, min(a.since - p."window") AS since FROM asked a JOIN rules p USING (number) GROUP BY 1, 2) s
                CROSS JOIN LATERAL (%s) AS m
                WINDOW w AS (PARTITION BY s.server_id, s.subject ORDER BY m.time)
            ) c
            GROUP BY 1, 2
        )
        SELECT a.number, a.place, a.since, h.times[n] AS time, h.intervals_ms[n] AS interval_ms,
               3 * h.intervals_ms[n] * INTERVAL '1 millisecond' AS step,
               h.rx[n] - coalesce(h.rx[b.before], 0) AS rx, h.tx[n] - coalesce(h.tx[b.before], 0) AS tx,
               h.elapsed_ms[n] - coalesce(h.elapsed_ms[b.before], 0) AS elapsed_ms,
               h.capacity[n] - coalesce(h.capacity[b.before], 0) AS capacity,
               h.faults[n] - coalesce(h.faults[b.before], 0) AS faults, h.packets[n] - coalesce(h.packets[b.before], 0) AS packets,
               NULL::double precision AS rx_max, NULL::double precision AS tx_max
        FROM asked a JOIN rules p USING (number) JOIN series h USING (server_id, subject)
        CROSS JOIN LATERAL generate_series(width_bucket(a.since, h.times) + 1, width_bucket($2 - p.lag, h.times)) AS n
        -- How many rows are older than the window.
        CROSS JOIN LATERAL (SELECT width_bucket(h.times[n] - p."window", h.times) AS before OFFSET 0) b $sql$,
        linkbeat.alert_rows('rate', false, '$ > s.since AND $ > $7 AND $ <= $8')))
    USING plans, at, numbers, of_servers, of_subjects, since,
          -- The lowest bound is a constant to the planner, which leaves out the chunks before it.
          (SELECT min(s) - max(p."window") FROM unnest(since) AS s, unnest(plans) AS p WHERE p.kind IN ('rate', 'errors')),
          at - (SELECT min(p.lag) FROM unnest(plans) AS p WHERE p.kind IN ('rate', 'errors'));
END $$;

CREATE OR REPLACE FUNCTION linkbeat.alert_points(
    plan linkbeat.alert_plans, of_servers text[], of_subjects text[], since timestamptz[], until timestamptz,
    at timestamptz DEFAULT NULL, on_minutes boolean DEFAULT false
) RETURNS SETOF linkbeat.alert_point LANGUAGE plpgsql STABLE
-- Of the newest rows the planner knows nothing, and would read all of them for each subject, by their time: the index by
-- subject and time is always right.
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    rows   CONSTANT text := linkbeat.alert_rows(plan.kind, on_minutes, '$ > s.since - $5 AND $ > $6 AND $ <= $4');
    -- How far back of a point rows are read: a window; of what is told by a change, so far that the row before it is there.
    reach  CONSTANT interval := CASE plan.kind
        WHEN 'link' THEN plan.window + INTERVAL '15 minutes'
        WHEN 'filesystem' THEN greatest(linkbeat.alert_interval(plan.spec, 'unreachable_seconds', 600), INTERVAL '15 minutes') + INTERVAL '1 second' * (
            SELECT 3 * coalesce(max(s.interval_seconds), 30) FROM public.servers s WHERE s.server_id = ANY (of_servers))
        ELSE plan.window END;
    spec   CONSTANT jsonb := plan.spec;
    -- The lowest bound is a constant to the planner, which leaves out the chunks before it.
    oldest CONSTANT timestamptz := (SELECT min(s) FROM unnest(since) AS s);
BEGIN
    IF plan.kind IN ('rate', 'errors') THEN
        RETURN QUERY EXECUTE linkbeat.points_of_sums(format($sql$
            SELECT 1 AS number, s.place, s.since, m.time, m.interval_ms, 3 * m.interval_ms * INTERVAL '1 millisecond' AS step,
                   (sum(m.rx_bytes) FILTER (WHERE m.counts) OVER w)::double precision AS rx,
                   (sum(m.tx_bytes) FILTER (WHERE m.counts) OVER w)::double precision AS tx,
                   (sum(m.elapsed_ms::bigint) FILTER (WHERE m.counts) OVER w)::double precision AS elapsed_ms,
                   (sum(m.elapsed_ms * m.speed_mbps::bigint) FILTER (WHERE m.counts) OVER w)::double precision AS capacity,
                   (sum(m.faults) OVER w)::double precision AS faults, (sum(m.packets) OVER w)::double precision AS packets,
                   (max(m.rx_bps_max) OVER w)::double precision AS rx_max, (max(m.tx_bps_max) OVER w)::double precision AS tx_max
            FROM unnest($3, $4, $5) WITH ORDINALITY AS s(server_id, subject, since, place)
            CROSS JOIN LATERAL (%s) AS m
            WINDOW w AS (PARTITION BY s.place ORDER BY m.time RANGE BETWEEN $9 PRECEDING AND CURRENT ROW) $sql$,
            linkbeat.alert_rows(plan.kind, on_minutes, '$ > s.since - $7 AND $ > $8 AND $ <= $6')))
        USING ARRAY[plan], at, of_servers, of_subjects, since, until, reach, oldest - reach, plan.window - INTERVAL '1 microsecond';
    ELSIF plan.kind = 'link' THEN
        -- Down is what was up before: a port that nothing was ever plugged into is no alert. Where the rows begin with a
        -- down link, the last row that was up is searched for.
        RETURN QUERY EXECUTE format($sql$
            SELECT w.place::integer, w.time, c.is_true, NOT c.is_true,
                   CASE WHEN c.is_down THEN extract(epoch FROM w.time - d.down_since) ELSE w.changes END::double precision,
                   CASE WHEN c.is_down THEN d.down_since END, w.step,
                   CASE WHEN c.is_down THEN 'down' WHEN c.is_true THEN format('flapping: %%s changes', w.changes) END, false
            FROM (
                SELECT r.*, sum(r.seen_changes + r.unseen_changes) OVER w AS changes,
                       min(r.time) FILTER (WHERE NOT r.is_up) OVER (PARTITION BY r.place, r.run ORDER BY r.time) AS run_down_since
                FROM (
                    SELECT s.place, s.since, s.server_id, s.subject, m.time, m.is_up, m.interval_ms,
                           3 * m.interval_ms * INTERVAL '1 millisecond' AS step,
                           coalesce(m.is_up <> lag(m.is_up) OVER (PARTITION BY s.place ORDER BY m.time), false)::integer AS seen_changes,
                           coalesce(k.changes, 0) AS unseen_changes,
                           count(*) FILTER (WHERE m.is_up) OVER (PARTITION BY s.place ORDER BY m.time) AS run,
                           min(m.time) OVER (PARTITION BY s.place) AS first_time
                    FROM unnest($1, $2, $3) WITH ORDINALITY AS s(server_id, subject, since, place)
                    CROSS JOIN LATERAL (%s) AS m
                    LEFT JOIN linkbeat.carrier_changes k
                         ON k.server_id = s.server_id AND k.interface_name = s.subject AND k.time = m.time
                ) r
                WINDOW w AS (PARTITION BY r.place ORDER BY r.time RANGE BETWEEN $8 PRECEDING AND CURRENT ROW)
            ) w
            LEFT JOIN LATERAL (
                SELECT u.time FROM public.network_interface_metrics u
                WHERE w.run = 0 AND NOT w.is_up AND u.server_id = w.server_id AND u.interface_name = w.subject
                  AND u.time < w.first_time AND u.is_up
                ORDER BY u.time DESC LIMIT 1
            ) u ON true
            CROSS JOIN LATERAL (
                SELECT CASE WHEN w.is_up THEN NULL WHEN w.run > 0 THEN w.run_down_since WHEN u.time IS NOT NULL THEN coalesce((
                    SELECT n.time FROM public.network_interface_metrics n
                    WHERE n.server_id = w.server_id AND n.interface_name = w.subject AND n.time > u.time AND n.time < w.first_time
                    ORDER BY n.time LIMIT 1), w.first_time) END AS down_since OFFSET 0
            ) d
            CROSS JOIN LATERAL (
                SELECT coalesce(w.time - d.down_since >= $9, false) AS is_down,
                       coalesce(w.time - d.down_since >= $9, false) OR w.changes >= $10 AS is_true
            ) c
            WHERE w.time > w.since AND ($7 IS NULL OR w.time <= $7 - 2 * w.interval_ms * INTERVAL '1 millisecond')
            ORDER BY w.place, w.time $sql$, rows)
        USING of_servers, of_subjects, since, until, reach, oldest - reach, at, plan.window - INTERVAL '1 microsecond',
              linkbeat.alert_interval(spec, 'down_seconds', 60), linkbeat.alert_number(spec, 'flaps', 4);
    ELSIF plan.kind = 'filesystem' THEN
        RETURN QUERY EXECUTE format($sql$
            WITH sampled AS MATERIALIZED (
                SELECT w.*, min(w.time) FILTER (WHERE w.is_unreachable) OVER (PARTITION BY w.place, w.run ORDER BY w.time) AS unreachable_since,
                       -- Not of what was less than 60 %% used when the trend was worked out: linkbeat.filesystem_candidates looks at the
                       -- first samples of each quarter of an hour only.
                       CASE WHEN NOT w.is_unreachable AND first_value(w.percent) OVER (PARTITION BY w.place, w.trend_moment, w.is_unreachable OR w.percent IS NULL
                                                                                       ORDER BY w.time) >= 60 THEN w.trend_moment END AS moment
                FROM (
                    SELECT m.*, count(*) FILTER (WHERE NOT m.is_unreachable OR m.is_after_gap) OVER (PARTITION BY m.place ORDER BY m.time) AS run
                    FROM (
                        -- Of a gap nobody knows: what is unreachable after it is so from then on.
                        SELECT s.place, s.since, s.server_id, s.subject, m.*, linkbeat.trend_moment(s.server_id, m.time) AS trend_moment,
                               coalesce(m.time - lag(m.time) OVER (PARTITION BY s.place ORDER BY m.time)
                                        > 3 * m.interval_ms * INTERVAL '1 millisecond', false) AS is_after_gap
                        FROM unnest($1, $2, $3) WITH ORDINALITY AS s(server_id, subject, since, place)
                        CROSS JOIN LATERAL (%s) AS m
                    ) m
                ) w
            ), trend AS MATERIALIZED (
                SELECT t.place, t.moment, linkbeat.full_within(t.server_id, t.subject, t.moment) AS hours
                FROM (SELECT DISTINCT place, server_id, subject, moment FROM sampled
                      WHERE time > since AND moment IS NOT NULL AND $10 IS NOT NULL) t
            )
            SELECT w.place::integer, w.time, c.is_true, NOT c.is_true, w.percent, NULL::timestamptz,
                   3 * w.interval_ms * INTERVAL '1 millisecond',
                   CASE WHEN w.is_unreachable THEN 'unreachable'
                        WHEN w.percent >= $8 THEN format('%%s %%%% used', round(w.percent::numeric, 1))
                        WHEN w.available < $9 THEN format('%%s bytes available', w.available)
                        WHEN c.is_true THEN format('full in %%s hours', round(t.hours::numeric, 1)) END, false
            FROM sampled w LEFT JOIN trend t USING (place, moment)
            CROSS JOIN LATERAL (
                SELECT CASE WHEN w.is_unreachable THEN CASE WHEN w.time - w.unreachable_since >= $11 THEN true END
                            WHEN num_nonnulls(w.percent, w.available) > 0
                            THEN coalesce(w.percent >= $8, false) OR coalesce(w.available < $9, false) OR coalesce(t.hours <= $10, false)
                       END AS is_true
            ) c
            WHERE w.time > w.since AND ($7 IS NULL OR w.time <= $7 - 2 * w.interval_ms * INTERVAL '1 millisecond')
            ORDER BY w.place, w.time $sql$, rows)
        USING of_servers, of_subjects, since, until, reach, oldest - reach, at,
              coalesce(linkbeat.alert_number(spec, 'above_percent'),
                       CASE WHEN NOT spec ?| '{below_bytes,full_within_hours}' THEN 90 END),
              linkbeat.alert_number(spec, 'below_bytes')::numeric,
              coalesce(linkbeat.alert_number(spec, 'full_within_hours'),
                       CASE WHEN NOT spec ?| '{above_percent,below_bytes}' THEN 24 END),
              linkbeat.alert_interval(spec, 'unreachable_seconds', 600);
    END IF;
END $$;
