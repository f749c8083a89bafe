-- The ledger of when the service could take heartbeats (linkbeat.listening), and how long a server was silent then.
-- Replaceable: reapplied on every upgrade.

-- How long a process may say nothing before the service counts as away: it says something every five seconds.
CREATE OR REPLACE FUNCTION linkbeat.listening_pause() RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN INTERVAL '15 seconds';

-- Extends the process's entry, or begins another one after a pause. A commit that a heartbeat could have had.
CREATE OR REPLACE FUNCTION linkbeat.listen(of_process text, at timestamptz DEFAULT clock_timestamp()) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE linkbeat.listening SET until = at
    WHERE process = of_process AND until BETWEEN at - linkbeat.listening_pause() AND at;
    IF NOT FOUND THEN
        INSERT INTO linkbeat.listening (process, since, until) VALUES (of_process, at, at) ON CONFLICT DO NOTHING;
    END IF;
END $$;

-- When some process listened, up to `at`: entries that overlap or nearly meet are one. One that is still being extended
-- reaches up to `at`.
CREATE OR REPLACE FUNCTION linkbeat.listened(since timestamptz, at timestamptz)
RETURNS TABLE (opened timestamptz, closed timestamptz) LANGUAGE sql STABLE AS $$
    SELECT min(e.since), CASE WHEN max(e.until) >= at - linkbeat.listening_pause() THEN at ELSE max(e.until) END
    FROM (
        SELECT e.since, e.until, count(*) FILTER (WHERE e.is_first) OVER (ORDER BY e.since, e.until, e.process) AS run
        FROM (
            SELECT l.process, l.since, least(l.until, at) AS until,
                   coalesce(l.since > max(l.until) OVER (ORDER BY l.since, l.until, l.process
                                                         ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                                      + linkbeat.listening_pause(), true) AS is_first
            FROM linkbeat.listening l
            WHERE l.until >= listened.since AND l.since <= at
        ) e
    ) e
    GROUP BY e.run
    ORDER BY 1
$$;

-- How long after the service has come back a server may still take to report: the agent waits up to a minute between
-- attempts, on top of Retry-After and two intervals.
CREATE OR REPLACE FUNCTION linkbeat.silence_grace(interval_seconds double precision) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN greatest(3 * coalesce(interval_seconds, 30), 150) * INTERVAL '1 second';

CREATE OR REPLACE FUNCTION linkbeat.silent_after(spec jsonb, interval_seconds double precision) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN linkbeat.alert_interval(spec, 'after_seconds', greatest(3 * coalesce(interval_seconds, 30), 90));
