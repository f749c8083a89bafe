"""One server's dashboard."""

from typing import Any

from deploy.grafana.panels import (
    BAD,
    BYTES,
    CELSIUS,
    PERCENT,
    RATE,
    RECEIVED,
    RX,
    SECONDS,
    SENT,
    TX,
    WHOLE,
    Panel,
    annotation,
    bar_of,
    color,
    lines,
    months,
    override,
    rates_now,
    status_of,
    table,
    traffic,
    unit,
    variable,
)

SERVER = "server_id = ${server:sqlstring}"

VARIABLES = [
    variable("server", "Server", "SELECT server_id FROM server_overview ORDER BY server_id", several=False),
    # Those with traffic in the range, folded kinds included; as many as a page of panels bears.
    variable(
        "interface",
        "Interface",
        f"""
SELECT interface_name FROM network_traffic_$level
WHERE {SERVER} AND $__timeFilter(bucket)
GROUP BY interface_name
ORDER BY sum(rx_bytes + tx_bytes) DESC, interface_name
LIMIT 30
""",
        several=True,
    ),
]

ANNOTATIONS = [
    annotation(
        "Reboots",
        "#9aa7b5",
        f"""
SELECT down_since AS time, up_since AS timeend,
       'Rebooted; down for at most ' || round(downtime_seconds) || ' s' AS text
FROM server_reboots
WHERE {SERVER} AND $__timeFilter(up_since) AND NOT is_overlap
ORDER BY up_since DESC
LIMIT 200
""",
    ),
    annotation(
        "Counter resets",
        BAD,
        f"""
SELECT time, string_agg(interface_name || ': ' || delta_kind, ', ' ORDER BY interface_name) AS text
FROM network_events
WHERE {SERVER} AND $__timeFilter(time) AND delta_kind IN ('reset', 'wrap', 'rejected')
GROUP BY time
ORDER BY time DESC
LIMIT 200
""",
    ),
    # They cost nothing: a dip is not even worth a mark.
    annotation(
        "Wrong readings, corrected since",
        "#9aa7b5",
        f"""
SELECT time, string_agg(interface_name, ', ' ORDER BY interface_name) || ': a wrong reading' AS text
FROM network_samples
WHERE {SERVER} AND $__timeFilter(time) AND delta_kind = 'glitch'
GROUP BY time
ORDER BY time DESC
LIMIT 200
""",
    ),
]


def _months(before: int) -> str:
    """Common table expression `months`: the billing month under way and so many before it, as the quota has them.

    Without a quota: calendar months in UTC, of the whole server. The middle of each month finds it; a month before the
    31st there may be no 31st.
    """
    return f"""
WITH billed AS (
    SELECT coalesce(max(billing_day), 1) AS first_day, coalesce(max(time_zone), 'UTC') AS zone,
           max(interface_name) AS interface
    FROM quotas WHERE {SERVER}
), months AS (
    SELECT to_char(m.since AT TIME ZONE b.zone, 'YYYY-MM-DD') AS month, b.interface, m.*
    FROM (SELECT *, lower(billing_period(now(), first_day, zone)) + INTERVAL '14 days' AS middle FROM billed) b
    CROSS JOIN generate_series(0, {before}) AS ago
    CROSS JOIN LATERAL network_month(
        ${{server:sqlstring}}, b.middle - ago * INTERVAL '1 month', b.first_day, b.zone, b.interface
    ) m
)
""".strip()


def _lost(title: str, columns: str) -> Panel:
    return lines(
        title,
        f"""
SELECT $__timeGroupAlias(bucket, $__interval, NULL),
       interface_name AS metric,
       sum({columns}) * 1000.0 / $__interval_ms AS packets
FROM network_traffic_$level
WHERE {WHOLE} AND {SERVER} AND interface_name IN (${{interface:sqlstring}})
GROUP BY 1, 2
ORDER BY 1, 2
""",
        measure="pps",
        width=12,
    )


def _gauge(title: str, column: str, **more: Any) -> Panel:
    """Mean and highest of a column of server_metrics."""
    return lines(
        title,
        f"""
SELECT $__timeGroupAlias(bucket, $__interval, NULL),
       sum({column}_sum) / nullif(sum({column}_count), 0) AS mean,
       max({column}_max) AS highest
FROM server_metrics_$level
WHERE $__timeFilter(bucket) AND {SERVER}
GROUP BY 1
ORDER BY 1
""",
        **more,
    )


_SHARE = {"measure": PERCENT, "width": 8, "min": 0, "max": 100}

