-- close_alerts: what ends without its condition being over, and what is held. Replaceable: reapplied on every upgrade.

-- Why an alert cannot go on; null: it can.
CREATE OR REPLACE FUNCTION linkbeat.why_closed(a linkbeat.alerts, at timestamptz) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    plan      linkbeat.alert_plans;
    last_seen timestamptz;
BEGIN
    SELECT * INTO plan FROM linkbeat.alert_plans WHERE rule_id = a.rule_id;
    IF NOT FOUND THEN
        RETURN CASE WHEN EXISTS (SELECT FROM linkbeat.alert_rules WHERE rule_id = a.rule_id) THEN 'rule_disabled' ELSE 'rule_removed' END;
    END IF;
    SELECT s.last_seen INTO last_seen FROM public.servers s WHERE s.server_id = a.server_id;
    IF NOT FOUND THEN
        RETURN 'server_removed';
    END IF;
    IF plan.kind = 'quota' THEN
        RETURN (SELECT CASE WHEN q.server_id IS NULL THEN 'gone'
                            WHEN NOT linkbeat.is_server_in(plan.servers, plan.tags, a.server_id) OR a.subject NOT IN (SELECT linkbeat.quota_levels(plan.spec))
                            THEN 'out_of_scope'
                            WHEN lower(public.billing_period(why_closed.at, q.billing_day, q.time_zone)) > a.active_at THEN 'period_over' END
                FROM (SELECT) AS one LEFT JOIN linkbeat.quotas q ON q.server_id = a.server_id);
    END IF;
    IF NOT linkbeat.is_server_in(plan.servers, plan.tags, a.server_id)
       OR plan.kind IN ('rate', 'link', 'errors') AND NOT linkbeat.in_scope(plan, a.server_id, a.subject)
       OR plan.kind = 'filesystem' AND plan.interfaces IS NOT NULL AND a.subject !~ plan.interfaces
       OR linkbeat.is_of_samples(plan.kind) = (a.subject = '') THEN  -- the rule has become one of another kind
        RETURN 'out_of_scope';
    END IF;
    -- The server reports, and has not named it for a day.
    RETURN CASE WHEN linkbeat.is_of_samples(plan.kind) AND last_seen - a.seen_at > INTERVAL '24 hours' THEN 'gone' END;
END $$;

CREATE OR REPLACE FUNCTION linkbeat.close_alerts(plans linkbeat.alert_plans[], at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    closed linkbeat.alert_events[];
BEGIN
    WITH closing AS (
        -- The question costs tenths of a millisecond: asked where the answer can be anything but null. OFFSET 0, or it would
        -- be asked of every alert, before the joins. Servers that are removed are noted; of others, only what was not judged
        -- for long may be over.
        SELECT c.a, linkbeat.why_closed(c.a, close_alerts.at) AS why
        FROM (
            SELECT a
            FROM linkbeat.alerts a LEFT JOIN unnest(plans) AS p USING (rule_id)
            WHERE p.rule_id IS NULL OR p.kind = 'quota' OR p.kinds IS NOT NULL
               OR a.seen_at < close_alerts.at - INTERVAL '10 minutes' AND coalesce((
                      SELECT s.last_seen - a.seen_at > INTERVAL '24 hours' FROM public.servers s WHERE s.server_id = a.server_id), true)
               OR a.server_id !~ p.servers OR p.tags IS NOT NULL OR a.subject !~ p.interfaces
               OR linkbeat.is_of_samples(p.kind) = (a.subject = '') OR a.server_id IN (SELECT n.server_id FROM linkbeat.suspects n)
            OFFSET 0
        ) c
    ), deleted AS (
        DELETE FROM linkbeat.alerts a USING closing c
        WHERE c.why IS NOT NULL AND (a.rule_id, a.server_id, a.subject) = ((c.a).rule_id, (c.a).server_id, (c.a).subject)
        RETURNING a, c.why
    )
    SELECT array_agg(linkbeat.alert_event(d.a, 'firing', 'closed', close_alerts.at, close_alerts.at, d.why)) INTO closed
    FROM deleted d WHERE (d.a).state = 'firing';
    closed := ARRAY(SELECT linkbeat.with_next_sequence(e) FROM unnest(closed) AS e);
    PERFORM linkbeat.record_events(closed);
END $$;

-- After what is new was judged.
CREATE OR REPLACE FUNCTION linkbeat.hold_alerts(at timestamptz) RETURNS void LANGUAGE sql AS $$
    -- A server that is silent says nothing of its subjects: neither clock runs, and nothing resolves.
    UPDATE linkbeat.alerts a SET held = true
    WHERE a.state IN ('pending', 'firing') AND NOT a.held
      AND a.seen_at + greatest(a.step, INTERVAL '60 seconds') < hold_alerts.at - INTERVAL '60 seconds'
$$;

CREATE OR REPLACE FUNCTION linkbeat.with_next_sequence(e linkbeat.alert_events) RETURNS linkbeat.alert_events
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    e.sequence := e.sequence + 1;
    RETURN e;
END $$;
