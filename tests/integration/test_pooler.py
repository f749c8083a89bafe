"""PgBouncer between the service and its database: one that pools sessions will do, others are refused at the start.

On the embedded server, so of the Apache edition always: PgBouncer reaches it by TCP.
"""

import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from service.app import create_app
from service.database import schema
from service.database.hosts import connect
from service.database.pooler import require_sessions
from service.embedded.accounts import give_to, own_account, program_environment
from service.embedded.data_directory import DATABASE, ROLE
from service.embedded.guarded import Guarded
from service.embedded.places import reachable_directory
from service.settings import Settings
from tests.conftest import in_process
from tests.helpers.processes import free_port
from tests.helpers.support import KEY, heartbeat
from tests.helpers.two_servers import Server, one_server

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
# What asyncpg and the service begin a session with, as an administrator would list it who was told of each in turn.
IGNORED = (
    "extra_float_digits, search_path, plan_cache_mode, statement_timeout, lock_timeout, jit, synchronous_commit, "
    "client_min_messages, timescaledb.max_tuples_decompressed_per_dml_transaction"
)

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no pgbouncer on this machine: apt install pgbouncer"),
    pytest.mark.background,
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with one_server() as server:
        yield server


@contextlib.contextmanager
def pooled(server: Server, mode: str, ignored: str) -> Iterator[str]:
    """The URL of a PgBouncer that pools so, before the server."""
    account = own_account() if os.geteuid() == 0 else None
    port = free_port()
    with reachable_directory() as directory:
        own = directory / "pgbouncer"
        own.mkdir()
        give_to(account, own)
        ini = directory / "pgbouncer.ini"
        ini.write_text(
            f"[databases]\n{DATABASE} = host=127.0.0.1 port={server.port} user={ROLE} password={server.password}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = {mode}\n"
            f"unix_socket_dir =\nignore_startup_parameters = {ignored}\ndefault_pool_size = 40\n"
        )
        ini.chmod(0o644)
        assert PROGRAM is not None
        bouncer = Guarded(
            [PROGRAM, "-q", ini],
            program_environment(),
            first=signal.SIGINT,
            log=own / "log",
            account=account,
            cwd=Path("/"),
        )
        try:
            deadline = time.monotonic() + 30
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert not bouncer.has_ended, (own / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield f"postgresql://{ROLE}@127.0.0.1:{port}/{DATABASE}"
        finally:
            bouncer.process.kill()
            bouncer.wait()


@pytest.mark.parametrize("ignored", ["", IGNORED], ids=["parameters-refused", "parameters-dropped"])
@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_a_pooler_of_transactions_is_refused_with_the_remedy(server: Server, mode: str, ignored: str) -> None:
    with pooled(server, mode, ignored) as url:
        with pytest.raises(schema.SchemaError, match=r"set pool_mode = session for this database"):
            await schema.check(url)
        with pytest.raises(schema.SchemaError, match=r"set pool_mode = session for this database"):
            await schema.migrate(url, print)


@pytest.mark.parametrize("ignored", ["", IGNORED], ids=["parameters-refused", "parameters-dropped"])
async def test_a_pooler_of_sessions_will_do(server: Server, tmp_path: Path, ignored: str) -> None:
    settings = Settings(api_key=KEY, data_dir=str(tmp_path))
    with pooled(server, "session", ignored) as url:
        assert await schema.check(url) == "apache"
        await schema.migrate(url, print, Settings(retain_raw_days=15.0))
        await schema.migrate(url, print)

        async with in_process(create_app(settings, database_url=url, key=KEY)) as service:
            assert (await service.post(heartbeat("nas", eth0=(1, 1))))["status"] == "ok"
            assert (await service.get("/servers"))["servers"][0]["id"] == "nas"
            assert (await service.http.get("/health/ready")).status_code == 200

            sessions = server.query(
                "SELECT DISTINCT application_name FROM pg_stat_activity WHERE application_name LIKE 'linkbeat %'"
            )
            assert {"linkbeat ingest", "linkbeat read"} <= set(sessions)


async def test_a_session_behind_a_pooler_has_the_settings_that_it_asked_for(server: Server) -> None:
    asked = {"plan_cache_mode": "force_generic_plan", "synchronous_commit": "off", "lock_timeout": "2000"}
    with pooled(server, "session", IGNORED) as url:
        await require_sessions(url, seconds=20.0)
        connection: asyncpg.Connection = await connect(url, seconds=20.0, server_settings=asked)
        found = [await connection.fetchval("SELECT current_setting($1)", name) for name in asked]
        await connection.close()

    assert found == ["force_generic_plan", "off", "2s"]
