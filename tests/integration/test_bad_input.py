"""What a client can send wrongly: refused in words that name the field, with nothing stored, and never a 5xx.

All of it goes to one service on one database, which a refused request must leave as it was.
"""

import base64
import json
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import pytest
import pytest_asyncio

from service.app import create_app
from service.settings import Settings
from tests.conftest import running, with_database
from tests.helpers.support import KEY, Client, heartbeat, hours_ago, interface

pytestmark = pytest.mark.asyncio(loop_scope="module")

ONE = "/api/v1/agents/heartbeat"
MANY = "/api/v1/agents/heartbeats"
NDJSON = "application/x-ndjson"
PROBLEM = "application/problem+json"
T0 = hours_ago(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(database_server: str, template: str) -> AsyncIterator[asyncpg.Connection]:
    name = f"linkbeat_test_{uuid.uuid4().hex[:8]}"
    maker = await asyncpg.connect(database_server)
    await maker.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    connection = await asyncpg.connect(with_database(database_server, name))
    yield connection
    await connection.close()
    await maker.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await maker.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(
    database: asyncpg.Connection, database_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Client]:
    url = with_database(database_server, await database.fetchval("SELECT current_database()"))
    directory: Path = tmp_path_factory.mktemp("data")
    app = create_app(Settings(api_key=KEY, data_dir=str(directory)), database_url=url, key=KEY)
    async with (
        running(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://linkbeat",
            headers={"Authorization": f"Bearer {KEY}"},
        ) as http,
    ):
        client = Client(http)
        await client.post(heartbeat("nas", at=T0, eth0=(1_000, 2_000)))
        yield client


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a client sends wrongly is the client's: no error of ours in the log, and no value that the database sees."""
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def rows(database: asyncpg.Connection) -> list[int]:
    """How much is stored, and whether it is still the same."""
    counts = await database.fetchrow(
        "SELECT (SELECT count(*) FROM servers), (SELECT sum(cardinality(interfaces)) FROM servers), "
        "(SELECT count(*) FROM network_interface_metrics), (SELECT coalesce(sum(hashtext(s::text)), 0) FROM servers s)"
    )
    return list(counts or ())


def is_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer's problem details, which must be of this kind."""
    assert answer.headers["content-type"] == PROBLEM, answer.text
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), answer.text
    assert problem["title"]
    return problem


def paths(problem: dict[str, Any]) -> list[str]:
    return [error["path"] for error in problem.get("errors", [])]


BODY = heartbeat("bad", eth0=(1, 2), wlan0=(3, 4)) | {
    "os_info": {"system": "Linux"},
    "metrics": {"cpu_percent": 1.5},
    "filesystems": [{"mount_point": "/"}],
    "delivery": {"queued": 1},
}


def with_value(path: str, text: str | bytes) -> bytes:
    """BODY with one value replaced by this JSON text, or what is none: with_value("network_interfaces.0.name", "1")."""
    body = json.loads(json.dumps(BODY))
    *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = body
    for step in parents:
        place = place[step]
    place[last] = "@@"
    return json.dumps(body).encode().replace(b'"@@"', text.encode() if isinstance(text, str) else text)


def without(field: str) -> bytes:
    return json.dumps({name: value for name, value in BODY.items() if name != field}).encode()


