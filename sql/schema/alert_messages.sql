-- Channels, mutes and the outbox: who is told about alerts, and what has been delivered.
-- Structure: run once, frozen on release.

CREATE TABLE linkbeat.alert_channels (
    channel_id     text COLLATE "C" PRIMARY KEY CHECK (channel_id ~ '^[A-Za-z0-9._-]{1,100}$'),
    kind           text NOT NULL,
    spec           jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(spec) = 'object'),
    secret         bytea,
    min_severity   text NOT NULL DEFAULT 'info' CHECK (min_severity IN ('info', 'warning', 'critical')),
    sends_resolved boolean NOT NULL DEFAULT true,
    sends_late     boolean NOT NULL DEFAULT false,
    digest         interval CHECK (digest > INTERVAL '0'),
    time_zone      text NOT NULL DEFAULT 'UTC',
    enabled        boolean NOT NULL DEFAULT true,
    managed_by     text NOT NULL DEFAULT 'api' CHECK (managed_by IN ('api', 'file'))
);

COMMENT ON TABLE linkbeat.alert_channels IS 'Where messages about alerts are sent.';
COMMENT ON COLUMN linkbeat.alert_channels.channel_id IS 'The channel''s name.';
COMMENT ON COLUMN linkbeat.alert_channels.kind IS 'How messages are delivered, such as webhook.';
COMMENT ON COLUMN linkbeat.alert_channels.spec IS 'Parameters of the delivery, such as the URL; may hold secrets.';
COMMENT ON COLUMN linkbeat.alert_channels.secret IS 'What messages are signed with.';
COMMENT ON COLUMN linkbeat.alert_channels.min_severity IS 'Alerts below it are not sent.';
COMMENT ON COLUMN linkbeat.alert_channels.sends_resolved IS 'Whether the end of an alert is sent.';
COMMENT ON COLUMN linkbeat.alert_channels.sends_late IS 'Whether alerts that were found in replayed data are sent.';
COMMENT ON COLUMN linkbeat.alert_channels.digest IS 'How long messages are gathered; null: ten seconds.';
COMMENT ON COLUMN linkbeat.alert_channels.time_zone IS 'IANA name of the zone in which times are written.';
COMMENT ON COLUMN linkbeat.alert_channels.enabled IS 'A channel that is not enabled gets no new messages.';
COMMENT ON COLUMN linkbeat.alert_channels.managed_by IS 'Who writes it: the API or a file.';

CREATE TABLE linkbeat.alert_mutes (
    mute_id    text COLLATE "C" PRIMARY KEY CHECK (mute_id ~ '^[A-Za-z0-9._-]{1,100}$'),
    matcher    jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(matcher) = 'object'),
    starts_at  timestamptz,
    ends_at    timestamptz,
    weekly     jsonb,
    time_zone  text NOT NULL DEFAULT 'UTC',
    created_by text,
    comment    text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (weekly IS NOT NULL OR ends_at > starts_at)
);

COMMENT ON TABLE linkbeat.alert_mutes IS 'When nobody is told of what fires; what still does at the end is told then.';
COMMENT ON COLUMN linkbeat.alert_mutes.mute_id IS 'The mute''s name.';
COMMENT ON COLUMN linkbeat.alert_mutes.matcher IS 'Patterns of servers and of rules; a list that is missing matches all.';
COMMENT ON COLUMN linkbeat.alert_mutes.starts_at IS 'From when on; null: from its creation on.';
COMMENT ON COLUMN linkbeat.alert_mutes.ends_at IS 'Up to when; null: a weekly mute without an end.';
COMMENT ON COLUMN linkbeat.alert_mutes.weekly IS 'Weekdays (1 Monday to 7 Sunday; missing: all), from and until, both HH:MM on the zone''s clock; until may be on the next day.';
COMMENT ON COLUMN linkbeat.alert_mutes.time_zone IS 'IANA name of the zone of weekly.';
COMMENT ON COLUMN linkbeat.alert_mutes.created_by IS 'Who made it.';
COMMENT ON COLUMN linkbeat.alert_mutes.comment IS 'Why.';
COMMENT ON COLUMN linkbeat.alert_mutes.created_at IS 'When it was made.';

CREATE TABLE linkbeat.outbox (
    message_id      uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    channel_id      text COLLATE "C" NOT NULL REFERENCES linkbeat.alert_channels ON DELETE CASCADE,
    kind            text NOT NULL DEFAULT 'alerts' CHECK (kind IN ('alerts', 'fleet', 'dead_letter', 'test')),
    payload         jsonb,
    created_at      timestamptz NOT NULL,
    next_attempt_at timestamptz NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    lease_until     timestamptz,
    delivered_at    timestamptz,
    dead_at         timestamptz,
    last_status     integer,
    last_error      text
) WITH (fillfactor = 70);
CREATE INDEX outbox_due ON linkbeat.outbox (channel_id, created_at) WHERE delivered_at IS NULL AND dead_at IS NULL;

COMMENT ON TABLE linkbeat.outbox IS 'Messages: written by the turn that decided on them, delivered at least once, each with an id that stays.';
COMMENT ON COLUMN linkbeat.outbox.message_id IS 'The message.';
COMMENT ON COLUMN linkbeat.outbox.channel_id IS 'Where it is sent.';
COMMENT ON COLUMN linkbeat.outbox.kind IS 'alerts; fleet: most servers are silent; dead_letter: another channel''s message could not be delivered; test.';
COMMENT ON COLUMN linkbeat.outbox.payload IS 'What is sent, the same at every attempt; null until the first one: alerts of a later turn may still join.';
COMMENT ON COLUMN linkbeat.outbox.created_at IS 'When the message was begun.';
COMMENT ON COLUMN linkbeat.outbox.next_attempt_at IS 'Not to be sent before.';
COMMENT ON COLUMN linkbeat.outbox.attempts IS 'How often a process has begun to send it.';
COMMENT ON COLUMN linkbeat.outbox.lease_until IS 'Until when it belongs to the process that sends it.';
COMMENT ON COLUMN linkbeat.outbox.delivered_at IS 'When the receiver took it.';
COMMENT ON COLUMN linkbeat.outbox.dead_at IS 'When it was given up.';
COMMENT ON COLUMN linkbeat.outbox.last_status IS 'The receiver''s last HTTP status; null: it did not answer.';
COMMENT ON COLUMN linkbeat.outbox.last_error IS 'What went wrong last, without secrets.';

CREATE TABLE linkbeat.outbox_items (
    message_id uuid NOT NULL REFERENCES linkbeat.outbox ON DELETE CASCADE,
    episode    uuid NOT NULL,
    sequence   integer NOT NULL,
    transition text NOT NULL CHECK (transition IN ('firing', 'flapping', 'repeated', 'resolved', 'closed', 'over', 'late')),
    alert      jsonb NOT NULL,
    PRIMARY KEY (message_id, episode, sequence)
);
CREATE INDEX outbox_items_episode ON linkbeat.outbox_items (episode);

COMMENT ON TABLE linkbeat.outbox_items IS 'The alerts that a message is about.';
COMMENT ON COLUMN linkbeat.outbox_items.message_id IS 'As in outbox.';
COMMENT ON COLUMN linkbeat.outbox_items.episode IS 'As in alert_events.';
COMMENT ON COLUMN linkbeat.outbox_items.sequence IS 'As in alert_events; a repetition has one of its own.';
COMMENT ON COLUMN linkbeat.outbox_items.transition IS 'What the message says; over: it fired and ended before anybody could be told; late: the same, found in replayed data.';
COMMENT ON COLUMN linkbeat.outbox_items.alert IS 'The alert as the message shows it.';
