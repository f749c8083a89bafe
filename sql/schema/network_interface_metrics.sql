-- network_interface_metrics: one row per server, interface and heartbeat. Written by ingest_heartbeats alone.
-- Structure: run once, frozen on release.
--
-- Counters keep all 64 bits: a bigint holds the two's complement, so 2**63 .. 2**64-1 stand as negatives;
-- linkbeat.unsigned() reads them. Deltas are below 2**63 always (see linkbeat.judge).
-- Of a folded row nothing enters the aggregates: its deltas are part of its server's row of that time whose
-- delta_kind is folded (linkbeat.fold_interfaces).
-- Where a row is plain and old, its four counters of bytes and packets may be null: the row before it has them, or again
-- the row before that, and its deltas say the rest (linkbeat.with_counters, sql/function/community/columnstore.sql).
-- No foreign key to servers: it deadlocks with concurrent writers when a chunk is made (timescaledb #7429).

CREATE TABLE network_interface_metrics (
    time             timestamptz NOT NULL,
    boot             bigint,
    rx_bytes         bigint,
    tx_bytes         bigint,
    rx_packets       bigint,
    tx_packets       bigint,
    rx_bytes_delta   bigint NOT NULL,
    tx_bytes_delta   bigint NOT NULL,
    rx_packets_delta bigint NOT NULL,
    tx_packets_delta bigint NOT NULL,
    elapsed_ms       integer NOT NULL,
    interval_ms      integer NOT NULL DEFAULT 30000,
    is_up            boolean NOT NULL,
    is_lowest        boolean NOT NULL DEFAULT true,
    is_folded        boolean NOT NULL DEFAULT false,
    counts_64bit     boolean NOT NULL,
    server_id        text COLLATE "C" NOT NULL,
    interface_name   text COLLATE "C" NOT NULL,
    delta_kind       text COLLATE "C" NOT NULL,
    speed_mbps       integer,
    rx_errors        bigint,
    tx_errors        bigint,
    rx_dropped       bigint,
    tx_dropped       bigint,
    rx_errors_delta  bigint,
    tx_errors_delta  bigint,
    rx_dropped_delta bigint,
    tx_dropped_delta bigint,
    PRIMARY KEY (server_id, interface_name, time)
);

SELECT create_hypertable('network_interface_metrics', by_range('time', INTERVAL '1 day'), create_default_indexes => false);

-- Rows arrive in the order of time: a few pages of block ranges find the newest minutes of all series, where a
-- B-tree on time would cost every insert.
CREATE INDEX network_interface_metrics_time ON network_interface_metrics
    USING brin (time) WITH (pages_per_range = 32, autosummarize = on);

-- A heartbeat's folded interfaces and their sums, without a search through all that its server ever sent.
CREATE INDEX network_interface_metrics_folded ON network_interface_metrics (server_id, time) WHERE is_folded;

COMMENT ON TABLE network_interface_metrics IS
    'What every interface reported in every heartbeat, and what it transferred since the heartbeat before.';
COMMENT ON COLUMN network_interface_metrics.time IS 'When the agent read the counters, by its clock.';
COMMENT ON COLUMN network_interface_metrics.boot IS 'Fingerprint of the boot_id: differs from the row before after a reboot; null: not reported.';
COMMENT ON COLUMN network_interface_metrics.rx_bytes IS 'Octets received since boot as the kernel counts; linkbeat.unsigned() reads values from 2**63; null: as the row before and the delta say.';
COMMENT ON COLUMN network_interface_metrics.tx_bytes IS 'Octets sent since boot as the kernel counts; linkbeat.unsigned() reads values from 2**63; null: as the row before and the delta say.';
COMMENT ON COLUMN network_interface_metrics.rx_packets IS 'Packets received since boot as the kernel counts; linkbeat.unsigned() reads values from 2**63; null: as the row before and the delta say.';
COMMENT ON COLUMN network_interface_metrics.tx_packets IS 'Packets sent since boot as the kernel counts; linkbeat.unsigned() reads values from 2**63; null: as the row before and the delta say.';
COMMENT ON COLUMN network_interface_metrics.rx_errors IS 'Receive errors since boot, read like rx_bytes; null: not reported.';
COMMENT ON COLUMN network_interface_metrics.tx_errors IS 'Transmit errors since boot, read like rx_bytes; null: not reported.';
COMMENT ON COLUMN network_interface_metrics.rx_dropped IS 'Received packets dropped since boot, read like rx_bytes; null: not reported.';
COMMENT ON COLUMN network_interface_metrics.tx_dropped IS 'Packets to send dropped since boot, read like rx_bytes; null: not reported.';
COMMENT ON COLUMN network_interface_metrics.rx_bytes_delta IS 'Octets received since the row before; 0 in the first row.';
COMMENT ON COLUMN network_interface_metrics.tx_bytes_delta IS 'Octets sent since the row before; 0 in the first row.';
COMMENT ON COLUMN network_interface_metrics.rx_packets_delta IS 'Packets received since the row before; 0 in the first row.';
COMMENT ON COLUMN network_interface_metrics.tx_packets_delta IS 'Packets sent since the row before; 0 in the first row.';
COMMENT ON COLUMN network_interface_metrics.rx_errors_delta IS 'Receive errors since the row before; 0 in the first row; null: not reported.';
COMMENT ON COLUMN network_interface_metrics.tx_errors_delta IS 'Transmit errors since the row before; 0 in the first row; null: not reported.';
COMMENT ON COLUMN network_interface_metrics.rx_dropped_delta IS 'Received packets dropped since the row before; 0 in the first row; null: not reported.';
COMMENT ON COLUMN network_interface_metrics.tx_dropped_delta IS 'Packets to send dropped since the row before; 0 in the first row; null: not reported.';
COMMENT ON COLUMN network_interface_metrics.elapsed_ms IS 'Milliseconds since the row before, 0 in the first row; 2**31-1 stands for 24 days and more.';
COMMENT ON COLUMN network_interface_metrics.interval_ms IS 'Milliseconds from one heartbeat to the next, as the agent is set; 30000 where it does not say.';
COMMENT ON COLUMN network_interface_metrics.is_lowest IS 'No other interface of the heartbeat is below this one: a server''s traffic is the sum over these.';
COMMENT ON COLUMN network_interface_metrics.is_folded IS 'A short-lived interface, or one beyond the server''s budget: counted in the row of its kind, such as veth/*.';
COMMENT ON COLUMN network_interface_metrics.speed_mbps IS 'Line rate of a physical interface in Mbit/s, which bounds its deltas; null: not known.';
COMMENT ON COLUMN network_interface_metrics.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN network_interface_metrics.interface_name IS 'As the system names it; of a folded kind, the kind with /*.';
COMMENT ON COLUMN network_interface_metrics.is_up IS 'Operationally up (RFC 2863) when the counters were read.';
COMMENT ON COLUMN network_interface_metrics.counts_64bit IS 'A counter of this interface passed 2**32 in this boot: its counters cannot wrap at 2**32.';
COMMENT ON COLUMN network_interface_metrics.delta_kind IS
    'How the deltas came about: first (sample), normal (counters grew), gap (they grew, over more than three intervals), reboot, reset (without reboot), wrap (at 2**32), rejected (impossible; delta 0), folded (sum over short-lived interfaces).';
