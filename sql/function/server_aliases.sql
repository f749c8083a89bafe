-- Other ids of servers (sql/schema/server_aliases.sql).
-- Replaceable: reapplied on every upgrade.

-- A server whose id has just become an alias is not registered: the batch is refused, and its heartbeat, sent again, is
-- the other server's. The lock is shared by all that register, and add_alias waits for them.
CREATE OR REPLACE FUNCTION linkbeat.refuse_alias() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('linkbeat server ids', 0));
    IF EXISTS (SELECT FROM linkbeat.server_aliases a WHERE a.alias = NEW.server_id) THEN
        RAISE EXCEPTION 'server % has another id now', NEW.server_id USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER refuse_alias BEFORE INSERT ON public.servers
FOR EACH ROW EXECUTE FUNCTION linkbeat.refuse_alias();

-- False where there is no such server. Again for the same server changes nothing.
--   LB409  a server has that id, or it is another one's alias: the detail is that server
CREATE OR REPLACE FUNCTION linkbeat.add_alias(of_server text, new_alias text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    other text;
BEGIN
    -- A server that is removed meanwhile is waited for, and then not there.
    PERFORM FROM servers WHERE server_id = of_server FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('linkbeat server ids', 0));
    other := coalesce((SELECT s.server_id FROM servers s WHERE s.server_id = new_alias),
                      (SELECT a.server_id FROM linkbeat.server_aliases a WHERE a.alias = new_alias AND a.server_id <> of_server));
    IF other IS NOT NULL THEN
        RAISE EXCEPTION 'server % has that id', other USING ERRCODE = 'LB409', DETAIL = other;
    END IF;
    INSERT INTO linkbeat.server_aliases (alias, server_id) VALUES (new_alias, of_server) ON CONFLICT DO NOTHING;
    RETURN true;
END $$;

-- False where it is no alias of the server. Heartbeats under it register a server again.
CREATE OR REPLACE FUNCTION linkbeat.delete_alias(of_server text, of_alias text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    DELETE FROM linkbeat.server_aliases a WHERE a.alias = of_alias AND a.server_id = of_server;
    RETURN FOUND;
END $$;

-- Services read aliases with the links.
CREATE OR REPLACE TRIGGER count_change AFTER INSERT OR UPDATE OR DELETE ON linkbeat.server_aliases
FOR EACH STATEMENT EXECUTE FUNCTION linkbeat.count_link_change();

CREATE OR REPLACE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON linkbeat.server_aliases
FOR EACH ROW WHEN (pg_trigger_depth() = 0)
EXECUTE FUNCTION linkbeat.audit_row('alias', 'alias', 'server_id', '{server_id,created_at}');
