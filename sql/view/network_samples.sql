-- network_samples: every row of network_interface_metrics, for analysts.
-- network_events: the samples of every kind but normal and folded.
-- Replaceable: reapplied on every upgrade.
--
-- In every relation for analysts, rx_bytes is the traffic in the row's time; the kernel's counter is rx_bytes_counter,
-- for thinned rows only available by network_counters(), which reads one series in order. The key columns are not part
-- of expressions, so that predicates on them can use the index and exclude chunks.

CREATE OR REPLACE VIEW public.network_samples AS
SELECT m.time,
       m.server_id,
       m.interface_name,
       m.is_up,
       m.rx_bytes_delta AS rx_bytes,
       m.tx_bytes_delta AS tx_bytes,
       m.rx_packets_delta AS rx_packets,
       m.tx_packets_delta AS tx_packets,
       m.rx_errors_delta AS rx_errors,
       m.tx_errors_delta AS tx_errors,
       m.rx_dropped_delta AS rx_dropped,
       m.tx_dropped_delta AS tx_dropped,
       linkbeat.bps(m.rx_bytes_delta, m.elapsed_ms, m.delta_kind) AS rx_bps,
       linkbeat.bps(m.tx_bytes_delta, m.elapsed_ms, m.delta_kind) AS tx_bps,
       -- 10,000: Mbit/s to bit/s, and to percent.
       linkbeat.bps(m.rx_bytes_delta, m.elapsed_ms, m.delta_kind) / (nullif(m.speed_mbps, 0) * 10000.0::double precision) AS rx_utilisation_percent,
       linkbeat.bps(m.tx_bytes_delta, m.elapsed_ms, m.delta_kind) / (nullif(m.speed_mbps, 0) * 10000.0::double precision) AS tx_utilisation_percent,
       m.speed_mbps,
       m.delta_kind,
       CASE WHEN m.elapsed_ms > 0 THEN m.elapsed_ms / 1000::double precision END AS elapsed_seconds,
       CASE WHEN linkbeat.is_gap(m.elapsed_ms, m.interval_ms) THEN m.elapsed_ms / 1000::double precision END AS gap_seconds,
       m.interval_ms / 1000::double precision AS interval_seconds,
       m.is_lowest,
       m.is_folded,
       m.boot,
       CASE WHEN m.delta_kind <> 'folded' THEN linkbeat.unsigned(m.rx_bytes) END AS rx_bytes_counter,
       CASE WHEN m.delta_kind <> 'folded' THEN linkbeat.unsigned(m.tx_bytes) END AS tx_bytes_counter,
       CASE WHEN m.delta_kind <> 'folded' THEN linkbeat.unsigned(m.rx_packets) END AS rx_packets_counter,
       CASE WHEN m.delta_kind <> 'folded' THEN linkbeat.unsigned(m.tx_packets) END AS tx_packets_counter,
       linkbeat.unsigned(m.rx_errors) AS rx_errors_counter,
       linkbeat.unsigned(m.tx_errors) AS tx_errors_counter,
       linkbeat.unsigned(m.rx_dropped) AS rx_dropped_counter,
       linkbeat.unsigned(m.tx_dropped) AS tx_dropped_counter
FROM public.network_interface_metrics m;

CREATE OR REPLACE VIEW public.network_events AS
SELECT time,
       server_id,
       interface_name,
       delta_kind,
       elapsed_seconds,
       gap_seconds,
       rx_bytes,
       tx_bytes,
       rx_bytes_counter,
       tx_bytes_counter,
       is_up,
       is_folded,
       boot
FROM public.network_samples
WHERE delta_kind IN ('first', 'gap', 'reboot', 'reset', 'wrap', 'dip', 'glitch', 'rejected');

COMMENT ON VIEW public.network_samples IS
    'Every sample of every interface, with the traffic since the previous sample, the rates, and the kind of the delta. For the traffic of a server, sum over is_lowest; for a sum over all interfaces, sum over NOT is_folded.';
