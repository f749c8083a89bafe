"""What the aggregates hold, said a second time: nothing of their own definition (sql/schema/aggregates.sql) is used."""

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
RELATIONS = [f"{family}_{level}" for family in COLUMNS for level in LEVELS]

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
        FROM network_interface_metrics WHERE NOT is_folded GROUP BY 1, 2, 3""",
    "server_metrics": """
        SELECT {bucket}, server_id, count(*), """
    + ", ".join(f"min({m}), max({m}), sum({m}::numeric), count({m})" for m in _METRICS)
    + " FROM server_metrics GROUP BY 1, 2",
    "filesystem_metrics": """
        SELECT {bucket}, server_id, mount_point, count(*), max(linkbeat.unsigned(total_bytes)),
               min(linkbeat.unsigned(used_bytes)), max(linkbeat.unsigned(used_bytes)),
               sum(linkbeat.unsigned(used_bytes)), count(used_bytes), min(linkbeat.unsigned(available_bytes)),
               min(percent), max(percent), sum(percent::numeric), count(percent)
        FROM filesystem_metrics GROUP BY 1, 2, 3""",
}


def difference(family: str, level: str) -> str:
    """SQL that counts the rows in which an aggregate and its recomputation from the rows differ."""
    bucket = f"date_bin('{LEVELS[level]}', time, TIMESTAMPTZ '2000-01-03')"
    recomputed = _FROM_ROWS[family].format(bucket=bucket, width=LEVELS[level])
    kept = f"SELECT {', '.join(name for name, _ in COLUMNS[family])} FROM {family}_{level}"
    return (
        f"WITH recomputed AS ({recomputed}), kept AS ({kept}) SELECT count(*) FROM "
        "((TABLE recomputed EXCEPT ALL TABLE kept) UNION ALL (TABLE kept EXCEPT ALL TABLE recomputed)) d"
    )
