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
    FROM unnest(beat_servers, beat_times, cpu_percent, memory_percent, memory_total_mb, memory_used_mb, disk_percent,
                disk_total_gb, disk_used_gb, load_1m, load_5m, load_15m, uptime_seconds, temperature_celsius)
         AS n(server_id, time, cpu, memory, memory_total, memory_used, disk, disk_total, disk_used, l1, l5, l15, uptime, temperature)
    WHERE num_nonnulls(cpu, memory, memory_total, memory_used, disk, disk_total, disk_used, l1, l5, l15, uptime,
                       temperature) > 0
    ON CONFLICT DO NOTHING;

    IF mount_beats IS NOT NULL THEN
        INSERT INTO filesystem_metrics (
            server_id, time, mount_point, device, fs_type, total_bytes, used_bytes, available_bytes, percent, state)
        SELECT beat_servers[place], beat_times[place], mount_point, device, fs_type, total_bytes, used_bytes,
               available_bytes, percent, state
        FROM unnest(mount_beats, mount_points, mount_devices, mount_types, mount_total_bytes, mount_used_bytes,
                    mount_available_bytes, mount_percents, mount_states)
             AS n(place, mount_point, device, fs_type, total_bytes, used_bytes, available_bytes, percent, state)
        -- A mount over a mount stands twice in a heartbeat: the first of them counts.
        ON CONFLICT DO NOTHING;
    END IF;
END $$;
