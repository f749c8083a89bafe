-- Making, using and revoking tokens (sql/schema/tokens.sql). What a token and its hash are, only the service knows.
-- Replaceable: reapplied on every upgrade.

-- installation.token_revision counts the changes of tokens. Each locks that row until it is committed, so revisions are
-- committed in their order: whoever has seen one has seen all before it.
CREATE OR REPLACE FUNCTION linkbeat.count_token_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        -- Processes see changes, and not what is missing.
        IF coalesce(least(OLD.revoked_at, OLD.expires_at), 'infinity') > now() - INTERVAL '1 hour' THEN
            RAISE EXCEPTION 'token % may be in use: set revoked_at, and delete it an hour later', OLD.token_id;
        END IF;
        RETURN OLD;
    END IF;
    UPDATE linkbeat.installation SET token_revision = token_revision + 1 RETURNING token_revision INTO NEW.revision;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER count_change BEFORE INSERT OR DELETE
    OR UPDATE OF kind, server_id, server_guid, hash, key_id, expires_at, revoked_at ON linkbeat.tokens
FOR EACH ROW EXECUTE FUNCTION linkbeat.count_token_change();

-- Changes of tokens take turns at this row, so that each sees all that the ones before it committed.
CREATE OR REPLACE FUNCTION linkbeat.take_token_turn() RETURNS void LANGUAGE sql AS $$
    SELECT FROM linkbeat.installation FOR NO KEY UPDATE;
$$;

CREATE OR REPLACE FUNCTION linkbeat.is_active(token linkbeat.tokens) RETURNS boolean LANGUAGE sql STABLE
RETURN (token).revoked_at IS NULL AND coalesce((token).expires_at > clock_timestamp(), true);

-- A server has two active tokens at most, for rotation: a third revokes the oldest. What has not been valid for a month
-- is forgotten.
CREATE OR REPLACE FUNCTION linkbeat.create_token(
    new_id text, new_kind text, of_server text, of_guid text, new_name text, new_hash bytea, new_key_id bytea,
    new_expires timestamptz, new_uses integer
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM linkbeat.take_token_turn();
    DELETE FROM linkbeat.tokens WHERE least(revoked_at, expires_at) < now() - INTERVAL '30 days';
    IF of_server IS NOT NULL THEN
        UPDATE linkbeat.tokens SET revoked_at = clock_timestamp() WHERE token_id IN (
            SELECT t.token_id FROM linkbeat.tokens t WHERE t.server_id = of_server AND linkbeat.is_active(t)
            ORDER BY t.created_at DESC, t.revision DESC OFFSET 1);
    END IF;
    INSERT INTO linkbeat.tokens (token_id, kind, server_id, server_guid, name, hash, key_id, expires_at, uses_left)
    VALUES (new_id, new_kind, of_server, of_guid, new_name, new_hash, new_key_id, new_expires, new_uses);
END $$;

-- The first token of a server that is not known yet. False where it is known, or has a token.
CREATE OR REPLACE FUNCTION linkbeat.register_server(
    of_server text, of_guid text, new_id text, new_name text, new_hash bytea, new_key_id bytea
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM linkbeat.take_token_turn();
    IF EXISTS (SELECT FROM servers WHERE server_id = of_server)
       OR EXISTS (SELECT FROM linkbeat.tokens t WHERE t.server_id = of_server AND linkbeat.is_active(t)) THEN
        RETURN false;
    END IF;
    PERFORM linkbeat.create_token(
        new_id => new_id, new_kind => 'server', of_server => of_server, of_guid => of_guid, new_name => new_name,
        new_hash => new_hash, new_key_id => new_key_id, new_expires => NULL, new_uses => NULL);
    RETURN true;
END $$;

-- A server's token for one use of an enrolment token; `enrolment` null: an administrator's, who may do it for any server
-- and is not counted. Returns
--   enrolled
--   spent    the enrolment token has no uses left, or is not valid any more; says nothing about the server
--   exists   the server has a token, or it has reported and this may be another machine: its GUID is another one, or it
--            never had a token of its own, so that its GUID is known to others who report by the same token
CREATE OR REPLACE FUNCTION linkbeat.enrol_server(
    enrolment text, of_server text, of_guid text, new_id text, new_name text, new_hash bytea, new_key_id bytea
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM linkbeat.take_token_turn();
    IF enrolment IS NOT NULL THEN
        -- Locked, because revoking takes no turn.
        PERFORM FROM linkbeat.tokens t
        WHERE t.token_id = enrolment AND t.kind = 'enrolment' AND t.uses_left > 0 AND linkbeat.is_active(t)
        FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            RETURN 'spent';
        END IF;
        IF EXISTS (SELECT FROM linkbeat.tokens t WHERE t.server_id = of_server AND linkbeat.is_active(t))
           OR EXISTS (SELECT FROM servers WHERE server_id = of_server
                      AND ((server_guid = of_guid) IS NOT TRUE
                           OR NOT EXISTS (SELECT FROM linkbeat.tokens t WHERE t.server_id = of_server))) THEN
            RETURN 'exists';
        END IF;
        UPDATE linkbeat.tokens t SET uses_left = uses_left - 1, last_used_at = clock_timestamp()
        WHERE t.token_id = enrolment;
    END IF;
    PERFORM linkbeat.create_token(
        new_id => new_id, new_kind => 'server', of_server => of_server, of_guid => of_guid, new_name => new_name,
        new_hash => new_hash, new_key_id => new_key_id, new_expires => NULL, new_uses => NULL);
    RETURN 'enrolled';
END $$;

-- False where there is no such token.
CREATE OR REPLACE FUNCTION linkbeat.revoke_token(of_id text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE linkbeat.tokens SET revoked_at = clock_timestamp() WHERE token_id = of_id AND revoked_at IS NULL;
    RETURN FOUND OR EXISTS (SELECT FROM linkbeat.tokens WHERE token_id = of_id);
END $$;

-- Parallel arrays, by token_id: when each token was last used, and the GUID that its server named, which stays.
CREATE OR REPLACE FUNCTION linkbeat.note_token_use(ids text[], times timestamptz[], guids text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM unnest(ids, guids) AS u(id, guid) JOIN linkbeat.tokens ON token_id = id
               WHERE guid IS NOT NULL AND server_guid IS NULL) THEN
        PERFORM linkbeat.take_token_turn();
        UPDATE linkbeat.tokens SET server_guid = guid FROM unnest(ids, guids) AS u(id, guid)
        WHERE token_id = id AND guid IS NOT NULL AND server_guid IS NULL;
    END IF;
    -- In the order of token_id, so that two processes cannot wait for each other.
    UPDATE linkbeat.tokens t SET last_used_at = u.time
    FROM (SELECT id, n.time FROM unnest(ids, times) AS n(id, time) JOIN linkbeat.tokens ON token_id = id
          WHERE n.time > coalesce(last_used_at, '-infinity') ORDER BY id FOR UPDATE OF tokens) AS u
    WHERE t.token_id = u.id;
END $$;