def nested(levels: int) -> str:
    return '{"a":[' * (levels // 2) + "1" + "]}" * (levels // 2)


RX = "network_interfaces.0.rx_bytes"
NAME = "network_interfaces.0.name"
SURROGATE = '"\\ud800"'

REFUSED: dict[str, tuple[bytes, int, str, str | None]] = {
    "without server_id": (without("server_id"), 422, "invalid", "server_id"),
    "without hostname": (without("hostname"), 422, "invalid", "hostname"),
    "an interface without anything": (with_value("network_interfaces.0", "{}"), 422, "invalid", NAME),
    **{
        f"rx_bytes {name}": (with_value(RX, text), 422, "invalid", RX)
        for name, text in {
            "negative": "-1", "2**64": str(2**64), "of 400 digits": "9" * 400, "of 5000 digits": "9" * 5_000,
            "1.0": "1.0", "a string": '"1"', "true": "true", "null": "null", "1e400": "1e400",
        }.items()
    },
    **{
        f"{path} {text}": (with_value(path, text), 422, "invalid", path)
        for path, text in (
            ("server_id", "1"), ("server_id", '""'), ("server_id", '"nas\\n"'), ("server_id", '"a b"'),
            ("server_id", '"../x"'), ("server_id", "null"), ("hostname", "[]"), ("hostname", '""'),
            ("status", "true"), ("boot_id", "5"),
            ("os_info", "[]"), ("metrics", '"x"'), ("metrics.cpu_percent", "-1"), ("metrics.network_rx_bytes", "-1"),
            ("metrics.network_tx_bytes", str(2**64)), ("network_interfaces", "{}"), ("network_interfaces.1", "null"),
            ("network_interfaces.0.is_up", "1"), ("network_interfaces.0.tx_dropped", str(2**64)),
            ("filesystems", "5"), ("filesystems.0.used_bytes", str(2**64)), ("filesystems.0.percent", '"60"'),
            ("timestamp", "1769680800"), ("timestamp", '"2026-01-29T10:00:00"'), ("timestamp", '"yesterday"'),
            ("delivery", "[]"), ("delivery.queued", "-1"), ("delivery.queued", "1.5"), ("delivery.queued", str(2**63)),
            ("delivery.spool_bytes", str(10**30)), ("delivery.dropped", '"0"'), ("delivery.rejected", "true"),
            ("delivery.oldest_seconds", "-0.1"), ("delivery.oldest_seconds", "1e11"), ("delivery.spool", '"tape"'),
            ("truncated", "1"), ("truncated", '"yes"'),
            ("timestamp", '"0000-01-01T00:00:00Z"'), ("timestamp", '"2026-13-01T00:00:00Z"'),
        )
    },
    **{
        f"{path} with {escape}": (with_value(path, f'"a{escape}b"'), 422, "invalid", path)
        for path in ("server_id", "hostname", "server_guid", NAME)
        for escape in ("\\u0000", "\\n", "\\u001b", "\\u009b")
    },
    **{
        f"interface {text}": (with_value(NAME, text), 422, "invalid", NAME)
        for text in ('""', '"a/b"', '"../../etc"', '"eth0\\n"', '"a\\tb"', '"a\\u007f"', '"a\\u009b"', f'"{"e" * 65}"')
    },
    "an interface that stands twice": (with_value("network_interfaces.1.name", '"eth0"'), 422, "invalid",
                                       "network_interfaces.1.name"),
    **{
        f"{levels} levels in os_info": (with_value("os_info", nested(levels)), 422, "invalid", "os_info")
        for levels in (10, 102, 600, 800, 900)
    },
    "a number that no type holds in os_info": (with_value("os_info.system", "1e400"), 422, "invalid", None),
    "null": (b"null", 422, "invalid", ""),
    "a number": (b"42", 422, "invalid", ""),
    "a string": (b'"nas"', 422, "invalid", ""),
    "an array": (b"[]", 422, "invalid", ""),
    "100000 levels in os_info": (with_value("os_info", nested(100_000)), 400, "invalid_json", None),
    "100000 levels in an unknown field": (with_value("services", nested(100_000)), 400, "invalid_json", None),
    "invalid UTF-8": (with_value("hostname", b'"\xff\xfe"'), 400, "invalid_json", None),
    "invalid UTF-8 in os_info": (with_value("os_info.system", b'"\xc3\x28"'), 400, "invalid_json", None),
    "a lone surrogate": (with_value("hostname", SURROGATE), 400, "invalid_json", None),
    "a lone surrogate in os_info": (with_value("os_info.system", SURROGATE), 400, "invalid_json", None),
    "a lone surrogate as a name": (with_value("os_info", "{" + SURROGATE + ": 1}"), 400, "invalid_json", None),
    "NaN": (with_value(RX, "NaN"), 400, "invalid_json", None),
    "a NUL that is not escaped": (with_value("hostname", '"a\0b"'), 400, "invalid_json", None),
    "a truncated body": (json.dumps(BODY).encode()[:-20], 400, "invalid_json", None),
    "two bodies": (json.dumps(BODY).encode() * 2, 400, "invalid_json", None),
    "an empty body": (b"", 400, "invalid_json", None),
    "gzip that nobody declared": (b"\x1f\x8b\x08\x00" + bytes(100), 400, "invalid_json", None),
}  # fmt: skip


@pytest.mark.parametrize(("body", "status", "code", "field"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_heartbeat_not_as_specified_is_refused_and_not_stored(
    service: Client, database: asyncpg.Connection, body: bytes, status: int, code: str, field: str | None
) -> None:
    before = await rows(database)

    answer = await service.post_raw(body)

    problem = is_problem(answer, status, code)
    if field is not None:
        assert paths(problem)[0] == field.replace(".0", "[0]").replace(".1", "[1]")
        assert problem["errors"][0]["reason"] in problem["detail"]
    assert await rows(database) == before


@pytest.mark.parametrize(("body", "status", "code", "field"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_bad_record_of_a_batch_is_named_and_its_neighbours_are_stored(
    service: Client, database: asyncpg.Connection, body: bytes, status: int, code: str, field: str | None
) -> None:
    before, after = (json.dumps(heartbeat(f"{name}-{uuid.uuid4()}", eth0=(1, 2))).encode() for name in "ab")

    lines = before + b"\n" + (body if body.strip() else b"{") + b"\r\n\n" + after
    answer = await service.http.post(MANY, content=lines, headers={"Content-Type": NDJSON})

    assert answer.status_code == 200, answer.text
    result = answer.json()
    assert (result["stored"], result["duplicate"]) == (2, 0)
    (rejected,) = result["rejected"]
    assert (rejected["index"], rejected["code"]) == (1, code)
    assert rejected["errors"][0]["reason"]
    if field is not None:
        assert rejected["errors"][0]["path"] == field.replace(".0", "[0]").replace(".1", "[1]")
    neighbours = [json.loads(one)["server_id"] for one in (before, after)]
    stored = "SELECT count(*) FROM network_interface_metrics WHERE server_id = ANY ($1)"
    assert await database.fetchval(stored, neighbours) == 2
    assert await database.fetchval(stored, ["bad"]) == 0


async def test_the_bad_records_of_an_array_are_named_by_their_place(
    service: Client, database: asyncpg.Connection
) -> None:
    good = [heartbeat(f"array-{n}", at=T0, eth0=(n, n)) for n in range(3)]
    bad = heartbeat("array-bad", at=T0, eth0=(-1, 0))
    old = heartbeat("array-old", at=T0 - timedelta(days=30))

    result = await service.post_batch([good[0], bad, 5, good[1], None, {}, old, good[2]])

    assert (result["stored"], result["duplicate"], result["conflict"]) == (3, 0, 0)
    assert [(one["index"], one["code"], one["errors"][0]["path"]) for one in result["rejected"]] == [
        (1, "invalid", "network_interfaces[0].rx_bytes"),
        (2, "invalid", ""),
        (4, "invalid", ""),
        (5, "invalid", "server_id"),
        (6, "too_old", "timestamp"),
    ]
    known = await database.fetch("SELECT server_id FROM servers WHERE server_id LIKE 'array%' ORDER BY 1")
    assert [row[0] for row in known] == ["array-0", "array-1", "array-2"]


async def test_a_record_sent_twice_in_a_batch_is_stored_once(service: Client, database: asyncpg.Connection) -> None:
    beat = heartbeat("twice", at=T0, eth0=(1, 2))
    other = heartbeat("twice", at=T0, eth0=(5, 6))

    result = await service.post_batch([beat, beat, other])

    assert (result["stored"], result["duplicate"], result["conflict"], result["rejected"]) == (1, 2, 1, [])
    stored = await database.fetch("SELECT rx_bytes FROM network_interface_metrics WHERE server_id = 'twice'")
    assert [row["rx_bytes"] for row in stored] == [1]


@pytest.mark.parametrize(
    ("timestamp", "code"),
    [
        (timedelta(minutes=6), "clock_future"),
        (timedelta(days=365), "clock_future"),
        (-timedelta(days=15), "too_old"),
        ("1970-01-01T00:00:00Z", "too_old"),
        ("0001-01-01T00:00:00Z", "too_old"),
        ("0001-01-01T00:00:00+14:00", "too_old"),
        ("9999-12-31T23:59:59Z", "clock_future"),
        ("9999-12-31T23:59:59-12:00", "clock_future"),
    ],
)
async def test_a_time_outside_the_window_makes_no_chunk(
    service: Client, database: asyncpg.Connection, timestamp: timedelta | str, code: str
) -> None:
    before = await rows(database)
    chunks = await database.fetch("SELECT * FROM timescaledb_information.chunks")
    if isinstance(timestamp, timedelta):
        timestamp = (datetime.now(UTC) + timestamp).isoformat()

    answer = await service.post_raw(json.dumps({**BODY, "timestamp": timestamp}).encode())

    problem = is_problem(answer, 422, code)
    assert paths(problem) == ["timestamp"]
    assert f"{datetime.now(UTC):%Y-%m-%dT}" in problem["detail"]
    assert await rows(database) == before
    assert await database.fetch("SELECT * FROM timescaledb_information.chunks") == chunks


TAKEN = {
    "an interface with spaces": with_value(NAME, '"Local Area Connection* 2"'),
    "an interface that looks like HTML": with_value(NAME, '"<script>alert(1)<"'),
    "numbers of any size in os_info": with_value("os_info", f'{{"a": {10**400}, "b": -{2**70}}}'),
    "8 levels in os_info": with_value("os_info", nested(8)),
    "600 levels in an unknown field": with_value("services", nested(600)),
    "850 levels in an unknown field": with_value("services", nested(850)),
    "NUL in an unknown field": with_value("packages", '["\\u0000"]'),
    "a backslash before u0000": with_value("os_info.system", '"\\\\u0000"'),
    "invalid UTF-8 in an unknown field": with_value("packages", b'"\xff"'),
    "null where nothing is known": with_value("metrics", "null"),
    "a name twice in an object": with_value("hostname", '"first", "hostname": "last"'),
}


@pytest.mark.parametrize("body", TAKEN.values(), ids=TAKEN.keys())
async def test_what_is_odd_but_right_is_stored_and_shown(
    service: Client, database: asyncpg.Connection, body: bytes
) -> None:
    server_id = f"odd-{uuid.uuid4()}"

    answer = await service.post_raw(body.replace(b'"bad"', f'"{server_id}"'.encode()))

    assert answer.status_code == 200, answer.text
    shown = await service.get(f"/servers/{server_id}")
    sent = json.loads(body.decode("utf-8", "replace"))
    assert shown["hostname"] == sent["hostname"]
    assert shown["os_info"] == sent["os_info"]
    assert {one["name"] for one in shown["network_interfaces"]} == {one["name"] for one in sent["network_interfaces"]}


SENSELESS = [
    ("network_interfaces.0.speed_mbps", text)
    for text in ("4294967295", "-2", "1e300", str(10**400), '"fast"', "true", "[]", "1.5")
] + [
    ("network_interfaces.0.kind", '"a kind of some thirty letters more"'),
    ("network_interfaces.0.kind", "7"),
    ("network_interfaces.0.operstate", "true"),
    ("network_interfaces.0.operstate", '"a\\u0000b"'),
    ("network_interfaces.0.stacked_on", '"wlan0"'),
    ("network_interfaces.0.stacked_on", "{}"),
    ("network_interfaces.0.stacked_on", "[5]"),
    ("network_interfaces.0.stacked_on", '["eth0"]'),
    ("interval_seconds", "0"),
    ("interval_seconds", '"30"'),
    ("interval_seconds", "1e300"),
    ("agent_version", "1.0"),
    ("agent_version", '"a\\u0000b"'),
    *(("primary_interface", f'"a{escape}b"') for escape in ("\\u0000", "\\n", "\\u001b", "\\u009b")),
    ("primary_interface", '"eth9"'),
    ("primary_interface", "[]"),
]


@pytest.mark.parametrize(("path", "text"), SENSELESS)
async def test_a_senseless_hint_is_null_and_the_rest_of_its_heartbeat_is_stored(
    service: Client, path: str, text: str
) -> None:
    server_id = f"hint-{uuid.uuid4()}"
    hint = path.rpartition(".")[2]

    answer = await service.post_raw(with_value(path, text).replace(b'"bad"', f'"{server_id}"'.encode()))

    assert answer.status_code == 200, answer.text
    shown = await service.get(f"/servers/{server_id}")
    eth0, wlan0 = shown["network_interfaces"]
    assert [(one["name"], one["rx_bytes"], one["tx_bytes"]) for one in (eth0, wlan0)] == [
        ("eth0", 1, 2), ("wlan0", 3, 4),
    ]  # fmt: skip
    assert (eth0["is_lowest"], wlan0["is_lowest"]) == (True, True)
    assert {**shown, **eth0, **await service.get(f"/servers/{server_id}/agent")}.get(hint) in (
        [None, 30.0] if hint == "interval_seconds" else [None]
    )


async def test_interfaces_stacked_in_a_circle_are_in_their_servers_sum(service: Client) -> None:
    server_id = f"circle-{uuid.uuid4()}"
    for n in range(2):
        interfaces = [
            interface("bond0", n * 1_000, stacked_on=["eth0"]),
            interface("eth0", n * 500, stacked_on=["bond0"]),
            interface("vlan7", n * 100, stacked_on=["bond0"]),
        ]
        await service.post(
            heartbeat(server_id, at=hours_ago(0) - timedelta(minutes=1 - n)) | {"network_interfaces": interfaces}
        )

    answer = await service.get(f"/metrics/sparkline/{server_id}/network")

    assert answer["interfaces"] == ["bond0", "eth0"]
    assert sum(point["rx_bytes"] for point in answer["data"]) == 1_500


async def test_no_depth_of_os_info_fails_the_service(service: Client, database: asyncpg.Connection) -> None:
    """What is decoded at one depth of the stack is encoded at another: the interpreter's limit lies between."""
    before = await rows(database)

    for levels in [*range(600, 880, 40), *range(880, 992, 2)]:
        answer = await service.post_raw(with_value("os_info", nested(levels)))
        assert answer.status_code in (400, 422), levels

    assert await rows(database) == before


async def test_every_field_that_is_wrong_is_named(service: Client) -> None:
    body = {"server_id": "a b", "network_interfaces": [interface("eth0", 2**64) | {"tx_bytes": "x"}], "status": 5}

    problem = is_problem(await service.post_raw(json.dumps(body).encode()), 422, "invalid")

    assert paths(problem) == [
        "server_id",
        "hostname",
        "status",
        "network_interfaces[0].rx_bytes",
        "network_interfaces[0].tx_bytes",
    ]
    assert "network_interfaces[0].tx_bytes: expected int, got str" in problem["detail"]


@pytest.mark.parametrize("path", [ONE, MANY])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_too_large_is_refused_without_reading_it_all(
    service: Client, database: asyncpg.Connection, path: str, chunked: bool
) -> None:
    before, sent = await rows(database), 0

    async def megabytes() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(20):
            sent += 1
            yield b" " * (1 << 20)

    length = {} if chunked else {"Content-Length": str(20 << 20)}
    answer = await service.http.post(path, content=megabytes(), headers={"Content-Type": "application/json"} | length)

    is_problem(answer, 413, "too_large")
    assert answer.headers["connection"] == "close"
    assert sent <= ((2 if path == ONE else 9) if chunked else 0)
    assert await rows(database) == before


@pytest.mark.parametrize(
    ("length", "status", "code"),
    [
        (str(10**11), 413, "too_large"),
        ("9" * 5_000, 413, "too_large"),
        ("-5", 400, "bad_request"),
        ("abc", 400, "bad_request"),
        ("", 400, "bad_request"),
    ],
)
async def test_a_length_that_cannot_be_is_refused(service: Client, length: str, status: int, code: str) -> None:
    answer = await service.http.post(ONE, content=b"{}", headers={"Content-Length": length})

    is_problem(answer, status, code)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (ONE, {"Content-Type": "text/plain"}),
        (ONE, {"Content-Type": "application/x-www-form-urlencoded"}),
        (ONE, {"Content-Type": NDJSON}),
        (ONE, {"Content-Type": "caf\xe9".encode("latin-1")}),
        (ONE, {"Content-Type": "application/json", "Content-Encoding": "br"}),
        (ONE, {"Content-Type": "application/json", "Content-Encoding": "gzip, gzip"}),
        (MANY, {"Content-Type": "text/csv"}),
        (MANY, {"Content-Type": NDJSON, "Content-Encoding": "zstd"}),
    ],
)
async def test_a_type_or_encoding_not_understood_is_refused(
    service: Client, database: asyncpg.Connection, path: str, headers: dict[str, Any]
) -> None:
    before = await rows(database)

    answer = await service.http.post(path, content=json.dumps(BODY).encode(), headers=headers)

    is_problem(answer, 415, "unsupported_media_type")
    assert await rows(database) == before


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "APPLICATION/JSON"},
        {"Content-Type": "application/json", "Content-Encoding": "identity"},
    ],
)
async def test_json_is_understood_however_it_is_named(service: Client, headers: dict[str, str]) -> None:
    body = json.dumps(heartbeat("named", eth0=(1, 2))).encode()

    answer = await service.http.post(ONE, content=body, headers=headers)

    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", [ONE, MANY])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_the_ingest_routes_take_posts_only(service: Client, path: str, method: str) -> None:
    answer = await service.http.request(method, path)

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.headers["content-type"] == PROBLEM


