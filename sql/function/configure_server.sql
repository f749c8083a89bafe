-- configure_server: what a server's agent is asked to do, whole, or nothing any more where new_config is null. False where
-- there is no such server; `seen`: the version that the caller saw (linkbeat.check_version). What can stand there is checked by the service (service/wire.py).
-- Replaceable: reapplied on every upgrade.

CREATE OR REPLACE FUNCTION linkbeat.configure_server(of_server text, new_config jsonb, seen text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    -- A server that is removed meanwhile is waited for, and then not there.
    PERFORM FROM servers WHERE server_id = of_server FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM linkbeat.take_turn('config', of_server);
    PERFORM linkbeat.check_version((SELECT c.config FROM linkbeat.server_config c WHERE c.server_id = of_server), seen);
    IF new_config IS NULL THEN
        DELETE FROM linkbeat.server_config WHERE server_id = of_server;
    ELSE
        INSERT INTO linkbeat.server_config (server_id, config) VALUES (of_server, new_config)
        ON CONFLICT (server_id) DO UPDATE SET config = EXCLUDED.config, changed_at = EXCLUDED.changed_at;
    END IF;
    RETURN true;
END $$;

-- Asks the agent for a report: it learns of it in the answer to its next heartbeat. False where there is no such server.
CREATE OR REPLACE FUNCTION linkbeat.request_report(of_server text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM FROM servers WHERE server_id = of_server FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO linkbeat.server_config (server_id, config, report_at) VALUES (of_server, NULL, clock_timestamp())
    ON CONFLICT (server_id) DO UPDATE SET report_at = EXCLUDED.report_at;
    PERFORM linkbeat.audit('report.request', of_server, of_server);
    RETURN true;
END $$;

-- installation.config_revision counts the changes of server_config. Each locks that row until it is committed: whoever
-- reads row and table in one statement has all changes up to that number.
CREATE OR REPLACE FUNCTION linkbeat.count_config_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE linkbeat.installation SET config_revision = config_revision + 1;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER count_change AFTER INSERT OR UPDATE OR DELETE ON linkbeat.server_config
FOR EACH STATEMENT EXECUTE FUNCTION linkbeat.count_config_change();
