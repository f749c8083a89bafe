"""Content-Encoding: gzip on the ingest routes: what it unpacks to is taken like any other body."""

import gzip
import json
import random
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from tests.helpers.bombs import bomb
from tests.helpers.support import Client, deltas, heartbeat, hours_ago

ONE = "/api/v1/agents/heartbeat"
MANY = "/api/v1/agents/heartbeats"
T0 = hours_ago(1)


async def packed(
    service: Client, path: str, body: bytes, content_type: str = "application/json", **headers: str
) -> httpx.Response:
    return await service.http.post(
        path, content=body, headers={"Content-Type": content_type, "Content-Encoding": "gzip", **headers}
    )


def beat(seconds: int, rx: int, **more: Any) -> bytes:
    return json.dumps(heartbeat(at=T0 + timedelta(seconds=seconds), eth0=(rx, 0)) | more).encode()


async def test_packed_heartbeats_are_stored_like_plain_ones(service: Client, database: asyncpg.Connection) -> None:
    one = await packed(service, ONE, gzip.compress(beat(0, 1_000)))
    lines = await packed(
        service, MANY, gzip.compress(beat(30, 1_500) + b"\n" + beat(60, 1_600)), "application/x-ndjson"
    )
    array = await packed(service, MANY, gzip.compress(b"[%s, %s]" % (beat(60, 1_600), beat(90, 1_700))))

    assert one.json()["server_registered"] is True
    assert (lines.json()["stored"], lines.json()["duplicate"]) == (2, 0)
    assert (array.json()["stored"], array.json()["duplicate"]) == (1, 1)
    assert await deltas(database) == [(0, "first"), (500, "normal"), (100, "normal"), (100, "normal")]


@pytest.mark.parametrize("path", [ONE, MANY])
async def test_every_answer_says_that_gzip_is_taken(service: Client, path: str) -> None:
    body = beat(0, 1)
    json_body = {"Content-Type": "application/json"}
    answers = [
        await service.http.post(path, content=body if path == ONE else b"[%s]" % body, headers=json_body),
        await service.http.post(path, content=b"", headers=json_body),
        await packed(service, path, b"damaged"),
        await service.http.post(path, content=body, headers={"Authorization": "Bearer wrong"}),
        await service.http.get(path),
        await packed(service, path, bomb(16 << 20)),
        await service.http.post(path, content=body, headers=json_body | {"Content-Encoding": "zstd"}),
        await service.http.post(path, content=b"5", headers=json_body),
    ]

    assert [answer.status_code for answer in answers] == [200, 400, 400, 401, 405, 413, 415, 422]
    assert {answer.headers["accept-encoding"] for answer in answers} == {"gzip"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "ends early"),
        (gzip.compress(beat(0, 1))[:-1], "ends early"),
        (gzip.compress(beat(0, 1)) + b"garbage", "incorrect header check"),
        (gzip.compress(beat(0, 1))[:-5] + b"12345", "incorrect"),
        (beat(0, 1), "incorrect header check"),
    ],
)
async def test_damaged_gzip_is_refused_with_what_is_wrong(
    service: Client, database: asyncpg.Connection, body: bytes, reason: str
) -> None:
    answer = await packed(service, ONE, body)

    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_gzip"
    assert reason in answer.json()["detail"]
    assert await database.fetchval("SELECT count(*) FROM servers") == 0


async def test_no_damage_is_answered_otherwise_than_as_the_clients(
    service: Client, database: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(4)
    statuses = set()

    for n in range(400):
        body = beat(n, n, os_info={"noise": chance.randbytes(chance.randrange(200)).hex()})
        whole = bytearray(gzip.compress(body if n % 2 else body[: chance.randrange(len(body))]))
        for _ in range(chance.choice((0, 1, 1, 3))):
            whole[chance.randrange(len(whole))] = chance.randrange(256)
        del whole[chance.choice((len(whole), chance.randrange(len(whole)))) :]
        whole += chance.choice((b"", b"", bytes(whole), chance.randbytes(5)))
        path, encoding = chance.choice((ONE, MANY)), chance.choice(("gzip", "gzip", "gzip", "GZIP", "gzip,br"))
        answer = await packed(service, path, bytes(whole), **{"Content-Encoding": encoding})
        statuses.add(answer.status_code)

    assert statuses == {200, 400, 415, 422}
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    assert await database.fetchval("SELECT count(*) FROM network_interface_metrics") > 0