@pytest.mark.parametrize(
    "path",
    ["/api/v1/servers", "/api/v1/servers/nas", "/api/v1/agents", "/api/v1/metrics/sparkline/nas/network"],
)
async def test_the_read_routes_take_no_posts(service: Client, path: str) -> None:
    is_problem(await service.http.put(path, json={}), 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/x", f"{ONE}/x", f"{MANY}%00", "/api/v1/servers/a/b", "/%ff/%00"])
async def test_other_paths_lead_nowhere(service: Client, path: str) -> None:
    is_problem(await service.http.get(path), 404, "not_found")


@pytest.mark.parametrize("path", [ONE, MANY])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Basic {base64.b64encode(f'agent:{KEY}'.encode()).decode()}"},
        {"Authorization": f"Token {KEY}"},
        {"Authorization": KEY},
        {"X-API-Key": "wrong"},
        {"X-API-Key": ""},
        {"X-API-Key": f"Bearer {KEY}"},
    ],
)
async def test_without_a_valid_key_the_body_is_not_even_read(
    service: Client, database: asyncpg.Connection, path: str, headers: dict[str, Any]
) -> None:
    before, was_read = await rows(database), False

    async def body() -> AsyncIterator[bytes]:
        nonlocal was_read
        was_read = True
        yield json.dumps(BODY).encode()

    answer = await send_without_key(service, path, body(), headers)

    is_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert not was_read
    assert await rows(database) == before


