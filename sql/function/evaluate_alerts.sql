-- evaluate_alerts: one turn: reads what is new, and writes states, history and messages in one transaction.
-- Replaceable: reapplied on every upgrade.

-- How long after a turn that took so long the next one is due. With 100 pauses, the turns of a large fleet use 1 % of a
-- processor. For that they are at most three times `every` apart, and further only where they would use 5 % of it.
CREATE OR REPLACE FUNCTION linkbeat.turn_distance(took interval, every interval, pauses integer) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN greatest(0.9 * every, least(pauses * took, 3 * every), least(pauses, 20) * took);

--   at     the turn's moment; tests give it, so that none of them waits
--   every  how often a turn is due: whoever comes earlier finds that another process has had it
--   pauses how many times as long as the last turn took must have passed since (linkbeat.turn_distance)
-- Returns is_evaluated (false: not due, or another process is at it) and how long the turn took.
CREATE OR REPLACE FUNCTION linkbeat.evaluate_alerts(
    at timestamptz DEFAULT clock_timestamp(), every interval DEFAULT INTERVAL '15 seconds', pauses integer DEFAULT 0,
    OUT is_evaluated boolean, OUT took_seconds double precision
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
-- Compiling costs more than the queries, whose ranges are too wide for the planner's estimates now and then.
SET jit = off
-- Of an array that is a parameter, a plan for any of them expects ten elements, and compares thousands with thousands.
SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    began    CONSTANT timestamptz := clock_timestamp();
    previous timestamptz;
    since    timestamptz;  -- of the turn before; after a longer pause, an hour ago: the rest counts as late
    plans    linkbeat.alert_plans[];
    suspects text[];
    late     record;
    looked   record;
BEGIN
    -- The row's lock is the turn: it holds over every pooler, and fails over with the data.
    SELECT c.evaluated_at INTO previous FROM linkbeat.alert_clock c
    WHERE c.evaluated_at <= evaluate_alerts.at - linkbeat.turn_distance(c.took, every, pauses) FOR UPDATE SKIP LOCKED;
    is_evaluated := FOUND;
    IF NOT is_evaluated THEN
        RETURN;
    END IF;
    since := CASE WHEN isfinite(previous) THEN greatest(previous, at - INTERVAL '1 hour') ELSE at - every END;
    plans := ARRAY(SELECT p FROM linkbeat.alert_plans p ORDER BY p.rule_id);

    PERFORM linkbeat.take_moves(at);
    -- Before what is new: a quota's new month would resolve what belongs to the old one.
    PERFORM linkbeat.close_alerts(plans, at);

    -- A bounded number of servers a turn, so that a fleet that replays a day does not hold up the others.
    WITH taken AS (
        DELETE FROM linkbeat.late_arrivals l
        WHERE l.server_id IN (SELECT DISTINCT x.server_id FROM linkbeat.late_arrivals x ORDER BY x.server_id LIMIT 200)
        RETURNING l.*
    )
    SELECT array_agg(t.server_id) AS servers, array_agg(t.since) AS since, array_agg(t.until) AS until INTO late
    FROM (SELECT server_id, min(taken.since) AS since, max(taken.until) AS until FROM taken GROUP BY 1) t;
    IF late.servers IS NOT NULL THEN
        PERFORM linkbeat.take_late(plans, late.servers, late.since, late.until, since, at);
    END IF;

    -- Rows of interfaces are looked through once, fifteen seconds after their time, for the rules too that wait longer before
    -- they judge: whatever arrives after that is noted as late.
    SELECT array_agg(c.rule_id) AS rules, array_agg(c.server_id) AS servers, array_agg(c.subject) AS subjects, array_agg(c.last) AS lasts
    INTO looked
    FROM (
        SELECT * FROM linkbeat.traffic_candidates(plans, since - INTERVAL '15 seconds', at - INTERVAL '15 seconds')
        UNION ALL
        SELECT * FROM linkbeat.filesystem_candidates(plans, since - INTERVAL '60 seconds', at - INTERVAL '60 seconds')
    ) c;
    PERFORM linkbeat.watch_candidates(plans, looked.rules, looked.servers, looked.subjects, looked.lasts, since);
    PERFORM linkbeat.mark_signs(looked.rules, looked.servers, looked.subjects, looked.lasts, at);
    suspects := linkbeat.take_suspects(plans, previous, at);
    PERFORM linkbeat.mark_servers(suspects, previous, at);
    INSERT INTO linkbeat.alerts AS a (rule_id, server_id, subject, state, seen_at, step, watched_until)
    SELECT c.rule_id, c.server_id, c.subject, 'watched', at - INTERVAL '1 microsecond', '0', c.last
    FROM linkbeat.server_candidates(plans, suspects, previous, at) c
    ON CONFLICT (rule_id, server_id, subject) DO UPDATE SET watched_until = EXCLUDED.watched_until WHERE a.watched_until < EXCLUDED.watched_until;

    PERFORM linkbeat.fold_alerts(plans, previous, at, looked.rules, looked.servers, looked.subjects, looked.lasts);
    -- Rows that moved during the turn have been judged under their new series: before somebody is told twice.
    PERFORM linkbeat.take_moves(at);
    PERFORM linkbeat.hold_alerts(at);
    PERFORM linkbeat.tell_alerts(at);

    took_seconds := extract(epoch FROM clock_timestamp() - began);
    UPDATE linkbeat.alert_clock SET evaluated_at = at, took = clock_timestamp() - began;
END $$;
