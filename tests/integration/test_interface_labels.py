"""Display names of interfaces: set, unique within a server, and taken wherever an interface is asked for."""

import asyncio
import csv
import io
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.helpers.support import Client, heartbeat, interface

BEGIN = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=5)
BOOT = "7f9a2a4e-3c1c-4a66-9c8e-0d6a6a3a51c1"


@pytest.fixture(autouse=True)
async def _renamed(service: Client) -> None:
    """Within a boot, ens3 is renamed to lan0; its series remains ens3. wlan0 is beside it."""
    for number, name in enumerate(("ens3", "ens3", "lan0", "lan0")):
        counted = interface(name, 10**6 * (number + 1), 10**5, ifindex=2, kind="physical")
        wlan = interface("wlan0", 10**9 * (number + 1), 1, ifindex=3, kind="physical")
        await service.post(
            heartbeat("nas", at=BEGIN + number * timedelta(hours=1), boot=BOOT)
            | {"network_interfaces": [counted, wlan]}
        )


async def name(service: Client, series: str, display_name: str | None, **headers: str) -> Any:
    return await service.http.put(
        f"/api/v1/servers/nas/interfaces/{series}/labels", json={"display_name": display_name}, headers=headers
    )


async def test_an_interface_is_asked_for_by_each_of_its_names(service: Client) -> None:
    made = await name(service, "ens3", "WAN (fibre)")
    assert made.json() == {"server_id": "nas", "interface": "ens3", "display_name": "WAN (fibre)"}
    until = (BEGIN + timedelta(hours=6)).isoformat()
    requests: dict[str, dict[str, Any]] = {
        "/metrics/sparkline/nas/network": {"period": "24h"},
        "/traffic/history": {"server": "nas", "bucket": "1h", "since": BEGIN.isoformat(), "until": until},
        "/traffic/events": {"server": "nas", "since": BEGIN.isoformat(), "until": until},
        "/usage/nas": {"since": BEGIN.date().isoformat()},
        "/export/traffic": {"server": "nas", "bucket": "raw"},
    }

    for path, query in requests.items():
        said = {}
        for called in ("ens3", "lan0", "WAN (fibre)"):
            answer = await service.http.get(f"/api/v1{path}", params=query | {"interface": called})
            assert answer.status_code == 200, (path, called, answer.text)
            said[called] = re.sub('"interface":"(ens3|lan0|WAN [(]fibre[)])"', "", answer.text)
        assert len(set(said.values())) == 1, (path, said)
    rows = csv.DictReader(
        io.StringIO(
            (
                await service.http.get(
                    "/api/v1/export/traffic", params=requests["/export/traffic"] | {"interface": "WAN (fibre)"}
                )
            ).text
        )
    )
    assert [(row["interface_name"], row["rx_bytes"]) for row in rows] == [
        ("ens3", n) for n in ("0", "1000000", "1000000", "1000000")
    ]
    for called in ("ens3", "lan0", "WAN%20(fibre)"):
        for tail in ("", "/stats"):
            found = await service.get(f"/servers/nas/interfaces/{called}{tail}")
            one = found["interface"] if tail else found
            assert (one["name"], one["os_name"], one["display_name"]) == ("ens3", "lan0", "WAN (fibre)")
        assert (await service.get(f"/servers/nas/interfaces/{called}/labels"))["display_name"] == "WAN (fibre)"
    (shown,) = [one for one in (await service.get("/servers/nas"))["network_interfaces"] if one["name"] == "ens3"]
    assert shown["display_name"] == "WAN (fibre)"


async def test_a_quota_is_of_the_interface_that_has_the_name(service: Client) -> None:
    await name(service, "ens3", "WAN")

    made = await service.http.put("/api/v1/servers/nas/quota", json={"bytes": 10**12, "interface": "WAN"})

    assert made.json()["interface"] == "ens3"


async def test_a_name_that_another_interface_has_is_refused(service: Client, database: asyncpg.Connection) -> None:
    assert (await name(service, "ens3", "WAN")).is_success
    for taken in ("WAN", "ens3", "lan0"):
        refused = await name(service, "wlan0", taken)
        assert refused.status_code == 422, taken
        assert refused.json()["errors"] == [{"path": "display_name", "reason": "the interface 'ens3' has that name"}]
    assert (await name(service, "ens3", "lan0")).is_success  # its own
    assert (await name(service, "none", "x")).status_code == 404
    assert (await service.http.put("/api/v1/servers/none/interfaces/x/labels", json={})).status_code == 404
    assert [
        tuple(row) for row in await database.fetch("SELECT series, display_name FROM linkbeat.interface_labels")
    ] == [("ens3", "lan0")]


async def test_a_series_takes_precedence_over_a_display_name(service: Client) -> None:
    """One that appears later with a name that was given before."""
    await name(service, "ens3", "eth7")
    late = interface("eth7", 5, 5, ifindex=9, kind="physical")
    beat = heartbeat("nas", at=BEGIN + timedelta(hours=4), boot=BOOT) | {"network_interfaces": [late]}
    await service.post(beat)

    assert (await service.get("/servers/nas/interfaces/eth7"))["name"] == "eth7"
    history = {
        "server": "nas",
        "bucket": "1h",
        "since": BEGIN.isoformat(),
        "until": (BEGIN + timedelta(hours=6)).isoformat(),
    }
    found = await service.get("/traffic/history", **history, interface="eth7")
    assert {one["interface"] for one in found["data"]} == {"eth7"}


async def test_of_two_changes_at_once_one_is_refused(service: Client) -> None:
    seen = (await name(service, "ens3", "A")).headers["ETag"]

    answers = await asyncio.gather(*(name(service, "ens3", one, **{"If-Match": seen}) for one in "BC"))

    assert sorted(one.status_code for one in answers) == [200, 412]
    (won,) = [one.json()["display_name"] for one in answers if one.status_code == 200]
    assert (await service.get("/servers/nas/interfaces/ens3"))["display_name"] == won
    assert (await name(service, "ens3", None)).is_success
    assert (await service.get("/servers/nas/interfaces/ens3"))["display_name"] is None


@pytest.mark.parametrize("wrong", ["", " x", "x" * 101, "a\nb", 7])
async def test_a_wrong_name_is_refused_with_its_field(service: Client, wrong: Any) -> None:
    refused = await name(service, "ens3", wrong)
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, "display_name")
