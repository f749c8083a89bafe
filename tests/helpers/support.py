"""What tests say heartbeats with, and what they check stored rows against."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import NAMESPACE_OID, uuid5

import asyncpg
import httpx

from tests.helpers.aggregates import COLUMNS, LEVELS, difference

KEY = "a-fleet-key-for-tests"


def hours_ago(hours: float) -> datetime:
    """A whole minute about so long ago."""
    return (datetime.now(UTC) - timedelta(hours=hours)).replace(second=0, microsecond=0)


def boot_id(label: str) -> str:
    """A boot id as kernels make them, a UUID; the same one for the same label."""
    return str(uuid5(NAMESPACE_OID, label))


def interface(name: str, rx: int, tx: int = 0, *, is_up: bool = True, **more: Any) -> dict[str, Any]:
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


@asynccontextmanager
async def connected(url: str, **settings: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for a while, with settings of its own."""
    connection = await asyncpg.connect(url, server_settings=settings)
    try:
        yield connection
    finally:
        await connection.close()


def as_login(url: str, login: str) -> str:
    """The same database for another login, whose password is its name."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{login}:{login}@{parts.netloc.rpartition('@')[2]}"))


POSTS_AGAIN = 5


class Client:
    """The service as its users meet it: agents post, REST clients get.

    posted_again  how often a post was not answered in time, on a busy machine, and was sent again, as agents do. What
                  the first attempt stored, the next one finds as duplicates.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.posted_again = 0

    async def post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Posts a heartbeat that must be taken; returns the answer."""
        return await self._post("/api/v1/agents/heartbeat", body)

    async def post_raw(self, body: bytes, content_type: str = "application/json") -> httpx.Response:
        return await self.http.post("/api/v1/agents/heartbeat", content=body, headers={"Content-Type": content_type})

    async def post_batch(self, bodies: list[Any]) -> dict[str, Any]:
        return await self._post("/api/v1/agents/heartbeats", bodies)

    async def _post(self, path: str, body: Any) -> dict[str, Any]:
        answer = await self.http.post(path, json=body)
        for _ in range(POSTS_AGAIN):
            if answer.status_code != 503:
                break
            self.posted_again += 1
            answer = await self.http.post(path, json=body)
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
    """For each level, how many rows differ between the aggregates and their recomputation from raw rows: expect 0."""
    return {level: sum([await database.fetchval(difference(family, level)) for family in COLUMNS]) for level in LEVELS}