@pytest.mark.parametrize(
    "headers", [{"X-API-Key": KEY}, {"Authorization": f"bearer {KEY}"}, {"Authorization": f"Bearer  {KEY} "}]
)
async def test_agents_in_the_field_name_their_key_otherwise(service: Client, headers: dict[str, str]) -> None:
    body = json.dumps(heartbeat("field", eth0=(1, 2))).encode()

    answer = await send_without_key(service, ONE, body, headers)

    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", ["/servers", "/servers/nas", "/metrics/sparkline/nas/network"])
async def test_reading_takes_a_key_as_well(service: Client, path: str) -> None:
    request = service.http.build_request("GET", f"/api/v1{path}")
    del request.headers["Authorization"]

    is_problem(await service.http.send(request), 401, "unauthorized")


async def send_without_key(
    service: Client, path: str, body: bytes | AsyncIterator[bytes], headers: dict[str, Any]
) -> httpx.Response:
    request = service.http.build_request("POST", path, content=body, headers={"Content-Type": "application/json"})
    del request.headers["Authorization"]
    request.headers.update(headers)
    return await service.http.send(request)


async def test_a_batch_as_lines_may_have_blank_ones(service: Client, database: asyncpg.Connection) -> None:
    first, second = (json.dumps(heartbeat(f"line-{n}", at=T0, eth0=(1, 2))).encode() for n in range(2))

    answer = await service.http.post(
        MANY, content=b"\r\n" + first + b"\r\n\r\n  \n" + second + b"\n\n", headers={"Content-Type": NDJSON}
    )

    assert (answer.status_code, answer.json()["stored"], answer.json()["rejected"]) == (200, 2, [])
    assert await database.fetchval("SELECT count(*) FROM servers WHERE server_id LIKE 'line-%'") == 2


