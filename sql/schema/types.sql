-- Types that tables and functions share. Structure: run once, frozen on release.

-- The newest sample of one interface, as servers.interfaces keeps it: what the next sample is counted from, and what
-- is shown as current. Columns mean what they mean in network_interface_metrics; more than there:
--   first_seen   time of the interface's first sample that is remembered
--   kind         physical, bridge, bond, vlan, tunnel, veth or other; null: not reported
--   stacked_on   names of the interfaces below it, with / between them (which no name holds); null: none
--   operstate    RFC 2863 state in the kernel's word; null: not reported
CREATE TYPE linkbeat.interface_state AS (
    -- Those that are never null stand first: a field behind a null one is sought from the start of the row.
    time timestamptz, rx_bytes bigint, tx_bytes bigint, rx_packets bigint, tx_packets bigint,
    rx_bytes_delta bigint, tx_bytes_delta bigint, elapsed_ms integer,
    is_up boolean, counts_64bit boolean, is_lowest boolean, is_folded boolean, interface_name text, delta_kind text,
    boot bigint, first_seen timestamptz, rx_errors bigint, tx_errors bigint, rx_dropped bigint, tx_dropped bigint,
    speed_mbps integer, kind text, stacked_on text, operstate text
);

-- The machine as a whole, in one heartbeat; fields as in server_metrics. The octets of the reported interfaces together
-- are counters like theirs: linkbeat.unsigned() reads them.
CREATE TYPE linkbeat.host_metrics AS (
    cpu_percent double precision, memory_percent double precision, memory_total_mb double precision,
    memory_used_mb double precision, disk_percent double precision, disk_total_gb double precision,
    disk_used_gb double precision, network_rx_bytes bigint, network_tx_bytes bigint, load_1m double precision,
    load_5m double precision, load_15m double precision, uptime_seconds double precision
);

-- What one counter gained between two readings, and how that is known (network_interface_metrics.delta_kind).
CREATE TYPE linkbeat.delta AS (amount bigint, kind text);
