-- server_samples, filesystem_samples: the machine and its filesystems, heartbeat by heartbeat.
-- server_reboots: what lies between one boot of a server and the next.
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

-- Boots in the order in which they began, by the agent's clock: one that was set back makes a boot seem to begin before the
-- one before it ended. That is an overlap only where heartbeats of the two arrived by turns.
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

COMMENT ON VIEW public.server_samples IS 'What each machine reported of itself as a whole, one row per heartbeat.';
COMMENT ON COLUMN public.server_samples.time IS 'When the agent read the values, by its clock.';
COMMENT ON COLUMN public.server_samples.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.server_samples.cpu_percent IS 'Share of the processors'' time in use since the heartbeat before, in percent; null: not reported.';
COMMENT ON COLUMN public.server_samples.load_1m IS 'Load average over 1 minute; null: not reported.';
COMMENT ON COLUMN public.server_samples.load_5m IS 'Load average over 5 minutes; null: not reported.';
COMMENT ON COLUMN public.server_samples.load_15m IS 'Load average over 15 minutes; null: not reported.';
COMMENT ON COLUMN public.server_samples.memory_percent IS 'Share of the memory in use, in percent; null: not reported.';
COMMENT ON COLUMN public.server_samples.memory_used_mb IS 'Memory in use, in megabytes as the agent counts them; null: not reported.';
COMMENT ON COLUMN public.server_samples.memory_total_mb IS 'Memory, in megabytes as the agent counts them; null: not reported.';
COMMENT ON COLUMN public.server_samples.disk_percent IS 'Share of the root filesystem in use, in percent; null: not reported.';
COMMENT ON COLUMN public.server_samples.disk_used_gb IS 'Used of the root filesystem, in gigabytes as the agent counts them; null: not reported.';
COMMENT ON COLUMN public.server_samples.disk_total_gb IS 'Size of the root filesystem, in gigabytes as the agent counts them; null: not reported.';
COMMENT ON COLUMN public.server_samples.uptime_seconds IS 'Seconds since the machine booted; null: not reported.';
COMMENT ON COLUMN public.server_samples.temperature_celsius IS 'Hottest sensor, in degrees Celsius; null: not reported.';

COMMENT ON VIEW public.filesystem_samples IS 'Every mounted filesystem of every machine, one row per heartbeat.';
COMMENT ON COLUMN public.filesystem_samples.time IS 'When the agent read the values, by its clock.';
COMMENT ON COLUMN public.filesystem_samples.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.filesystem_samples.mount_point IS 'Where it is mounted.';
COMMENT ON COLUMN public.filesystem_samples.device IS 'What is mounted there.';
COMMENT ON COLUMN public.filesystem_samples.fs_type IS 'The filesystem''s type, such as ext4.';
COMMENT ON COLUMN public.filesystem_samples.state IS 'Such as unreachable; null: it answers.';
COMMENT ON COLUMN public.filesystem_samples.percent IS 'As df counts it: used / (used + available), in percent; null: not known.';
COMMENT ON COLUMN public.filesystem_samples.total_bytes IS 'Size.';
COMMENT ON COLUMN public.filesystem_samples.used_bytes IS 'Bytes in use.';
COMMENT ON COLUMN public.filesystem_samples.available_bytes IS 'Bytes that an ordinary user can still write; null: not known.';

COMMENT ON VIEW public.server_reboots IS
    'Every reboot of a server, and the silence between the boots. Of boot ids that are no UUIDs, those alone that came with counters that fell, or with an uptime that did. Servers whose agent sends no boot_id have none.';
COMMENT ON COLUMN public.server_reboots.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.server_reboots.boot IS 'Number of the new boot, as in network_samples.';
COMMENT ON COLUMN public.server_reboots.boot_id IS 'The new boot''s id as the agent sent it.';
COMMENT ON COLUMN public.server_reboots.previous_boot_id IS 'The id of the boot before.';
COMMENT ON COLUMN public.server_reboots.down_since IS 'Time of the last heartbeat before.';
COMMENT ON COLUMN public.server_reboots.up_since IS 'Time of the first heartbeat after.';
COMMENT ON COLUMN public.server_reboots.downtime_seconds IS 'Seconds without a heartbeat between the boots: the machine was down no longer than that. null: the new boot began before the last heartbeat of the one before: is_overlap, or the clock was set back.';
COMMENT ON COLUMN public.server_reboots.is_overlap IS 'Heartbeats of this boot and of the one before arrived by turns: two machines report under one id, and neither rebooted. false: a reboot, also where the clock was wrong after it.';
