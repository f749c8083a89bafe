"""What the aggregates must hold, defined a second time: nothing of their own definition (sql/schema/aggregates.sql) is
used, so that an error in it shows. `linkbeat verify` and the tests compare with this."""

LEVELS = {"1m": "1 minute", "15m": "15 minutes", "1h": "1 hour", "1d": "1 day"}

_METRICS = (
    "cpu_percent",
    "memory_percent",
    "memory_used_mb",
    "disk_percent",
    "disk_used_gb",
    "load_1m",
    "temperature_celsius",
)
_TIME, _TEXT, _BIGINT, _DOUBLE = "timestamp with time zone", "text", "bigint", "double precision"

# Names and types, in the order in which an analyst sees them, on both editions.
COLUMNS: dict[str, list[tuple[str, str]]] = {
    "network_traffic": [
        ("bucket", _TIME),
        ("server_id", _TEXT),
        ("interface_name", _TEXT),
        ("rx_bytes", _BIGINT),
        ("tx_bytes", _BIGINT),
        ("rx_packets", _BIGINT),
        ("tx_packets", _BIGINT),
        ("rx_errors", _BIGINT),
        ("tx_errors", _BIGINT),
        ("rx_dropped", _BIGINT),
        ("tx_dropped", _BIGINT),
        ("samples", _BIGINT),
        ("up_samples", _BIGINT),
        ("up_ms", _BIGINT),
        ("resets", _BIGINT),
        ("rejected", _BIGINT),
        ("rx_bps_max", "real"),
        ("tx_bps_max", "real"),
        ("interval_ms", "integer"),
        ("is_lowest", "boolean"),
        ("expected_samples", _BIGINT),
    ],
    "server_metrics": [
        ("bucket", _TIME),
        ("server_id", _TEXT),
        ("samples", _BIGINT),
        *(
            (f"{metric}_{suffix}", kind)
            for metric in _METRICS
            for suffix, kind in (("min", _DOUBLE), ("max", _DOUBLE), ("sum", "numeric"), ("count", _BIGINT))
        ),
    ],
    "filesystem_metrics": [
        ("bucket", _TIME),
        ("server_id", _TEXT),
        ("mount_point", _TEXT),
        ("samples", _BIGINT),
        ("total_bytes_max", "numeric"),
        ("used_bytes_min", "numeric"),
        ("used_bytes_max", "numeric"),
        ("used_bytes_sum", "numeric"),
        ("used_bytes_count", _BIGINT),
        ("available_bytes_min", "numeric"),
        ("percent_min", _DOUBLE),
        ("percent_max", _DOUBLE),
        ("percent_sum", "numeric"),
        ("percent_count", _BIGINT),
    ],
}
SERIES = {
    "network_traffic": ("server_id", "interface_name"),
    "server_metrics": ("server_id",),
    "filesystem_metrics": ("server_id", "mount_point"),
}

