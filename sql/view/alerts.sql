-- alerts, alert_events, alert_rules, alert_messages: the tables of the same names in schema linkbeat, without secrets.
-- Replaceable: reapplied on every upgrade.

CREATE OR REPLACE VIEW public.alerts AS
SELECT a.rule_id, a.server_id, a.subject, a.state, a.severity, a.active_at, a.fired_at, a.cleared_at, a.seen_at, a.value, a.peak,
       a.reason, a.held, a.episode, a.told_at, a.acknowledged_at, a.acknowledged_by
FROM (SELECT x.rule_id, x.server_id, x.subject, x.state, coalesce(x.severity, r.severity) AS severity, x.active_at, x.fired_at,
             x.cleared_at, x.seen_at, x.value, x.peak, x.reason, x.held, x.episode, x.told_at, x.acknowledged_at, x.acknowledged_by
      FROM linkbeat.alerts x LEFT JOIN linkbeat.alert_rules r USING (rule_id)) a
WHERE a.state <> 'watched';

COMMENT ON VIEW public.alerts IS 'What fires now, and what is about to: one row per rule and subject. What is ok has none.';
COMMENT ON COLUMN public.alerts.rule_id IS 'The rule''s name.';
COMMENT ON COLUMN public.alerts.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.alerts.subject IS 'The interface, the mount point or the level of a quota; empty: the server.';
COMMENT ON COLUMN public.alerts.state IS 'pending: the condition holds, but not yet for as long as the rule asks. firing: it does.';
COMMENT ON COLUMN public.alerts.severity IS 'info, warning or critical.';
COMMENT ON COLUMN public.alerts.active_at IS 'Since when the condition holds, by the data''s own time; of silence, the last arrival.';
COMMENT ON COLUMN public.alerts.fired_at IS 'When it had held for as long as the rule asks; null: pending.';
COMMENT ON COLUMN public.alerts.cleared_at IS 'Since when it no longer holds, while that is shorter than the rule''s keep_seconds; null: it holds.';
COMMENT ON COLUMN public.alerts.seen_at IS 'Time of the newest data that was judged.';
COMMENT ON COLUMN public.alerts.value IS 'The newest value, in the unit of the rule''s bound.';
COMMENT ON COLUMN public.alerts.peak IS 'The value furthest beyond the bound.';
COMMENT ON COLUMN public.alerts.reason IS 'Which part of the rule''s condition holds; null: it has one part.';
COMMENT ON COLUMN public.alerts.held IS 'There is no data: it neither fires nor ends until there is some.';
COMMENT ON COLUMN public.alerts.episode IS 'Identifies this run, in every message and event.';
COMMENT ON COLUMN public.alerts.told_at IS 'When a message about it was last written; null: nobody was told.';
COMMENT ON COLUMN public.alerts.acknowledged_at IS 'When somebody acknowledged it; null: nobody did.';
COMMENT ON COLUMN public.alerts.acknowledged_by IS 'Who did.';

CREATE OR REPLACE VIEW public.alert_events AS
SELECT event_id, at, recorded_at, episode, sequence, rule_id, server_id, subject, severity, from_state, to_state, active_at, cleared_at,
       value, peak, reason, is_late, is_told
FROM linkbeat.alert_events;

COMMENT ON VIEW public.alert_events IS 'When alerts fired and ended, for five years; what an episode was stays when its server is removed. The subject follows the rows of its interface to another series.';
COMMENT ON COLUMN public.alert_events.event_id IS 'In the order of recording.';
COMMENT ON COLUMN public.alert_events.at IS 'When that was, by the data''s own time.';
COMMENT ON COLUMN public.alert_events.recorded_at IS 'When it was recorded.';
COMMENT ON COLUMN public.alert_events.episode IS 'The run from firing to its end; its two events have the same.';
COMMENT ON COLUMN public.alert_events.sequence IS 'Number within the episode.';
COMMENT ON COLUMN public.alert_events.rule_id IS 'The rule''s name.';
COMMENT ON COLUMN public.alert_events.server_id IS 'The name under which the machine reported.';
COMMENT ON COLUMN public.alert_events.subject IS 'The interface, the mount point or the level of a quota; empty: the server.';
COMMENT ON COLUMN public.alert_events.severity IS 'info, warning or critical.';
COMMENT ON COLUMN public.alert_events.from_state IS 'The state before: ok, pending or firing.';
COMMENT ON COLUMN public.alert_events.to_state IS 'firing, resolved, or closed: it ended without its condition being seen to be over.';
COMMENT ON COLUMN public.alert_events.active_at IS 'Since when the condition held.';
COMMENT ON COLUMN public.alert_events.cleared_at IS 'Of an end: since when the condition no longer held; null: it was not seen to be over.';
COMMENT ON COLUMN public.alert_events.value IS 'The value then, in the unit of the rule''s bound.';
COMMENT ON COLUMN public.alert_events.peak IS 'The value furthest beyond the bound up to then.';
COMMENT ON COLUMN public.alert_events.reason IS 'Which part of the condition held; of closed: rule_removed, rule_disabled, out_of_scope, server_removed, gone, period_over, or moved: it turned out to be one with another alert, because both interfaces are one.';
COMMENT ON COLUMN public.alert_events.is_late IS 'It was recorded more than 15 minutes after it happened, from data that was replayed.';
COMMENT ON COLUMN public.alert_events.is_told IS 'Of an end: somebody had been told of the firing.';

