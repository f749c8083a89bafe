-- network_traffic_1m, _15m, _1h, _1d: what they mean to who reads them, the same on both editions.
-- Replaceable: reapplied on every upgrade.

DO $comments$
DECLARE
    level record;
    word  record;
BEGIN
    FOR level IN
        SELECT * FROM (VALUES ('1m', 'minute'), ('15m', 'quarter of an hour'), ('1h', 'hour'), ('1d', 'day, in UTC'))
            AS l(name, width)
    LOOP
        EXECUTE format('COMMENT ON VIEW network_traffic_%s IS %L', level.name,
            'Traffic of each interface per ' || level.width || ': sums of the deltas of network_interface_metrics.');
        FOR word IN
            SELECT * FROM (VALUES
                ('bucket', 'Start of the bucket, which holds the samples from it up to the next one''s start.'),
                ('rx_bytes', 'Octets received in the bucket.'),
                ('tx_bytes', 'Octets sent in the bucket.'),
                ('rx_packets', 'Packets received in the bucket.'),
                ('tx_packets', 'Packets sent in the bucket.'),
                ('rx_errors', 'Receive errors in the bucket; 0 also where they are not reported.'),
                ('tx_errors', 'Transmit errors in the bucket; 0 also where they are not reported.'),
                ('rx_dropped', 'Received packets dropped in the bucket; 0 also where they are not reported.'),
                ('tx_dropped', 'Packets to send dropped in the bucket; 0 also where they are not reported.'),
                ('rx_bps_max', 'Highest receive rate from one sample to the next, in bits per second; null: no two samples.'),
                ('tx_bps_max', 'Highest transmit rate from one sample to the next, in bits per second; null: no two samples.'),
                ('up_samples', 'Samples in which the interface was up.'),
                ('samples', 'Samples in the bucket, one per heartbeat. No row: no sample, which is not the same as no traffic.'))
                AS w(name, words)
        LOOP
            EXECUTE format('COMMENT ON COLUMN network_traffic_%s.%I IS %L', level.name, word.name, word.words);
        END LOOP;
    END LOOP;
END $comments$;
