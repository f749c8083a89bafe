"""GET /api/v1/metrics/sparkline/{server_id}/….svg, and POST /api/v1/pictures: pictures, and links that show them."""

import asyncio
import hmac
import time
from base64 import b64encode, urlsafe_b64decode
from datetime import timedelta
from hashlib import sha256
from itertools import product
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from xml.etree import ElementTree as ET

import asyncpg
import httpx
import pytest
from asyncpg.connection import LoggedQuery

from service.access.keys import secret_key
from service.access.sessions import Sessions
from service.app import create_app
from service.cache import KEPT_FORMS
from service.clock import Clock
from service.pictures import routes as pictures
from service.pictures.drawing import Chart, Look, draw
from service.settings import Settings
from service.traffic.periods import PERIODS, Period
from tests.conftest import in_process
from tests.helpers.support import KEY, Client, heartbeat, hours_ago

pytestmark = pytest.mark.usefixtures("statements")  # before `service`, whose statements they are

NOW = hours_ago(0) + timedelta(seconds=30)
SVG = "{http://www.w3.org/2000/svg}"
BASE = "/api/v1/metrics/sparkline/nas"
METRICS = {"network": {}, "cpu": {}, "memory": {}, "disk": {}, "temperature": {}, "filesystem": {"mount_point": "/srv"}}


@pytest.fixture(autouse=True)
def _fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "now", lambda _: NOW)


@pytest.fixture
async def reported(service: Client) -> Client:
    """The service, to which nas reported an hour: 1 MB a minute in, 250 kB out; and what it measures of itself."""
    measured = {
        "metrics": {"cpu_percent": 25.0, "memory_percent": 50.0, "disk_percent": 75.0, "temperature_celsius": 48.5},
        "filesystems": [{"mount_point": "/srv", "total_bytes": 10, "used_bytes": 4, "percent": 40.0}],
    }
    beats = [
        heartbeat(at=NOW - timedelta(minutes=59 - n), eth0=(n * 1_000_000, n * 250_000)) | measured for n in range(60)
    ]
    await service.post_batch(beats)
    return service


async def make(service: Client, **body: Any) -> str:
    """A link to a picture."""
    answer = await service.http.post("/api/v1/pictures", json={"server_id": "nas", "metric": "network"} | body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["path"])


async def look(service: Client, path: str, **headers: str) -> httpx.Response:
    """What an <img> is answered: no token comes with its request."""
    return await service.http.get(path, headers={"Authorization": ""} | headers)


async def token(service: Client, kind: str = "read") -> tuple[str, dict[str, str]]:
    """A new token's id, and the header that carries it."""
    made = (await service.http.post("/api/v1/tokens", json={"kind": kind})).json()
    return made["id"], {"Authorization": f"Bearer {made['token']}"}


def changed(path: str, **query: str | None) -> str:
    """The link with other parameters; None: without that one."""
    parts = urlsplit(path)
    found: dict[str, Any] = {name: values[0] for name, values in parse_qs(parts.query).items()} | query
    return f"{parts.path}?{urlencode({name: value for name, value in found.items() if value is not None})}"


async def test_every_metric_has_a_picture_that_says_its_figures(reported: Client, subtests: pytest.Subtests) -> None:
    for metric, period in product(METRICS, ("1h", "1y")):
        with subtests.test(f"{metric} {period}"):
            answer = await reported.http.get(f"{BASE}/{metric}.svg", params=METRICS[metric] | {"period": period})

            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"] == "image/svg+xml; charset=utf-8"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
            assert answer.text.startswith("<svg "), "by which Home Assistant knows it"
            picture = ET.fromstring(answer.text)  # noqa: S314 - the service drew it
            assert (picture.get("role"), picture.get("viewBox")) == ("img", "0 0 160 32")
            said = {
                "network": "Receiving 133 kb/s, at most 133 kb/s; sending 33.3 kb/s, at most 33.3 kb/s",
                "cpu": "At 25 %, at most 25 %",
                "memory": "At 50 %, at most 50 %",
                "disk": "At 75 %, at most 75 %",
                "temperature": "At 48.5 °C, at most 48.5 °C",
                "filesystem": "At 40 %, at most 40 %",
            }
            description = (picture.findtext(f"{SVG}desc") or "").replace("\xa0", " ")
            if period == "1h":
                assert description.startswith(said[metric])
            assert "until" in description.lower()
            assert "nas" in (picture.findtext(f"{SVG}title") or "")


