-- Boots: from when to when each was seen. Two that overlap are two machines under one id, as a cloned disk makes them:
-- each is counted for itself, and it is said (servers.shared_since), instead of a reboot at every heartbeat.
-- Replaceable: reapplied on every upgrade.

-- From when to when a server was seen in each boot. That of its newest heartbeat is followed in the server's own row.
CREATE OR REPLACE FUNCTION linkbeat.boot_spans(of_server text)
RETURNS TABLE (boot bigint, first_seen timestamptz, last_seen timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT b.boot, b.first_seen, CASE WHEN b.boot = s.boot THEN greatest(b.last_seen, s.last_seen) ELSE b.last_seen END
    FROM server_boots b JOIN servers s USING (server_id)
    WHERE b.server_id = of_server
$$;

CREATE OR REPLACE FUNCTION linkbeat.is_shared(of_server text) RETURNS boolean LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM servers WHERE server_id = of_server AND shared_since IS NOT NULL);

-- Whether `boot` is not the machine's whose row stands before: their boots overlap; or another one ran when it began.
CREATE OR REPLACE FUNCTION linkbeat.is_other_machine(of_server text, of_boot bigint, boot_before bigint) RETURNS boolean
LANGUAGE sql STABLE AS $$
    WITH spans AS MATERIALIZED (SELECT * FROM linkbeat.boot_spans(of_server))
    SELECT EXISTS (
        SELECT FROM spans AS b JOIN spans AS o ON o.boot <> b.boot AND b.first_seen < o.last_seen AND o.first_seen < b.last_seen
        WHERE b.boot = of_boot AND (b.first_seen > o.first_seen OR o.boot = boot_before))
$$;

-- Takes note of a heartbeat that was stored, and whose boot is not that of the newest before it, or that is late.
--   boot_was, was_seen  of the newest heartbeat before this one
-- The caller holds the server's row, and has written the heartbeat into it if it is the newest.
CREATE OR REPLACE FUNCTION linkbeat.track_boot(
    of_server text, of_boot bigint, of_boot_id text, moment timestamptz, boot_was bigint, was_seen timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    had     server_boots;
    has     server_boots;
    overlap record;
    doubted record;
BEGIN
    IF moment > was_seen THEN
        UPDATE server_boots SET last_seen = was_seen
        WHERE server_id = of_server AND boot = boot_was AND last_seen < was_seen;
    END IF;
    IF of_boot IS NULL THEN
        RETURN;
    END IF;
    SELECT * INTO had FROM server_boots WHERE server_id = of_server AND boot = of_boot;
    IF boot_was = of_boot THEN
        had.last_seen := greatest(had.last_seen, was_seen);
    END IF;
    INSERT INTO server_boots AS b (server_id, boot, boot_id, first_seen, last_seen)
    VALUES (of_server, of_boot, of_boot_id, moment, moment)
    ON CONFLICT (server_id, boot) DO UPDATE SET
        first_seen = least(had.first_seen, moment), last_seen = greatest(had.last_seen, moment)
    RETURNING * INTO has;

    -- The boots that overlap this one; and since when, of those that did not before, or began on its other side.
    SELECT count(*) AS boots, min(greatest(o.first_seen, has.first_seen)) FILTER (
               WHERE (had.first_seen < o.last_seen AND o.first_seen < had.last_seen
                      AND (had.first_seen > o.first_seen) = (has.first_seen > o.first_seen)) IS NOT TRUE) AS since
    INTO overlap
    FROM linkbeat.boot_spans(of_server) AS o
    WHERE o.boot <> of_boot AND has.first_seen < o.last_seen AND o.first_seen < has.last_seen;
    IF overlap.boots = 0 THEN
        RETURN;
    END IF;
    UPDATE servers SET shared_since = coalesce(shared_since, statement_timestamp()), shared_at = statement_timestamp()
    WHERE server_id = of_server;
    -- What was taken for a reboot was another machine: the samples that follow one of another boot are counted anew.
    FOR doubted IN
        SELECT interface_name, time FROM (
            SELECT interface_name, time, boot, lag(boot) OVER series AS boot_before, lag(time) OVER series AS time_before
            FROM network_interface_metrics
            WHERE server_id = of_server AND time >= overlap.since AND delta_kind <> 'folded'
            WINDOW series AS (PARTITION BY interface_name ORDER BY time)) AS m
        WHERE boot <> boot_before OR time_before IS NULL
        ORDER BY interface_name, time
    LOOP
        PERFORM linkbeat.repair_deltas(of_server, doubted.interface_name, doubted.time);
    END LOOP;
END $$;
