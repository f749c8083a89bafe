"""No answer has a number with an exponent, whatever is stored: every route of the OpenAPI document is asked."""

import csv
import io
import re
from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from typing import Any

import asyncpg
import pytest

from tests.helpers.support import Client, heartbeat, hours_ago, interface
from tests.helpers.tokens import exponents, numbers

HIGHEST = 2**64 - 1
SIZES = {"/": 17_920_000, "/tera": 10**12, "/peta": 10**15, "/exa": HIGHEST, "/little": 1}
# Of parameters, by name: what is there. A route with another one needs its value here.
VALUES: dict[str, Any] = {
    "server_id": ["big", "small"],
    "name": "eth0",
    "mount_point": list(SIZES),
    "interface": "eth0",
    "server": "big",
    "series": ["big/eth0", "small/eth0"],
    "kind": "physical",
    "search": "b",
    "is_up": "true",
    "gone": "true",
    "top": 5,
    "time_zone": "Europe/Berlin",
    "billing_day": 3,
    "rule_id": ["busy", "full"],
    "channel_id": "away",
    "mute_id": "winter",
    "rule": "busy",
    "tag": "size",
    "group_by": "size",
    "action": "quota",
    "actor": "key",
    "channel": "away",
    "episode": "0192d3a0-0000-7000-8000-000000000000",
}
# What asks for less, or for the same in another way.
LEFT_OUT = {
    "after",
    "cursor",
    "limit",
    "since",
    "until",
    "at",
    "bucket",
    "width",
    "height",
    "status",
    "sort",
    "order",
    "theme",
}
NOT_INSTALLED = {"parquet"}


async def store_extremes(service: Client, database: asyncpg.Connection) -> None:
    """A server of the largest values that there can be, and of the smallest."""
    now = hours_ago(0)
    for server_id, metrics, speed in (
        ("big", {"cpu_percent": 1e7, "memory_percent": 1e16, "memory_total_mb": 1e20, "load_1m": 1e22, "load_5m": 1e300,
                 "disk_percent": 99.999, "disk_total_gb": 1e15, "uptime_seconds": 1e18,
                 "network_rx_bytes": HIGHEST, "network_tx_bytes": 10**15}, 400_000),
        ("small", {"cpu_percent": 1e-7, "memory_percent": 5e-324, "disk_percent": 1.5e-6, "load_1m": 1e-300,
                   "network_rx_bytes": 0}, 10),
    ):  # fmt: skip
        is_big = server_id == "big"
        for n in range(3):
            counters: dict[str, Any] = {
                "rx_packets": 1000 * n,
                "tx_packets": 1000 * n,
                "speed_mbps": speed,
                "kind": "physical",
            }
            interfaces = [
                interface("eth0", n * 10**12 if is_big else n, n * 10**6, **counters),
                interface("eth1", HIGHEST - 10 + n, HIGHEST, rx_errors=HIGHEST, tx_dropped=10**16),
            ]
            beat: dict[str, Any] = heartbeat(server_id, at=now - timedelta(seconds=30 * (2 - n))) | {
                "network_interfaces": interfaces, "metrics": metrics, "primary_interface": "eth0",
                "interval_seconds": 30.0 if is_big else 0.0001,
                "os_info": {"huge": 1e300, "tiny": 1e-7, "words": "1e7, 2E+8"},
                "delivery": {"queued": 2**63 - 1, "oldest_seconds": 1e-7, "spool_bytes": 10**16, "dropped": 10**15},
                "filesystems": [
                    {"mount_point": mount_point, "device": mount_point, "total_bytes": size, "used_bytes": size,
                     "available_bytes": 0, "percent": 100.0 if is_big else 1e-7}
                    for mount_point, size in SIZES.items()
                ],
            }  # fmt: skip
            await service.post(beat)
        quota = {"bytes": 2**63 - 1 if is_big else 1, "near_percent": 1e-7}
        answer = await service.http.put(f"/api/v1/servers/{server_id}/quota", json=quota)
        assert answer.status_code == 200, answer.text
    await service.http.put("/api/v1/servers/big/labels", json={"tags": ["size=big"]})
    await service.http.put("/api/v1/servers/big/config", json={"interval_seconds": 3599.9999999})
    for path, body in {
        "alert-rules/busy": {"kind": "rate", "above_bps": 1e-7, "clear_percent": 1e-7},
        "alert-rules/full": {"kind": "filesystem", "below_bytes": 2**63 - 1, "full_within_hours": 1e-7},
        "alert-channels/away": {"kind": "webhook", "url": "https://hooks.example.com/x"},
        "alert-mutes/winter": {"matcher": {"servers": ["big"]}, "ends_at": "2100-01-01T00:00:00Z"},
    }.items():
        answer = await service.http.put(f"/api/v1/{path}", json=body)
        assert answer.status_code in (200, 201), answer.text
    # What no line carries, and ingest would refuse: rates of 21 digits, in the history and in the newest state.
    await database.execute(
        "UPDATE network_interface_metrics SET rx_bytes_delta = 1::bigint << 60, elapsed_ms = 1 "
        "WHERE server_id = 'big' AND interface_name = 'eth0' AND time = $1",
        now,
    )
    await database.execute(
        "UPDATE servers SET interfaces[1].rx_bytes_delta = 1::bigint << 60, interfaces[1].elapsed_ms = 1 "
        "WHERE server_id = 'big'"
    )


