-- server_metrics, filesystem_metrics: the machine as a whole and each mounted filesystem, one row per heartbeat.
-- Written by ingest_heartbeats alone. Structure: run once, frozen on release.

CREATE TABLE server_metrics (
    time            timestamptz NOT NULL,
    server_id       text COLLATE "C" NOT NULL,
    cpu_percent     double precision,
    memory_percent  double precision,
    memory_total_mb double precision,
    memory_used_mb  double precision,
    disk_percent    double precision,
    disk_total_gb   double precision,
    disk_used_gb    double precision,
    load_1m         double precision,
    load_5m         double precision,
    load_15m        double precision,
    uptime_seconds  double precision,
    PRIMARY KEY (server_id, time)
);
SELECT create_hypertable('server_metrics', by_range('time', INTERVAL '1 day'), create_default_indexes => false);
CREATE INDEX server_metrics_time ON server_metrics USING brin (time) WITH (pages_per_range = 32, autosummarize = on);

COMMENT ON TABLE server_metrics IS 'What each machine reported of itself as a whole, one row per heartbeat.';
COMMENT ON COLUMN server_metrics.time IS 'When the agent read the values, by its clock.';
COMMENT ON COLUMN server_metrics.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN server_metrics.cpu_percent IS 'Share of the processors'' time in use since the heartbeat before, in percent.';
COMMENT ON COLUMN server_metrics.memory_percent IS 'Share of the memory in use, in percent.';
COMMENT ON COLUMN server_metrics.memory_total_mb IS 'Memory, in megabytes as the agent counts them.';
COMMENT ON COLUMN server_metrics.memory_used_mb IS 'Memory in use, in megabytes as the agent counts them.';
COMMENT ON COLUMN server_metrics.disk_percent IS 'Share of the root filesystem in use, in percent.';
COMMENT ON COLUMN server_metrics.disk_total_gb IS 'Size of the root filesystem, in gigabytes as the agent counts them.';
COMMENT ON COLUMN server_metrics.disk_used_gb IS 'Used of the root filesystem, in gigabytes as the agent counts them.';
COMMENT ON COLUMN server_metrics.load_1m IS 'Load average over 1 minute.';
COMMENT ON COLUMN server_metrics.load_5m IS 'Load average over 5 minutes.';
COMMENT ON COLUMN server_metrics.load_15m IS 'Load average over 15 minutes.';
COMMENT ON COLUMN server_metrics.uptime_seconds IS 'Seconds since the machine booted.';

CREATE TABLE filesystem_metrics (
    time            timestamptz NOT NULL,
    total_bytes     bigint NOT NULL,
    used_bytes      bigint NOT NULL,
    available_bytes bigint,
    percent         double precision,
    server_id       text COLLATE "C" NOT NULL,
    mount_point     text COLLATE "C" NOT NULL,
    device          text COLLATE "C" NOT NULL,
    fs_type         text COLLATE "C" NOT NULL,
    state           text COLLATE "C",
    PRIMARY KEY (server_id, mount_point, time)
);
SELECT create_hypertable('filesystem_metrics', by_range('time', INTERVAL '1 day'), create_default_indexes => false);
CREATE INDEX filesystem_metrics_time ON filesystem_metrics USING brin (time) WITH (pages_per_range = 32, autosummarize = on);

COMMENT ON TABLE filesystem_metrics IS 'Every mounted filesystem of every machine, one row per heartbeat.';
COMMENT ON COLUMN filesystem_metrics.time IS 'When the agent read the values, by its clock.';
COMMENT ON COLUMN filesystem_metrics.total_bytes IS 'Size; linkbeat.unsigned() reads values from 2**63.';
COMMENT ON COLUMN filesystem_metrics.used_bytes IS 'Bytes in use; linkbeat.unsigned() reads values from 2**63.';
COMMENT ON COLUMN filesystem_metrics.available_bytes IS 'Bytes that an ordinary user can still write; null: not known.';
COMMENT ON COLUMN filesystem_metrics.percent IS 'As df counts it: used / (used + available), in percent.';
COMMENT ON COLUMN filesystem_metrics.server_id IS 'The name under which the machine reports.';
COMMENT ON COLUMN filesystem_metrics.mount_point IS 'Where it is mounted.';
COMMENT ON COLUMN filesystem_metrics.device IS 'What is mounted there.';
COMMENT ON COLUMN filesystem_metrics.fs_type IS 'The filesystem''s type, such as ext4.';
COMMENT ON COLUMN filesystem_metrics.state IS 'Such as unreachable; null: it answers.';
