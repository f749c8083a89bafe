-- network_traffic_*, server_metrics_*, filesystem_metrics_*: what they mean to who reads them.
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
            ('server_metrics', 'What each machine reported of itself per %s: smallest, largest, and sum over count the mean.'),
            ('filesystem_metrics', 'How full each filesystem was per %s: smallest, largest, and sum over count the mean.'))
            AS f(family, words) USING (family)
    LOOP
        EXECUTE format('COMMENT ON VIEW %I IS %L', aggregate.relation, format(aggregate.words, aggregate.width));
        FOR word IN
            SELECT w.name, w.words FROM (VALUES
                ('bucket', 'Start of the bucket, which holds the samples from it up to the next one''s start.'),
                ('server_id', 'The name under which the machine reports.'),
                ('interface_name', 'As the system names it; of a folded kind, the kind with a *.'),
                ('mount_point', 'Where it is mounted.'),
                ('samples', 'Samples in the bucket, one per heartbeat. No row: no sample, which is not the same as 0.'),
                ('rx_bytes', 'Octets received in the bucket.'),
                ('tx_bytes', 'Octets sent in the bucket.'),
                ('rx_packets', 'Packets received in the bucket.'),
                ('tx_packets', 'Packets sent in the bucket.'),
                ('rx_errors', 'Receive errors in the bucket; 0 also where they are not reported.'),
                ('tx_errors', 'Transmit errors in the bucket; 0 also where they are not reported.'),
                ('rx_dropped', 'Received packets dropped in the bucket; 0 also where they are not reported.'),
                ('tx_dropped', 'Packets to send dropped in the bucket; 0 also where they are not reported.'),
                ('up_samples', 'Samples in which the interface was up.'),
                ('up_ms', 'Milliseconds, ending in samples that were up, of which it is known: not more than three intervals each.'),
                ('resets', 'How often its counters started from 0, by a reboot or without.'),
                ('rejected', 'Samples whose gain was not plausible: it is in no sum.'),
                ('rx_bps_max', 'Highest receive rate from one sample to the next, in bits per second; null: no two samples.'),
                ('tx_bps_max', 'Highest transmit rate from one sample to the next, in bits per second; null: no two samples.'),
                ('interval_ms', 'Shortest interval between heartbeats that the agent was set to, in milliseconds.'),
                ('is_lowest', 'No other interface of the heartbeat was below this one, in at least one sample: a server''s traffic is the sum over these.'),
                ('expected_samples', 'Samples that the whole bucket should hold: its width over interval_ms. Coverage is samples over this.')
                ) AS w(name, words)
            UNION ALL
            -- metric_suffix, such as cpu_percent_max.
            SELECT format('%s_%s', m.name, s.name), format(s.words, m.words)
            FROM (VALUES
                ('cpu_percent', 'share of the processors'' time in use, in percent'),
                ('memory_percent', 'share of the memory in use, in percent'),
                ('memory_used_mb', 'memory in use, in megabytes as the agent counts them'),
                ('disk_percent', 'share of the root filesystem in use, in percent'),
                ('disk_used_gb', 'used of the root filesystem, in gigabytes as the agent counts them'),
                ('load_1m', 'load average over 1 minute'),
                ('temperature_celsius', 'hottest sensor, in degrees Celsius'),
                ('total_bytes', 'size in bytes'),
                ('used_bytes', 'bytes in use'),
                ('available_bytes', 'bytes that an ordinary user could still write'),
                ('percent', 'used / (used + available), in percent')) AS m(name, words),
                (VALUES
                ('min', 'Smallest: %s. Null: not reported.'),
                ('max', 'Largest: %s. Null: not reported.'),
                ('sum', 'Sum over the samples that report it: %s. Null: not reported.'),
                ('count', 'Samples that report it: %s.')) AS s(name, words)
        LOOP
            IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = aggregate.relation::regclass AND attname = word.name) THEN
                EXECUTE format('COMMENT ON COLUMN %I.%I IS %L', aggregate.relation, word.name, word.words);
            END IF;
        END LOOP;
    END LOOP;
END $comments$;
