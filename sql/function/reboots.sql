-- Reboots: which boots of a server followed another one by a reboot. A boot id that is no UUID may change without one: it
-- then needs a sample of kind reboot. server_boots.is_reboot says so, because samples are dropped long before boots.
-- Replaceable: reapplied on every upgrade.

-- Whether a new boot whose id is no UUID, noted with the newest heartbeat of its server, is a reboot. Samples of a late heartbeat are not judged
-- yet at that moment; note_reboot follows.
CREATE OR REPLACE FUNCTION linkbeat.is_reboot(of_server text, of_boot bigint, moment timestamptz) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (
    SELECT FROM servers s, unnest(s.interfaces) AS i
    WHERE s.server_id = of_server AND i.time = moment AND i.boot = of_boot AND i.delta_kind = 'reboot'
);

-- Takes note of what was concluded about a row, if that makes its boot a reboot, or none any more.
CREATE OR REPLACE FUNCTION linkbeat.note_reboot(m network_interface_metrics) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF linkbeat.is_uuid_boot(m.boot) IS NOT FALSE THEN
        RETURN;
    END IF;
    IF m.delta_kind = 'reboot' THEN
        UPDATE server_boots SET is_reboot = true WHERE server_id = m.server_id AND boot = m.boot AND NOT is_reboot;
    ELSE
        -- Of a boot that began before the oldest row that is kept, the sample that showed it may be gone.
        UPDATE server_boots b SET is_reboot = false
        WHERE b.server_id = m.server_id AND b.boot = m.boot AND b.is_reboot
          AND b.first_seen > now() - linkbeat.configured('retain_raw_days')
          AND NOT EXISTS (
              SELECT FROM servers s, unnest(s.interface_names) AS name, LATERAL (
                  SELECT FROM network_interface_metrics r
                  WHERE r.server_id = b.server_id AND r.interface_name = name AND r.boot = b.boot AND r.time >= b.first_seen
                    AND r.delta_kind = 'reboot') AS r
              WHERE s.server_id = b.server_id);
    END IF;
END $$;
