-- server_points: the conditions of the kinds that look at servers as they are now: silent, agent, account and quota.
-- Replaceable: reapplied on every upgrade.

-- What is wrong with an agent, in words; {}: nothing. What rose is told for an hour.
CREATE OR REPLACE FUNCTION linkbeat.agent_troubles(s public.servers, m linkbeat.alert_marks, at timestamptz) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT array_remove(ARRAY[
        CASE WHEN m.dropped_at > at - INTERVAL '1 hour' THEN format('%s heartbeats were dropped', m.dropped_sum) END,
        CASE WHEN m.rejected_at > at - INTERVAL '1 hour' THEN 'heartbeats were rejected' END,
        CASE WHEN s.agent_report ->> 'spool' = 'memory' THEN 'its spool is in memory' END,
        CASE WHEN s.agent_report ? 'truncated' THEN 'interfaces are left out' END,
        CASE WHEN m.skew_count >= 5 THEN format('its clock is off by %s seconds', round(abs(s.clock_skew_ms) / 1000.0)) END,
        CASE WHEN s.received_at > at - INTERVAL '5 minutes' AND s.last_seen < s.received_at - INTERVAL '15 minutes'
             THEN format('its newest heartbeat is %s minutes old', floor(extract(epoch FROM s.received_at - s.last_seen) / 60)) END
    ], NULL)
$$;

-- What endangers the account of a server's traffic. Resets and readings that were rejected count for a day.
CREATE OR REPLACE FUNCTION linkbeat.account_troubles(
    s public.servers, m linkbeat.alert_marks, at timestamptz, resets integer
) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT array_remove(ARRAY[
        CASE WHEN cardinality(r.recent) >= resets THEN format('%s counter resets without a reboot within a day', cardinality(r.recent)) END,
        CASE WHEN m.implausible_at > at - INTERVAL '1 day' THEN 'a reading was rejected' END,
        CASE WHEN s.shared_at > at - INTERVAL '1 day' THEN 'two machines report under its id' END,
        CASE WHEN m.conflicts_at > at - INTERVAL '1 hour' THEN 'heartbeats were sent again with other values' END
    ], NULL)
    FROM (SELECT ARRAY(SELECT t FROM unnest(m.resets_at) AS t WHERE t > at - INTERVAL '1 day' AND t <= at) AS recent) r
$$;

-- The levels that a rule of kind quota has: 80%, 100%, forecast.
CREATE OR REPLACE FUNCTION linkbeat.quota_levels(spec jsonb) RETURNS SETOF text LANGUAGE sql IMMUTABLE AS $$
    SELECT value || '%' FROM jsonb_array_elements_text(
        CASE jsonb_typeof(spec -> 'percent') WHEN 'array' THEN spec -> 'percent' WHEN 'number' THEN jsonb_build_array(spec -> 'percent')
             ELSE '[80, 100]' END) AS value
    UNION ALL
    SELECT 'forecast' WHERE coalesce((spec ->> 'forecast')::boolean, true)
$$;

