"""deploy/grafana: the dashboards are what their generator writes, and every query of theirs is answered as analyst."""

import asyncio
import itertools
import json
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml  # type: ignore[import-untyped]

from deploy.grafana.generate import DASHBOARDS, dashboards, text
from deploy.grafana.panels import COLUMNS, DATASOURCE
from tests.conftest import run_on, with_database
from tests.helpers import fleet
from tests.helpers.fleet import BUSY, GAP, NOW, QUARTER
from tests.helpers.grafana import Asked, expanded, ranges
from tests.helpers.support import as_login, connected

PROVISIONING = DASHBOARDS.parent / "provisioning"
FLEET, SERVER = dashboards()["fleet.json"], dashboards()["server.json"]
LEVELS = {
    "1h": "1m", "6h": "1m", "24h": "15m", "3d": "15m", "7d": "1h", "30d": "1h", "90d": "1d", "1y": "1d", "5y": "1d",
}  # fmt: skip
SECONDS = {"1m": 60, "15m": 900, "1h": 3600, "1d": 86400}
LONGEST_SECONDS = 10.0  # of any query; an analyst's own limit is 60
QUOTED = "o'server\\"  # no server is called so: what a name could do to the SQL around it


@pytest.fixture(scope="module")
def fleet_url(database_server: str, template: str) -> Iterator[str]:
    """The fleet's database: one for all of this file, in which nobody writes."""
    name = f"linkbeat_test_{uuid.uuid4().hex[:8]}"
    asyncio.run(run_on(database_server, f"CREATE DATABASE {name} TEMPLATE {template}"))
    url = with_database(database_server, name)
    asyncio.run(store(url))
    yield url
    asyncio.run(run_on(database_server, f"DROP DATABASE {name} WITH (FORCE)"))


async def store(url: str) -> None:
    async with connected(url) as database:
        await fleet.store(database)
        await database.execute(
            "INSERT INTO filesystem_metrics (time, server_id, mount_point, device, fs_type, total_bytes, used_bytes, "
            "available_bytes, percent) VALUES ($1, 'nas', '/data', '/dev/sda', 'ext4', 100, 40, 60, 40)",
            NOW - QUARTER,
        )
        await database.execute(
            "INSERT INTO linkbeat.quotas VALUES ('nas', 10000000000, 'sum', 15, 'Europe/Berlin', NULL, 80)"
        )


@pytest.fixture
async def analyst(fleet_url: str) -> AsyncIterator[asyncpg.Connection]:
    """An analyst on the fleet's database, at NOW, with the limits that an analyst has."""
    async with connected(fleet_url, timezone="UTC") as database:
        await fleet.become_analyst(database)
        await database.execute("SET statement_timeout = '60s'; SET default_transaction_read_only = on")
        yield database


def panels(dashboard: dict[str, Any], *types: str) -> Iterator[dict[str, Any]]:
    return (panel for panel in dashboard["panels"] if not types or panel["type"] in types)


def titled(dashboard: dict[str, Any], title: str) -> dict[str, Any]:
    return next(panel for panel in panels(dashboard) if panel["title"] == title)


async def asked(database: asyncpg.Connection, dashboard: dict[str, Any], span: str, server: str = "nas") -> Asked:
    """The variables as Grafana finds them: each by its query, in order; of one choice `server`, of several all."""
    since, until = ranges(NOW)[span]
    found: dict[str, str | list[str]] = {}
    for variable in dashboard["templating"]["list"]:
        rows = await database.fetch(expanded(variable["query"], Asked(since, until, found)))
        values = [str(row[0]) for row in rows]
        assert len(rows) == 0 or len(rows[0]) == 1
        if variable.get("multi"):
            found[variable["name"]] = values or ["None"]
        else:
            assert variable["name"] == "level" or server in [*values, QUOTED]
            found[variable["name"]] = values[0] if variable["name"] == "level" else server
    return Asked(since, until, found)


