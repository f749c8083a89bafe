-- server_aliases: other ids under which a server reports and is asked for. Structure: run once, frozen on release.

CREATE TABLE linkbeat.server_aliases (
    alias      text COLLATE "C" PRIMARY KEY,
    server_id  text COLLATE "C" NOT NULL REFERENCES servers ON DELETE CASCADE CHECK (server_id <> alias),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX server_aliases_server ON linkbeat.server_aliases (server_id);

COMMENT ON TABLE linkbeat.server_aliases IS 'Other ids of servers: heartbeats under an alias are stored under the server''s own id. Written by linkbeat.add_alias and linkbeat.delete_alias alone.';
COMMENT ON COLUMN linkbeat.server_aliases.alias IS 'The other id. No server has it.';
COMMENT ON COLUMN linkbeat.server_aliases.server_id IS 'As in servers.';
COMMENT ON COLUMN linkbeat.server_aliases.created_at IS 'When it was made.';
