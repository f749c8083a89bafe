-- fold_alerts: a rule's states, taken further by what is new.
-- Replaceable: reapplied on every upgrade.

-- How long after its time data still counts as live; what it shows later is history, and pages nobody.
CREATE OR REPLACE FUNCTION linkbeat.alert_max_age() RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN INTERVAL '15 minutes';

-- An event as the turn of `at` records it; `st` is the state that the transition has led to.
CREATE OR REPLACE FUNCTION linkbeat.alert_event(
    st linkbeat.alerts, from_state text, to_state text, moment timestamptz, at timestamptz, reason text
) RETURNS linkbeat.alert_events LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    e linkbeat.alert_events;
BEGIN
    e.episode := st.episode;
    e.sequence := st.sequence;
    e.rule_id := st.rule_id;
    e.server_id := st.server_id;
    e.subject := st.subject;
    e.severity := st.severity;
    e.from_state := from_state;
    e.to_state := to_state;
    e.at := moment;
    e.recorded_at := at;
    e.active_at := st.active_at;
    e.cleared_at := st.cleared_at;
    e.value := st.value;
    e.peak := st.peak;
    e.reason := reason;
    e.is_late := at - moment > linkbeat.alert_max_age();
    e.is_told := st.told_at IS NOT NULL;
    RETURN e;
END $$;