@pytest.mark.parametrize(("body", "content_type"), [(b"[]", "application/json"), (b"", NDJSON), (b"\r\n\n", NDJSON)])
async def test_an_empty_batch_stores_nothing(
    service: Client, database: asyncpg.Connection, body: bytes, content_type: str
) -> None:
    before = await rows(database)

    answer = await service.http.post(MANY, content=body, headers={"Content-Type": content_type})

    assert answer.status_code == 200, answer.text
    assert (answer.json()["stored"], answer.json()["duplicate"], answer.json()["rejected"]) == (0, 0, [])
    assert await rows(database) == before


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"", "application/json", 400, "invalid_json"),
        (b"[{}", "application/json", 400, "invalid_json"),
        (b"\xff", "application/json", 400, "invalid_json"),
        (b"[" * 100_000, "application/json", 400, "invalid_json"),
        (json.dumps(BODY).encode(), "application/json", 422, "invalid"),
        (b"null", "application/json", 422, "invalid"),
        (json.dumps([BODY] * 1_001).encode(), "application/json", 413, "too_large"),
        (json.dumps(BODY).encode() + b"\n" + b"{}\n" * 1_000, NDJSON, 413, "too_large"),
        (b"[" + b"1," * 4_000_000 + b"1]", "application/json", 413, "too_large"),
    ],
    ids=["empty", "truncated", "no UTF-8", "too deep", "an object", "null", "too many", "too many lines", "millions"],
)
async def test_a_batch_that_cannot_be_read_is_refused_as_a_whole(
    service: Client, database: asyncpg.Connection, body: bytes, content_type: str, status: int, code: str
) -> None:
    before = await rows(database)

    answer = await service.http.post(MANY, content=body, headers={"Content-Type": content_type})

    is_problem(answer, status, code)
    assert await rows(database) == before