COMMENT ON COLUMN public.network_samples.time IS 'When the agent read the counters, by its clock.';
COMMENT ON COLUMN public.network_samples.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.network_samples.interface_name IS 'Name of the interface, as reported by the operating system; for the sum over short-lived interfaces, their kind with /*, such as veth/*.';
COMMENT ON COLUMN public.network_samples.is_up IS 'Whether it was operationally up (RFC 2863) at that time.';
COMMENT ON COLUMN public.network_samples.rx_bytes IS 'Octets received since the previous sample; 0 in the first.';
COMMENT ON COLUMN public.network_samples.tx_bytes IS 'Octets sent since the previous sample; 0 in the first.';
COMMENT ON COLUMN public.network_samples.rx_packets IS 'Packets received since the previous sample; 0 in the first.';
COMMENT ON COLUMN public.network_samples.tx_packets IS 'Packets sent since the previous sample; 0 in the first.';
COMMENT ON COLUMN public.network_samples.rx_errors IS 'Receive errors since the previous sample; null: not reported.';
COMMENT ON COLUMN public.network_samples.tx_errors IS 'Transmit errors since the previous sample; null: not reported.';
COMMENT ON COLUMN public.network_samples.rx_dropped IS 'Received packets dropped since the previous sample; null: not reported.';
COMMENT ON COLUMN public.network_samples.tx_dropped IS 'Outgoing packets dropped since the previous sample; null: not reported.';
COMMENT ON COLUMN public.network_samples.rx_bps IS 'Receive rate since the previous sample, in bits per second; null: unknown (first, rejected, glitch, or at least 24 days apart).';
COMMENT ON COLUMN public.network_samples.tx_bps IS 'Transmit rate since the previous sample, in bits per second; null: unknown.';
COMMENT ON COLUMN public.network_samples.rx_utilisation_percent IS 'rx_bps as a share of the line rate, in percent; null: rate or line rate unknown.';
COMMENT ON COLUMN public.network_samples.tx_utilisation_percent IS 'tx_bps as a share of the line rate, in percent; null: rate or line rate unknown.';
COMMENT ON COLUMN public.network_samples.speed_mbps IS 'Line rate in Mbit/s; null: unknown.';
COMMENT ON COLUMN public.network_samples.delta_kind IS
    'How the deltas were derived: first (first sample), normal (counters grew), gap (counters grew over more than three intervals), reboot, reset (without a reboot), wrap (at 2**32), dip (a counter fell temporarily; 0 until it exceeds its previous level), glitch (a later sample shows that the reading was wrong; counted as 0), rejected (implausible; counted as 0), folded (sum over short-lived interfaces).';
COMMENT ON COLUMN public.network_samples.elapsed_seconds IS 'Seconds since the previous sample; null: none. 2147483.647 means at least that.';
COMMENT ON COLUMN public.network_samples.gap_seconds IS 'elapsed_seconds, if it exceeds three intervals, so that samples are missing; null: no gap.';
COMMENT ON COLUMN public.network_samples.interval_seconds IS 'The agent''s interval between heartbeats, in seconds; 30 if it does not report one.';
COMMENT ON COLUMN public.network_samples.is_lowest IS 'Whether no other interface of the server is below it. A server''s traffic is the sum over its lowest interfaces.';
COMMENT ON COLUMN public.network_samples.is_folded IS 'Whether it is counted in the row of its kind, such as veth/*, and not itself in the aggregates, because it is short-lived or above the server''s limit of series.';
COMMENT ON COLUMN public.network_samples.boot IS 'Number of the boot; changes with every reboot; null: not reported.';
COMMENT ON COLUMN public.network_samples.rx_bytes_counter IS 'Octets received since boot, as counted by the kernel: 0 to 2**64-1; null: a sum over several interfaces, or an old sample of kind normal (use network_counters()).';
COMMENT ON COLUMN public.network_samples.tx_bytes_counter IS 'Octets sent since boot, as counted by the kernel; null: a sum over several interfaces, or an old sample of kind normal (use network_counters()).';
COMMENT ON COLUMN public.network_samples.rx_packets_counter IS 'Packets received since boot, as counted by the kernel; null: a sum over several interfaces, or an old sample of kind normal (use network_counters()).';
COMMENT ON COLUMN public.network_samples.tx_packets_counter IS 'Packets sent since boot, as counted by the kernel; null: a sum over several interfaces, or an old sample of kind normal (use network_counters()).';
COMMENT ON COLUMN public.network_samples.rx_errors_counter IS 'Receive errors since boot; null: not reported.';
COMMENT ON COLUMN public.network_samples.tx_errors_counter IS 'Transmit errors since boot; null: not reported.';
COMMENT ON COLUMN public.network_samples.rx_dropped_counter IS 'Received packets dropped since boot; null: not reported.';
COMMENT ON COLUMN public.network_samples.tx_dropped_counter IS 'Outgoing packets dropped since boot; null: not reported.';

