-- recount: judges a server's stored samples again by today's rules, with the aggregates that are made of them.
-- For rows that were stored by the rules of an earlier version: `python -m service recount`.
-- Replaceable: reapplied on every upgrade.
--
-- In transactions of a thousand rows of one interface at most, each holding the server's row as ingest does: its heartbeats wait
-- for no more than that, and what they store in between is judged by today's rules already.

-- One transaction's worth: the rows of a series from `since` on, a thousand, or fewer where many of them change.
--   carried  rows that the call before changed, where its transaction was rolled back: written before anything is judged
-- Returns next_since, null at the end of the series; the number of rows, and of those whose deltas or kind changed; octets
-- before and after; and what the next call has to carry.
CREATE OR REPLACE FUNCTION linkbeat.recount_piece(
    of_server text, of_interface text, since timestamptz, carried network_interface_metrics[],
    OUT next_since timestamptz, OUT samples bigint, OUT changed bigint, OUT rx_bytes_before numeric,
    OUT rx_bytes_after numeric, OUT tx_bytes_before numeric, OUT tx_bytes_after numeric,
    OUT to_carry network_interface_metrics[]
) LANGUAGE plpgsql AS $$
DECLARE
    was      network_interface_metrics[];
    one      network_interface_metrics;
    stored   network_interface_metrics;
    previous network_interface_metrics;
    judged   network_interface_metrics;
    look_back interval;
    last     timestamptz;
    again    record;
    folded_at timestamptz[] := '{}';  -- times of folded rows that changed
    work     integer := 0;  -- a row that changes may have its buckets computed again by a trigger: it counts for eleven
BEGIN
    samples := 0;
    PERFORM FROM servers WHERE server_id = of_server FOR UPDATE;
    FOREACH one IN ARRAY carried LOOP
        PERFORM linkbeat.write_deltas(ARRAY[one]);
        folded_at := CASE WHEN one.is_folded THEN array_append(folded_at, one.time) ELSE folded_at END;
    END LOOP;
    SELECT greatest(900000, 10 * interval_ms::bigint) * INTERVAL '1 millisecond' INTO look_back
    FROM network_interface_metrics WHERE server_id = of_server AND interface_name = of_interface AND time >= since
    ORDER BY time LIMIT 1;
    -- Rows of another boot than the last one's may be in doubt still.
    was := ARRAY(SELECT m FROM network_interface_metrics m
                 WHERE server_id = of_server AND interface_name = of_interface AND time < since AND time >= since - look_back);
    SELECT * INTO previous FROM network_interface_metrics
    WHERE server_id = of_server AND interface_name = of_interface AND time < since ORDER BY time DESC LIMIT 1;
    previous := linkbeat.with_counters(previous);

    FOR stored IN
        SELECT * FROM network_interface_metrics
        WHERE server_id = of_server AND interface_name = of_interface AND time >= since
        ORDER BY time
    LOOP
        -- Not while something is in doubt: readers would see the half of a correction.
        IF work >= 1000 AND (previous.old_levels IS NULL OR work >= 3000) THEN
            next_since := stored.time;
            EXIT;
        END IF;
        was := was || stored;
        samples := samples + 1;
        work := work + 1;
        last := stored.time;
        stored := linkbeat.with_counters(stored);
        CONTINUE WHEN stored.rx_bytes IS NULL;  -- deleted is what it counted from: its deltas are all that is known
        again := linkbeat.judge_again(previous, stored);
        judged := coalesce(again.judged, stored);
        folded_at := folded_at || again.folded_at;
        IF judged IS DISTINCT FROM stored THEN
            PERFORM linkbeat.write_deltas(ARRAY[judged]);
            folded_at := CASE WHEN judged.is_folded THEN array_append(folded_at, judged.time) ELSE folded_at END;
            work := work + 10;
        END IF;
        previous := judged;
    END LOOP;
    IF folded_at <> '{}' THEN
        PERFORM linkbeat.sum_folded(array_agg(of_server), array_agg(m)) FROM (SELECT DISTINCT unnest(folded_at)) AS d(m);
    END IF;
    IF next_since IS NULL AND previous.time = last THEN
        PERFORM linkbeat.remember_interfaces(of_server, ARRAY[previous]);
    END IF;

    SELECT count(*) FILTER (WHERE is_changed), coalesce(sum(w.rx_bytes_delta) FILTER (WHERE w.time >= since), 0),
           coalesce(sum(w.rx_bytes_delta) FILTER (WHERE w.time >= since) + sum(m.rx_bytes_delta - w.rx_bytes_delta), 0),
           coalesce(sum(w.tx_bytes_delta) FILTER (WHERE w.time >= since), 0),
           coalesce(sum(w.tx_bytes_delta) FILTER (WHERE w.time >= since) + sum(m.tx_bytes_delta - w.tx_bytes_delta), 0),
           coalesce(array_agg(m) FILTER (WHERE m IS DISTINCT FROM w AND w.time >= last - look_back), '{}')
    INTO changed, rx_bytes_before, rx_bytes_after, tx_bytes_before, tx_bytes_after, to_carry
    FROM unnest(was) AS w
    JOIN network_interface_metrics m ON m.server_id = of_server AND m.interface_name = of_interface AND m.time = w.time,
         LATERAL (SELECT linkbeat.deltas(m) IS DISTINCT FROM linkbeat.deltas(w) OR m.delta_kind <> w.delta_kind AS is_changed) AS c
    WHERE m.server_id = of_server AND m.interface_name = of_interface AND m.time >= since - look_back AND m.time <= last;
END $$;

