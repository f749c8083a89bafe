-- quotas, quota_usage: what servers may move in a billing month, and how much of it they have.
-- Replaceable: reapplied on every upgrade.

CREATE OR REPLACE VIEW public.quotas AS
SELECT q.server_id, q.bytes, q.direction, q.billing_day, q.time_zone, q.interface_name, q.near_percent, q.changed_at
FROM linkbeat.quotas q;

COMMENT ON VIEW public.quotas IS 'What servers may move in a billing month; quota_usage() says how much of it is used.';
COMMENT ON COLUMN public.quotas.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN public.quotas.bytes IS 'Octets in a billing month.';
COMMENT ON COLUMN public.quotas.direction IS 'What counts: in, out, their sum, or the greater of the two (max).';
COMMENT ON COLUMN public.quotas.billing_day IS 'Day of the month on which it starts again; in shorter months, their last.';
COMMENT ON COLUMN public.quotas.time_zone IS 'IANA name of the zone whose midnight it is.';
COMMENT ON COLUMN public.quotas.interface_name IS 'The interface that counts; null: the server, each byte once.';
COMMENT ON COLUMN public.quotas.near_percent IS 'From this share on its state is near, in percent.';
COMMENT ON COLUMN public.quotas.changed_at IS 'When it was set.';

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
    'Every quota, with what is used of it in the billing month that `at` is in, and its state: ok, near (from near_percent on) or over (more than all of it). `expected_bytes`: at the month''s end, if it goes on like this; null while less than a day is known.';
