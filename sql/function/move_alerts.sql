-- take_moves: alerts follow the rows of an interface that a late heartbeat has moved to another series. Otherwise the alert
-- of the old series would never see its end, and the series that has the rows now would fire a second time for the same.
-- Replaceable: reapplied on every upgrade.

-- What linkbeat.move_rows has noted since the turn before. The times are judged again as those of late heartbeats.
CREATE OR REPLACE FUNCTION linkbeat.take_moves(at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    rules CONSTANT text[] := ARRAY(SELECT r.rule_id FROM linkbeat.alert_rules r WHERE r.kind IN ('rate', 'link', 'errors'));
    noted record;
BEGIN
    FOR noted IN
        WITH gone AS (DELETE FROM linkbeat.moved_series RETURNING *) SELECT * FROM gone ORDER BY number
    LOOP
        DELETE FROM linkbeat.links_down;  -- other samples have those names now
        PERFORM linkbeat.move_episodes(rules, noted.server_id, noted.moves);
        PERFORM linkbeat.move_alerts(rules, noted.server_id, noted.moves, take_moves.at);
        INSERT INTO linkbeat.late_arrivals (server_id, since, until) VALUES (noted.server_id, noted.since, noted.until);
    END LOOP;
END $$;

-- The series to which an episode that began at a moment moves; null: it stays. Of the boots of a move nothing is known here:
-- rows of two boots at the same time are two machines under one id.
CREATE OR REPLACE FUNCTION linkbeat.series_after(moves linkbeat.interface_move[], of_series text, moment timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT v.series FROM unnest(moves) AS v
    WHERE v.was = of_series AND moment >= v.since AND (v.until IS NULL OR moment < v.until)
    ORDER BY v.since DESC LIMIT 1
$$;

-- Episodes that are over. One that overlaps an episode of the series to which it would move stays where it was recorded: the
-- series was said to have fired at that time already.
CREATE OR REPLACE FUNCTION linkbeat.move_episodes(rules text[], of_server text, moves linkbeat.interface_move[]) RETURNS void
LANGUAGE sql AS $$
    WITH moving AS MATERIALIZED (
        SELECT f.rule_id, f.episode, f.active_at, coalesce(n.cleared_at, n.at) AS ended_at,
               linkbeat.series_after(moves, f.subject, f.active_at) AS series
        FROM (SELECT DISTINCT v.was FROM unnest(moves) AS v) AS v
        CROSS JOIN unnest(rules) AS r(rule_id)
        JOIN linkbeat.alert_events f ON f.rule_id = r.rule_id AND f.server_id = of_server AND f.subject = v.was AND f.to_state = 'firing'
        JOIN linkbeat.alert_events n ON n.episode = f.episode AND n.to_state <> 'firing'
        WHERE linkbeat.series_after(moves, f.subject, f.active_at) IS NOT NULL
    )
    UPDATE linkbeat.alert_events e SET subject = m.series
    FROM moving m
    WHERE e.episode = m.episode
      AND NOT EXISTS (
          SELECT FROM linkbeat.alert_events o
          LEFT JOIN linkbeat.alert_events n ON n.episode = o.episode AND n.to_state <> 'firing'
          WHERE (o.rule_id, o.server_id, o.subject) = (m.rule_id, of_server, m.series) AND o.to_state = 'firing'
            AND o.episode NOT IN (SELECT x.episode FROM moving x)
            AND o.active_at <= m.ended_at AND coalesce(n.cleared_at, n.at, 'infinity') >= m.active_at)
$$;

-- What fires or pends. Two alerts that turn out to be one become one: that of which somebody was told, or the older.
CREATE OR REPLACE FUNCTION linkbeat.move_alerts(rules text[], of_server text, moves linkbeat.interface_move[], at timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    moving record;
    held   linkbeat.alerts;
BEGIN
    FOR moving IN
        -- Aside first: two series may change places. Updated and not inserted again, because somebody may be acknowledging them.
        WITH aside AS (
            UPDATE linkbeat.alerts a SET subject = format('moving from %s', m.was)
            FROM (
                SELECT x.rule_id, x.subject AS was, linkbeat.series_after(moves, x.subject, x.active_at) AS series
                FROM linkbeat.alerts x WHERE x.server_id = of_server AND x.rule_id = ANY (rules) AND x.state <> 'watched'
            ) m
            WHERE (a.rule_id, a.server_id, a.subject) = (m.rule_id, of_server, m.was) AND m.series IS NOT NULL
            RETURNING a.rule_id, a.subject, a.state, a.episode, a.told_at, a.active_at, m.was, m.series
        )
        SELECT * FROM aside ORDER BY rule_id, state <> 'firing', told_at IS NULL, active_at, was
    LOOP
        SELECT * INTO held FROM linkbeat.alerts a WHERE (a.rule_id, a.server_id, a.subject) = (moving.rule_id, of_server, moving.series);
        IF held.state = 'firing' AND (moving.state <> 'firing'
                OR (held.told_at IS NULL, held.active_at) <= (moving.told_at IS NULL, moving.active_at)) THEN
            PERFORM linkbeat.end_moved(moving.rule_id, of_server, moving.subject, moving.was, at);
            CONTINUE;
        ELSIF FOUND THEN
            PERFORM linkbeat.end_moved(moving.rule_id, of_server, moving.series, moving.series, at);
        END IF;
        UPDATE linkbeat.alerts a SET subject = moving.series
        WHERE (a.rule_id, a.server_id, a.subject) = (moving.rule_id, of_server, moving.subject);
        UPDATE linkbeat.alert_events e SET subject = moving.series WHERE e.episode = moving.episode;
        IF moving.told_at IS NOT NULL THEN
            INSERT INTO linkbeat.moved_alerts (episode, subject, moved_at) VALUES (moving.episode, moving.was, move_alerts.at)
            ON CONFLICT DO NOTHING;
        END IF;
    END LOOP;
END $$;

-- Ends the alert that is one with another. What this turn has recorded of it nobody has seen yet, and nobody will.
--   recorded_as  the subject of its events
CREATE OR REPLACE FUNCTION linkbeat.end_moved(of_rule text, of_server text, of_subject text, recorded_as text, at timestamptz)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ended linkbeat.alerts;
BEGIN
    DELETE FROM linkbeat.alerts a WHERE (a.rule_id, a.server_id, a.subject) = (of_rule, of_server, of_subject) RETURNING * INTO ended;
    IF ended.state <> 'firing' THEN
        RETURN;
    END IF;
    DELETE FROM linkbeat.alert_events e WHERE e.episode = ended.episode AND e.recorded_at = end_moved.at;
    IF EXISTS (SELECT FROM linkbeat.alert_events e WHERE e.episode = ended.episode) THEN
        ended.subject := recorded_as;
        PERFORM linkbeat.record_events(ARRAY[linkbeat.with_next_sequence(
            linkbeat.alert_event(ended, 'firing', 'closed', end_moved.at, end_moved.at, 'moved'))]);
    END IF;
END $$;

-- How messages name the subject of an episode.
CREATE OR REPLACE FUNCTION linkbeat.told_subject(of_episode uuid, of_subject text) RETURNS text LANGUAGE sql STABLE
RETURN coalesce((SELECT m.subject FROM linkbeat.moved_alerts m WHERE m.episode = of_episode), of_subject);
