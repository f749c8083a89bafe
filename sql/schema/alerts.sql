-- alert_rules, alerts, alert_events and what a turn of linkbeat.evaluate_alerts needs to know of the turns before.
-- Structure: run once, frozen on release.
--
-- Tables are in schema linkbeat; the views for analysts have the same names in public, as quotas has.
-- No foreign key to servers: checking one would wait for the locks that ingest takes for every heartbeat.

CREATE TABLE linkbeat.alert_rules (
    rule_id    text COLLATE "C" PRIMARY KEY CHECK (rule_id ~ '^[A-Za-z0-9._-]{1,100}$'),
    kind       text NOT NULL CHECK (kind IN ('silent', 'link', 'rate', 'quota', 'filesystem', 'errors', 'account', 'agent')),
    spec       jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(spec) = 'object'),
    severity   text NOT NULL DEFAULT 'warning' CHECK (severity IN ('info', 'warning', 'critical')),
    managed_by text NOT NULL DEFAULT 'api' CHECK (managed_by IN ('api', 'file', 'preset')),
    enabled    boolean NOT NULL DEFAULT true,
    revision   bigint NOT NULL DEFAULT 1
);

COMMENT ON TABLE linkbeat.alert_rules IS 'What is watched, and from which value on it is an alert.';
COMMENT ON COLUMN linkbeat.alert_rules.rule_id IS 'The rule''s name.';
COMMENT ON COLUMN linkbeat.alert_rules.kind IS 'What the rule looks at: silent, link, rate, quota, filesystem, errors, account or agent.';
COMMENT ON COLUMN linkbeat.alert_rules.spec IS 'Scope, parameters, for_seconds, keep_seconds, repeat_seconds, channels and note, named as in the API; without channels, every channel is told.';
COMMENT ON COLUMN linkbeat.alert_rules.severity IS 'info, warning or critical.';
COMMENT ON COLUMN linkbeat.alert_rules.managed_by IS 'Who writes it: the API, a file, or, until it is changed, the installation (preset).';
COMMENT ON COLUMN linkbeat.alert_rules.enabled IS 'A rule that is not enabled has no alerts.';
COMMENT ON COLUMN linkbeat.alert_rules.revision IS 'Counts the changes of the rule.';

-- Every channel is told of these, once there is one. No rate rule: a bound on it would assume a line rate.
INSERT INTO linkbeat.alert_rules (rule_id, kind, severity, managed_by, spec) VALUES
    ('silent',     'silent',     'critical', 'preset', '{}'),
    ('filesystem', 'filesystem', 'warning',  'preset', '{"above_percent": 90, "full_within_hours": 24}'),
    ('account',    'account',    'warning',  'preset', '{}'),
    ('agent',      'agent',      'warning',  'preset', '{}'),
    ('quota',      'quota',      'warning',  'preset', '{"percent": [80, 100], "forecast": true}');

CREATE TABLE linkbeat.alerts (
    rule_id         text COLLATE "C" NOT NULL,
    server_id       text COLLATE "C" NOT NULL,
    subject         text COLLATE "C" NOT NULL DEFAULT '',
    state           text COLLATE "C" NOT NULL CHECK (state IN ('watched', 'pending', 'firing')),
    active_at       timestamptz,
    fired_at        timestamptz,
    cleared_at      timestamptz,
    counted_ms      double precision NOT NULL DEFAULT 0,
    seen_at         timestamptz NOT NULL,
    step            interval NOT NULL DEFAULT '90 seconds',
    watched_until   timestamptz,
    value           double precision,
    peak            double precision,
    reason          text,
    held            boolean NOT NULL DEFAULT false,
    episode         uuid,
    sequence        integer NOT NULL DEFAULT 0,
    severity        text,
    channels        text[],
    told_at         timestamptz,
    acknowledged_at timestamptz,
    acknowledged_by text,
    PRIMARY KEY (rule_id, server_id, subject)
) WITH (fillfactor = 70);
CREATE INDEX alerts_episode ON linkbeat.alerts (episode) WHERE episode IS NOT NULL;
CREATE INDEX alerts_server ON linkbeat.alerts (server_id) WHERE state = 'firing';

