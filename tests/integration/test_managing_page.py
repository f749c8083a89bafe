"""docs/managing.md: configurations for other programs are read as they would, and their requests are answered."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from service.app import create_app
from service.settings import Settings
from tests.conftest import running
from tests.helpers.support import KEY, Client, heartbeat, hours_ago

PAGE = (Path(__file__).parents[2] / "docs/managing.md").read_text(encoding="utf-8")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML as Home Assistant reads it."""


_Loader.add_constructor("!secret", lambda loader, node: f"Bearer {loader.construct_scalar(node)}")


def block(heading: str, language: str) -> str:
    """The first block of code below a heading."""
    found = re.search(rf"^## {re.escape(heading)}$.*?^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def at(value: Any, path: str) -> Any:
    """`a.b` of nested objects, as JSONata, Jinja and Homepage read it."""
    for name in path.split("."):
        value = value[name]
    return value


@pytest.fixture
async def reading(service: Client) -> str:
    """A fleet that the examples are about; returns a read token."""
    for at_, rx in ((hours_ago(0.02), 1_000), (None, 5_000)):
        await service.post(heartbeat("nas", at=at_, eth0=(rx, rx)) | {"tags": ["site=home"]})
    return str((await service.http.post("/api/v1/tokens", json={"kind": "read"})).json()["token"])


async def fetched(service: Client, url: str, token: str, **params: Any) -> httpx.Response:
    parts = urlsplit(url)
    assert parts.netloc in ("linkbeat.example.net", "")
    return await service.http.get(parts.path, params=params or None, headers={"Authorization": f"Bearer {token}"})


async def test_prometheus_scrapes_the_fleet(service: Client, reading: str) -> None:
    (job,) = yaml.safe_load(block("Prometheus", "yaml"))["scrape_configs"]

    answer = await fetched(service, job["metrics_path"], reading, **job["params"])

    assert answer.status_code == 200
    assert 'linkbeat_server_tag{server="nas",key="site",value="home"} 1' in answer.text
    for name in re.findall(r"linkbeat_[a-z_]+", PAGE):
        assert name in answer.text or name in ("linkbeat_nas_rx", "linkbeat_nas_rx_today", "linkbeat_token"), name


async def test_home_assistant_and_homepage_find_their_values(service: Client, reading: str) -> None:
    (rest,) = yaml.load(block("Home Assistant", "yaml"), _Loader)["rest"]  # noqa: S506  # a SafeLoader
    assert rest["headers"]["Authorization"].startswith("Bearer ")
    found = (await fetched(service, rest["resource"], reading)).json()
    for sensor in rest["sensor"]:
        template = re.fullmatch(r"{{ value_json\.([\w.]+) }}", sensor["value_template"])
        assert template is not None
        assert isinstance(at(found, template[1]), int | float), sensor["name"]

    ((_, services),) = yaml.safe_load(block("Homepage", "yaml"))[0].items()
    widget = services[0]["NAS"]["widget"]
    found = (await fetched(service, widget["url"], reading)).json()
    for mapping in widget["mappings"]:
        assert isinstance(at(found, mapping["field"]), int | float), mapping
    assert (await service.http.get(urlsplit(services[0]["NAS"]["href"]).path)).status_code == 200


async def test_uptime_kuma_sees_a_server_that_reports_and_one_that_does_not(
    service: Client, reading: str, database: asyncpg.Connection
) -> None:
    monitor = json.loads(block("Uptime Kuma", "json"))
    assert json.loads(monitor["headers"])["Authorization"].startswith("Bearer ")

    up = (await fetched(service, monitor["url"], reading)).json()
    await database.execute("UPDATE servers SET received_at = received_at - INTERVAL '1 hour'")
    down = (await fetched(service, monitor["url"], reading)).json()

    assert at(up, monitor["jsonPath"]) == monitor["expectedValue"]
    assert at(down, monitor["jsonPath"]) != monitor["expectedValue"]


async def test_the_headers_of_oauth2_proxy_sign_in(database_url: str, settings: Settings) -> None:
    shell = block("Signing in through a proxy", "sh")
    environ = dict(re.findall(r"^(LINKBEAT_\w+)=(\S+)", shell, re.MULTILINE))
    proxy = tomllib.loads(block("Signing in through a proxy", "toml"))
    ours = Settings.from_environment(environ | {"LINKBEAT_API_KEY": KEY, "LINKBEAT_DATA_DIR": settings.data_dir})
    # Those that pass_user_headers sends.
    sent = {"X-Forwarded-Email": "bob@example.net", "X-Forwarded-User": "bob", "X-Forwarded-Groups": "staff,noc"}
    assert {ours.trusted_user_header, ours.trusted_groups_header} <= sent.keys()
    assert proxy["pass_user_headers"] is proxy["skip_auth_strip_headers"] is True
    assert proxy["pass_basic_auth"] is False

    app = create_app(ours, database_url=database_url, key=KEY)
    transport = httpx.ASGITransport(app, client=(environ["LINKBEAT_TRUSTED_PROXIES"], 1))
    async with running(app), httpx.AsyncClient(transport=transport, base_url="http://linkbeat") as client:
        assert (await client.get("/api/v1/session", headers=sent)).json()["permissions"] == ["read", "admin"]
        del sent["X-Forwarded-Groups"]
        assert (await client.get("/api/v1/session", headers=sent)).json()["permissions"] == ["read"]
        open_routes = [one.rpartition("=")[2] for one in proxy["skip_auth_routes"]]
        for path in ("/api/v1/agents/heartbeat", "/api/v1/agents/heartbeats", "/api/v1/agents/enroll"):
            assert any(re.search(pattern, path) for pattern in open_routes)
            answer = await client.post(path, json={})
            assert answer.status_code == 401, "without the proxy's sign-in it still needs a token"
        for path in ("/", "/manage", "/api/v1/servers", "/api/v1/tokens", "/api/v1/agents", "/metrics/fleet"):
            assert not any(re.search(pattern, path) for pattern in open_routes if "agents/" not in pattern)


async def test_the_routes_of_the_table_are_there(service: Client) -> None:
    paths = (await service.http.get("/schema/openapi.json")).json()["paths"]
    rows = re.findall(
        r"^\| `(GET|POST|PUT|DELETE) (/\S+)` \|", PAGE.partition("## Routes with fixed names")[2], re.MULTILINE
    )

    assert len(rows) == 20
    for method, path in rows:
        assert method.lower() in paths[path], path


async def test_the_statements_are_an_analysts(database: asyncpg.Connection) -> None:
    await database.execute("SET ROLE analyst")
    for statement in re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        await database.fetch(statement)
