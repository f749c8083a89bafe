-- What agents say of themselves, in the server's row, and server_config: what they are asked to do.
-- Structure: run once, frozen on release.

ALTER TABLE servers
    ADD COLUMN received_before timestamptz,
    ADD COLUMN clock_skew_ms   bigint,
    ADD COLUMN agent_report    jsonb;

COMMENT ON COLUMN servers.received_before IS 'received_at before the last heartbeat came; of the first, its own.';
COMMENT ON COLUMN servers.clock_skew_ms IS 'The service''s clock less the agent''s when a heartbeat last came live, in milliseconds; null: none did.';
COMMENT ON COLUMN servers.agent_report IS 'What the agent said of its deliveries in the newest heartbeat, as sent, and truncated; null: nothing.';

CREATE TABLE linkbeat.server_config (
    server_id  text COLLATE "C" PRIMARY KEY REFERENCES servers ON DELETE CASCADE,
    config     jsonb NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT statement_timestamp()
);

COMMENT ON TABLE linkbeat.server_config IS 'What each agent is asked to do otherwise than its own settings say; service/wire.py says what can stand there.';

-- Counts the changes of server_config (linkbeat.count_config_change).
ALTER TABLE linkbeat.installation ADD COLUMN config_revision bigint NOT NULL DEFAULT 0;
