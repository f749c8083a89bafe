-- What TimescaleDB does in the background on its Community edition: refresh, columnstore, retention.
-- Replaceable: reapplied on every upgrade.

-- Makes the policies of one part of an aggregate what linkbeat.configuration says.
--
-- A refresh reaches back beyond the oldest heartbeat that the service takes, because below the watermark a row counts
-- only once its bucket was refreshed; by a day, for which the jobs may fail. A day's bucket begins up to a day before
-- the row, so its level reaches a day further. Nothing within reach is compressed or dropped: a refresh of dropped
-- rows would empty their buckets.
CREATE OR REPLACE FUNCTION linkbeat.set_policies(of_relation text, of_part integer, of_level text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    part   CONSTANT regclass := linkbeat.part_name(of_relation, of_part);
    policy record;
BEGIN
    SELECT * INTO STRICT policy FROM (VALUES
        -- Not later than needed: until its bucket is taken in, a read works with the finer ones.
        ('1m',  INTERVAL '2 minutes',  INTERVAL '1 minute',   INTERVAL '0'),
        ('15m', INTERVAL '3 minutes',  INTERVAL '5 minutes',  INTERVAL '0'),
        ('1h',  INTERVAL '4 minutes',  INTERVAL '10 minutes', INTERVAL '0'),
        ('1d',  INTERVAL '10 minutes', INTERVAL '1 hour',     INTERVAL '1 day')) AS t(level, lag, every, further)
    WHERE t.level = of_level;
    PERFORM public.remove_continuous_aggregate_policy(part, if_exists => true);
    CALL public.remove_columnstore_policy(part, if_exists => true);
    PERFORM public.remove_retention_policy(part, if_exists => true);
    -- Oldest first, for the reason given in refresh_aggregates.
    PERFORM public.add_continuous_aggregate_policy(
        part, start_offset => linkbeat.configured('oldest_heartbeat_days') + INTERVAL '1 day' + policy.further,
        end_offset => policy.lag, schedule_interval => policy.every,
        buckets_per_batch => 60, refresh_newest_first => false);
    CALL public.add_columnstore_policy(part, after => linkbeat.configured('compress_after_days') + policy.further);
    PERFORM public.add_retention_policy(part, drop_after => linkbeat.configured(format('retain_%s_days', of_level)));
END $$;

-- Makes all policies what linkbeat.configuration says. Called by linkbeat.configure.
CREATE OR REPLACE FUNCTION linkbeat.apply_configuration() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    source text;
BEGIN
    -- As often as TimescaleDB's policy for chunks of a day. What the job is called in linkbeat.jobs follows from
    -- `hypertable`.
    IF NOT EXISTS (SELECT FROM timescaledb_information.jobs WHERE proc_schema = 'linkbeat' AND proc_name = 'columnstore_job') THEN
        PERFORM public.add_job('linkbeat.columnstore_job', INTERVAL '12 hours',
                               config => '{"hypertable": "network_interface_metrics"}');
    END IF;
    FOR source IN SELECT f.source FROM linkbeat.families f LOOP
        IF source <> 'network_interface_metrics' THEN  -- which has columnstore_job
            CALL public.remove_columnstore_policy(source, if_exists => true);
            CALL public.add_columnstore_policy(source, after => linkbeat.configured('compress_after_days'));
        END IF;
        PERFORM public.remove_retention_policy(source, if_exists => true);
        PERFORM public.add_retention_policy(source, drop_after => linkbeat.configured('retain_raw_days'));
    END LOOP;
    PERFORM linkbeat.set_policies(k.relation, k.part, a.level) FROM linkbeat.kept k JOIN linkbeat.aggregates a USING (relation);
END $$;
