-- ended_sessions: sessions of browsers that were signed out, and sign-in codes that were used, until they would have ended.
-- Structure: run once, frozen on release.

-- Counts the sessions that were ended. Each locks this row until it is committed, so that revisions are committed in order.
ALTER TABLE linkbeat.installation ADD COLUMN session_revision bigint NOT NULL DEFAULT 0;

CREATE TABLE linkbeat.ended_sessions (
    session  bytea PRIMARY KEY,
    ends_at  timestamptz NOT NULL,
    revision bigint NOT NULL
);
CREATE INDEX ended_sessions_revision ON linkbeat.ended_sessions (revision);

COMMENT ON TABLE linkbeat.ended_sessions IS 'Sessions that were signed out and codes that were used before their time: every process refuses them.';
COMMENT ON COLUMN linkbeat.ended_sessions.session IS 'BLAKE2b of the cookie or the code; it cannot be used to sign in.';
COMMENT ON COLUMN linkbeat.ended_sessions.ends_at IS 'When it would have ended by itself; the row can be deleted then.';
COMMENT ON COLUMN linkbeat.ended_sessions.revision IS 'installation.session_revision when it was ended.';
