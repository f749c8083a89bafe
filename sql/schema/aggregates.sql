-- What the aggregates hold: the one definition of their levels, families and columns, for both editions.
-- linkbeat.create_family makes what keeps the finished buckets of each; sql/view/aggregates.sql the relations that are read.
-- Structure: run once, frozen on release.

-- A level is made of the one below it, the lowest of the rows themselves. `tail` names the levels that a read asks
-- for what its own has not taken in yet, coarsest first; a level left out costs a read more rows, one more costs it
-- more planning.
CREATE TABLE linkbeat.levels (
    level text PRIMARY KEY,
    width interval NOT NULL,
    below text REFERENCES linkbeat.levels,
    tail  text[] NOT NULL,
    chunk interval NOT NULL
);
INSERT INTO linkbeat.levels (level, width, below, tail, chunk) VALUES
    ('1m',  '1 minute',   NULL,  '{}',      '1 day'),
    ('15m', '15 minutes', '1m',  '{1m}',    '7 days'),
    ('1h',  '1 hour',     '15m', '{1m}',    '28 days'),
    ('1d',  '1 day',      '1h',  '{1h,1m}', '365 days');

-- A family is what is aggregated: the rows of `source` that meet `condition`, one series for each value of `series`.
CREATE TABLE linkbeat.families (
    family    text PRIMARY KEY,
    source    text NOT NULL,
    series    text[] NOT NULL,
    condition text NOT NULL
);
INSERT INTO linkbeat.families (family, source, series, condition) VALUES
    ('network_traffic',    'network_interface_metrics', '{server_id,interface_name}', 'NOT is_folded'),
    ('server_metrics',     'server_metrics',            '{server_id}',                'true'),
    ('filesystem_metrics', 'filesystem_metrics',        '{server_id,mount_point}',    'true');

-- A column holds `of_row` of one row, and of many rows or buckets what `combine` makes of it: any split into buckets
-- comes to the same. So sums of double precision are numeric, which neither rounds nor overflows.
CREATE TABLE linkbeat.family_columns (
    family  text NOT NULL REFERENCES linkbeat.families,
    ordinal integer GENERATED ALWAYS AS IDENTITY,
    name    text NOT NULL,
    type    text NOT NULL,
    combine text NOT NULL CHECK (combine IN ('sum', 'min', 'max', 'bool_or')),
    of_row  text NOT NULL,
    PRIMARY KEY (family, name)
);
INSERT INTO linkbeat.family_columns (family, name, type, combine, of_row)
SELECT 'network_traffic', c.* FROM (VALUES
    ('rx_bytes',    'bigint',  'sum',     'rx_bytes_delta'),
    ('tx_bytes',    'bigint',  'sum',     'tx_bytes_delta'),
    ('rx_packets',  'bigint',  'sum',     'rx_packets_delta'),
    ('tx_packets',  'bigint',  'sum',     'tx_packets_delta'),
    ('rx_errors',   'bigint',  'sum',     'coalesce(rx_errors_delta, 0)'),
    ('tx_errors',   'bigint',  'sum',     'coalesce(tx_errors_delta, 0)'),
    ('rx_dropped',  'bigint',  'sum',     'coalesce(rx_dropped_delta, 0)'),
    ('tx_dropped',  'bigint',  'sum',     'coalesce(tx_dropped_delta, 0)'),
    ('samples',     'bigint',  'sum',     '1'),
    ('up_samples',  'bigint',  'sum',     'is_up::integer'),
    -- Beyond three intervals nobody saw whether it stayed up.
    ('up_ms',       'bigint',  'sum',     'CASE WHEN is_up AND elapsed_ms <= 3::bigint * interval_ms THEN elapsed_ms ELSE 0 END'),
    ('resets',      'bigint',  'sum',     $$(delta_kind IN ('reset', 'reboot'))::integer$$),
    ('rejected',    'bigint',  'sum',     $$(delta_kind = 'rejected')::integer$$),
    ('rx_bps_max',  'real',    'max',     'CASE WHEN elapsed_ms > 0 THEN rx_bytes_delta * 8000::double precision / elapsed_ms END'),
    ('tx_bps_max',  'real',    'max',     'CASE WHEN elapsed_ms > 0 THEN tx_bytes_delta * 8000::double precision / elapsed_ms END'),
    ('interval_ms', 'integer', 'min',     'interval_ms'),
    ('is_lowest',   'boolean', 'bool_or', 'is_lowest')) AS c(name, type, combine, of_row);

INSERT INTO linkbeat.family_columns (family, name, type, combine, of_row) VALUES
    ('server_metrics', 'samples', 'bigint', 'sum', '1');
INSERT INTO linkbeat.family_columns (family, name, type, combine, of_row)
SELECT 'server_metrics', format('%s_%s', metric, c.suffix), c.type, c.combine, format(c.of_row, metric)
FROM unnest('{cpu_percent,memory_percent,memory_used_mb,disk_percent,disk_used_gb,load_1m}'::text[])
         WITH ORDINALITY AS m(metric, place),
     (VALUES (1, 'min',   'double precision', 'min', '%s'),
             (2, 'max',   'double precision', 'max', '%s'),
             (3, 'sum',   'numeric',          'sum', '%s::numeric'),
             (4, 'count', 'bigint',           'sum', 'num_nonnulls(%s)')) AS c(place, suffix, type, combine, of_row)
ORDER BY m.place, c.place;

-- Sizes as they are, where the rows hold them as two's complement.
INSERT INTO linkbeat.family_columns (family, name, type, combine, of_row)
SELECT 'filesystem_metrics', c.*
FROM (VALUES ('%1$s + CASE WHEN %1$s < 0 THEN 18446744073709551616 ELSE 0 END')) AS u(unsigned)
CROSS JOIN LATERAL (VALUES
    ('samples',             'bigint',           'sum', '1'),
    ('total_bytes_max',     'numeric',          'max', format(unsigned, 'total_bytes')),
    ('used_bytes_min',      'numeric',          'min', format(unsigned, 'used_bytes')),
    ('used_bytes_max',      'numeric',          'max', format(unsigned, 'used_bytes')),
    ('used_bytes_sum',      'numeric',          'sum', format(unsigned, 'used_bytes')),
    ('used_bytes_count',    'bigint',           'sum', 'num_nonnulls(used_bytes)'),
    ('available_bytes_min', 'numeric',          'min', format(unsigned, 'available_bytes')),
    ('percent_min',         'double precision', 'min', 'percent'),
    ('percent_max',         'double precision', 'max', 'percent'),
    ('percent_sum',         'numeric',          'sum', 'percent::numeric'),
    ('percent_count',       'bigint',           'sum', 'num_nonnulls(percent)')) AS c(name, type, combine, of_row);

-- Where the finished buckets of each aggregate are; up to when they are finished, says linkbeat.watermark_<relation>().
-- Both are made by linkbeat.create_family.
CREATE TABLE linkbeat.kept (
    relation text PRIMARY KEY,
    kept     regclass NOT NULL
);
