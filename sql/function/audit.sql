-- The audit log (sql/schema/audit.sql): who changes something, and what was changed.
-- Replaceable: reapplied on every upgrade.
--
-- Triggers write most of it, so that a change without its entry cannot be committed, whichever function makes it.

-- Who makes the changes of this transaction: {"kind", "name", "token_id", "address"}. The setting ends with the
-- transaction, so that a pooled connection does not carry it to the next caller.
CREATE OR REPLACE FUNCTION linkbeat.act_as(actor jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('linkbeat.actor', actor::text, true);
END $$;

-- Writes one entry, in the transaction of the change. Without linkbeat.act_as, the actor is the login.
CREATE OR REPLACE FUNCTION linkbeat.audit(
    of_action text, of_server text, of_subject text, was jsonb DEFAULT NULL, becomes jsonb DEFAULT NULL
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    actor jsonb := coalesce(nullif(current_setting('linkbeat.actor', true), '')::jsonb,
                            jsonb_build_object('kind', 'database', 'name', session_user));
BEGIN
    INSERT INTO linkbeat.audit_log (actor_kind, actor, token_id, address, action, server_id, subject, before, after)
    VALUES (actor ->> 'kind',
            -- People know a token by its description.
            coalesce((SELECT format('%s: %s', actor ->> 'name', nullif(t.name, '')) FROM linkbeat.tokens t
                      WHERE t.token_id = actor ->> 'token_id' AND t.name <> ''), actor ->> 'name', ''),
            nullif(actor ->> 'token_id', ''), nullif(actor ->> 'address', ''), of_action, of_server, coalesce(of_subject, ''), was, becomes);
END $$;

-- A row as the log shows it: without hidden columns, and with the fields of its `spec` or `config` beside its own.
CREATE OR REPLACE FUNCTION linkbeat.audited(row_json jsonb, hidden text[]) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN jsonb_strip_nulls((row_json - hidden - '{spec,config}'::text[])
    || coalesce(row_json -> 'spec', '{}') || coalesce(nullif(row_json -> 'config', 'null'), '{}'));

-- Trigger after a change of a row: AFTER INSERT OR UPDATE OR DELETE, FOR EACH ROW. Its arguments: the kind of object, the
-- column with its id, the column with its server ('' for none), and the hidden columns as an array. Of a hidden column
-- named `secret`, the entry has that it changed. An update that changes nothing visible writes no entry.
CREATE OR REPLACE FUNCTION linkbeat.audit_row() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    hidden  text[] := TG_ARGV[3]::text[];
    old_row jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
    new_row jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
    was     jsonb := linkbeat.audited(old_row, hidden);
    becomes jsonb := linkbeat.audited(new_row, hidden);
    common  text[];
BEGIN
    IF TG_OP = 'UPDATE' THEN
        common := ARRAY(SELECT key FROM jsonb_each(was) WHERE becomes -> key = value);
        was := was - common;
        becomes := becomes - common;
    END IF;
    IF new_row ->> 'secret' IS DISTINCT FROM old_row ->> 'secret' AND TG_OP <> 'DELETE' THEN
        becomes := becomes || '{"secret": "set"}';
    END IF;
    -- A row that only asks for a report: linkbeat.request_report writes its entry.
    IF was IS DISTINCT FROM becomes AND coalesce(new_row, old_row) -> 'config' IS DISTINCT FROM 'null' THEN
        PERFORM linkbeat.audit(
            TG_ARGV[0] || CASE WHEN TG_OP = 'DELETE' THEN '.delete'
                               WHEN TG_ARGV[0] = 'server' THEN '.remove'
                               WHEN TG_ARGV[0] <> 'token' THEN '.set'
                               WHEN TG_OP = 'INSERT' THEN '.create'
                               WHEN becomes ? 'revoked_at' THEN '.revoke'
                               ELSE '.change' END,
            coalesce(new_row, old_row) ->> TG_ARGV[2], coalesce(new_row, old_row) ->> TG_ARGV[1], was, becomes);
    END IF;
    RETURN NULL;
END $$;

-- pg_trigger_depth: what follows from the removal of a server is not a change of its own. A revoked token's hash and use
-- are no changes either. Expired tokens are deleted without an entry: their end was set when they were created.
CREATE OR REPLACE TRIGGER audit AFTER INSERT OR UPDATE OF kind, server_id, name, expires_at, revoked_at ON linkbeat.tokens
FOR EACH ROW WHEN (pg_trigger_depth() = 0)
EXECUTE FUNCTION linkbeat.audit_row('token', 'token_id', 'server_id', '{token_id,server_id,hash,key_id,revision,server_guid,last_used_at,created_at}');

CREATE OR REPLACE TRIGGER audit AFTER INSERT ON linkbeat.removals
FOR EACH ROW EXECUTE FUNCTION linkbeat.audit_row('server', 'server_id', 'server_id', '{server_id,requested_at}');

CREATE OR REPLACE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON linkbeat.server_config
FOR EACH ROW WHEN (pg_trigger_depth() = 0)
EXECUTE FUNCTION linkbeat.audit_row('config', 'server_id', 'server_id', '{server_id,changed_at,report_at}');

CREATE OR REPLACE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON linkbeat.quotas
FOR EACH ROW WHEN (pg_trigger_depth() = 0)
EXECUTE FUNCTION linkbeat.audit_row('quota', 'server_id', 'server_id', '{server_id,changed_at}');

CREATE OR REPLACE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON linkbeat.alert_rules
FOR EACH ROW EXECUTE FUNCTION linkbeat.audit_row('alert-rule', 'rule_id', '', '{rule_id,revision}');

CREATE OR REPLACE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON linkbeat.alert_channels
FOR EACH ROW EXECUTE FUNCTION linkbeat.audit_row('alert-channel', 'channel_id', '', '{channel_id,secret}');

CREATE OR REPLACE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON linkbeat.alert_mutes
FOR EACH ROW EXECUTE FUNCTION linkbeat.audit_row('alert-mute', 'mute_id', '', '{mute_id,created_by,created_at}');

-- Called by the background job.
CREATE OR REPLACE FUNCTION linkbeat.prune_audit() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM linkbeat.audit_log WHERE at < clock_timestamp() - linkbeat.configured('retain_audit_days');
END $$;
