-- Which subjects a turn has to judge at all. Replaceable: reapplied on every upgrade.
--
-- A mean over a window can only be beyond a bound if one of its samples is, and a sum can only reach a number if one of its
-- samples has a share in it: so samples are looked at one by one, in one pass over the newest rows for all rules, and
-- windows are read for those subjects alone.

-- Samples of interfaces with times in (`since`, `until`]; of one server, or of all.
--   last   until when the sample is within the rule's window
CREATE OR REPLACE FUNCTION linkbeat.traffic_candidates(
    plans linkbeat.alert_plans[], since timestamptz, until timestamptz, of_server text DEFAULT NULL
) RETURNS TABLE (rule_id text, server_id text, subject text, last timestamptz) LANGUAGE plpgsql STABLE AS $$
DECLARE
    -- What a row must have to concern any of the rules: plain comparisons, before each rule is asked.
    filters CONSTANT text := (
        SELECT string_agg(DISTINCT CASE
            WHEN kind = 'link' THEN 'NOT m.is_up'
            WHEN kind = 'errors' THEN
                'coalesce(m.rx_errors_delta, 0) + coalesce(m.tx_errors_delta, 0) + coalesce(m.rx_dropped_delta, 0) + coalesce(m.tx_dropped_delta, 0) > 0'
            WHEN is_below AND is_percent THEN 'least(m.rx_bytes_delta, m.tx_bytes_delta) * 0.8 < $7 * m.elapsed_ms * m.speed_mbps'
            WHEN is_below THEN 'least(m.rx_bytes_delta, m.tx_bytes_delta) * 8000.0 < $6 * m.elapsed_ms'
            WHEN is_percent THEN '(m.rx_bytes_delta + m.tx_bytes_delta) * 0.8 > $5 * m.elapsed_ms * m.speed_mbps'
            ELSE '(m.rx_bytes_delta + m.tx_bytes_delta) * 8000.0 > $4 * m.elapsed_ms' END, ' OR ')
        FROM unnest(plans) WHERE kind IN ('rate', 'errors', 'link'));
BEGIN
    IF filters IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format($sql$
        SELECT p.rule_id, m.server_id, m.interface_name,
               max(m.time + greatest(p.window, CASE p.kind WHEN 'link' THEN linkbeat.alert_interval(p.spec, 'down_seconds', 60) END)
                   + 3 * m.interval_ms * INTERVAL '1 millisecond')
        FROM (
            SELECT m.*, m.elapsed_ms BETWEEN 1 AND 2147483646 AND m.delta_kind NOT IN ('rejected', 'glitch') AS counts,
                   coalesce(m.rx_errors_delta, 0) + coalesce(m.tx_errors_delta, 0) + coalesce(m.rx_dropped_delta, 0) + coalesce(m.tx_dropped_delta, 0) AS faults
            FROM public.network_interface_metrics m
            WHERE m.time > $2 AND m.time <= $3 AND NOT m.is_folded AND %s AND (%s)
            OFFSET 0
        ) m
        CROSS JOIN unnest($1) AS p
        CROSS JOIN LATERAL (SELECT CASE p.direction WHEN 'rx' THEN m.rx_bytes_delta WHEN 'tx' THEN m.tx_bytes_delta
                                   WHEN 'sum' THEN m.rx_bytes_delta + m.tx_bytes_delta
                                   ELSE greatest(m.rx_bytes_delta, m.tx_bytes_delta) END AS bytes) b
        WHERE CASE p.kind
              WHEN 'rate' THEN m.counts AND CASE
                  WHEN p.is_below AND p.is_percent THEN b.bytes * 0.8 < p.bound * m.elapsed_ms * m.speed_mbps
                  WHEN p.is_below THEN b.bytes * 8000.0 < p.bound * m.elapsed_ms
                  WHEN p.is_percent THEN b.bytes * 0.8 > p.bound * m.elapsed_ms * m.speed_mbps
                  ELSE b.bytes * 8000.0 > p.bound * m.elapsed_ms END
              -- The first sample of a window may begin before it; so each has a share of half of the number at most.
              WHEN 'errors' THEN 2 * m.faults * (1000 * extract(epoch FROM p.window) + m.elapsed_ms) >= p.count * m.elapsed_ms AND m.faults > 0
              -- It went down, or was found down after a gap, in which it is not watched.
              WHEN 'link' THEN NOT m.is_up AND coalesce((
                  SELECT b.is_up OR m.time - b.time > 3 * m.interval_ms * INTERVAL '1 millisecond' FROM public.network_interface_metrics b
                  WHERE b.server_id = m.server_id AND b.interface_name = m.interface_name
                    AND b.time < m.time AND b.time > m.time - INTERVAL '1 day'
                  ORDER BY b.time DESC LIMIT 1), false)
              ELSE false END
          AND linkbeat.is_server_in(p.servers, p.tags, m.server_id) AND (p.interfaces IS NULL OR m.interface_name ~ p.interfaces)
          AND (p.kinds IS NULL OR linkbeat.in_scope(p, m.server_id, m.interface_name))
        GROUP BY 1, 2, 3 $sql$, CASE WHEN of_server IS NULL THEN 'true' ELSE 'm.server_id = $8' END, filters)
    USING plans, since, until,
          (SELECT min(bound) FROM unnest(plans) WHERE kind = 'rate' AND NOT is_below AND NOT is_percent),
          (SELECT min(bound) FROM unnest(plans) WHERE kind = 'rate' AND NOT is_below AND is_percent),
          (SELECT max(bound) FROM unnest(plans) WHERE kind = 'rate' AND is_below AND NOT is_percent),
          (SELECT max(bound) FROM unnest(plans) WHERE kind = 'rate' AND is_below AND is_percent), of_server;