def cursor(*content: Any) -> str:
    return quote(base64.urlsafe_b64encode(json.dumps(content).encode()).decode())


SPARKLINES = ("/metrics/sparkline/nas/network", "/metrics/sparkline/network")


@pytest.mark.parametrize("path", SPARKLINES)
@pytest.mark.parametrize("period", ["2h", "", "1H", "1h%0a", "%00", "%ff", "0", "-1h", "9" * 1_000, "1h'--"])
async def test_an_unknown_period_is_answered_with_those_there_are(service: Client, path: str, period: str) -> None:
    problem = is_problem(await service.http.get(f"/api/v1{path}?period={period}"), 422, "invalid")

    assert paths(problem) == ["period"]
    assert "1h, 24h, 7d, 30d, 1y" in problem["detail"]


@pytest.mark.parametrize("path", SPARKLINES)
@pytest.mark.parametrize(
    ("query", "field"),
    [
        *(
            (f"period={period}&bucket={bucket}", "bucket")
            for period, bucket in (
                ("1h", "5x"), ("1h", "5"), ("1h", "m"), ("1h", ""), ("1h", "0m"), ("1h", "-5m"), ("1h", "1.5m"),
                ("1h", "1s"), ("1h", "90s"), ("1h", "61m"), ("1h", "999999d"), ("1h", "9" * 100 + "m"),
                ("1h", "5m%0a"), ("1h", "%00"), ("1h", "5m%00"), ("1h", "%ff"), ("1h", "%D9%A3m"),
                ("24h", "7m"), ("24h", "20m"), ("1y", "1h"),
            )
        ),
        *((f"fill={fill}", "fill") for fill in ("0", "", "zero", "NULL", "%00", "%ff")),
    ],
)  # fmt: skip
async def test_a_bucket_or_fill_that_there_is_not_is_named(service: Client, path: str, query: str, field: str) -> None:
    problem = is_problem(await service.http.get(f"/api/v1{path}?{query}"), 422, "invalid")

    assert paths(problem) == [field]
    assert problem["errors"][0]["reason"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("/metrics/sparkline/nas/network?group_by=server", "group_by"),
        ("/metrics/sparkline/nas/network?interface=" + "e" * 256, "interface"),
        *((f"/servers?limit={limit}", "limit") for limit in ("0", "-1", "1001", "9" * 5_000, "x", "", "%00", "%ff")),
        ("/servers?status=asleep", "status"),
        ("/servers?sort=%ff", "sort"),
        ("/servers?order=random()", "order"),
        ("/servers?search=" + "x" * 256, "search"),
        *(
            (f"/servers?{query}", "after")
            for query in (
                "after=garbage", "after=", "after=%00", "after=%ff", "after=%F0%9F%98%80", "after=" + "A" * 1_001,
                f"after={cursor()}", f"after={cursor('id', 1, 'a')}", f"after={cursor('id', 'a')}",
                f"after={cursor('hostname', 'a', 'a')}", f"after={cursor({'a': 1})}",
                f"sort=last_seen&after={cursor('last_seen', 'x', 'a')}",
                f"sort=last_seen&after={cursor('last_seen', '2026-01-29T10:00:00', 'a')}",
                f"after={base64.urlsafe_b64encode(b'[' * 700).decode()}",
                f"after={base64.urlsafe_b64encode(bytes([0xff]) * 9).decode()}",
            )
        ),
    ],
)  # fmt: skip
async def test_a_wrong_parameter_is_named(service: Client, query: str, field: str) -> None:
    problem = is_problem(await service.http.get(f"/api/v1{query}"), 422, "invalid")

    assert paths(problem) == [field]
    assert problem["errors"][0]["reason"]


