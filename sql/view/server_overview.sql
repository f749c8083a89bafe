-- server_overview: one row for each server: identity, status, and the values of its newest heartbeat.
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
       (s.latest_metrics).temperature_celsius,
       l.display_name,
       linkbeat.tags_of(l.tags, s.agent_report) AS tags
FROM public.servers s
LEFT JOIN linkbeat.server_labels l USING (server_id);

COMMENT ON VIEW public.server_overview IS
    'One row for each server: identity, status, and the values of its newest heartbeat.';
COMMENT ON COLUMN public.server_overview.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.server_overview.hostname IS 'Hostname from the newest heartbeat.';
COMMENT ON COLUMN public.server_overview.server_guid IS 'The machine''s GUID; null: not reported.';
COMMENT ON COLUMN public.server_overview.status IS 'online, or offline after three intervals without a heartbeat.';
COMMENT ON COLUMN public.server_overview.reported_status IS 'State as reported by the agent; null: not reported.';
COMMENT ON COLUMN public.server_overview.first_seen IS 'Time of the earliest heartbeat, by the agent''s clock.';
COMMENT ON COLUMN public.server_overview.last_seen IS 'Time of the newest heartbeat, by the agent''s clock.';
COMMENT ON COLUMN public.server_overview.received_at IS 'When the service last stored a heartbeat, by its own clock.';
COMMENT ON COLUMN public.server_overview.interval_seconds IS 'Seconds between heartbeats; 30 if the agent does not report it.';
COMMENT ON COLUMN public.server_overview.agent_version IS 'Version of the agent; null: not reported.';
COMMENT ON COLUMN public.server_overview.os_info IS 'Operating system, kernel and architecture; null: not reported.';
COMMENT ON COLUMN public.server_overview.boot_id IS 'Id of the boot. A UUID changes with every boot; an id of another form may change without a boot. null: not reported.';
COMMENT ON COLUMN public.server_overview.uptime_seconds IS 'Seconds from boot to the newest heartbeat; null: not reported.';
COMMENT ON COLUMN public.server_overview.primary_interface IS 'The machine''s main interface, as chosen by the agent; null: none.';
COMMENT ON COLUMN public.server_overview.interfaces IS 'Number of interfaces in the newest heartbeat that have their own series.';
COMMENT ON COLUMN public.server_overview.folded_interfaces IS 'Number of interfaces in the newest heartbeat that are counted in the series of their kind: short-lived, or above the server''s limit of series.';
COMMENT ON COLUMN public.server_overview.remembered_interfaces IS 'Number of interfaces whose newest state is stored, including those that have disappeared.';
COMMENT ON COLUMN public.server_overview.filesystems IS 'Number of filesystems in the newest heartbeat.';
COMMENT ON COLUMN public.server_overview.cpu_percent IS 'Processor time in use between the last two heartbeats, in percent; null: not reported.';
COMMENT ON COLUMN public.server_overview.load_1m IS 'Load average over 1 minute; null: not reported.';
COMMENT ON COLUMN public.server_overview.load_5m IS 'Load average over 5 minutes; null: not reported.';
COMMENT ON COLUMN public.server_overview.load_15m IS 'Load average over 15 minutes; null: not reported.';
COMMENT ON COLUMN public.server_overview.memory_percent IS 'Share of the memory in use, in percent; null: not reported.';
COMMENT ON COLUMN public.server_overview.memory_used_mb IS 'Memory in use, in megabytes in the agent''s units; null: not reported.';
COMMENT ON COLUMN public.server_overview.memory_total_mb IS 'Memory, in megabytes in the agent''s units; null: not reported.';
COMMENT ON COLUMN public.server_overview.disk_percent IS 'Share of the root filesystem in use, in percent; null: not reported.';
COMMENT ON COLUMN public.server_overview.disk_used_gb IS 'Space in use on the root filesystem, in gigabytes in the agent''s units; null: not reported.';
COMMENT ON COLUMN public.server_overview.disk_total_gb IS 'Size of the root filesystem, in gigabytes in the agent''s units; null: not reported.';
COMMENT ON COLUMN public.server_overview.duplicates IS 'Heartbeats that were received again and changed nothing.';
COMMENT ON COLUMN public.server_overview.conflicts IS 'Heartbeats that were received again with different values; the first values were kept.';
COMMENT ON COLUMN public.server_overview.shared_since IS 'When two machines were first detected to report under this id, because heartbeats of two boots alternated; null: never, or not within the last day.';
COMMENT ON COLUMN public.server_overview.shared_at IS 'When two machines were last detected to report under this id; null: never.';
COMMENT ON COLUMN public.server_overview.is_paused IS 'Whether the agent is paused: it sends heartbeats without measurements.';
COMMENT ON COLUMN public.server_overview.temperature_celsius IS 'Temperature of the hottest sensor, in degrees Celsius; null: not reported.';
COMMENT ON COLUMN public.server_overview.display_name IS 'The name that an administrator gave the server; null: none.';
COMMENT ON COLUMN public.server_overview.tags IS 'Words and key=value pairs, sorted: those set for the server, and the agent''s own.';

CREATE OR REPLACE VIEW public.server_tags AS
SELECT s.server_id, t.tag, linkbeat.tag_key(t.tag) AS key,
       CASE WHEN strpos(t.tag, '=') > 0 THEN substr(t.tag, strpos(t.tag, '=') + 1) END AS value,
       CASE WHEN t.tag = ANY (l.tags) THEN 'set' ELSE 'agent' END AS source
FROM public.servers s
LEFT JOIN linkbeat.server_labels l USING (server_id)
CROSS JOIN LATERAL unnest(linkbeat.tags_of(l.tags, s.agent_report)) AS t(tag);

COMMENT ON VIEW public.server_tags IS 'One row for each tag of each server: join it to filter and group by tag.';
COMMENT ON COLUMN public.server_tags.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.server_tags.tag IS 'The tag: a word, or key=value.';
COMMENT ON COLUMN public.server_tags.key IS 'The part before the =; of a word, the word.';
COMMENT ON COLUMN public.server_tags.value IS 'The part after the =; null: the tag is a word.';
COMMENT ON COLUMN public.server_tags.source IS 'set: by an administrator; agent: by the agent''s own setting.';