@pytest.mark.parametrize(
    "period",
    [
        Period("2h", 7_200, "network_traffic_1m", 60, 120, "last 2 hours"),
        Period("12h", 43_200, "network_traffic_15m", 900, 1_800, "last 12 hours"),
    ],
)
async def test_a_new_period_is_declared_in_one_place(
    reported: Client, period: Period, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PERIODS, period.name, period)

    for metric, parameters in METRICS.items():
        answer = await reported.http.get(f"{BASE}/{metric}.svg", params=parameters | {"period": period.name})
        assert answer.status_code == 200, answer.text
        assert period.span in (ET.fromstring(answer.text).findtext(f"{SVG}title") or "")  # noqa: S314
    series = await reported.get("/metrics/sparkline/nas/network", period=period.name)
    assert (series["period"], series["bucket_seconds"]) == (period.name, period.bucket_seconds)


async def test_the_bucket_under_way_is_no_fall(reported: Client) -> None:
    await reported.post(heartbeat(at=NOW + timedelta(seconds=10), eth0=(59_000_001, 0)))

    picture = await reported.http.get(f"{BASE}/network.svg", params={"period": "1h", "interface": "eth0"})

    assert "receiving 133" in picture.text.lower()
    # The bucket that is under way is all there is: better than to say that there is no data.
    day = await reported.http.get(f"{BASE}/network.svg", params={"period": "1y"})
    assert "No data" not in day.text


WRONG: list[tuple[str, dict[str, str], str]] = [
    ("network.svg", {"period": "2h"}, "period"),
    ("network.svg", {"width": "39"}, "width"),
    ("network.svg", {"width": "2001"}, "width"),
    ("network.svg", {"width": "99.5"}, "width"),
    ("cpu.svg", {"height": "15"}, "height"),
    ("cpu.svg", {"height": "1001"}, "height"),
    ("disk.svg", {"theme": "blue"}, "theme"),
    ("memory.svg", {"label": "yes"}, "label"),
    ("filesystem.svg", {}, "mount_point"),
    ("network.svg", {"interface": "x" * 256}, "interface"),
]


async def test_a_wrong_parameter_is_named(reported: Client, subtests: pytest.Subtests) -> None:
    for path, query, field in WRONG:
        with subtests.test(f"{path} {query}"):
            answer = await reported.http.get(f"{BASE}/{path}", params=query)

            assert answer.status_code == 422
            assert answer.headers["content-type"] == "application/problem+json"
            assert [one["path"] for one in answer.json()["errors"]] == [field]


async def test_an_unknown_server_has_no_picture_and_one_without_data_has(
    reported: Client, subtests: pytest.Subtests
) -> None:
    for metric in METRICS:
        with subtests.test(metric):
            unknown = await reported.http.get(
                f"/api/v1/metrics/sparkline/nobody/{metric}.svg", params={"mount_point": "/", "interface": "eth9"}
            )
            assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_server")
            await reported.post(heartbeat("pi"))

            empty = await reported.http.get(f"/api/v1/metrics/sparkline/pi/{metric}.svg", params={"mount_point": "/"})

            assert empty.status_code == 200
            assert ">No data</text>" in empty.text


