-- day_start, billing_period: for analysts, who are billed by months that begin on some day, somewhere.
-- Replaceable: reapplied on every upgrade.

-- Where the clock is set back over midnight (Havana, the Azores), it strikes twice, and PostgreSQL takes the second;
-- where it is set forward over it, PostgreSQL takes the moment of that.
CREATE OR REPLACE FUNCTION public.day_start(day date, time_zone text DEFAULT 'UTC') RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN (day::timestamp AT TIME ZONE time_zone AT TIME ZONE 'UTC' - INTERVAL '1 hour') AT TIME ZONE 'UTC' AT TIME ZONE time_zone = day::timestamp
    THEN (day::timestamp AT TIME ZONE time_zone AT TIME ZONE 'UTC' - INTERVAL '1 hour') AT TIME ZONE 'UTC'
    ELSE day::timestamp AT TIME ZONE time_zone
END;

COMMENT ON FUNCTION public.day_start IS 'The start of a calendar day in `time_zone`: its first midnight.';

CREATE OR REPLACE FUNCTION public.billing_period(
    at timestamptz DEFAULT now(), first_day integer DEFAULT 1, time_zone text DEFAULT 'UTC'
) RETURNS tstzrange
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (
    SELECT tstzrange(max(start) FILTER (WHERE start <= at), min(start) FILTER (WHERE start > at))
    FROM generate_series(-1, 1) AS distance
    CROSS JOIN LATERAL (SELECT date_trunc('month', at AT TIME ZONE time_zone) + distance * INTERVAL '1 month' AS month) m
    CROSS JOIN LATERAL (SELECT date_part('day', month + INTERVAL '1 month' - INTERVAL '1 day')::integer AS days) d
    CROSS JOIN LATERAL (
        SELECT day_start((month + (least(greatest(first_day, 1), days) - 1) * INTERVAL '1 day')::date, time_zone) AS start
    ) s
);

COMMENT ON FUNCTION public.billing_period IS
    'The billing month that contains `at`, up to the start of the next one. Months begin on `first_day`, or on their last day if they are shorter, at midnight in `time_zone`.';
