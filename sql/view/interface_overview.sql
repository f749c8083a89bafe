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
       string_to_array(i.stacked_on, '/') AS stacked_on,
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
       CASE WHEN i.is_folded THEN coalesce(linkbeat.fold_series(i.interface_name), 'other/*') END AS folded_into
FROM public.servers s
CROSS JOIN LATERAL unnest(s.interfaces) i;

COMMENT ON VIEW public.interface_overview IS
    'The newest state of every interface that is remembered, one row each: what it is, its rates, and its counters.';
COMMENT ON COLUMN public.interface_overview.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.interface_overview.interface_name IS 'As the system names it.';
COMMENT ON COLUMN public.interface_overview.time IS 'Time of its newest sample, by the agent''s clock.';
COMMENT ON COLUMN public.interface_overview.first_seen IS 'Time of its first sample that is remembered.';
COMMENT ON COLUMN public.interface_overview.is_current IS 'It is in the server''s newest heartbeat; false: it has gone.';
COMMENT ON COLUMN public.interface_overview.is_up IS 'Operationally up (RFC 2863) at that time.';
COMMENT ON COLUMN public.interface_overview.operstate IS 'RFC 2863 state in the kernel''s word; null: not reported.';
COMMENT ON COLUMN public.interface_overview.kind IS 'physical, bridge, bond, vlan, tunnel, veth or other; null: not reported.';
COMMENT ON COLUMN public.interface_overview.stacked_on IS 'The interfaces below it; null: none.';
COMMENT ON COLUMN public.interface_overview.is_lowest IS 'No other interface of the server is below it: a server''s traffic is the sum over these.';
COMMENT ON COLUMN public.interface_overview.is_folded IS 'A short-lived interface, or one beyond the server''s budget: its history is counted in that of its kind, such as veth/*.';
COMMENT ON COLUMN public.interface_overview.is_primary IS 'The machine''s main interface, in the agent''s judgement; null: it names none.';
COMMENT ON COLUMN public.interface_overview.speed_mbps IS 'Line rate in Mbit/s; null: not known.';
COMMENT ON COLUMN public.interface_overview.rx_bps IS 'Receive rate between its last two samples, in bits per second; null: it has gone, or the rate is not known.';
COMMENT ON COLUMN public.interface_overview.tx_bps IS 'Transmit rate between its last two samples, in bits per second; null: it has gone, or the rate is not known.';
COMMENT ON COLUMN public.interface_overview.delta_kind IS 'How rx_bytes and tx_bytes came about: see network_samples.delta_kind.';
COMMENT ON COLUMN public.interface_overview.elapsed_seconds IS 'Seconds between its last two samples; null: there is one only.';
COMMENT ON COLUMN public.interface_overview.rx_bytes IS 'Octets received between its last two samples.';
COMMENT ON COLUMN public.interface_overview.tx_bytes IS 'Octets sent between its last two samples.';
COMMENT ON COLUMN public.interface_overview.rx_bytes_counter IS 'Octets received since boot, as the kernel counts: 0 to 2**64-1.';
COMMENT ON COLUMN public.interface_overview.tx_bytes_counter IS 'Octets sent since boot, as the kernel counts.';
COMMENT ON COLUMN public.interface_overview.rx_packets_counter IS 'Packets received since boot, as the kernel counts.';
COMMENT ON COLUMN public.interface_overview.tx_packets_counter IS 'Packets sent since boot, as the kernel counts.';
COMMENT ON COLUMN public.interface_overview.rx_errors_counter IS 'Receive errors since boot; null: not reported.';
COMMENT ON COLUMN public.interface_overview.tx_errors_counter IS 'Transmit errors since boot; null: not reported.';
COMMENT ON COLUMN public.interface_overview.rx_dropped_counter IS 'Received packets dropped since boot; null: not reported.';
COMMENT ON COLUMN public.interface_overview.tx_dropped_counter IS 'Packets to send dropped since boot; null: not reported.';
COMMENT ON COLUMN public.interface_overview.folded_into IS 'The series that its history is counted in while is_folded, such as veth/*; null: it has a series of its own.';
