"""TimescaleDB in a Docker container: found, made, reused, stopped. Through the docker command only."""

import hashlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from service.embedded.places import make_enterable, write_private
from service.embedded.problems import EmbeddedError
from service.embedded.progress import Say

IMAGE = "timescale/timescaledb:2.29.2-pg17"
ROLE = DATABASE = "linkbeat"
SERVER_OPTIONS = ("-c", "timescaledb.telemetry_level=off", "-c", "max_locks_per_transaction=256")

TIMED_OUT = 124

# The first start runs initdb and tunes the server; on a Raspberry Pi that takes a minute.
READY_DEADLINE_SECONDS = 180.0


class DockerError(EmbeddedError):
    """Docker is there, but the container could not be brought up."""


def docker_absence() -> str | None:
    """Why Docker cannot be used, in words; None if its daemon answers."""
    if not shutil.which("docker"):
        return "Docker is not installed"
    done = _docker("info", "--format", "{{.ServerVersion}}", timeout=5)
    if done.returncode == 0 and done.stdout.strip():
        return None
    if "permission denied" in done.stderr:
        return "this user may not use Docker"
    return "the Docker daemon does not answer" if done.returncode == TIMED_OUT else "Docker is not running"


def container_name(data_dir: Path) -> str:
    """Of the container and its volume."""
    return "linkbeat-" + hashlib.sha256(os.fsencode(data_dir.absolute())).hexdigest()[:8]


class Container:
    """The container and volume of one data directory, named after it so that two never share.

    Started by us it is stopped by us; one that runs already is used and left running.
    """

    def __init__(self, data_dir: Path, say: Say) -> None:
        self.name = container_name(data_dir)
        self._password_file = data_dir / "docker-password"
        self._say = say
        self._started = False

    def start(self) -> str:
        """Bring the container to where it accepts connections; returns the URL. Raises DockerError."""
        password = self._password()
        state = _docker("inspect", "--format", "{{.State.Running}} {{.Config.Image}}", self.name)
        running, _, image = state.stdout.strip().partition(" ")
        if state.returncode == 0 and image != IMAGE:
            self._say(f"Replacing container {self.name} ({image}) with one of {IMAGE}; its volume is kept")
            self._run("rm", "--force", self.name)
        if state.returncode != 0 or image != IMAGE:
            self._pull()
            self._create(password)
        elif running != "true":
            self._run("start", self.name)
            self._started = True
        try:
            port = self._await_ready()
            if state.returncode == 0 and image != IMAGE:
                self._update_extension()
        except BaseException:
            self.stop()
            raise
        return f"postgresql://{ROLE}:{password}@127.0.0.1:{port}/{DATABASE}"

    def stop(self) -> None:
        """Stop the container if we started it; its volume keeps the data."""
        if self._started:
            self._started = False
            # 60 seconds for the shutdown checkpoint before Docker kills the server.
            _docker("stop", "--time", "60", self.name, timeout=90)

    @property
    def has_volume(self) -> bool:
        """Whether Docker holds data of an earlier start."""
        return _docker("volume", "inspect", self.name).returncode == 0

    @property
    def psql(self) -> list[str]:
        """Arguments that open a session with the container's own psql, which gets PGOPTIONS from our environment."""
        terminal = ["--tty"] if sys.stdin.isatty() else []
        session = ("--interactive", *terminal, "--env", "PGOPTIONS")
        return ["docker", "exec", *session, self.name, "psql", "-U", ROLE, "-d", DATABASE]

    def _create(self, password: str) -> None:
        self._run(
            *("run", "--detach", "--name", self.name, "--shm-size", "256m"),
            *("--publish", "127.0.0.1::5432", "--volume", f"{self.name}:/var/lib/postgresql/data"),
            *("--env", f"POSTGRES_USER={ROLE}", "--env", f"POSTGRES_DB={DATABASE}"),
            # Named only, and taken from docker's environment: an argument would show in `ps`.
            *("--env", "POSTGRES_PASSWORD", IMAGE, "postgres", *SERVER_OPTIONS),
            environment={"POSTGRES_PASSWORD": password},
        )
        self._started = True

    def _pull(self) -> None:
        if _docker("image", "inspect", IMAGE).returncode == 0:
            return
        self._say(f"Pulling {IMAGE}")
        # Docker draws its own progress on a terminal.
        if subprocess.run(["docker", "pull", IMAGE], stdin=subprocess.DEVNULL, check=False).returncode != 0:
            raise DockerError(f"Docker could not pull {IMAGE}", f"Make `docker pull {IMAGE}` work")

    def _await_ready(self) -> int:
        deadline = time.monotonic() + READY_DEADLINE_SECONDS
        while time.monotonic() < deadline:
            # Over TCP: while the image sets itself up, its server listens on the socket alone.
            ready = _docker("exec", self.name, "pg_isready", "-h", "127.0.0.1", "-U", ROLE, "-d", DATABASE)
            port = _docker("port", self.name, "5432/tcp").stdout.partition("\n")[0].rpartition(":")[2].strip()
            if ready.returncode == 0 and port.isdigit() and _listens(int(port)):
                return int(port)
            time.sleep(0.5)
        log = _docker("logs", "--tail", "5", self.name)
        raise DockerError(
            f"Container {self.name} accepts no connections on this machine: {(log.stdout + log.stderr).strip()}",
            f"See `docker logs {self.name}`; a daemon on another machine (DOCKER_HOST) cannot be used",
        )

    def _update_extension(self) -> None:
        sql = "ALTER EXTENSION timescaledb UPDATE"
        self._run("exec", self.name, "psql", "-X", "-U", ROLE, "-d", DATABASE, "-c", sql)

    def _password(self) -> str:
        """The password that the volume was made with, generated at first."""
        if self._password_file.exists():
            return self._password_file.read_text(encoding="ascii").strip()
        make_enterable(self._password_file.parent)
        password = secrets.token_hex(24)
        write_private(None, self._password_file, password + "\n")
        return password

    def _run(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        done = _docker(*arguments, timeout=120, environment=environment)
        if done.returncode != 0:
            raise DockerError(f"`docker {arguments[0]}` failed: {done.stderr.strip()}", "Fix the problem with Docker")


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return True
    except OSError:
        return False


def _docker(
    *arguments: str, timeout: float = 30, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["docker", *arguments],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(["docker", *arguments], TIMED_OUT, "", f"no result within {timeout:.0f} s")
