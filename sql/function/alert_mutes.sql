-- Mutes, and the functions by which the service writes them and channels. Replaceable: reapplied on every upgrade.

-- Whether a mute is on at `at`. Weekly ones go by the clock on the wall of their zone: 22:00 to 06:00 is eight hours, and
-- seven or nine in the nights on which the clock is set. A window that ends before it begins ends on the next day.
CREATE OR REPLACE FUNCTION linkbeat.is_mute_on(m linkbeat.alert_mutes, at timestamptz) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT coalesce(at >= m.starts_at, true) AND coalesce(at < m.ends_at, true)
       AND (m.weekly IS NULL OR CASE
            WHEN w.since < w.until THEN l.clock >= w.since AND l.clock < w.until AND w.days ? extract(isodow FROM l.today)::text
            ELSE l.clock >= w.since AND w.days ? extract(isodow FROM l.today)::text
                 OR l.clock < w.until AND w.days ? extract(isodow FROM l.today - INTERVAL '1 day')::text END)
    FROM (SELECT (m.weekly ->> 'from')::time AS since, (m.weekly ->> 'until')::time AS until,
                 (SELECT jsonb_agg(day::text) FROM jsonb_array_elements_text(coalesce(m.weekly -> 'days', '[1, 2, 3, 4, 5, 6, 7]')) AS day) AS days) w,
         (SELECT (at AT TIME ZONE m.time_zone)::time AS clock, at AT TIME ZONE m.time_zone AS today) l
$$;

CREATE OR REPLACE FUNCTION linkbeat.is_muted(of_rule text, of_server text, at timestamptz) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM linkbeat.alert_mutes m
        WHERE coalesce(of_rule ~ linkbeat.globs_regex(m.matcher -> 'rules'), true)
          AND linkbeat.is_server_in(linkbeat.globs_regex(m.matcher -> 'servers'), linkbeat.globs_regex(m.matcher -> 'tags'), of_server)
          AND linkbeat.is_mute_on(m, is_muted.at))
$$;

-- What can stand in them is checked by the service; what the next turn would fail at raises here.
CREATE OR REPLACE FUNCTION linkbeat.set_alert_mute(
    of_mute text, new_matcher jsonb, new_starts_at timestamptz, new_ends_at timestamptz, new_weekly jsonb,
    new_time_zone text, new_created_by text, new_comment text
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    written linkbeat.alert_mutes;
BEGIN
    INSERT INTO linkbeat.alert_mutes AS m (mute_id, matcher, starts_at, ends_at, weekly, time_zone, created_by, comment)
    VALUES (of_mute, new_matcher, new_starts_at, new_ends_at, new_weekly, new_time_zone, new_created_by, new_comment)
    ON CONFLICT (mute_id) DO UPDATE SET
        matcher = EXCLUDED.matcher, starts_at = EXCLUDED.starts_at, ends_at = EXCLUDED.ends_at, weekly = EXCLUDED.weekly,
        time_zone = EXCLUDED.time_zone, created_by = EXCLUDED.created_by, comment = EXCLUDED.comment
    RETURNING m.* INTO written;
    PERFORM linkbeat.is_mute_on(written, clock_timestamp()), linkbeat.is_muted('', '', clock_timestamp());
    PERFORM '' ~ linkbeat.globs_regex(new_matcher -> 'servers'), '' ~ linkbeat.globs_regex(new_matcher -> 'rules'),
            '' ~ linkbeat.globs_regex(new_matcher -> 'tags');
    IF written.weekly IS NOT NULL AND num_nulls(written.weekly ->> 'from', written.weekly ->> 'until') > 0 THEN
        RAISE EXCEPTION 'weekly: from and until are needed' USING ERRCODE = 'check_violation';
    END IF;
END $$;

CREATE OR REPLACE FUNCTION linkbeat.delete_alert_mute(of_mute text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    DELETE FROM linkbeat.alert_mutes WHERE mute_id = of_mute;
    RETURN FOUND;
END $$;

-- Without `new_secret`, the one that is there stays: the API never returns it, so a client cannot send it back.
CREATE OR REPLACE FUNCTION linkbeat.set_alert_channel(
    of_channel text, new_kind text, new_spec jsonb, new_secret bytea DEFAULT NULL, new_min_severity text DEFAULT 'info',
    new_sends_resolved boolean DEFAULT true, new_sends_late boolean DEFAULT false, new_digest interval DEFAULT NULL,
    new_time_zone text DEFAULT 'UTC', new_enabled boolean DEFAULT true, new_managed_by text DEFAULT 'api'
) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    INSERT INTO linkbeat.alert_channels AS c (channel_id, kind, spec, secret, min_severity, sends_resolved, sends_late,
                                              digest, time_zone, enabled, managed_by)
    VALUES (of_channel, new_kind, new_spec, new_secret, new_min_severity, new_sends_resolved, new_sends_late, new_digest,
            new_time_zone, new_enabled, new_managed_by)
    ON CONFLICT (channel_id) DO UPDATE SET
        kind = EXCLUDED.kind, spec = EXCLUDED.spec, secret = coalesce(EXCLUDED.secret, c.secret),
        min_severity = EXCLUDED.min_severity, sends_resolved = EXCLUDED.sends_resolved, sends_late = EXCLUDED.sends_late,
        digest = EXCLUDED.digest, time_zone = EXCLUDED.time_zone, enabled = EXCLUDED.enabled, managed_by = EXCLUDED.managed_by
$$;

-- Messages to it that were not delivered go with it.
CREATE OR REPLACE FUNCTION linkbeat.delete_alert_channel(of_channel text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    DELETE FROM linkbeat.alert_channels WHERE channel_id = of_channel;
    RETURN FOUND;
END $$;
