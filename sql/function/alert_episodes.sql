-- alert_episodes: the backtest: the episodes that a rule would have had. Replaceable: reapplied on every upgrade.

-- The interfaces or filesystems that a rule concerns, of what is remembered.
CREATE OR REPLACE FUNCTION linkbeat.subjects_of(plan linkbeat.alert_plans) RETURNS TABLE (server_id text, subject text)
LANGUAGE sql STABLE AS $$
    SELECT s.server_id, n.name FROM public.servers s CROSS JOIN LATERAL unnest(s.interface_names) AS n(name)
    WHERE plan.kind IN ('rate', 'link', 'errors') AND linkbeat.in_scope(plan, s.server_id, n.name)
    UNION ALL
    SELECT s.server_id, f.name
    FROM public.servers s
    CROSS JOIN LATERAL (SELECT DISTINCT f ->> 'mount_point' AS name FROM jsonb_array_elements(s.filesystems) AS f
                        WHERE NOT linkbeat.is_image(f ->> 'fs_type', f ->> 'mount_point', f ->> 'state')) f
    WHERE plan.kind = 'filesystem' AND linkbeat.is_server_in(plan.servers, plan.tags, s.server_id)
      AND (plan.interfaces IS NULL OR f.name ~ plan.interfaces)
    UNION ALL
    SELECT s.server_id, '' FROM public.servers s
    WHERE plan.kind IN ('silent', 'account') AND linkbeat.is_server_in(plan.servers, plan.tags, s.server_id)
    UNION ALL
    SELECT q.server_id, l.level FROM linkbeat.quotas q, linkbeat.quota_levels(plan.spec) AS l(level)
    WHERE plan.kind = 'quota' AND linkbeat.is_server_in(plan.servers, plan.tags, q.server_id)
$$;

-- What server_points says at the moment, said of the past, as far as it has left rows: of arrivals, the times of heartbeats
-- that measured something; of accounts, resets and rejected readings; of quotas, what each hour brought.
CREATE OR REPLACE FUNCTION linkbeat.past_points(
    plan linkbeat.alert_plans, of_servers text[], of_subjects text[], since timestamptz, until timestamptz
) RETURNS SETOF linkbeat.alert_point LANGUAGE plpgsql STABLE AS $$
DECLARE
    always CONSTANT interval := INTERVAL '10000 years';
    server record;
    beats  timestamptz[];
