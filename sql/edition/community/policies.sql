-- What TimescaleDB does in the background on its Community edition: refresh, columnstore, retention.
-- Structure: run once, frozen on release.

-- Makes the policies what linkbeat.configuration says. Called by linkbeat.configure.
--
-- A refresh reaches back beyond the oldest heartbeat that the service takes, because below the watermark a row counts
-- only once its bucket was refreshed; by a day, for which the jobs may fail. A day's bucket begins up to a day before
-- the row, so its level reaches a day further. Nothing within reach is compressed or dropped: a refresh of dropped
-- rows would empty their buckets.
CREATE FUNCTION linkbeat.apply_configuration() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    reach    CONSTANT interval := linkbeat.configured('oldest_heartbeat_days') + INTERVAL '1 day';
    compress CONSTANT interval := linkbeat.configured('compress_after_days');
    source   text;
    policy   record;
BEGIN
    FOR source IN SELECT f.source FROM linkbeat.families f LOOP
        IF source <> 'network_interface_metrics' THEN  -- which has columnstore_job
            CALL public.remove_columnstore_policy(source, if_exists => true);
            CALL public.add_columnstore_policy(source, after => compress);
        END IF;
        PERFORM public.remove_retention_policy(source, if_exists => true);
        PERFORM public.add_retention_policy(source, drop_after => linkbeat.configured('retain_raw_days'));
    END LOOP;

    FOR policy IN
        SELECT a.relation, a.width, t.*, linkbeat.configured(format('retain_%s_days', a.level)) AS retain
        FROM linkbeat.aggregates a JOIN (VALUES
            -- Not later than needed: until its bucket is taken in, a read works with the finer ones.
            ('1m',  INTERVAL '2 minutes',  INTERVAL '1 minute',   INTERVAL '0'),
            ('15m', INTERVAL '3 minutes',  INTERVAL '5 minutes',  INTERVAL '0'),
            ('1h',  INTERVAL '4 minutes',  INTERVAL '10 minutes', INTERVAL '0'),
            ('1d',  INTERVAL '10 minutes', INTERVAL '1 hour',     INTERVAL '1 day')) AS t(level, lag, every, further)
            USING (level)
    LOOP
        PERFORM public.remove_continuous_aggregate_policy(policy.relation, if_exists => true);
        CALL public.remove_columnstore_policy(policy.relation, if_exists => true);
        PERFORM public.remove_retention_policy(policy.relation, if_exists => true);
        -- Oldest first, for the reason given in refresh_aggregates.
        PERFORM public.add_continuous_aggregate_policy(policy.relation, start_offset => reach + policy.further,
            end_offset => policy.lag, schedule_interval => policy.every,
            buckets_per_batch => 60, refresh_newest_first => false);
        CALL public.add_columnstore_policy(policy.relation, after => compress + policy.further);
        PERFORM public.add_retention_policy(policy.relation, drop_after => policy.retain);
    END LOOP;
END $$;
