-- Boots: from when to when each was seen. Two that overlap are two machines under one id, as a cloned disk makes them:
-- each is counted for itself, and it is said (servers.shared_since), instead of a reboot at every heartbeat.
-- Replaceable: reapplied on every upgrade.

-- Pairs of boots of a server that overlap; began_during: `boot` was first seen while `other` ran.
CREATE OR REPLACE FUNCTION linkbeat.overlapping_boots(of_server text)
RETURNS TABLE (boot bigint, other bigint, began_during boolean, since timestamptz)
LANGUAGE sql STABLE AS $$
    WITH seen AS (
        SELECT b.boot, b.first_seen,
               -- The boot under way is followed in the server's own row.
               CASE WHEN b.boot = s.boot THEN greatest(b.last_seen, s.last_seen) ELSE b.last_seen END AS last_seen
        FROM server_boots b JOIN servers s USING (server_id)
        WHERE b.server_id = of_server
    )
    SELECT a.boot, o.boot, a.first_seen > o.first_seen, greatest(a.first_seen, o.first_seen)
    FROM seen a JOIN seen o ON a.boot <> o.boot AND a.first_seen < o.last_seen AND o.first_seen < a.last_seen
$$;

CREATE OR REPLACE FUNCTION linkbeat.is_shared(of_server text) RETURNS boolean LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM servers WHERE server_id = of_server AND shared_since IS NOT NULL);

-- Takes note of a heartbeat whose boot is not that of the newest before it, or that is late.
-- The caller holds the server's row, and has written the heartbeat into it if it is the newest.
CREATE OR REPLACE FUNCTION linkbeat.track_boot(of_server text, of_boot bigint, of_boot_id text, moment timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before  integer := (SELECT count(*) FROM linkbeat.overlapping_boots(of_server));
    is_new  boolean;
    overlap record;
BEGIN
    INSERT INTO server_boots AS b (server_id, boot, boot_id, first_seen, last_seen)
    VALUES (of_server, of_boot, of_boot_id, moment, moment)
    ON CONFLICT (server_id, boot) DO UPDATE SET
        first_seen = least(b.first_seen, moment), last_seen = greatest(b.last_seen, moment)
    RETURNING xmax = 0 INTO is_new;  -- xmax is 0 in a new row

    IF is_new THEN
        -- The boot before was followed in the server's own row. Its last heartbeat is where the deltas of this one,
        -- which are its server's newest, count from.
        UPDATE server_boots SET last_seen = greatest(last_seen, (
            SELECT moment - min(i.elapsed_ms) * INTERVAL '1 millisecond' FROM servers s, unnest(s.interfaces) AS i
            WHERE s.server_id = of_server AND i.time = moment AND i.elapsed_ms > 0))
        WHERE server_id = of_server AND boot = (
            SELECT boot FROM server_boots
            WHERE server_id = of_server AND boot <> of_boot AND first_seen < moment ORDER BY first_seen DESC LIMIT 1);
    END IF;

    SELECT count(*) AS boots, min(o.since) AS since INTO overlap
    FROM linkbeat.overlapping_boots(of_server) AS o WHERE o.boot = of_boot OR o.other = of_boot;
    IF overlap.boots = 0 THEN
        RETURN;
    END IF;
    UPDATE servers SET shared_since = coalesce(shared_since, statement_timestamp()), shared_at = statement_timestamp()
    WHERE server_id = of_server;
    IF (SELECT count(*) FROM linkbeat.overlapping_boots(of_server)) > before THEN
        -- What was taken for a reboot was another machine: count its samples anew.
        PERFORM linkbeat.repair_deltas(of_server, interface_name, overlap.since, 'infinity')
        FROM (SELECT DISTINCT interface_name FROM network_interface_metrics
              WHERE server_id = of_server AND time >= overlap.since AND delta_kind <> 'folded') AS i;
    END IF;
END $$;
