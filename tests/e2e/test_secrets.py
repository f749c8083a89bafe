"""The token command beside a running service; and that no secret is in what either says (E46)."""

import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.e2e.conftest import REPOSITORY, serving
from tests.helpers.support import KEY, heartbeat

TOKEN = re.compile(r"lb_[sfrae]_[0-9a-z]{12}_[0-9A-Za-z]{43}")
SECRET_KEY = "a-secret-key-of-more-than-thirty-two-characters"


def command(database_url: str, directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`python -m service token …` as an administrator runs it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LINKBEAT_")}
    ours = {"LINKBEAT_DATABASE_URL": database_url, "LINKBEAT_DATA_DIR": str(directory)}
    return subprocess.run(
        [sys.executable, "-m", "service", "token", *arguments],
        cwd=REPOSITORY,
        env=kept | ours,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_makes_lists_and_revokes_what_a_running_service_accepts(database_url: str, tmp_path: Path) -> None:
    with (
        serving(database_url, tmp_path) as service,
        httpx.Client(base_url=service.url, trust_env=False, headers={"Connection": "close"}, timeout=60) as http,
    ):

        def status(token: str, server_id: str = "nas") -> int:
            headers = {"Authorization": f"Bearer {token}"}
            return http.post("/api/v1/agents/heartbeat", json=heartbeat(server_id), headers=headers).status_code

        made = command(database_url, tmp_path, "create", "--kind", "server", "--server", "nas", "--name", "the nas")
        token = made.stdout.strip()
        assert made.returncode == 0, made.stderr
        assert TOKEN.fullmatch(token), "on stdout there is the token and nothing else"
        assert token not in made.stderr
        assert (status(token), status(token, "other")) == (200, 403)

        enrolment = command(database_url, tmp_path, "enrol", "--uses", "2").stdout.strip()
        body = {"server_id": "pi", "hostname": "pi"}
        own = http.post("/api/v1/agents/enroll", json=body, headers={"Authorization": f"Bearer {enrolment}"})
        assert status(own.json()["token"], "pi") == 200

        listed = command(database_url, tmp_path, "list")
        assert [line.split()[1] for line in listed.stdout.splitlines()[1:]].count("server") == 2
        assert re.search(rf"^{token.split('_')[2]}  server +nas +the nas +active ", listed.stdout, re.MULTILINE)
        assert token.rpartition("_")[2] not in listed.stdout

        revoked = command(database_url, tmp_path, "revoke", token.split("_")[2])
        assert (revoked.returncode, revoked.stdout) == (0, "")
        deadline = time.monotonic() + 60
        while status(token) != 401:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    for wrong, says in (
        (("revoke", "nobodys"), "no token 'nobodys' exists"),
        (("create", "--kind", "server"), "server_id: is required for a token of kind server"),
        (("create", "--kind", "read", "--expires-days", "nan"), "not finite"),
        (("create", "--kind", "server", "--server", "a b"), "server_id"),
        (("enrol", "--uses", "0"), "uses"),
    ):
        refused = command(database_url, tmp_path, *wrong)
        assert refused.returncode == 1
        assert re.fullmatch(r"linkbeat: [^\n]+\n", refused.stderr)
        assert says in refused.stderr


def test_no_secret_is_in_the_log_an_answer_or_a_file_that_others_read(database_url: str, tmp_path: Path) -> None:
    secrets = {KEY, SECRET_KEY}
    answers: list[str] = []
    with (
        serving(database_url, tmp_path, LOG_LEVEL="debug", SECRET_KEY=SECRET_KEY) as service,
        # A service that stood still takes a connection for idle, although it has been asked meanwhile.
        httpx.Client(
            base_url=service.url,
            trust_env=False,
            headers={"Authorization": f"Bearer {KEY}", "Connection": "close"},
            timeout=60,
        ) as http,
    ):

        def made(path: str, body: dict[str, object], authorization: str = KEY) -> str:
            answer = http.post(f"/api/v1{path}", json=body, headers={"Authorization": f"Bearer {authorization}"})
            token = str(answer.json()["token"])
            answers.append(answer.text.replace(token, "shown once"))
            secrets.add(token)
            return token

        tokens = [made("/tokens", {"kind": kind}) for kind in ("fleet", "read", "admin")]
        enrolment = made("/enrolments", {})
        tokens += [made("/servers", {"server_id": "nas"}), enrolment]
        tokens += [made("/agents/enroll", {"server_id": "pi", "hostname": "pi"}, enrolment)]
        wrong = [f"{token[:-1]}!" for token in tokens]
        secrets.update(wrong)
        paths = [*http.get("/schema/openapi.json").json()["paths"], "/metrics", "/nowhere"]
        for token in (*tokens, *wrong):
            for headers in (
                {"Authorization": f"Bearer {token}"},
                {"Authorization": "", "X-API-Key": token},
                {"Authorization": "", "X-Agent-Token": token, "X-Server-GUID": "guid"},
                {"Authorization": f"Basic {token}"},
            ):
                answers += [http.get(re.sub("{.*?}", "nas", path), headers=headers).text for path in paths]
                answers += [
                    http.post("/api/v1/agents/heartbeat", json=body, headers=headers).text
                    for body in (heartbeat("nas"), heartbeat("other"), {"server_id": token})
                ]
        answers += [http.get("/api/v1/tokens").text, http.delete("/api/v1/servers/nas").text]
        answers += [http.delete(f"/api/v1/tokens/{tokens[0].split('_')[2]}").text]
        log = service.log
        kept = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir() if path.suffix != ".log"}

    assert "created by the fleet key from 127.0.0.1" in log
    assert "may not report other" in log
    for secret in secrets:
        assert [answer for answer in answers if secret in answer][:1] == []
        assert secret.rpartition("_")[2] not in service.log
    assert kept == {}, "both secrets were chosen: nothing is kept of them"


def test_the_keys_that_nobody_chose_are_their_owners_alone_and_outlive_a_restart(
    database_url: str, tmp_path: Path
) -> None:
    with serving(database_url, tmp_path, API_KEY="") as service:
        key = (tmp_path / "api_key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        token = httpx.post(
            f"{service.url}/api/v1/tokens", json={"kind": "read"}, headers=headers, trust_env=False, timeout=60
        )

    with serving(database_url, tmp_path, API_KEY="") as service:
        headers = {"Authorization": f"Bearer {token.json()['token']}"}
        answer = httpx.get(f"{service.url}/api/v1/servers", headers=headers, trust_env=False, timeout=60)

    assert answer.status_code == 200
    for name in ("api_key", "secret_key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        assert (tmp_path / name).read_text().strip() not in service.log
