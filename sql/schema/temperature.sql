-- temperature_celsius: the hottest sensor of each machine. Structure: run once, frozen on release.

ALTER TABLE server_metrics ADD COLUMN temperature_celsius double precision;
COMMENT ON COLUMN server_metrics.temperature_celsius IS 'The machine''s hottest sensor, in degrees Celsius.';

ALTER TYPE linkbeat.host_metrics ADD ATTRIBUTE temperature_celsius double precision;

INSERT INTO linkbeat.family_columns (family, name, type, combine, of_row, of_older) VALUES
    ('server_metrics', 'temperature_celsius_min',   'double precision', 'min', 'temperature_celsius', NULL),
    ('server_metrics', 'temperature_celsius_max',   'double precision', 'max', 'temperature_celsius', NULL),
    ('server_metrics', 'temperature_celsius_sum',   'numeric',          'sum', 'temperature_celsius::numeric', NULL),
    ('server_metrics', 'temperature_celsius_count', 'bigint',           'sum', 'num_nonnulls(temperature_celsius)', '0');
