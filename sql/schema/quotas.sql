-- quotas: what a server may move in a billing month. Written by linkbeat.set_quota alone.
-- Structure: run once, frozen on release.

CREATE TABLE linkbeat.quotas (
    server_id      text COLLATE "C" PRIMARY KEY REFERENCES servers ON DELETE CASCADE,
    bytes          bigint NOT NULL CHECK (bytes > 0),
    direction      text NOT NULL CHECK (direction IN ('in', 'out', 'sum', 'max')),
    billing_day    integer NOT NULL CHECK (billing_day BETWEEN 1 AND 31),
    time_zone      text NOT NULL,
    interface_name text COLLATE "C",
    near_percent   double precision NOT NULL CHECK (near_percent > 0 AND near_percent <= 100),
    changed_at     timestamptz NOT NULL DEFAULT statement_timestamp()
);

COMMENT ON TABLE linkbeat.quotas IS 'What each server may move in a billing month.';
