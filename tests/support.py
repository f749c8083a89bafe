"""What tests say heartbeats with, and what they check stored rows against."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx

KEY = "a-fleet-key-for-tests"
LEVELS = {
    "1m": ("1 minute", "network_interface_metrics", "time"),
    "15m": ("15 minutes", "network_traffic_1m", "bucket"),
    "1h": ("1 hour", "network_traffic_15m", "bucket"),
    "1d": ("1 day", "network_traffic_1h", "bucket"),
}


def hours_ago(hours: float) -> datetime:
    """A whole minute about so long ago."""
    return (datetime.now(UTC) - timedelta(hours=hours)).replace(second=0, microsecond=0)


def interface(name: str, rx: int, tx: int = 0, *, is_up: bool = True, **more: int) -> dict[str, Any]:
    """One interface of a heartbeat."""
    return {
        "name": name,
        "rx_bytes": rx,
        "tx_bytes": tx,
        "rx_packets": 0,
        "tx_packets": 0,
        "is_up": is_up,
        **more,
    }


def heartbeat(
    server_id: str = "nas", at: datetime | None = None, boot: str | None = "boot-1", **interfaces: tuple[int, int]
) -> dict[str, Any]:
    """A heartbeat whose interfaces are given as `eth0=(rx_bytes, tx_bytes)`."""
    body: dict[str, Any] = {
        "server_id": server_id,
        "hostname": f"{server_id}.local",
        "network_interfaces": [interface(name, rx, tx) for name, (rx, tx) in interfaces.items()],
    }
    if boot is not None:
        body["boot_id"] = boot
    if at is not None:
        body["timestamp"] = at.isoformat()
    return body


class Client:
    """The service as its users meet it: agents post, REST clients get."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Posts a heartbeat that must be taken; returns the answer."""
        answer = await self.http.post("/api/v1/agents/heartbeat", json=body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def post_raw(self, body: bytes, content_type: str = "application/json") -> httpx.Response:
        return await self.http.post("/api/v1/agents/heartbeat", content=body, headers={"Content-Type": content_type})

    async def post_batch(self, bodies: list[Any]) -> dict[str, Any]:
        answer = await self.http.post("/api/v1/agents/heartbeats", json=bodies)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        """Gets what must be there."""
        answer = await self.http.get(f"/api/v1{path}", params=query)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


async def deltas(database: asyncpg.Connection, server_id: str = "nas", name: str = "eth0") -> list[tuple[int, str]]:
    """A series' received deltas in the order of time, each with its kind."""
    rows = await database.fetch(
        "SELECT rx_bytes_delta, delta_kind FROM network_interface_metrics "
        "WHERE server_id = $1 AND interface_name = $2 ORDER BY time",
        server_id,
        name,
    )
    return [(row["rx_bytes_delta"], row["delta_kind"]) for row in rows]


async def differing_rows(database: asyncpg.Connection) -> dict[str, int]:
    """For each level, how many rows differ between the aggregate and its recomputation from raw rows: expect 0."""
    return {level: await database.fetchval(_DIFFERENCE.format(level=level, width=LEVELS[level][0])) for level in LEVELS}


# Raw rows straight to each level, by plain date_bin; nothing of the aggregates' own definition is used.
_DIFFERENCE = """
WITH recomputed AS (
    SELECT date_bin('{width}', time, TIMESTAMPTZ '2000-01-03') AS bucket, server_id, interface_name,
           sum(rx_bytes_delta) AS rx_bytes, sum(tx_bytes_delta) AS tx_bytes,
           sum(rx_packets_delta) AS rx_packets, sum(tx_packets_delta) AS tx_packets,
           coalesce(sum(rx_errors_delta), 0) AS rx_errors, coalesce(sum(tx_errors_delta), 0) AS tx_errors,
           coalesce(sum(rx_dropped_delta), 0) AS rx_dropped, coalesce(sum(tx_dropped_delta), 0) AS tx_dropped,
           max(rx_bytes_delta * 8000::float8 / nullif(elapsed_ms, 0)) AS rx_bps_max,
           max(tx_bytes_delta * 8000::float8 / nullif(elapsed_ms, 0)) AS tx_bps_max,
           count(*) FILTER (WHERE is_up) AS up_samples, count(*) AS samples
    FROM network_interface_metrics
    GROUP BY 1, 2, 3
), kept AS (
    SELECT bucket, server_id, interface_name, rx_bytes::numeric, tx_bytes::numeric, rx_packets::numeric,
           tx_packets::numeric, rx_errors::numeric, tx_errors::numeric, rx_dropped::numeric, tx_dropped::numeric,
           rx_bps_max, tx_bps_max, up_samples, samples
    FROM network_traffic_{level}
)
SELECT count(*) FROM (
    (SELECT * FROM recomputed EXCEPT ALL SELECT * FROM kept)
    UNION ALL
    (SELECT * FROM kept EXCEPT ALL SELECT * FROM recomputed)
) d
"""