ROWS = [
    [
        table(
            "Machine",
            f"""
SELECT status, hostname, primary_interface AS interface, uptime_seconds AS "up for", last_seen AS "last heartbeat",
       agent_version AS agent, cpu_percent AS cpu, memory_percent AS memory, disk_percent AS disk, load_1m AS load
FROM server_overview
WHERE {SERVER}
""",
            width=16,
            height=4,
            overrides=(
                status_of("status", "online", "offline"),
                override("up for", unit(SECONDS)),
                bar_of("cpu"),
                bar_of("memory"),
                bar_of("disk"),
            ),
        ),
        rates_now(SERVER, width=8),
    ],
    [traffic("All traffic, each byte once", f"is_lowest AND {SERVER}")],
    [traffic("$interface", f"{SERVER} AND interface_name IN (${{interface:sqlstring}})", repeat="interface")],
    [
        table(
            "Interfaces",
            f"""
SELECT i.interface_name AS interface, i.kind,
       CASE WHEN NOT i.is_current THEN 'gone' WHEN i.is_up THEN 'up' ELSE 'down' END AS state,
       i.speed_mbps * 1000000::bigint AS line, i.rx_bps AS receives, i.tx_bps AS sends,
       t.rx_bytes AS received, t.tx_bytes AS sent, t.rx_peak AS "peak in", t.tx_peak AS "peak out",
       t.resets, i.time AS "last sample"
FROM interface_overview i
LEFT JOIN (
    SELECT interface_name, sum(rx_bytes) AS rx_bytes, sum(tx_bytes) AS tx_bytes, max(rx_bps_max) AS rx_peak,
           max(tx_bps_max) AS tx_peak, sum(resets) AS resets
    FROM network_traffic_$level WHERE {SERVER} AND $__timeFilter(bucket) GROUP BY interface_name
) t USING (interface_name)
WHERE i.{SERVER} AND NOT i.is_folded
ORDER BY i.is_current DESC, i.is_primary DESC NULLS LAST, t.rx_bytes + t.tx_bytes DESC NULLS LAST, i.interface_name
""",
            overrides=(
                status_of("state", "up", "down", between="gone"),
                override("line", unit(RATE)),
                override("receives", unit(RATE), color(RX)),
                override("sends", unit(RATE), color(TX)),
                override("received", unit(BYTES)),
                override("sent", unit(BYTES)),
                override("peak in", unit(RATE)),
                override("peak out", unit(RATE)),
            ),
        )
    ],
    [_lost("Errors", "rx_errors + tx_errors"), _lost("Drops", "rx_dropped + tx_dropped")],
    [
        _gauge("Processors", "cpu_percent", **_SHARE),
        _gauge("Memory", "memory_percent", **_SHARE),
        lines(
            "Filesystems",
            f"""
SELECT $__timeGroupAlias(bucket, $__interval, NULL),
       mount_point AS metric,
       sum(percent_sum) / nullif(sum(percent_count), 0) AS percent
FROM filesystem_metrics_$level
WHERE $__timeFilter(bucket) AND {SERVER}
GROUP BY 1, 2
ORDER BY 1, 2
""",
            measure=PERCENT,
            width=8,
            min=0,
            max=100,
        ),
    ],
    [
        table(
            "Filesystems, as last reported",
            f"""
SELECT DISTINCT ON (mount_point) mount_point AS mount, device, fs_type AS type, percent AS full,
       used_bytes AS used, available_bytes AS available, total_bytes AS size, coalesce(state, 'ok') AS state
FROM filesystem_samples
WHERE {SERVER}
  AND time > (SELECT last_seen - interval_seconds * INTERVAL '3 seconds' FROM server_overview WHERE {SERVER})
ORDER BY mount_point, time DESC
""",
            width=14,
            overrides=(
                bar_of("full"),
                override("used", unit(BYTES)),
                override("available", unit(BYTES)),
                override("size", unit(BYTES)),
                status_of("state", "ok", "unreachable"),
            ),
        ),
        lines(
            "Load",
            f"""
SELECT $__timeGroupAlias(bucket, $__interval, NULL),
       sum(load_1m_sum) / nullif(sum(load_1m_count), 0) AS mean,
       max(load_1m_max) AS highest
FROM server_metrics_$level
WHERE $__timeFilter(bucket) AND {SERVER}
GROUP BY 1
ORDER BY 1
""",
            measure="short",
            width=10,
            min=0,
        ),
    ],
    [
        months(
            "Usage by month",
            f"""
{_months(12)}
SELECT month, rx_bytes AS received, tx_bytes AS sent FROM months
WHERE samples > 0
ORDER BY since
""",
            width=12,
            height=9,
            overrides=(RECEIVED, SENT),
        ),
        table(
            "Quota, in the billing month under way",
            f"""
SELECT state, used_percent AS share, used_bytes AS used, bytes AS quota, expected_bytes AS expected, direction,
       coalesce(interface_name, 'all, each byte once') AS interface, until AS "starts again"
FROM quota_usage(now())
WHERE {SERVER}
""",
            width=12,
            height=4,
            overrides=(
                status_of("state", "ok", "over", between="near"),
                bar_of("share"),
                override("used", unit(BYTES)),
                override("quota", unit(BYTES)),
                override("expected", unit(BYTES)),
            ),
            description="Set by PUT /api/v1/servers/{server_id}/quota; empty without one.",
        ),
    ],
    [
        table(
            "95th percentile, as transit is billed",
            f"""
{_months(1)}
SELECT m.month, p.rx_bps AS received, p.tx_bps AS sent, greatest(p.rx_bps, p.tx_bps) AS billed, p.sum_bps AS both,
       100.0 * p.samples / nullif(p.slots, 0) AS "samples there"
FROM months m
CROSS JOIN LATERAL network_percentile(
    ${{server:sqlstring}}, m.since, least(m.until, time_bucket(INTERVAL '5 minutes', now())), m.interface
) p
ORDER BY m.since DESC
""",
            height=5,
            overrides=(
                override("received", unit(RATE), color(RX)),
                override("sent", unit(RATE), color(TX)),
                override("billed", unit(RATE)),
                override("both", unit(RATE)),
                override("samples there", unit(PERCENT), {"id": "decimals", "value": 1}),
            ),
            description="Of 5-minute samples; those of the last month are kept for 35 days as delivered.",
        )
    ],
    [_gauge("Hottest sensor", "temperature_celsius", measure=CELSIUS)],
]