END $$;

CREATE OR REPLACE FUNCTION linkbeat.filesystem_candidates(
    plans linkbeat.alert_plans[], since timestamptz, until timestamptz, of_server text DEFAULT NULL
) RETURNS TABLE (rule_id text, server_id text, subject text, last timestamptz) LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM unnest(plans) WHERE kind = 'filesystem') THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format($sql$
        SELECT p.rule_id, m.server_id, m.mount_point, max(m.time + p.window)
        FROM (
            SELECT m.* FROM public.filesystem_metrics m
            WHERE m.time > $2 AND m.time <= $3 AND %s
              AND (m.state = 'unreachable' OR m.percent >= $4 OR linkbeat.unsigned(m.available_bytes) < $5)
            OFFSET 0
        ) m
        JOIN unnest($1) AS p ON p.kind = 'filesystem'
        LEFT JOIN public.servers x ON x.server_id = m.server_id
        WHERE (m.state IS NOT DISTINCT FROM 'unreachable'
               OR m.percent >= coalesce(linkbeat.alert_number(p.spec, 'above_percent'),
                                        CASE WHEN NOT p.spec ?| '{below_bytes,full_within_hours}' THEN 90 END)
               OR linkbeat.unsigned(m.available_bytes) < linkbeat.alert_number(p.spec, 'below_bytes')::numeric
               OR (p.spec ? 'full_within_hours' OR NOT p.spec ?| '{above_percent,below_bytes}') AND m.percent >= 60
                  -- The first row, or the second, for which the trend was worked out again.
                  AND linkbeat.trend_moment(m.server_id, m.time)
                      > linkbeat.trend_moment(m.server_id, m.time - 2 * coalesce(x.interval_seconds, 30) * INTERVAL '1 second'))
          AND linkbeat.is_server_in(p.servers, p.tags, m.server_id) AND (p.interfaces IS NULL OR m.mount_point ~ p.interfaces)
        GROUP BY 1, 2, 3 $sql$, CASE WHEN of_server IS NULL THEN 'true' ELSE 'm.server_id = $6' END)
    USING plans, since, until,
          (SELECT min(least(linkbeat.alert_number(spec, 'above_percent', 90),
                            CASE WHEN spec ? 'full_within_hours' OR NOT spec ?| '{above_percent,below_bytes}' THEN 60 END))
           FROM unnest(plans) WHERE kind = 'filesystem'),
          (SELECT max(linkbeat.alert_number(spec, 'below_bytes')) FROM unnest(plans) WHERE kind = 'filesystem')::numeric, of_server;
END $$;

-- Servers, and levels of quotas, that a rule of the other kinds may concern at `at`: their conditions are those of the
-- moment, in linkbeat.server_points.
CREATE OR REPLACE FUNCTION linkbeat.server_candidates(plan linkbeat.alert_plans, previous timestamptz, at timestamptz)
RETURNS TABLE (server_id text, subject text) LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF plan.kind = 'silent' THEN
        RETURN QUERY SELECT s.server_id, '' FROM public.servers s
        WHERE coalesce(s.live_at, s.received_at) < server_candidates.at - linkbeat.silent_after(plan.spec, s.interval_seconds)
          AND linkbeat.is_server_in(plan.servers, plan.tags, s.server_id);
    ELSIF plan.kind = 'agent' THEN
        RETURN QUERY SELECT s.server_id, '' FROM public.servers s LEFT JOIN linkbeat.alert_marks m USING (server_id)
        -- What most servers have nothing of, before each trouble is put into words.
        WHERE (s.agent_report ->> 'spool' = 'memory' OR s.agent_report ? 'truncated' OR m.server_id IS NOT NULL
               OR s.last_seen < s.received_at - INTERVAL '15 minutes')
          AND linkbeat.agent_troubles(s, m, server_candidates.at) <> '{}' AND linkbeat.is_server_in(plan.servers, plan.tags, s.server_id);
    ELSIF plan.kind = 'account' THEN
        RETURN QUERY SELECT s.server_id, '' FROM public.servers s LEFT JOIN linkbeat.alert_marks m USING (server_id)
        WHERE (s.shared_since IS NOT NULL OR m.server_id IS NOT NULL)
          AND linkbeat.account_troubles(s, m, server_candidates.at, linkbeat.alert_number(plan.spec, 'resets', 1)::integer) <> '{}'
          AND linkbeat.is_server_in(plan.servers, plan.tags, s.server_id);
    ELSIF plan.kind = 'quota' THEN
        RETURN QUERY SELECT q.server_id, l.level FROM linkbeat.quotas q, linkbeat.quota_levels(plan.spec) AS l(level)
        WHERE linkbeat.is_quota_due(q.server_id, previous, server_candidates.at)
          AND linkbeat.is_server_in(plan.servers, plan.tags, q.server_id);
    END IF;
END $$;