-- Quotas are looked at every five minutes, each server's at a time of its own: adding a month up costs milliseconds.
CREATE OR REPLACE FUNCTION linkbeat.is_quota_due(of_server text, previous timestamptz, at timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT NOT isfinite(previous)
           OR time_bucket('5 minutes', at - o.shift) > time_bucket('5 minutes', previous - o.shift)
    FROM (SELECT (abs(hashtext(of_server)::bigint) % 300) * INTERVAL '1 second' AS shift) o
$$;

-- Takes the counters in of which a server's row has only the newest value. At the first turn ever, what is there is the
-- beginning.
--   suspects  servers of which there may be something to take in (linkbeat.take_suspects), beside those with marks
CREATE OR REPLACE FUNCTION linkbeat.mark_servers(
    suspects text[], previous timestamptz, at timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO linkbeat.alert_marks AS m (server_id, conflicts, dropped, rejected, conflicts_at, dropped_at, rejected_at,
                                           dropped_sum, skew_at, skew_count)
    SELECT server_id, conflicts, dropped, rejected,
           CASE WHEN n.conflicts > was_conflicts THEN mark_servers.at END,
           CASE WHEN n.grown > 0 THEN mark_servers.at END,
           CASE WHEN n.rejected > CASE WHEN n.rejected < was_rejected THEN 0 ELSE was_rejected END THEN mark_servers.at END,
           n.grown, live_at, CASE WHEN abs(clock_skew_ms) > 30000 THEN 1 ELSE 0 END
    FROM (
        SELECT s.server_id, s.conflicts, r.dropped, r.rejected, s.live_at, s.clock_skew_ms,
               CASE WHEN isfinite(previous) THEN coalesce(m.conflicts, 0) ELSE s.conflicts END AS was_conflicts,
               CASE WHEN isfinite(previous) THEN coalesce(m.rejected, 0) ELSE r.rejected END AS was_rejected,
               -- The agent's counters begin again with it.
               CASE WHEN NOT isfinite(previous) THEN 0 WHEN r.dropped < m.dropped THEN r.dropped
                    ELSE r.dropped - coalesce(m.dropped, 0) END AS grown
        FROM (SELECT unnest(suspects) UNION SELECT a.server_id FROM linkbeat.alert_marks a) AS u(server_id)
        JOIN public.servers s USING (server_id) LEFT JOIN linkbeat.alert_marks m USING (server_id)
        CROSS JOIN LATERAL (SELECT coalesce((s.agent_report ->> 'dropped')::bigint, m.dropped, 0) AS dropped,
                                   coalesce((s.agent_report ->> 'rejected')::bigint, m.rejected, 0) AS rejected) r
        WHERE (s.conflicts, r.dropped, r.rejected) IS DISTINCT FROM (coalesce(m.conflicts, 0), coalesce(m.dropped, 0), coalesce(m.rejected, 0))
           OR s.live_at IS DISTINCT FROM m.skew_at AND (abs(s.clock_skew_ms) > 30000 OR m.skew_count > 0)
           OR m.server_id IS NULL AND linkbeat.is_suspect(s)  -- looked at in each turn from now on
    ) n
    ON CONFLICT (server_id) DO UPDATE SET
        conflicts = EXCLUDED.conflicts, dropped = EXCLUDED.dropped, rejected = EXCLUDED.rejected,
        conflicts_at = coalesce(EXCLUDED.conflicts_at, m.conflicts_at),
        dropped_sum = EXCLUDED.dropped_sum + CASE WHEN m.dropped_at > mark_servers.at - INTERVAL '1 hour' THEN m.dropped_sum ELSE 0 END,
        dropped_at = coalesce(EXCLUDED.dropped_at, m.dropped_at),
        rejected_at = coalesce(EXCLUDED.rejected_at, m.rejected_at),
        skew_count = CASE WHEN m.skew_at IS NOT DISTINCT FROM EXCLUDED.skew_at THEN m.skew_count
                          WHEN EXCLUDED.skew_count = 0 THEN 0 ELSE m.skew_count + 1 END,
        skew_at = EXCLUDED.skew_at;
    DELETE FROM linkbeat.alert_marks m USING public.servers s
    WHERE s.server_id = m.server_id AND NOT coalesce(linkbeat.is_suspect(s), false)
      AND (m.conflicts, m.dropped, m.rejected, m.skew_count, m.resets_at) = (0, 0, 0, 0, '{}')
      AND num_nonnulls(m.conflicts_at, m.dropped_at, m.rejected_at, m.implausible_at) = 0;
END $$;

-- Takes in the resets and the rejected readings of rows that are new or came late, in parallel arrays as linkbeat.traffic_candidates
-- returns them.
CREATE OR REPLACE FUNCTION linkbeat.mark_signs(
    of_rules text[], of_servers text[], delta_kinds text[], times timestamptz[], at timestamptz
) RETURNS void LANGUAGE sql AS $$
    INSERT INTO linkbeat.alert_marks AS m (server_id, resets_at, implausible_at)
    SELECT r.server_id, coalesce((array_agg(DISTINCT r.time ORDER BY r.time DESC) FILTER (WHERE r.delta_kind = 'reset'))[1:100], '{}'),
           max(r.time) FILTER (WHERE r.delta_kind = 'rejected')
    FROM unnest(of_rules, of_servers, delta_kinds, times) AS r(rule_id, server_id, delta_kind, time)
    WHERE r.rule_id IS NULL AND r.time > mark_signs.at - INTERVAL '1 day'
    GROUP BY 1
    ON CONFLICT (server_id) DO UPDATE SET
        resets_at = (SELECT coalesce((array_agg(DISTINCT t ORDER BY t DESC) FILTER (WHERE t > mark_signs.at - INTERVAL '1 day'))[1:100], '{}')
                     FROM unnest(m.resets_at || EXCLUDED.resets_at) AS t),
        implausible_at = greatest(m.implausible_at, EXCLUDED.implausible_at)
$$;

-- Takes back the resets and the rejected readings that late rows have explained: their rows are no such ones any more, or have
-- moved to another series.
CREATE OR REPLACE FUNCTION linkbeat.unmark_signs(of_servers text[], at timestamptz) RETURNS void LANGUAGE sql AS $$
    UPDATE linkbeat.alert_marks m SET resets_at = s.resets_at, implausible_at = s.implausible_at
    FROM (
        SELECT k.server_id, coalesce(array_agg(n.time ORDER BY n.time DESC) FILTER (WHERE n.is_reset AND n.time = ANY (k.resets_at)), '{}') AS resets_at,
               max(n.time) FILTER (WHERE n.is_rejected AND n.time <= k.implausible_at) AS implausible_at
        FROM linkbeat.alert_marks k
        LEFT JOIN LATERAL (
            SELECT r.time, bool_or(r.delta_kind = 'reset') AS is_reset, bool_or(r.delta_kind = 'rejected') AS is_rejected
            FROM public.network_interface_metrics r
            WHERE r.server_id = k.server_id AND r.time > unmark_signs.at - INTERVAL '1 day' AND r.time <= unmark_signs.at
              AND r.delta_kind IN ('reset', 'rejected') AND NOT r.is_folded
            GROUP BY 1
        ) n ON true
        WHERE k.server_id = ANY (of_servers)
          AND (k.implausible_at > unmark_signs.at - INTERVAL '1 day'
               OR EXISTS (SELECT FROM unnest(k.resets_at) AS t WHERE t > unmark_signs.at - INTERVAL '1 day'))
        GROUP BY k.server_id
    ) s
    WHERE s.server_id = m.server_id AND (m.resets_at, m.implausible_at) IS DISTINCT FROM (s.resets_at, s.implausible_at)
$$;

CREATE OR REPLACE FUNCTION linkbeat.server_points(
    plan linkbeat.alert_plans, of_servers text[], of_subjects text[], previous timestamptz, at timestamptz
) RETURNS SETOF linkbeat.alert_point LANGUAGE plpgsql STABLE AS $$
DECLARE
    due text[];
BEGIN
    IF plan.kind = 'silent' THEN
        RETURN QUERY
        WITH ledger AS MATERIALIZED (
            SELECT opened, closed, lag(closed) OVER (ORDER BY opened) AS away_since
            FROM linkbeat.listened(server_points.at - INTERVAL '1 day', server_points.at)
        )
        SELECT a.place::integer, server_points.at,
               CASE WHEN server_points.at - a.arrival <= a.after THEN false
                    WHEN now_open.opened IS NULL OR server_points.at - now_open.opened < a.grace THEN NULL
                    ELSE heard.during > a.after END,
               server_points.at - a.arrival <= a.after, extract(epoch FROM server_points.at - a.arrival)::double precision,
               a.arrival, INTERVAL '60 seconds',
               CASE WHEN away.until IS NULL THEN 'silent'
                    ELSE format('silent; the service was away from %s to %s UTC', to_char(away.since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
                                to_char(away.until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')) END, false
        FROM (
            SELECT u.place, coalesce(s.live_at, s.received_at) AS arrival, linkbeat.silence_grace(s.interval_seconds) AS grace,
                   linkbeat.silent_after(plan.spec, s.interval_seconds) AS after
            FROM unnest(of_servers) WITH ORDINALITY AS u(server_id, place)
            JOIN public.servers s ON s.server_id = u.server_id
        ) a
        LEFT JOIN ledger now_open ON now_open.closed = server_points.at
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(l.closed - greatest(l.opened, a.arrival)), INTERVAL '0') AS during FROM ledger l WHERE l.closed > a.arrival
        ) heard
        LEFT JOIN LATERAL (
            SELECT l.away_since AS since, l.opened AS until FROM ledger l WHERE l.opened > a.arrival AND l.away_since IS NOT NULL
            ORDER BY l.opened DESC LIMIT 1
        ) away ON true
        ORDER BY a.place;
    ELSIF plan.kind IN ('agent', 'account') THEN
        RETURN QUERY
        SELECT u.place::integer, server_points.at, t.troubles <> '{}', t.troubles = '{}',
               CASE plan.kind WHEN 'agent' THEN CASE WHEN m.dropped_at > server_points.at - INTERVAL '1 hour' THEN m.dropped_sum END
                    ELSE cardinality(m.resets_at) END::double precision,
               NULL::timestamptz, INTERVAL '60 seconds', array_to_string(t.troubles, '; '), false
        FROM unnest(of_servers) WITH ORDINALITY AS u(server_id, place)
        JOIN public.servers s ON s.server_id = u.server_id
        LEFT JOIN linkbeat.alert_marks m ON m.server_id = u.server_id
        CROSS JOIN LATERAL (
            SELECT CASE plan.kind WHEN 'agent' THEN linkbeat.agent_troubles(s, m, server_points.at)
                   ELSE linkbeat.account_troubles(s, m, server_points.at, linkbeat.alert_number(plan.spec, 'resets', 1)::integer) END AS troubles
        ) t
        ORDER BY u.place;
    ELSIF plan.kind = 'quota' THEN
        due := ARRAY(SELECT DISTINCT d FROM unnest(of_servers) AS d WHERE linkbeat.is_quota_due(d, previous, server_points.at));
        RETURN QUERY
        SELECT u.place::integer, server_points.at, l.is_over, NOT l.is_over,
               CASE u.subject WHEN 'forecast' THEN 100 * q.expected_bytes / q.bytes ELSE q.used_percent END::double precision,
               NULL::timestamptz, INTERVAL '1 hour',
               CASE WHEN l.is_over THEN format('%s of %s bytes used since %s', q.used_bytes, q.bytes, (q.since AT TIME ZONE q.time_zone)::date)
                    || CASE u.subject WHEN 'forecast' THEN format('; %s expected', q.expected_bytes) ELSE '' END END, false
        FROM unnest(of_servers, of_subjects) WITH ORDINALITY AS u(server_id, subject, place)
        JOIN public.quota_usage(server_points.at) q ON q.server_id = u.server_id
        CROSS JOIN LATERAL (
            SELECT CASE u.subject WHEN 'forecast' THEN coalesce(q.expected_bytes >= q.bytes AND server_points.at >= q.since + INTERVAL '2 days', false)
                   ELSE q.used_bytes * 100 >= rtrim(u.subject, '%')::numeric * q.bytes END AS is_over
        ) l
        WHERE q.server_id = ANY (due)
        ORDER BY u.place;
    END IF;
END $$;
