-- resolve_interfaces: which series the interfaces of heartbeats belong to. Called before ingest_heartbeats, for those
-- heartbeats alone whose names and evidence the calling process has not seen resolved.
-- Replaceable: reapplied on every upgrade.
--
-- linkbeat.interface_epochs holds from when on a server's interfaces had which names and evidence, boot by boot. What an
-- epoch shows follows from it and from those before it (linkbeat.match_interfaces). A heartbeat that arrives late may thus
-- change what later ones showed: their rows are moved to the right series, and judged again.

-- Input, parallel arrays: one element per heartbeat; evidence has an object for each interface, with the fields of
-- linkbeat.interface_evidence.
-- Output, for each heartbeat:
--   version       servers.identity_version afterwards; null: names are series, as the agent sends no evidence
--   since, until  within [since, until) the same evidence in the same boot gives the same series, while the version is
--                 this; null: not known, or without end
--   names         an object with the series of each interface whose name is another
CREATE OR REPLACE FUNCTION linkbeat.resolve_interfaces(
    of_servers text[], times timestamptz[], boots bigint[], evidence jsonb[]
) RETURNS TABLE (place integer, version bigint, since timestamptz, until timestamptz, names jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    heartbeat record;
    seen      linkbeat.interface_evidence[];
    in_boot   bigint;
    epoch     linkbeat.interface_epochs;
    is_known  boolean;
    current   bigint;
    ends      timestamptz;
BEGIN
    FOR heartbeat IN
        SELECT * FROM unnest(of_servers, times, boots, evidence) WITH ORDINALITY AS b(server_id, time, boot, evidence, place)
        ORDER BY server_id
    LOOP
        SELECT s.identity_version INTO current FROM servers s WHERE s.server_id = heartbeat.server_id FOR UPDATE;
        is_known := FOUND;
        IF NOT is_known THEN
            -- There is no row to take turns at. Two first heartbeats in two processes would each be the only one.
            PERFORM pg_advisory_xact_lock(hashtextextended('linkbeat interfaces of ' || heartbeat.server_id, 0));
        END IF;
        seen := ARRAY(SELECT e FROM jsonb_populate_recordset(NULL::linkbeat.interface_evidence, heartbeat.evidence) AS e
                      ORDER BY e.os_name COLLATE "C");
        in_boot := CASE WHEN linkbeat.is_uuid_boot(heartbeat.boot) THEN heartbeat.boot ELSE 0 END;
        place := heartbeat.place;
        names := '{}';
        IF current IS NULL AND NOT EXISTS (
            SELECT FROM unnest(seen) AS e WHERE num_nonnulls(e.ifindex, e.permanent_address, e.bus_path, e.alias) > 0
        ) THEN
            version := NULL; since := NULL; until := NULL;
            RETURN NEXT;
            CONTINUE;
        END IF;

        SELECT * INTO epoch FROM linkbeat.interface_epochs e
        WHERE e.server_id = heartbeat.server_id AND e.boot = in_boot AND e.since <= heartbeat.time
        ORDER BY e.since DESC LIMIT 1;
        since := epoch.since;
        ends := (SELECT min(e.since) FROM linkbeat.interface_epochs e
                 WHERE e.server_id = heartbeat.server_id AND e.boot = in_boot AND e.since > heartbeat.time);
        until := ends;
        IF epoch.evidence = seen THEN
            NULL;
        ELSIF linkbeat.has_epoch_at(epoch, heartbeat.time) THEN
            until := since;  -- this time has a heartbeat already, of which this one is a duplicate with other evidence
        ELSIF linkbeat.is_before_base(heartbeat.server_id, heartbeat.time) THEN
            SELECT * INTO epoch FROM linkbeat.interface_epochs e
            WHERE e.server_id = heartbeat.server_id ORDER BY e.since, e.boot LIMIT 1;
            epoch.series := (linkbeat.match_interfaces(epoch.identities, in_boot, heartbeat.time, seen)).series;
            epoch.evidence := seen;
            since := NULL; until := NULL;
        ELSE
            PERFORM linkbeat.insert_epoch(heartbeat.server_id, in_boot, heartbeat.time, seen, epoch, ends);
            current := NULL;
            SELECT * INTO epoch FROM linkbeat.interface_epochs e
            WHERE e.server_id = heartbeat.server_id AND e.boot = in_boot AND e.since = heartbeat.time;
            since := epoch.since;
            until := (SELECT min(e.since) FROM linkbeat.interface_epochs e
                      WHERE e.server_id = heartbeat.server_id AND e.boot = in_boot AND e.since > heartbeat.time);
        END IF;
        IF current IS NULL THEN
            -- Not a count: a server that was removed and reports again would repeat its numbers.
            current := (random() * 9e18)::bigint;
            UPDATE servers s SET identity_version = current WHERE s.server_id = heartbeat.server_id;
        END IF;
        version := current;
        names := coalesce((
            SELECT jsonb_object_agg(e.os_name, e.series)
            FROM unnest(epoch.series, epoch.evidence) AS e(series, os_name, kind, ifindex, permanent_address, bus_path, alias)
            WHERE e.series <> e.os_name), '{}');
        RETURN NEXT;
    END LOOP;
END $$;

-- The first stored heartbeat of the epoch in [since, until); null: none. (Without interfaces, an epoch moves nothing.)
CREATE OR REPLACE FUNCTION linkbeat.next_in_epoch(epoch linkbeat.interface_epochs, since timestamptz, until timestamptz)
RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_variable
BEGIN
    RETURN (
        SELECT min(n.time)
        FROM unnest(epoch.series) AS s(name), LATERAL (
            SELECT m.time FROM network_interface_metrics m
            WHERE m.server_id = epoch.server_id AND m.interface_name = s.name AND m.time >= since
              AND (until IS NULL OR m.time < until) AND linkbeat.is_of_boot(m.boot, epoch.boot)
            ORDER BY m.time LIMIT 1) AS n);
END $$;

-- Whether a row is of an epoch's boot.
CREATE OR REPLACE FUNCTION linkbeat.is_of_boot(of_row bigint, of_epoch bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE of_epoch WHEN 0 THEN NOT coalesce(linkbeat.is_uuid_boot(of_row), false) ELSE coalesce(of_row = of_epoch, false) END;

-- Whether a heartbeat of the epoch is stored with this very time.
CREATE OR REPLACE FUNCTION linkbeat.has_epoch_at(epoch linkbeat.interface_epochs, moment timestamptz) RETURNS boolean
LANGUAGE sql VOLATILE
RETURN coalesce(epoch.since = moment OR linkbeat.next_in_epoch(epoch, moment, moment + INTERVAL '1 microsecond') IS NOT NULL, false);

-- Whether earlier epochs than the server's first one are deleted, and the moment is before that.
CREATE OR REPLACE FUNCTION linkbeat.is_before_base(of_server text, moment timestamptz) RETURNS boolean
LANGUAGE sql VOLATILE
RETURN EXISTS (SELECT FROM linkbeat.interface_epochs WHERE server_id = of_server AND is_base AND since > moment);

-- Adds the epoch that begins with a heartbeat, and applies what follows from it.
--   previous  the epoch of this boot that holds at the moment, null for none; ends: when the next one begins
CREATE OR REPLACE FUNCTION linkbeat.insert_epoch(
    of_server text, in_boot bigint, moment timestamptz, seen linkbeat.interface_evidence[],
    previous linkbeat.interface_epochs, ends timestamptz
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    goes_on timestamptz := linkbeat.next_in_epoch(previous, moment, ends);
    merged  linkbeat.interface_epochs;
BEGIN
    IF goes_on IS NOT NULL THEN
        INSERT INTO linkbeat.interface_epochs (server_id, boot, since, evidence, series, identities)
        VALUES (of_server, in_boot, goes_on, previous.evidence, previous.series, previous.identities);
    ELSE
        -- The heartbeat is the first one of the next epoch.
        DELETE FROM linkbeat.interface_epochs e
        WHERE e.server_id = of_server AND e.boot = in_boot AND e.since = ends AND e.evidence = seen
        RETURNING * INTO merged;
    END IF;
    INSERT INTO linkbeat.interface_epochs (server_id, boot, since, evidence, series, identities)
    VALUES (of_server, in_boot, moment, seen, coalesce(merged.series, '{}'), '{}');
    PERFORM linkbeat.follow_epochs(of_server, moment, in_boot);
    PERFORM linkbeat.forget_epochs(of_server);
END $$;

-- Works out again what the epochs of a server show, from one on, and moves the rows of those that show something else.
CREATE OR REPLACE FUNCTION linkbeat.follow_epochs(of_server text, from_since timestamptz, from_boot bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    epoch   linkbeat.interface_epochs;
    known   linkbeat.interface_identity[];
    found   record;
    ends    timestamptz;
    moved   linkbeat.interface_move[] := '{}';
BEGIN
    known := coalesce((
        SELECT e.identities FROM linkbeat.interface_epochs e
        WHERE e.server_id = of_server AND (e.since, e.boot) < (from_since, from_boot)
        ORDER BY e.since DESC, e.boot DESC LIMIT 1), '{}');
    DELETE FROM linkbeat.interface_events e
    WHERE e.server_id = of_server AND (e.time, e.boot) >= (from_since, from_boot);
    DELETE FROM linkbeat.interface_names n WHERE n.server_id = of_server AND n.since >= from_since;
    UPDATE linkbeat.interface_names n SET until = NULL WHERE n.server_id = of_server AND n.until >= from_since;
    FOR epoch IN
        SELECT * FROM linkbeat.interface_epochs e
        WHERE e.server_id = of_server AND e.since >= from_since
        ORDER BY e.since, e.boot
    LOOP
        IF (epoch.since, epoch.boot) < (from_since, from_boot) THEN
            PERFORM linkbeat.name_series(epoch);  -- of another boot, at the same moment: its names were deleted
            CONTINUE;
        END IF;
        found := linkbeat.match_interfaces(known, epoch.boot, epoch.since, epoch.evidence);
        IF epoch.series <> found.series THEN
            ends := (SELECT min(e.since) FROM linkbeat.interface_epochs e
                     WHERE e.server_id = of_server AND e.boot = epoch.boot AND e.since > epoch.since);
            moved := moved || ARRAY(
                SELECT ROW(s.was, s.series, epoch.boot, epoch.since, ends)::linkbeat.interface_move
                FROM unnest(epoch.series, found.series) AS s(was, series) WHERE s.was <> s.series);
        END IF;
        epoch.series := found.series;
        epoch.identities := found.identities;
        epoch.events := found.events;
        UPDATE linkbeat.interface_epochs e SET series = epoch.series, identities = epoch.identities, events = epoch.events
        WHERE e.server_id = of_server AND e.since = epoch.since AND e.boot = epoch.boot;
        PERFORM linkbeat.name_series(epoch);
        INSERT INTO linkbeat.interface_events (server_id, time, boot, series, event, detail)
        SELECT of_server, epoch.since, epoch.boot, v->>'series', v->>'event', v->'detail'
        FROM jsonb_array_elements(epoch.events) AS v;
        known := found.identities;
    END LOOP;
    IF moved <> '{}' THEN
        PERFORM linkbeat.move_rows(of_server, moved);
    END IF;
END $$;

-- Notes what the interfaces of an epoch are called from it on.
CREATE OR REPLACE FUNCTION linkbeat.name_series(epoch linkbeat.interface_epochs) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE linkbeat.interface_names n SET until = epoch.since
    FROM unnest(epoch.series, epoch.evidence) AS s(series, os_name, kind, ifindex, permanent_address, bus_path, alias)
    WHERE n.server_id = epoch.server_id AND n.until IS NULL
      AND (n.series = s.series AND n.os_name <> s.os_name OR n.series <> s.series AND n.os_name = s.os_name);
    DELETE FROM linkbeat.interface_names n WHERE n.server_id = epoch.server_id AND n.until = n.since;
    INSERT INTO linkbeat.interface_names (server_id, series, os_name, since)
    SELECT epoch.server_id, s.series, s.os_name, epoch.since
    FROM unnest(epoch.series, epoch.evidence) AS s(series, os_name, kind, ifindex, permanent_address, bus_path, alias)
    WHERE NOT EXISTS (SELECT FROM linkbeat.interface_names n
                      WHERE n.server_id = epoch.server_id AND n.series = s.series AND n.until IS NULL);
END $$;

-- Moves rows from series to series, all at once, so that two may change places; and judges those series again.
CREATE OR REPLACE FUNCTION linkbeat.move_rows(of_server text, moves linkbeat.interface_move[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    taken  record;
    moved  network_interface_metrics[] := '{}';
    one    network_interface_metrics;
    carried linkbeat.carrier_changes[];
    touched text[];
    since  timestamptz;
    until  timestamptz;
BEGIN
    UPDATE servers s SET interfaces = n.states, interface_names = n.names
    FROM (
        SELECT array_agg(state ORDER BY place) AS states, array_agg((state).interface_name ORDER BY place) AS names
        FROM (
            SELECT DISTINCT ON ((state).interface_name) state, place
            FROM (
                SELECT linkbeat.state_of_series(i, moves) AS state, place
                FROM (SELECT unnest(interfaces) AS i, generate_subscripts(interfaces, 1) AS place
                      FROM servers WHERE server_id = of_server OFFSET 0) AS u
            ) AS renamed
            ORDER BY (state).interface_name, (state).time DESC
        ) AS newest
    ) AS n
    WHERE s.server_id = of_server AND n.states IS NOT NULL;

    FOR taken IN
        WITH gone AS (
            DELETE FROM network_interface_metrics m USING unnest(moves) AS v
            WHERE m.server_id = of_server AND m.interface_name = v.was AND m.time >= v.since
              AND (v.until IS NULL OR m.time < v.until) AND linkbeat.is_of_boot(m.boot, v.boot)
            RETURNING m AS stored, v.series
        )
        SELECT * FROM gone
    LOOP
        one := taken.stored;
        one.interface_name := taken.series;
        moved := array_append(moved, one);
    END LOOP;
    IF moved = '{}' THEN
        RETURN;
    END IF;
    INSERT INTO network_interface_metrics SELECT * FROM unnest(moved);

    WITH gone AS (
        DELETE FROM linkbeat.carrier_changes c USING unnest(moves) AS v
        WHERE c.server_id = of_server AND c.interface_name = v.was AND c.time >= v.since
          AND (v.until IS NULL OR c.time < v.until)
          AND EXISTS (SELECT FROM unnest(moved) AS r WHERE r.interface_name = v.series AND r.time = c.time)
        RETURNING v.series, c.time, c.changes
    )
    SELECT array_agg(ROW(of_server, g.series, g.time, g.changes)::linkbeat.carrier_changes) INTO carried FROM gone AS g;
    INSERT INTO linkbeat.carrier_changes SELECT * FROM unnest(carried);

    SELECT min(r.time), max(r.time) INTO since, until FROM unnest(moved) AS r;
    INSERT INTO linkbeat.moved_series (server_id, moves, since, until) VALUES (of_server, moves, since, until);
    SELECT array_agg(DISTINCT name) INTO touched
    FROM (SELECT v.was AS name FROM unnest(moves) AS v UNION SELECT v.series FROM unnest(moves) AS v) AS t;
    PERFORM linkbeat.repair_deltas(of_server, array_agg(f.interface_name), array_agg(f.first), is_whole => true)
    FROM (SELECT r.interface_name, min(r.time) AS first FROM network_interface_metrics r
          WHERE r.server_id = of_server AND r.interface_name = ANY (touched) AND r.time >= since AND r.delta_kind <> 'folded'
          GROUP BY r.interface_name ORDER BY r.interface_name) AS f;
END $$;

-- The newest state of an interface under the series to which its sample is moved.
CREATE OR REPLACE FUNCTION linkbeat.state_of_series(state linkbeat.interface_state, moves linkbeat.interface_move[])
RETURNS linkbeat.interface_state LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    target text := (
        SELECT v.series FROM unnest(moves) AS v
        WHERE v.was = state.interface_name AND state.time >= v.since AND (v.until IS NULL OR state.time < v.until)
          AND linkbeat.is_of_boot(state.boot, v.boot) LIMIT 1);
BEGIN
    IF target IS NOT NULL THEN
        state.os_name := coalesce(state.os_name, state.interface_name);
        state.interface_name := target;
        state.os_name := nullif(state.os_name, target);
    END IF;
    RETURN state;
END $$;

-- Keeps a server's epochs from growing without bound. Where devices come and go by the hour, late heartbeats of last month
-- are resolved by the oldest epoch that is left.
CREATE OR REPLACE FUNCTION linkbeat.forget_epochs(of_server text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM linkbeat.interface_epochs WHERE server_id = of_server) > 100 THEN
        DELETE FROM linkbeat.interface_epochs e
        USING (SELECT since, boot FROM linkbeat.interface_epochs WHERE server_id = of_server
               ORDER BY since DESC, boot DESC OFFSET 50) AS old
        WHERE e.server_id = of_server AND e.since = old.since AND e.boot = old.boot;
        UPDATE linkbeat.interface_epochs e SET is_base = true
        WHERE e.server_id = of_server
          AND (e.since, e.boot) = (SELECT since, boot FROM linkbeat.interface_epochs WHERE server_id = of_server
                                   ORDER BY since, boot LIMIT 1);
    END IF;
END $$;
