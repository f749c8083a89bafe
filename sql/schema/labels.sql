-- server_labels: the name and the tags that an administrator gave a server.
-- Structure: run once, frozen on release.

CREATE TABLE linkbeat.server_labels (
    server_id    text COLLATE "C" PRIMARY KEY REFERENCES servers ON DELETE CASCADE,
    display_name text,
    tags         text[] COLLATE "C" NOT NULL DEFAULT '{}',
    changed_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

COMMENT ON TABLE linkbeat.server_labels IS 'Display names and tags of servers. Written by linkbeat.set_labels alone.';
COMMENT ON COLUMN linkbeat.server_labels.display_name IS 'The name that people see; null: the server''s id.';
COMMENT ON COLUMN linkbeat.server_labels.tags IS 'Words and key=value pairs, sorted, one for each key. They take precedence over the agent''s own.';
COMMENT ON COLUMN linkbeat.server_labels.changed_at IS 'When they were last changed.';

-- Without a configuration, a row has only the request.
ALTER TABLE linkbeat.server_config ADD COLUMN report_at timestamptz, ALTER COLUMN config DROP NOT NULL;
COMMENT ON COLUMN linkbeat.server_config.report_at IS 'When somebody last asked for a report: the agent makes one when it first sees another time.';