# By plain date_bin from the rows to each level; the columns after bucket and series, in the order of COLUMNS.
_FROM_ROWS = {
    "network_traffic": """
        SELECT {bucket}, server_id, interface_name,
               sum(rx_bytes_delta)::bigint, sum(tx_bytes_delta)::bigint,
               sum(rx_packets_delta)::bigint, sum(tx_packets_delta)::bigint,
               coalesce(sum(rx_errors_delta), 0)::bigint, coalesce(sum(tx_errors_delta), 0)::bigint,
               coalesce(sum(rx_dropped_delta), 0)::bigint, coalesce(sum(tx_dropped_delta), 0)::bigint,
               count(*), count(*) FILTER (WHERE is_up),
               coalesce(sum(elapsed_ms) FILTER (WHERE is_up AND elapsed_ms / 3.0 <= interval_ms), 0)::bigint,
               count(*) FILTER (WHERE delta_kind = 'reset' OR delta_kind = 'reboot'),
               count(*) FILTER (WHERE delta_kind = 'rejected'),
               max(rx_bytes_delta * 8000::float8 / nullif(elapsed_ms, 0))::real,
               max(tx_bytes_delta * 8000::float8 / nullif(elapsed_ms, 0))::real,
               min(interval_ms), bool_or(is_lowest),
               greatest(1, round(extract(epoch FROM INTERVAL '{width}') * 1000 / min(interval_ms)))::bigint
        FROM network_interface_metrics WHERE NOT is_folded AND {range} GROUP BY 1, 2, 3""",
    "server_metrics": """
        SELECT {bucket}, server_id, count(*), """
    + ", ".join(f"min({m}), max({m}), sum({m}::numeric), count({m})" for m in _METRICS)
    + " FROM server_metrics WHERE {range} GROUP BY 1, 2",
    "filesystem_metrics": """
        SELECT {bucket}, server_id, mount_point, count(*), max(linkbeat.unsigned(total_bytes)),
               min(linkbeat.unsigned(used_bytes)), max(linkbeat.unsigned(used_bytes)),
               sum(linkbeat.unsigned(used_bytes)), count(used_bytes), min(linkbeat.unsigned(available_bytes)),
               min(percent), max(percent), sum(percent::numeric), count(percent)
        FROM filesystem_metrics WHERE {range} GROUP BY 1, 2, 3""",
}


_IN_RANGE = "{time} >= coalesce($1, '-infinity'::timestamptz) AND {time} < coalesce($2, 'infinity'::timestamptz)"


def comparison(family: str, level: str) -> str:
    """SQL that compares the buckets from $1 up to $2 (null: all) with their recomputation from the rows.

    It has one row at least: how many buckets were compared, how many of them are wrong and how many wait for a refresh;
    for the first $3 that differ, wrong ones first: bucket, series, what is stored, what the rows come to (jsonb; null
    where there is no such row). To be executed in a REPEATABLE READ transaction: it is planned for the watermarks.
    """
    width = LEVELS[level]
    series = ", ".join(SERIES[family])
    recomputed = _FROM_ROWS[family].format(
        bucket=f"date_bin('{width}', time, TIMESTAMPTZ '2000-01-03') AS bucket",
        width=width,
        range=_IN_RANGE.format(time="time"),
    )
    columns = ", ".join(name for name, _ in COLUMNS[family])
    return f"""
WITH computed ({columns}) AS MATERIALIZED ({recomputed}),
stored AS MATERIALIZED (SELECT {columns} FROM {family}_{level} WHERE {_IN_RANGE.format(time="bucket")}),
waiting AS MATERIALIZED (SELECT since, until FROM linkbeat.waiting_ranges('{family}_{level}')),
differing AS (
    SELECT bucket, ARRAY[{series}] AS series,
           (array_agg(row_of) FILTER (WHERE is_stored))[1] AS stored,
           (array_agg(row_of) FILTER (WHERE NOT is_stored))[1] AS computed,
           EXISTS (SELECT FROM waiting WHERE bucket + INTERVAL '{width}' > since AND bucket <= until) AS is_waiting
    FROM (SELECT false AS is_stored, {columns}, to_jsonb(c) AS row_of FROM (TABLE computed EXCEPT ALL TABLE stored) AS c
          UNION ALL
          SELECT true, {columns}, to_jsonb(s) FROM (TABLE stored EXCEPT ALL TABLE computed) AS s) AS sides
    GROUP BY bucket, {series}
)
SELECT n.compared, coalesce(d.wrong, 0) AS wrong, coalesce(d.waiting, 0) AS waiting, d.is_waiting, d.bucket, d.series,
       d.stored, d.computed
FROM (SELECT count(*) AS compared FROM computed) AS n
LEFT JOIN (
    SELECT *, count(*) FILTER (WHERE NOT is_waiting) OVER () AS wrong,
           count(*) FILTER (WHERE is_waiting) OVER () AS waiting
    FROM differing ORDER BY is_waiting, bucket, series LIMIT $3
) AS d ON true"""