async def answer(database: asyncpg.Connection, panel: dict[str, Any], wanted: Asked) -> list[asyncpg.Record]:
    (target,) = panel["targets"]
    interval = 60
    if panel["type"] == "timeseries":
        interval = wanted.interval_seconds(
            panel["interval"].replace("$level", str(wanted.variables["level"])), panel["maxDataPoints"]
        )
        assert interval == SECONDS[str(wanted.variables["level"])], "a bucket of the level is a point of the panel"
    started = time.monotonic()
    rows = await database.fetch(expanded(target["rawSql"], wanted, interval))
    assert time.monotonic() - started < LONGEST_SECONDS, f"{panel['title']}: too slow"
    return rows


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


@pytest.mark.parametrize("name", ["fleet.json", "server.json"])
def test_the_files_are_what_the_generator_writes(name: str) -> None:
    assert (DASHBOARDS / name).read_text(encoding="utf-8") == text(dashboards()[name])


@pytest.mark.parametrize("dashboard", [FLEET, SERVER], ids=["fleet", "server"])
def test_a_dashboard_is_in_order(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in panels(dashboard)]
    taken: set[tuple[int, int]] = set()
    for panel in panels(dashboard):
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another"
        assert place["x"] + place["w"] <= COLUMNS
        taken |= cells

    assert len(set(ids)) == len(ids)
    assert {panel["title"] for panel in panels(dashboard) if not panel["targets"]} == set()
    named = re.findall(r'"datasource": (\{[^}]*\})', text(dashboard))
    assert {json.dumps(json.loads(one)) for one in named} == {json.dumps(DATASOURCE)}
    assert all(
        panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False for panel in panels(dashboard, "timeseries")
    )


def test_what_is_provisioned_is_what_the_dashboards_ask() -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources/linkbeat.yaml").read_text(encoding="utf-8"))["datasources"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards/linkbeat.yaml").read_text(encoding="utf-8"))["providers"]

    assert (source["type"], source["uid"]) == (DATASOURCE["type"], DATASOURCE["uid"])
    assert source["jsonData"]["timescaledb"] is True
    assert re.fullmatch(r"\$\w+", source["secureJsonData"]["password"])
    assert Path(provider["options"]["path"]).name == "linkbeat"


async def test_every_query_is_answered_in_every_range(analyst: asyncpg.Connection) -> None:
    for span, dashboard in itertools.product(LEVELS, (FLEET, SERVER)):
        wanted = await asked(analyst, dashboard, span)

        assert wanted.variables["level"] == LEVELS[span]
        for panel in panels(dashboard):
            for one in repeated(panel, wanted):
                rows = await answer(analyst, panel, one)
                if panel["type"] == "timeseries":
                    check_series(panel["title"], rows)


def repeated(panel: dict[str, Any], wanted: Asked) -> Iterator[Asked]:
    """What a panel is asked: once, or for each choice of the variable that it is repeated for."""
    name = panel.get("repeat")
    if name is None:
        yield wanted
        return
    for choice in wanted.variables[name]:
        yield Asked(wanted.since, wanted.until, {**wanted.variables, name: choice})


def check_series(title: str, rows: list[asyncpg.Record]) -> None:
    """As the panel needs them: a time, in order, and numbers; metric names a series."""
    times = [row["time"] for row in rows]
    assert all(isinstance(moment, datetime) for moment in times), title
    assert times == sorted(times), title
    for row in rows:
        values = [value for key, value in row.items() if key not in ("time", "metric")]
        assert values, title
        assert all(value is None or is_number(value) for value in values), title


async def test_every_panel_has_something_to_show(analyst: asyncpg.Connection) -> None:
    for dashboard in (FLEET, SERVER):
        wanted = await asked(analyst, dashboard, "30d")
        empty = {panel["title"] for panel in panels(dashboard) if not await answer(analyst, panel, wanted)}

        assert empty == set()


async def test_columns_have_what_is_said_of_them(analyst: asyncpg.Connection) -> None:
    for dashboard in (FLEET, SERVER):
        wanted = await asked(analyst, dashboard, "30d")
        for panel in panels(dashboard):
            rows = await answer(analyst, panel, wanted)
            columns = set(rows[0].keys())
            for override in panel["fieldConfig"]["overrides"]:
                column = override["matcher"]["options"]
                assert column in columns, f"{panel['title']}: {column}"
                if any(each["id"] == "unit" for each in override["properties"]):
                    assert all(row[column] is None or is_number(row[column]) for row in rows), (
                        f"{panel['title']}: {column}"
                    )