@pytest.mark.parametrize(
    "query",
    [
        f"after={cursor('id', 'a%00', 'a')}",
        f"after={cursor('id', chr(0), chr(0))}",
        f"sort=hostname&after={cursor('hostname', chr(0), 'a')}",
        *(
            f"sort=last_seen&order={order}&after={cursor('last_seen', moment, chr(0))}"
            for order in ("asc", "desc")
            for moment in (
                "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z",
                "9999-12-31T23:59:59-12:00",
            )
        ),
    ],
)  # fmt: skip
async def test_a_cursor_that_was_made_up_is_no_failure(service: Client, query: str) -> None:
    answer = await service.http.get(f"/api/v1/servers?{query}")

    assert answer.status_code in (200, 422), answer.text


@pytest.mark.parametrize("name", ["nobody", "%00", "na%00s", "%ff", "%ed%a0%80", "..%2f..", "'--", "a" * 5_000])
async def test_a_server_of_no_possible_name_is_unknown(service: Client, name: str) -> None:
    one = await service.http.get(f"/api/v1/servers/{name}")
    sparkline = await service.http.get(f"/api/v1/metrics/sparkline/{name}/network")
    of_fleet = await service.http.get(f"/api/v1/metrics/sparkline/network?server={name}")

    for answer in (one, sparkline):
        assert answer.status_code == 404
        assert answer.headers["content-type"] == PROBLEM
        assert answer.json()["code"] in ("unknown_server", "not_found")
    assert (of_fleet.status_code, of_fleet.json()["series"]) == (200, [])


@pytest.mark.parametrize("name", ["", "%00", "eth0%00", "%ff", "%ed%a0%80", "'--", "e" * 255])
async def test_an_interface_never_seen_has_no_points(service: Client, name: str) -> None:
    answer = await service.http.get(f"/api/v1/metrics/sparkline/nas/network?interface={name}")

    assert (answer.status_code, answer.json()["data"]) == (200, [])


@pytest.mark.parametrize("text", ["%00%00", "x%ff", "%ed%a0%80", "%25", "_", "'--", "nas%00x"])
async def test_a_search_takes_any_text(service: Client, text: str) -> None:
    answer = await service.http.get(f"/api/v1/servers?search={text}")

    assert answer.status_code == 200, answer.text
