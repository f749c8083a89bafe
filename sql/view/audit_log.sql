-- audit_log: one row for each change, with who made it.
-- Replaceable: reapplied on every upgrade.

CREATE OR REPLACE VIEW public.audit_log AS
SELECT entry, at, actor_kind, actor, token_id, address, action, server_id, subject, before, after FROM linkbeat.audit_log;

COMMENT ON VIEW public.audit_log IS 'Every change by API, page, command or file: when, who, what, from what to what.';
COMMENT ON COLUMN public.audit_log.entry IS 'Number of the entry, in the order of writing.';
COMMENT ON COLUMN public.audit_log.at IS 'When the change was made.';
COMMENT ON COLUMN public.audit_log.actor_kind IS 'token, key (the fleet key), session (a browser), proxy (a user that a proxy named), command, file, or database (a login that changed a table itself).';
COMMENT ON COLUMN public.audit_log.actor IS 'Who made it: a token, a user or a login.';
COMMENT ON COLUMN public.audit_log.token_id IS 'Id of the token that was used, also for a session; null: none.';
COMMENT ON COLUMN public.audit_log.address IS 'Address of the client; null: the change did not come over the network.';
COMMENT ON COLUMN public.audit_log.action IS 'The kind of object and what was done to it, such as token.create or quota.set.';
COMMENT ON COLUMN public.audit_log.server_id IS 'The server that was changed; null: no single server.';
COMMENT ON COLUMN public.audit_log.subject IS 'Id of the object: the token, the rule, the server.';
COMMENT ON COLUMN public.audit_log.before IS 'The changed fields before; null: the object did not exist.';
COMMENT ON COLUMN public.audit_log.after IS 'The changed fields after; null: the object was deleted. Secrets are never included.';
