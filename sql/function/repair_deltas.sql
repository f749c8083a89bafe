-- repair_deltas: judges stored rows again, for late samples, for readings that show an earlier one to be a glitch, and for
-- boots that turn out to be another machine's. The caller holds the server's row.
-- Replaceable: reapplied on every upgrade.
--   of_interfaces, since  parallel arrays: the series, and the row from which on each is judged
--   is_whole              goes on to the newest row, whatever is right already
-- The state of the server and the sums over folded interfaces are written once for all series. Written for each series,
-- they would cost the square of the number of interfaces.
CREATE OR REPLACE FUNCTION linkbeat.repair_deltas(
    of_server text, of_interfaces text[], since timestamptz[], is_whole boolean DEFAULT false
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    repaired record;
    newest   network_interface_metrics[];
    changed  network_interface_metrics[];
    moments  timestamptz[];
    moment   timestamptz;
BEGIN
    FOR repaired IN
        SELECT r.newest, r.is_changed, r.folded_at
        FROM unnest(of_interfaces, since) AS s(interface_name, since),
             LATERAL linkbeat.repair_series(of_server, s.interface_name, s.since, is_whole) AS r
    LOOP
        IF (repaired.newest).time IS NOT NULL THEN
            newest := array_append(newest, repaired.newest);
        END IF;
        IF repaired.is_changed THEN
            changed := array_append(changed, repaired.newest);
        END IF;
        FOREACH moment IN ARRAY repaired.folded_at LOOP
            moments := array_append(moments, moment);
        END LOOP;
    END LOOP;
    IF changed IS NOT NULL THEN
        PERFORM linkbeat.write_deltas(changed);
    END IF;
    IF moments IS NOT NULL THEN
        PERFORM linkbeat.sum_folded(array_agg(of_server), array_agg(m)) FROM (SELECT DISTINCT unnest(moments)) AS d(m);
    END IF;
    IF newest IS NOT NULL THEN
        PERFORM linkbeat.remember_interfaces(of_server, newest);
    END IF;
END $$;

-- Judges the rows of one series in the order of time from `since` on, until a row that is right already and after which
-- nothing can differ.
--   newest      the newest row; null if it stopped before that
--   is_changed  that row is yet to be written: its caller writes those of all series at once
--   folded_at   times of folded rows that changed
CREATE OR REPLACE FUNCTION linkbeat.repair_series(
    of_server text, of_interface text, since timestamptz, is_whole boolean,
    OUT newest network_interface_metrics, OUT is_changed boolean, OUT folded_at timestamptz[]
) LANGUAGE plpgsql AS $$
DECLARE
    again    record;
    nearest  network_interface_metrics[];
    previous network_interface_metrics;
    base     network_interface_metrics;
    stored   network_interface_metrics;
    judged   network_interface_metrics;
    start    timestamptz := since;
    earlier  timestamptz;
    -- Boots whose newest row up to here is not as it was: the next row of each may change too. It may stand behind rows of
    -- another boot where two overlap, but not after `ends`.
    changing bigint[] := '{}';
    ends     timestamptz;
    -- Where a row changed, those after it that asked earlier rows are judged again: the next of them, up to `horizon`.
    reach    timestamptz := since;
    horizon  timestamptz := since;
    is_mixed boolean := false;  -- rows of several boots: what is in doubt may show behind another boot's row
    is_counted boolean := false;  -- `horizon` reaches as far as linkbeat.flickers counts rows
BEGIN
    is_changed := false;
    folded_at := '{}';
    SELECT array_agg(n.r) INTO nearest FROM (
        SELECT r FROM network_interface_metrics r
        WHERE server_id = of_server AND interface_name = of_interface AND time <= since ORDER BY time DESC LIMIT 2) AS n;
    IF nearest[1].time = since THEN
        stored := nearest[1];
        previous := nearest[2];
    ELSE
        previous := nearest[1];
    END IF;
    -- What was concluded from a later reading than this is open again. Where boots mingle, that may be of other rows than
    -- the one that this is counted from.
    base := linkbeat.row_before(stored, previous);
    IF base.delta_kind = 'glitch' THEN
        start := (SELECT min(moment) FROM unnest(base.doubted_since) AS moment);
        -- A counter that came back meanwhile was in doubt for longer than those that still are.
        LOOP
            earlier := (
                SELECT min(moment) FROM network_interface_metrics, unnest(doubted_since) AS moment
                WHERE server_id = of_server AND interface_name = of_interface AND time >= start AND time < since
                  AND delta_kind = 'glitch');
            EXIT WHEN (earlier < start) IS NOT TRUE;
            start := earlier;
        END LOOP;
    END IF;
    IF (previous.boot = stored.boot AND linkbeat.is_uuid_boot(stored.boot)) IS NOT TRUE THEN
        LOOP
            earlier := (
                SELECT min(moment) FROM network_interface_metrics, unnest(doubted_since) AS moment
                WHERE server_id = of_server AND interface_name = of_interface AND time < start AND delta_kind = 'glitch'
                  AND time >= start - greatest(900000, 10 * stored.interval_ms::bigint) * INTERVAL '1 millisecond');
            EXIT WHEN (earlier < start) IS NOT TRUE;
            start := earlier;
        END LOOP;
    END IF;
    -- Rows of a boot that overlaps it are judged again with it: each counts from its own boot's rows, and asks those of all.
    LOOP
        earlier := (
            SELECT min(moment)
            FROM linkbeat.boot_spans(of_server) AS b
            CROSS JOIN LATERAL (
                SELECT r.delta_kind, r.doubted_since FROM network_interface_metrics r
                WHERE r.server_id = of_server AND r.interface_name = of_interface AND r.boot = b.boot
                  AND r.time >= b.first_seen AND r.time < start
                ORDER BY r.time DESC LIMIT 1) AS own
            CROSS JOIN unnest(own.doubted_since) AS moment
            WHERE b.first_seen < start AND b.last_seen >= start AND own.delta_kind = 'glitch');
        EXIT WHEN (earlier < start) IS NOT TRUE;
        start := earlier;
    END LOOP;
    IF start < since THEN
        SELECT * INTO previous FROM network_interface_metrics
        WHERE server_id = of_server AND interface_name = of_interface AND time < start ORDER BY time DESC LIMIT 1;
    END IF;
    previous := linkbeat.with_counters(previous);

    FOR stored IN
        SELECT * FROM network_interface_metrics
        WHERE server_id = of_server AND interface_name = of_interface AND time >= start
        ORDER BY time
    LOOP
        IF is_changed THEN
            PERFORM linkbeat.write_deltas(ARRAY[judged]);
            is_changed := false;
        END IF;
        IF stored.rx_bytes IS NULL THEN
            judged := linkbeat.with_counters(stored);
            CONTINUE WHEN judged.rx_bytes IS NULL;  -- deleted is what it counted from: its deltas are all that is known
            stored := judged;
        END IF;
        is_mixed := is_mixed OR (previous.boot <> stored.boot) IS TRUE;
        again := linkbeat.judge_again(previous, stored);
        judged := coalesce(again.judged, stored);
        folded_at := folded_at || again.folded_at;
        -- A row without a boot stands before its next one alone.
        changing := array_remove(array_remove(changing, stored.boot), NULL);
        IF judged IS DISTINCT FROM stored THEN
            is_changed := true;
            IF judged.is_folded THEN
                folded_at := array_append(folded_at, judged.time);
            END IF;
        ELSIF stored.time > since AND stored.time >= reach AND NOT is_whole
              AND (judged.old_levels IS NULL AND NOT is_mixed OR stored.time > horizon) THEN
            IF changing <> '{}' THEN
                ends := (SELECT max(last_seen) FROM linkbeat.boot_spans(of_server) WHERE boot = ANY (changing));
            END IF;
            IF changing = '{}' OR ends IS NULL OR stored.time >= ends THEN
                reach := linkbeat.next_that_asked(stored, horizon);
                IF reach IS NULL AND NOT is_counted THEN
                    is_counted := true;
                    horizon := greatest(horizon, linkbeat.last_that_counted(of_server, of_interface, since));
                    reach := linkbeat.next_that_asked(stored, horizon);
                END IF;
                IF reach IS NULL THEN
                    RETURN;
                END IF;
            END IF;
        END IF;
        IF stored.time <= since OR judged IS DISTINCT FROM stored THEN
            changing := array_append(changing, stored.boot);
            horizon := greatest(horizon, stored.time + linkbeat.asked_within(stored.interval_ms));
        END IF;
        previous := judged;
    END LOOP;
    newest := judged;
END $$;

-- The row `stored`, judged from `previous`, the row before it in its series; the rows that it shows to be wrong are corrected.
-- Null where it stays as it is, because what it was counted from is no longer stored.
--   folded_at  times of folded rows that were corrected; never null
CREATE OR REPLACE FUNCTION linkbeat.judge_again(
    previous network_interface_metrics, stored network_interface_metrics,
    OUT judged network_interface_metrics, OUT folded_at timestamptz[]
) LANGUAGE plpgsql AS $$
DECLARE
    base   network_interface_metrics := CASE WHEN (previous.boot <> stored.boot) IS TRUE
                                             THEN linkbeat.row_before(stored, previous) ELSE previous END;
    corrected record;
    back   boolean[];
BEGIN
    folded_at := '{}';
    -- Retention dropped what it was counted from, its own machine's rows: as a first row it would lose what it counted.
    IF base.time IS NULL AND stored.delta_kind NOT IN ('', 'first')
       AND (previous.time IS NULL
            OR (SELECT b.first_seen FROM server_boots b WHERE b.server_id = stored.server_id AND b.boot = stored.boot)
               < (SELECT min(c.range_start) FROM timescaledb_information.chunks c
                  WHERE format('%I.%I', c.hypertable_schema, c.hypertable_name)::regclass = 'network_interface_metrics'::regclass)) THEN
        RETURN;
    END IF;
    back := linkbeat.are_back(base, stored, previous.time);
    IF back IS NOT NULL THEN
        corrected := linkbeat.correct_glitch(base, stored, back, previous.time);
        base := corrected.base;
        folded_at := corrected.folded_at;
    END IF;
    judged := linkbeat.judge(base, stored);
    IF (previous.boot <> stored.boot) IS TRUE AND NOT linkbeat.is_uuid_boot(stored.boot) THEN
        judged.levels := coalesce(judged.levels, '{}');  -- which row it is counted from, earlier ones decide
    END IF;
END $$;

-- How long after a row others may ask for it: of what has been in doubt for as long as that may be, rows ask what was usual
-- before it.
CREATE OR REPLACE FUNCTION linkbeat.asked_within(interval_ms integer) RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (greatest(900000, 5 * interval_ms::bigint) + greatest(900000, 10 * interval_ms::bigint)) * INTERVAL '1 millisecond';

-- The next row of a series, after m and up to `horizon`, that asked earlier rows than the one before it; null: none did.
CREATE OR REPLACE FUNCTION linkbeat.next_that_asked(m network_interface_metrics, horizon timestamptz) RETURNS timestamptz
LANGUAGE sql VOLATILE
RETURN (
    SELECT r.time FROM network_interface_metrics r
    WHERE r.server_id = m.server_id AND r.interface_name = m.interface_name AND r.time > m.time AND r.time <= horizon
      AND (r.levels IS NOT NULL OR r.old_levels IS NOT NULL)
    ORDER BY r.time LIMIT 1
);

-- The last row for which linkbeat.flickers counts the row of a moment, or one that this pushes out; null: its server's boot
-- ids are all UUIDs.
CREATE OR REPLACE FUNCTION linkbeat.last_that_counted(of_server text, of_interface text, moment timestamptz)
RETURNS timestamptz LANGUAGE sql STABLE
RETURN (
    SELECT max(time)
    FROM (SELECT time FROM network_interface_metrics
          WHERE server_id = of_server AND interface_name = of_interface AND time > moment
          ORDER BY time LIMIT 20) AS next
    WHERE EXISTS (SELECT FROM server_boots WHERE server_id = of_server AND NOT linkbeat.is_uuid_boot(boot))
);

-- The row that a row's deltas count from: the one before it, or where that is of another boot, its own boot's newest, if
-- boots overlap. No row at all where it has none and the row before is another machine's, which is no reboot.
--   previous  the row before
CREATE OR REPLACE FUNCTION linkbeat.row_before(m network_interface_metrics, previous network_interface_metrics)
RETURNS network_interface_metrics LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    own network_interface_metrics;
BEGIN
    IF (previous.boot <> m.boot) IS NOT TRUE THEN
        RETURN previous;
    END IF;
    SELECT * INTO own FROM network_interface_metrics
    WHERE server_id = m.server_id AND interface_name = m.interface_name AND time < m.time AND boot = m.boot
      AND time >= (SELECT first_seen FROM server_boots WHERE server_id = m.server_id AND boot = m.boot)
    ORDER BY time DESC LIMIT 1;
    IF own.time IS NOT NULL THEN
        own := linkbeat.with_counters(own);
        RETURN CASE WHEN linkbeat.flickers(m, previous, own) THEN previous ELSE own END;
    END IF;
    IF linkbeat.is_other_machine(m.server_id, m.boot, previous.boot) THEN
        RETURN NULL;
    END IF;
    RETURN previous;
END $$;

-- Whether two boot ids that are no UUIDs alternate while one machine counts on: from its own boot's newest row over the row
-- before to this one, or, as these rows have it, from one to the other its counters seldom fall.
CREATE OR REPLACE FUNCTION linkbeat.flickers(
    m network_interface_metrics, previous network_interface_metrics, own network_interface_metrics
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    switches integer;
    falls    integer;
BEGIN
    IF linkbeat.is_uuid_boot(m.boot) OR linkbeat.is_uuid_boot(previous.boot)
       OR (SELECT count(*) = 2 FROM server_boots WHERE server_id = m.server_id AND boot IN (m.boot, previous.boot) AND alternates) THEN
        RETURN false;
    ELSIF linkbeat.lies_between(own, previous, m) THEN
        RETURN true;
    END IF;
    SELECT count(*), count(*) FILTER (WHERE linkbeat.lies_apart(p.before, p.r)) INTO switches, falls
    FROM (
        SELECT r, lag(r) OVER (ORDER BY (r).time) AS before
        FROM (SELECT n AS r FROM network_interface_metrics n
              WHERE server_id = m.server_id AND interface_name = m.interface_name AND time <= previous.time
              ORDER BY time DESC LIMIT 20) AS t
    ) AS p
    WHERE (p.before).boot <> (p.r).boot AND (p.before).boot IN (m.boot, previous.boot) AND (p.r).boot IN (m.boot, previous.boot);
    -- Where it fell from both, its fall says nothing of them.
    RETURN 2 * (falls + (linkbeat.lies_apart(previous, m) AND NOT linkbeat.lies_apart(own, m))::integer) < switches;
END $$;

-- Whether octets and packets grow from one row over the second to the third, but for some that jumped in the second. Where
-- they have doubled, two machines may have passed each other.
CREATE OR REPLACE FUNCTION linkbeat.lies_between(
    first network_interface_metrics, second network_interface_metrics, third network_interface_metrics
) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT bool_or(f <= s AND s <= t) AND bool_and((f <= s AND s <= t OR f <= o AND o <= least(s, t)) AND (t < 2 * f OR t = f))
    FROM (SELECT linkbeat.unsigned(f) AS f, linkbeat.unsigned(s) AS s, linkbeat.unsigned(coalesce(o, s)) AS o, t
          FROM unnest((linkbeat.held(first))[1:4], (linkbeat.held(second))[1:4], second.old_levels[1:4], (linkbeat.readings(third))[1:4])
               AS r(f, s, o, t)) AS r
    WHERE num_nonnulls(f, s, t) = 3
$$;

-- Whether octets and packets fell below half from one row to another, two of them at least: one alone may have wrapped.
CREATE OR REPLACE FUNCTION linkbeat.lies_apart(earlier network_interface_metrics, later network_interface_metrics)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT count(*) FILTER (WHERE 2 * l < e) >= greatest(1, least(2, count(*)))
    FROM unnest((linkbeat.readings(earlier))[1:4], (linkbeat.readings(later))[1:4]) AS r(e, l) WHERE e > 0
$$;

-- The rows in doubt were wrong readings: what they gained of the counters that are `back` was no traffic, and growth is
-- counted from the old level. Returns `base`, the last of them, as it is then, and the times of folded rows that
-- changed; m is the reading that shows it, before_it the time of the row before that.
CREATE OR REPLACE FUNCTION linkbeat.correct_glitch(
    INOUT base network_interface_metrics, m network_interface_metrics, back boolean[], before_it timestamptz,
    OUT folded_at timestamptz[]
) LANGUAGE plpgsql AS $$
DECLARE
    old    CONSTANT bigint[] := base.old_levels;
    since  CONSTANT timestamptz[] := base.doubted_since;
    first  timestamptz;
    wrong  network_interface_metrics;
    deltas bigint[];
    is_one boolean;
BEGIN
    folded_at := '{}';
    FOR n IN 1 .. 8 LOOP
        IF back[n] THEN
            first := least(first, since[n]);
        END IF;
    END LOOP;
    FOREACH wrong IN ARRAY CASE WHEN first >= before_it THEN ARRAY[base] ELSE ARRAY(
        SELECT r FROM network_interface_metrics r
        WHERE server_id = m.server_id AND interface_name = m.interface_name AND time >= first AND time < m.time
          AND old_levels IS NOT NULL
        ORDER BY time) END
    LOOP
        wrong := linkbeat.with_counters(wrong);
        deltas := linkbeat.deltas(wrong);
        wrong.levels := coalesce(nullif(wrong.levels, '{}'), array_fill(NULL::bigint, '{8}'));
        is_one := false;
        FOR n IN 1 .. 8 LOOP
            -- Each row passes its doubts on, so those that have this one are what was counted since.
            CONTINUE WHEN NOT back[n] OR (wrong.doubted_since[n] = since[n]) IS NOT TRUE OR wrong.old_levels[n] IS NULL;
            is_one := true;
            deltas[n] := deltas[n] - deltas[n];
            wrong.levels[n] := old[n];
            wrong.old_levels[n] := NULL;
        END LOOP;
        CONTINUE WHEN NOT is_one;
        IF num_nonnulls(VARIADIC wrong.old_levels) = 0 THEN
            wrong.old_levels := NULL;
        END IF;
        wrong.rx_bytes_delta := deltas[1];
        wrong.tx_bytes_delta := deltas[2];
        wrong.rx_packets_delta := deltas[3];
        wrong.tx_packets_delta := deltas[4];
        wrong.rx_errors_delta := deltas[5];
        wrong.tx_errors_delta := deltas[6];
        wrong.rx_dropped_delta := deltas[7];
        wrong.tx_dropped_delta := deltas[8];
        wrong.delta_kind := 'glitch';
        PERFORM linkbeat.write_deltas(ARRAY[wrong]);
        IF wrong.is_folded THEN
            folded_at := array_append(folded_at, wrong.time);
        END IF;
        IF wrong.time = base.time THEN
            base := wrong;
        END IF;
    END LOOP;
END $$;
