-- server_overview: every server, one row each: who it is, whether it reports, and what it last said of itself.
-- Replaceable: reapplied on every upgrade.

CREATE OR REPLACE VIEW public.server_overview AS
SELECT s.server_id,
       s.hostname,
       s.server_guid,
       CASE WHEN linkbeat.is_online(s.received_at, s.interval_seconds) THEN 'online' ELSE 'offline' END AS status,
       s.reported_status,
       s.first_seen,
       s.last_seen,
       s.received_at,
       coalesce(s.interval_seconds, 30) AS interval_seconds,
       s.agent_version,
       s.os_info,
       s.boot_id,
       (s.latest_metrics).uptime_seconds,
       s.primary_interface,
       -- A column that a query leaves out costs it nothing: each of these is read by itself.
       (SELECT count(*) FROM unnest(s.interfaces) i WHERE i.time = s.last_seen AND NOT i.is_folded) AS interfaces,
       (SELECT count(*) FROM unnest(s.interfaces) i WHERE i.time = s.last_seen AND i.is_folded) AS folded_interfaces,
       cardinality(s.interfaces) AS remembered_interfaces,
       jsonb_array_length(s.filesystems) AS filesystems,
       (s.latest_metrics).cpu_percent,
       (s.latest_metrics).load_1m,
       (s.latest_metrics).load_5m,
       (s.latest_metrics).load_15m,
       (s.latest_metrics).memory_percent,
       (s.latest_metrics).memory_used_mb,
       (s.latest_metrics).memory_total_mb,
       (s.latest_metrics).disk_percent,
       (s.latest_metrics).disk_used_gb,
       (s.latest_metrics).disk_total_gb,
       s.duplicates,
       s.conflicts,
       linkbeat.still_shared(s.shared_since, s.shared_at) AS shared_since,
       s.shared_at,
       s.reported_status IS NOT DISTINCT FROM 'paused' AS is_paused,
       (s.latest_metrics).temperature_celsius
FROM public.servers s;

COMMENT ON VIEW public.server_overview IS
    'Every server, one row each: who it is, whether it reports, and what it last said of itself.';
COMMENT ON COLUMN public.server_overview.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.server_overview.hostname IS 'The machine''s hostname as last sent.';
COMMENT ON COLUMN public.server_overview.server_guid IS 'The machine''s GUID; null: the agent sent none.';
COMMENT ON COLUMN public.server_overview.status IS 'online, until three intervals pass without a heartbeat; then offline.';
COMMENT ON COLUMN public.server_overview.reported_status IS 'The agent''s own word on its state; null: it sent none.';
COMMENT ON COLUMN public.server_overview.first_seen IS 'Time of the earliest heartbeat, by the agent''s clock.';
COMMENT ON COLUMN public.server_overview.last_seen IS 'Time of the newest heartbeat, by the agent''s clock.';
COMMENT ON COLUMN public.server_overview.received_at IS 'When a heartbeat was last stored, by the service''s clock.';
COMMENT ON COLUMN public.server_overview.interval_seconds IS 'Seconds from one heartbeat to the next; 30 where the agent does not say.';
COMMENT ON COLUMN public.server_overview.agent_version IS 'Version of the agent as last sent; null: it sent none.';
COMMENT ON COLUMN public.server_overview.os_info IS 'Operating system, kernel and architecture as last sent; null: it sent none.';
COMMENT ON COLUMN public.server_overview.boot_id IS 'Differs after every boot, if it is a UUID; another id may change without one. null: the agent does not say.';
COMMENT ON COLUMN public.server_overview.uptime_seconds IS 'Seconds from boot to the newest heartbeat; null: not reported.';
COMMENT ON COLUMN public.server_overview.primary_interface IS 'The machine''s main interface, in the agent''s judgement; null: it has none.';
COMMENT ON COLUMN public.server_overview.interfaces IS 'Interfaces in the newest heartbeat that have a history of their own.';
COMMENT ON COLUMN public.server_overview.folded_interfaces IS 'Interfaces in the newest heartbeat that are counted in the history of their kind: short-lived, or beyond the server''s budget.';
COMMENT ON COLUMN public.server_overview.remembered_interfaces IS 'Interfaces whose newest state is kept, gone ones included.';
COMMENT ON COLUMN public.server_overview.filesystems IS 'Filesystems in the newest heartbeat.';
COMMENT ON COLUMN public.server_overview.cpu_percent IS 'Share of the processors'' time in use between the last two heartbeats, in percent; null: not reported.';
COMMENT ON COLUMN public.server_overview.load_1m IS 'Load average over 1 minute; null: not reported.';
COMMENT ON COLUMN public.server_overview.load_5m IS 'Load average over 5 minutes; null: not reported.';
COMMENT ON COLUMN public.server_overview.load_15m IS 'Load average over 15 minutes; null: not reported.';
COMMENT ON COLUMN public.server_overview.memory_percent IS 'Share of the memory in use, in percent; null: not reported.';
COMMENT ON COLUMN public.server_overview.memory_used_mb IS 'Memory in use, in megabytes as the agent counts them; null: not reported.';
COMMENT ON COLUMN public.server_overview.memory_total_mb IS 'Memory, in megabytes as the agent counts them; null: not reported.';
COMMENT ON COLUMN public.server_overview.disk_percent IS 'Share of the root filesystem in use, in percent; null: not reported.';
COMMENT ON COLUMN public.server_overview.disk_used_gb IS 'Used of the root filesystem, in gigabytes as the agent counts them; null: not reported.';
COMMENT ON COLUMN public.server_overview.disk_total_gb IS 'Size of the root filesystem, in gigabytes as the agent counts them; null: not reported.';
COMMENT ON COLUMN public.server_overview.duplicates IS 'Heartbeats that came again and changed nothing.';
COMMENT ON COLUMN public.server_overview.conflicts IS 'Heartbeats that came again with other values; the first ones stay.';
COMMENT ON COLUMN public.server_overview.shared_since IS 'When two machines were first seen to report under this id: heartbeats of two boots arrived by turns. null: never, or not for a day.';
COMMENT ON COLUMN public.server_overview.shared_at IS 'When two machines were last seen to report under this id; null: never.';
COMMENT ON COLUMN public.server_overview.is_paused IS 'The agent says that it measures nothing for now, as it was asked to.';
COMMENT ON COLUMN public.server_overview.temperature_celsius IS 'Hottest sensor, in degrees Celsius; null: not reported.';
