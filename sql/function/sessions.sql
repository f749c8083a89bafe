-- Ends a session, or uses a code, for every process. False where that was done before.
-- Replaceable: reapplied on every upgrade.
CREATE OR REPLACE FUNCTION linkbeat.end_session(of_session bytea, would_end timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    next bigint;
BEGIN
    UPDATE linkbeat.installation SET session_revision = session_revision + 1 RETURNING session_revision INTO next;
    DELETE FROM linkbeat.ended_sessions WHERE ends_at < clock_timestamp() - INTERVAL '1 hour';
    INSERT INTO linkbeat.ended_sessions (session, ends_at, revision) VALUES (of_session, would_end, next)
    ON CONFLICT (session) DO NOTHING;
    RETURN FOUND;
END $$;
