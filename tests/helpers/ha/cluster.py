"""Three PostgreSQL nodes under Patroni, with etcd and HAProxy, on the loopback address: to be killed and cut off.

The settings of the cluster are those of deploy/ha/patroni.yml, except for what is named here.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import asyncpg
import httpx
import yaml  # type: ignore[import-untyped]

from service.database import schema
from service.embedded.accounts import give_to, program_environment, signal_as
from service.embedded.guarded import Guarded
from service.embedded.places import reachable_directory
from service.embedded.postmaster import processes_in
from tests.helpers.ha.gates import Gate, Network
from tests.helpers.ha.programs import Programs, programs
from tests.helpers.processes import free_port

DEPLOYED = Path(__file__).parents[3] / "deploy" / "ha"
SUPERUSER, PASSWORD = "postgres", "drill"
DATABASE = "linkbeat"
# Outer limits: the machine may be busy with other work.
START_SECONDS = 180.0
SMALL = {
    "shared_buffers": "64MB",
    "max_connections": 60,
    "timescaledb.max_background_workers": 4,
    "timescaledb.telemetry_level": "off",
    "max_worker_processes": 12,
    "max_wal_size": "512MB",
    "jit": "off",
    "timezone": "UTC0",
    "log_timezone": "UTC0",
}


class Node:
    """One machine: Patroni with its PostgreSQL.

    port, rest      where PostgreSQL and Patroni's REST listen; clients and HAProxy reach them there
    gate, rest_gate, etcd_gate   the ways on which the other nodes reach them, and this node etcd
    """

    def __init__(self, cluster: "HaCluster", number: int) -> None:
        self._cluster = cluster
        self.name = f"node{number}"
        self.directory = cluster.directory / self.name
        self.directory.mkdir()
        give_to(cluster.programs.account, self.directory)
        self.data_dir = self.directory / "data"
        self.port, self.rest = free_port(), free_port()
        self.gate: Gate = cluster.network.gate(self.port)
        self.rest_gate: Gate = cluster.network.gate(self.rest)
        self.etcd_gate: Gate = cluster.network.gate(cluster.etcd_port)
        self.patroni: Guarded | None = None
        self._stopped: list[int] = []
        self.tags: dict[str, bool] = {}
        self.parameters: dict[str, str] = {}  # of this node's PostgreSQL alone

    def start(self) -> None:
        """Starts Patroni, and returns at once."""
        account = self._cluster.programs.account
        config = self.directory / "patroni.yml"
        config.write_text(yaml.safe_dump(self._config()), encoding="utf-8")
        if account is not None:
            os.chown(config, account.uid, account.gid)
        # Each start's log: the guard removes an older one.
        log = self.directory / f"patroni-{time.monotonic_ns()}.log"
        self.patroni = Guarded(
            [self._cluster.programs.patroni, config],
            program_environment() | {"PATRONICTL_CONFIG_FILE": str(config)},
            first=signal.SIGTERM,
            last=signal.SIGKILL,
            log=log,
            account=account,
            cwd=Path("/"),
        )

    def processes(self) -> list[int]:
        """Every process of the node: Patroni, and all that works in its data directory."""
        found = processes_in(self.data_dir, self._cluster.programs.account) if self.data_dir.exists() else []
        if self.patroni is not None and not self.patroni.has_ended:
            found.append(self.patroni.pid)
        return found

    @property
    def postmaster(self) -> int:
        return int((self.data_dir / "postmaster.pid").read_text(encoding="ascii").split("\n")[0])

    def signal(self, number: int, pids: Sequence[int] | None = None) -> None:
        """To these of its processes, or to all."""
        signal_as(self._cluster.programs.account, number, self.processes() if pids is None else pids)

    def kill(self) -> None:
        """kill -9 of Patroni and the postmaster; returns when PostgreSQL's children have followed them."""
        assert self.patroni is not None
        self.signal(signal.SIGKILL, [self.patroni.pid, self.postmaster])
        self.patroni.wait(30)
        deadline = time.monotonic() + 60
        while left := self.processes():
            if time.monotonic() > deadline - 30:
                self.signal(signal.SIGKILL, left)
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
        (self.data_dir / "postmaster.pid").unlink(missing_ok=True)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """SIGSTOP to all its processes, twice for those that the first ones had just started; then SIGCONT."""
        for _ in range(2):
            self.stop_processes(self.processes())
        try:
            yield
        finally:
            self.go_on()

    def stop_processes(self, pids: Sequence[int]) -> None:
        """SIGSTOP to these."""
        self.signal(signal.SIGSTOP, pids)
        self._stopped += pids

    def go_on(self) -> None:
        """SIGCONT to all that were stopped."""
        self.signal(signal.SIGCONT, self._stopped)
        self._stopped.clear()

    def end(self) -> None:
        """Ends the node in order, or by force."""
        if self._stopped:
            self.go_on()
        if self.patroni is not None and not self.patroni.has_ended:
            self.signal(signal.SIGTERM, [self.patroni.pid])
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.patroni.wait(30)
        for _ in range(50):
            if not (left := self.processes()):
                break
            self.signal(signal.SIGKILL, left)
            time.sleep(0.1)
        if self.patroni is not None:
            self.patroni.wait(10)

    @property
    def log(self) -> str:
        """What Patroni and PostgreSQL have written."""
        return "".join(one.read_text(errors="replace") for one in sorted(self.directory.glob("*.log")))

    def url(self, database: str = DATABASE) -> str:
        """This node alone, whatever its role."""
        return f"postgresql://{SUPERUSER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    async def status(self) -> dict[str, Any]:
        """What its Patroni says (`role`, `state`, `timeline` …); {} if it does not answer."""
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=2) as http:
                found: dict[str, Any] = (await http.get(f"http://127.0.0.1:{self.rest}/patroni")).json()
                return found
        except (httpx.HTTPError, ValueError):
            return {}

    def _config(self) -> dict[str, Any]:
        deployed = yaml.safe_load((DEPLOYED / "patroni.yml").read_text(encoding="utf-8"))
        dcs = deployed["bootstrap"]["dcs"] | self._cluster.dcs
        dcs["postgresql"]["parameters"] |= SMALL
        account = {"username": SUPERUSER, "password": PASSWORD}
        config: dict[str, Any] = deployed | {
            "name": self.name,
            "restapi": {
                "listen": f"127.0.0.1:{self.rest}",
                "connect_address": f"127.0.0.1:{self.rest_gate.port}",
            },
            "etcd3": {"hosts": f"127.0.0.1:{self.etcd_gate.port}"},
            "bootstrap": {
                "dcs": dcs,
                "initdb": [
                    "data-checksums",
                    {"encoding": "UTF8"},
                    {"locale-provider": "builtin"},
                    {"locale": "C.UTF-8"},
                ],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}",
                "connect_address": f"127.0.0.1:{self.gate.port}",
                "data_dir": str(self.data_dir),
                "bin_dir": str(self._cluster.programs.postgres_bin),
                "pgpass": str(self.directory / "pgpass"),
                "authentication": {"superuser": account, "replication": account, "rewind": account},
                "parameters": {"unix_socket_directories": str(self.directory), **self.parameters},
                "pg_hba": [
                    "host all all 127.0.0.1/32 scram-sha-256",
                    "host replication all 127.0.0.1/32 scram-sha-256",
                ],
            },
            "watchdog": {"mode": "off"},  # the drills' machine has none
            "tags": self.tags,
        }
        return config


