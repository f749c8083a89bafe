-- Servers that replaced other servers (sql/schema/successions.sql).
-- Replaceable: reapplied on every upgrade.

CREATE OR REPLACE FUNCTION linkbeat.succession_json(s linkbeat.successions) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN jsonb_build_object('predecessor', (s).predecessor_id, 'since', (s).since AT TIME ZONE 'UTC');

-- A server, and those that it replaced, one after the other.
CREATE OR REPLACE FUNCTION linkbeat.with_predecessors(of_server text) RETURNS SETOF text LANGUAGE sql STABLE AS $$
    WITH RECURSIVE chain AS (
        SELECT of_server COLLATE "C" AS server_id
        UNION ALL
        SELECT s.predecessor_id FROM chain c JOIN linkbeat.successions s USING (server_id)
    )
    SELECT server_id FROM chain;
$$;

-- As what samples of the predecessors are read depends on it, and those of the server before.
CREATE OR REPLACE FUNCTION linkbeat.on_succession_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM linkbeat.map_series(one) FROM (
        SELECT linkbeat.with_predecessors(OLD.predecessor_id) AS one WHERE TG_OP <> 'INSERT'
        UNION SELECT linkbeat.with_predecessors(NEW.predecessor_id) WHERE TG_OP <> 'DELETE'
        UNION SELECT coalesce(NEW.server_id, OLD.server_id)
    ) AS concerned;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER map_series AFTER INSERT OR UPDATE OR DELETE ON linkbeat.successions
FOR EACH ROW EXECUTE FUNCTION linkbeat.on_succession_change();
CREATE OR REPLACE TRIGGER count_change AFTER INSERT OR UPDATE OR DELETE ON linkbeat.successions
FOR EACH STATEMENT EXECUTE FUNCTION linkbeat.count_link_change();

