-- Which subjects a turn has to judge at all. Replaceable: reapplied on every upgrade.
--
-- A mean over a window can only be beyond a bound if one of its samples is, and a sum can only reach a number if one of its
-- samples has a share in it: so samples are looked at one by one, in one pass over the newest rows for all rules, and
-- windows are read for those subjects alone.

-- How far after a late row its arrival can change what a rule says.
CREATE OR REPLACE FUNCTION linkbeat.late_reach(plan linkbeat.alert_plans) RETURNS interval LANGUAGE sql IMMUTABLE
RETURN plan.window + (plan.for_ms + plan.keep_ms) * INTERVAL '1 millisecond' + INTERVAL '15 minutes';

-- A rate rule's bound in bytes a millisecond, or, of a share of the line rate, in bytes a millisecond and Mbit/s.
CREATE OR REPLACE FUNCTION linkbeat.bytes_bound(plan linkbeat.alert_plans) RETURNS double precision LANGUAGE sql IMMUTABLE
RETURN CASE WHEN plan.kind = 'rate' THEN
    plan.bound / CASE WHEN plan.is_percent THEN 0.8 ELSE 8000 END * CASE WHEN plan.is_below THEN 1 + 1e-12 ELSE 1 - 1e-12 END END;

-- Samples of interfaces, in one pass for all rules: those of (`since`, `until`]; or, of the servers named in parallel arrays,
-- those around late rows that judging these again may reach.
--   rule_id  null: a sample that says that counters are in doubt (linkbeat.mark_signs): `subject` is its delta_kind
--   last     until when the sample is within the rule's window; of such a sample, its time
CREATE OR REPLACE FUNCTION linkbeat.traffic_candidates(
    plans linkbeat.alert_plans[], since timestamptz, until timestamptz,
    late_servers text[] DEFAULT NULL, late_since timestamptz[] DEFAULT NULL, late_until timestamptz[] DEFAULT NULL
) RETURNS TABLE (rule_id text, server_id text, subject text, last timestamptz) LANGUAGE plpgsql
-- Of the newest rows the planner knows nothing: where it expects few, it would compare thousands with thousands.
SET enable_nestloop = off
-- It takes block ranges for pages all over the table, and would rather read the whole of one that was begun within the hour.
SET seq_page_cost = 0 SET random_page_cost = 0 SET work_mem = '64MB' AS $$
DECLARE
    concerned CONSTANT linkbeat.alert_plans[] := ARRAY(SELECT p FROM unnest(plans) AS p WHERE p.kind IN ('rate', 'errors', 'link'));
    is_late   CONSTANT boolean := late_servers IS NOT NULL;
    reach     CONSTANT interval := coalesce((SELECT max(linkbeat.late_reach(p)) FROM unnest(concerned) AS p), INTERVAL '1 second');
    -- What a row must have to concern any rule of a kind: few and plain comparisons, before each rule is asked. In double precision,
    -- which costs a tenth of numeric; the bounds that are passed are a little easier to pass, so that rounding leaves nothing out.
    -- least() and greatest() leave out what is null: a bound that no rule has, a line rate that is not known.
    is_busy   CONSTANT text := coalesce((
        SELECT string_agg(CASE
            WHEN k.is_below THEN format('least(m.rx_bytes_delta, m.tx_bytes_delta) < m.elapsed_ms * greatest(%s)', k.bounds)
            ELSE format('m.rx_bytes_delta + m.tx_bytes_delta > m.elapsed_ms * least(%s)', k.bounds) END, ' OR ')
        FROM (
            SELECT r.is_below, string_agg(DISTINCT CASE WHEN r.is_below THEN CASE WHEN r.is_percent THEN '$7 * m.speed_mbps' ELSE '$6' END
                                                        WHEN r.is_percent THEN '$5 * m.speed_mbps' ELSE '$4' END, ', ') AS bounds
            FROM unnest(concerned) AS r WHERE r.kind = 'rate' GROUP BY 1
        ) k), 'false');
    is_faulty CONSTANT text := CASE WHEN EXISTS (SELECT FROM unnest(concerned) WHERE kind = 'errors') THEN
        'm.rx_errors_delta > 0 OR m.tx_errors_delta > 0 OR m.rx_dropped_delta > 0 OR m.tx_dropped_delta > 0' ELSE 'false' END;
    is_down   CONSTANT text := CASE WHEN EXISTS (SELECT FROM unnest(concerned) WHERE kind = 'link') THEN 'NOT m.is_up' ELSE 'false' END;