class HaCluster:
    """`with HaCluster.made(…) as cluster:` three nodes that replicate, and Linkbeat's schema in them."""

    def __init__(self, directory: Path, network: Network, dcs: dict[str, Any]) -> None:
        self.programs: Programs = programs()
        self.directory = directory
        self.network = network
        self.dcs = dcs
        self.etcd_port, self._etcd_peer = free_port(), free_port()
        self._etcd: Guarded | None = None
        self._haproxy: Guarded | None = None
        self.haproxy_port = free_port()
        self.nodes = [Node(self, number) for number in (1, 2, 3)]

    @classmethod
    @contextlib.contextmanager
    def made(cls, **dcs: Any) -> Iterator[Self]:
        """Everything started, the schema migrated; ended and removed afterwards. `dcs` overrides Patroni's settings."""
        with reachable_directory() as directory, Network() as network:
            cluster = cls(directory, network, dcs)
            print(cluster.programs.versions)
            try:
                cluster.start()
                asyncio.run(schema.migrate(cluster.url, print))
                yield cluster
            finally:
                cluster.end()

    def start(self) -> None:
        """Brings all of it up; returns when there are a primary and two standbys that stream."""
        self.start_etcd()
        for node in self.nodes:
            node.start()
        asyncio.run(self.healthy())
        self._start_haproxy()
        asyncio.run(self._create_database())

    def end(self) -> None:
        """Ends all of it, the nodes at the same time."""
        with contextlib.suppress(Exception):
            self.start_etcd()  # without it, a node waits for long
        for node in self.nodes:
            if node._stopped:
                node.go_on()
            if node.patroni is not None and not node.patroni.has_ended:
                node.signal(signal.SIGTERM, [node.patroni.pid])
        for node in self.nodes:
            node.end()
        for guarded in (self._haproxy, self._etcd):
            if guarded is not None and not guarded.has_ended:
                signal_as(self.programs.account, signal.SIGKILL, [guarded.pid])
                guarded.wait(10)

    @property
    def url(self) -> str:
        """The primary, by HAProxy."""
        return f"postgresql://{SUPERUSER}:{PASSWORD}@127.0.0.1:{self.haproxy_port}/{DATABASE}"

    def hosts_url(self, *first: str) -> str:
        """All nodes in one URL; `first` stand before them as host:port."""
        hosts = ",".join([*first, *(f"127.0.0.1:{node.port}" for node in self.nodes)])
        return f"postgresql://{SUPERUSER}:{PASSWORD}@{hosts}/{DATABASE}"

    async def primary(self, within_seconds: float = START_SECONDS, *, other_than: Node | None = None) -> Node:
        """The node whose Patroni says that it is the primary, and runs."""
        deadline = time.monotonic() + within_seconds
        while True:
            for node in self.nodes:
                if node is other_than:
                    continue
                status = await node.status()
                if status.get("role") in ("primary", "master") and status.get("state") == "running":
                    return node
            assert time.monotonic() < deadline, self.logs()
            await asyncio.sleep(0.2)

    async def standbys(self) -> list[Node]:
        primary = await self.primary()
        return [node for node in self.nodes if node is not primary]

    async def healthy(self, within_seconds: float = START_SECONDS, *, standbys: int = 2) -> Node:
        """The primary, once so many standbys stream from it, and in quorum where the cluster is synchronous."""
        deadline = time.monotonic() + within_seconds
        while True:
            primary = await self.primary(within_seconds)
            states = []
            with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection = await asyncpg.connect(primary.url("postgres"), timeout=5)
                try:
                    rows = await connection.fetch("SELECT application_name, state, sync_state FROM pg_stat_replication")
                    states = [tuple(row) for row in rows if row["state"] == "streaming"]
                    names = await connection.fetchval("SHOW synchronous_standby_names")
                finally:
                    connection.terminate()
                is_synchronous = self.dcs.get("synchronous_mode", "quorum") != "off"
                named = names.count("node") if is_synchronous else standbys
                if len(states) >= standbys and named >= standbys:
                    return primary
            assert time.monotonic() < deadline, f"{states}\n{self.logs()}"
            await asyncio.sleep(0.3)

    def start_etcd(self) -> None:
        if self._etcd is not None and not self._etcd.has_ended:
            return
        data = self.directory / "etcd"
        if not data.exists():
            data.mkdir()
            give_to(self.programs.account, data)
        peer, client = f"http://127.0.0.1:{self._etcd_peer}", f"http://127.0.0.1:{self.etcd_port}"
        self._etcd = Guarded(
            [
                self.programs.etcd, "--name", "etcd1", "--data-dir", data / "data",
                "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"etcd1={peer}",
            ],
            program_environment(), first=signal.SIGTERM, log=data / "etcd.log", account=self.programs.account,
            cwd=Path("/"),
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{client}/health", trust_env=False, timeout=2).json().get("health") == "true":
                    return
            assert time.monotonic() < deadline, (data / "etcd.log").read_text()
            time.sleep(0.2)

    def stop_etcd(self) -> None:
        """kill -9."""
        assert self._etcd is not None
        signal_as(self.programs.account, signal.SIGKILL, [self._etcd.pid])
        self._etcd.wait(10)

    def ctl(self, *arguments: str) -> str:
        """`patronictl …`; what it printed. Raises AssertionError where it fails."""
        config = self.directory / "ctl.yml"
        config.write_text(
            yaml.safe_dump({"scope": "linkbeat", "etcd3": {"hosts": f"127.0.0.1:{self.etcd_port}"}}), encoding="utf-8"
        )
        done = subprocess.run(
            [str(self.programs.patronictl), "-c", str(config), *arguments],
            env=program_environment(), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def configure(self, **settings: Any) -> None:
        """Changes the cluster's dynamic configuration (`patronictl edit-config`)."""
        self.dcs = self.dcs | settings
        changes = [f"--set={name}={json.dumps(value)}" for name, value in settings.items()]
        self.ctl("edit-config", "linkbeat", "--force", "--quiet", *changes)

    def logs(self) -> str:
        """The end of each node's log."""
        return "\n".join(f"== {node.name}\n{node.log[-3000:]}" for node in self.nodes)

    def _start_haproxy(self) -> None:
        directory = self.directory / "haproxy"
        directory.mkdir()
        give_to(self.programs.account, directory)
        text = (DEPLOYED / "haproxy.cfg").read_text(encoding="utf-8")
        text = text.replace("*:5000", f"127.0.0.1:{self.haproxy_port}").replace("*:5001", f"127.0.0.1:{free_port()}")
        for number, node in enumerate(self.nodes, 1):
            deployed = rf"(server {node.name}) 10\.0\.0\.1{number}:5432 (.*) port 8008"
            text = re.sub(deployed, rf"\1 127.0.0.1:{node.port} \2 port {node.rest}", text)
        text = re.sub(r"^ *(user|group) .*\n", "", text, flags=re.MULTILINE)  # it runs as its account already
        config = directory / "haproxy.cfg"
        config.write_text(text, encoding="utf-8")
        self._haproxy = Guarded(
            [self.programs.haproxy, "-db", "-f", config], program_environment(), first=signal.SIGTERM,
            log=directory / "haproxy.log", account=self.programs.account, cwd=Path("/"),
        )  # fmt: skip

    async def _create_database(self) -> None:
        primary = await self.primary()
        connection = await asyncpg.connect(primary.url("postgres"), timeout=10)
        try:
            await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()
        deadline = time.monotonic() + 60
        on_the_primary = 0
        # HAProxy sends connections to the standbys too until its first checks are over.
        while on_the_primary < 2 * len(self.nodes):
            try:
                connection = await asyncpg.connect(self.url, timeout=5)
                try:
                    is_standby = await connection.fetchval("SELECT pg_is_in_recovery()")
                finally:
                    connection.terminate()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                is_standby = True
            on_the_primary = 0 if is_standby else on_the_primary + 1
            if is_standby:
                assert time.monotonic() < deadline, (self.directory / "haproxy" / "haproxy.log").read_text()
                await asyncio.sleep(0.5)