COMMENT ON VIEW public.network_events IS
    'Samples of every kind but normal and folded: first samples, gaps, reboots, resets, wraps, dips, glitches and rejected samples. The traffic of a gap is counted in the sample after it.';
COMMENT ON COLUMN public.network_events.time IS 'Time of the sample, by the agent''s clock.';
COMMENT ON COLUMN public.network_events.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.network_events.interface_name IS 'Name of the interface, as reported by the operating system.';
COMMENT ON COLUMN public.network_events.delta_kind IS 'first, gap, reboot, reset, wrap, dip, glitch or rejected: see network_samples.delta_kind.';
COMMENT ON COLUMN public.network_events.elapsed_seconds IS 'Seconds since the previous sample; null: none.';
COMMENT ON COLUMN public.network_events.gap_seconds IS 'elapsed_seconds, if samples are missing before this one, whatever its kind; null: none missing.';
COMMENT ON COLUMN public.network_events.rx_bytes IS 'Octets received, as counted in this sample.';
COMMENT ON COLUMN public.network_events.tx_bytes IS 'Octets sent, as counted in this sample.';
COMMENT ON COLUMN public.network_events.rx_bytes_counter IS 'Octets received since boot, as counted by the kernel.';
COMMENT ON COLUMN public.network_events.tx_bytes_counter IS 'Octets sent since boot, as counted by the kernel.';
COMMENT ON COLUMN public.network_events.is_up IS 'Whether it was operationally up (RFC 2863) at that time.';
COMMENT ON COLUMN public.network_events.is_folded IS 'Whether it is short-lived or above the server''s limit of series.';
COMMENT ON COLUMN public.network_events.boot IS 'Number of the boot; changes with every reboot; null: not reported.';

-- The kernel's counters of one series, including thinned rows: one pass from the start of the hour of `since`, because
-- the first row of each hour has them.
CREATE OR REPLACE FUNCTION public.network_counters(
    server_id text, interface_name text, since timestamptz, until timestamptz DEFAULT 'infinity'
) RETURNS TABLE (
    "time" timestamptz, rx_bytes_counter numeric, tx_bytes_counter numeric, rx_packets_counter numeric,
    tx_packets_counter numeric
) LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT c."time", c.rx_bytes, c.tx_bytes, c.rx_packets, c.tx_packets
    FROM (
        -- From each row that has its counters on: those, and what the rows after it gained.
        SELECT s."time",
               first_value(s.rx_bytes_counter) OVER run + sum(CASE WHEN s.is_thinned THEN s.rx_bytes ELSE 0 END) OVER run AS rx_bytes,
               first_value(s.tx_bytes_counter) OVER run + sum(CASE WHEN s.is_thinned THEN s.tx_bytes ELSE 0 END) OVER run AS tx_bytes,
               first_value(s.rx_packets_counter) OVER run + sum(CASE WHEN s.is_thinned THEN s.rx_packets ELSE 0 END) OVER run AS rx_packets,
               first_value(s.tx_packets_counter) OVER run + sum(CASE WHEN s.is_thinned THEN s.tx_packets ELSE 0 END) OVER run AS tx_packets
        FROM (
            SELECT m.*, m.rx_bytes_counter IS NULL AS is_thinned, count(m.rx_bytes_counter) OVER (ORDER BY m."time") AS run
            FROM public.network_samples m
            WHERE m.server_id = network_counters.server_id AND m.interface_name = network_counters.interface_name
              AND m."time" >= CASE WHEN isfinite(network_counters.since)
                                   THEN public.time_bucket(linkbeat.thinning_step(), network_counters.since)
                                   ELSE network_counters.since END
              AND m."time" < network_counters.until AND m.delta_kind <> 'folded'
        ) AS s
        WINDOW run AS (PARTITION BY s.run ORDER BY s."time")
    ) AS c
    WHERE c."time" >= network_counters.since
    ORDER BY c."time";
END;

COMMENT ON FUNCTION public.network_counters IS
    'The kernel''s counters of one interface from `since` up to `until`: octets and packets since boot, 0 to 2**64-1. Also exact for old samples whose counters are null in network_samples.';
