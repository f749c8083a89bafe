-- Rows that moved to another series, the names of alerts that moved with them, and an index of messages that were given up.
-- Structure: run once, frozen on release.

-- Append only for ingest, as late_arrivals is.
CREATE TABLE linkbeat.moved_series (
    number    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server_id text COLLATE "C" NOT NULL,
    moves     linkbeat.interface_move[] NOT NULL,
    since     timestamptz NOT NULL,
    until     timestamptz NOT NULL
);

COMMENT ON TABLE linkbeat.moved_series IS 'Rows of interfaces that a late heartbeat moved to another series. The next turn moves the alerts with them, and deletes the entry.';
COMMENT ON COLUMN linkbeat.moved_series.number IS 'In the order of the moves.';
COMMENT ON COLUMN linkbeat.moved_series.server_id IS 'As in servers.';
COMMENT ON COLUMN linkbeat.moved_series.moves IS 'From which series to which, and of which times; all at once.';
COMMENT ON COLUMN linkbeat.moved_series.since IS 'Time of the first row that moved.';
COMMENT ON COLUMN linkbeat.moved_series.until IS 'Time of the last one.';

CREATE TABLE linkbeat.moved_alerts (
    episode  uuid PRIMARY KEY,
    subject  text NOT NULL,
    moved_at timestamptz NOT NULL
);

COMMENT ON TABLE linkbeat.moved_alerts IS 'Alerts that somebody was told of before they moved to another series: messages go on to name them as the first one did.';
COMMENT ON COLUMN linkbeat.moved_alerts.episode IS 'As in alert_events.';
COMMENT ON COLUMN linkbeat.moved_alerts.subject IS 'The interface that messages name.';
COMMENT ON COLUMN linkbeat.moved_alerts.moved_at IS 'The turn that moved the alert.';

-- How many messages were given up of late, for those who watch the service.
CREATE INDEX outbox_dead ON linkbeat.outbox (dead_at) WHERE dead_at IS NOT NULL;

COMMENT ON TABLE linkbeat.alert_events IS 'When alerts fired and ended, kept for five years, and longer than the server. Append only; but the subject follows the rows of its interface to another series.';
