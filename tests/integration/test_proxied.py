"""Users that a proxy signs in: named by a header that is believed from trusted proxies alone."""

import asyncpg
import httpx
import pytest

from service.app import create_app
from service.settings import Settings, SettingsError
from tests.conftest import running
from tests.helpers.support import KEY, heartbeat

PROXY, ELSEWHERE = "10.0.0.9", "192.0.2.7"
SETTINGS = {
    "LINKBEAT_TRUSTED_PROXIES": "10.0.0.0/24", "LINKBEAT_TRUSTED_USER_HEADER": "X-Forwarded-Email",
    "LINKBEAT_TRUSTED_GROUPS_HEADER": "X-Forwarded-Groups", "LINKBEAT_TRUSTED_ADMINS": "ada@example.net,group:noc",
}  # fmt: skip
ADA = {"X-Forwarded-Email": "ada@example.net"}
BOB = {"X-Forwarded-Email": "bob@example.net"}
PAGE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return Settings.from_environment(SETTINGS | {"LINKBEAT_API_KEY": KEY, "LINKBEAT_DATA_DIR": settings.data_dir})


def client(app: object, address: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(address, 4711))  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://linkbeat")


async def test_a_trusted_proxy_names_a_user_who_may_read_or_administer(
    database_url: str, settings: Settings, database: asyncpg.Connection
) -> None:
    app = create_app(settings, database_url=database_url, key=KEY)
    async with running(app), client(app, PROXY) as proxy:
        await proxy.post(
            "/api/v1/agents/heartbeat", json=heartbeat("nas", eth0=(1, 1)), headers={"Authorization": f"Bearer {KEY}"}
        )

        reader = (await proxy.get("/api/v1/session", headers=BOB)).json()
        assert reader == {"name": "bob@example.net (read)", "via": "proxy", "kind": "read", "permissions": ["read"]}
        assert (await proxy.get("/api/v1/servers", headers=BOB)).json()["servers"][0]["server_guid"] is None
        refused = await proxy.post("/api/v1/tokens", json={"kind": "read"}, headers=BOB | PAGE)
        assert refused.status_code == 403
        group = BOB | {"X-Forwarded-Groups": "staff, noc"}
        assert (await proxy.get("/api/v1/session", headers=group)).json()["kind"] == "admin"
        # People may choose their own names at some identity providers, and theirs is not a group's.
        for headers in ({"X-Forwarded-Email": "noc"}, {"X-Forwarded-Email": "group:noc"}):
            assert (await proxy.get("/api/v1/session", headers=headers)).json()["kind"] == "read"
        assert (await proxy.get("/api/v1/session", headers=BOB | {"X-Forwarded-Groups": "ada@example.net"})).json()[
            "kind"
        ] == "read"
        made = await proxy.put("/api/v1/servers/nas/labels", json={"tags": ["a"]}, headers=ADA | PAGE)
        assert made.status_code == 200
        (entry,) = (await proxy.get("/api/v1/audit", headers=ADA)).json()["entries"]
        assert (entry["actor_kind"], entry["actor"], entry["token_id"]) == ("proxy", "ada@example.net (admin)", None)

        # What a page of another site makes a browser do: the proxy adds its header to that, too.
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
            forged = await proxy.put("/api/v1/servers/nas/labels", json={"tags": ["b"]}, headers=ADA | headers)
            assert forged.status_code == 403
        form = await proxy.post("/api/v1/tokens", content=b"kind=admin", headers=ADA | PAGE | {
            "Content-Type": "application/x-www-form-urlencoded"})  # fmt: skip
        assert form.status_code == 415
        link = await proxy.post("/api/v1/pictures", json={"server_id": "nas", "metric": "network"}, headers=ADA | PAGE)
        assert link.status_code == 403, "a link would outlive the user"
        beat = await proxy.post("/api/v1/agents/heartbeat", json=heartbeat("nas", eth0=(2, 2)), headers=ADA | PAGE)
        assert beat.status_code == 401, "agents report with tokens"


async def test_the_header_of_anybody_else_is_ignored(database_url: str, settings: Settings) -> None:
    app = create_app(settings, database_url=database_url, key=KEY)
    async with running(app), client(app, ELSEWHERE) as other, client(app, PROXY) as proxy:
        for headers in (ADA, ADA | {"X-Forwarded-For": PROXY}, ADA | {"X-Forwarded-For": f"{PROXY}, {PROXY}"}):
            assert (await other.get("/api/v1/servers", headers=headers)).status_code == 401
            assert (await other.post("/api/v1/tokens", json={"kind": "admin"}, headers=headers)).status_code == 401
        # A token decides, whatever the header says; and a wrong one is not mended by it.
        wrong = await proxy.get("/api/v1/servers", headers=ADA | {"Authorization": "Bearer wrong"})
        assert wrong.status_code == 401
        # A proxy that adds its header to the client's: nobody knows which is whose.
        twice = await proxy.get(
            "/api/v1/servers", headers=[("X-Forwarded-Email", "ada@example.net"), ("X-Forwarded-Email", "bob")]
        )
        assert twice.status_code == 403
        groups = [("X-Forwarded-Email", "bob"), ("X-Forwarded-Groups", "noc"), ("X-Forwarded-Groups", "x")]
        assert (await proxy.get("/api/v1/servers", headers=groups)).status_code == 403
        odd = await proxy.get("/api/v1/servers", headers=[(b"X-Forwarded-Email", b"a\x01b")])
        assert odd.status_code == 403
        assert (await proxy.get("/api/v1/servers", headers={"X-Forwarded-Email": ""})).status_code == 401


async def test_without_the_setting_no_header_names_anybody(database_url: str, settings: Settings) -> None:
    plain = Settings(api_key=KEY, data_dir=settings.data_dir, trusted_proxies=("10.0.0.0/24",))
    app = create_app(plain, database_url=database_url, key=KEY)
    async with running(app), client(app, PROXY) as proxy:
        for name in ("X-Forwarded-Email", "X-Forwarded-User", "Remote-User", ""):
            headers = {name: "ada@example.net"} if name else {}
            assert (await proxy.get("/api/v1/servers", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"LINKBEAT_TRUSTED_PROXIES": ""}, "LINKBEAT_TRUSTED_USER_HEADER: needs LINKBEAT_TRUSTED_PROXIES"),
        ({"LINKBEAT_TRUSTED_USER_HEADER": ""}, "LINKBEAT_TRUSTED_GROUPS_HEADER: needs LINKBEAT_TRUSTED_USER_HEADER"),
        ({"LINKBEAT_TRUSTED_USER_HEADER": "Authorization"}, "Authorization carries tokens"),
        ({"LINKBEAT_TRUSTED_USER_HEADER": "two words"}, "LINKBEAT_TRUSTED_USER_HEADER"),
    ],
)
def test_settings_that_would_trust_anybody_prevent_the_start(changed: dict[str, str], names: str) -> None:
    with pytest.raises(SettingsError, match=names):
        Settings.from_environment(SETTINGS | changed)
