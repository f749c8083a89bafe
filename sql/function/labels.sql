-- Display names and tags of servers (sql/schema/labels.sql), display names of interfaces (sql/schema/interface_labels.sql).
-- Replaceable: reapplied on every upgrade.

-- The part of a tag before its '='; of a word, the word.
CREATE OR REPLACE FUNCTION linkbeat.tag_key(tag text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN split_part(tag, '=', 1);

-- A server's tags: those set for it, and the agent's own (servers.agent_report), unless one with the same key is set.
CREATE OR REPLACE FUNCTION linkbeat.tags_of(set_tags text[], agent_report jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN agent_report ? 'tags' THEN (
    SELECT coalesce(array_agg(tag COLLATE "C" ORDER BY tag COLLATE "C"), '{}') FROM (
        SELECT unnest(set_tags) AS tag
        UNION ALL
        SELECT a.tag FROM jsonb_array_elements_text(agent_report -> 'tags') AS a(tag)
        WHERE linkbeat.tag_key(a.tag) NOT IN (SELECT linkbeat.tag_key(s.tag) FROM unnest(set_tags) AS s(tag))) t)
    ELSE coalesce(set_tags, '{}') END;

-- Whether each of `wanted` is a tag, or the key of one.
CREATE OR REPLACE FUNCTION linkbeat.has_tags(tags text[], wanted text[]) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN wanted <@ (tags || ARRAY(SELECT linkbeat.tag_key(t) FROM unnest(tags) AS t));

-- Whether a server has all of these tags.
CREATE OR REPLACE FUNCTION linkbeat.is_tagged(of_server text, wanted text[]) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
RETURN (SELECT linkbeat.has_tags(linkbeat.tags_of(l.tags, s.agent_report), wanted)
        FROM public.servers s LEFT JOIN linkbeat.server_labels l USING (server_id) WHERE s.server_id = of_server);

-- Whether a tag of the server, or the key of one, matches a pattern (linkbeat.globs_regex): for rules and mutes of alerts.
CREATE OR REPLACE FUNCTION linkbeat.matches_tags(of_server text, pattern text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
RETURN EXISTS (
    SELECT FROM public.servers s LEFT JOIN linkbeat.server_labels l USING (server_id)
    CROSS JOIN LATERAL unnest(linkbeat.tags_of(l.tags, s.agent_report)) AS t(tag)
    WHERE s.server_id = of_server AND (t.tag ~ pattern OR linkbeat.tag_key(t.tag) ~ pattern));

-- The version of what an administrator sees of an object, as an ETag without quotes; the same content is the same version.
CREATE OR REPLACE FUNCTION linkbeat.version_of(content jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN left(md5(coalesce(content, 'null')::text), 16);

-- Changes of one object take turns, so that the version that is checked is the one that is replaced.
CREATE OR REPLACE FUNCTION linkbeat.take_turn(kind text, id text) RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(hashtextextended('linkbeat ' || kind || ' ' || id, 0));
$$;

-- Ends the transaction if the object is not the one that the caller saw. `seen` null: the caller does not mind.
CREATE OR REPLACE FUNCTION linkbeat.check_version(content jsonb, seen text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF seen IS NOT NULL AND seen <> linkbeat.version_of(content) THEN
        RAISE EXCEPTION 'changed by somebody else meanwhile' USING ERRCODE = 'LB412';
    END IF;
END $$;

CREATE OR REPLACE FUNCTION linkbeat.labels_json(l linkbeat.server_labels) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN jsonb_build_object('display_name', (l).display_name, 'tags', coalesce((l).tags, '{}'));

-- Sets both, whole; without either, nothing is left. False where there is no such server. The service checks what can
-- stand in them (service/fleet/labels.py).
CREATE OR REPLACE FUNCTION linkbeat.set_labels(
    of_server text, new_display_name text, new_tags text[], seen text DEFAULT NULL
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    was linkbeat.server_labels;
BEGIN
    -- A server that is removed meanwhile is waited for, and then not there.
    PERFORM FROM servers WHERE server_id = of_server FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM linkbeat.take_turn('labels', of_server);
    SELECT * INTO was FROM linkbeat.server_labels WHERE server_id = of_server;
    PERFORM linkbeat.check_version(linkbeat.labels_json(was), seen);
    IF new_display_name IS NULL AND new_tags = '{}' THEN
        -- Kept as an empty row: the page of another browser learns of it by changed_at.
        UPDATE linkbeat.server_labels SET display_name = NULL, tags = '{}', changed_at = clock_timestamp()
        WHERE server_id = of_server;
    ELSE
        INSERT INTO linkbeat.server_labels (server_id, display_name, tags) VALUES (of_server, new_display_name, new_tags)
        ON CONFLICT (server_id) DO UPDATE SET
            display_name = EXCLUDED.display_name, tags = EXCLUDED.tags, changed_at = clock_timestamp();
    END IF;
    RETURN true;
END $$;

CREATE OR REPLACE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON linkbeat.server_labels
FOR EACH ROW WHEN (pg_trigger_depth() = 0)
EXECUTE FUNCTION linkbeat.audit_row('labels', 'server_id', 'server_id', '{server_id,changed_at}');

CREATE OR REPLACE FUNCTION linkbeat.interface_label_json(l linkbeat.interface_labels) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN jsonb_build_object('display_name', (l).display_name);

-- Names a series, or with null no longer. False where there is no such server.
--   LB404  the server has no such series
--   LB409  another interface of the server has that name: the detail is its series
CREATE OR REPLACE FUNCTION linkbeat.set_interface_label(
    of_server text, of_series text, new_display_name text, seen text DEFAULT NULL
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    known text[];
    other text;
    was   linkbeat.interface_labels;
BEGIN
    -- A server that is removed meanwhile is waited for, and then not there.
    SELECT interface_names INTO known FROM servers WHERE server_id = of_server FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM linkbeat.take_turn('interface labels', of_server);
    IF of_series <> ALL (coalesce(known, '{}')) THEN
        RAISE EXCEPTION 'server % has no interface %', of_server, of_series USING ERRCODE = 'LB404';
    END IF;
    SELECT * INTO was FROM linkbeat.interface_labels l WHERE l.server_id = of_server AND l.series = of_series;
    PERFORM linkbeat.check_version(linkbeat.interface_label_json(was), seen);
    IF new_display_name IS NULL THEN
        DELETE FROM linkbeat.interface_labels l WHERE l.server_id = of_server AND l.series = of_series;
        RETURN true;
    END IF;
    SELECT t.series INTO other FROM (
        SELECT l.series FROM linkbeat.interface_labels l WHERE l.server_id = of_server AND l.display_name = new_display_name
        UNION ALL
        SELECT i.interface_name FROM servers s CROSS JOIN LATERAL unnest(s.interfaces) i
        WHERE s.server_id = of_server AND new_display_name IN (i.interface_name, i.os_name)
    ) t WHERE t.series <> of_series LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'interface % has that name', other USING ERRCODE = 'LB409', DETAIL = other;
    END IF;
    INSERT INTO linkbeat.interface_labels (server_id, series, display_name) VALUES (of_server, of_series, new_display_name)
    ON CONFLICT (server_id, series) DO UPDATE SET display_name = EXCLUDED.display_name, changed_at = clock_timestamp();
    RETURN true;
END $$;

CREATE OR REPLACE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON linkbeat.interface_labels
FOR EACH ROW WHEN (pg_trigger_depth() = 0)
EXECUTE FUNCTION linkbeat.audit_row('interface-labels', 'series', 'server_id', '{server_id,series,changed_at}');