COMMENT ON TABLE linkbeat.alerts IS 'The state of each rule for each subject that is not ok. Written by linkbeat.evaluate_alerts alone.';
COMMENT ON COLUMN linkbeat.alerts.rule_id IS 'As in alert_rules.';
COMMENT ON COLUMN linkbeat.alerts.server_id IS 'As in servers.';
COMMENT ON COLUMN linkbeat.alerts.subject IS 'The interface, the mount point or the level of a quota; empty: the server.';
COMMENT ON COLUMN linkbeat.alerts.state IS 'pending: the condition holds, but for less than for_seconds. firing: it holds. watched: it does not, but a value beyond the bound is still within the rule''s window.';
COMMENT ON COLUMN linkbeat.alerts.active_at IS 'Since when the condition holds, by the data''s own time.';
COMMENT ON COLUMN linkbeat.alerts.fired_at IS 'When it had held for for_seconds, by the data''s own time.';
COMMENT ON COLUMN linkbeat.alerts.cleared_at IS 'Since when it no longer holds, while that is shorter than keep_seconds.';
COMMENT ON COLUMN linkbeat.alerts.counted_ms IS 'How much of for_seconds (pending) or keep_seconds (firing, cleared) has passed while there was data.';
COMMENT ON COLUMN linkbeat.alerts.seen_at IS 'The newest data that was judged.';
COMMENT ON COLUMN linkbeat.alerts.step IS 'A longer time than this without data is not counted.';
COMMENT ON COLUMN linkbeat.alerts.watched_until IS 'Until when the newest value beyond the bound is within the rule''s window.';
COMMENT ON COLUMN linkbeat.alerts.value IS 'The newest value, in the unit of the rule''s bound.';
COMMENT ON COLUMN linkbeat.alerts.peak IS 'The value furthest beyond the bound in this episode.';
COMMENT ON COLUMN linkbeat.alerts.reason IS 'Which part of the rule''s condition holds.';
COMMENT ON COLUMN linkbeat.alerts.held IS 'There is no data: the state stays, and neither clock runs.';
COMMENT ON COLUMN linkbeat.alerts.episode IS 'Identifies one run from active to resolved, in every message and event.';
COMMENT ON COLUMN linkbeat.alerts.sequence IS 'Number of the episode''s newest event or message.';
COMMENT ON COLUMN linkbeat.alerts.severity IS 'The rule''s when it fired: the rule may be gone when the alert ends.';
COMMENT ON COLUMN linkbeat.alerts.channels IS 'The rule''s when it fired; null: all.';
COMMENT ON COLUMN linkbeat.alerts.told_at IS 'When a message about it was last written; null: never.';
COMMENT ON COLUMN linkbeat.alerts.acknowledged_at IS 'When it was acknowledged; it is not repeated then.';
COMMENT ON COLUMN linkbeat.alerts.acknowledged_by IS 'By whom.';

CREATE TABLE linkbeat.alert_events (
    event_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    episode     uuid NOT NULL,
    sequence    integer NOT NULL,
    rule_id     text COLLATE "C" NOT NULL,
    server_id   text COLLATE "C" NOT NULL,
    subject     text COLLATE "C" NOT NULL,
    severity    text,
    from_state  text NOT NULL,
    to_state    text NOT NULL CHECK (to_state IN ('firing', 'resolved', 'closed')),
    at          timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    active_at   timestamptz NOT NULL,
    cleared_at  timestamptz,
    value       double precision,
    peak        double precision,
    reason      text,
    is_late     boolean NOT NULL,
    is_told     boolean NOT NULL
);
CREATE INDEX alert_events_subject ON linkbeat.alert_events (rule_id, server_id, subject, event_id);
CREATE INDEX alert_events_episode ON linkbeat.alert_events (episode);
CREATE INDEX alert_events_recorded ON linkbeat.alert_events (recorded_at);

