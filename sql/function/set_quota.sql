-- set_quota: what a server may move in a billing month, or nothing any more where new_bytes is null. False where there is
-- no such server; `seen`: the version that the caller saw (linkbeat.check_version). What can stand there is checked by the service (service/usage/quotas.py).
-- Replaceable: reapplied on every upgrade.

CREATE OR REPLACE FUNCTION linkbeat.quota_json(q linkbeat.quotas) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN to_jsonb(q) - '{server_id,changed_at}'::text[];

CREATE OR REPLACE FUNCTION linkbeat.set_quota(
    of_server text, new_bytes bigint, new_direction text, new_billing_day integer, new_time_zone text,
    new_interface text, new_near_percent double precision, seen text DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    -- A server that is removed meanwhile is waited for, and then not there.
    PERFORM FROM servers WHERE server_id = of_server FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM linkbeat.take_turn('quota', of_server);
    PERFORM linkbeat.check_version((SELECT linkbeat.quota_json(q) FROM linkbeat.quotas q WHERE q.server_id = of_server), seen);
    IF new_bytes IS NULL THEN
        DELETE FROM linkbeat.quotas WHERE server_id = of_server;
    ELSE
        INSERT INTO linkbeat.quotas (server_id, bytes, direction, billing_day, time_zone, interface_name, near_percent)
        VALUES (of_server, new_bytes, new_direction, new_billing_day, new_time_zone, new_interface, new_near_percent)
        ON CONFLICT (server_id) DO UPDATE SET
            bytes = EXCLUDED.bytes, direction = EXCLUDED.direction, billing_day = EXCLUDED.billing_day,
            time_zone = EXCLUDED.time_zone, interface_name = EXCLUDED.interface_name,
            near_percent = EXCLUDED.near_percent, changed_at = EXCLUDED.changed_at;
    END IF;
    RETURN true;
END $$;
