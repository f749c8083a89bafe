-- tell_alerts: decides which alerts somebody is told of in a turn, and writes the messages into the outbox.
-- Replaceable: reapplied on every upgrade.

CREATE OR REPLACE FUNCTION linkbeat.severity_rank(severity text) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE severity WHEN 'critical' THEN 3 WHEN 'warning' THEN 2 ELSE 1 END;

-- An alert as messages show it; bounded, because names of mount points may have thousands of characters.
CREATE OR REPLACE FUNCTION linkbeat.alert_json(
    episode uuid, sequence integer, state text, rule_id text, severity text, server_id text, subject text,
    value double precision, peak double precision, active_at timestamptz, cleared_at timestamptz, reason text
) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'id', format('%s.%s', episode, sequence), 'episode', episode, 'state', state, 'rule', rule_id, 'severity', severity,
        'server_id', server_id, 'subject', left(subject, 200), 'value', value, 'peak', peak, 'since', active_at,
        'until', cleared_at, 'reason', left(reason, 300))
$$;

-- The same with the note and the runbook that its rule has now; null: none, or the rule was removed. A note is cut, because a message
-- names up to 20 alerts.
CREATE OR REPLACE FUNCTION linkbeat.with_note(shown jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT shown || jsonb_build_object('note', nullif(left(r.spec ->> 'note', 500), ''), 'runbook', nullif(r.spec ->> 'runbook', ''))
    FROM (SELECT) AS one LEFT JOIN linkbeat.alert_rules r ON r.rule_id = shown ->> 'rule'
$$;

CREATE OR REPLACE FUNCTION linkbeat.takes(c linkbeat.alert_channels, severity text, channels text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN c.enabled AND linkbeat.severity_rank(severity) >= linkbeat.severity_rank(c.min_severity)
   AND (channels IS NULL OR c.channel_id = ANY (channels));

-- Adds items to the message of each channel that is still being gathered, or begins one: a turn within ten seconds joins.
CREATE OR REPLACE FUNCTION linkbeat.write_messages(
    of_channels text[], episodes uuid[], sequences integer[], transitions text[], shown jsonb[], at timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    channel record;
    message uuid;
BEGIN
    FOR channel IN
        SELECT c.channel_id, coalesce(c.digest, INTERVAL '10 seconds') AS waits
        FROM linkbeat.alert_channels c WHERE c.channel_id = ANY (of_channels) ORDER BY 1
    LOOP
        SELECT o.message_id INTO message FROM linkbeat.outbox o
        WHERE o.channel_id = channel.channel_id AND o.kind = 'alerts' AND o.attempts = 0 AND o.next_attempt_at > write_messages.at
          AND o.delivered_at IS NULL AND o.dead_at IS NULL
        ORDER BY o.created_at LIMIT 1 FOR UPDATE;
        IF NOT FOUND THEN
            INSERT INTO linkbeat.outbox (channel_id, created_at, next_attempt_at)
            VALUES (channel.channel_id, write_messages.at, write_messages.at + channel.waits)
            RETURNING message_id INTO message;
        END IF;
        INSERT INTO linkbeat.outbox_items (message_id, episode, sequence, transition, alert)
        SELECT message, i.episode, i.sequence, i.transition, i.alert
        FROM unnest(of_channels, episodes, sequences, transitions, shown) AS i(channel_id, episode, sequence, transition, alert)
        WHERE i.channel_id = channel.channel_id
        ON CONFLICT DO NOTHING;
    END LOOP;
END $$;

-- Whoever is kept from being told (by a mute, a silent server, a silent fleet) is told when that is over, if the alert still
-- fires then. The end of what was told is told at once.
CREATE OR REPLACE FUNCTION linkbeat.tell_alerts(at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    holds_silent CONSTANT boolean := linkbeat.tell_fleet(at);
    told         linkbeat.alerts[];  -- with the sequence of the message
    transitions  text[];             -- null: not worth one
    items        record;
BEGIN
    SELECT array_agg(f.a), array_agg(f.transition) INTO told, transitions
    FROM (
        SELECT a, CASE WHEN a.told_at IS NOT NULL THEN 'repeated' WHEN n.recent < 3 THEN 'firing' WHEN n.recent = 3 THEN 'flapping' END AS transition
        FROM (
            -- Most that fire were told of. OFFSET 0, or mutes would be looked through for them too.
            SELECT x, x.*
            FROM linkbeat.alerts x JOIN linkbeat.alert_rules k USING (rule_id)
            WHERE x.state = 'firing'
              AND (x.told_at IS NULL
                   OR x.acknowledged_at IS NULL
                      AND x.told_at + linkbeat.alert_number(k.spec, 'repeat_seconds') * INTERVAL '1 second' <= tell_alerts.at)
            OFFSET 0
        ) a(a) JOIN linkbeat.alert_rules r USING (rule_id)
        -- From the third episode within an hour on, a subject is told to flap, once, and then only its ends.
        CROSS JOIN LATERAL (
            SELECT count(*) AS recent FROM linkbeat.alert_events e
            WHERE (e.rule_id, e.server_id, e.subject) = (a.rule_id, a.server_id, a.subject) AND e.to_state = 'firing'
              AND e.at > tell_alerts.at - INTERVAL '1 hour' AND e.at <= tell_alerts.at
        ) n
        -- While a backlog comes in, what it holds is history.
        WHERE (a.told_at IS NOT NULL OR tell_alerts.at - a.seen_at <= linkbeat.alert_max_age())
          AND NOT (r.kind = 'silent' AND holds_silent)
          AND (r.kind = 'silent' OR NOT EXISTS (
               SELECT FROM linkbeat.alerts s JOIN linkbeat.alert_rules k USING (rule_id)
               WHERE s.server_id = a.server_id AND s.state = 'firing' AND s.cleared_at IS NULL AND k.kind = 'silent' AND k.enabled))
          AND NOT linkbeat.is_muted(a.rule_id, a.server_id, tell_alerts.at)
          AND EXISTS (SELECT FROM linkbeat.alert_channels c WHERE linkbeat.takes(c, a.severity, a.channels))
    ) f;
    UPDATE linkbeat.alerts a SET told_at = tell_alerts.at, sequence = a.sequence + (t.transition IS NOT DISTINCT FROM 'repeated')::integer
    FROM unnest(told, transitions) AS t(rule_id, server_id, subject, state, active_at, fired_at, cleared_at, counted_ms, seen_at,
        step, watched_until, value, peak, reason, held, episode, sequence, severity, channels, told_at, acknowledged_at,
        acknowledged_by, transition)
    WHERE (a.rule_id, a.server_id, a.subject) = (t.rule_id, t.server_id, t.subject);

    SELECT array_agg(c.channel_id) AS channels, array_agg(m.episode) AS episodes, array_agg(m.sequence) AS sequences,
           array_agg(m.transition) AS transitions,
           array_agg(linkbeat.alert_json(m.episode, m.sequence, m.state, m.rule_id, m.severity, m.server_id,
                                         linkbeat.told_subject(m.episode, m.subject), m.value,
                                         m.peak, m.active_at, m.cleared_at, m.reason)) AS shown
    INTO items
    FROM (
        SELECT a.episode, a.sequence, t.transition, 'firing' AS state, a.rule_id, a.severity, a.server_id, a.subject, a.value,
               a.peak, a.active_at, NULL::timestamptz AS cleared_at, a.reason, a.channels
        FROM unnest(told, transitions) AS t(rule_id, server_id, subject, state, active_at, fired_at, cleared_at, counted_ms,
            seen_at, step, watched_until, value, peak, reason, held, episode, sequence, severity, channels, told_at,
            acknowledged_at, acknowledged_by, transition)
        JOIN linkbeat.alerts a USING (rule_id, server_id, subject)
        WHERE t.transition IS NOT NULL
        UNION ALL
        SELECT e.episode, e.sequence, CASE WHEN e.is_told THEN e.to_state ELSE 'late' END, e.to_state, e.rule_id, e.severity,
               e.server_id, e.subject, e.value, e.peak, e.active_at, coalesce(e.cleared_at, e.at), e.reason,
               linkbeat.channels_of(e)
        FROM linkbeat.alert_events e
        WHERE e.recorded_at = tell_alerts.at AND e.to_state <> 'firing' AND (e.is_told OR e.is_late)
    ) m
    JOIN linkbeat.alert_channels c ON linkbeat.takes(c, m.severity, m.channels)
         AND CASE m.transition WHEN 'late' THEN c.sends_late WHEN 'resolved' THEN c.sends_resolved WHEN 'closed' THEN c.sends_resolved ELSE true END;
    IF items.channels IS NOT NULL THEN
        PERFORM linkbeat.write_messages(items.channels, items.episodes, items.sequences, items.transitions, items.shown, tell_alerts.at);
    END IF;
END $$;

-- Whom the end of an alert is told: the channels that its rule has, or every one if the rule is gone.
CREATE OR REPLACE FUNCTION linkbeat.channels_of(e linkbeat.alert_events) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT channels FROM linkbeat.alert_plans WHERE rule_id = e.rule_id
$$;
