"""A real TimescaleDB for all tests: the schema is built by the migrations once, and cloned for each test."""

import asyncio
import gc
import os
import re
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import hypothesis
import pytest
from asyncpg.connection import LoggedQuery
from litestar import Litestar

from service import cache
from service.access import ended_sessions, tokens
from service.alerts.deliver import Delivery
from service.alerts.evaluate import Alerts
from service.app import create_app
from service.background import BackgroundTask
from service.database import pool, schema, series_links
from service.database.maintenance import Maintenance
from service.embedded.choose import choose_test_database
from service.fleet import removal
from service.http.log_limit import limited
from service.ingest import agent_config, commit
from service.settings import Settings
from tests.helpers.quick_apps import quick_apps
from tests.helpers.support import KEY, Client

# Where the environment forbids to keep compiled modules, each worker compiles all tests, and each of the hundreds of
# processes that tests start all of the service or the agent.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Files of about a minute or more, the longest first: at the end, one worker would be busy and the others idle.
LONG = (
    "test_run.py", "test_embedded_root.py", "test_law.py", "test_server_page.py", "test_crash.py",
    "test_alerts_backtest_kinds.py",
    "test_counter_laws.py", "test_embedded_cluster.py", "test_agent_process.py", "test_fleet.py",
    "test_second_line.py", "test_wheels.py", "test_verify.py", "test_embedded_watch.py", "test_pictures.py",
    "test_thinning.py", "test_usage.py", "test_export.py", "test_schemathesis.py", "test_recount.py",
    "test_removal.py", "test_many_services.py", "test_two_servers.py", "test_secrets.py", "test_seldom.py",
    "test_embedded_choose.py", "test_replicas.py",
)  # fmt: skip