CREATE OR REPLACE VIEW public.alert_rules AS
SELECT rule_id, kind, severity, enabled, spec, managed_by, revision FROM linkbeat.alert_rules;

COMMENT ON VIEW public.alert_rules IS 'What is watched, and from which value on it is an alert.';
COMMENT ON COLUMN public.alert_rules.rule_id IS 'The rule''s name.';
COMMENT ON COLUMN public.alert_rules.kind IS 'silent, link, rate, quota, filesystem, errors, account or agent.';
COMMENT ON COLUMN public.alert_rules.severity IS 'info, warning or critical.';
COMMENT ON COLUMN public.alert_rules.enabled IS 'A rule that is not enabled has no alerts.';
COMMENT ON COLUMN public.alert_rules.spec IS 'Scope and parameters, named as in the API.';
COMMENT ON COLUMN public.alert_rules.managed_by IS 'Who writes it: the API, a file, or, until it is changed, the installation (preset).';
COMMENT ON COLUMN public.alert_rules.revision IS 'Counts the changes of the rule.';

CREATE OR REPLACE VIEW public.alert_messages AS
SELECT o.message_id, o.channel_id, o.kind,
       CASE WHEN o.delivered_at IS NOT NULL THEN 'delivered' WHEN o.dead_at IS NOT NULL THEN 'dead' WHEN o.attempts > 0 THEN 'retrying' ELSE 'waiting' END AS state,
       o.created_at, o.next_attempt_at, o.attempts, o.delivered_at, o.dead_at, o.last_status, o.last_error,
       (SELECT count(*) FROM linkbeat.outbox_items i WHERE i.message_id = o.message_id) AS alerts, o.payload
FROM linkbeat.outbox o;

COMMENT ON VIEW public.alert_messages IS 'Messages about alerts of the last 30 days, and those that still wait: to whom, and whether they have arrived.';
COMMENT ON COLUMN public.alert_messages.message_id IS 'The message.';
COMMENT ON COLUMN public.alert_messages.channel_id IS 'Where it is sent.';
COMMENT ON COLUMN public.alert_messages.kind IS 'alerts; fleet: most servers are silent; dead_letter: another channel''s message could not be delivered; test.';
COMMENT ON COLUMN public.alert_messages.state IS 'waiting, retrying, delivered, or dead: it was given up.';
COMMENT ON COLUMN public.alert_messages.created_at IS 'When it was begun.';
COMMENT ON COLUMN public.alert_messages.next_attempt_at IS 'When it is sent next, if it is not delivered.';
COMMENT ON COLUMN public.alert_messages.attempts IS 'How often somebody began to send it.';
COMMENT ON COLUMN public.alert_messages.delivered_at IS 'When the receiver took it; null: it has not.';
COMMENT ON COLUMN public.alert_messages.dead_at IS 'When it was given up; null: it was not.';
COMMENT ON COLUMN public.alert_messages.last_status IS 'The receiver''s last HTTP status; null: none.';
COMMENT ON COLUMN public.alert_messages.last_error IS 'What went wrong last; null: nothing.';
COMMENT ON COLUMN public.alert_messages.alerts IS 'How many alerts it is about.';
COMMENT ON COLUMN public.alert_messages.payload IS 'What is sent; null before the first attempt.';