BEGIN
    IF is_late THEN
        SELECT min(l.since) - reach, max(l.until) + reach INTO since, until FROM unnest(late_since, late_until) AS l(since, until);
    ELSE
        -- Intervals of more than a minute have fewer samples, and each of them is looked up.
        DELETE FROM linkbeat.links_down l
        WHERE l.until > traffic_candidates.since OR l.until <= traffic_candidates.since - INTERVAL '75 seconds';
    END IF;
    RETURN QUERY EXECUTE format($sql$
        WITH plans AS MATERIALIZED (
            SELECT p.*, linkbeat.bytes_bound(p) AS bytes_per_unit, linkbeat.late_reach(p) AS reach, 1000 * extract(epoch FROM p.window)::double precision AS window_ms,
                   greatest(p.window, CASE p.kind WHEN 'link' THEN linkbeat.alert_interval(p.spec, 'down_seconds', 60) END) AS tail
            FROM unnest($1) AS p
        ), samples AS MATERIALIZED (
            SELECT m.server_id, m.interface_name, m.time, m.elapsed_ms, m.interval_ms, m.speed_mbps, m.rx_bytes_delta, m.tx_bytes_delta,
                   m.delta_kind, m.late_since, m.late_until, f.faults,
                   (%2$s) AND m.elapsed_ms BETWEEN 1 AND 2147483646 AND m.delta_kind NOT IN ('rejected', 'glitch') AS is_busy,
                   f.faults > 0 AND 2 * f.faults * ($12 + m.elapsed_ms) >= $13 * m.elapsed_ms AS is_faulty,
                   %4$s AS is_down
            FROM (%1$s) m
            CROSS JOIN LATERAL (SELECT coalesce(m.rx_errors_delta, 0) + coalesce(m.tx_errors_delta, 0)
                                       + coalesce(m.rx_dropped_delta, 0) + coalesce(m.tx_dropped_delta, 0) AS faults) f
            -- A single drop now and then, which many machines have, is asked for its share before the row is kept.
            WHERE NOT m.is_folded AND ((%2$s) OR (%3$s) AND 2 * f.faults * ($12 + m.elapsed_ms) >= $13 * m.elapsed_ms
                                       OR %4$s OR m.delta_kind = 'reset' OR m.delta_kind = 'rejected')
        ), down AS MATERIALIZED (
            SELECT s.server_id, s.interface_name, s.time, s.interval_ms, s.late_since, s.late_until,
                   s.time - s.elapsed_ms * INTERVAL '1 millisecond' AS before
            FROM samples s WHERE s.is_down
        ), went_down AS (
            -- Or was found down after a gap, in which it is not watched.
            SELECT s.* FROM down s
            LEFT JOIN (
                SELECT w.*
                FROM (SELECT min(d.before) AS first, max(d.before) AS last FROM down d) b
                JOIN linkbeat.links_down l ON l.since < b.last AND l.until >= b.first
                CROSS JOIN LATERAL unnest(l.server_ids, l.interface_names, l.times) AS w(server_id, interface_name, time)
                WHERE %5$s
            ) w ON w.server_id = s.server_id AND w.interface_name = s.interface_name
                   AND s.before - w.time BETWEEN INTERVAL '-1 millisecond' AND INTERVAL '1 millisecond'
            WHERE CASE WHEN w.time IS NOT NULL THEN s.time - w.time > 3 * s.interval_ms * INTERVAL '1 millisecond' ELSE coalesce((
                      SELECT b.is_up OR s.time - b.time > 3 * s.interval_ms * INTERVAL '1 millisecond' FROM public.network_interface_metrics b
                      WHERE b.server_id = s.server_id AND b.interface_name = s.interface_name
                        AND b.time < s.time AND b.time > s.time - INTERVAL '1 day' AND b.time > $2 - INTERVAL '1 day'
                      ORDER BY b.time DESC LIMIT 1), false) END
        )%6$s
        SELECT c.rule_id, c.server_id, c.subject, max(c.last)
        FROM (
            SELECT p.rule_id, m.server_id, m.interface_name AS subject, m.time + p.tail + 3 * m.interval_ms * INTERVAL '1 millisecond' AS last
            FROM (
                SELECT 'rate' AS kind, s.server_id, s.interface_name, s.time, s.interval_ms, s.late_since, s.late_until, s.elapsed_ms,
                       s.speed_mbps, s.rx_bytes_delta, s.tx_bytes_delta, s.faults
                FROM samples s WHERE s.is_busy
                UNION ALL
                SELECT 'errors', s.server_id, s.interface_name, s.time, s.interval_ms, s.late_since, s.late_until, s.elapsed_ms,
                       NULL, NULL, NULL, s.faults
                FROM samples s WHERE s.is_faulty
                UNION ALL
                SELECT 'link', s.server_id, s.interface_name, s.time, s.interval_ms, s.late_since, s.late_until, NULL, NULL, NULL, NULL, NULL
                FROM went_down s
            ) m
            JOIN plans p USING (kind)
            CROSS JOIN LATERAL (SELECT CASE p.direction WHEN 'rx' THEN m.rx_bytes_delta WHEN 'tx' THEN m.tx_bytes_delta
                                       WHEN 'sum' THEN m.rx_bytes_delta + m.tx_bytes_delta
                                       ELSE greatest(m.rx_bytes_delta, m.tx_bytes_delta) END AS bytes) b
            WHERE CASE p.kind
                  WHEN 'rate' THEN CASE
                      WHEN p.is_below THEN b.bytes < p.bytes_per_unit * CASE WHEN p.is_percent THEN m.elapsed_ms * m.speed_mbps::double precision ELSE m.elapsed_ms END
                      ELSE b.bytes > p.bytes_per_unit * CASE WHEN p.is_percent THEN m.elapsed_ms * m.speed_mbps::double precision ELSE m.elapsed_ms END END
                  WHEN 'errors' THEN 2 * m.faults * (p.window_ms + m.elapsed_ms) >= p.count * m.elapsed_ms
                  ELSE true END
              AND (m.late_since IS NULL OR m.time > m.late_since - p.window AND m.time <= m.late_until + p.reach)
              AND linkbeat.is_server_in(p.servers, p.tags, m.server_id) AND (p.interfaces IS NULL OR m.interface_name ~ p.interfaces)
              AND (p.kinds IS NULL OR m.server_id IN (
                   SELECT x.server_id FROM public.servers x WHERE x.server_id = m.server_id
                     AND (x.interfaces[array_position(x.interface_names, m.interface_name)]).kind = ANY (p.kinds)))
            UNION ALL
            SELECT p.rule_id, k.server_id, k.interface_name, k.time + p.tail + INTERVAL '15 minutes'
            FROM linkbeat.carrier_changes k JOIN unnest($1) AS q ON q.kind = 'link' JOIN plans p ON p.rule_id = q.rule_id
            WHERE k.time > $2 AND k.time <= $3 AND linkbeat.in_scope(q, k.server_id, k.interface_name)
        ) c
        GROUP BY 1, 2, 3
        UNION ALL
        SELECT NULL, s.server_id, s.delta_kind, s.time FROM samples s
        WHERE s.delta_kind IN ('reset', 'rejected') AND (s.late_since IS NULL OR s.time BETWEEN s.late_since AND s.late_until) $sql$,
        CASE WHEN is_late THEN $sql$
            SELECT r.*, l.since AS late_since, l.until AS late_until
            FROM unnest($8, $9, $10) AS l(server_id, since, until)
            CROSS JOIN LATERAL (
                SELECT r.* FROM public.network_interface_metrics r
                WHERE r.server_id = l.server_id AND r.time > l.since - $11 AND r.time <= l.until + $11 AND r.time > $2 AND r.time <= $3
                OFFSET 0  -- the index is searched for each server
            ) r $sql$
        ELSE $sql$
            SELECT r.*, NULL::timestamptz AS late_since, NULL::timestamptz AS late_until
            FROM public.network_interface_metrics r WHERE r.time > $2 AND r.time <= $3 $sql$ END, is_busy, is_faulty, is_down, (NOT is_late)::text,
        CASE WHEN NOT is_late AND is_down <> 'false' THEN $sql$, remembered AS (
            INSERT INTO linkbeat.links_down (since, until, server_ids, interface_names, times)
            SELECT $2, $3, array_agg(d.server_id), array_agg(d.interface_name), array_agg(d.time) FROM down d HAVING count(*) > 0
        ) $sql$ ELSE '' END)
    USING concerned, since, until,
          (SELECT min(linkbeat.bytes_bound(p)) FROM unnest(concerned) AS p WHERE NOT p.is_below AND NOT p.is_percent),
          (SELECT min(linkbeat.bytes_bound(p)) FROM unnest(concerned) AS p WHERE NOT p.is_below AND p.is_percent),
          (SELECT max(linkbeat.bytes_bound(p)) FROM unnest(concerned) AS p WHERE p.is_below AND NOT p.is_percent),
          (SELECT max(linkbeat.bytes_bound(p)) FROM unnest(concerned) AS p WHERE p.is_below AND p.is_percent),
          late_servers, late_since, late_until, reach,
          -- The first sample of a window may begin before it; so each has a share of half of the number at most.
          (SELECT max(1000 * extract(epoch FROM p.window)) FROM unnest(concerned) AS p WHERE p.kind = 'errors')::double precision,
          (SELECT min(p.count) FROM unnest(concerned) AS p WHERE p.kind = 'errors');
