-- tokens: who may speak to the service; removals: servers whose history is being removed.
-- Structure: run once, frozen on release.

-- Counts the changes of tokens (linkbeat.count_token_change).
ALTER TABLE linkbeat.installation ADD COLUMN token_revision bigint NOT NULL DEFAULT 0;

-- Of a token only what its secret is checked by: a keyed hash, whose key (LINKBEAT_SECRET_KEY) the database has not.
CREATE TABLE linkbeat.tokens (
    token_id     text COLLATE "C" PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('server', 'fleet', 'read', 'admin', 'enrolment')),
    server_id    text COLLATE "C" CHECK ((kind = 'server') = (server_id IS NOT NULL)),
    server_guid  text,
    name         text NOT NULL DEFAULT '',
    hash         bytea NOT NULL,
    key_id       bytea NOT NULL,
    uses_left    integer CHECK ((kind = 'enrolment') = (uses_left IS NOT NULL) AND uses_left >= 0),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    revision     bigint NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX tokens_revision ON linkbeat.tokens (revision);
CREATE INDEX tokens_ended ON linkbeat.tokens (least(revoked_at, expires_at)) WHERE least(revoked_at, expires_at) IS NOT NULL;
CREATE INDEX tokens_server ON linkbeat.tokens (server_id, created_at) WHERE server_id IS NOT NULL;

COMMENT ON TABLE linkbeat.tokens IS 'Who may speak to the service. Revoked: revoked_at is set; every process sees it within seconds.';
COMMENT ON COLUMN linkbeat.tokens.token_id IS 'The part of the token that it is looked up by; not secret.';
COMMENT ON COLUMN linkbeat.tokens.kind IS 'server and fleet report, read reads, admin does everything, enrolment makes tokens of servers.';
COMMENT ON COLUMN linkbeat.tokens.server_id IS 'The one server that a token of kind server reports for.';
COMMENT ON COLUMN linkbeat.tokens.server_guid IS 'The GUID that X-Server-GUID must name; null: the first one that comes.';
COMMENT ON COLUMN linkbeat.tokens.hash IS 'BLAKE2b of the whole token, keyed with the service''s secret key.';
COMMENT ON COLUMN linkbeat.tokens.key_id IS 'Tells which secret key that was, and nothing of it.';
COMMENT ON COLUMN linkbeat.tokens.uses_left IS 'How many servers an enrolment token can still enrol.';
COMMENT ON COLUMN linkbeat.tokens.last_used_at IS 'When it was last used, to some minutes.';
COMMENT ON COLUMN linkbeat.tokens.revision IS 'installation.token_revision of its last change; its use is none.';

CREATE TABLE linkbeat.removals (
    server_id    text COLLATE "C" PRIMARY KEY,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

COMMENT ON TABLE linkbeat.removals IS 'Servers that are being removed with their history (linkbeat.erase_removed).';