BEGIN
    FOR server IN
        SELECT u.ordinal::integer AS place, s.server_id, u.subject, linkbeat.silent_after(plan.spec, s.interval_seconds) AS after,
               linkbeat.silence_grace(s.interval_seconds) AS grace
        FROM unnest(of_servers, of_subjects) WITH ORDINALITY AS u(server_id, subject, ordinal) JOIN public.servers s USING (server_id)
        ORDER BY u.ordinal
    LOOP
        IF plan.kind = 'silent' THEN
            beats := ARRAY(
                SELECT m.time FROM public.server_metrics m WHERE m.server_id = server.server_id AND m.time > past_points.since AND m.time <= past_points.until
                UNION
                SELECT n.time FROM public.network_interface_metrics n
                WHERE n.server_id = server.server_id AND n.time > past_points.since AND n.time <= past_points.until
                ORDER BY 1);
            RETURN QUERY
            WITH heard AS (
                SELECT b.at, coalesce(lead(b.at) OVER (ORDER BY b.at), past_points.until) AS next FROM unnest(beats) AS b(at)
            ), ledger AS MATERIALIZED (
                -- Before the ledger begins, the service counts as having listened.
                SELECT l.opened, l.closed FROM linkbeat.listened(past_points.since, past_points.until) l
                UNION ALL
                SELECT '-infinity', min(f.since) FROM linkbeat.listening f HAVING min(f.since) > past_points.since
            ), missed AS (
                SELECT h.at, h.next, l.opened, l.closed,
                       sum(least(l.closed, h.next) - greatest(l.opened, h.at)) OVER (PARTITION BY h.at ORDER BY l.opened) AS during
                FROM heard h JOIN ledger l ON l.closed > h.at AND l.opened < h.next
                WHERE h.next - h.at > server.after
            ), began AS (
                SELECT m.at, m.next, min(m.moment) AS moment
                FROM (SELECT s.*, greatest(s.opened + server.grace,
                                           least(s.closed, s.next) - (s.during - server.after)) AS moment FROM missed s) m
                WHERE m.moment < least(m.closed, m.next)
                GROUP BY 1, 2
            )
            SELECT server.place, p.at, p.is_true, NOT p.is_true, extract(epoch FROM p.at - p.active_at)::double precision, p.active_at, always,
                   'silent', false
            FROM (
                SELECT h.at, false AS is_true, NULL::timestamptz AS active_at FROM heard h
                UNION ALL
                SELECT b.moment + extra, true, b.at
                FROM began b, unnest(ARRAY[INTERVAL '0', plan.for_ms * INTERVAL '1 millisecond']) AS extra
                WHERE b.moment + extra < b.next AND (extra > INTERVAL '0' OR plan.for_ms >= 0)
                UNION ALL
                SELECT b.next + plan.keep_ms * INTERVAL '1 millisecond', false, NULL FROM began b
                WHERE b.next < past_points.until
            ) p
            WHERE p.at <= past_points.until ORDER BY p.at, p.is_true;
        ELSIF plan.kind = 'account' THEN
            RETURN QUERY
            WITH signs AS MATERIALIZED (
                SELECT DISTINCT n.time, n.delta_kind FROM public.network_interface_metrics n
                WHERE n.server_id = server.server_id AND n.time > past_points.since - INTERVAL '1 day' AND n.time <= past_points.until
                  AND n.delta_kind IN ('reset', 'rejected') AND NOT n.is_folded
            )
            SELECT server.place, m.at, t.is_true, NOT t.is_true, t.resets::double precision, NULL::timestamptz, always,
                   format('%s counter resets without a reboot, %s rejected readings within a day', t.resets, t.rejected), false
            FROM (
                SELECT DISTINCT s.time + e.extra AS at
                FROM signs s, unnest(ARRAY[INTERVAL '0', INTERVAL '1 day', INTERVAL '1 day' + plan.keep_ms * INTERVAL '1 millisecond']) AS e(extra)
            ) m
            CROSS JOIN LATERAL (
                SELECT r.resets, r.rejected, r.resets >= linkbeat.alert_number(plan.spec, 'resets', 1) OR r.rejected > 0 AS is_true
                FROM (SELECT count(DISTINCT s.time) FILTER (WHERE s.delta_kind = 'reset') AS resets,
                             count(DISTINCT s.time) FILTER (WHERE s.delta_kind = 'rejected') AS rejected
                      FROM signs s WHERE s.time > m.at - INTERVAL '1 day' AND s.time <= m.at) r
            ) t
            WHERE m.at > past_points.since AND m.at <= past_points.until
            ORDER BY m.at;
        ELSIF plan.kind = 'quota' THEN
            RETURN QUERY
            WITH hours AS (
                SELECT t.bucket + INTERVAL '1 hour' AS at, b.period, q.bytes, q.direction, sum(t.rx_bytes) AS rx, sum(t.tx_bytes) AS tx
                FROM linkbeat.quotas q
                JOIN public.network_traffic_1h t ON t.server_id = q.server_id
                     AND CASE WHEN q.interface_name IS NULL THEN t.is_lowest ELSE t.interface_name = q.interface_name END
                CROSS JOIN LATERAL (SELECT public.billing_period(t.bucket, q.billing_day, q.time_zone) AS period OFFSET 0) b
                WHERE q.server_id = server.server_id AND t.bucket >= past_points.since - INTERVAL '32 days' AND t.bucket < past_points.until
                GROUP BY 1, 2, 3, 4
            ), used AS (
                SELECT h.at, h.period, h.bytes,
                       CASE h.direction WHEN 'in' THEN sum(h.rx) OVER w WHEN 'out' THEN sum(h.tx) OVER w
                            WHEN 'max' THEN greatest(sum(h.rx) OVER w, sum(h.tx) OVER w) ELSE sum(h.rx) OVER w + sum(h.tx) OVER w END AS bytes_used
                FROM hours h WINDOW w AS (PARTITION BY h.period ORDER BY h.at)
            )
            SELECT server.place, u.at, l.value >= l.bound, l.value < l.bound, l.value::double precision, NULL::timestamptz, always,
                   format('%s of %s bytes used', u.bytes_used, u.bytes), false
            FROM used u
            CROSS JOIN LATERAL (
                SELECT CASE server.subject WHEN 'forecast' THEN CASE WHEN u.at >= lower(u.period) + INTERVAL '2 days' THEN
                           100 * public.network_forecast(u.bytes_used, lower(u.period), upper(u.period), u.at) / u.bytes ELSE 0 END
                       ELSE 100 * u.bytes_used / u.bytes END AS value,
                       CASE server.subject WHEN 'forecast' THEN 100 ELSE rtrim(server.subject, '%')::numeric END AS bound
            ) l
            WHERE u.at > past_points.since ORDER BY u.at;
        END IF;
    END LOOP;