-- The first row of a series, at or after `since`, that can be judged again: the oldest, if nothing came before it. Where
-- retention has dropped what did, the oldest rows stay as they are for as long as judging them would ask for that.
CREATE OR REPLACE FUNCTION linkbeat.recount_since(oldest network_interface_metrics, since timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE
RETURN (
    SELECT min(time) FROM network_interface_metrics
    WHERE server_id = oldest.server_id AND interface_name = oldest.interface_name AND time >= since
      AND (oldest.delta_kind = 'first'
           OR time > oldest.time + greatest(900000, 10 * oldest.interval_ms::bigint) * INTERVAL '1 millisecond')
);

-- Judges the samples of a server from `since` on again. `counted`: for each interface its name, samples, changed, and rx_bytes and tx_bytes before and after.
--   is_dry  says what would change, and changes nothing
-- Raises no_data_found where the server is not known. What was interrupted is done by another call.
CREATE OR REPLACE PROCEDURE linkbeat.recount_samples(
    of_server text, since timestamptz DEFAULT '-infinity', is_dry boolean DEFAULT false, INOUT counted jsonb DEFAULT NULL
) LANGUAGE plpgsql AS $$
DECLARE
    series  text;
    oldest  network_interface_metrics;
    start   timestamptz;
    piece   record;
    total   record;
    carried network_interface_metrics[];
    names   text[] := ARRAY(SELECT DISTINCT interface_name FROM public.network_interface_metrics
                            WHERE server_id = of_server AND time >= since AND delta_kind <> 'folded' ORDER BY 1);
BEGIN
    IF NOT EXISTS (SELECT FROM public.servers WHERE server_id = of_server) THEN
        RAISE EXCEPTION 'server % is not known', of_server USING ERRCODE = 'no_data_found';
    END IF;
    counted := '[]';
    FOREACH series IN ARRAY names LOOP
        SELECT * INTO oldest FROM public.network_interface_metrics
        WHERE server_id = of_server AND interface_name = series ORDER BY time LIMIT 1;
        start := linkbeat.recount_since(oldest, since);
        SELECT 0::bigint AS samples, 0::bigint AS changed, 0::numeric AS rx_before, 0::numeric AS rx_after, 0::numeric AS tx_before,
               0::numeric AS tx_after INTO total;
        carried := '{}';
        WHILE start IS NOT NULL LOOP
            SELECT * INTO piece FROM linkbeat.recount_piece(of_server, series, start, carried);
            IF is_dry THEN
                ROLLBACK;
                carried := piece.to_carry;
            ELSE
                COMMIT;
            END IF;
            total.samples := total.samples + piece.samples;
            total.changed := total.changed + piece.changed;
            total.rx_before := total.rx_before + piece.rx_bytes_before;
            total.rx_after := total.rx_after + piece.rx_bytes_after;
            total.tx_before := total.tx_before + piece.tx_bytes_before;
            total.tx_after := total.tx_after + piece.tx_bytes_after;
            start := piece.next_since;
        END LOOP;
        counted := counted || jsonb_build_object(
            'interface_name', series, 'samples', total.samples, 'changed', total.changed,
            'rx_bytes_before', total.rx_before, 'rx_bytes_after', total.rx_after,
            'tx_bytes_before', total.tx_before, 'tx_bytes_after', total.tx_after);
    END LOOP;
END $$;

-- Refreshes the continuous aggregates' buckets below their watermarks in which rows changed, from that of the server's first
-- sample at or after `since` on. Their policies reach back as far as heartbeats may come; beyond that nothing else refreshes
-- a bucket. TimescaleDB leaves alone what has not changed, so it costs nothing to begin there; and what an interrupted call
-- had changed is among it. On the Apache edition there are none, and triggers have done it.
-- Raises lock_not_available where a refresh by somebody else is at work on the same buckets: then it is to be called again.
CREATE OR REPLACE PROCEDURE linkbeat.refresh_changed(of_server text, since timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    aggregate record;
    until     timestamptz;
    first     timestamptz := (SELECT min(time) FROM public.network_interface_metrics WHERE server_id = of_server AND time >= since);
BEGIN
    FOR aggregate IN
        SELECT a.relation, a.width, format('%I.%I', c.view_schema, c.view_name)::regclass AS name
        FROM linkbeat.aggregates a JOIN linkbeat.kept k USING (relation)
        JOIN timescaledb_information.continuous_aggregates c
             ON format('%I.%I', c.materialization_hypertable_schema, c.materialization_hypertable_name)::regclass = k.kept
        WHERE a.source = 'network_interface_metrics'
        ORDER BY a.width, k.part
    LOOP
        -- A bucket in the columnstore is written by taking its batch out of it, of every series in it.
        PERFORM set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', false);
        EXECUTE format('SELECT linkbeat.watermark_%s()', aggregate.relation) INTO until;
        CONTINUE WHEN (until > first) IS NOT TRUE;
        CALL public.refresh_continuous_aggregate(aggregate.name, public.time_bucket(aggregate.width, first), until,
                                                 options => '{"refresh_newest_first": false, "buckets_per_batch": 60}');
    END LOOP;
END $$;

-- Both, for psql. Where the second is refused, another call does it.
CREATE OR REPLACE PROCEDURE linkbeat.recount(
    of_server text, since timestamptz DEFAULT '-infinity', INOUT counted jsonb DEFAULT NULL
) LANGUAGE plpgsql AS $$
BEGIN
    CALL linkbeat.recount_samples(of_server => of_server, since => since, is_dry => false, counted => counted);
    CALL linkbeat.refresh_changed(of_server => of_server, since => since);
END $$;