COMMENT ON TABLE linkbeat.alert_events IS 'When alerts fired and ended: append only, kept for five years, and longer than the server.';
COMMENT ON COLUMN linkbeat.alert_events.event_id IS 'In the order of recording.';
COMMENT ON COLUMN linkbeat.alert_events.episode IS 'The run from firing to its end; its two events have the same.';
COMMENT ON COLUMN linkbeat.alert_events.sequence IS 'Number within the episode.';
COMMENT ON COLUMN linkbeat.alert_events.rule_id IS 'As in alert_rules at that time.';
COMMENT ON COLUMN linkbeat.alert_events.server_id IS 'As in servers at that time.';
COMMENT ON COLUMN linkbeat.alert_events.subject IS 'As in alerts.';
COMMENT ON COLUMN linkbeat.alert_events.severity IS 'The rule''s when it fired.';
COMMENT ON COLUMN linkbeat.alert_events.from_state IS 'The state before: ok, pending or firing.';
COMMENT ON COLUMN linkbeat.alert_events.to_state IS 'firing, resolved, or closed: it ended without the condition being seen to be over; reason says why.';
COMMENT ON COLUMN linkbeat.alert_events.at IS 'When that was, by the data''s own time.';
COMMENT ON COLUMN linkbeat.alert_events.recorded_at IS 'The turn that recorded it.';
COMMENT ON COLUMN linkbeat.alert_events.active_at IS 'Since when the condition held.';
COMMENT ON COLUMN linkbeat.alert_events.cleared_at IS 'Of an end: since when the condition no longer held.';
COMMENT ON COLUMN linkbeat.alert_events.value IS 'The value then.';
COMMENT ON COLUMN linkbeat.alert_events.peak IS 'The value furthest beyond the bound up to then.';
COMMENT ON COLUMN linkbeat.alert_events.reason IS 'Which part of the condition held; of closed: why it was closed.';
COMMENT ON COLUMN linkbeat.alert_events.is_late IS 'Recorded more than 15 minutes after it happened, from data that was replayed.';
COMMENT ON COLUMN linkbeat.alert_events.is_told IS 'Of an end: a message had been written about the firing.';

CREATE TABLE linkbeat.alert_clock (
    evaluated_at timestamptz NOT NULL DEFAULT '-infinity',
    took         interval NOT NULL DEFAULT '0',
    fleet_since  timestamptz,
    fleet_told   uuid,
    fleet_count  integer,
    is_only_row  boolean PRIMARY KEY DEFAULT true CHECK (is_only_row)
);
INSERT INTO linkbeat.alert_clock DEFAULT VALUES;

COMMENT ON TABLE linkbeat.alert_clock IS 'One row: when alerts were last evaluated. Whoever updates it has the turn.';
COMMENT ON COLUMN linkbeat.alert_clock.evaluated_at IS 'The moment that the last turn was of; -infinity: there was none.';
COMMENT ON COLUMN linkbeat.alert_clock.took IS 'How long that turn took.';
COMMENT ON COLUMN linkbeat.alert_clock.fleet_since IS 'Since when most of the fleet is silent together; null: it is not.';
COMMENT ON COLUMN linkbeat.alert_clock.fleet_told IS 'The episode of the message about that.';
COMMENT ON COLUMN linkbeat.alert_clock.fleet_count IS 'How many servers that message named.';

CREATE TABLE linkbeat.listening (
    process text COLLATE "C" NOT NULL,
    since   timestamptz NOT NULL,
    until   timestamptz NOT NULL CHECK (until >= since),
    PRIMARY KEY (process, since)
) WITH (fillfactor = 50);

COMMENT ON TABLE linkbeat.listening IS 'When some process of the service could commit heartbeats: a server''s silence counts only then.';
COMMENT ON COLUMN linkbeat.listening.process IS 'The process, by a name of its own.';
COMMENT ON COLUMN linkbeat.listening.since IS 'Its first commit after a time without.';
COMMENT ON COLUMN linkbeat.listening.until IS 'Its last one so far.';

