-- is_online: whether a server reports. The one place that says when it does not: views and the service call it.
-- Replaceable: reapplied on every upgrade.

-- Until three intervals pass without a heartbeat, by the database's clock; 30 seconds each where the agent does not say.
-- Not STRICT, so that the planner puts it into the query.
CREATE OR REPLACE FUNCTION linkbeat.is_online(received_at timestamptz, interval_seconds double precision) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN received_at > now() - 3 * coalesce(interval_seconds, 30) * INTERVAL '1 second';
