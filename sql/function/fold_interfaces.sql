-- Folding: interfaces that come and go by the hundred (veth and friends) must not each leave a series for years.
-- A folded interface has its rows in network_interface_metrics like any, which keep its deltas exact in any order of
-- arrival; the aggregates leave them out and take, for all of a kind together, one row per heartbeat: veth/*, a name that
-- no interface can have.
-- Replaceable: reapplied on every upgrade.

-- The series that an interface is folded into while it is young; null: it is of a kind that stays. A name tells which
-- series; the kind alone, which the history does not keep, only that it is folded.
CREATE OR REPLACE FUNCTION linkbeat.fold_series(interface_name text, kind text DEFAULT NULL) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(substring(interface_name FROM '^(veth|cali|lxc(?!br)|tap|vnet|fwbr|fwln|fwpr|ve-|vb-)') || '/*',
                CASE kind WHEN 'veth' THEN 'other/*' END);

-- Whether an interface keeps a series of its own from its first sample on: the main interface, and those that no other is
-- below, as far as the agent says what interfaces are. In a container and in a virtual machine, a veth is both.
CREATE OR REPLACE FUNCTION linkbeat.never_folds(
    interface_name text, kind text, is_lowest boolean, primary_interface text
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN kind IS NOT NULL AND is_lowest OR coalesce(interface_name = primary_interface, false);

-- Decides, after the server's newest heartbeat, which of its interfaces have a series of their own:
--   one that has lived fold_seconds comes to its own, while the server has fewer than series_budget;
--   past the budget the youngest are folded, of whatever kind, and those that never fold last of all.
-- Of a late heartbeat only its own interfaces (named) past the budget are folded: those that now have a series of their
-- own have one there before others.
CREATE OR REPLACE FUNCTION linkbeat.fold_interfaces(
    of_server text, moment timestamptz, named text[], series_budget integer, fold_seconds integer
) RETURNS void LANGUAGE plpgsql AS $$
-- Names are grouped, and not joined with the states of interfaces: the planner, which expects few elements of an array,
-- might compare thousands with thousands.
DECLARE
    changed text[];
BEGIN
    IF (SELECT last_seen = moment FROM servers WHERE server_id = of_server) THEN
        WITH ranked AS (
            SELECT w.*, count(*) FILTER (WHERE wants_own)
                            OVER (ORDER BY NOT stays, is_folded, first_seen, interface_name) AS place
            FROM (
                SELECT i.interface_name, i.is_folded, i.time, i.first_seen, n.stays,
                       n.stays OR NOT i.is_folded OR i.time - i.first_seen >= fold_seconds * INTERVAL '1 second' AS wants_own
                FROM servers s, unnest(s.interfaces) AS i,
                     LATERAL (SELECT linkbeat.never_folds(i.interface_name, i.kind, i.is_lowest, s.primary_interface) AS stays) AS n
                WHERE s.server_id = of_server
            ) w
        )
        SELECT array_agg(interface_name) INTO changed FROM ranked
        WHERE time = moment AND is_folded <> NOT (wants_own AND place <= series_budget);
    ELSIF cardinality(named) > series_budget THEN
        changed := ARRAY(
            SELECT interface_name
            FROM (
                SELECT m.interface_name, true AS is_own, NULL::boolean AS is_folded, NULL::timestamptz AS first_seen
                FROM unnest(named) AS n(name)
                JOIN network_interface_metrics m
                    ON m.server_id = of_server AND m.interface_name = n.name AND m.time = moment AND NOT m.is_folded
                UNION ALL
                SELECT i.interface_name, NULL, i.is_folded, i.first_seen
                FROM servers s, unnest(s.interfaces) AS i WHERE s.server_id = of_server
            ) AS either
            GROUP BY interface_name
            HAVING bool_or(is_own)
            ORDER BY bool_or(is_folded), min(first_seen), interface_name
            OFFSET series_budget);
    END IF;

    IF cardinality(changed) > 0 THEN
        UPDATE network_interface_metrics m SET is_folded = NOT is_folded
        FROM unnest(changed) AS c(name)
        WHERE m.server_id = of_server AND m.interface_name = c.name AND m.time = moment;
        UPDATE servers SET interfaces = ARRAY(
            SELECT CASE WHEN is_changed AND (state).time = moment THEN linkbeat.turned(state) ELSE state END
            FROM (
                SELECT (array_agg(state) FILTER (WHERE state IS DISTINCT FROM NULL))[1] AS state,
                       count(*) > count(place) AS is_changed, min(place) AS place
                FROM (
                    SELECT (state).interface_name AS name, state, place
                    FROM (SELECT unnest(interfaces) AS state, generate_subscripts(interfaces, 1) AS place OFFSET 0) AS i
                    UNION ALL
                    SELECT unnest(changed), NULL, NULL
                ) AS either
                GROUP BY name
                HAVING count(place) > 0
                OFFSET 0
            ) AS paired
            ORDER BY place)
        WHERE server_id = of_server;
    END IF;
END $$;

-- The state of an interface that is folded from here on, or no more.
CREATE OR REPLACE FUNCTION linkbeat.turned(state linkbeat.interface_state) RETURNS linkbeat.interface_state
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    state.is_folded := NOT state.is_folded;
    RETURN state;
END $$;

-- The sums over the folded interfaces of heartbeats, each of a server at a moment: a row for each kind.
-- A heartbeat's interfaces are folded or not before it is summed; afterwards only their deltas change.
CREATE OR REPLACE FUNCTION linkbeat.sum_folded(of_servers text[], moments timestamptz[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    -- Leave out the chunks on either side, which a join cannot.
    first timestamptz := (SELECT min(moment) FROM unnest(moments) AS moment);
    last  timestamptz := (SELECT max(moment) FROM unnest(moments) AS moment);
BEGIN
    INSERT INTO network_interface_metrics AS m (
        server_id, interface_name, time, rx_bytes, tx_bytes, rx_packets, tx_packets, rx_bytes_delta, tx_bytes_delta,
        rx_packets_delta, tx_packets_delta, rx_errors_delta, tx_errors_delta, rx_dropped_delta, tx_dropped_delta,
        elapsed_ms, interval_ms, is_up, is_lowest, counts_64bit, delta_kind)
    SELECT server_id, coalesce(linkbeat.fold_series(interface_name), 'other/*'), time, 0, 0, 0, 0,
           sum(rx_bytes_delta), sum(tx_bytes_delta), sum(rx_packets_delta), sum(tx_packets_delta),
           sum(rx_errors_delta), sum(tx_errors_delta), sum(rx_dropped_delta), sum(tx_dropped_delta),
           max(elapsed_ms), max(interval_ms), bool_or(is_up), bool_or(is_lowest), false, 'folded'
    FROM unnest(of_servers, moments) AS f(server_id, time)
    JOIN network_interface_metrics USING (server_id, time)
    WHERE is_folded AND time BETWEEN first AND last
    GROUP BY 1, 2, 3
    ON CONFLICT (server_id, interface_name, time) DO UPDATE SET
        rx_bytes_delta = EXCLUDED.rx_bytes_delta, tx_bytes_delta = EXCLUDED.tx_bytes_delta,
        rx_packets_delta = EXCLUDED.rx_packets_delta, tx_packets_delta = EXCLUDED.tx_packets_delta,
        rx_errors_delta = EXCLUDED.rx_errors_delta, tx_errors_delta = EXCLUDED.tx_errors_delta,
        rx_dropped_delta = EXCLUDED.rx_dropped_delta, tx_dropped_delta = EXCLUDED.tx_dropped_delta,
        elapsed_ms = EXCLUDED.elapsed_ms, interval_ms = EXCLUDED.interval_ms, is_up = EXCLUDED.is_up,
        is_lowest = EXCLUDED.is_lowest;
END $$;
