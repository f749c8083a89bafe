-- When a filesystem will be full, from slopes that a burst does not bend. Replaceable: reapplied on every upgrade.

-- The quarter of an hour up to which a trend is worked out that holds at `time`. Each server has its own minute for that, so
-- that one turn does not work out all of them.
CREATE OR REPLACE FUNCTION linkbeat.trend_moment(of_server text, "time" timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN public.time_bucket(INTERVAL '15 minutes', "time" - (abs(hashtext(of_server)::bigint) % 900) * INTERVAL '1 second');

-- Hours from `moment` until the filesystem is full, if what is available goes on falling; null: it does not fall, or not by
-- both slopes. They are Theil–Sen's: the median of the slopes of all pairs of minima, of the quarters of the last hour, and
-- of the hours of the last day. Log rotation and a large copy move a few of the pairs, and not the median.
CREATE OR REPLACE FUNCTION linkbeat.full_within(of_server text, of_mount text, moment timestamptz) RETURNS double precision
LANGUAGE plpgsql STABLE AS $$
DECLARE
    available double precision[];  -- minima of quarters, the newest first; null: no sample
    hourly    double precision[];
    of_hour   double precision;    -- bytes a quarter
    of_day    double precision;    -- bytes an hour
BEGIN
    SELECT array_agg(q.available ORDER BY place) INTO available
    FROM generate_series(1, 96) AS place
    LEFT JOIN (
        SELECT f.bucket, f.available_bytes_min::double precision AS available FROM public.filesystem_metrics_15m f
        WHERE f.server_id = of_server AND f.mount_point = of_mount
          AND f.bucket >= moment - INTERVAL '24 hours' AND f.bucket < moment
    ) q ON q.bucket = moment - place * INTERVAL '15 minutes';
    of_hour := linkbeat.median_slope(available[1:4]);
    IF of_hour IS NULL OR of_hour >= 0 THEN
        RETURN NULL;
    END IF;
    SELECT array_agg(h.available ORDER BY h.hour) INTO hourly
    FROM (SELECT (place - 1) / 4 AS hour, min(a) AS available FROM unnest(available) WITH ORDINALITY AS q(a, place) GROUP BY 1) h;
    of_day := linkbeat.median_slope(hourly);
    IF of_day IS NULL OR of_day >= 0 THEN
        RETURN NULL;
    END IF;
    RETURN greatest(hourly[1] / (-4 * of_hour), hourly[1] / -of_day);
END $$;

-- The median slope of all pairs, in units a step; values stand the newest first; null where fewer than two are known.
CREATE OR REPLACE FUNCTION linkbeat.median_slope(newest_first double precision[]) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY (a.value - b.value) / (b.place - a.place))
    FROM unnest(newest_first) WITH ORDINALITY AS a(value, place)
    JOIN unnest(newest_first) WITH ORDINALITY AS b(value, place) ON a.place < b.place
    WHERE a.value IS NOT NULL AND b.value IS NOT NULL
$$;
