-- Notes the times of heartbeats that come after a turn of alerts may have passed them (linkbeat.late_arrivals).
-- Replaceable: reapplied on every upgrade.

-- Newest heartbeats whose time is more than ten seconds ago: an agent that delivers its backlog in order. Those out of order
-- are noted by linkbeat.note_late. And the first one after a gap, because a turn does not look back over it
-- (linkbeat.filesystem_candidates). A turn looks at rows 15 seconds after their time, so each row is seen by a turn or noted,
-- unless its transaction takes five seconds, which is more than ingest lets it.
CREATE OR REPLACE FUNCTION linkbeat.note_old_news() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO linkbeat.late_arrivals (server_id, since, until)
    VALUES (NEW.server_id,
            CASE WHEN isfinite(OLD.last_seen) AND NEW.received_at - NEW.last_seen > INTERVAL '10 seconds' THEN OLD.last_seen
                 ELSE NEW.last_seen END,
            NEW.last_seen);
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER alerts_note_old_news AFTER UPDATE ON public.servers
    FOR EACH ROW
    WHEN (NEW.last_seen > OLD.last_seen
          AND (NEW.received_at - NEW.last_seen > INTERVAL '10 seconds'
               -- Before a server's first heartbeat, which comes after no gap, it was seen at -infinity.
               OR isfinite(OLD.last_seen)
                  AND NEW.last_seen - 5 * coalesce(NEW.interval_seconds, 30) * INTERVAL '1 second' > OLD.last_seen))
    EXECUTE FUNCTION linkbeat.note_old_news();
