-- ingest_host_metrics: the machine's and its filesystems' part of a batch of heartbeats (linkbeat.ingest_heartbeats,
-- whose arrays these are; the caller holds the servers' rows).
-- Replaceable: reapplied on every upgrade.
CREATE OR REPLACE FUNCTION linkbeat.ingest_host_metrics(
    beat_servers text[], beat_times timestamptz[], cpu_percent float8[], memory_percent float8[],
    memory_total_mb float8[], memory_used_mb float8[], disk_percent float8[], disk_total_gb float8[],
    disk_used_gb float8[], load_1m float8[], load_5m float8[], load_15m float8[], uptime_seconds float8[],
    temperature_celsius float8[],
    mount_beats integer[], mount_points text[], mount_devices text[], mount_types text[], mount_total_bytes bigint[],
    mount_used_bytes bigint[], mount_available_bytes bigint[], mount_percents float8[], mount_states text[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO server_metrics AS m (
        server_id, time, cpu_percent, memory_percent, memory_total_mb, memory_used_mb, disk_percent, disk_total_gb,
        disk_used_gb, load_1m, load_5m, load_15m, uptime_seconds, temperature_celsius)
    SELECT n.*
    FROM (
        -- In FROM, each array would be written to a tuplestore of its own and read again.
        SELECT unnest(beat_servers) AS server_id, unnest(beat_times) AS time, unnest(cpu_percent) AS cpu,
               unnest(memory_percent) AS memory, unnest(memory_total_mb) AS memory_total,
               unnest(memory_used_mb) AS memory_used, unnest(disk_percent) AS disk,
               unnest(disk_total_gb) AS disk_total, unnest(disk_used_gb) AS disk_used, unnest(load_1m) AS l1,
               unnest(load_5m) AS l5, unnest(load_15m) AS l15, unnest(uptime_seconds) AS uptime,
               unnest(temperature_celsius) AS temperature
        OFFSET 0
    ) AS n
    WHERE num_nonnulls(cpu, memory, memory_total, memory_used, disk, disk_total, disk_used, l1, l5, l15, uptime,
                       temperature) > 0
    ON CONFLICT DO NOTHING;

    IF mount_beats IS NOT NULL THEN
        INSERT INTO filesystem_metrics (
            server_id, time, mount_point, device, fs_type, total_bytes, used_bytes, available_bytes, percent, state)
        SELECT beat_servers[place], beat_times[place], mount_point, device, fs_type, total_bytes, used_bytes,
               available_bytes, percent, state
        FROM (
            SELECT unnest(mount_beats) AS place, unnest(mount_points) AS mount_point, unnest(mount_devices) AS device,
                   unnest(mount_types) AS fs_type, unnest(mount_total_bytes) AS total_bytes,
                   unnest(mount_used_bytes) AS used_bytes, unnest(mount_available_bytes) AS available_bytes,
                   unnest(mount_percents) AS percent, unnest(mount_states) AS state
            OFFSET 0
        ) AS n
        -- A mount over a mount stands twice in a heartbeat: the first of them counts.
        ON CONFLICT DO NOTHING;
    END IF;
END $$;
