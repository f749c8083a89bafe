-- How network_interface_metrics goes into the columnstore: chunk by chunk, thinned before. A plain row's counters are the
-- row before's and its own deltas: stored beside them they would take as much again. TimescaleDB's own columnstore policy
-- cannot do that, so this job stands in its place (linkbeat.apply_configuration adds it).
-- Replaceable: reapplied on every upgrade.

-- Sets the counters of the plain rows from `since` up to `until` to null, but not of each series' first row there, which
-- the others count from. Plain: what linkbeat.judge would make of it again, from the row before alone: both of one boot
-- and below 2**63, so that bigint holds the difference. Rows of other kinds keep theirs, so that what is told of a reset
-- or a gap shows them. Of what is thin already nothing changes.
CREATE OR REPLACE PROCEDURE linkbeat.thin(chunk regclass, since timestamptz, until timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    -- A row that came between two others while they are looked at would have the later one count from it.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', chunk);
    UPDATE linkbeat.installation SET thinned_until = until WHERE thinned_until < until;
    EXECUTE format($sql$
        UPDATE %1$s AS m SET rx_bytes = NULL, tx_bytes = NULL, rx_packets = NULL, tx_packets = NULL
        FROM (
            SELECT ctid AS place, delta_kind = 'normal' AND boot IS NOT DISTINCT FROM lag(boot) OVER series
                   AND CASE WHEN rx_bytes >= 0 AND lag(rx_bytes) OVER series >= 0
                            THEN rx_bytes - lag(rx_bytes) OVER series = rx_bytes_delta END
                   AND CASE WHEN tx_bytes >= 0 AND lag(tx_bytes) OVER series >= 0
                            THEN tx_bytes - lag(tx_bytes) OVER series = tx_bytes_delta END
                   AND CASE WHEN rx_packets >= 0 AND lag(rx_packets) OVER series >= 0
                            THEN rx_packets - lag(rx_packets) OVER series = rx_packets_delta END
                   AND CASE WHEN tx_packets >= 0 AND lag(tx_packets) OVER series >= 0
                            THEN tx_packets - lag(tx_packets) OVER series = tx_packets_delta END AS is_plain
            FROM %1$s WHERE time >= $1 AND time < $2
            WINDOW series AS (PARTITION BY server_id, interface_name ORDER BY time)
        ) AS p
        WHERE m.ctid = p.place AND p.is_plain
        $sql$, chunk) USING since, until;
END $$;

-- Thins the chunks of rows up to `until` and puts them into the columnstore, those again that late rows came to since.
-- In transactions of an hour of rows, and of a chunk: writers and readers wait for no more, and what was interrupted goes
-- on where it was. Nothing is written twice to the aggregates, which are sums of deltas.
CREATE OR REPLACE PROCEDURE linkbeat.compress_samples(until timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    step    CONSTANT interval := linkbeat.thinning_step();
    waiting record;
    since   timestamptz;
    ranges  regclass;
BEGIN
    FOR waiting IN
        SELECT c.chunk, c.range_start, c.range_end, NOT c.is_compressed AS is_loose
        FROM (SELECT format('%I.%I', chunk_schema, chunk_name)::regclass AS chunk, range_start, range_end, is_compressed
              FROM timescaledb_information.chunks
              WHERE hypertable_schema = 'public' AND hypertable_name = 'network_interface_metrics') AS c
        -- 1: compressed, with nothing beside it.
        WHERE c.range_end <= until AND _timescaledb_functions.chunk_status(c.chunk) <> 1
        ORDER BY c.range_start
    LOOP
        -- Every hour would read again what the hours before it wrote, unless that is summarized at once.
        ranges := (SELECT i.indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
                   WHERE i.indrelid = waiting.chunk AND a.amname = 'brin');
        since := time_bucket(step, waiting.range_start);
        WHILE waiting.is_loose AND since < waiting.range_end LOOP
            CALL linkbeat.thin(waiting.chunk, since, since + step);
            COMMIT;
            PERFORM brin_summarize_new_values(ranges);
            COMMIT;
            since := since + step;
        END LOOP;
        PERFORM public.compress_chunk(waiting.chunk);
        COMMIT;
    END LOOP;
END $$;

CREATE OR REPLACE PROCEDURE linkbeat.columnstore_job(job_id integer, config jsonb) LANGUAGE plpgsql AS $$
BEGIN
    CALL linkbeat.compress_samples(now() - linkbeat.configured('compress_after_days'));
END $$;
