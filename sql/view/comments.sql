-- Comments on network_traffic_*, server_metrics_* and filesystem_metrics_* and their columns.
-- Replaceable: reapplied on every upgrade.

DO $comments$
DECLARE
    aggregate record;
    word      record;
BEGIN
    FOR aggregate IN
        SELECT a.relation, a.family, w.width, f.words
        FROM linkbeat.aggregates a
        JOIN (VALUES ('1m', 'minute'), ('15m', 'quarter of an hour'), ('1h', 'hour'), ('1d', 'day, in UTC')) AS w(level, width)
             USING (level)
        JOIN (VALUES
            ('network_traffic', 'Traffic of each interface per %s: sums of the deltas of network_interface_metrics.'),
            ('server_metrics', 'Metrics of each machine per %s: minimum, maximum, sum and count; sum / count is the mean.'),
            ('filesystem_metrics', 'Usage of each filesystem per %s: minimum, maximum, sum and count; sum / count is the mean.'))
            AS f(family, words) USING (family)
    LOOP
        EXECUTE format('COMMENT ON VIEW %I IS %L', aggregate.relation, format(aggregate.words, aggregate.width));
        FOR word IN
            SELECT w.name, w.words FROM (VALUES
                ('bucket', 'Start of the bucket, which contains the samples from then up to the start of the next bucket.'),
                ('server_id', 'The name under which the machine reports.'),
                ('interface_name', 'Name of the interface, as reported by the operating system; for folded interfaces, their kind with /*.'),
                ('mount_point', 'The mount point.'),
                ('samples', 'Number of samples in the bucket, one per heartbeat. A bucket without samples has no row, which does not mean 0.'),
                ('rx_bytes', 'Octets received in the bucket.'),
                ('tx_bytes', 'Octets sent in the bucket.'),
                ('rx_packets', 'Packets received in the bucket.'),
                ('tx_packets', 'Packets sent in the bucket.'),
                ('rx_errors', 'Receive errors in the bucket; also 0 if not reported.'),
                ('tx_errors', 'Transmit errors in the bucket; also 0 if not reported.'),
                ('rx_dropped', 'Received packets dropped in the bucket; also 0 if not reported.'),
                ('tx_dropped', 'Outgoing packets dropped in the bucket; also 0 if not reported.'),
                ('up_samples', 'Number of samples in which the interface was up.'),
                ('up_ms', 'Milliseconds for which the interface is known to have been up: the time before each sample that was up, at most three intervals.'),
                ('resets', 'How often the counters restarted from 0, with or without a reboot.'),
                ('rejected', 'Number of samples with an implausible gain, which is in no sum.'),
                ('rx_bps_max', 'Highest receive rate between two consecutive samples, in bits per second; null: no two samples.'),
                ('tx_bps_max', 'Highest transmit rate between two consecutive samples, in bits per second; null: no two samples.'),
                ('interval_ms', 'The agent''s shortest interval between heartbeats, in milliseconds.'),
                ('is_lowest', 'Whether no other interface was below it in at least one sample. A server''s traffic is the sum over its lowest interfaces.'),
                ('expected_samples', 'Number of samples in a complete bucket: its width divided by interval_ms. Coverage is samples / expected_samples.')
                ) AS w(name, words)
            UNION ALL
            -- metric_suffix, such as cpu_percent_max.
            SELECT format('%s_%s', m.name, s.name), format(s.words, m.words)
            FROM (VALUES
                ('cpu_percent', 'processor time in use, in percent'),
                ('memory_percent', 'share of the memory in use, in percent'),
                ('memory_used_mb', 'memory in use, in megabytes in the agent''s units'),
                ('disk_percent', 'share of the root filesystem in use, in percent'),
                ('disk_used_gb', 'space in use on the root filesystem, in gigabytes in the agent''s units'),
                ('load_1m', 'load average over 1 minute'),
                ('temperature_celsius', 'temperature of the hottest sensor, in degrees Celsius'),
                ('total_bytes', 'size in bytes'),
                ('used_bytes', 'bytes in use'),
                ('available_bytes', 'bytes available to unprivileged users'),
                ('percent', 'used / (used + available), in percent')) AS m(name, words),
                (VALUES
                ('min', 'Minimum: %s; null: not reported.'),
                ('max', 'Maximum: %s; null: not reported.'),
                ('sum', 'Sum over the samples with a value: %s; null: not reported.'),
                ('count', 'Number of samples with a value: %s.')) AS s(name, words)
        LOOP
            IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = aggregate.relation::regclass AND attname = word.name) THEN
                EXECUTE format('COMMENT ON COLUMN %I.%I IS %L', aggregate.relation, word.name, word.words);
            END IF;
        END LOOP;
    END LOOP;
END $comments$;
