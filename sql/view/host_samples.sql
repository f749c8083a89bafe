-- server_samples, filesystem_samples: metrics of the machine and its filesystems, one row per heartbeat.
-- server_reboots: the reboots of each server, and the downtime between boots.
-- Replaceable: reapplied on every upgrade.

CREATE OR REPLACE VIEW public.server_samples AS
SELECT time, server_id, cpu_percent, load_1m, load_5m, load_15m, memory_percent, memory_used_mb, memory_total_mb,
       disk_percent, disk_used_gb, disk_total_gb, uptime_seconds, temperature_celsius
FROM public.server_metrics;

CREATE OR REPLACE VIEW public.filesystem_samples AS
SELECT time, server_id, mount_point, device, fs_type, state, percent,
       linkbeat.unsigned(total_bytes) AS total_bytes,
       linkbeat.unsigned(used_bytes) AS used_bytes,
       linkbeat.unsigned(available_bytes) AS available_bytes
FROM public.filesystem_metrics;

-- Boots in the order in which they began, by the agent's clock: one that was set back makes a boot seem to begin before
-- the one before it ended. That is an overlap only where heartbeats of the two arrived by turns.
CREATE OR REPLACE VIEW public.server_reboots AS
SELECT server_id, boot, boot_id, previous_boot_id, down_since, up_since,
       CASE WHEN up_since >= down_since THEN extract(epoch FROM up_since - down_since)::double precision END AS downtime_seconds,
       is_overlap
FROM (
    SELECT server_id, boot, boot_id, is_reboot, first_seen AS up_since,
           lag(boot_id) OVER boots AS previous_boot_id, lag(last_seen) OVER boots AS down_since,
           alternates AND lag(alternates) OVER boots AND first_seen < lag(last_seen) OVER boots AS is_overlap
    FROM public.server_boots
    WINDOW boots AS (PARTITION BY server_id ORDER BY first_seen, boot)
) b
WHERE down_since IS NOT NULL AND (is_reboot OR is_overlap);

COMMENT ON VIEW public.server_samples IS 'Metrics of each machine as a whole, one row per heartbeat.';
COMMENT ON COLUMN public.server_samples.time IS 'When the agent read the values, by its clock.';
COMMENT ON COLUMN public.server_samples.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.server_samples.cpu_percent IS 'Processor time in use since the previous heartbeat, in percent; null: not reported.';
COMMENT ON COLUMN public.server_samples.load_1m IS 'Load average over 1 minute; null: not reported.';
COMMENT ON COLUMN public.server_samples.load_5m IS 'Load average over 5 minutes; null: not reported.';
COMMENT ON COLUMN public.server_samples.load_15m IS 'Load average over 15 minutes; null: not reported.';
COMMENT ON COLUMN public.server_samples.memory_percent IS 'Share of the memory in use, in percent; null: not reported.';
COMMENT ON COLUMN public.server_samples.memory_used_mb IS 'Memory in use, in megabytes in the agent''s units; null: not reported.';
COMMENT ON COLUMN public.server_samples.memory_total_mb IS 'Memory, in megabytes in the agent''s units; null: not reported.';
COMMENT ON COLUMN public.server_samples.disk_percent IS 'Share of the root filesystem in use, in percent; null: not reported.';
COMMENT ON COLUMN public.server_samples.disk_used_gb IS 'Space in use on the root filesystem, in gigabytes in the agent''s units; null: not reported.';
COMMENT ON COLUMN public.server_samples.disk_total_gb IS 'Size of the root filesystem, in gigabytes in the agent''s units; null: not reported.';
COMMENT ON COLUMN public.server_samples.uptime_seconds IS 'Seconds since the machine booted; null: not reported.';
COMMENT ON COLUMN public.server_samples.temperature_celsius IS 'Temperature of the hottest sensor, in degrees Celsius; null: not reported.';

COMMENT ON VIEW public.filesystem_samples IS 'Every mounted filesystem of every machine, one row per heartbeat.';
COMMENT ON COLUMN public.filesystem_samples.time IS 'When the agent read the values, by its clock.';
COMMENT ON COLUMN public.filesystem_samples.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.filesystem_samples.mount_point IS 'The mount point.';
COMMENT ON COLUMN public.filesystem_samples.device IS 'The device or source that is mounted.';
COMMENT ON COLUMN public.filesystem_samples.fs_type IS 'Type of the filesystem, such as ext4.';
COMMENT ON COLUMN public.filesystem_samples.state IS 'State, such as unreachable; null: available.';
COMMENT ON COLUMN public.filesystem_samples.percent IS 'used / (used + available), in percent, as shown by df; null: unknown.';
COMMENT ON COLUMN public.filesystem_samples.total_bytes IS 'Size in bytes.';
COMMENT ON COLUMN public.filesystem_samples.used_bytes IS 'Bytes in use.';
COMMENT ON COLUMN public.filesystem_samples.available_bytes IS 'Bytes available to unprivileged users; null: unknown.';

COMMENT ON VIEW public.server_reboots IS
    'Reboots of each server, and the silence between the boots. A change of a boot_id that is not a UUID is only a reboot if counters or the uptime fell with it. Servers without boot_id have no rows.';
COMMENT ON COLUMN public.server_reboots.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.server_reboots.boot IS 'Number of the new boot, as in network_samples.';
COMMENT ON COLUMN public.server_reboots.boot_id IS 'Id of the new boot, as sent by the agent.';
COMMENT ON COLUMN public.server_reboots.previous_boot_id IS 'Id of the previous boot.';
COMMENT ON COLUMN public.server_reboots.down_since IS 'Time of the last heartbeat before the reboot.';
COMMENT ON COLUMN public.server_reboots.up_since IS 'Time of the first heartbeat after the reboot.';
COMMENT ON COLUMN public.server_reboots.downtime_seconds IS 'Seconds without a heartbeat between the boots, which is an upper limit of the downtime; null: the new boot began before the last heartbeat of the previous one, because of is_overlap or because the clock was set back.';
COMMENT ON COLUMN public.server_reboots.is_overlap IS 'Whether heartbeats of this boot and the previous one alternated: two machines report under one id, and neither rebooted. false: a reboot, even if the clock was wrong after it.';
