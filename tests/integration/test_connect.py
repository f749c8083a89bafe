"""docs/connect.md: what it says can be done, done; and the limits that an analyst has."""

import asyncio
import os
import re
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from service.database.roles import ANALYST
from service.embedded.choose import choose_database
from service.settings import Settings
from tests.helpers import fleet
from tests.helpers.grafana import Asked, expanded
from tests.helpers.support import as_login, connected

PAGE = (Path(__file__).parents[2] / "docs" / "connect.md").read_text(encoding="utf-8")
OWNER, LOGIN, PANEL = re.findall(r"^```sql\n(.+?)\n```$", PAGE, re.MULTILINE | re.DOTALL)


def test_psql_makes_an_analyst_whom_the_page_makes_the_owner(database_url: str, tmp_path: Path) -> None:
    with choose_database(Settings(database_url=database_url, data_dir=str(tmp_path)), lambda _: None) as chosen:
        if chosen.psql is None:
            pytest.skip("there is no psql on this machine")
    limits = "SELECT current_user, current_setting('statement_timeout'), current_setting('transaction_read_only');"

    done = subprocess.run(
        [sys.executable, "-m", "service", "psql"],
        input=f"{limits}\n{OWNER}\n{limits}\n",
        env=os.environ | {"LINKBEAT_DATABASE_URL": database_url, "LINKBEAT_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    rows = [[cell.strip() for cell in line.split("|")] for line in done.stdout.splitlines() if line.count("|") == 2]
    assert rows[1] == [ANALYST, "1min", "on"]
    assert rows[3][1:] == ["0", "off"]
    assert rows[3][0] != ANALYST
    assert f"You are {ANALYST} and read the views" in done.stderr
    assert f"SET ROLE NONE makes you {rows[3][0]}" in done.stderr


def test_the_password_of_a_url_is_in_no_list_of_processes(database_url: str, login: str, tmp_path: Path) -> None:
    # The login's name is its password, which makes it a word that occurs nowhere else but as its name.
    url = as_login(database_url, f"{login}").replace(f":{login}@", f":{login}-s3cret@")
    with subprocess.Popen(
        [sys.executable, "-m", "service", "psql"],
        env=os.environ | {"LINKBEAT_DATABASE_URL": url, "LINKBEAT_DATA_DIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,  # its end, for psql on a server that asks for no password
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as psql:
        seen = set()
        while psql.poll() is None:  # it ends by itself: that password is wrong, or there is nothing to read
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    seen.add(path.read_bytes())

    assert any(login.encode() in command for command in seen), "psql was never seen"
    assert not any(b"s3cret" in command for command in seen)


async def test_a_login_as_the_page_makes_it_reads_the_views(
    database: asyncpg.Connection, database_url: str, login: str
) -> None:
    await _make_login(database, login)

    async with connected(as_login(database_url, login)) as person:
        await person.fetch("SELECT * FROM server_overview")
        limits = await person.fetchrow(
            "SELECT current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout'), "
            "current_setting('default_transaction_read_only')"
        )
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await person.fetch("SELECT * FROM servers")

    assert limits is not None
    assert tuple(limits) == ("1min", "1min", "on")


async def test_a_long_query_of_such_a_login_is_cancelled(
    database: asyncpg.Connection, database_url: str, login: str
) -> None:
    await _make_login(database, login)
    await database.execute(f"ALTER ROLE {login} SET statement_timeout = '200ms'")

    async with connected(as_login(database_url, login)) as person:
        with pytest.raises(asyncpg.QueryCanceledError):
            await person.fetch("SELECT pg_sleep(30)")


async def test_a_transaction_that_such_a_login_leaves_open_is_ended(
    database: asyncpg.Connection, database_url: str, login: str
) -> None:
    await _make_login(database, login)
    await database.execute(f"ALTER ROLE {login} SET idle_in_transaction_session_timeout = '200ms'")

    async with connected(as_login(database_url, login)) as person:
        await person.execute("BEGIN; SELECT * FROM network_samples")
        async with asyncio.timeout(60):
            while not person.is_closed():  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.05)
    async with asyncio.timeout(60):  # it says goodbye some time before it is gone
        while await database.fetchval("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", login):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_the_panel_answers_with_grafanas_macros_expanded(database: asyncpg.Connection) -> None:
    await fleet.store(database)
    await database.execute(f"SET ROLE {ANALYST}")
    shown = Asked(fleet.BUSY, fleet.BUSY + timedelta(minutes=59, seconds=59), {})

    rows = await database.fetch(expanded(PANEL, shown, interval_seconds=3600))

    assert [(row["time"], row["metric"], round(row["rx_bps"])) for row in rows] == [
        (fleet.BUSY, "br0", 444_444),
        (fleet.BUSY, "eth0", 444_444),
        (fleet.BUSY, "eth1", 0),
    ]


async def _make_login(database: asyncpg.Connection, login: str) -> None:
    """As the page makes alice; `login` is there already, for its fixture takes it away again."""
    made = LOGIN.replace("CREATE ROLE alice", "ALTER ROLE alice").replace(
        " IN ROLE analyst;", "; GRANT analyst TO alice;"
    )
    await database.execute(re.sub(r"'a password of hers'", f"'{login}'", made).replace("alice", login))
