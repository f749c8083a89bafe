"""The fleet's dashboard."""

from deploy.grafana.panels import (
    BAD,
    BYTES,
    PERCENT,
    RATE,
    RX,
    SECONDS,
    TX,
    WHOLE,
    Panel,
    annotation,
    bar_of,
    color,
    lines,
    link_to_server,
    override,
    rate,
    rates_now,
    stats,
    status_of,
    table,
    traffic,
    unit,
    variable,
)

CHOSEN = "server_id IN (${server:sqlstring})"

VARIABLES = [variable("server", "Server", "SELECT server_id FROM server_overview ORDER BY server_id", several=True)]

ANNOTATIONS = [
    annotation(
        "Reboots",
        "#9aa7b5",
        f"""
SELECT down_since AS time, up_since AS timeend, server_id || ' was rebooted' AS text
FROM server_reboots
WHERE {CHOSEN} AND $__timeFilter(up_since) AND NOT is_overlap
ORDER BY up_since DESC
LIMIT 200
""",
    )
]


def _busiest(title: str, direction: str) -> Panel:
    return lines(
        title,
        f"""
WITH busiest AS (
    SELECT server_id FROM network_traffic_$level
    WHERE {WHOLE} AND is_lowest AND {CHOSEN}
    GROUP BY server_id ORDER BY sum(rx_bytes + tx_bytes) DESC LIMIT 10
)
SELECT time, metric, sum(bps) AS bps
FROM (
    SELECT $__timeGroupAlias(bucket, $__interval, NULL),
           server_id AS metric,
           {rate(direction)} AS bps
    FROM network_traffic_$level
    WHERE {WHOLE} AND is_lowest AND server_id IN (SELECT server_id FROM busiest)
    GROUP BY 1, 2, interface_name
) series
GROUP BY 1, 2
ORDER BY 1, 2
""",
        measure=RATE,
        width=12,
        description="The ten servers that moved most in this range.",
    )


ROWS = [
    [
        stats(
            "Servers",
            f"""
SELECT count(*) FILTER (WHERE status = 'online') AS online,
       count(*) FILTER (WHERE status <> 'online') AS offline
FROM server_overview
WHERE {CHOSEN}
""",
            width=6,
            overrides=(
                override("online", color("#4ade80")),
                override(
                    "offline",
                    {"id": "color", "value": {"mode": "thresholds"}},
                    {
                        "id": "thresholds",
                        "value": {
                            "mode": "absolute",
                            "steps": [{"color": "#9aa7b5", "value": None}, {"color": BAD, "value": 1}],
                        },
                    },
                ),
            ),
        ),
        rates_now(CHOSEN, width=9),
        stats(
            "In this range, each byte once",
            f"""
SELECT sum(rx_bytes) AS received, sum(tx_bytes) AS sent
FROM network_traffic_$level
WHERE {CHOSEN} AND $__timeFilter(bucket) AND is_lowest
""",
            width=9,
            overrides=(override("received", color(RX), unit(BYTES)), override("sent", color(TX), unit(BYTES))),
        ),
    ],
    [traffic("Traffic of the servers chosen, each byte once", f"is_lowest AND {CHOSEN}")],
    [_busiest("Received, by server", "rx"), _busiest("Sent, by server", "tx")],
    [
        table(
            "Servers",
            f"""
SELECT s.status, s.server_id AS server, s.primary_interface AS interface,
       n.rx_bps AS "receives", n.tx_bps AS "sends", t.rx_bytes AS received, t.tx_bytes AS sent,
       s.cpu_percent AS cpu, s.memory_percent AS memory, s.disk_percent AS disk, s.last_seen AS "last heartbeat"
FROM server_overview s
LEFT JOIN (
    SELECT server_id, sum(rx_bps) AS rx_bps, sum(tx_bps) AS tx_bps
    FROM interface_overview WHERE is_current AND is_lowest GROUP BY server_id
) n USING (server_id)
LEFT JOIN (
    SELECT server_id, sum(rx_bytes) AS rx_bytes, sum(tx_bytes) AS tx_bytes
    FROM network_traffic_$level WHERE $__timeFilter(bucket) AND is_lowest GROUP BY server_id
) t USING (server_id)
WHERE {CHOSEN}
ORDER BY s.status, t.rx_bytes + t.tx_bytes DESC NULLS LAST, s.server_id
""",
            height=12,
            overrides=(
                status_of("status", "online", "offline"),
                link_to_server("server"),
                override("receives", unit(RATE), color(RX)),
                override("sends", unit(RATE), color(TX)),
                override("received", unit(BYTES)),
                override("sent", unit(BYTES)),
                bar_of("cpu"),
                bar_of("memory"),
                bar_of("disk"),
            ),
        )
    ],
    [
        table(
            "Top talkers",
            f"""
SELECT server_id AS server, interface_name AS interface,
       sum(rx_bytes) AS received, sum(tx_bytes) AS sent,
       greatest(max(rx_bps_max), max(tx_bps_max)) AS peak
FROM network_traffic_$level
WHERE {CHOSEN} AND $__timeFilter(bucket) AND is_lowest
GROUP BY server_id, interface_name
ORDER BY sum(rx_bytes + tx_bytes) DESC, server_id, interface_name
LIMIT 20
""",
            width=12,
            overrides=(
                link_to_server("server"),
                override("received", unit(BYTES)),
                override("sent", unit(BYTES)),
                override("peak", unit(RATE)),
            ),
        ),
        table(
            "Errors and drops",
            f"""
SELECT server_id AS server, interface_name AS interface,
       sum(rx_errors + tx_errors) AS errors, sum(rx_dropped + tx_dropped) AS drops,
       100.0 * sum(rx_errors + tx_errors + rx_dropped + tx_dropped)
           / nullif(sum(rx_packets + tx_packets), 0) AS share
FROM network_traffic_$level
WHERE {CHOSEN} AND $__timeFilter(bucket)
GROUP BY server_id, interface_name
HAVING sum(rx_errors + tx_errors + rx_dropped + tx_dropped) > 0
ORDER BY share DESC NULLS LAST, server_id, interface_name
LIMIT 20
""",
            width=12,
            overrides=(link_to_server("server"), override("share", unit(PERCENT), {"id": "decimals", "value": 3})),
            description="Interfaces that lost packets in this range; the share is of all their packets.",
        ),
    ],
    [
        table(
            "Quotas, in the billing month under way",
            f"""
SELECT state, server_id AS server, used_percent AS "share", used_bytes AS used, bytes AS quota,
       expected_bytes AS expected, until AS "starts again"
FROM quota_usage(now())
WHERE {CHOSEN}
ORDER BY used_percent DESC, server_id
""",
            width=12,
            overrides=(
                status_of("state", "ok", "over", between="near"),
                link_to_server("server"),
                bar_of("share"),
                override("used", unit(BYTES)),
                override("quota", unit(BYTES)),
                override("expected", unit(BYTES)),
            ),
        ),
        table(
            "Agents",
            f"""
SELECT server_id AS server, agent_version AS version, lateness_seconds AS late, queued, dropped, rejected,
       clock_skew_seconds AS "clock off", duplicates
FROM agent_overview
WHERE {CHOSEN}
ORDER BY lateness_seconds DESC NULLS LAST, server_id
LIMIT 100
""",
            width=12,
            overrides=(
                link_to_server("server"),
                override("late", unit(SECONDS)),
                override("clock off", unit(SECONDS)),
            ),
            description="The latest first: how long it is since the heartbeat that was due.",
        ),
    ],
]