-- Says that a server replaced another one, from `new_since` on; new_predecessor null: that it replaced none. False where
-- there is no such server. `seen`: the version that the caller saw (linkbeat.check_version). A server without a quota
-- gets its predecessor's.
--   LB404  there is no such predecessor
--   LB409  another server replaced it already: the detail
--   LB411  it, or the server itself, was replaced at a time that does not fit: the detail, between which times it has to be
CREATE OR REPLACE FUNCTION linkbeat.set_predecessor(
    of_server text, new_predecessor text, new_since timestamptz, seen text DEFAULT NULL
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    was     linkbeat.successions;
    other   text;
    earlier timestamptz;
    later   timestamptz;
    copies  boolean;
BEGIN
    -- A server that is removed meanwhile is waited for, and then not there.
    PERFORM FROM servers WHERE server_id IN (of_server, new_predecessor) ORDER BY server_id FOR KEY SHARE;
    IF NOT EXISTS (SELECT FROM servers WHERE server_id = of_server) THEN
        RETURN false;
    END IF;
    IF new_predecessor IS NOT NULL AND NOT EXISTS (SELECT FROM servers WHERE server_id = new_predecessor) THEN
        RAISE EXCEPTION 'there is no server %', new_predecessor USING ERRCODE = 'LB404';
    END IF;
    PERFORM linkbeat.take_turn('links', '');
    SELECT * INTO was FROM linkbeat.successions WHERE server_id = of_server;
    PERFORM linkbeat.check_version(CASE WHEN was.server_id IS NOT NULL THEN linkbeat.succession_json(was) END, seen);
    SELECT server_id INTO other FROM linkbeat.successions WHERE predecessor_id = new_predecessor AND server_id <> of_server;
    IF FOUND THEN
        RAISE EXCEPTION 'server % replaced it already', other USING ERRCODE = 'LB409', DETAIL = other;
    END IF;
    -- Times grow along a chain, which therefore is no circle.
    earlier := (SELECT since FROM linkbeat.successions WHERE server_id = new_predecessor);
    later := (SELECT since FROM linkbeat.successions WHERE predecessor_id = of_server);
    IF new_since <= earlier OR new_since >= later THEN
        RAISE EXCEPTION 'not between % and %', earlier, later USING ERRCODE = 'LB411',
            DETAIL = jsonb_build_object('after', earlier, 'before', later);
    END IF;
    IF was.copied_quota AND was.predecessor_id IS DISTINCT FROM new_predecessor THEN
        DELETE FROM linkbeat.quotas q
        WHERE q.server_id = of_server
          AND linkbeat.quota_json(q) = (SELECT linkbeat.quota_json(p) FROM linkbeat.quotas p WHERE p.server_id = was.predecessor_id);
    END IF;
    IF new_predecessor IS NULL THEN
        DELETE FROM linkbeat.successions WHERE server_id = of_server;
        RETURN true;
    END IF;
    copies := EXISTS (SELECT FROM linkbeat.quotas WHERE server_id = new_predecessor)
          AND NOT EXISTS (SELECT FROM linkbeat.quotas WHERE server_id = of_server);
    INSERT INTO linkbeat.successions AS s (server_id, predecessor_id, since, copied_quota)
    VALUES (of_server, new_predecessor, new_since, copies)
    ON CONFLICT (server_id) DO UPDATE SET
        predecessor_id = EXCLUDED.predecessor_id, since = EXCLUDED.since,
        copied_quota = EXCLUDED.copied_quota OR s.copied_quota AND s.predecessor_id = EXCLUDED.predecessor_id;
    IF copies THEN
        INSERT INTO linkbeat.quotas (server_id, bytes, direction, billing_day, time_zone, interface_name, near_percent)
        SELECT of_server, bytes, direction, billing_day, time_zone, interface_name, near_percent
        FROM linkbeat.quotas WHERE server_id = new_predecessor;
    END IF;
    RETURN true;
END $$;

-- Servers that this one may have replaced: silent since it appeared, for a month before at most, with its GUID or with
-- hardware that has a permanent address of its. Two that report at once are a clone, or two machines.
CREATE OR REPLACE FUNCTION linkbeat.predecessor_suggestions(of_server text)
RETURNS TABLE (predecessor text, since timestamptz, gone_at timestamptz, evidence text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH me AS MATERIALIZED (
        SELECT s.server_id, s.first_seen, s.server_guid, ARRAY(
                   SELECT DISTINCT i.permanent_address FROM linkbeat.interface_epochs e CROSS JOIN LATERAL unnest(e.evidence) AS i
                   WHERE e.server_id = s.server_id AND i.kind = 'physical' AND i.permanent_address IS NOT NULL) AS addresses
        FROM servers s
        WHERE s.server_id = of_server AND NOT EXISTS (SELECT FROM linkbeat.successions x WHERE x.server_id = s.server_id)
    ), gone AS MATERIALIZED (
        SELECT me.*, o.server_id AS predecessor, o.last_seen, o.server_guid AS other_guid
        FROM me JOIN servers o ON o.last_seen <= me.first_seen AND o.last_seen > me.first_seen - INTERVAL '31 days'
        WHERE o.server_id <> me.server_id
          AND NOT EXISTS (SELECT FROM linkbeat.successions x WHERE x.predecessor_id = o.server_id)
    ), found AS (
        SELECT g.predecessor, g.first_seen, g.last_seen, array_remove(ARRAY[
                   CASE WHEN g.other_guid = g.server_guid THEN 'server_guid' END,
                   CASE WHEN EXISTS (
                       SELECT FROM linkbeat.interface_epochs e CROSS JOIN LATERAL unnest(e.evidence) AS i
                       WHERE e.server_id = g.predecessor AND i.kind = 'physical' AND i.permanent_address = ANY (g.addresses))
                   THEN 'permanent_address' END], NULL) AS evidence
        FROM gone g
    )
    SELECT f.predecessor, f.first_seen, f.last_seen, f.evidence FROM found f WHERE f.evidence <> '{}'
    ORDER BY cardinality(f.evidence) DESC, f.last_seen DESC, f.predecessor LIMIT 10;
$$;

-- The traffic of servers, each byte once, as links and successions say it is read.
CREATE OR REPLACE FUNCTION linkbeat.server_totals(of_servers text[]) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_agg(jsonb_build_object('server_id', s.name, 'rx_bytes', coalesce(t.rx_bytes, 0), 'tx_bytes', coalesce(t.tx_bytes, 0),
                                        'samples', coalesce(t.samples, 0)) ORDER BY s.place)
    FROM unnest(of_servers) WITH ORDINALITY AS s(name, place) CROSS JOIN LATERAL (
        SELECT sum(r.rx_bytes) AS rx_bytes, sum(r.tx_bytes) AS tx_bytes, sum(r.samples) AS samples
        FROM linkbeat.linked_rows('network_traffic_1d', ARRAY[s.name], NULL, '-infinity', 'infinity') r WHERE r.is_lowest) t;
$$;

-- What set_predecessor would do: the totals of both servers before and after. It makes the succession, reads what every
-- answer would, and takes it back. Null: there is no such server. Errors as set_predecessor's.
CREATE OR REPLACE FUNCTION linkbeat.preview_predecessor(of_server text, new_predecessor text, new_since timestamptz)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    was      jsonb := linkbeat.server_totals(ARRAY[new_predecessor, of_server]);
    becomes  jsonb;
    is_known boolean;
BEGIN
    BEGIN
        is_known := linkbeat.set_predecessor(of_server, new_predecessor, new_since);
        becomes := linkbeat.server_totals(ARRAY[new_predecessor, of_server]);
        RAISE EXCEPTION 'taken back' USING ERRCODE = 'LB001';
    EXCEPTION
        WHEN SQLSTATE 'LB001' THEN NULL;
    END;
    RETURN CASE WHEN is_known THEN jsonb_build_object('before', was, 'after', becomes) END;
END $$;

CREATE OR REPLACE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON linkbeat.successions
FOR EACH ROW WHEN (pg_trigger_depth() = 0)
EXECUTE FUNCTION linkbeat.audit_row('succession', 'predecessor_id', 'server_id', '{server_id,copied_quota,created_at}');
