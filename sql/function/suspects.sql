-- Which servers a turn of alerts has to look at because of their own row, without reading all of them: the rows of 100,000
-- servers are 200 MB. Replaceable: reapplied on every upgrade.

-- Whether a server's row says something that a rule may concern, beside when it was heard. Not STRICT, so that the planner puts it
-- into the condition of the trigger, which ingest asks of every heartbeat.
CREATE OR REPLACE FUNCTION linkbeat.is_suspect(s public.servers) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
RETURN s.conflicts > 0 OR s.shared_since IS NOT NULL OR abs(s.clock_skew_ms) > 30000
    OR s.live_at < s.received_at  -- it delivers a backlog: what was received of it does not say that it is not silent
    OR s.last_seen < s.received_at - INTERVAL '15 minutes'
    OR s.agent_report ->> 'spool' = 'memory' OR s.agent_report ? 'truncated'
    OR s.agent_report -> 'dropped' > '0' OR s.agent_report -> 'rejected' > '0';

CREATE OR REPLACE FUNCTION linkbeat.note_suspect() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO linkbeat.suspects (server_id) VALUES (coalesce(NEW.server_id, OLD.server_id));
    RETURN NULL;
END $$;

-- A row that changes without having been heard again may have moved to blocks that were read already (linkbeat.take_suspects).
CREATE OR REPLACE TRIGGER alerts_note_suspect AFTER UPDATE ON public.servers
    FOR EACH ROW WHEN (NEW.received_at <= OLD.received_at OR linkbeat.is_suspect(NEW)) EXECUTE FUNCTION linkbeat.note_suspect();
CREATE OR REPLACE TRIGGER alerts_note_new_suspect AFTER INSERT OR DELETE ON public.servers
    FOR EACH ROW EXECUTE FUNCTION linkbeat.note_suspect();
-- It may be in the scope of other rules now.
CREATE OR REPLACE TRIGGER alerts_note_tags AFTER INSERT OR UPDATE ON linkbeat.server_labels
    FOR EACH ROW EXECUTE FUNCTION linkbeat.note_suspect();

-- How long before it may become silent a server is watched, so that each server has to be looked at only once in that time: one
-- that is heard from after that does not become silent within it. Half a minute is left for heartbeats that are being stored.
CREATE OR REPLACE FUNCTION linkbeat.silence_ahead(plans linkbeat.alert_plans[]) RETURNS interval LANGUAGE sql IMMUTABLE AS $$
    SELECT greatest(INTERVAL '0', least(INTERVAL '1 minute', min(linkbeat.alert_interval(p.spec, 'after_seconds', 90)) - INTERVAL '30 seconds'))
    FROM unnest(plans) AS p WHERE p.kind = 'silent'
$$;

-- Servers that a rule of the kinds that look at them may concern at `at`, or whose marks may change, beside those that have marks:
-- those noted since the turn before, and those that are nearly silent. To find the latter, each turn reads the blocks of `servers`
-- whose time has come: blocks 0 to 255 at second 0 of each minute, those up to 511 at second 3.75, and so on, each block once a
-- minute.
CREATE OR REPLACE FUNCTION linkbeat.take_suspects(plans linkbeat.alert_plans[], previous timestamptz, at timestamptz) RETURNS text[]
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    slots       CONSTANT integer := 16;
    slot_blocks CONSTANT integer := 256;
    ahead       CONSTANT interval := linkbeat.silence_ahead(plans);
    heard_until CONSTANT timestamptz := at + ahead - (
        SELECT min(linkbeat.alert_interval(p.spec, 'after_seconds', 90)) FROM unnest(plans) AS p WHERE p.kind = 'silent');
    blocks      CONSTANT bigint := pg_relation_size('public.servers') / current_setting('block_size')::integer;
    rules       CONSTANT text := (SELECT array_agg(p ORDER BY p.rule_id) FROM unnest(plans) AS p WHERE p.kind = 'silent')::text;
    is_changed  CONSTANT boolean := (SELECT c.silent_rules FROM linkbeat.alert_clock c) IS DISTINCT FROM rules;
    suspects    text[];
    due         record;
BEGIN
    IF is_changed THEN
        UPDATE linkbeat.alert_clock SET silent_rules = rules;
    END IF;
    WITH taken AS (DELETE FROM linkbeat.suspects RETURNING server_id) SELECT array_agg(DISTINCT server_id) INTO suspects FROM taken;
    IF heard_until IS NULL THEN
        RETURN suspects;
    ELSIF is_changed OR NOT isfinite(previous) OR at - previous >= ahead THEN
        RETURN suspects || ARRAY(SELECT s.server_id FROM public.servers s WHERE s.received_at < heard_until);
    END IF;
    FOR due IN
        SELECT format('(%s,0)', min(b.first))::tid AS first, format('(%s,0)', max(b.first) + slot_blocks)::tid AS last
        FROM (
            SELECT g.first + t.tick % slots * slot_blocks AS first, g.first AS pass, t.tick / slots AS round
            FROM generate_series(floor(extract(epoch FROM previous) * slots / extract(epoch FROM ahead))::bigint + 1,
                                 floor(extract(epoch FROM at) * slots / extract(epoch FROM ahead))::bigint) AS t(tick)
            CROSS JOIN generate_series(0, blocks - 1, slots * slot_blocks) AS g(first)
        ) b
        WHERE b.first < blocks
        GROUP BY b.pass, b.round
    LOOP
        suspects := suspects || ARRAY(
            SELECT s.server_id FROM public.servers s WHERE s.ctid >= due.first AND s.ctid < due.last AND s.received_at < heard_until);
    END LOOP;
    RETURN suspects;
END $$;