def requests(path: str, parameters: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The route with every combination of its choices, with and without what only narrows it."""
    choices: dict[str, list[Any]] = {}
    narrowing: dict[str, Any] = {}
    for parameter in parameters:
        name, schema = parameter["name"], parameter["schema"]
        if name in LEFT_OUT and not parameter.get("required"):
            continue
        if "enum" in schema:
            choices[name] = [one for one in schema["enum"] if one not in NOT_INSTALLED]
        elif parameter.get("required"):
            assert name in VALUES, f"{path} has a parameter {name!r}: put a value of it into VALUES"
            choices[name] = VALUES[name] if isinstance(VALUES[name], list) else [VALUES[name]]
        else:
            assert name in VALUES, f"{path} has a parameter {name!r}: put a value of it into VALUES or LEFT_OUT"
            narrowing[name] = VALUES[name]
    for values in product(*choices.values()):
        chosen = {name: value for name, value in zip(choices, values, strict=True) if value is not None}
        filled = path.format(**chosen)
        query = {name: value for name, value in chosen.items() if f"{{{name}}}" not in path}
        yield filled, query
        if narrowing and "group_by" not in query:
            yield filled, query | narrowing


async def test_no_get_route_answers_a_number_with_an_exponent(service: Client, database: asyncpg.Connection) -> None:
    await store_extremes(service, database)
    document = (await service.http.get("/schema/openapi.json")).json()
    found: dict[str, set[bytes]] = {}
    asked: dict[str, int] = {}

    for path, item in document["paths"].items():
        if "get" not in item:
            continue
        for url, query in requests(path, item["get"].get("parameters", [])):
            answer = await service.http.get(url, params=query)
            assert answer.status_code == 200, (url, query, answer.text)
            asked[path] = asked.get(path, 0) + 1
            if wrong := _exponents(answer.content, answer.headers["content-type"]):
                found.setdefault(f"{url} {query}", set()).update(wrong)

    assert found == {}
    assert set(asked) == {path for path, item in document["paths"].items() if "get" in item}


def _exponents(body: bytes, content_type: str) -> list[bytes]:
    media_type = content_type.partition(";")[0]
    if media_type in ("application/json", "application/x-ndjson"):
        return exponents(body)
    if media_type == "text/csv":
        values = [value for row in csv.reader(io.StringIO(body.decode())) for value in row]
        return [value.encode() for value in values if re.fullmatch(r"[-0-9.]+[eE][-+0-9]+", value)]
    if media_type == "image/svg+xml":
        # Of what is drawn; colours are hexadecimal, and a share of 1e300 % is in words what it is.
        return re.findall(rb"[0-9][eE][-+]?[0-9]+", re.sub(rb"#[0-9a-f]{6}|>[^<]*<", b"", body))
    # Prometheus' text has Go's numbers, which may have one.
    assert media_type == "text/plain", media_type
    return []


async def test_octets_are_exact_integers(service: Client, database: asyncpg.Connection) -> None:
    await store_extremes(service, database)

    for mount_point, size in SIZES.items():
        answer = await service.http.get("/api/v1/metrics/sparkline/big/filesystem", params={"mount_point": mount_point})
        assert f'"used_bytes":{size},"total_bytes":{size}'.encode() in answer.content
    server = await service.http.get("/api/v1/servers/big")
    for value in (HIGHEST, 10**12, 10**15, 17_920_000):
        assert str(value).encode() in numbers(server.content)


@pytest.mark.parametrize("text", [b"[1.792E+7]", b'{"a": 1e16}', b'{"a":"1e7","b":[2,-1e-7]}', b"1E5\n2\n"])
def test_a_number_with_an_exponent_is_found(text: bytes) -> None:
    assert len(exponents(text)) == 1
