-- What TimescaleDB's Apache edition has no continuous aggregates and no policies for: watermarks of the tables that hold
-- finished buckets (sql/function/apache/), and work for the service. Structure: run once, frozen on release.

-- From `watermark` to `taking` a refresh is at work; otherwise they are equal. `floor` is what retention has dropped
-- the buckets below of, in the level or rows that it is made of: they cannot be recomputed.
CREATE TABLE linkbeat.watermarks (
    relation  text PRIMARY KEY,
    watermark timestamptz NOT NULL,
    taking    timestamptz NOT NULL CHECK (taking >= watermark),
    floor     timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);  -- updated every half minute and read by every query: kept to its one page

-- Two minutes behind the clock, so that heartbeats on their way still find the watermark below them.
INSERT INTO linkbeat.maintenance (job, statement, every) VALUES
    ('refresh', 'CALL linkbeat.refresh_aggregates(now() - INTERVAL ''2 minutes'')', '30 seconds'),
    ('retention', 'CALL linkbeat.drop_expired()', '1 hour');
