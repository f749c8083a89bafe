-- Types that tables and functions share. Structure: run once, frozen on release.

-- One reading of an interface's counters, as stored.
CREATE TYPE linkbeat.reading AS (
    time timestamptz, boot bigint, counts_64bit boolean,
    rx_bytes bigint, tx_bytes bigint, rx_packets bigint, tx_packets bigint,
    rx_errors bigint, tx_errors bigint, rx_dropped bigint, tx_dropped bigint, is_up boolean
);

-- What one counter gained between two readings, and how that is known (network_interface_metrics.delta_kind).
CREATE TYPE linkbeat.delta AS (amount bigint, kind text);
