-- match_interfaces: which series the interfaces of an epoch belong to, by evidence. docs/names.md has it in words.
-- Replaceable: reapplied on every upgrade.

-- The kinds of evidence, the strongest first. Null: the interface has none of this kind.
--   place  1 ifindex within one boot, 2 permanent address, 3 bus path, 4 alias, 5 the name, 6 the name of the series
-- An address and a slot are hardware's own; a bridge, a bond or a VLAN has a copy of them.
CREATE OR REPLACE FUNCTION linkbeat.evidence_key(
    place integer, kind text, ifindex integer, permanent_address text, bus_path text, alias text, os_name text
) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE place WHEN 1 THEN ifindex::text
                  WHEN 2 THEN CASE WHEN kind = 'physical' THEN permanent_address END
                  WHEN 3 THEN CASE WHEN kind = 'physical' THEN bus_path END
                  WHEN 4 THEN alias
                  ELSE os_name END;

-- Input: what is known of every series before the epoch, and what the epoch says of each interface.
--   series      of each of them, in the order of `seen`
--   identities  what is known afterwards
--   events      objects with series, event and detail
-- Evidence that several interfaces of one heartbeat have tells nothing about any of them. Of several series that had it,
-- the one that had it last is meant.
CREATE OR REPLACE FUNCTION linkbeat.match_interfaces(
    known linkbeat.interface_identity[], of_boot bigint, moment timestamptz, seen linkbeat.interface_evidence[],
    OUT series text[], OUT identities linkbeat.interface_identity[], OUT events jsonb
) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    evidence CONSTANT text[] := '{ifindex,permanent_address,bus_path,alias,name,name}';
    assigned text[] := array_fill(NULL::text, ARRAY[cardinality(seen)]);
    taken    text[] := '{}';
    found    record;
    one      record;
    had      linkbeat.interface_identity;
    name     text;
    number   integer;
BEGIN
    events := '[]';
    FOR kind_of_evidence IN 1 .. 6 LOOP
        EXIT WHEN array_position(assigned, NULL) IS NULL;
        CONTINUE WHEN kind_of_evidence = 1 AND of_boot = 0;  -- not a boot's: the same number may be another device
        FOR found IN
            WITH here AS (
                SELECT e.*, linkbeat.evidence_key(kind_of_evidence, e.kind, e.ifindex, e.permanent_address, e.bus_path, e.alias, e.os_name) AS key
                FROM unnest(seen) WITH ORDINALITY AS e(os_name, kind, ifindex, permanent_address, bus_path, alias, place)
            ), alone AS (
                SELECT key FROM here WHERE key IS NOT NULL GROUP BY key HAVING count(*) = 1
            ), before AS (
                SELECT i.*, linkbeat.evidence_key(kind_of_evidence, i.kind, i.ifindex, i.permanent_address, i.bus_path, i.alias,
                                                  CASE kind_of_evidence WHEN 6 THEN i.series ELSE i.os_name END) AS key
                FROM unnest(known) AS i
                WHERE kind_of_evidence > 1 OR i.boot = of_boot
            ), newest AS (
                SELECT key, (array_agg(b.series ORDER BY b.series))[1] AS series
                FROM before b JOIN (SELECT key, max(b.seen) AS seen FROM before b WHERE key IS NOT NULL GROUP BY key) AS l USING (key, seen)
                GROUP BY key HAVING count(*) = 1
            )
            SELECT h.place, b.* FROM here h JOIN alone USING (key) JOIN newest n USING (key) JOIN before b ON b.series = n.series
            WHERE assigned[h.place] IS NULL AND b.series <> ALL (taken)
              AND (kind_of_evidence >= 5 OR (b.kind <> h.kind) IS NOT TRUE)
              -- A name, or the number of a device, does not make one card another.
              AND (kind_of_evidence NOT IN (1, 6) OR h.kind IS DISTINCT FROM 'physical'
                   OR (b.permanent_address <> h.permanent_address) IS NOT TRUE)
            ORDER BY h.place
        LOOP
            assigned[found.place] := found.series;
            taken := array_append(taken, found.series);
            IF found.os_name <> seen[found.place].os_name THEN
                events := events || jsonb_build_object('series', found.series, 'event', 'renamed', 'detail', jsonb_build_object(
                    'from', found.os_name, 'to', seen[found.place].os_name, 'evidence', evidence[kind_of_evidence]));
            END IF;
            IF found.kind = 'physical' AND seen[found.place].kind = 'physical'
               AND found.permanent_address <> seen[found.place].permanent_address THEN
                events := events || jsonb_build_object('series', found.series, 'event', 'hardware_changed', 'detail',
                    jsonb_build_object('from', found.permanent_address, 'to', seen[found.place].permanent_address,
                                       'evidence', evidence[kind_of_evidence]));
            END IF;
        END LOOP;
    END LOOP;

    -- A device that was never seen: a series of its own, by its name. No name of a kernel holds a '/'.
    FOR place IN 1 .. cardinality(seen) LOOP
        CONTINUE WHEN assigned[place] IS NOT NULL;
        name := seen[place].os_name;
        number := 1;
        WHILE name = ANY (assigned) OR EXISTS (SELECT FROM unnest(known) AS i WHERE i.series = name) LOOP
            number := number + 1;
            name := seen[place].os_name || '/' || number;
        END LOOP;
        assigned[place] := name;
    END LOOP;

    FOR one IN
        SELECT e.permanent_address AS address, array_agg(e.os_name ORDER BY e.place) AS names, min(e.place) AS place
        FROM unnest(seen) WITH ORDINALITY AS e(os_name, kind, ifindex, permanent_address, bus_path, alias, place)
        WHERE e.kind = 'physical' AND e.permanent_address IS NOT NULL
        GROUP BY 1 HAVING count(*) > 1 ORDER BY 1
    LOOP
        -- Once: not again at every reboot of a machine that has two such devices.
        CONTINUE WHEN (SELECT count(*) FROM unnest(known) AS i WHERE i.permanent_address = one.address) > 1;
        events := events || jsonb_build_object('series', assigned[one.place], 'event', 'duplicate_address', 'detail',
            jsonb_build_object('address', one.address, 'interfaces', one.names));
    END LOOP;

    identities := '{}';
    FOR one IN
        SELECT * FROM unnest(assigned, seen) AS s(series, os_name, kind, ifindex, permanent_address, bus_path, alias)
        ORDER BY s.series COLLATE "C"
    LOOP
        SELECT i.* INTO had FROM unnest(known) AS i WHERE i.series = one.series;
        identities := array_append(identities, ROW(
            one.series, one.os_name, coalesce(one.kind, had.kind), of_boot, one.ifindex,
            coalesce(one.permanent_address, had.permanent_address), coalesce(one.bus_path, had.bus_path),
            coalesce(one.alias, had.alias), moment)::linkbeat.interface_identity);
    END LOOP;
    -- Of what is absent, names alone are not worth remembering: bridges of containers come and go.
    identities := identities || ARRAY(
        SELECT i FROM unnest(known) AS i
        WHERE i.series <> ALL (assigned)
          AND (i.kind = 'physical' OR i.series <> i.os_name OR i.permanent_address IS NOT NULL OR i.alias IS NOT NULL)
        ORDER BY i.seen DESC, i.series COLLATE "C"
        LIMIT 256);
    series := assigned;
END $$;
