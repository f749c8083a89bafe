"""Rows of all three histories, written straight into the tables: for tests of what is made of them."""

from datetime import datetime, timedelta

import asyncpg

# Values follow from the key alone, so that a row written twice is the same row; odd ones among them: folded and
# rejected rows, reboots, gaps, sizes beyond 2**63, values that are not reported.
_INTERFACES = """
INSERT INTO network_interface_metrics (
    time, server_id, interface_name, rx_bytes, tx_bytes, rx_packets, tx_packets, rx_bytes_delta, tx_bytes_delta,
    rx_packets_delta, tx_packets_delta, rx_errors_delta, tx_dropped_delta, elapsed_ms, interval_ms,
    is_up, is_lowest, is_folded, counts_64bit, delta_kind)
SELECT time, server_id, name, 0, 0, 0, 0, h % 1000000007, h % 100003, h % 997, h % 101,
       CASE WHEN h % 3 = 0 THEN h % 7 END, CASE WHEN h % 5 = 0 THEN h % 11 END,
       CASE WHEN h % 17 = 0 THEN 0 WHEN h % 13 = 0 THEN 600000 ELSE 30000 END,
       CASE WHEN h % 19 = 0 THEN 7000 ELSE 30000 END,
       h % 4 > 0, name <> 'br0', name LIKE 'veth%' AND h % 2 = 0, false,
       (ARRAY['normal', 'normal', 'gap', 'reset', 'reboot', 'wrap', 'rejected', 'dip', 'glitch'])[1 + h % 9]
FROM generate_series($1::timestamptz, $2::timestamptz - INTERVAL '1 microsecond', $3) AS time,
     unnest($4::text[]) AS server_id, unnest('{eth0,br0,veth1}'::text[]) AS name,
     LATERAL (SELECT abs(hashtextextended(time::text || server_id || name, 0)) AS h) AS hashed
ON CONFLICT DO NOTHING
"""
_MACHINES = """
INSERT INTO server_metrics (
    time, server_id, cpu_percent, memory_percent, memory_used_mb, disk_percent, disk_used_gb, load_1m{temperature})
SELECT time, server_id, h % 1000 / 10.0, CASE WHEN h % 3 > 0 THEN h % 997 / 9.97 END, h % 100000 / 3.0,
       CASE WHEN h % 50 = 0 THEN 1.7e308 ELSE h % 100 END, NULL, h % 31 / 7.0 {temperatures}
FROM generate_series($1::timestamptz, $2::timestamptz - INTERVAL '1 microsecond', $3) AS time,
     unnest($4::text[]) AS server_id,
     LATERAL (SELECT abs(hashtextextended(time::text || server_id, 0)) AS h) AS hashed
ON CONFLICT DO NOTHING
"""
_FILESYSTEMS = """
INSERT INTO filesystem_metrics (
    time, server_id, mount_point, device, fs_type, total_bytes, used_bytes, available_bytes, percent)
SELECT time, server_id, mount_point, 'sda', 'ext4', CASE WHEN h % 9 = 0 THEN -1 ELSE h END, h - h % 1000,
       CASE WHEN h % 4 > 0 THEN h % 100000 END, CASE WHEN h % 5 > 0 THEN h % 1000 / 10.0 END
FROM generate_series($1::timestamptz, $2::timestamptz - INTERVAL '1 microsecond', $3) AS time,
     unnest($4::text[]) AS server_id, unnest('{/,/srv/data}'::text[]) AS mount_point,
     LATERAL (SELECT abs(hashtextextended(time::text || server_id || mount_point, 0)) AS h) AS hashed
ON CONFLICT DO NOTHING
"""
TABLES = ("network_interface_metrics", "server_metrics", "filesystem_metrics")


async def write_rows(
    database: asyncpg.Connection,
    since: datetime,
    until: datetime,
    every: timedelta = timedelta(seconds=30),
    servers: tuple[str, ...] = ("nas", "pi"),
    *,
    temperatures: bool = True,
) -> int:
    """Rows at `since` and then `every` so often before `until`; how many were not there yet.

    temperatures  server_metrics has them: not in databases of 0.1.0
    """
    stored = 0
    machines = _MACHINES.format(
        temperature=", temperature_celsius" if temperatures else "",
        temperatures=", CASE WHEN h % 4 > 0 THEN h % 1999 / 10.0 - 50 END" if temperatures else "",
    )
    for statement in (_INTERFACES, machines, _FILESYSTEMS):
        stored += int((await database.execute(statement, since, until, every, servers)).split()[-1])
    return stored
