-- What spares a turn of alerts reading the same again. Structure: run once, frozen on release.

-- Append only for ingest, as late_arrivals is.
CREATE TABLE linkbeat.suspects (
    server_id text COLLATE "C" NOT NULL
);

COMMENT ON TABLE linkbeat.suspects IS 'Servers whose row in servers says something that no turn of alerts has seen yet, beside when they were heard.';
COMMENT ON COLUMN linkbeat.suspects.server_id IS 'As in servers.';

-- What turns found up to now by reading all of them: linkbeat.is_suspect, as it was then.
INSERT INTO linkbeat.suspects (server_id)
SELECT s.server_id FROM public.servers s
WHERE s.conflicts > 0 OR s.shared_since IS NOT NULL OR abs(s.clock_skew_ms) > 30000 OR s.live_at < s.received_at
   OR s.last_seen < s.received_at - INTERVAL '15 minutes'
   OR s.agent_report ->> 'spool' = 'memory' OR s.agent_report ? 'truncated'
   OR (s.agent_report ->> 'dropped')::bigint > 0 OR (s.agent_report ->> 'rejected')::bigint > 0;

CREATE TABLE linkbeat.links_down (
    since           timestamptz NOT NULL,
    until           timestamptz NOT NULL,
    server_ids      text[] COLLATE "C" NOT NULL,
    interface_names text[] COLLATE "C" NOT NULL,
    times           timestamptz[] NOT NULL
);
-- Read and deleted within a minute: compressing costs more than it saves.
ALTER TABLE linkbeat.links_down ALTER server_ids SET STORAGE EXTERNAL, ALTER interface_names SET STORAGE EXTERNAL, ALTER times SET STORAGE EXTERNAL;

COMMENT ON TABLE linkbeat.links_down IS 'Samples of links that were down, as the newest turns of alerts found them: the next sample of these did not go down.';
COMMENT ON COLUMN linkbeat.links_down.since IS 'The turn looked through samples after this.';
COMMENT ON COLUMN linkbeat.links_down.until IS 'And up to this.';
COMMENT ON COLUMN linkbeat.links_down.server_ids IS 'As in servers, one for each sample.';
COMMENT ON COLUMN linkbeat.links_down.interface_names IS 'As in network_interface_metrics, one for each sample.';
COMMENT ON COLUMN linkbeat.links_down.times IS 'When each sample was taken.';

ALTER TABLE linkbeat.alert_clock ADD COLUMN silent_rules text;
COMMENT ON COLUMN linkbeat.alert_clock.silent_rules IS 'The rules of kind silent as of the last turn: where they changed, all servers are looked at.';
