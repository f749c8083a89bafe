-- audit_log: every change that a person, a program or a file made, and who made it.
-- Structure: run once, frozen on release.

CREATE TABLE linkbeat.audit_log (
    entry      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor_kind text NOT NULL,
    actor      text NOT NULL,
    token_id   text COLLATE "C",
    address    text,
    action     text COLLATE "C" NOT NULL,
    server_id  text COLLATE "C",
    subject    text NOT NULL DEFAULT '',
    before     jsonb,
    after      jsonb
);
CREATE INDEX audit_log_at ON linkbeat.audit_log (at);
CREATE INDEX audit_log_server ON linkbeat.audit_log (server_id, entry) WHERE server_id IS NOT NULL;

COMMENT ON TABLE linkbeat.audit_log IS 'Every change by API, page, command or file. Written by linkbeat.audit alone, in the transaction of the change.';
COMMENT ON COLUMN linkbeat.audit_log.entry IS 'In the order of writing.';
COMMENT ON COLUMN linkbeat.audit_log.at IS 'When the change was made.';
COMMENT ON COLUMN linkbeat.audit_log.actor_kind IS 'token, key (the fleet key), session (a browser), proxy (a user that a proxy named), command, file, or database (a login that changed a table itself).';
COMMENT ON COLUMN linkbeat.audit_log.actor IS 'Who: the name of the token, the user or the login.';
COMMENT ON COLUMN linkbeat.audit_log.token_id IS 'The token that was used, also for a session; null: none was.';
COMMENT ON COLUMN linkbeat.audit_log.address IS 'The client''s address; null: the change did not come over the network.';
COMMENT ON COLUMN linkbeat.audit_log.action IS 'The kind of object and what was done to it, such as token.create.';
COMMENT ON COLUMN linkbeat.audit_log.server_id IS 'The server that was changed; null: no single one.';
COMMENT ON COLUMN linkbeat.audit_log.subject IS 'The id of the object.';
COMMENT ON COLUMN linkbeat.audit_log.before IS 'The fields that changed, as they were; null: the object is new.';
COMMENT ON COLUMN linkbeat.audit_log.after IS 'The fields that changed, as they are; null: the object is gone. Secrets are never among them.';

INSERT INTO linkbeat.maintenance (job, statement, every) VALUES
    ('audit log', 'SELECT linkbeat.prune_audit()', '1 hour');
