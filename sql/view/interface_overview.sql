-- interface_overview: the newest state of every interface of every server.
-- Replaceable: reapplied on every upgrade.

CREATE OR REPLACE VIEW public.interface_overview AS
SELECT s.server_id,
       i.interface_name,
       i.time,
       i.first_seen,
       i.time = s.last_seen AS is_current,
       i.is_up,
       i.operstate,
       i.kind,
       linkbeat.names_below(i.stacked_on) AS stacked_on,
       i.is_lowest,
       i.is_folded,
       i.interface_name = s.primary_interface AS is_primary,
       i.speed_mbps,
       CASE WHEN i.time = s.last_seen THEN linkbeat.bps(i.rx_bytes_delta, i.elapsed_ms, i.delta_kind) END AS rx_bps,
       CASE WHEN i.time = s.last_seen THEN linkbeat.bps(i.tx_bytes_delta, i.elapsed_ms, i.delta_kind) END AS tx_bps,
       i.delta_kind,
       CASE WHEN i.elapsed_ms > 0 THEN i.elapsed_ms / 1000::double precision END AS elapsed_seconds,
       i.rx_bytes_delta AS rx_bytes,
       i.tx_bytes_delta AS tx_bytes,
       linkbeat.unsigned(i.rx_bytes) AS rx_bytes_counter,
       linkbeat.unsigned(i.tx_bytes) AS tx_bytes_counter,
       linkbeat.unsigned(i.rx_packets) AS rx_packets_counter,
       linkbeat.unsigned(i.tx_packets) AS tx_packets_counter,
       linkbeat.unsigned(i.rx_errors) AS rx_errors_counter,
       linkbeat.unsigned(i.tx_errors) AS tx_errors_counter,
       linkbeat.unsigned(i.rx_dropped) AS rx_dropped_counter,
       linkbeat.unsigned(i.tx_dropped) AS tx_dropped_counter,
       CASE WHEN i.is_folded THEN coalesce(linkbeat.fold_series(i.interface_name), 'other/*') END AS folded_into,
       coalesce(i.os_name, i.interface_name) AS os_name,
       i.carrier_changes,
       l.display_name
FROM public.servers s
CROSS JOIN LATERAL unnest(s.interfaces) i
LEFT JOIN linkbeat.interface_labels l ON l.server_id = s.server_id AND l.series = i.interface_name;

COMMENT ON VIEW public.interface_overview IS
    'One row for each interface of which the server''s row holds the newest state: properties, rates and counters.';
COMMENT ON COLUMN public.interface_overview.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.interface_overview.interface_name IS 'Name of its series: the first name under which the device was seen (docs/names.md).';
COMMENT ON COLUMN public.interface_overview.time IS 'Time of the newest sample, by the agent''s clock.';
COMMENT ON COLUMN public.interface_overview.first_seen IS 'Time of the first sample since the interface has been remembered.';
COMMENT ON COLUMN public.interface_overview.is_current IS 'Whether the newest heartbeat of the server contains it; false: it has disappeared.';
COMMENT ON COLUMN public.interface_overview.is_up IS 'Whether it was operationally up (RFC 2863) at that time.';
COMMENT ON COLUMN public.interface_overview.operstate IS 'Operational state (RFC 2863), as reported by the kernel; null: not reported.';
COMMENT ON COLUMN public.interface_overview.kind IS 'physical, bridge, bond, vlan, tunnel, veth or other; null: not reported.';
COMMENT ON COLUMN public.interface_overview.stacked_on IS 'Names of the interfaces below it, which carry its traffic; null: none.';
COMMENT ON COLUMN public.interface_overview.is_lowest IS 'Whether no other interface of the server is below it. A server''s traffic is the sum over its lowest interfaces.';
COMMENT ON COLUMN public.interface_overview.is_folded IS 'Whether it is counted in the series of its kind, such as veth/*, because it is short-lived or above the server''s limit of series.';
COMMENT ON COLUMN public.interface_overview.is_primary IS 'Whether it is the machine''s main interface, as chosen by the agent; null: the agent chose none.';
COMMENT ON COLUMN public.interface_overview.speed_mbps IS 'Line rate in Mbit/s; null: unknown.';
COMMENT ON COLUMN public.interface_overview.rx_bps IS 'Receive rate between the last two samples, in bits per second; null: the interface has disappeared, or the rate is unknown.';
COMMENT ON COLUMN public.interface_overview.tx_bps IS 'Transmit rate between the last two samples, in bits per second; null: the interface has disappeared, or the rate is unknown.';
COMMENT ON COLUMN public.interface_overview.delta_kind IS 'How rx_bytes and tx_bytes were derived: see network_samples.delta_kind.';
COMMENT ON COLUMN public.interface_overview.elapsed_seconds IS 'Seconds between the last two samples; null: there is only one.';
COMMENT ON COLUMN public.interface_overview.rx_bytes IS 'Octets received between the last two samples.';
COMMENT ON COLUMN public.interface_overview.tx_bytes IS 'Octets sent between the last two samples.';
COMMENT ON COLUMN public.interface_overview.rx_bytes_counter IS 'Octets received since boot, as counted by the kernel: 0 to 2**64-1.';
COMMENT ON COLUMN public.interface_overview.tx_bytes_counter IS 'Octets sent since boot, as counted by the kernel.';
COMMENT ON COLUMN public.interface_overview.rx_packets_counter IS 'Packets received since boot, as counted by the kernel.';
COMMENT ON COLUMN public.interface_overview.tx_packets_counter IS 'Packets sent since boot, as counted by the kernel.';
COMMENT ON COLUMN public.interface_overview.rx_errors_counter IS 'Receive errors since boot; null: not reported.';
COMMENT ON COLUMN public.interface_overview.tx_errors_counter IS 'Transmit errors since boot; null: not reported.';
COMMENT ON COLUMN public.interface_overview.rx_dropped_counter IS 'Received packets dropped since boot; null: not reported.';
COMMENT ON COLUMN public.interface_overview.tx_dropped_counter IS 'Outgoing packets dropped since boot; null: not reported.';
COMMENT ON COLUMN public.interface_overview.folded_into IS 'The series in which it is counted while is_folded, such as veth/*; null: it has its own series.';
COMMENT ON COLUMN public.interface_overview.os_name IS 'What the operating system called it in the newest heartbeat that contains it.';
COMMENT ON COLUMN public.interface_overview.carrier_changes IS 'How often its link came or went since the device appeared; null: not reported.';
COMMENT ON COLUMN public.interface_overview.display_name IS 'The name that an administrator gave it; null: none.';
