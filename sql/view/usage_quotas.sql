-- quotas, quota_usage: the traffic quotas of servers for a billing month, and their use.
-- Replaceable: reapplied on every upgrade.

CREATE OR REPLACE VIEW public.quotas AS
SELECT q.server_id, q.bytes, q.direction, q.billing_day, q.time_zone, q.interface_name, q.near_percent, q.changed_at
FROM linkbeat.quotas q;

COMMENT ON VIEW public.quotas IS 'Traffic quotas of servers for a billing month; quota_usage() has their use.';
COMMENT ON COLUMN public.quotas.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.quotas.bytes IS 'Quota in octets for a billing month.';
COMMENT ON COLUMN public.quotas.direction IS 'Direction that counts: in, out, their sum, or the greater of the two (max).';
COMMENT ON COLUMN public.quotas.billing_day IS 'Day on which the billing month begins; in shorter months, the last day.';
COMMENT ON COLUMN public.quotas.time_zone IS 'IANA name of the time zone whose midnight begins the billing month.';
COMMENT ON COLUMN public.quotas.interface_name IS 'The interface that counts; null: the whole server, each byte once.';
COMMENT ON COLUMN public.quotas.near_percent IS 'Share of the quota, in percent, from which on its state is near.';
COMMENT ON COLUMN public.quotas.changed_at IS 'When the quota was last set.';

CREATE OR REPLACE FUNCTION public.quota_usage(at timestamptz DEFAULT now()) RETURNS TABLE (
    server_id text, bytes bigint, direction text, billing_day integer, time_zone text, interface_name text,
    near_percent double precision, since timestamptz, until timestamptz, used_bytes numeric, used_percent double precision,
    expected_bytes numeric, state text
)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT q.server_id, q.bytes, q.direction, q.billing_day, q.time_zone, q.interface_name, q.near_percent,
           m.since, m.until, u.used, round(100 * u.used / q.bytes, 3)::double precision, u.expected,
           CASE WHEN u.used > q.bytes THEN 'over' WHEN u.used * 100 >= q.near_percent::numeric * q.bytes THEN 'near' ELSE 'ok' END
    FROM public.quotas q
    CROSS JOIN LATERAL network_month(q.server_id, quota_usage.at, q.billing_day, q.time_zone, q.interface_name, quota_usage.at) m
    CROSS JOIN LATERAL (
        SELECT CASE q.direction WHEN 'in' THEN m.rx_bytes WHEN 'out' THEN m.tx_bytes WHEN 'max' THEN greatest(m.rx_bytes, m.tx_bytes)
                                ELSE m.rx_bytes + m.tx_bytes END AS used,
               CASE q.direction WHEN 'in' THEN m.expected_rx_bytes WHEN 'out' THEN m.expected_tx_bytes
                                WHEN 'max' THEN greatest(m.expected_rx_bytes, m.expected_tx_bytes)
                                ELSE m.expected_rx_bytes + m.expected_tx_bytes END AS expected
    ) u;
END;

COMMENT ON FUNCTION public.quota_usage IS
    'Every quota, with its use in the billing month that contains `at`, and its state: ok, near (from near_percent on) or over (above the quota). `expected_bytes`: forecast for the end of the month at the average rate so far; null while there is less than one day of data.';
