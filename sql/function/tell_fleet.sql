-- tell_fleet: one message instead of many where most of the fleet falls silent together: it is the network, a proxy or a
-- certificate in front of the service, and not forty machines. Replaceable: reapplied on every upgrade.

-- Whether messages about single silent servers are held back in this turn.
CREATE OR REPLACE FUNCTION linkbeat.tell_fleet(at timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    grace     CONSTANT interval := linkbeat.silence_grace(NULL);
    clock     linkbeat.alert_clock;
    silent    integer;  -- servers whose silence began to count within the last grace
    untold    integer;
    reporting integer;  -- of the last hour
    overdue   integer;  -- of those, who have missed a heartbeat
    since     timestamptz;
    names     text[];
BEGIN
    SELECT * INTO clock FROM linkbeat.alert_clock;
    SELECT count(DISTINCT a.server_id) FILTER (WHERE clock.fleet_since IS NOT NULL OR a.fired_at > tell_fleet.at - grace),
           count(*) FILTER (WHERE a.told_at IS NULL), min(a.active_at) FILTER (WHERE a.fired_at > tell_fleet.at - grace),
           (array_agg(DISTINCT a.server_id ORDER BY a.server_id))[1:20]
    INTO silent, untold, since, names
    FROM linkbeat.alerts a JOIN linkbeat.alert_rules r USING (rule_id)
    WHERE r.kind = 'silent' AND a.state = 'firing' AND a.cleared_at IS NULL;

    IF clock.fleet_since IS NOT NULL THEN
        IF silent > clock.fleet_count / 2 THEN
            RETURN tell_fleet.at < clock.fleet_since + INTERVAL '10 minutes';
        END IF;
        PERFORM linkbeat.write_fleet_message(clock.fleet_told, 2, jsonb_build_object(
            'state', 'resolved', 'value', silent, 'since', clock.fleet_since, 'until', tell_fleet.at,
            'reason', format('%s of %s servers are still silent', silent, clock.fleet_count)), tell_fleet.at);
        UPDATE linkbeat.alert_clock SET fleet_since = NULL, fleet_told = NULL, fleet_count = NULL;
        RETURN false;
    END IF;
    IF untold = 0 THEN
        RETURN false;
    END IF;
    SELECT count(*), count(*) FILTER (
               WHERE tell_fleet.at - coalesce(s.live_at, s.received_at) > 1.5 * coalesce(s.interval_seconds, 30) * INTERVAL '1 second')
    INTO reporting, overdue
    FROM public.servers s WHERE coalesce(s.live_at, s.received_at) > tell_fleet.at - INTERVAL '1 hour';
    IF silent > 5 AND silent * 2 > reporting THEN
        clock.fleet_told := gen_random_uuid();
        PERFORM linkbeat.write_fleet_message(clock.fleet_told, 1, jsonb_build_object(
            'state', 'firing', 'value', silent, 'since', since, 'servers', names,
            'reason', format('%s of %s servers silent since %s UTC: network, proxy or certificate in front of the service?',
                             silent, reporting, to_char(since AT TIME ZONE 'UTC', 'HH24:MI'))), tell_fleet.at);
        UPDATE linkbeat.alert_clock SET fleet_since = tell_fleet.at, fleet_told = clock.fleet_told, fleet_count = silent;
        RETURN true;
    END IF;
    -- The others are about to follow: the first of them are not told before that is decided.
    RETURN overdue > 5 AND overdue * 2 > reporting AND since IS NOT NULL;
END $$;

-- To every channel that a rule about silence tells.
CREATE OR REPLACE FUNCTION linkbeat.write_fleet_message(episode uuid, sequence integer, shown jsonb, at timestamptz) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO linkbeat.outbox (channel_id, kind, payload, created_at, next_attempt_at)
    SELECT c.channel_id, 'fleet',
           linkbeat.with_note(jsonb_build_object('id', format('%s.%s', episode, sequence), 'episode', episode, 'rule', p.rule_id,
                                                 'severity', p.severity, 'server_id', NULL, 'subject', 'fleet') || shown), at, at
    FROM linkbeat.alert_channels c
    CROSS JOIN LATERAL (
        SELECT p.rule_id, p.severity FROM linkbeat.alert_plans p
        WHERE p.kind = 'silent' AND linkbeat.takes(c, p.severity, p.channels)
        ORDER BY linkbeat.severity_rank(p.severity) DESC, p.rule_id LIMIT 1
    ) p
    WHERE sequence = 1 OR c.sends_resolved
$$;