END $$;

-- `rule` is one as the API has it: {"kind": "rate", "scope": …, "for_seconds": …, parameters}; it need not be saved. Episodes
-- that reach into the range, by the same points and the same state machine as those of a turn; one that is under way at its end
-- has no resolved_at. Of `agent` nothing is known but the present, so it has none.
--   basis   rows, or minutes: rows of the beginning of the range are no longer kept
CREATE OR REPLACE FUNCTION linkbeat.alert_episodes(rule jsonb, since timestamptz, until timestamptz)
RETURNS TABLE (
    server_id text, subject text, active_at timestamptz, fired_at timestamptz, cleared_at timestamptz, resolved_at timestamptz,
    value double precision, peak double precision, reason text, basis text
) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET jit = off AS $$
DECLARE
    plan       linkbeat.alert_plans;
    on_minutes CONSTANT boolean := since < clock_timestamp() - linkbeat.configured('retain_raw_days');
    start      timestamptz;
    servers    text[];
    subjects   text[];
    st         linkbeat.alerts;
    was        text;
    p          linkbeat.alert_point;
    place      integer := 0;
BEGIN
    plan := linkbeat.plan_of(rule);
    SELECT array_agg(s.server_id ORDER BY s.server_id, s.subject), array_agg(s.subject ORDER BY s.server_id, s.subject)
    INTO servers, subjects FROM linkbeat.subjects_of(plan) s;
    IF servers IS NULL THEN
        RETURN;
    END IF;
    -- Begun early enough that what pends at the beginning of the range has pended.
    start := since - (plan.for_ms + plan.keep_ms) * INTERVAL '1 millisecond' - INTERVAL '15 minutes';
    FOR p IN
        SELECT * FROM linkbeat.alert_points(plan, servers, subjects, array_fill(start, ARRAY[cardinality(servers)]), until, NULL, on_minutes)
            AS s WHERE linkbeat.is_of_samples(plan.kind)
        UNION ALL
        SELECT * FROM linkbeat.past_points(plan, servers, subjects, start, until) AS s WHERE NOT linkbeat.is_of_samples(plan.kind)
        UNION ALL
        SELECT (NULL::linkbeat.alert_point).*  -- after the last subject
    LOOP
        was := st.state;
        IF p.place IS NOT DISTINCT FROM place THEN
            st := linkbeat.alert_step(st, p, plan.for_ms, plan.keep_ms);
        END IF;
        IF was = 'firing' AND (st.state = 'watched' AND st.seen_at >= since OR p.place IS DISTINCT FROM place) THEN
            server_id := st.server_id;
            subject := st.subject;
            active_at := st.active_at;
            fired_at := st.fired_at;
            cleared_at := st.cleared_at;
            resolved_at := CASE st.state WHEN 'watched' THEN st.seen_at END;
            value := st.value;
            peak := st.peak;
            reason := st.reason;
            basis := CASE WHEN on_minutes AND linkbeat.is_of_samples(plan.kind) THEN 'minutes' ELSE 'rows' END;
            RETURN NEXT;
        END IF;
        EXIT WHEN p.place IS NULL;
        IF p.place <> place THEN
            place := p.place;
            st := linkbeat.alert_step(linkbeat.alert_start('', servers[place], subjects[place], start), p, plan.for_ms, plan.keep_ms);
        END IF;
    END LOOP;
END $$;
