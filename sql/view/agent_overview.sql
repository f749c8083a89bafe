-- agent_overview: one row for each agent: lateness of its heartbeats, state of its delivery, and remote configuration.
-- Replaceable: reapplied on every upgrade.

CREATE OR REPLACE VIEW public.agent_overview AS
SELECT s.server_id,
       s.hostname,
       CASE WHEN linkbeat.is_online(s.received_at, s.interval_seconds) THEN 'online' ELSE 'offline' END AS status,
       s.reported_status IS NOT DISTINCT FROM 'paused' AS is_paused,
       s.agent_version,
       s.interval_seconds,
       s.last_seen,
       s.received_at,
       greatest(0, date_part('epoch', greatest(s.received_at - s.received_before, now() - s.received_at))
                   - coalesce(s.interval_seconds, 30)) AS lateness_seconds,
       s.clock_skew_ms / 1000::double precision AS clock_skew_seconds,
       s.duplicates,
       s.conflicts,
       (s.agent_report ->> 'queued')::bigint AS queued,
       (s.agent_report ->> 'oldest_seconds')::double precision AS oldest_seconds,
       s.agent_report ->> 'spool' AS spool,
       (s.agent_report ->> 'spool_bytes')::bigint AS spool_bytes,
       (s.agent_report ->> 'dropped')::bigint AS dropped,
       (s.agent_report ->> 'rejected')::bigint AS rejected,
       s.agent_report ? 'truncated' AS is_truncated,
       c.config,
       CASE WHEN c.config IS NOT NULL THEN c.changed_at END AS config_changed_at,
       l.display_name,
       linkbeat.tags_of(l.tags, s.agent_report) AS tags
FROM public.servers s
LEFT JOIN linkbeat.server_config c USING (server_id)
LEFT JOIN linkbeat.server_labels l USING (server_id);

COMMENT ON VIEW public.agent_overview IS
    'One row for each agent: lateness of its heartbeats, state of its delivery, and remote configuration.';
COMMENT ON COLUMN public.agent_overview.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.agent_overview.hostname IS 'Hostname from the newest heartbeat.';
COMMENT ON COLUMN public.agent_overview.status IS 'online, or offline after three intervals without a heartbeat.';
COMMENT ON COLUMN public.agent_overview.is_paused IS 'Whether the agent is paused: it sends heartbeats without measurements.';
COMMENT ON COLUMN public.agent_overview.agent_version IS 'Version of the agent; null: not reported.';
COMMENT ON COLUMN public.agent_overview.interval_seconds IS 'The agent''s interval between heartbeats, in seconds; null: not reported, 30 is assumed.';
COMMENT ON COLUMN public.agent_overview.last_seen IS 'Time of the newest heartbeat, by the agent''s clock.';
COMMENT ON COLUMN public.agent_overview.received_at IS 'When a heartbeat was last stored, by the service''s clock.';
COMMENT ON COLUMN public.agent_overview.lateness_seconds IS 'Seconds by which the last heartbeat was late, or the next one is by now if that is more: beyond one interval after its predecessor; 0: in time.';
COMMENT ON COLUMN public.agent_overview.clock_skew_seconds IS 'The service''s clock minus the agent''s at the last live heartbeat, including the time in transit; null: no live heartbeat yet.';
COMMENT ON COLUMN public.agent_overview.duplicates IS 'Heartbeats that arrived more than once and changed nothing.';
COMMENT ON COLUMN public.agent_overview.conflicts IS 'Heartbeats that arrived again with different values; the first values stay.';
COMMENT ON COLUMN public.agent_overview.queued IS 'Heartbeats that the agent had not delivered yet; null: not reported.';
COMMENT ON COLUMN public.agent_overview.oldest_seconds IS 'Age of the oldest of those; null: there are none, or not reported.';
COMMENT ON COLUMN public.agent_overview.spool IS 'Where the agent keeps them: disk or memory; null: not reported.';
COMMENT ON COLUMN public.agent_overview.spool_bytes IS 'Size of the spool in bytes, including heartbeats kept after their acknowledgement; null: not reported.';
COMMENT ON COLUMN public.agent_overview.dropped IS 'Heartbeats that the agent dropped for lack of room, since its start; null: not reported.';
COMMENT ON COLUMN public.agent_overview.rejected IS 'Heartbeats that the service rejected permanently, since the agent''s start; null: not reported.';
COMMENT ON COLUMN public.agent_overview.is_truncated IS 'Whether interfaces were left out of the newest heartbeat to make it fit; null: not reported.';
COMMENT ON COLUMN public.agent_overview.config IS 'Remote configuration that overrides the agent''s own settings; null: none.';
COMMENT ON COLUMN public.agent_overview.config_changed_at IS 'When that was set; null: none is set.';
COMMENT ON COLUMN public.agent_overview.display_name IS 'The name that an administrator gave the server; null: none.';
COMMENT ON COLUMN public.agent_overview.tags IS 'Tags of the server, as in server_tags.';
