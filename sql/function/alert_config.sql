-- What the service reads and writes about alerts beside rules, mutes and messages: the secrets of channels, what is told
-- again and again, and what a file of rules and channels makes of the stored ones.
-- Replaceable: reapplied on every upgrade.

-- Channels with their secrets, for the service alone: it sends with them, and keeps those that a change leaves out.
CREATE OR REPLACE FUNCTION linkbeat.alert_channel_secrets(of_channel text DEFAULT NULL)
RETURNS TABLE (channel_id text, kind text, spec jsonb, secret bytea, time_zone text, managed_by text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT c.channel_id, c.kind, c.spec, c.secret, c.time_zone, c.managed_by FROM linkbeat.alert_channels c
    WHERE of_channel IS NULL AND c.enabled OR c.channel_id = of_channel
$$;

-- claim_messages, with when each message was begun. By statements of their own: a message that the claim has just put in
-- another's place is not there for the statement that claims.
CREATE OR REPLACE FUNCTION linkbeat.claim_deliveries(at_most integer, at timestamptz DEFAULT clock_timestamp())
RETURNS TABLE (
    message_id uuid, channel_id text, kind text, spec jsonb, secret bytea, time_zone text, payload jsonb, attempts integer,
    created_at timestamptz
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    claimed record;
BEGIN
    FOR claimed IN SELECT * FROM linkbeat.claim_messages(at_most, claim_deliveries.at) LOOP
        RETURN QUERY
        SELECT claimed.message_id, claimed.channel_id, claimed.channel_kind, claimed.channel_spec, claimed.secret, claimed.time_zone,
               claimed.payload, claimed.attempts, o.created_at
        FROM linkbeat.outbox o WHERE o.message_id = claimed.message_id;
    END LOOP;
END $$;

-- Since when the oldest message that should have been delivered by now has waited; null: there is none.
CREATE OR REPLACE FUNCTION linkbeat.oldest_undelivered(at timestamptz DEFAULT clock_timestamp()) RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT min(o.created_at) FROM linkbeat.outbox o
    WHERE o.delivered_at IS NULL AND o.dead_at IS NULL AND (o.attempts > 0 OR o.next_attempt_at <= at)
$$;

-- The alerts that a channel has been told of and that fire, and those that ended within the time given: what an Alertmanager
-- is told again and again.
CREATE OR REPLACE FUNCTION linkbeat.standing_alerts(
    of_channel text, ended_within interval, at timestamptz DEFAULT clock_timestamp()
) RETURNS SETOF jsonb LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN QUERY
    SELECT linkbeat.with_note(linkbeat.alert_json(a.episode, a.sequence, 'firing', a.rule_id, a.severity, a.server_id,
                                                  linkbeat.told_subject(a.episode, a.subject), a.value, a.peak, a.active_at, NULL, a.reason))
    FROM linkbeat.alerts a JOIN linkbeat.alert_channels c ON c.channel_id = of_channel
    WHERE a.state = 'firing' AND a.told_at IS NOT NULL AND linkbeat.takes(c, a.severity, a.channels)
    UNION ALL
    SELECT linkbeat.with_note(linkbeat.alert_json(e.episode, e.sequence, e.to_state, e.rule_id, e.severity, e.server_id,
                                                  linkbeat.told_subject(e.episode, e.subject), e.value, e.peak, e.active_at, coalesce(e.cleared_at, e.at), e.reason))
    FROM linkbeat.alert_events e JOIN linkbeat.alert_channels c ON c.channel_id = of_channel
    WHERE e.recorded_at > standing_alerts.at - ended_within AND e.to_state <> 'firing' AND e.is_told
      AND linkbeat.takes(c, e.severity, linkbeat.channels_of(e));
END $$;

-- Makes the stored rules and channels that a file manages those of the file, in one transaction: what left the file is
-- deleted, and the next turn closes the alerts of rules that did. 
--   new_rules     array of {"id", "kind", "spec", "severity", "enabled"}
--   new_channels  array of {"id", "kind", "spec", "secret" (its bytes as base64), "min_severity", "sends_resolved",
--                 "sends_late", "digest_seconds", "time_zone", "enabled"}
CREATE OR REPLACE FUNCTION linkbeat.apply_alert_file(new_rules jsonb, new_channels jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM linkbeat.set_alert_channel(
        of_channel => c ->> 'id', new_kind => c ->> 'kind', new_spec => c -> 'spec', new_secret => decode(c ->> 'secret', 'base64'),
        new_min_severity => c ->> 'min_severity', new_sends_resolved => (c ->> 'sends_resolved')::boolean,
        new_sends_late => (c ->> 'sends_late')::boolean, new_digest => (c ->> 'digest_seconds')::integer * INTERVAL '1 second',
        new_time_zone => c ->> 'time_zone', new_enabled => (c ->> 'enabled')::boolean, new_managed_by => 'file')
    FROM jsonb_array_elements(new_channels) AS c;
    PERFORM linkbeat.set_alert_rule(
        of_rule => r ->> 'id', new_kind => r ->> 'kind', new_spec => r -> 'spec', new_severity => r ->> 'severity',
        new_enabled => (r ->> 'enabled')::boolean, new_managed_by => 'file')
    FROM jsonb_array_elements(new_rules) AS r;
    PERFORM linkbeat.delete_alert_rule(rule_id) FROM linkbeat.alert_rules
    WHERE managed_by = 'file' AND rule_id NOT IN (SELECT r ->> 'id' FROM jsonb_array_elements(new_rules) AS r);
    PERFORM linkbeat.delete_alert_channel(channel_id) FROM linkbeat.alert_channels
    WHERE managed_by = 'file' AND channel_id NOT IN (SELECT c ->> 'id' FROM jsonb_array_elements(new_channels) AS c);
END $$;
