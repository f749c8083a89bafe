-- Servers that replaced other servers. Structure: run once, frozen on release.

CREATE TABLE linkbeat.successions (
    server_id      text COLLATE "C" PRIMARY KEY REFERENCES servers ON DELETE CASCADE,
    predecessor_id text COLLATE "C" NOT NULL UNIQUE REFERENCES servers ON DELETE CASCADE CHECK (predecessor_id <> server_id),
    since          timestamptz NOT NULL CHECK (isfinite(since)),
    copied_quota   boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

COMMENT ON TABLE linkbeat.successions IS 'What an administrator says of replaced machines: before `since`, the samples of the predecessor are samples of the server, whose own samples of that time do not count. No row of a history changes; reads follow linkbeat.series_map. Written by linkbeat.set_predecessor alone.';
COMMENT ON COLUMN linkbeat.successions.server_id IS 'The server that replaced another one.';
COMMENT ON COLUMN linkbeat.successions.predecessor_id IS 'The server that it replaced.';
COMMENT ON COLUMN linkbeat.successions.since IS 'From when on it did: time of the first sample of its own that counts.';
COMMENT ON COLUMN linkbeat.successions.copied_quota IS 'Whether it had no quota and got its predecessor''s, which ends with the succession unless it was changed.';
COMMENT ON COLUMN linkbeat.successions.created_at IS 'When it was first said.';