-- Append only for ingest, so that no heartbeat waits for a turn; a turn deletes what it has taken in.
CREATE TABLE linkbeat.late_arrivals (
    server_id text COLLATE "C" NOT NULL,
    since     timestamptz NOT NULL,
    until     timestamptz NOT NULL
);

COMMENT ON TABLE linkbeat.late_arrivals IS 'Times of heartbeats that were stored after a turn may have passed them.';
COMMENT ON COLUMN linkbeat.late_arrivals.server_id IS 'As in servers.';
COMMENT ON COLUMN linkbeat.late_arrivals.since IS 'Earliest time of the heartbeats, by the agent''s clock.';
COMMENT ON COLUMN linkbeat.late_arrivals.until IS 'Latest time of them.';

CREATE TABLE linkbeat.alert_marks (
    server_id    text COLLATE "C" PRIMARY KEY,
    conflicts    bigint NOT NULL DEFAULT 0,
    dropped      bigint NOT NULL DEFAULT 0,
    rejected     bigint NOT NULL DEFAULT 0,
    conflicts_at timestamptz,
    dropped_at   timestamptz,
    rejected_at  timestamptz,
    dropped_sum  bigint NOT NULL DEFAULT 0,
    skew_at      timestamptz,
    skew_count   integer NOT NULL DEFAULT 0,
    resets_at    timestamptz[] NOT NULL DEFAULT '{}',
    implausible_at timestamptz
);

COMMENT ON TABLE linkbeat.alert_marks IS 'Counters of servers as the last turn saw them, and when they rose: their rows in servers have no history.';
COMMENT ON COLUMN linkbeat.alert_marks.server_id IS 'As in servers.';
COMMENT ON COLUMN linkbeat.alert_marks.conflicts IS 'servers.conflicts.';
COMMENT ON COLUMN linkbeat.alert_marks.dropped IS 'Heartbeats that the agent gave up, since its start.';
COMMENT ON COLUMN linkbeat.alert_marks.rejected IS 'Heartbeats of the agent that were refused permanently, since its start.';
COMMENT ON COLUMN linkbeat.alert_marks.conflicts_at IS 'When conflicts last rose.';
COMMENT ON COLUMN linkbeat.alert_marks.dropped_at IS 'When dropped last rose, or was above 0 after the agent''s start.';
COMMENT ON COLUMN linkbeat.alert_marks.rejected_at IS 'When rejected last rose.';
COMMENT ON COLUMN linkbeat.alert_marks.dropped_sum IS 'How many heartbeats were given up since the alert about it began.';
COMMENT ON COLUMN linkbeat.alert_marks.skew_at IS 'servers.live_at of the last heartbeat whose clock was counted in skew_count.';
COMMENT ON COLUMN linkbeat.alert_marks.skew_count IS 'How many live heartbeats in a row had a clock more than 30 seconds off.';
COMMENT ON COLUMN linkbeat.alert_marks.resets_at IS 'Times of the counter resets of the last day, 100 at most.';
COMMENT ON COLUMN linkbeat.alert_marks.implausible_at IS 'Time of the newest reading that was rejected as not plausible.';

-- One judgement of a rule's condition. Functions named linkbeat.*_points return them; linkbeat.alert_step takes them in.
--   place      number of the subject in the arrays that were asked for
--   is_true    the condition; null: the data does not tell
--   is_clear   it is over, beyond the hysteresis
--   active_at  since when, where that is not `at`
--   step       a longer time than this since the point before is not counted
--   is_low     the lower the value, the worse
CREATE TYPE linkbeat.alert_point AS (
    place integer, at timestamptz, is_true boolean, is_clear boolean, value double precision, active_at timestamptz,
    step interval, reason text, is_low boolean
);

INSERT INTO linkbeat.maintenance (job, statement, every) VALUES
    ('alert history', 'SELECT linkbeat.prune_alerts()', '1 hour');