async def test_rates_are_what_moved_and_a_gap_has_no_point(analyst: asyncpg.Connection) -> None:
    wanted = await asked(analyst, SERVER, "30d")
    rows = {row["time"]: row for row in await answer(analyst, titled(SERVER, "All traffic, each byte once"), wanted)}

    assert round(rows[BUSY]["received"]) == round(4 * 50_000_000 * 8 / 3600)
    assert round(rows[BUSY]["sent"]) == round(4 * 25_000_000 * 8 / 3600)
    silent = [GAP[0] + hours * timedelta(hours=1) for hours in (1, 2, 3)]
    assert not set(silent) & set(rows)
    assert GAP[0] in rows
    assert max(rows) == NOW - timedelta(hours=1), "the hour under way has no rate yet"


async def test_usage_and_quota_are_those_of_the_billing_month(analyst: asyncpg.Connection) -> None:
    wanted = await asked(analyst, SERVER, "24h")

    used = {row["month"]: row["received"] for row in await answer(analyst, titled(SERVER, "Usage by month"), wanted)}
    (quota,) = await answer(analyst, titled(SERVER, "Quota, in the billing month under way"), wanted)
    percentile = await answer(analyst, titled(SERVER, "95th percentile, as transit is billed"), wanted)

    berlin = datetime.fromisoformat("2026-03-14T23:00:00+00:00")
    samples = [row for row in fleet.samples() if row.server_id == "nas" and row.interface_name == "eth0"]
    assert list(used) == ["2026-01-15", "2026-02-15", "2026-03-15"]
    assert used["2026-03-15"] == sum(row.rx_bytes_delta for row in samples if row.time >= berlin)
    assert (quota["state"], quota["used"]) == ("ok", 732_000_000)
    assert [row["month"] for row in percentile] == ["2026-03-15", "2026-02-15"]
    assert percentile[0]["billed"] > 0


async def test_annotations_mark_reboots_and_resets(analyst: asyncpg.Connection) -> None:
    wanted = await asked(analyst, SERVER, "30d")
    marks = {
        each["name"]: await analyst.fetch(expanded(each["target"]["rawSql"], wanted))
        for each in SERVER["annotations"]["list"]
    }
    of_fleet = await analyst.fetch(
        expanded(FLEET["annotations"]["list"][0]["target"]["rawSql"], await asked(analyst, FLEET, "30d"))
    )

    assert [(row["time"], row["timeend"]) for row in marks["Reboots"]] == [fleet.REBOOT]
    assert [(row["time"], row["text"]) for row in marks["Counter resets"]] == [(fleet.RESET, "eth0: reset")]
    wrong = marks["Wrong readings, corrected since"]
    assert [(row["time"], row["text"]) for row in wrong] == [(fleet.GLITCH, "eth1: a wrong reading")]
    assert [row["time"] for row in of_fleet] == [fleet.REBOOT[0]]


async def test_grafanas_login_reads_the_views_and_nothing_else(
    database: asyncpg.Connection, database_url: str, login: str
) -> None:
    psql = shutil.which("psql")
    if psql is None:
        pytest.skip("there is no psql on this machine: apt install postgresql-client")
    command = [psql, "--no-psqlrc", "--quiet", "--file", str(DASHBOARDS.parent / "login.sql"), database_url]

    for password in ("it's the first", login):
        given = os.environ | {"ANALYST_LOGIN": login, "ANALYST_PASSWORD": password}
        await asyncio.to_thread(subprocess.run, command, env=given, check=True, capture_output=True)

    async with connected(as_login(database_url, login)) as grafana:
        assert await grafana.fetchval("SHOW statement_timeout") == "1min"
        assert await grafana.fetch("SELECT server_id FROM server_overview") == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await grafana.fetch("SELECT * FROM servers")


async def test_a_name_with_a_quote_is_a_name(analyst: asyncpg.Connection) -> None:
    wanted = await asked(analyst, SERVER, "24h", server=QUOTED)

    for panel in panels(SERVER):
        one = Asked(wanted.since, wanted.until, {**wanted.variables, "interface": [QUOTED]})
        rows = await answer(analyst, panel, one)

        assert all(value is None for row in rows for key, value in row.items() if key not in ("month", "samples there"))
