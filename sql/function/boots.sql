-- Boots: from when to when each was seen, and which are of another machine under the same id, as a cloned disk makes them.
-- Boots that overlap in time are two machines only if their heartbeats alternate in arrival. Otherwise one machine's clock
-- was wrong for a while, as that of a board without a clock chip is after a power cut: it was rebooted.
-- Replaceable: reapplied on every upgrade.

-- From when to when a server was seen in each boot. That of its newest heartbeat is followed in the server's own row.
CREATE OR REPLACE FUNCTION linkbeat.boot_spans(of_server text)
RETURNS TABLE (boot bigint, first_seen timestamptz, last_seen timestamptz, alternates boolean)
LANGUAGE sql STABLE AS $$
    SELECT b.boot, b.first_seen, CASE WHEN b.boot = s.boot THEN greatest(b.last_seen, s.last_seen) ELSE b.last_seen END,
           b.alternates
    FROM server_boots b JOIN servers s USING (server_id)
    WHERE b.server_id = of_server
$$;

-- When two machines were first seen to report under one id; null: never, or the last time is a day ago.
CREATE OR REPLACE FUNCTION linkbeat.still_shared(shared_since timestamptz, shared_at timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN shared_at > now() - INTERVAL '1 day' THEN shared_since END;

-- Whether `of_boot` is not the machine's whose row stands before: they alternate; or it does with a boot that ran when it
-- began.
CREATE OR REPLACE FUNCTION linkbeat.is_other_machine(of_server text, of_boot bigint, boot_before bigint) RETURNS boolean
LANGUAGE sql STABLE AS $$
    WITH spans AS MATERIALIZED (SELECT * FROM linkbeat.boot_spans(of_server) WHERE alternates)
    SELECT EXISTS (
        SELECT FROM spans AS b JOIN spans AS o ON o.boot <> b.boot AND b.first_seen < o.last_seen AND o.first_seen < b.last_seen
        WHERE b.boot = of_boot AND (b.first_seen > o.first_seen OR o.boot = boot_before))
$$;

-- Takes note of a heartbeat that was stored, and whose boot is not that of the newest before it, or that is late.
--   is_live                       it was sent by itself, or says a time that has just passed: no replay
--   boot_was, was_seen, was_live  of the newest heartbeat before this one; when one of it last arrived live
-- The caller holds the server's row, and has written the heartbeat into it if it is the newest.
CREATE OR REPLACE FUNCTION linkbeat.track_boot(
    of_server text, of_boot bigint, of_boot_id text, moment timestamptz, is_live boolean, boot_was bigint,
    was_seen timestamptz, was_live timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    had     server_boots;
    has     server_boots;
    other   record;
    since   timestamptz;
BEGIN
    UPDATE server_boots SET last_seen = CASE WHEN moment > was_seen THEN greatest(last_seen, was_seen) ELSE last_seen END,
                            arrived_at = greatest(arrived_at, was_live)
    WHERE server_id = of_server AND boot = boot_was
      AND (moment > was_seen AND last_seen < was_seen OR (arrived_at < was_live) IS NOT FALSE AND was_live IS NOT NULL);
    IF of_boot IS NULL THEN
        RETURN;
    END IF;
    SELECT * INTO had FROM server_boots WHERE server_id = of_server AND boot = of_boot;
    IF boot_was = of_boot THEN
        had.last_seen := greatest(had.last_seen, was_seen);
    END IF;
    IF NOT is_live AND moment BETWEEN had.first_seen AND had.last_seen THEN
        RETURN;  -- a replay from within its span changes nothing
    END IF;
    INSERT INTO server_boots AS b (server_id, boot, boot_id, first_seen, last_seen, arrived_at, is_reboot)
    VALUES (of_server, of_boot, of_boot_id, moment, moment, CASE WHEN is_live THEN statement_timestamp() END,
            linkbeat.is_uuid_boot(of_boot) OR linkbeat.is_reboot(of_server, of_boot, moment))
    ON CONFLICT (server_id, boot) DO UPDATE SET
        first_seen = least(had.first_seen, moment), last_seen = greatest(had.last_seen, moment),
        arrived_at = coalesce(EXCLUDED.arrived_at, b.arrived_at)
    RETURNING * INTO has;
    IF had.boot IS NULL THEN
        PERFORM linkbeat.forget_boots(of_server);
    END IF;

    FOR other IN
        SELECT o.boot, greatest(o.first_seen, has.first_seen) AS overlap_since, b.arrived_at > had.arrived_at AS arrived_between,
               -- Known as another machine's already, and nothing that follows from it has changed.
               o.alternates AND has.alternates
               AND (had.first_seen < o.last_seen AND o.first_seen < had.last_seen
                    AND (had.first_seen > o.first_seen) = (has.first_seen > o.first_seen)) IS TRUE AS is_settled
        FROM linkbeat.boot_spans(of_server) AS o JOIN server_boots b ON b.server_id = of_server AND b.boot = o.boot
        WHERE o.boot <> of_boot AND has.first_seen < o.last_seen AND o.first_seen < has.last_seen
    LOOP
        -- This boot, the other one, and this one again, as they arrived; a replay of what was stored up is no sign of life.
        IF other.arrived_between AND is_live
           AND (linkbeat.is_uuid_boot(of_boot) AND linkbeat.is_uuid_boot(other.boot)
                OR linkbeat.counts_apart(of_server, of_boot, other.boot, other.overlap_since)) THEN
            WITH marked AS (
                UPDATE server_boots SET alternates = true
                WHERE server_id = of_server AND boot IN (of_boot, other.boot) AND NOT alternates
                RETURNING first_seen
            )
            SELECT least(since, min(first_seen)) INTO since FROM marked;
            UPDATE servers SET shared_since = coalesce(linkbeat.still_shared(shared_since, shared_at), statement_timestamp()),
                               shared_at = statement_timestamp()
            WHERE server_id = of_server;
        ELSIF NOT (SELECT bool_and(alternates) FROM server_boots WHERE server_id = of_server AND boot IN (of_boot, other.boot)) THEN
            CONTINUE;
        END IF;
        IF NOT other.is_settled THEN
            since := least(since, other.overlap_since);
        END IF;
    END LOOP;
    IF since IS NULL THEN
        RETURN;
    END IF;
    -- What was taken for a reboot was another machine: its samples are judged again.
    PERFORM linkbeat.repair_deltas(of_server, array_agg(interface_name), array_agg(first), is_whole => true)
    FROM (SELECT interface_name, min(time) AS first FROM network_interface_metrics
          WHERE server_id = of_server AND time >= since AND delta_kind <> 'folded'
          GROUP BY interface_name ORDER BY interface_name) AS series;
END $$;

-- Whether the rows of two boots cannot be one machine's whose boot id flickers: where one follows the other, counters fall
-- below half.
CREATE OR REPLACE FUNCTION linkbeat.counts_apart(of_server text, one bigint, other bigint, since timestamptz)
RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM (
            SELECT boot, linkbeat.unsigned(rx_bytes) AS rx, linkbeat.unsigned(tx_bytes) AS tx,
                   lag(boot) OVER series AS boot_before, lag(linkbeat.unsigned(rx_bytes)) OVER series AS rx_before,
                   lag(linkbeat.unsigned(tx_bytes)) OVER series AS tx_before
            FROM network_interface_metrics
            WHERE server_id = of_server AND boot IN (one, other) AND time >= since - INTERVAL '1 day' AND delta_kind <> 'folded'
            WINDOW series AS (PARTITION BY interface_name ORDER BY time)) AS m
        WHERE boot <> boot_before AND (rx * 2 < rx_before OR tx * 2 < tx_before));
END $$;

-- Keeps a server's boots from growing without bound: of an id that slides, every heartbeat may bring another one.
CREATE OR REPLACE FUNCTION linkbeat.forget_boots(of_server text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM server_boots WHERE server_id = of_server) > 1000 THEN
        DELETE FROM server_boots
        WHERE server_id = of_server AND boot IN (
            SELECT boot FROM server_boots WHERE server_id = of_server ORDER BY last_seen DESC OFFSET 500);
    END IF;
END $$;