async def test_the_picture_and_the_json_are_one_query_and_so_are_all_its_sizes(
    reported: Client, statements: list[LoggedQuery]
) -> None:
    statements.clear()

    answers = await asyncio.gather(
        *(reported.http.get(f"{BASE}/network.svg", params={"width": 100 + n, "period": "1h"}) for n in range(50)),
        *(reported.http.get(f"{BASE}/network.svg", params={"period": "1h"}) for _ in range(50)),
        reported.http.get(f"{BASE}/network", params={"period": "1h"}),
    )

    assert {one.status_code for one in answers} == {200}
    assert len({one.content for one in answers}) == 52
    assert len([one for one in statements if "network_traffic_1m" in one.query]) == 1


async def test_what_the_browser_has_is_not_sent_again_until_a_heartbeat_changes_it(reported: Client) -> None:
    path = changed(await make(reported), period="1h")
    first = await look(reported, path)

    again = await look(reported, path, **{"If-None-Match": first.headers["etag"]})
    other = await look(reported, changed(path, theme="dark"), **{"If-None-Match": first.headers["etag"]})
    await reported.post(heartbeat(at=NOW - timedelta(seconds=40), eth0=(58_900_000, 14_700_000)))
    last = await look(reported, path, **{"If-None-Match": first.headers["etag"]})

    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert again.headers["cache-control"] == first.headers["cache-control"]
    assert other.status_code == 200
    assert (last.status_code, last.headers["etag"] != first.headers["etag"]) == (200, True)


async def test_a_cache_keeps_it_for_a_bucket_and_only_by_a_link_for_everybody(
    reported: Client, subtests: pytest.Subtests
) -> None:
    path = await make(reported)

    for period, seconds in (("1h", 60), ("24h", 300), ("1y", 300)):
        with subtests.test(period):
            by_link = await look(reported, changed(path, period=period))
            by_token = await reported.http.get(f"{BASE}/network.svg", params={"period": period})

            assert by_link.headers["cache-control"] == f"public, max-age={seconds}"
            assert "vary" not in by_link.headers
            assert by_token.headers["cache-control"] == f"private, max-age={seconds}"
            assert by_token.headers["vary"] == "Authorization, Cookie"
            assert by_link.content == by_token.content


async def test_its_policy_lets_it_load_nothing_and_have_its_own_style_alone(
    reported: Client, subtests: pytest.Subtests
) -> None:
    for theme in ("light", "dark", "auto"):
        with subtests.test(theme):
            answer = await reported.http.get(f"{BASE}/network.svg", params={"theme": theme})

            picture = ET.fromstring(answer.text)  # noqa: S314 - the service drew it
            styles = [one.text or "" for one in picture.iter(f"{SVG}style")]
            hashes = "".join(
                f"; style-src 'sha256-{b64encode(sha256(one.encode()).digest()).decode()}'" for one in styles
            )
            assert len(styles) == (theme == "auto")
            assert answer.headers["content-security-policy"] == f"default-src 'none'{hashes}"
            assert " style=" not in answer.text


async def test_a_client_of_the_api_may_renew_it_and_a_looker_may_not(
    reported: Client, statements: list[LoggedQuery]
) -> None:
    path = await make(reported)
    await look(reported, path)
    statements.clear()

    for _ in range(5):
        await look(reported, path, **{"Cache-Control": "no-cache"})
    assert statements == []
    await reported.http.get(f"{BASE}/network.svg", headers={"Cache-Control": "no-cache"})
    assert len(statements) == 1