CREATE OR REPLACE FUNCTION linkbeat.record_events(events linkbeat.alert_events[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO linkbeat.alert_events (episode, sequence, rule_id, server_id, subject, severity, from_state, to_state, at,
                                       recorded_at, active_at, cleared_at, value, peak, reason, is_late, is_told)
    SELECT episode, sequence, rule_id, server_id, subject, severity, from_state, to_state, at, recorded_at, active_at,
           cleared_at, value, peak, reason, is_late, is_told
    FROM unnest(events) WITH ORDINALITY ORDER BY ordinality
$$;

CREATE OR REPLACE FUNCTION linkbeat.store_alerts(states linkbeat.alerts[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO linkbeat.alerts AS a SELECT * FROM unnest(states)
    ON CONFLICT (rule_id, server_id, subject) DO UPDATE SET
        state = EXCLUDED.state, active_at = EXCLUDED.active_at, fired_at = EXCLUDED.fired_at, cleared_at = EXCLUDED.cleared_at,
        counted_ms = EXCLUDED.counted_ms, seen_at = EXCLUDED.seen_at, step = EXCLUDED.step,
        watched_until = greatest(a.watched_until, EXCLUDED.watched_until), value = EXCLUDED.value, peak = EXCLUDED.peak,
        reason = EXCLUDED.reason, held = EXCLUDED.held, episode = EXCLUDED.episode, sequence = EXCLUDED.sequence,
        severity = EXCLUDED.severity, channels = EXCLUDED.channels, told_at = EXCLUDED.told_at,
        -- Somebody may have acknowledged it during the turn.
        acknowledged_at = CASE WHEN a.episode = EXCLUDED.episode THEN a.acknowledged_at ELSE EXCLUDED.acknowledged_at END,
        acknowledged_by = CASE WHEN a.episode = EXCLUDED.episode THEN a.acknowledged_by ELSE EXCLUDED.acknowledged_by END
$$;

-- The same of states that are stored already, in half the time.
CREATE OR REPLACE FUNCTION linkbeat.update_alerts(states linkbeat.alerts[]) RETURNS void LANGUAGE plpgsql
SET enable_nestloop = off AS $$
BEGIN
    UPDATE linkbeat.alerts a SET
        state = s.state, active_at = s.active_at, fired_at = s.fired_at, cleared_at = s.cleared_at, counted_ms = s.counted_ms,
        seen_at = s.seen_at, step = s.step, watched_until = greatest(a.watched_until, s.watched_until), value = s.value,
        peak = s.peak, reason = s.reason, held = s.held, episode = s.episode, sequence = s.sequence, severity = s.severity,
        channels = s.channels, told_at = s.told_at,
        -- Somebody may have acknowledged it during the turn.
        acknowledged_at = CASE WHEN a.episode = s.episode THEN a.acknowledged_at ELSE s.acknowledged_at END,
        acknowledged_by = CASE WHEN a.episode = s.episode THEN a.acknowledged_by ELSE s.acknowledged_by END
    FROM unnest(states) AS s
    WHERE (a.rule_id, a.server_id, a.subject) = (s.rule_id, s.server_id, s.subject);
END $$;

-- Candidates that are not watched yet, in parallel arrays as linkbeat.traffic_candidates returns them. Most are: they are updated once,
-- with what is judged (linkbeat.fold_alerts).
CREATE OR REPLACE FUNCTION linkbeat.watch_candidates(
    plans linkbeat.alert_plans[], of_rules text[], of_servers text[], of_subjects text[], lasts timestamptz[], since timestamptz
) RETURNS void LANGUAGE plpgsql SET enable_nestloop = off AS $$
BEGIN
    INSERT INTO linkbeat.alerts (rule_id, server_id, subject, state, seen_at, step, watched_until)
    SELECT c.rule_id, c.server_id, c.subject, 'watched', watch_candidates.since - p.lag, '0', c.last
    FROM unnest(of_rules, of_servers, of_subjects, lasts) AS c(rule_id, server_id, subject, last)
    JOIN unnest(plans) AS p USING (rule_id)
    LEFT JOIN linkbeat.alerts a USING (rule_id, server_id, subject)
    WHERE a.rule_id IS NULL
    ON CONFLICT DO NOTHING;
END $$;

CREATE OR REPLACE FUNCTION linkbeat.is_of_samples(kind text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN kind IN ('rate', 'link', 'errors', 'filesystem');

-- The newest samples that a turn judges of the interfaces that have a row in linkbeat.alerts, once for all rules: those of half a
-- minute have one in every second turn, and windows need not be read in the others.
--   by_15, by_60  the time of the newest sample up to 15 and 60 seconds before `at`, the lags of rules; null: there is no such
--                 sample, or no rule of that lag on this interface
CREATE OR REPLACE FUNCTION linkbeat.newest_samples(plans linkbeat.alert_plans[], at timestamptz)
RETURNS TABLE (server_id text, subject text, by_15 timestamptz, by_60 timestamptz) LANGUAGE plpgsql STABLE AS $$
DECLARE
    rules  CONSTANT text[] := ARRAY(SELECT p.rule_id FROM unnest(plans) AS p WHERE p.kind IN ('rate', 'link', 'errors'));
    slow   CONSTANT text[] := ARRAY(SELECT p.rule_id FROM unnest(plans) AS p
                                    WHERE p.kind IN ('rate', 'link', 'errors') AND p.lag > INTERVAL '15 seconds');
    oldest CONSTANT timestamptz := (SELECT min(a.seen_at) FROM linkbeat.alerts a WHERE a.rule_id = ANY (rules));
BEGIN
    IF oldest IS NULL THEN
        RETURN;
    END IF;
    -- The lowest bound is a constant to the planner, which leaves out the chunks before it.
    RETURN QUERY EXECUTE $sql$
        SELECT d.server_id, d.subject, a.time, b.time
        FROM (SELECT x.server_id, x.subject, bool_or(x.rule_id = ANY ($5)) AS is_slow, bool_or(x.rule_id <> ALL ($5)) AS is_fast
              FROM linkbeat.alerts x WHERE x.rule_id = ANY ($1) GROUP BY 1, 2 OFFSET 0) d
        LEFT JOIN LATERAL (
            SELECT n.time FROM public.network_interface_metrics n
            WHERE d.is_fast AND n.server_id = d.server_id AND n.interface_name = d.subject AND n.time > $2 AND n.time <= $3
            ORDER BY n.time DESC LIMIT 1
        ) a ON true
        LEFT JOIN LATERAL (
            SELECT n.time FROM public.network_interface_metrics n
            WHERE d.is_slow AND n.server_id = d.server_id AND n.interface_name = d.subject AND n.time > $2 AND n.time <= $4
            ORDER BY n.time DESC LIMIT 1
        ) b ON true $sql$
    USING rules, oldest, at - INTERVAL '15 seconds', at - INTERVAL '60 seconds', slow;
END $$;

-- How long after their time a turn judges rows of a server, and so how long their subjects are watched: of the kinds that
-- linkbeat.alert_points lets wait, two intervals of the server at least.
CREATE OR REPLACE FUNCTION linkbeat.judged_after(plan linkbeat.alert_plans, of_server text) RETURNS interval LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN plan.kind IN ('link', 'filesystem') OR plan.is_below THEN greatest(plan.lag, 2 * coalesce(
               (SELECT s.interval_seconds FROM public.servers s WHERE s.server_id = of_server), 30) * INTERVAL '1 second')
           ELSE plan.lag END
$$;

-- What all rules say of the subjects that a turn judges, in parallel arrays ordered by rule.
--   numbers  of the rule in `plans`
CREATE OR REPLACE FUNCTION linkbeat.turn_points(
    plans linkbeat.alert_plans[], numbers integer[], of_servers text[], of_subjects text[], since timestamptz[],
    previous timestamptz, at timestamptz
) RETURNS SETOF linkbeat.alert_point LANGUAGE plpgsql STABLE AS $$
DECLARE
    -- Sums up to each row are for windows that share most of their rows; of a backlog they would be long arrays.
    backlog CONSTANT timestamptz := at - INTERVAL '1 hour';
    summed  record;
    places  integer[];
    rule    record;
BEGIN
    SELECT array_agg(i.place::integer) AS places, array_agg(i.number) AS numbers, array_agg(i.server_id) AS servers,
           array_agg(i.subject) AS subjects, array_agg(i.since) AS since
    INTO summed
    FROM unnest(numbers, of_servers, of_subjects, turn_points.since) WITH ORDINALITY AS i(number, server_id, subject, since, place)
    JOIN unnest(plans) WITH ORDINALITY AS r ON r.ordinality = i.number
    WHERE r.kind IN ('rate', 'errors') AND i.since > backlog;
    IF summed.places IS NOT NULL THEN
        places := summed.places;
        RETURN QUERY
        SELECT places[p.place], p.at, p.is_true, p.is_clear, p.value, p.active_at, p.step, p.reason, p.is_low
        FROM linkbeat.traffic_points(plans, summed.numbers, summed.servers, summed.subjects, summed.since, turn_points.at) p;
    END IF;
    FOR rule IN
        SELECT i.number, array_agg(i.place::integer ORDER BY i.place) AS places, array_agg(i.server_id ORDER BY i.place) AS servers,
               array_agg(i.subject ORDER BY i.place) AS subjects, array_agg(i.since ORDER BY i.place) AS since
        FROM unnest(numbers, of_servers, of_subjects, turn_points.since) WITH ORDINALITY AS i(number, server_id, subject, since, place)
        JOIN unnest(plans) WITH ORDINALITY AS r ON r.ordinality = i.number
        WHERE r.kind NOT IN ('rate', 'errors') OR i.since <= backlog
        GROUP BY 1
    LOOP
        IF linkbeat.is_of_samples(plans[rule.number].kind) THEN
            RETURN QUERY
            SELECT rule.places[p.place], p.at, p.is_true, p.is_clear, p.value, p.active_at, p.step, p.reason, p.is_low
            FROM linkbeat.alert_points(plans[rule.number], rule.servers, rule.subjects, rule.since,
                                       turn_points.at - plans[rule.number].lag, turn_points.at) p;
        ELSE
            RETURN QUERY
            SELECT rule.places[p.place], p.at, p.is_true, p.is_clear, p.value, p.active_at, p.step, p.reason, p.is_low
            FROM linkbeat.server_points(plans[rule.number], rule.servers, rule.subjects, previous, turn_points.at) p;
        END IF;
    END LOOP;
END $$;

-- Judges all that is new of the subjects that have a row in linkbeat.alerts.
--   of_rules, of_servers, of_subjects, lasts  parallel arrays: until when candidates of this turn are to be watched
CREATE OR REPLACE FUNCTION linkbeat.fold_alerts(
    plans linkbeat.alert_plans[], previous timestamptz, at timestamptz,
    of_rules text[], of_servers text[], of_subjects text[], lasts timestamptz[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    numbers  integer[];
    servers  text[];
    subjects text[];
    since    timestamptz[];
    states   linkbeat.alerts[];
    watched  timestamptz[];  -- until when
    changed  linkbeat.alerts[] := '{}';
    events   linkbeat.alert_events[] := '{}';
    st       linkbeat.alerts;
    plan     linkbeat.alert_plans;
    p        linkbeat.alert_point;
    number   integer := 0;
    place    integer := 0;
    was      text;
BEGIN
    SELECT array_agg(w.number), array_agg(w.server_id), array_agg(w.subject), array_agg(w.seen_at), array_agg(w.a),
           array_agg(w.last)
    INTO numbers, servers, subjects, since, states, watched
    FROM (
        SELECT r.ordinality::integer AS number, a.server_id, a.subject, a.seen_at, a, c.last
        FROM linkbeat.alerts a
        JOIN unnest(plans) WITH ORDINALITY AS r USING (rule_id)
        LEFT JOIN linkbeat.newest_samples(plans, fold_alerts.at) n
             ON r.kind IN ('rate', 'link', 'errors') AND n.server_id = a.server_id AND n.subject = a.subject
        LEFT JOIN unnest(of_rules, of_servers, of_subjects, lasts) AS c(rule_id, server_id, subject, last)
             ON (c.rule_id, c.server_id, c.subject) = (a.rule_id, a.server_id, a.subject)
        WHERE r.kind NOT IN ('rate', 'link', 'errors') OR CASE WHEN r.lag > INTERVAL '15 seconds' THEN n.by_60 ELSE n.by_15 END > a.seen_at
        ORDER BY a.rule_id, a.server_id, a.subject
    ) w;
    FOR p IN
        SELECT * FROM linkbeat.turn_points(plans, numbers, servers, subjects, since, previous, fold_alerts.at) AS t ORDER BY t.place, t.at
    LOOP
        IF p.place <> place THEN
            IF place > 0 THEN
                changed := array_append(changed, st);
            END IF;
            place := p.place;
            st := states[place];
            st.watched_until := greatest(st.watched_until, watched[place]);
            IF numbers[place] <> number THEN
                number := numbers[place];
                plan := plans[number];
            END IF;
        END IF;
        was := st.state;
        st := linkbeat.alert_step(st, p, plan.for_ms, plan.keep_ms);
        IF st.state = 'firing' AND was <> 'firing' THEN
            st.sequence := 1;
            st.severity := plan.severity;
            st.channels := plan.channels;
            events := array_append(events, linkbeat.alert_event(
                st, CASE was WHEN 'watched' THEN 'ok' ELSE was END, 'firing', p.at, fold_alerts.at, st.reason));
        ELSIF was = 'firing' AND st.state = 'watched' THEN
            st.sequence := st.sequence + 1;
            events := array_append(events, linkbeat.alert_event(st, 'firing', 'resolved', p.at, fold_alerts.at, st.reason));
        END IF;
    END LOOP;
    IF place > 0 THEN
        PERFORM linkbeat.update_alerts(array_append(changed, st));
        PERFORM linkbeat.record_events(events);
    END IF;
    -- Of candidates that were not judged.
    UPDATE linkbeat.alerts a SET watched_until = c.last
    FROM unnest(of_rules, of_servers, of_subjects, lasts) AS c(rule_id, server_id, subject, last)
    WHERE (a.rule_id, a.server_id, a.subject) = (c.rule_id, c.server_id, c.subject) AND (a.watched_until < c.last OR a.watched_until IS NULL);
    DELETE FROM linkbeat.alerts a USING unnest(plans) AS r
    WHERE a.rule_id = r.rule_id AND a.state = 'watched' AND coalesce(a.watched_until, '-infinity') < fold_alerts.at - r.lag
      -- The same bound or a longer one, which costs a look-up.
      AND coalesce(a.watched_until, '-infinity') < fold_alerts.at - linkbeat.judged_after(r, a.server_id);
END $$;