# A machine that stands still for a fifth of a second in an example has found no mistake in it.
hypothesis.settings.register_profile(
    "patient",
    hypothesis.settings(),
    deadline=None,
    suppress_health_check=[*hypothesis.settings().suppress_health_check, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """What is imported by now stays: looking through all of it for garbage would take a fifth of a second each time."""
    gc.collect()
    gc.freeze()


def with_database(url: str, name: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@pytest.fixture(scope="session", autouse=True)
def _quick_apps() -> Iterator[None]:
    with quick_apps():
        yield


@pytest.fixture(autouse=True)
def _logged_again() -> None:
    """A line that the test before caused is no reason for this one to be without it."""
    limited.forget()


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine an answer is late, and is not 503. A test of a deadline sets it itself."""
    for limit in ("CONNECT_SECONDS", "ACQUIRE_SECONDS", "READ_SECONDS", "WRITE_SECONDS"):
        monkeypatch.setattr(pool, limit, 20.0)
    monkeypatch.setattr(commit, "ANSWER_SECONDS", 25.0)


@pytest.fixture(autouse=True)
def _quiet(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service in this process evaluates no alerts, delivers none and does no maintenance, but where a test is marked
    `background`: with an hour's nothing to do, these loops cost as much as everything else in most tests.
    """
    if request.node.get_closest_marker("background") is None:
        for task in (Alerts, Delivery, Maintenance):
            monkeypatch.setattr(task, "_run", _idle)


async def _idle(_: BackgroundTask) -> None:
    await asyncio.Event().wait()


@pytest.fixture(scope="session")
def database_server() -> Iterator[str]:
    """A server to make databases on: TEST_DATABASE_URL, Docker, one on this host, or the embedded one."""
    given = os.environ.get("TEST_DATABASE_URL") or None
    with choose_test_database(given, _say) as handle:
        if given is None:
            asyncio.run(_make_passwords_cheap(handle.url))
        yield handle.url


async def _make_passwords_cheap(url: str) -> None:
    """A service opens eight connections, and four thousand rounds of a hash in each cost more than all else in it."""
    login = urlsplit(url)
    await run_on(
        url,
        "ALTER SYSTEM SET scram_iterations = 1",
        "SELECT pg_reload_conf()",
        "SET scram_iterations = 1",
        f"ALTER ROLE {login.username} PASSWORD '{login.password}'",
    )


@pytest.fixture(scope="session")
def template(database_server: str) -> Iterator[str]:
    """A database with the migrated schema, to be cloned; without connections, so that it can be.

    The Community edition's policies are off in it: a test itself says when the background works. They never ran in it
    either: what a policy has refreshed once, empty as it was, it takes for late data in the clones. The service's own
    work in the background, on the Apache edition all of it, is not due.
    """
    name = f"linkbeat_template_{uuid.uuid4().hex[:8]}"
    asyncio.run(run_on(database_server, f"CREATE DATABASE {name}"))
    asyncio.run(run_on(with_database(database_server, name), *NO_BACKGROUND))
    asyncio.run(schema.migrate(with_database(database_server, name), lambda _: None))
    policies = (
        "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs "
        "WHERE (hypertable_schema IS NOT NULL OR proc_schema = 'linkbeat')"
    )
    asyncio.run(run_on(with_database(database_server, name), policies, NO_MAINTENANCE))
    asyncio.run(
        run_on(
            database_server,
            f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false",
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )
    )
    yield name
    asyncio.run(run_on(database_server, f"DROP DATABASE {name} WITH (FORCE)"))


# TimescaleDB's scheduler would run policies from the moment on at which `migrate` makes them.
NO_BACKGROUND = ("CREATE EXTENSION timescaledb", "SELECT _timescaledb_functions.stop_background_workers()")
# A service would begin with it in each test, at the cost of ten statements.
NO_MAINTENANCE = (
    "UPDATE linkbeat.maintenance SET last_start = now() + INTERVAL '1 day', last_success = now() + INTERVAL '1 day'"
)


class Clones:
    """Databases for tests: while one runs, the next one's is made, and the last one's dropped.

    Both over one connection, in a loop of a thread's own: to open one takes a third as long as what is done with it.
    """

    def __init__(self, server: str, template: str) -> None:
        self._server = server
        # The files as they are: through the log, as is the default, it takes twice as long.
        self._create = f"CREATE DATABASE {{}} TEMPLATE {template} STRATEGY FILE_COPY"
        self._worker = ThreadPoolExecutor(1, "clones")
        self._runner = asyncio.Runner()
        self._connection: asyncpg.Connection | None = None
        self._next = self._worker.submit(self._make)
        self._drops: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back(self._next.result())
        self._worker.submit(self._close)
        self._worker.shutdown()
        for drop in self._drops:
            drop.result()

    async def take(self) -> str:
        name = await asyncio.wrap_future(self._next)
        self._next = self._worker.submit(self._make)
        return name

    def give_back(self, name: str) -> None:
        self._drops.append(self._worker.submit(self._run, f"DROP DATABASE {name} WITH (FORCE)"))

    def _make(self) -> str:
        name = f"linkbeat_test_{uuid.uuid4().hex[:8]}"
        self._run(self._create.format(name))
        return name

    def _run(self, statement: str) -> None:
        self._runner.run(self._execute(statement))

    async def _execute(self, statement: str) -> None:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._server)
        await self._connection.execute(statement)

    def _close(self) -> None:
        if self._connection is not None:
            self._runner.run(self._connection.close())
        self._runner.close()


@pytest.fixture(scope="session")
def clones(database_server: str, template: str) -> Iterator[Clones]:
    with Clones(database_server, template) as clones:
        yield clones


@pytest.fixture
async def database_url(database_server: str, clones: Clones) -> AsyncIterator[str]:
    """A database of this test's own."""
    name = await clones.take()
    yield with_database(database_server, name)
    clones.give_back(name)


@pytest.fixture
async def empty_database_url(database_server: str) -> AsyncIterator[str]:
    """A database that Linkbeat has never seen."""
    name = f"linkbeat_empty_{uuid.uuid4().hex[:8]}"
    await run_on(database_server, f"CREATE DATABASE {name} TEMPLATE template0")
    yield with_database(database_server, name)
    await run_on(database_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to this test's database, to see what is stored."""
    connection = await asyncpg.connect(database_url, server_settings={"timezone": "UTC"})
    yield connection
    await connection.close()


@pytest.fixture
async def login(database: asyncpg.Connection) -> AsyncIterator[str]:
    """A person's own login, with its name for a password; it has no rights yet."""
    name = f"linkbeat_test_{uuid.uuid4().hex[:8]}"
    await database.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
    yield name
    await database.execute(f"RESET ROLE; DROP OWNED BY {name}; DROP ROLE {name}")


# What the service asks now and then, whoever asks what of it.
BY_ITSELF = (
    cache.RECEIVED, agent_config.CHANGED, tokens.CHANGED, ended_sessions.CHANGED, series_links.CHANGED, removal.PENDING,
)  # fmt: skip


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[LoggedQuery]:
    """Every statement that requests send to the database by a service's pools: ask for this before `service`."""
    sent: list[LoggedQuery] = []
    create_pool = asyncpg.create_pool

    def log(statement: LoggedQuery) -> None:
        # Those of alerts come from tasks in the background, as the others that are left out.
        if statement.query not in BY_ITSELF and not re.search(
            r"alert|claim_deliveries|oldest_undelivered", statement.query
        ):
            sent.append(statement)

    def logging_pool(*arguments: Any, init: Callable[[asyncpg.Connection], Awaitable[None]], **more: Any) -> Any:
        async def logged(connection: asyncpg.Connection) -> None:
            await init(connection)
            connection.add_query_logger(log)

        return create_pool(*arguments, init=logged, **more)

    monkeypatch.setattr(asyncpg, "create_pool", logging_pool)
    return sent


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    # Tests send more wrong tokens than anyone may.
    return Settings(api_key=KEY, data_dir=str(tmp_path), failed_tokens_per_minute=1_000_000)


@pytest.fixture
async def service(database_url: str, settings: Settings) -> AsyncIterator[Client]:
    """The service on this test's database, in this process; requests carry the fleet key."""
    async with in_process(create_app(settings, database_url=database_url, key=KEY)) as client:
        yield client


@asynccontextmanager
async def in_process(app: Litestar) -> AsyncIterator[Client]:
    """The app, alive, and who sends requests to it with the fleet key."""
    async with (
        running(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),  # type: ignore[arg-type]  # Litestar's scope types are narrower
            base_url="http://linkbeat",
            headers={"Authorization": f"Bearer {KEY}"},
        ) as http,
    ):
        yield Client(http)


@asynccontextmanager
async def running(app: Litestar) -> AsyncIterator[None]:
    """The app's lifespan, entered and left in one task, as its task group demands; a fixture may end in another."""
    started, ending = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.lifespan():
            started.set()
            await ending.wait()

    task = asyncio.create_task(live())
    await asyncio.wait([task, asyncio.create_task(started.wait())], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        ending.set()
        await task


async def run_on(url: str, *statements: str) -> None:
    """Each in a transaction of its own."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def _say(line: str) -> None:
    print(line, file=sys.__stderr__, flush=True)