async def test_all_sizes_there_are_do_not_fill_the_memory(reported: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def counted(chart: Chart, look: Look) -> bytes:
        drawn.append(look.width)
        return draw(chart, look)

    monkeypatch.setattr(pictures, "draw", counted)

    for _ in range(2):
        for n in range(KEPT_FORMS + 5):
            await reported.http.get(f"{BASE}/cpu.svg", params={"width": 100 + n})

    assert len(drawn) == KEPT_FORMS + 5 + 5


class TestLinks:
    """POST /api/v1/pictures, and what comes of its links."""

    async def test_a_link_shows_its_picture_without_a_token_in_any_look(
        self, reported: Client, subtests: pytest.Subtests
    ) -> None:
        for metric, parameters in METRICS.items():
            with subtests.test(metric):
                answer = await reported.http.post(
                    "/api/v1/pictures", json={"server_id": "nas", "metric": metric} | parameters
                )
                path = answer.json()["path"]

                plain = await look(reported, path)
                other = await look(
                    reported, changed(path, period="7d", width="400", height="100", theme="dark", label="off")
                )

                assert answer.headers["cache-control"] == "no-store"
                assert plain.status_code == other.status_code == 200, (plain.text, other.text)
                assert 'width="400" height="100"' in other.text
                assert plain.content == (await reported.http.get(f"{BASE}/{metric}.svg", params=parameters)).content

    async def test_an_interface_of_any_name(self, reported: Client, subtests: pytest.Subtests) -> None:
        for name in ("eth0", "br-län", "veth/*", "a b&c=d", "null", "%2e"):
            with subtests.test(name):
                path = await make(reported, interface=name)

                answer = await look(reported, path)

                assert answer.status_code == 200
                assert (
                    answer.content
                    == (await reported.http.get(f"{BASE}/network.svg", params={"interface": name})).content
                )

    async def test_it_is_good_for_that_picture_alone(self, reported: Client) -> None:
        await reported.post(heartbeat("pi", eth0=(1, 1)))
        path = await make(reported, interface="eth0")
        link = parse_qs(urlsplit(path).query)["link"][0]
        token_id, expires, signature = link.split(".")
        assert (await look(reported, path)).status_code == 200
        flipped = signature[:-1] + ("A" if signature[-1] != "A" else "Q")
        # Of 43 letters the last one's lower bits are no part of the 32 bytes.
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        twin = signature[:-1] + letters[letters.index(signature[-1]) ^ 1]

        refused = [
            changed(path, interface="eth1"),
            changed(path, interface=None),
            changed(path, interface=""),
            f"{path}&interface=eth1",
            f"{path}&link={link}",
            path.replace("/nas/", "/pi/"),
            path.replace("/network.svg", "/cpu.svg"),
            changed(path, link=f"{token_id}.{int(expires) + 1}.{signature}"),
            changed(path, link=f"{token_id}.{expires}0.{signature}"),
            changed(path, link=f"{token_id}.+{expires}.{signature}"),
            changed(path, link=f"{token_id}.{'9' * 5000}.{signature}"),
            changed(path, link=f"{token_id}.{expires}.{flipped}"),
            changed(path, link=f"{token_id}.{expires}.{twin}"),
            changed(path, link=f"{token_id}.{expires}.{signature}="),
            changed(path, link=f"{token_id}.{expires}.{signature[:9]}!{signature[9:]}"),
            changed(path, link=f"{token_id}.{expires}.{signature[:9]}{' ' * 10_000}{signature[9:]}"),
            changed(path, link=f"{link}\x00"),
            changed(path, link=f"{token_id}.{expires}."),
            changed(path, link=f"k3v9x0d2m1qa.{expires}.{signature}"),
            changed(path, link="."),
            changed(path, link=""),
            changed(path, link="é.1.é"),
            changed(path, link=KEY),
        ]
        for one in refused:
            answer = await look(reported, one)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), one
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["cache-control"] == "no-store"
            assert signature not in answer.text

    async def test_neither_a_link_nor_its_signature_is_in_the_log(
        self, reported: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG")
        path = await make(reported, interface="eth0")
        signature = path.rpartition(".")[2]

        for one in (path, changed(path, interface="eth1"), changed(path, period="2h"), path.replace("/nas/", "/pi/")):
            await look(reported, one)

        assert "link to nas's network made by the fleet key from" in caplog.text
        assert signature not in "".join(one.getMessage() for one in caplog.records if one.name != "httpx")

    async def test_it_opens_no_other_route(self, reported: Client) -> None:
        link = urlsplit(await make(reported)).query

        for path in (f"{BASE}/network", "/api/v1/servers", "/api/v1/tokens"):
            assert (await look(reported, f"{path}?{link}")).status_code in (401, 403, 404), path
        answer = await reported.http.post(
            f"/api/v1/pictures?{link}", json={"server_id": "nas", "metric": "cpu"}, headers={"Authorization": ""}
        )
        assert answer.status_code == 401

    async def test_it_counts_whatever_token_comes_with_it(self, reported: Client) -> None:
        path = await make(reported)

        with_key = await reported.http.get(changed(path, link="wrong"))

        assert with_key.status_code == 403
        assert (await reported.http.get(path)).headers["cache-control"].startswith("public")

    async def test_it_ends_with_the_token_that_made_it(self, reported: Client) -> None:
        token_id, headers = await token(reported)
        body = {"server_id": "nas", "metric": "network"}
        path = (await reported.http.post("/api/v1/pictures", json=body, headers=headers)).json()["path"]
        assert (await look(reported, path)).status_code == 200

        await reported.http.delete(f"/api/v1/tokens/{token_id}")

        answer = await look(reported, path)
        assert answer.status_code == 403
        assert "token" in answer.json()["detail"]

    async def test_a_session_makes_links_of_its_token(self, reported: Client, settings: Settings) -> None:
        token_id, _ = await token(reported)
        sessions = Sessions(secret_key(settings), KEY)
        cookie = {"Authorization": "", "Cookie": f"{sessions.cookie}={sessions.start(token_id)}"}
        body = {"server_id": "nas", "metric": "network"}
        made = await reported.http.post("/api/v1/pictures", json=body, headers=cookie)
        path = made.json()["path"]
        assert (await look(reported, path)).status_code == 200
        elsewhere = cookie | {"Sec-Fetch-Site": "cross-site"}
        assert (await reported.http.post("/api/v1/pictures", json=body, headers=elsewhere)).status_code == 403
        seen = await reported.http.get(f"{BASE}/network.svg", headers=cookie)
        assert (seen.status_code, seen.headers["cache-control"]) == (200, "private, max-age=300")

        await reported.http.delete(f"/api/v1/tokens/{token_id}")

        assert (await look(reported, path)).status_code == 403

    async def test_it_ends_when_that_token_expires(self, reported: Client, database: asyncpg.Connection) -> None:
        token_id, headers = await token(reported)
        body = {"server_id": "nas", "metric": "network"}
        path = (await reported.http.post("/api/v1/pictures", json=body, headers=headers)).json()["path"]

        await database.execute(
            "UPDATE linkbeat.tokens SET expires_at = now() - INTERVAL '1 second' WHERE token_id = $1", token_id
        )
        await token(reported)  # after which this process has seen all changes

        assert (await look(reported, path)).status_code == 403

    async def test_it_expires(self, reported: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        answer = await reported.http.post(
            "/api/v1/pictures", json={"server_id": "nas", "metric": "network", "expires_in_days": 2}
        )
        path = answer.json()["path"]
        expires = int(parse_qs(urlsplit(path).query)["link"][0].split(".")[1]) / 1e6
        now = time.time()
        assert abs(expires - now - 2 * 86_400) < 10

        monkeypatch.setattr("service.pictures.links.time.time", lambda: expires - 1)
        before = await look(reported, path)
        monkeypatch.setattr("service.pictures.links.time.time", lambda: expires)
        after = await look(reported, path)

        assert (before.status_code, after.status_code) == (200, 403)
        assert after.json()["detail"] == "this link has expired"

    async def test_without_a_word_it_lasts_a_year(self, reported: Client) -> None:
        path = await make(reported, expires_in_days=None)

        expires = int(parse_qs(urlsplit(path).query)["link"][0].split(".")[1]) / 1e6
        assert abs(expires - time.time() - 365 * 86_400) < 10

    async def test_another_secret_or_fleet_key_knows_none_of_them(
        self, reported: Client, settings: Settings, database_url: str
    ) -> None:
        by_key = await make(reported)
        _, headers = await token(reported)
        body = {"server_id": "nas", "metric": "network"}
        by_token = (await reported.http.post("/api/v1/pictures", json=body, headers=headers)).json()["path"]

        async def seen(app: Any) -> list[int]:
            async with in_process(app) as other:
                return [(await look(other, path)).status_code for path in (by_key, by_token)]

        other_key = "another-fleet-key-for-tests"
        assert await seen(create_app(settings, database_url=database_url, key=KEY)) == [200, 200]
        assert await seen(create_app(settings, database_url=database_url, key=other_key)) == [403, 200]
        secret = Settings(api_key=KEY, data_dir=settings.data_dir, secret_key="s" * 40)
        assert await seen(create_app(secret, database_url=database_url, key=KEY)) == [403, 403]

    WRONG: tuple[tuple[dict[str, Any], str], ...] = (
        ({"metric": "uptime"}, "metric"),
        ({"metric": "cpu", "interface": "eth0"}, "interface"),
        ({"metric": "filesystem"}, "mount_point"),
        ({"metric": "network", "mount_point": "/"}, "mount_point"),
        ({"metric": "network", "interface": ""}, "interface"),
        ({"metric": "network", "expires_in_days": 0}, "expires_in_days"),
        ({"metric": "network", "expires_in_days": 3651}, "expires_in_days"),
        ({"metric": "network", "server_id": "no such name"}, "server_id"),
        ({"metric": "network", "width": 100}, "width"),
        ({}, "metric"),
    )

    async def test_a_wrong_body_is_told_the_field(self, reported: Client, subtests: pytest.Subtests) -> None:
        for body, field in self.WRONG:
            with subtests.test(str(body)):
                answer = await reported.http.post("/api/v1/pictures", json={"server_id": "nas"} | body)

                assert answer.status_code == 422
                assert field in [one["path"] for one in answer.json()["errors"]], answer.text

    async def test_of_an_unknown_server_there_is_none(self, reported: Client) -> None:
        answer = await reported.http.post("/api/v1/pictures", json={"server_id": "nobody", "metric": "cpu"})

        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_server")

    async def test_it_is_compared_in_constant_time(self, reported: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        compared: list[bytes] = []
        compare = hmac.compare_digest

        def watched(one: Any, other: Any) -> bool:
            compared.append(one)
            return compare(one, other)

        path = await make(reported)
        monkeypatch.setattr("itsdangerous.signer.hmac.compare_digest", watched)
        await look(reported, path)

        signature = parse_qs(urlsplit(path).query)["link"][0].split(".")[2]
        assert compared == [urlsafe_b64decode(f"{signature}=")]


class TestLimits:
    """Wrong links count as wrong tokens do."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return Settings(
            api_key=KEY, data_dir=settings.data_dir, failed_tokens_per_minute=5, read_requests_per_minute=20
        )

    async def test_who_guesses_is_told_to_wait_and_what_was_right_before_goes_on(self, reported: Client) -> None:
        right, new = await make(reported), await make(reported, interface="eth0")
        assert (await look(reported, right)).status_code == 200

        guesses = [(await look(reported, changed(right, link=f".{n}.{'A' * 22}"))).status_code for n in range(8)]

        assert guesses == [403] * 5 + [429] * 3
        waiting = await look(reported, new)
        assert (waiting.status_code, "retry-after" in waiting.headers) == (429, True)
        assert (await look(reported, right)).status_code == 200
        wrong_token = await reported.http.get("/api/v1/servers", headers={"Authorization": "Bearer wrong"})
        assert wrong_token.status_code == 429

    async def test_lookers_are_limited_and_do_not_keep_the_maker_out(self, reported: Client) -> None:
        _, headers = await token(reported)
        body = {"server_id": "nas", "metric": "network"}
        path = (await reported.http.post("/api/v1/pictures", json=body, headers=headers)).json()["path"]

        statuses = [(await look(reported, path)).status_code for _ in range(25)]

        assert statuses[:20] == [200] * 20
        assert statuses[-1] == 429
        assert (await reported.http.get("/api/v1/servers", headers=headers)).status_code == 200