END $$;

-- A read-only image, such as a snap or an AppImage, is always full; service/fleet/servers.py shows it as read-only by the
-- same rules. Current agents leave it out.
CREATE OR REPLACE FUNCTION linkbeat.is_image(fs_type text, mount_point text, state text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(state = 'read-only', fs_type IN ('squashfs', 'iso9660', 'udf', 'erofs', 'cramfs', 'romfs')
                                     OR fs_type ~* '^fuse\.(squashfuse|.*appimage)'
                                     OR starts_with(fs_type, 'fuse') AND strpos(mount_point, '/.mount_') > 0, false);

-- The same of filesystems.
CREATE OR REPLACE FUNCTION linkbeat.filesystem_candidates(
    plans linkbeat.alert_plans[], since timestamptz, until timestamptz,
    late_servers text[] DEFAULT NULL, late_since timestamptz[] DEFAULT NULL, late_until timestamptz[] DEFAULT NULL
) RETURNS TABLE (rule_id text, server_id text, subject text, last timestamptz) LANGUAGE plpgsql STABLE
SET seq_page_cost = 0 SET random_page_cost = 0 SET work_mem = '64MB' AS $$  -- as above
DECLARE
    concerned CONSTANT linkbeat.alert_plans[] := ARRAY(SELECT p FROM unnest(plans) AS p WHERE p.kind = 'filesystem');
    is_late   CONSTANT boolean := late_servers IS NOT NULL;
    reach     CONSTANT interval := (SELECT max(linkbeat.late_reach(p)) FROM unnest(concerned) AS p);
BEGIN
    IF cardinality(concerned) = 0 THEN
        RETURN;
    END IF;
    IF is_late THEN
        SELECT min(l.since) - reach, max(l.until) + reach INTO since, until FROM unnest(late_since, late_until) AS l(since, until);
    END IF;
    RETURN QUERY EXECUTE format($sql$
        SELECT p.rule_id, m.server_id, m.mount_point, max(m.time + p.window)
        FROM (
            SELECT m.* FROM (%s) m
            WHERE m.state = 'unreachable' OR m.percent >= $4 OR linkbeat.unsigned(m.available_bytes) < $5
            OFFSET 0
        ) m
        CROSS JOIN unnest($1) AS p
        LEFT JOIN public.servers x ON x.server_id = m.server_id
        WHERE (m.state IS NOT DISTINCT FROM 'unreachable'
               OR m.percent >= coalesce(linkbeat.alert_number(p.spec, 'above_percent'),
                                        CASE WHEN NOT p.spec ?| '{below_bytes,full_within_hours}' THEN 90 END)
               OR linkbeat.unsigned(m.available_bytes) < linkbeat.alert_number(p.spec, 'below_bytes')::numeric
               OR (p.spec ? 'full_within_hours' OR NOT p.spec ?| '{above_percent,below_bytes}') AND m.percent >= 60
                  -- The first rows for which the trend was worked out again. What comes late may have changed it, and what comes
                  -- after a longer gap, which linkbeat.note_old_news notes, has passed them.
                  AND (m.late_since IS NOT NULL
                       OR linkbeat.trend_moment(m.server_id, m.time)
                          > linkbeat.trend_moment(m.server_id, m.time - 5 * coalesce(x.interval_seconds, 30) * INTERVAL '1 second')))
          AND (m.late_since IS NULL OR m.time > m.late_since - p.window AND m.time <= m.late_until + linkbeat.late_reach(p))
          AND linkbeat.is_server_in(p.servers, p.tags, m.server_id) AND (p.interfaces IS NULL OR m.mount_point ~ p.interfaces)
          AND NOT linkbeat.is_image(m.fs_type, m.mount_point, m.state)
        GROUP BY 1, 2, 3 $sql$,
        CASE WHEN is_late THEN $sql$
            SELECT r.*, l.since AS late_since, l.until AS late_until
            FROM unnest($6, $7, $8) AS l(server_id, since, until)
            CROSS JOIN LATERAL (
                SELECT r.* FROM public.filesystem_metrics r
                WHERE r.server_id = l.server_id AND r.time > l.since - $9 AND r.time <= l.until + $9 AND r.time > $2 AND r.time <= $3
            ) r $sql$
        ELSE $sql$
            SELECT r.*, NULL::timestamptz AS late_since, NULL::timestamptz AS late_until
            FROM public.filesystem_metrics r WHERE r.time > $2 AND r.time <= $3 $sql$ END)
    USING concerned, since, until,
          (SELECT min(least(linkbeat.alert_number(spec, 'above_percent', 90),
                            CASE WHEN spec ? 'full_within_hours' OR NOT spec ?| '{above_percent,below_bytes}' THEN 60 END))
           FROM unnest(concerned)),
          (SELECT max(linkbeat.alert_number(spec, 'below_bytes')) FROM unnest(concerned))::numeric,
          late_servers, late_since, late_until, reach;
END $$;

-- Which of them, of those with marks, and which levels of quotas a rule does concern: their conditions are those of the moment, in
-- linkbeat.server_points. Who is about to be silent is watched before.
--   suspects  servers that may be concerned (linkbeat.take_suspects)
--   last      until when they are watched; null: for this turn
CREATE OR REPLACE FUNCTION linkbeat.server_candidates(
    plans linkbeat.alert_plans[], suspects text[], previous timestamptz, at timestamptz
) RETURNS TABLE (rule_id text, server_id text, subject text, last timestamptz) LANGUAGE plpgsql STABLE AS $$
DECLARE
    soon CONSTANT timestamptz := at + linkbeat.silence_ahead(plans);
BEGIN
    RETURN QUERY
    SELECT p.rule_id, s.server_id, '', CASE p.kind WHEN 'silent' THEN soon - p.lag END
    FROM (SELECT unnest(suspects) UNION SELECT m.server_id FROM linkbeat.alert_marks m) AS u(server_id)
    JOIN public.servers s ON s.server_id = u.server_id
    LEFT JOIN linkbeat.alert_marks m ON m.server_id = u.server_id
    JOIN unnest(plans) AS p ON CASE p.kind
        WHEN 'silent' THEN coalesce(s.live_at, s.received_at) < soon - linkbeat.silent_after(p.spec, s.interval_seconds)
        WHEN 'agent' THEN linkbeat.agent_troubles(s, m, server_candidates.at) <> '{}'
        WHEN 'account' THEN linkbeat.account_troubles(s, m, server_candidates.at, linkbeat.alert_number(p.spec, 'resets', 1)::integer) <> '{}'
        ELSE false END
    WHERE linkbeat.is_server_in(p.servers, p.tags, s.server_id)
    UNION ALL
    SELECT p.rule_id, q.server_id, l.level, NULL
    FROM linkbeat.quotas q CROSS JOIN unnest(plans) AS p CROSS JOIN LATERAL linkbeat.quota_levels(p.spec) AS l(level)
    WHERE p.kind = 'quota' AND linkbeat.is_quota_due(q.server_id, previous, server_candidates.at)
      AND linkbeat.is_server_in(p.servers, p.tags, q.server_id);
END $$;
