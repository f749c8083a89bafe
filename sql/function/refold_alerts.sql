-- refold_alerts: what late data adds to the history of alerts. Replaceable: reapplied on every upgrade.

-- What late heartbeats of servers change, in parallel arrays: their rules are asked which subjects may be concerned, all at
-- once, and those alone are judged again.
--   turn_since  of this turn: rows after it, less a rule's lag, are yet to be judged
CREATE OR REPLACE FUNCTION linkbeat.take_late(
    plans linkbeat.alert_plans[], servers text[], since timestamptz[], until timestamptz[], turn_since timestamptz, at timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    looked record;
    late   record;
BEGIN
    SELECT array_agg(f.rule_id) AS rules, array_agg(f.server_id) AS servers, array_agg(f.subject) AS subjects, array_agg(f.last) AS lasts
    INTO looked
    FROM (
        SELECT * FROM linkbeat.traffic_candidates(plans, NULL, NULL, servers, take_late.since, take_late.until)
        UNION ALL
        SELECT * FROM linkbeat.filesystem_candidates(plans, NULL, NULL, servers, take_late.since, take_late.until)
        UNION ALL
        SELECT a.rule_id, a.server_id, a.subject, a.watched_until FROM linkbeat.alerts a WHERE a.server_id = ANY (servers)
    ) f;
    PERFORM linkbeat.mark_signs(looked.rules, looked.servers, looked.subjects, looked.lasts, at);
    PERFORM linkbeat.unmark_signs(servers, at);
    FOR late IN
        SELECT p AS plan, l.*, k.subjects, k.lasts
        FROM (
            SELECT c.rule_id, c.server_id, array_agg(c.subject ORDER BY c.subject) AS subjects, array_agg(c.last ORDER BY c.subject) AS lasts
            FROM (
                SELECT f.rule_id, f.server_id, f.subject, max(f.last) AS last
                FROM unnest(looked.rules, looked.servers, looked.subjects, looked.lasts) AS f(rule_id, server_id, subject, last)
                GROUP BY 1, 2, 3
            ) c
            GROUP BY 1, 2
        ) k
        JOIN unnest(servers, take_late.since, take_late.until) AS l(server_id, since, until) USING (server_id)
        JOIN unnest(plans) AS p USING (rule_id)
        WHERE linkbeat.is_of_samples(p.kind)
        ORDER BY k.rule_id, k.server_id
    LOOP
        IF late.since <= at - (late.plan).lag THEN
            PERFORM linkbeat.refold_alerts(late.plan, late.server_id, late.since, late.until, at, late.subjects, late.lasts);
        END IF;
        IF late.until > at - linkbeat.judged_after(late.plan, late.server_id) THEN
            -- To be judged by a later turn, and looked through by none; from the end on of an episode that is recorded, which
            -- would be recorded again as one that goes on.
            INSERT INTO linkbeat.alerts AS a (rule_id, server_id, subject, state, seen_at, step, watched_until, cleared_at)
            SELECT (late.plan).rule_id, late.server_id, c.subject, 'watched',
                   greatest(least(turn_since - (late.plan).lag, late.since - INTERVAL '1 microsecond'), ended.at), '0', c.last,
                   ended.cleared_at
            FROM unnest(late.subjects, late.lasts) AS c(subject, last)
            LEFT JOIN LATERAL (
                SELECT e.at, e.cleared_at FROM linkbeat.alert_events e
                WHERE (e.rule_id, e.server_id, e.subject) = ((late.plan).rule_id, late.server_id, c.subject) AND e.to_state <> 'firing'
                ORDER BY e.at DESC LIMIT 1) AS ended ON true
            ON CONFLICT (rule_id, server_id, subject) DO UPDATE SET watched_until = greatest(a.watched_until, EXCLUDED.watched_until);
        END IF;
    END LOOP;
END $$;

-- From when on a subject is judged again whose late rows begin at `since`: as far back as the rule reaches, and as many
-- samples as it then has. Where there are gaps, they are older: in a gap the clocks of an alert stand still.
CREATE OR REPLACE FUNCTION linkbeat.reached_from(plan linkbeat.alert_plans, of_server text, of_subject text, since timestamptz)
RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
DECLARE
    reach    CONSTANT interval := linkbeat.late_reach(plan);
    seconds  CONSTANT double precision := coalesce((SELECT s.interval_seconds FROM public.servers s WHERE s.server_id = of_server), 30);
    samples  CONSTANT bigint := ceil(extract(epoch FROM reach) / seconds);
    earliest timestamptz;
BEGIN
    IF plan.kind = 'filesystem' THEN
        SELECT min(time) INTO earliest FROM (
            SELECT m.time FROM public.filesystem_metrics m
            WHERE m.server_id = of_server AND m.mount_point = of_subject AND m.time < since AND m.time > since - INTERVAL '1 day'
            ORDER BY m.time DESC LIMIT samples) m;
    ELSE
        SELECT min(time) INTO earliest FROM (
            SELECT m.time FROM public.network_interface_metrics m
            WHERE m.server_id = of_server AND m.interface_name = of_subject AND m.time < since AND m.time > since - INTERVAL '1 day'
            ORDER BY m.time DESC LIMIT samples) m;
    END IF;
    RETURN least(since - reach, earliest - INTERVAL '1 microsecond');
END $$;

-- For a rule and a server: the time that late rows may have changed is judged again, from before, in the same way. Episodes
-- that nothing recorded yet are recorded, as late ones; what is recorded stays, because somebody may have been told. A subject
-- that is not firing takes on the state that comes out at the end.
--   of_subjects, lasts  parallel arrays; until when each is to be watched
CREATE OR REPLACE FUNCTION linkbeat.refold_alerts(
    plan linkbeat.alert_plans, of_server text, since timestamptz, until timestamptz, at timestamptz, of_subjects text[], lasts timestamptz[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    horizon  CONSTANT timestamptz := at - plan.lag;
    begins   timestamptz[];
    states   linkbeat.alerts[];
    stands   linkbeat.alerts[];  -- as stored; null: not
    fired    linkbeat.alert_events;
    st       linkbeat.alerts;
    p        linkbeat.alert_point;
    place    integer := 0;
    was      text;
BEGIN
    SELECT array_agg(b.moment ORDER BY c.place), array_agg(a ORDER BY c.place), array_agg(coalesce(
               -- An episode that was recorded is under way at the start.
               (SELECT ROW(e.rule_id, e.server_id, e.subject, 'firing', e.active_at, e.at, NULL, 0, b.moment, INTERVAL '0', NULL, e.value,
                           e.peak, e.reason, false, e.episode, e.sequence, e.severity, NULL, NULL, NULL, NULL)::linkbeat.alerts
                FROM linkbeat.alert_events e
                WHERE (e.rule_id, e.server_id, e.subject) = (plan.rule_id, of_server, c.subject) AND e.to_state = 'firing' AND e.at <= b.moment
                  AND NOT EXISTS (SELECT FROM linkbeat.alert_events n WHERE n.episode = e.episode AND n.to_state <> 'firing' AND n.at <= b.moment)
                ORDER BY e.at DESC LIMIT 1),
               linkbeat.alert_start(plan.rule_id, of_server, c.subject, b.moment)) ORDER BY c.place)
    INTO begins, stands, states
    FROM unnest(of_subjects) WITH ORDINALITY AS c(subject, place)
    LEFT JOIN linkbeat.alerts a ON (a.rule_id, a.server_id, a.subject) = (plan.rule_id, of_server, c.subject)
    -- What pends may have been held for longer than that: it would be forgotten.
    CROSS JOIN LATERAL (SELECT least(linkbeat.reached_from(plan, of_server, c.subject, refold_alerts.since),
                                     CASE WHEN a.state = 'pending' THEN a.active_at - INTERVAL '1 microsecond' END) AS moment) b;
    FOR p IN
        SELECT * FROM linkbeat.alert_points(plan, array_fill(of_server, ARRAY[cardinality(of_subjects)]), of_subjects,
                                            begins, horizon, at)
        UNION ALL
        SELECT (NULL::linkbeat.alert_point).*  -- after the last subject
    LOOP
        IF p.place IS DISTINCT FROM place THEN
            IF place > 0 THEN
                PERFORM linkbeat.take_on(stands[place], st, lasts[place], fired, at);
            END IF;
            EXIT WHEN p.place IS NULL;
            place := p.place;
            st := states[place];
            fired := NULL;
        END IF;
        was := st.state;
        st := linkbeat.alert_step(st, p, plan.for_ms, plan.keep_ms);
        IF st.state = 'firing' AND was <> 'firing' THEN
            st.sequence := 1;
            st.severity := plan.severity;
            st.channels := plan.channels;
            fired := linkbeat.alert_event(st, CASE was WHEN 'watched' THEN 'ok' ELSE was END, 'firing', p.at, at, st.reason);
        ELSIF was = 'firing' AND st.state = 'watched' THEN
            IF fired.episode = st.episode AND linkbeat.is_unrecorded(fired, st.cleared_at) THEN
                st.sequence := 2;
                PERFORM linkbeat.record_events(ARRAY[fired, linkbeat.alert_event(st, 'firing', 'resolved', p.at, at, st.reason)]);
            END IF;
            fired := NULL;
        END IF;
    END LOOP;
END $$;

-- Whether no recorded episode of the subject overlaps the one from the event `fired` up to `cleared_at`.
CREATE OR REPLACE FUNCTION linkbeat.is_unrecorded(fired linkbeat.alert_events, cleared_at timestamptz) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT NOT EXISTS (
        SELECT FROM linkbeat.alert_events e
        LEFT JOIN linkbeat.alert_events n ON n.episode = e.episode AND n.to_state <> 'firing'
        WHERE (e.rule_id, e.server_id, e.subject) = (fired.rule_id, fired.server_id, fired.subject) AND e.to_state = 'firing'
          AND e.active_at <= is_unrecorded.cleared_at AND coalesce(n.cleared_at, n.at, 'infinity') >= fired.active_at)
$$;

-- The state that judging late data again led to, where the subject is not firing already.
CREATE OR REPLACE FUNCTION linkbeat.take_on(
    stands linkbeat.alerts, st linkbeat.alerts, last timestamptz, fired linkbeat.alert_events, at timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF stands.state = 'firing' OR st.seen_at < stands.seen_at THEN
        RETURN;
    END IF;
    IF st.state = 'firing' THEN
        IF fired.episode IS DISTINCT FROM st.episode OR NOT linkbeat.is_unrecorded(fired, st.seen_at) THEN
            RETURN;
        END IF;
        PERFORM linkbeat.record_events(ARRAY[fired]);
    END IF;
    st.watched_until := last;
    PERFORM linkbeat.store_alerts(ARRAY[st]);
END $$;
