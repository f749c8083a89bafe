-- Rules of alerts: their scope and parameters, and the functions by which the service writes them.
-- Replaceable: reapplied on every upgrade.

-- One regular expression for a list of globs (`*`, `?`, `[…]`, `[!…]`); null where they match everything.
CREATE OR REPLACE FUNCTION linkbeat.globs_regex(globs jsonb) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN globs IS NULL OR globs = 'null' OR globs ? '*' THEN NULL
                WHEN globs = '[]' THEN '^(?!)'
                ELSE (SELECT '^(?:' || string_agg(
                          replace(replace(replace(
                              -- A bracket that nothing closes stands for itself.
                              CASE WHEN escaped ~ '^[^][]*(\[[^][]+\][^][]*)*$' THEN escaped
                                   ELSE regexp_replace(escaped, '([][])', '\\\1', 'g') END,
                              '[!', '[^'), '*', '.*'), '?', '.'), '|') || ')$'
                      FROM jsonb_array_elements_text(globs) AS glob,
                           regexp_replace(glob, '([.^$+(){}|\\])', '\\\1', 'g') AS escaped) END
$$;

-- Whether a server is in a rule's scope. Not STRICT, so that the planner puts it into the query, and tags are read only for
-- rules that have some.
CREATE OR REPLACE FUNCTION linkbeat.is_server_in(servers text, tags text, of_server text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (servers IS NULL OR of_server ~ servers) AND (tags IS NULL OR linkbeat.matches_tags(of_server, tags));

-- Not STRICT, so that the planner puts them into the query.
CREATE OR REPLACE FUNCTION linkbeat.alert_number(spec jsonb, parameter text, otherwise double precision DEFAULT NULL)
RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce((spec ->> parameter)::double precision, otherwise);

CREATE OR REPLACE FUNCTION linkbeat.alert_interval(spec jsonb, parameter text, otherwise_seconds double precision)
RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce((spec ->> parameter)::double precision, otherwise_seconds) * INTERVAL '1 second';

-- A rule's parameters taken apart. `window` reaches back from each judgement; `lag` is how long a turn waits for rows that are
-- under way: more of them can only raise a counter, so there it is one turn. Of what bounds are in, see is_percent.
CREATE OR REPLACE FUNCTION linkbeat.rule_parameters(kind text, spec jsonb) RETURNS TABLE (
    servers text, interfaces text, kinds text[], "window" interval, lag interval, for_ms double precision,
    keep_ms double precision, direction text, bound double precision, is_below boolean, is_percent boolean,
    count double precision, channels text[], tags text
) LANGUAGE sql IMMUTABLE AS $$
    SELECT linkbeat.globs_regex(spec -> 'scope' -> 'servers'),
           linkbeat.globs_regex(spec -> 'scope' -> 'interfaces'),
           CASE WHEN jsonb_typeof(spec -> 'scope' -> 'kinds') = 'array'
                THEN ARRAY(SELECT jsonb_array_elements_text(spec -> 'scope' -> 'kinds')) END,
           linkbeat.alert_interval(spec, 'window_seconds', CASE kind WHEN 'rate' THEN 300 ELSE 600 END),
           CASE WHEN kind = 'errors' OR kind = 'rate' AND NOT spec ?| '{below_bps,below_percent}'
                THEN INTERVAL '15 seconds' ELSE INTERVAL '60 seconds' END,
           linkbeat.alert_number(spec, 'for_seconds', 0) * 1000,
           linkbeat.alert_number(spec, 'keep_seconds', 300) * 1000,
           coalesce(spec ->> 'direction', 'max'),
           coalesce(spec ->> 'above_bps', spec ->> 'above_percent', spec ->> 'below_bps', spec ->> 'below_percent')::double precision,
           spec ?| '{below_bps,below_percent}',
           spec ?| '{above_percent,below_percent}',
           linkbeat.alert_number(spec, 'count', 100),
           CASE WHEN jsonb_typeof(spec -> 'channels') = 'array' THEN ARRAY(SELECT jsonb_array_elements_text(spec -> 'channels')) END,
           linkbeat.globs_regex(spec -> 'scope' -> 'tags')
$$;

CREATE OR REPLACE VIEW linkbeat.alert_plans AS
SELECT r.rule_id, r.kind, r.spec, r.severity, p.*
FROM linkbeat.alert_rules r CROSS JOIN LATERAL linkbeat.rule_parameters(r.kind, r.spec) p
WHERE r.enabled;

COMMENT ON VIEW linkbeat.alert_plans IS 'The rules that are evaluated, their parameters taken apart.';

-- The same of a rule as the API has it, saved or not.
CREATE OR REPLACE FUNCTION linkbeat.plan_of(rule jsonb) RETURNS linkbeat.alert_plans LANGUAGE sql IMMUTABLE AS $$
    SELECT '', rule ->> 'kind', rule, coalesce(rule ->> 'severity', 'warning'), p.*
    FROM linkbeat.rule_parameters(rule ->> 'kind', rule) p
$$;

-- The content of a rule, of which linkbeat.version_of is the version.
CREATE OR REPLACE FUNCTION linkbeat.rule_json(kind text, spec jsonb, severity text, managed_by text, enabled boolean)
RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN jsonb_build_object('kind', kind, 'spec', spec, 'severity', severity, 'managed_by', managed_by, 'enabled', enabled);

-- Ends the transaction if the rule is not the one that the caller saw; until it ends, nobody else changes the rule.
CREATE OR REPLACE FUNCTION linkbeat.check_rule(of_rule text, seen text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM linkbeat.take_turn('alert rule', of_rule);
    PERFORM linkbeat.check_version((
        SELECT linkbeat.rule_json(r.kind, r.spec, r.severity, r.managed_by, r.enabled)
        FROM linkbeat.alert_rules r WHERE r.rule_id = of_rule), seen);
END $$;

-- Writes a rule; what it has fired stays. False where it was exactly so already. `new_spec` is checked by the service; a
-- pattern or number that cannot be read raises here, before it could stop every turn. `seen`: the version that the caller
-- saw (linkbeat.check_version).
CREATE OR REPLACE FUNCTION linkbeat.set_alert_rule(
    of_rule text, new_kind text, new_spec jsonb, new_severity text DEFAULT 'warning', new_enabled boolean DEFAULT true,
    new_managed_by text DEFAULT 'api', seen text DEFAULT NULL
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    plan linkbeat.alert_plans;
BEGIN
    PERFORM linkbeat.check_rule(of_rule, seen);
    INSERT INTO linkbeat.alert_rules AS r (rule_id, kind, spec, severity, managed_by, enabled)
    VALUES (of_rule, new_kind, new_spec, new_severity, new_managed_by, new_enabled)
    ON CONFLICT (rule_id) DO UPDATE SET
        kind = EXCLUDED.kind, spec = EXCLUDED.spec, severity = EXCLUDED.severity, managed_by = EXCLUDED.managed_by,
        enabled = EXCLUDED.enabled, revision = r.revision + 1
    WHERE (r.kind, r.spec, r.severity, r.managed_by, r.enabled)
          IS DISTINCT FROM (EXCLUDED.kind, EXCLUDED.spec, EXCLUDED.severity, EXCLUDED.managed_by, EXCLUDED.enabled);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SELECT * INTO plan FROM linkbeat.alert_plans WHERE rule_id = of_rule;
    PERFORM '' ~ plan.servers, '' ~ plan.interfaces, '' ~ plan.tags;
    RETURN true;
END $$;

-- False where there is none. The next turn closes its alerts.
CREATE OR REPLACE FUNCTION linkbeat.delete_alert_rule(of_rule text, seen text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM linkbeat.check_rule(of_rule, seen);
    DELETE FROM linkbeat.alert_rules WHERE rule_id = of_rule;
    RETURN FOUND;
END $$;

CREATE OR REPLACE FUNCTION linkbeat.acknowledge_alert(of_episode uuid, by_name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    acknowledged linkbeat.alerts;
BEGIN
    UPDATE linkbeat.alerts SET acknowledged_at = clock_timestamp(), acknowledged_by = by_name
    WHERE episode = of_episode AND state = 'firing' AND acknowledged_at IS NULL
    RETURNING * INTO acknowledged;
    IF FOUND THEN
        PERFORM linkbeat.audit('alert.acknowledge', acknowledged.server_id, of_episode::text, NULL,
                               jsonb_build_object('rule', acknowledged.rule_id, 'subject', acknowledged.subject));
        RETURN true;
    END IF;
    RETURN EXISTS (SELECT FROM linkbeat.alerts WHERE episode = of_episode AND state = 'firing');
END $$;

-- Whether an interface is in a rule's scope. Its kind is that of its newest state.
CREATE OR REPLACE FUNCTION linkbeat.in_scope(plan linkbeat.alert_plans, of_server text, of_interface text) RETURNS boolean
LANGUAGE sql STABLE
RETURN linkbeat.is_server_in(plan.servers, plan.tags, of_server) AND (plan.interfaces IS NULL OR of_interface ~ plan.interfaces)
   AND (plan.kinds IS NULL
        OR (SELECT (s.interfaces[array_position(s.interface_names, of_interface COLLATE "C")]).kind FROM public.servers s
            WHERE s.server_id = of_server) = ANY (plan.kinds));

-- What is older than anybody asks for.
CREATE OR REPLACE FUNCTION linkbeat.prune_alerts(at timestamptz DEFAULT clock_timestamp()) RETURNS void LANGUAGE sql AS $$
    DELETE FROM linkbeat.alert_events WHERE recorded_at < prune_alerts.at - INTERVAL '5 years';
    DELETE FROM linkbeat.outbox WHERE coalesce(delivered_at, dead_at) < prune_alerts.at - INTERVAL '30 days';
    DELETE FROM linkbeat.listening WHERE until < prune_alerts.at - INTERVAL '60 days';
    DELETE FROM linkbeat.carrier_changes WHERE time < prune_alerts.at - INTERVAL '60 days';
    DELETE FROM linkbeat.moved_alerts m
    WHERE m.moved_at < prune_alerts.at - INTERVAL '30 days' AND NOT EXISTS (SELECT FROM linkbeat.alerts a WHERE a.episode = m.episode);
    DELETE FROM linkbeat.alert_marks m WHERE NOT EXISTS (SELECT FROM public.servers s WHERE s.server_id = m.server_id);
$$;
