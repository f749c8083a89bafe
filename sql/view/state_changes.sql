-- interface_last_change: since when a link has been up or down.
-- Replaceable: reapplied on every upgrade.

-- The newest hour that holds a sample of the other state, by the aggregate; then, among the rows themselves, the sample
-- that ended that state. A month without a change costs a row an hour, not one a heartbeat.
CREATE OR REPLACE FUNCTION public.interface_last_change(server_id text, interface_name text, is_up boolean)
RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (
    WITH hour AS (
        SELECT max(t.bucket) AS start FROM public.network_traffic_1h t
        WHERE t.server_id = interface_last_change.server_id AND t.interface_name = interface_last_change.interface_name
          AND t.up_samples <> CASE WHEN interface_last_change.is_up THEN t.samples ELSE 0 END
    ), other AS (
        SELECT max(s.time) AS time FROM public.network_samples s, hour
        WHERE s.server_id = interface_last_change.server_id AND s.interface_name = interface_last_change.interface_name
          AND s.time >= hour.start AND s.time < hour.start + INTERVAL '1 hour'
          AND s.is_up <> interface_last_change.is_up
    )
    SELECT coalesce(
        (SELECT min(s.time) FROM public.network_samples s, other
         WHERE s.server_id = interface_last_change.server_id AND s.interface_name = interface_last_change.interface_name
           AND s.time > other.time),
        -- The rows are gone: by the end of that hour it had changed.
        (SELECT hour.start + INTERVAL '1 hour' FROM hour))
);

COMMENT ON FUNCTION public.interface_last_change IS
    'When an interface entered its current state (`is_up` of interface_overview): the time of the first sample with that state, or the end of its hour if the samples are no longer retained; null: it never had the other state.';
